"""Label selectors as text (kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors)."""

import re
from collections.abc import Callable, Mapping

LabelSelector = Callable[[Mapping[str, str]], bool]
"""Whether labels are selected."""

_SPACE = " \t\r\n"
"""What Kubernetes takes for a space (k8s.io/apimachinery/pkg/labels, isWhitespace)."""

_S = r"[ \t\r\n]"
_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_.]*"
_COMPARISON = re.compile(rf"(?P<key>{_KEY}){_S}*(?P<operator>==|=|!=){_S}*(?P<value>{_VALUE})")
_MEMBERSHIP = re.compile(
    rf"(?P<key>{_KEY}){_S}+(?P<operator>in|notin){_S}*\((?P<values>{_S}*{_VALUE}({_S}*,{_S}*{_VALUE})*{_S}*)\)"
)
_EXISTENCE = re.compile(rf"(?P<operator>!?){_S}*(?P<key>{_KEY})")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


def pattern() -> str:
    """Return a regular expression, as Go and JavaScript know it too, of the whole of what ``parse`` reads."""
    kinds = "|".join(re.sub(r"\?P<\w+>", "", kind.pattern) for kind in (_COMPARISON, _MEMBERSHIP, _EXISTENCE))
    return f"^{_S}*(({kinds})({_S}*,{_S}*({kinds}))*)?{_S}*$"


def parse(text: str) -> LabelSelector:
    """Return the selector that a text such as ``tier=web,team in (a, b),!legacy`` stands for; empty selects all.

    Raises ValueError that quotes the part which is no requirement.
    """
    parts = [part.strip(_SPACE) for part in _COMMA_OUTSIDE_PARENTHESES.split(text)] if text.strip(_SPACE) else []
    requirements = [_requirement(part) for part in parts]
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _requirement(text: str) -> LabelSelector:
    if match := _COMPARISON.fullmatch(text):
        key, operator, value = match["key"], match["operator"], match["value"]
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _MEMBERSHIP.fullmatch(text):
        key, operator = match["key"], match["operator"]
        values = frozenset(value.strip(_SPACE) for value in match["values"].split(","))
        if operator == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    if match := _EXISTENCE.fullmatch(text):
        key, wanted = match["key"], not match["operator"]
        return lambda labels: (key in labels) == wanted
    raise ValueError(f"unable to parse requirement: {text!r}")
