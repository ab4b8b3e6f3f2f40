"""Reads YAML that a person wrote into plain data, and says by line what is wrong with it.

Stricter than safe loading: a key that is there twice, a key that YAML 1.1 does not read as text (``on``, ``1``), a
value that JSON does not know (a date, a set, infinity), a number that nobody means (to base 60, or of hundreds of
digits) and anything that would not be written back as it was read are errors. Anchors, aliases and merge keys (``<<``)
work, within a bound on what they expand to.
"""

from typing import Any

import yaml

from dynamic_toolset.settings import MISFITS, YamlLoader
from dynamic_toolset.toolset.loadable import MAX_DEPTH, key_problem, scalar_problem

MAX_BYTES = 256 * 1024
"""The longest text that is read, in UTF-8."""

MAX_VALUES = 30_000
MAX_CHARACTERS = 1_000_000
"""How many values and keys there may be in all, and characters of them, once aliases are expanded. Reading, merging and
writing that many takes a third of a second, in which the event loop stands still."""

MAX_NUMBER = 100
"""Characters of a number: 64 binary digits in groups fit in."""

MAX_SHOWN = 40
MAX_PATH = 400
"""Characters of a text, and of a path, that an error shows."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_SCALARS = frozenset(_TAG + word for word in ("str", "int", "float", "bool", "null"))
_NUMBERS = frozenset({_TAG + "int", _TAG + "float"})


class YamlError(ValueError):
    """The text cannot be used. ``line`` counts from 1; ``path`` names the value, and is empty for the whole text.

    The message is one printable line, and not much longer than what it says.
    """

    def __init__(self, line: int, path: str, why: str) -> None:
        path = path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}..."
        why = printable(why)
        super().__init__(f"{line}: {path}: {why}" if path else f"{line}: {why}")


def read(text: str) -> Any:
    """Return the plain data of a text of at most one YAML document; None for one without content.

    Raises YamlError.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise YamlError(1, "", "the text contains half of a surrogate pair, which is no character") from None
    if size > MAX_BYTES:
        raise YamlError(1, "", f"{size} bytes; at most {MAX_BYTES} are read")
    try:
        return _Reader(text).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(mark.line + 1 if mark else 1, "", f"not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        raise YamlError(1, "", f"not valid YAML: {' '.join(str(error).split())}") from None


def printable(text: str) -> str:
    """Return a text with ``?`` for what cannot be printed."""
    return "".join(character if character.isprintable() else "?" for character in text)


def shown(text: str) -> str:
    """Return what an error shows of a text that somebody wrote: its beginning, in printable characters."""
    return printable(text[:MAX_SHOWN])


def line_of(text: str, path: str) -> int:
    """Return the line of a value by its path, such as ``toolsets.grafana/loki.config``, in a text that can be read.

    Inside an alias it is the alias's line. The text is read again: only who has found a mistake needs to know.
    """
    reader = _Reader(text, path)
    reader.read()
    return reader.line


class _Reader:
    """One pass over the parser's events: PyYAML's own composer recurses, and keeps neither lines nor duplicates."""

    def __init__(self, text: str, sought: str = "") -> None:
        self._loader = YamlLoader(text)
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._values = self._characters = 0
        self._sought = sought
        self.line = 1

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

    def _visit(self, event: yaml.Event, path: str) -> None:
        # Those on the way to what is sought come one after another, so that the last one is the nearest.
        if f"{self._sought}.".startswith((f"{path}.", f"{path}[")):
            self.line = _line(event)

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
            raise YamlError(
                _line(event), path, f"the alias *{shown(str(event.anchor))} has no anchor before it, or stands in it"
            )
        value, values, characters = self._anchors[event.anchor]
        self._spend(values, characters, event, path)
        if depth + _height(value) > MAX_DEPTH:
            raise YamlError(_line(event), path, f"nested more than {MAX_DEPTH} deep")
        return value

    def _sequence(self, start: yaml.Event, path: str, depth: int) -> list[Any]:
        _check_tag(start, "seq", path)
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            member = f"{path}[{len(values)}]"
            self._visit(event, member)
            values.append(self._value(event, member, depth + 1))
        return values

    def _mapping(self, start: yaml.Event, path: str, depth: int) -> dict[str, Any]:
        _check_tag(start, "map", path)
        own: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and self._tag(event) == _MERGE:
                self._merge(inherited, path, depth)
                continue
            key = self._key(event, path)
            member = f"{path}.{key}" if path else key
            if key in own:
                raise YamlError(_line(event), member, f"this name is there twice, first in line {lines[key]}")
            self._visit(event, member)
            lines[key] = _line(event)
            own[key] = self._value(self._next(), member, depth + 1)
        return {**inherited, **own}

    def _merge(self, inherited: dict[str, Any], path: str, depth: int) -> None:
        """Read what follows a ``<<``: of several mappings in it the first wins, of several ``<<`` the last."""
        event = self._next()
        value = self._value(event, f"{path}.<<", depth)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(mapping, dict) for mapping in mappings):
            raise YamlError(_line(event), path, "the merge key << takes a mapping, or a list of mappings")
        for mapping in reversed(mappings):
            self._spend(len(mapping), 0, event, path)
            inherited.update(mapping)

    def _key(self, event: yaml.Event, path: str) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError(_line(event), path, "a name must be text, not a list, a mapping or an alias")
        tag = self._tag(event)
        if tag != _TAG + "str":
            name, kind = shown(event.value), shown(tag.removeprefix(_TAG))
            why = f'YAML reads the name {name} as {kind}, not as text: put it in quotes, "{name}"'
            raise YamlError(_line(event), path, why)
        why_not = key_problem(event.value)
        if why_not:
            raise YamlError(_line(event), path, why_not)
        self._spend(1, len(event.value), event, path)
        return event.value

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> Any:
        tag = self._tag(event)
        value, kind = shown(event.value), shown(tag.removeprefix(_TAG))
        if tag not in _SCALARS:
            why = f"{value} is a value of type {kind}, which is not allowed: put it in quotes to make it text"
            raise YamlError(_line(event), path, why)
        self._spend(0, len(event.value), event, path)
        if tag in _NUMBERS and ":" in event.value:
            # 12:30:45 is 45045 to YAML 1.1, which nobody means; long ones take PyYAML seconds, or overflow.
            why = f"YAML reads {value} as a number to base 60: put it in quotes to make it text"
            raise YamlError(_line(event), path, why)
        if tag in _NUMBERS and len(event.value) > MAX_NUMBER:
            raise YamlError(_line(event), path, f"{value} is no {kind}: put it in quotes")
        try:
            content = self._loader.construct_object(yaml.ScalarNode(tag, event.value))
        except MISFITS:
            raise YamlError(_line(event), path, f"{value} is no {kind}: put it in quotes") from None
        why_not = scalar_problem(content)
        if why_not:
            raise YamlError(_line(event), path, why_not)
        return content

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


def _check_tag(event: yaml.Event, kind: str, path: str) -> None:
    tag = getattr(event, "tag", None)
    if tag not in {None, "!", _TAG + kind}:
        raise YamlError(_line(event), path, f"the tag {shown(str(tag).removeprefix(_TAG))} is not allowed")


def _height(value: Any) -> int:
    """Return how many levels a value has below itself."""
    if isinstance(value, dict):
        return 1 + max(map(_height, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_height, value), default=0)
    return 0


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
