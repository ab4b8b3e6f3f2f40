"""Makes of what an event holds what may be written: plain values, of bounded size, without secrets.

Nothing in here raises, whatever an event holds. What it costs is bounded, too: of a text :data:`MAX_TEXT` characters
are kept, of all values together :data:`MAX_VALUES`.

A secret is known by the name of its field, or by what stands around it in a text: ``Authorization: Bearer ...``,
``password=...``, the user's part of a URL, a JSON web token, a private key. This is the second line of defence: the
first one is that nobody logs a secret.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from structlog.types import EventDict, WrappedLogger

HIDDEN = "[hidden]"

MAX_TEXT = 4000
"""Characters of a text that are written."""

MAX_TRACEBACK = 16_000
"""Characters of a traceback that are written: its beginning, and more of its end, where the error is."""

MAX_VALUES = 500
"""Values of an event that are written, however they are nested."""

MAX_DEPTH = 6

_LOOK_AHEAD = 4000
"""Characters beyond the bound that are looked at: what is cut off may be what shows that the rest is secret."""


def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event with nothing but plain values in it, none of them a secret (a processor of structlog)."""
    room = _Room()
    return {
        name: value
        if value is None or value is True or value is False
        else traceback(value)
        if name == "exception" and isinstance(value, str)
        else room.plain(name, value)
        for name, value in event.items()
    }


# --- Values ---------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"token|passw|passphrase|secret|authorization|api[-_ ]?key|credential|cookie|private[-_ ]?key|bearer", re.IGNORECASE
)


@lru_cache(maxsize=1024)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.search(name[:MAX_TEXT]) is not None


class _Room:
    """How many values of one event may still be written."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def plain(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return what is written for a value. Yes, no and nothing are no secret, whatever their name."""
        self._left -= 1
        if value is None or value is True or value is False:
            return value
        if _names_secret(name):
            return HIDDEN
        if isinstance(value, str):
            return text(value)
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**63 else text(f"{value:#x}")
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(value)
        if depth < MAX_DEPTH:
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            if isinstance(value, list | tuple | set | frozenset):
                return self._several(name, value, depth + 1)
        return text(_repr(value))

    def _mapping(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            if self._left <= 0:
                found["..."] = f"{len(values)} in all"
                break
            name = key if isinstance(key, str) else _repr(key)
            found[text(name)] = self.plain(name, value, depth)
        return found

    def _several(self, name: str, values: Any, depth: int) -> list[Any]:
        found: list[Any] = []
        for value in values:
            if self._left <= 0:
                found.append(f"... {len(values)} in all")
                break
            found.append(self.plain(name, value, depth))
        return found


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever an object does when it is asked for its words
        return f"<{type(value).__name__}>"


# --- Texts ----------------------------------------------------------------------------------------------------------

# Each pattern reads on from where it begins, without going back: the time is in proportion to the length.
_ASSIGNED = re.compile(
    r"""((?:token|passw(?:or)?d|passphrase|secret|api[-_]?key|credentials?|private[-_]?key)
        (?:["']?[ \t]{0,3}[:=]{1,2}[ \t]{0,3}|["'][ \t]{0,3},[ \t]{0,3}b?(?=["'])))
        (?:"[^"]*"?|'[^']*'?|[^\s"',;&]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_ASSIGNED_WORDS = ("token", "pass", "secret", "key", "credential")
_HEADER = re.compile(r"""((?:authorization|cookie)["']?[ \t]{0,3}[:=][ \t]{0,3}(?:b?["'])?)[^\r\n"']+""", re.IGNORECASE)
_SCHEME = re.compile(
    r"((?:bearer|basic)[ \t]+)(?!(?:tokens?|auth|authentication|authorization|realm)(?![\w.~+/=-]))[\w.~+/=-]{6,}",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(://)[^/\s?#]*@")
_DOTTED = re.compile(r"(?<![\w.-])[\w.-]{16,}+")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL)


def text(value: str) -> str:
    """Return a text without the secrets in it, and not longer than :data:`MAX_TEXT`."""
    if len(value) > MAX_TEXT:
        value = _without_secrets(value[: MAX_TEXT + _LOOK_AHEAD])
        return value[:MAX_TEXT] + "..."
    return _without_secrets(value)


def traceback(value: str) -> str:
    """Return a traceback without the secrets in it, and about :data:`MAX_TRACEBACK` long at most."""
    if len(value) > MAX_TRACEBACK:
        head = value[: MAX_TRACEBACK // 4].rpartition("\n")[0]
        tail = value[-(MAX_TRACEBACK * 3 // 4) :].partition("\n")[2]
        value = f"{head}\n...\n{tail}"
    return _without_secrets(value)


def _without_secrets(value: str) -> str:
    # Most texts are names, addresses and sentences in which nothing of all this can be. To find that out in this way
    # takes a tenth of the time that the patterns would take.
    if "PRIVATE KEY-" in value:  # before another pattern takes away the line by which it is known
        value = _PRIVATE_KEY.sub(HIDDEN, value)
    small = value.lower()
    if any(word in small for word in _ASSIGNED_WORDS):
        value = _ASSIGNED.sub(rf"\1{HIDDEN}", value)
    if "authorization" in small or "cookie" in small:
        value = _HEADER.sub(rf"\1{HIDDEN}", value)
    if "bearer" in small or "basic" in small:
        value = _SCHEME.sub(rf"\1{HIDDEN}", value)
    if "://" in value and "@" in value:
        value = _USERINFO.sub(rf"\1{HIDDEN}@", value)
    if "eyJ" in value:
        value = _DOTTED.sub(_without_web_token, value)
    return value


def _without_web_token(found: re.Match[str]) -> str:
    """Return what is left of a row of characters in which there may be a JSON web token: ``eyJ`` is ``{"``."""
    row = found[0]
    begin = row.find("eyJ")
    return row if begin < 0 or "." not in row[begin:] else row[:begin] + HIDDEN
