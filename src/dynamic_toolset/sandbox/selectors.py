"""Label and field selectors of lists and watches.

The syntax: kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and .../field-selectors/.
"""

import re
from collections.abc import Callable

from dynamic_toolset.kube import selectors
from dynamic_toolset.sandbox.resources import Object
from dynamic_toolset.sandbox.status import bad_request

Selector = Callable[[Object], bool]
"""Whether an object is selected."""

_FIELDS = ("metadata.name", "metadata.namespace")
_FIELD = re.compile(r"(?P<key>[^=!]+)(?P<operator>==|=|!=)(?P<value>.*)")


def parse(labels: str, fields: str) -> Selector | None:
    """Return the selector for both parameters, or None where they select everything. Raises StatusError (400)."""
    tests = _label_tests(labels) + _field_tests(fields)
    if not tests:
        return None
    return lambda obj: all(test(obj) for test in tests)


def _label_tests(text: str) -> list[Selector]:
    try:
        selected = selectors.parse(text)
    except ValueError as error:
        raise bad_request(str(error)) from None
    return [lambda obj: selected(obj["metadata"].get("labels") or {})] if text.strip() else []


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
