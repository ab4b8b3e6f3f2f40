"""Errors as RFC 9457 has them (application/problem+json)."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

MEDIA_TYPE = "application/problem+json"


class FieldError(Struct, frozen=True):
    """One thing that is wrong with a request: where, and what would be right."""

    field: str
    message: str


class ProblemDetails(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What went wrong (RFC 9457, section 3.1). ``request_id`` is what to look for in the log."""

    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    type: str = "about:blank"
    errors: tuple[FieldError, ...] = ()


class Refusal(Exception):
    """A request that is answered with an error: ``status``, ``detail`` for its sender, ``headers`` to go with it."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[FieldError] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = tuple(errors)


INTERNAL = "something went wrong in here; the log says what, under the id of this request"
"""All that is said of a mistake of our own."""


def encode(refusal: Refusal, *, instance: str, request_id: str) -> bytes:
    """Return the body of the answer to a request for ``instance``, the path without its query."""
    status = HTTPStatus(refusal.status)
    return msgspec.json.encode(
        ProblemDetails(status.phrase, status.value, refusal.detail, instance, request_id, errors=refusal.errors)
    )


def headers(refusal: Refusal, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer, as ASGI wants them."""
    found = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "cache-control": "no-store"}
    return [
        (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in (found | refusal.headers).items()
    ]


def from_validation(extra: Any, names: Mapping[str, str] | None = None) -> Iterable[FieldError]:
    """Return what Litestar says of a request that does not fit: a list of mappings with a key and a message.

    ``names`` are what a caller calls what has another name in our code.
    """
    if isinstance(extra, list):
        for one in extra:
            if isinstance(one, dict):
                key = str(one.get("key", ""))
                yield FieldError((names or {}).get(key, key), str(one.get("message", "")))
