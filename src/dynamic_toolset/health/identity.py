"""Whether an answer proves which product gave it: pure.

What went wrong is said without a word of the answer itself: it was written by whoever runs the backend, and the
reason is read by people and by agents.

JSON is read no further than to where a pointer leads. What lies beside the way is skipped, not built: 256 KiB of
``[],[],`` would be 87,000 lists and cost fifteen times the time.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import astuple

from dynamic_toolset.model import Identity


class Answer(Struct, frozen=True):
    """What a backend answered. ``headers`` has names in lower case; ``body`` may be cut off."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def mismatch(identity: Identity, answer: Answer) -> str | None:
    """Return None if every condition of ``identity`` holds, else the first that does not, in a few words."""
    if answer.status not in identity.status:
        return f"HTTP {answer.status}"
    for name, pattern in identity.headers.items():
        value = answer.headers.get(name.lower())
        if value is None:
            return f"no header {name}"
        if not _compiled(pattern).fullmatch(value):
            return f"header {name} is not as expected"
    if identity.body is not None and not _compiled(identity.body).search(answer.body.decode(errors="replace")):
        return "the text is not as expected"
    return _json_mismatch(identity, answer.body) if identity.json or identity.absent else None


def _json_mismatch(identity: Identity, body: bytes) -> str | None:
    try:
        body.decode()  # what is skipped is not looked at so closely
        return _pointers_mismatch(identity, msgspec.json.decode(body, type=Raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "not JSON"


def _pointers_mismatch(identity: Identity, document: Raw) -> str | None:
    for pointer, pattern in identity.json.items():
        value = _lookup(document, pointer)
        if isinstance(value, UnsetType):
            return f"no {pointer}"
        if not _compiled(pattern).fullmatch(_text(value)):
            return f"{pointer} is not as expected"
    for pointer in identity.absent:
        if not isinstance(_lookup(document, pointer), UnsetType):
            return f"{pointer} is there"
    return None


def _lookup(document: Raw, pointer: str) -> Raw | UnsetType:
    """Return the value at a JSON pointer (RFC 6901), or UNSET if it leads nowhere."""
    value: Raw | UnsetType = document
    for token in pointer.split("/")[1:]:
        if not isinstance(value, Raw):
            break
        value = _child(value, token.replace("~1", "/").replace("~0", "~"))
    return value


def _child(value: Raw, key: str) -> Raw | UnsetType:
    try:
        return _member(key)(value)
    except msgspec.ValidationError:  # it is no object
        pass
    if not _INDEX.fullmatch(key):
        return UNSET
    try:
        items = msgspec.json.decode(value, type=list[Raw])
    except msgspec.ValidationError:  # it is no array either
        return UNSET
    return items[int(key)] if int(key) < len(items) else UNSET


@lru_cache(maxsize=1024)
def _member(key: str) -> Callable[[Raw], Raw | UnsetType]:
    """Return a function that finds the member of an object that has this name. Keys are those of the catalog."""
    try:
        only_it = msgspec.defstruct("Object", [("member", Raw | UnsetType, msgspec.field(name=key, default=UNSET))])
    except ValueError:  # the name holds what JSON escapes
        return lambda value: msgspec.json.decode(value, type=dict[str, Raw]).get(key, UNSET)
    decoder = msgspec.json.Decoder(only_it)
    return lambda value: astuple(decoder.decode(value))[0]


_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def _text(value: Raw) -> str:
    """Return a value as text: a string without its quotes, an object or an array as it was sent."""
    sent = bytes(value).strip()
    if sent.startswith((b"{", b"[")):
        return sent.decode(errors="replace")
    scalar = msgspec.json.decode(sent)
    return scalar if isinstance(scalar, str) else msgspec.json.encode(scalar).decode()


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile once. ``.`` takes a newline too, so that ``.*`` means "is there" for any value."""
    return re.compile(pattern, re.DOTALL)
