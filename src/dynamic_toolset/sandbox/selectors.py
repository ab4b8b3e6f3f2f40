"""Label and field selectors of lists and watches.

The syntax: kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and .../field-selectors/.
"""

import re
from collections.abc import Callable, Mapping

from dynamic_toolset.sandbox.resources import Object
from dynamic_toolset.sandbox.status import bad_request

Selector = Callable[[Object], bool]
"""Whether an object is selected."""

_FIELDS = ("metadata.name", "metadata.namespace")
_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_.]*"
_COMPARISON = re.compile(rf"(?P<key>{_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})")
_MEMBERSHIP = re.compile(
    rf"(?P<key>{_KEY})\s+(?P<operator>in|notin)\s*\((?P<values>\s*{_VALUE}(\s*,\s*{_VALUE})*\s*)\)"
)
_EXISTENCE = re.compile(rf"(?P<operator>!?)\s*(?P<key>{_KEY})")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")
_FIELD = re.compile(r"(?P<key>[^=!]+)(?P<operator>==|=|!=)(?P<value>.*)")


def parse(labels: str, fields: str) -> Selector | None:
    """Return the selector for both parameters, or None where they select everything. Raises StatusError (400)."""
    tests = _label_tests(labels) + _field_tests(fields)
    if not tests:
        return None
    return lambda obj: all(test(obj) for test in tests)


def _label_tests(text: str) -> list[Selector]:
    parts = [part.strip() for part in _COMMA_OUTSIDE_PARENTHESES.split(text)] if text.strip() else []
    return [_on_labels(_requirement(part)) for part in parts]


def _on_labels(requirement: Callable[[Mapping[str, str]], bool]) -> Selector:
    return lambda obj: requirement(obj["metadata"].get("labels") or {})


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _COMPARISON.fullmatch(text):
        key, operator, value = match["key"], match["operator"], match["value"]
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _MEMBERSHIP.fullmatch(text):
        key, operator = match["key"], match["operator"]
        values = frozenset(value.strip() for value in match["values"].split(","))
        if operator == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    if match := _EXISTENCE.fullmatch(text):
        key, wanted = match["key"], not match["operator"]
        return lambda labels: (key in labels) == wanted
    raise bad_request(f"unable to parse requirement: {text!r}")


def _field_tests(text: str) -> list[Selector]:
    return [_field_test(part) for part in text.split(",")] if text else []


def _field_test(text: str) -> Selector:
    match = _FIELD.fullmatch(text)
    if not match:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    if match["key"] not in _FIELDS:
        known = ", ".join(f'"{field}"' for field in _FIELDS)
        raise bad_request(f'"{match["key"]}" is not a known field selector: only {known}')
    field, value, equal = match["key"].removeprefix("metadata."), match["value"], match["operator"] != "!="
    return lambda obj: (obj["metadata"].get(field, "") == value) == equal
