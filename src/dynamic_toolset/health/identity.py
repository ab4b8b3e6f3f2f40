"""Whether an answer proves which product gave it: pure.

What went wrong is said without a word of the answer itself: it was written by whoever runs the backend, and the
reason is read by people and by agents.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from dynamic_toolset.model import Identity


class Answer(Struct, frozen=True):
    """What a backend answered. ``headers`` finds a name in any case; ``body`` may be cut off."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def mismatch(identity: Identity, answer: Answer) -> str | None:
    """Return None if every condition of ``identity`` holds, else the first that does not, in a few words."""
    if answer.status not in identity.status:
        return f"HTTP {answer.status}"
    for name, pattern in identity.headers.items():
        if name not in answer.headers:
            return f"no header {name}"
        if not _compiled(pattern).fullmatch(answer.headers[name]):
            return f"header {name} is not as expected"
    if identity.body is not None and not _compiled(identity.body).search(answer.body.decode(errors="replace")):
        return "the text is not as expected"
    return _json_mismatch(identity, answer.body) if identity.json or identity.absent else None


def _json_mismatch(identity: Identity, body: bytes) -> str | None:
    try:
        return _pointers_mismatch(identity, msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "not JSON"


def _pointers_mismatch(identity: Identity, document: Any) -> str | None:
    for pointer, pattern in identity.json.items():
        value = _lookup(document, pointer)
        if value is _NOTHING:
            return f"no {pointer}"
        if not _compiled(pattern).fullmatch(_text(value)):
            return f"{pointer} is not as expected"
    for pointer in identity.absent:
        if _lookup(document, pointer) is not _NOTHING:
            return f"{pointer} is there"
    return None


_NOTHING = object()
"""Where a pointer leads nowhere: None is a value of JSON."""


def _lookup(document: Any, pointer: str) -> Any:
    """Return the value at a JSON pointer (RFC 6901), or ``_NOTHING``."""
    value = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return _NOTHING
    return value


_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile once. ``.`` takes a newline too, so that ``.*`` means "is there" for any value."""
    return re.compile(pattern, re.DOTALL)
