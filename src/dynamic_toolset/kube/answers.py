# ruff: noqa: A002 - `type` is the word for what an answer is decoded to
"""What the API's answers look like, and how they are read: pure functions from bytes to values."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from dynamic_toolset.kube.errors import AnswerTooLong, ApiError, InvalidAnswer, api_error
from dynamic_toolset.kube.objects import ObjectKey

T = TypeVar("T")

MESSAGE_CHARACTERS = 1000
"""How much of an error's message is kept: it ends in logs and conditions."""

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was asked for."""


class Skipped(Struct, frozen=True):
    """An object that could not be decoded. ``key`` is None if not even its name could be read."""

    key: ObjectKey | None
    error: str


class ObjectList(Struct, Generic[T], frozen=True):
    """The objects of a list and the resourceVersion from which a watch continues it."""

    items: list[T]
    resource_version: str
    skipped: tuple[Skipped, ...] = ()


class Page(ObjectList[T], Generic[T], frozen=True):
    """A part of a list. ``first``: the list begins here, and what earlier pages said is void."""

    first: bool = True


class WatchEvent(Struct, frozen=True):
    """A change as the API tells it: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, and the object undecoded."""

    type: str
    object: Raw


class Lines:
    r"""Cuts a stream of bytes into lines, at ``\n`` only.

    Other line separators of Unicode (U+0085, U+2028) are legal inside a JSON string and must not split it. Of a line
    that has not come to its end no more than ``longest`` bytes are kept.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest: list[bytes] = []
        self._kept = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes, without empty ones.

        :raises AnswerTooLong: the one that it does not complete is too long.
        """
        head, *tail = chunk.split(b"\n")
        self._rest.append(head)
        self._kept = self._kept + len(head) if not tail else len(tail[-1])
        if self._kept > self._longest:
            raise AnswerTooLong(f"a line of more than {self._longest} bytes")
        if not tail:
            return []
        lines = [b"".join(self._rest), *tail[:-1]]
        self._rest = [tail[-1]]
        return [line for line in lines if line.strip()]


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds, or a date).

    ``now`` is the time in seconds since the epoch. None for a header that is not there or says neither.
    """
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a year or an offset of very many digits
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())


def identify(document: bytes | Raw) -> tuple[ObjectKey | None, str]:
    """Return the key and the resourceVersion of an object that may otherwise be undecodable. No name, no key."""
    try:
        metadata = _STUB.decode(document).metadata
    except UNDECODABLE:
        return None, ""
    return ObjectKey(metadata.namespace, metadata.name) if metadata.name else None, metadata.resource_version


def decode_object(answer: bytes | bytearray, type: type[T]) -> T:
    """Decode the answer that holds one object.

    :raises InvalidAnswer: it does not.
    """
    try:
        return msgspec.json.decode(answer, type=type)
    except UNDECODABLE as error:
        raise InvalidAnswer(str(error)) from error


def decode_list(answer: bytes | bytearray, type: type[T]) -> tuple[ObjectList[T], str]:
    """Decode one answer to a list, and the token that continues it, empty at the end.

    All items are decoded at once. Only if that fails is each decoded by itself, to leave out those that cannot be.

    :raises InvalidAnswer: it is no list.
    """
    skipped: list[Skipped] = []
    try:
        # mypy: the type is known only now
        whole = msgspec.json.decode(answer, type=_List[type])  # type: ignore[valid-type]
        metadata, items = whole.metadata, whole.items or []
    except UNDECODABLE:
        metadata, items, skipped = _decode_items(answer, msgspec.json.Decoder(type))
    return ObjectList(items, metadata.resource_version, tuple(skipped)), metadata.continue_


def decode_event(line: bytes) -> WatchEvent:
    """Decode one line of a watch.

    :raises InvalidAnswer: it is no event.
    :raises ApiError: it is an ``ERROR`` event; which error its Status says.
    """
    try:
        event = _WATCH_EVENT.decode(line)
        if event.type != "ERROR":
            return event
        status = _STATUS.decode(event.object)
    except UNDECODABLE as error:
        raise InvalidAnswer(str(error)) from error
    raise _api_error(status.code or 500, status, None)


def decode_refusal(code: int, phrase: str, body: bytes, retry_after: float | None) -> ApiError:
    """Return the error for an answer of 400 and above. A body that is no Status (a proxy's page) is its message."""
    try:
        status = _STATUS.decode(body)
    except UNDECODABLE:
        status = _Status(message=body.decode(errors="replace"))
    status.reason = status.reason or phrase
    return _api_error(code, status, retry_after)


class _ListMeta(Struct, rename="camel"):
    resource_version: Annotated[str, Meta(min_length=1)]
    continue_: str = field(name="continue", default="")


class _List(Struct, Generic[T]):
    """``items`` may be null but must be there: an answer that is no list must not pass for an empty one."""

    metadata: _ListMeta
    items: list[T] | None


class _StubMeta(Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Stub(Struct):
    metadata: _StubMeta


class _Cause(Struct):
    reason: str = ""


class _Details(Struct, rename="camel"):
    retry_after_seconds: float | None = None
    causes: tuple[_Cause, ...] | None = None


class _Status(Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(_Status)
_STUB = msgspec.json.Decoder(_Stub)
_WATCH_EVENT = msgspec.json.Decoder(WatchEvent)


def _decode_items(
    answer: bytes | bytearray, decoder: msgspec.json.Decoder[T]
) -> tuple[_ListMeta, list[T], list[Skipped]]:
    try:
        whole = msgspec.json.decode(answer, type=_List[Raw])
    except UNDECODABLE as error:
        raise InvalidAnswer(str(error)) from error
    items: list[T] = []
    skipped: list[Skipped] = []
    for item in whole.items or ():
        try:
            items.append(decoder.decode(item))
        except UNDECODABLE as error:
            skipped.append(Skipped(identify(item)[0], str(error)))
    return whole.metadata, items, skipped


def _api_error(code: int, status: _Status, retry_after: float | None) -> ApiError:
    details = status.details or _Details()
    if retry_after is None:
        retry_after = details.retry_after_seconds
    causes = tuple(cause.reason for cause in details.causes or ())
    message = " ".join(status.message.split())[:MESSAGE_CHARACTERS]
    return api_error(code, status.reason, message, retry_after, causes)
