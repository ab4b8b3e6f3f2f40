"""Reads YAML that a person wrote into plain data, and says by line what is wrong with it.

Stricter than safe loading: a key that is there twice, a key that YAML 1.1 does not read as text (``on``, ``1``), a
value that JSON does not know (a date, a set, infinity), a number that nobody means (to base 60, or of hundreds of
digits) and anything that would not be written back as it was read are errors. Anchors, aliases and merge keys (``<<``)
work, within a bound on what they expand to. Whatever a text holds, it is read in bounded time and memory, and all its
mistakes are told at once, as far as one does not hide the next.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import yaml

YamlLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe loading, with libyaml where it is there: ten times faster."""

MISFITS = (ValueError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises, beside its own errors, for a value that does not fit its tag: ``!!int abc``, ``!!bool abc``,
``2001-99-99``, a long ``1:1:1.5``."""

MAX_BYTES = 256 * 1024
"""The longest text that is read, in UTF-8."""

MAX_DEPTH = 32
"""How deep values may be nested. Far more than any file needs, far less than Python's recursion limit."""

MAX_KEY_LENGTH = 256
"""PyYAML reads a key only up to 1024 characters, quotes included (YAML 1.1, section 9.1.3, simple keys)."""

MAX_MISTAKES = 1000
"""How many mistakes of one text are told. Who has more has given the wrong file."""

MAX_VALUES = 30_000
MAX_CHARACTERS = 1_000_000
"""How many values and keys there may be in all, and characters of them, once aliases are expanded. Reading, merging and
writing that many takes a third of a second, in which the event loop stands still."""

MAX_NUMBER = 100
"""Characters of a number: 64 binary digits in groups fit in."""

MAX_PATH = 400
"""Characters of a path that the message of an error shows."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_SCALARS = frozenset(_TAG + word for word in ("str", "int", "float", "bool", "null"))
_NUMBERS = frozenset({_TAG + "int", _TAG + "float"})


class YamlError(ValueError):
    """The text cannot be used. ``line`` counts from 1; ``path`` names the value, and is empty for the whole text.

    The message is one printable line, and not much longer than what it says.
    """

    def __init__(self, line: int, path: str, why: str) -> None:
        why = shortened(why, 1000)
        super().__init__(f"{line}: {shortened(path, MAX_PATH)}: {why}" if path else f"{line}: {why}")
        self.line = line
        self.path = path
        self.why = why


class Parsed(NamedTuple):
    """The plain data of a text, and its mistakes in their order.

    None stands in the data for each value that is a mistake, and for the whole where that could not be read to its end.
    """

    content: Any
    mistakes: tuple[YamlError, ...]


def name_problem(name: object) -> str | None:
    """Return why a name in a mapping could not be written and read again; None if it could."""
    if not isinstance(name, str):
        return f"the name {name!r} is not text: put it in quotes"
    if len(name) > MAX_KEY_LENGTH:
        return f"a name of {len(name)} characters: at most {MAX_KEY_LENGTH} are allowed"
    if not name.isprintable():
        return f"the name {name!a} contains a character that cannot be printed"
    return None


def scalar_problem(value: object) -> str | None:
    """Return why a value that is neither mapping nor list could not be written and read again; None if it could."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        surrogate = any("\ud800" <= character <= "\udfff" for character in value)
        return "the text contains half of a surrogate pair, which is no character" if surrogate else None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else "the number does not fit into 64 bits: put it in quotes"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not a number: put it in quotes"
    return f"a value of type {type(value).__name__}: only text, numbers, true, false, lists and mappings are allowed"


NameCheck = Callable[[object], str | None]
"""Returns why a name is not allowed; None if it is."""


def read(text: str, check_name: NameCheck = name_problem) -> Any:
    """Return the plain data of a text of at most one YAML document; None for one without content.

    Raises YamlError with the first mistake.
    """
    content, mistakes = examine(text, check_name)
    if mistakes:
        raise mistakes[0]
    return content


def examine(text: str, check_name: NameCheck = name_problem) -> Parsed:
    """Return what ``read`` returns, with all mistakes, of which MAX_MISTAKES are told."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        why = "the text contains half of a surrogate pair, which is no character"
        return Parsed(None, (YamlError(_line_at(text, error.start), "", why),))
    if size > MAX_BYTES:
        return Parsed(None, (YamlError(1, "", f"{size} bytes; at most {MAX_BYTES} are read"),))
    reader = None
    try:
        reader = _Reader(text, check_name)
        return Parsed(reader.read(), tuple(reader.mistakes))
    except YamlError as error:
        last = error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        last = YamlError(mark.line + 1 if mark else 1, "", f"not valid YAML: {shortened(what)}")
    except yaml.YAMLError as error:
        last = YamlError(_line_at(text, getattr(error, "position", 0)), "", f"not valid YAML: {shortened(str(error))}")
    return Parsed(None, (*(reader.mistakes if reader else ()), last))


def lines_of(text: str, paths: Iterable[str]) -> list[int]:
    """Return the line of each value, by its path such as ``toolsets.grafana/loki.config``, or of the nearest around it.

    Inside an alias it is the alias's line. The text, which must be one that can be read, is read again: only who has
    found a mistake needs to know.
    """
    ways = [_way(path) for path in paths]
    reader = _Reader(text, name_problem, sought=frozenset(place for way in ways for place in way))
    reader.read()
    return [next((reader.lines[place] for place in way if place in reader.lines), 1) for way in ways]


def shortened(text: str, limit: int = 300) -> str:
    """Return a text for a message: in one line, of what can be printed, cut to ``limit`` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return " ".join("".join(char if char.isprintable() or char == "\n" else "?" for char in cut).split())


def _way(path: str) -> list[str]:
    """Return a path and those of all that it stands in, from the inside to the outside."""
    ends = [index for index, char in enumerate(path) if char in ".["]
    return [path, *(path[:end] for end in reversed(ends))]


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


class _Reader:
    """One pass over the parser's events: PyYAML's own composer recurses, and keeps neither lines nor duplicates.

    A mistake that leaves the structure whole is noted, and any other one is raised.
    """

    def __init__(self, text: str, check_name: NameCheck, sought: frozenset[str] = frozenset()) -> None:
        self._loader = YamlLoader(text)
        self._check_name = check_name
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._values = self._characters = 0
        self._sought = sought
        self.lines: dict[str, int] = {}
        self.mistakes: list[YamlError] = []

    def read(self) -> Any:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        value = self._value(self._next(), "", 1)
        self._next()  # the end of the document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise YamlError(_line(event), "", "a second document: only one is read")
        return value

    def _note(self, event: yaml.Event, path: str, why: str) -> None:
        if len(self.mistakes) >= MAX_MISTAKES:
            raise YamlError(_line(event), "", f"more than {MAX_MISTAKES} mistakes: the rest is not looked at")
        self.mistakes.append(YamlError(_line(event), path, why))

    def _visit(self, event: yaml.Event, path: str) -> None:
        if path in self._sought:
            self.lines.setdefault(path, _line(event))  # of a name that is there twice the first one counts

    def _next(self) -> yaml.Event:
        event: yaml.Event = self._loader.get_event()  # type: ignore[no-untyped-call]
        return event

    def _value(self, event: yaml.Event, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise YamlError(_line(event), path, f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        values, characters = self._values, self._characters
        self._spend(1, 0, event, path)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, path, depth)
        else:
            value = self._mapping(event, path, depth)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = value, self._values - values, self._characters - characters
        return value

    def _alias(self, event: yaml.AliasEvent, path: str, depth: int) -> Any:
        # An anchor is known once its value is complete, so that a value that holds itself is refused here.
        if event.anchor not in self._anchors:
            name = shortened(str(event.anchor), 40)
            self._note(event, path, f"the alias *{name} has no anchor before it, or stands in it")
            return None
        value, values, characters = self._anchors[event.anchor]
        self._spend(values, characters, event, path)
        if depth + _height(value) > MAX_DEPTH:
            raise YamlError(_line(event), path, f"nested more than {MAX_DEPTH} deep")
        return value

    def _sequence(self, start: yaml.Event, path: str, depth: int) -> list[Any]:
        self._check_tag(start, "seq", path)
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            member = f"{path}[{len(values)}]"
            self._visit(event, member)
            values.append(self._value(event, member, depth + 1))
        return values

    def _mapping(self, start: yaml.Event, path: str, depth: int) -> dict[str, Any]:
        self._check_tag(start, "map", path)
        own: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and self._tag(event) == _MERGE:
                self._merge(inherited, path, depth)
                continue
            key = self._key(event, path)
            name = "?" if key is None else key
            member = f"{path}.{name}" if path else name
            if key in own:
                self._note(event, member, f"this name is there twice, first in line {lines[key]}")
            elif key is not None:
                self._visit(event, member)
                lines[key] = _line(event)
            value = self._value(self._next(), member, depth + 1)
            if key is not None:
                own.setdefault(key, value)
        return {**inherited, **own}

    def _merge(self, inherited: dict[str, Any], path: str, depth: int) -> None:
        """Read what follows a ``<<``: of several mappings in it the first wins, of several ``<<`` the last."""
        event = self._next()
        value = self._value(event, f"{path}.<<", depth)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(mapping, dict) for mapping in mappings):
            self._note(event, path, "the merge key << takes a mapping, or a list of mappings")
        for mapping in reversed(mappings):
            if isinstance(mapping, dict):
                self._spend(len(mapping), 0, event, path)
                inherited.update(mapping)

    def _key(self, event: yaml.Event, path: str) -> str | None:
        """Return the name; None if it is a mistake."""
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError(_line(event), path, "a name must be text, not a list, a mapping or an alias")
        tag = self._tag(event)
        if tag != _TAG + "str":
            name = shortened(event.value, 40)
            why = f'YAML reads the name {name} as {_kind(tag)}, not as text: put it in quotes, "{name}"'
            self._note(event, path, why)
            return None
        why_not = self._check_name(event.value)
        if why_not:
            self._note(event, path, why_not)
            return None
        self._spend(1, len(event.value), event, path)
        return event.value

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> Any:
        tag = self._tag(event)
        shown = shortened(event.value, 40)
        if tag not in _SCALARS:
            why = f"{shown} is a value of type {_kind(tag)}, which is not allowed: put it in quotes to make it text"
            self._note(event, path, why)
            return None
        self._spend(0, len(event.value), event, path)
        if tag in _NUMBERS and ":" in event.value:
            # 12:30:45 is 45045 to YAML 1.1, which nobody means; long ones take PyYAML seconds, or overflow.
            why = f"YAML reads {shown} as a number to base 60: put it in quotes to make it text"
            self._note(event, path, why)
            return None
        if tag in _NUMBERS and len(event.value) > MAX_NUMBER:
            self._note(event, path, f"{shown} is no {_kind(tag)}: put it in quotes")
            return None
        try:
            value = self._loader.construct_object(yaml.ScalarNode(tag, event.value))
        except MISFITS:
            self._note(event, path, f"{shown} is no {_kind(tag)}: put it in quotes")
            return None
        why_not = scalar_problem(value)
        if why_not:
            self._note(event, path, why_not)
            return None
        return value

    def _tag(self, event: yaml.ScalarEvent) -> str:
        if event.tag not in {None, "!"}:
            return str(event.tag)
        return str(self._loader.resolve(yaml.ScalarNode, event.value, event.implicit))  # type: ignore[no-untyped-call]

    def _spend(self, values: int, characters: int, event: yaml.Event, path: str) -> None:
        self._values += values
        self._characters += characters
        if self._values > MAX_VALUES:
            raise YamlError(_line(event), path, f"more than {MAX_VALUES} values and names, with aliases expanded")
        if self._characters > MAX_CHARACTERS:
            raise YamlError(_line(event), path, f"more than {MAX_CHARACTERS} characters, with aliases expanded")

    def _check_tag(self, event: yaml.Event, kind: str, path: str) -> None:
        tag = getattr(event, "tag", None)
        if tag not in {None, "!", _TAG + kind}:
            self._note(event, path, f"the tag {_kind(str(tag))} is not allowed")


def _kind(tag: str) -> str:
    return shortened(tag.removeprefix(_TAG), 60)


def _height(value: Any) -> int:
    """Return how many levels a value has below itself."""
    if isinstance(value, dict):
        return 1 + max(map(_height, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_height, value), default=0)
    return 0


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
