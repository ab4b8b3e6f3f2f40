"""How much work a regular expression can be on a text that somebody chose to make it hard: pure.

``re`` tries one way after another. ``(a+)+b`` takes hours for 40 characters, ``a.*b`` searched in 256 KiB a minute, and
nothing else happens in the meantime. The expressions of a service type run on what a backend answers, so each is
estimated when the catalog is loaded, and refused if it could be too much. The estimate is an upper bound, and so a
little strict.
"""

import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

# The standard library's own parser has no public name since sre_parse is deprecated.
_parser: Any = importlib.import_module("re._parser")
_code: Any = importlib.import_module("re._constants")

LONGEST_TEXT = 256 * 1024
"""Characters of an answer that are looked through."""

MAX_STEPS = 200_000_000
"""A second or two, at worst."""

_LONGEST_EXACT = 10
"""How often a group may be repeated, if it is exactly so often."""

_Item = tuple[Any, Any]
"""An operation of a parsed expression and its argument."""

_CHARACTERS = frozenset({_code.LITERAL, _code.NOT_LITERAL, _code.ANY, _code.IN})
_REPEATS = frozenset({_code.MAX_REPEAT, _code.MIN_REPEAT, _code.POSSESSIVE_REPEAT})
_CATEGORIES = {
    _code.CATEGORY_DIGIT: r"\d",
    _code.CATEGORY_NOT_DIGIT: r"\D",
    _code.CATEGORY_SPACE: r"\s",
    _code.CATEGORY_NOT_SPACE: r"\S",
    _code.CATEGORY_WORD: r"\w",
    _code.CATEGORY_NOT_WORD: r"\W",
}
_ANCHORS = ([(_code.AT, _code.AT_BEGINNING)], [(_code.AT, _code.AT_BEGINNING_STRING)])
_REFUSED = {
    _code.GROUPREF: "it refers back to a group",
    _code.GROUPREF_EXISTS: "it refers back to a group",
    _code.ASSERT: "it looks ahead or behind",
    _code.ASSERT_NOT: "it looks ahead or behind",
}


class _Refused(Exception):
    pass


def unfit(expression: str, *, search: bool = False) -> str | None:
    """Return why an expression must not be matched against a hostile text, or None if it may be.

    ``search``: it is looked for everywhere in the text, instead of matched against the whole of it.
    """
    try:
        parsed = _parser.parse(expression, re.DOTALL)
        anchored = list(parsed)[:1] in _ANCHORS and not parsed.state.flags & re.MULTILINE
        estimate = _Estimate(arrivals=LONGEST_TEXT if search and not anchored else 1)
        estimate.add(list(parsed), ignore_case=bool(parsed.state.flags & re.IGNORECASE))
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    except _Refused as reason:
        return f"{reason}, which can take for ever on a hostile answer"
    if estimate.steps > MAX_STEPS:
        how = "start it with ^, or bound its repetitions as in [^}]{0,200}" if search else "keep one of its repetitions"
        return f"it can take too long on a hostile answer: {how}"
    return None


class _Estimate:
    """Adds up the steps of an expression. ``arrivals`` is in how many ways one may get to where it has been read."""

    def __init__(self, arrivals: int) -> None:
        self.arrivals = arrivals
        self.steps = 0

    def add(self, items: Sequence[_Item], *, ignore_case: bool, after: _Item | None = None) -> None:
        """Go on through ``items``, which ``after`` follows."""
        for number, (operation, argument) in enumerate(items):
            following = items[number + 1] if number + 1 < len(items) else after
            if operation in _REPEATS:
                self._repeat(*argument, ignore_case=ignore_case, after=following)
            elif operation is _code.BRANCH:
                self._either(argument[1], ignore_case=ignore_case, after=following)
            elif operation is _code.SUBPATTERN:
                _, set_flags, cleared_flags, body = argument
                if set_flags or cleared_flags:
                    raise _Refused("it changes its flags within")
                self.add(list(body), ignore_case=ignore_case, after=following)
            elif operation is _code.ATOMIC_GROUP:
                self.add(list(argument), ignore_case=ignore_case, after=following)
            elif operation in _REFUSED:
                raise _Refused(_REFUSED[operation])

    def _repeat(self, least: int, most: Any, body: Any, *, ignore_case: bool, after: _Item | None) -> None:
        items = list(body)
        most = min(int(most), LONGEST_TEXT)
        if len(items) == 1 and items[0][0] in _CHARACTERS:
            self.steps += self.arrivals * most
            if ignore_case or not _ends_before(items[0], after):
                self.arrivals *= max(1, most - least + 1)
        elif most <= 1:
            self._either([items, []], ignore_case=ignore_case, after=after)
        elif least == most <= _LONGEST_EXACT:
            self.add(items * most, ignore_case=ignore_case, after=after)
        else:
            raise _Refused("it repeats a group, not a single character or class")

    def _either(self, alternatives: Iterable[Any], *, ignore_case: bool, after: _Item | None) -> None:
        before, after_all = self.arrivals, 0
        for alternative in alternatives:
            self.arrivals = before
            self.steps += before
            self.add(list(alternative), ignore_case=ignore_case, after=after)
            after_all += self.arrivals
        self.arrivals = after_all


def _ends_before(repeated: _Item, following: _Item | None) -> bool:
    """Whether a repetition can end in one place only, because what follows is none of what is repeated."""
    return following is not None and following[0] is _code.LITERAL and not _matches(repeated, following[1])


def _matches(item: _Item, character: int) -> bool:
    """Whether one character or class matches a character."""
    operation, argument = item
    if operation is _code.IN:
        negated = argument[0][0] is _code.NEGATE
        return negated != any(_matches(member, character) for member in argument[negated:])
    if operation is _code.RANGE:
        return bool(argument[0] <= character <= argument[1])
    if operation is _code.CATEGORY:
        return re.match(_CATEGORIES[argument], chr(character)) is not None
    if operation is _code.ANY:
        return True
    return bool((argument == character) == (operation is _code.LITERAL))
