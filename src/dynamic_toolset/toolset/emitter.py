"""Writes YAML that every reader reads alike: keys sorted, every text in double quotes, no anchors, no line folding.

PyYAML's dumper is some thirty times slower, and chooses between styles by rules of its own; this is one page, and its
tests hold it against both of PyYAML's loaders.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

# JSON's escapes are YAML's too. What JSON leaves as it is and YAML does not: line breaks of YAML 1.1 (85, 2028, 2029),
# and what is not printable (YAML 1.1, section 4.1.1).
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def to_yaml(value: dict[str, Any]) -> str:
    """Return a block-style YAML text of plain data: dict with text keys, list, str, int, finite float, bool, None.

    Equal values give equal text, whatever the order of their keys.
    """
    return "".join(f"{line}\n" for line in _lines(value)) or "{}\n"


def _lines(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(value, dict):
        for key in sorted(value):
            member = value[key]
            if _fits_on_a_line(member):
                yield f"{_text(key)}: {_flow(member)}"
            else:
                yield f"{_text(key)}:"
                yield from (f"  {line}" for line in _lines(member))
    else:
        for member in value:
            if _fits_on_a_line(member):
                yield f"- {_flow(member)}"
            else:
                mark = "- "
                for line in _lines(member):
                    yield mark + line
                    mark = "  "


def _fits_on_a_line(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(member, dict | list) for member in value)
    return not isinstance(value, dict) or not value


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_flow(member) for member in value)}]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value)


def _text(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _number(value: float) -> str:
    """Return a float as YAML 1.1 reads it: it takes ``1e-07``, without a dot, for text."""
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")
