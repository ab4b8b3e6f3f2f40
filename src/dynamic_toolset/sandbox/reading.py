"""Lists in pages, and watches."""

import asyncio
import base64
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from msgspec import Struct

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox.resources import Object, Target
from dynamic_toolset.sandbox.selectors import Selector
from dynamic_toolset.sandbox.status import StatusError, bad_request, expired
from dynamic_toolset.sandbox.store import Change, Store

QUEUE_LENGTH = 1000
"""How many events a watcher may be behind before it is dropped."""

# --- Lists -----------------------------------------------------------------------------------------------------------


class _Position(Struct, frozen=True):
    """Where the next page starts: after ``after``, in the state of ``revision``."""

    revision: int
    after: tuple[str, str]


def page(store: Store, wanted: Target, selector: Selector | None, *, limit: int, token: str, revision: str) -> Object:
    """Return a list object. All pages of one list show the state at which it began.

    A list at revision ``0`` ignores its limit, as the real API's watch cache does.

    Raises StatusError: 400 for a token or revision that means nothing, 410 for a token that is too old, 504 for a
    revision that is not reached yet.
    """
    position = _position(token) if token else None
    _check_reached(revision, store)
    at = position.revision if position else store.revision
    try:
        objects = store.at(wanted.resource, at)
    except StatusError:
        raise expired("The provided continue parameter is too old to display a consistent list result.") from None
    keys = sorted(key for key in objects if wanted.namespace in {"", key.namespace})
    if position:
        keys = [key for key in keys if key > ObjectKey(*position.after)]
    if selector:
        keys = [key for key in keys if selector(objects[key])]
    metadata: dict[str, Any] = {"resourceVersion": str(at)}
    if 0 < limit < len(keys) and revision != "0":
        metadata["continue"] = _token(_Position(at, keys[limit - 1]))
        if selector is None:
            metadata["remainingItemCount"] = len(keys) - limit
        keys = keys[:limit]
    return {
        "kind": f"{wanted.resource.kind}List",
        "apiVersion": wanted.resource.api_version,
        "metadata": metadata,
        "items": [_without_type(objects[key]) for key in keys],
    }


def _check_reached(revision: str, store: Store) -> None:
    number = parse_revision(revision)
    if number > store.revision:
        message = f"Timeout: Too large resource version: {number}, current: {store.revision}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        raise StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def parse_revision(text: str) -> int:
    """Return a resourceVersion as a number, 0 for none. Raises StatusError (400) for anything else."""
    if text and not (text.isascii() and text.isdigit()):
        raise bad_request(f'invalid resource version: resourceVersion: Invalid value: "{text}": invalid syntax')
    return int(text or "0")


def _token(position: _Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _position(token: str) -> _Position:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.json.decode(text, type=_Position)
    except (ValueError, msgspec.DecodeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from None


def _without_type(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in {"kind", "apiVersion"}}


# --- Watches ---------------------------------------------------------------------------------------------------------


class WatchEvent(Struct, frozen=True):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Object


class Watch:
    """The changes of what is selected, from a revision on. Use it with ``with``, and read ``next`` until it is None.

    ``revision`` empty or ``0`` starts with an ADDED event for each object that is there. A watcher that is more than
    QUEUE_LENGTH events behind is dropped: ``on_drop`` is called, and no more events come.

    Raises StatusError (400) for a revision that is no number, 410 for one that is forgotten.
    """

    def __init__(
        self,
        store: Store,
        wanted: Target,
        selector: Selector | None,
        revision: str,
        on_drop: Callable[[], None],
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._selector = selector
        self._on_drop = on_drop
        self._from = parse_revision(revision)
        self._backlog = deque(self._replay() if self._from else self._present())
        self._queue: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        self._dropped = False

    def __enter__(self) -> Self:
        self._stop = self._store.listen(self._see)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def next(self) -> WatchEvent | None:
        """Wait for the next event; None means that there will be no more."""
        if self._backlog:
            return self._backlog.popleft()
        return await self._queue.get()

    def end(self) -> None:
        """Let the watch end after the events that are waiting."""
        self._queue.put_nowait(None)

    def bookmark(self) -> WatchEvent:
        """Return the event that says how far this watch is."""
        resource = self._wanted.resource
        metadata = {"resourceVersion": str(self._store.revision)}
        return WatchEvent("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata})

    def _see(self, change: Change) -> None:
        if self._dropped:
            return
        if self._queue.qsize() >= QUEUE_LENGTH:
            self._dropped = True
            self.end()
            self._on_drop()
        elif event := self._event(change):
            self._queue.put_nowait(event)

    def _replay(self) -> Iterator[WatchEvent]:
        return (event for change in self._store.since(self._from) if (event := self._event(change)))

    def _present(self) -> Iterator[WatchEvent]:
        objects = self._store.objects(self._wanted.resource)
        return (WatchEvent("ADDED", objects[key]) for key in sorted(objects) if self._selects(key, objects[key]))

    def _event(self, change: Change) -> WatchEvent | None:
        """Return what a change is to this watcher: an object that leaves the selection is deleted to it."""
        if change.resource != self._wanted.resource or change.revision <= self._from:
            return None
        before = change.old is not None and self._selects(change.key, change.old)
        after = change.new is not None and self._selects(change.key, change.new)
        if change.new is not None and after:
            return WatchEvent("MODIFIED" if before else "ADDED", change.new)
        if change.old is not None and before:
            metadata = {**change.old["metadata"], "resourceVersion": str(change.revision)}
            return WatchEvent("DELETED", {**change.old, "metadata": metadata})
        return None

    def _selects(self, key: ObjectKey, obj: Object) -> bool:
        if self._wanted.namespace not in {"", key.namespace}:
            return False
        return self._selector is None or self._selector(obj)
