"""What is wrong with settings that somebody wrote: all of it at once, each with its place and what is allowed there."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct

from dynamic_toolset.settings.model import Settings, Unfit
from dynamic_toolset.strict_yaml import MAX_DEPTH, MAX_MISTAKES, shortened

_IN_WORDS = {
    "^[a-z0-9]([-a-z0-9]": "a name in lower case, of letters, digits and -",
    "^([a-z0-9]([-a-z0-9]": "a name in lower case, of letters, digits and -",
    "^[A-Za-z_]": "the name of an environment variable",
    "^([0-9]{1,6}": "a duration such as 500ms, 5s or 1m30s",
    "^([a-z0-9*]([-a-z0-9*]{0,61}[a-z0-9*])?/)?": "the name of a namespace, in which * stands for any text",
    "^([a-z0-9][-.a-z0-9]{0,252}/)?": "the name of a label or an annotation",
    "^([A-Za-z0-9]([-._A": "the value of a label",
    "^[^\\x00]": "the path of a file or folder",
    "^https?://": "an origin such as https://dash.example.com, without a slash at the end",
    "^(\\*\\.)?": "a host name such as grafana.example.com, or *.example.com",
}

_NOT_CONVERTED = (msgspec.ValidationError, UnicodeEncodeError)  # the latter where half of a surrogate pair is told of


class SettingsError(ValueError):
    """The settings cannot be used. The message says where, what was given and what is allowed, one problem a line."""


class SettingProblem(Struct, frozen=True):
    """A setting that is wrong (``path``, ``settings`` for all of them), what was given and what is allowed."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def problems(content: object) -> tuple[SettingProblem, ...]:
    """Return everything that is wrong with a mapping of settings, in its order; nothing if it can be used.

    Of more than MAX_MISTAKES problems it is said that there are more.
    """
    try:
        msgspec.convert(content, Settings, strict=False)
    except _NOT_CONVERTED:
        return _first(_Examination().group(content, Settings, ""), "settings")
    return ()


def problems_apart_from(content: object, absent: Collection[str], why: str) -> tuple[SettingProblem, ...]:
    """Return the same where some settings, by their paths, are not to be had: ``why`` is said of each that is given.

    The whole is called ``spec``, and text is not taken for a number or a boolean.
    """
    return _first(_Examination(frozenset(absent), why, strict=True).group(content, Settings, ""), "spec")


def _first(found: Iterator[SettingProblem], whole: str) -> tuple[SettingProblem, ...]:
    first = tuple(SettingProblem(one.path or whole, one.message) for one in islice(found, MAX_MISTAKES + 1))
    if len(first) > MAX_MISTAKES:
        return (*first[:-1], SettingProblem(whole, f"more than {MAX_MISTAKES} problems: the rest is not looked at"))
    return first


def merged_settings(values: Mapping[str, Any]) -> Settings:
    """Check a mapping against the model. Raises SettingsError with all problems."""
    try:
        return msgspec.convert(values, Settings, strict=False)
    except _NOT_CONVERTED:
        raise SettingsError("\n".join(map(str, problems(values)))) from None


class _Examination:
    """A walk along the model. Each part is converted on its own, because msgspec stops at the first problem of a whole.

    A problem of the whole has an empty path.
    """

    def __init__(self, absent: frozenset[str] = frozenset(), why: str = "", *, strict: bool = False) -> None:
        self._absent = absent
        self._why = why
        self._strict = strict

    def group(self, value: object, model: type[Struct], path: str) -> Iterator[SettingProblem]:
        if not isinstance(value, Mapping):
            yield from self._single(value, model, path)
            return
        fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
        missing = [name for name, field in fields.items() if field.required and name not in value]
        for name in missing:
            yield _problem(path, f"missing required field `{name}`")
        right: dict[str, Any] = {}
        for name, member in value.items():
            if not isinstance(name, str):
                yield _problem(path, f"the name {name!r} is not text")
            elif name not in fields:
                present = [field for field in fields if _below(path, field) not in self._absent]
                yield _problem(_below(path, name), f"unknown field `{name}`{_hint(name, present)}")
            elif _below(path, name) in self._absent:
                yield _problem(_below(path, name), self._why)
            else:
                found = False
                for problem in self._value(member, fields[name].type, _below(path, name)):
                    found = True
                    yield problem
                if not found:
                    right[name] = member
        if not missing:
            yield from self._contradictions(right, model, path, wrong=fields.keys() & value.keys() - right.keys())

    def _value(self, value: object, expected: Any, path: str) -> Iterator[SettingProblem]:
        origin, parts = get_origin(expected), get_args(expected)
        if isinstance(expected, type) and issubclass(expected, Struct):
            yield from self.group(value, expected, path)
        elif origin is tuple and isinstance(value, (list, tuple)):
            for number, member in enumerate(value):
                yield from self._value(member, parts[0], f"{path}[{number}]")
        elif origin is dict and isinstance(value, Mapping):
            for name, member in value.items():
                if isinstance(name, str):
                    yield from self._single(name, parts[0], _below(path, name))
                    yield from self._value(member, parts[1], _below(path, name))
                else:
                    yield _problem(path, f"the name {name!r} is not text")
        else:
            yield from self._single(value, expected, path)

    def _single(self, value: object, expected: Any, path: str) -> Iterator[SettingProblem]:
        if expected is Any and _is_deep(value):
            yield _problem(path, f"nested more than {MAX_DEPTH} deep")
            return
        try:
            msgspec.convert(value, expected, strict=self._strict)
        except _NOT_CONVERTED as error:
            yield _problem(path, _readable(error))

    def _contradictions(
        self, values: dict[str, Any], model: type[Struct], path: str, wrong: set[str]
    ) -> Iterator[SettingProblem]:
        """Yield what is wrong between the settings of a group, as far as those are right in themselves."""
        try:
            msgspec.convert(values, model, strict=self._strict)
        except _NOT_CONVERTED as error:
            for one in error.__cause__.found if isinstance(error.__cause__, Unfit) else ():
                if wrong.isdisjoint(one.fields):
                    yield _problem(_below(path, one.at) if one.at else path, one.message)


def _is_deep(value: object) -> bool:
    """Whether a value of which the model says nothing is nested deeper than one of a file could be.

    Somewhere beyond is the recursion limit, and whoever walks the settings would meet it at a depth of its own.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            member
            for one in level
            if isinstance(one, (dict, list))
            for member in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def in_words(pattern: str) -> str:
    """Return what fits a pattern of the model, for a person."""
    return next((words for start, words in _IN_WORDS.items() if pattern.startswith(start)), f"text like {pattern}")


def _readable(error: Exception) -> str:
    """Say it in words where the model has only a pattern."""
    if isinstance(error, UnicodeEncodeError):
        return "the text contains half of a surrogate pair, which is no character"
    message, _, _ = str(error).partition(" - at `")
    for pattern, words in _IN_WORDS.items():
        if f"matching regex {pattern!r}"[:-1] in message:
            message = f"Expected {words}"
    return message[:1].lower() + message[1:]


def _hint(name: str, fields: Collection[str]) -> str:
    near = difflib.get_close_matches(name[:60], fields, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(fields)}"


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _problem(path: str, message: str) -> SettingProblem:
    return SettingProblem(shortened(path, 500), shortened(message))
