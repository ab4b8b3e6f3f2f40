# ruff: noqa: A002 - `type` is the word of the client that is played
"""One Lease in an API of its own, in virtual time, electors, and the links over which they reach it.

The API decides as the real one does (tests/contract/suite.py, TestLeases). A link is where everything goes wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from dynamic_toolset.kube.answers import Page, Skipped, WatchEvent
from dynamic_toolset.kube.election import Elector
from dynamic_toolset.kube.errors import Conflict, ConnectionFailed, Invalid, InvalidAnswer, KubernetesError, NotFound
from dynamic_toolset.kube.objects import Lease, ObjectKey
from dynamic_toolset.kube.resources import LEASES, Resource

KEY = ObjectKey("holmes", "toolset")
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)

FIRST_REVISION = 100

T = TypeVar("T")


def now() -> float:
    return asyncio.get_running_loop().time()


class Request(NamedTuple):
    """A request as it was sent: when, by whom, and what."""

    at: float
    sender: str
    verb: str


class LeaseApi:
    """The server. ``lease`` is the whole document; ``history`` the specs that were written, with their times."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.revision = FIRST_REVISION
        self.requests: list[Request] = []
        self.history: list[tuple[float, dict[str, Any]]] = []
        self.events: list[tuple[int, str, bytes]] = []
        self.watchers: list[asyncio.Event] = []  # not a set: a test is to run alike each time

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return self.lease["spec"]

    def sent(self, sender: str, since: float = 0.0) -> list[str]:
        return [request.verb for request in self.requests if request.sender == sender and request.at >= since]

    def get(self) -> dict[str, Any]:
        if self.lease is None:
            raise NotFound(404, "NotFound", "there is no such Lease")
        return self.lease

    def patch(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge ``body`` in; without a resourceVersion whatever the state is."""
        lease = self.get()
        metadata = dict(body.get("metadata") or {})
        if (
            metadata.pop("resourceVersion", lease["metadata"]["resourceVersion"])
            != lease["metadata"]["resourceVersion"]
        ):
            raise Conflict(409, "Conflict", "the object has been modified")
        spec = {key: value for key, value in {**lease["spec"], **body.get("spec", {})}.items() if value is not None}
        changed = {"metadata": {**lease["metadata"], **metadata}, "spec": spec}
        return lease if changed == lease else self._store("MODIFIED", changed)

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the Lease; electors do not put one that is there."""
        assert "resourceVersion" not in body["metadata"]
        if self.lease is not None:
            raise Invalid(422, "Invalid", "metadata.resourceVersion: must be specified for an update")
        return self._store("ADDED", {"metadata": dict(body["metadata"]), "spec": dict(body["spec"])})

    def delete(self) -> None:
        lease = self.get()
        self._store("DELETED", lease)
        self.lease = None

    def _store(self, kind: str, lease: dict[str, Any]) -> dict[str, Any]:
        self.revision += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.revision)}}
        self.events.append((self.revision, kind, msgspec.json.encode(self.lease)))
        if kind != "DELETED":
            self.history.append((now(), self.lease["spec"]))
        for watcher in self.watchers:
            watcher.set()
        return self.lease


class Link:
    """Plays the client of one elector.

    ``there`` and ``back`` are the seconds that a request and its answer take. ``error`` is what every request gets
    instead of an answer, without having arrived. ``lost``: a request never arrives (there) or its answer does not
    (back). ``deaf``: watches stay open and tell nothing. ``pause`` holds everything up, both ways, for a while.
    """

    def __init__(self, api: LeaseApi, sender: str) -> None:
        self.api = api
        self.sender = sender
        self._paused_until = 0.0
        self._broken = asyncio.Event()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self.heal()

    def heal(self) -> None:
        self.there = self.back = 0.001
        self.error: KubernetesError | None = None
        self.watch_error: KubernetesError | None = None
        self.lost = ""
        self.deaf = False
        self._broken.set()

    def cut(self, error: KubernetesError | None = None) -> None:
        """Let all requests fail from now on, and break the watch."""
        self.error = self.watch_error = error or ConnectionFailed("connection refused")
        self._broken.set()

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, now() + seconds)

    async def sending(self, verb: str) -> None:
        """Wait until the next request of this kind is on its way, and not a moment longer."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((verb, sent))
        await sent

    # --- What an elector and its reflector call -------------------------------------------------------------------

    async def get(self, resource: Resource, key: ObjectKey, type: type[T]) -> T:
        assert (resource, key) == (LEASES, KEY)
        return await self._send("get", self.api.get)

    async def patch(self, resource: Resource, key: ObjectKey, body: Mapping[str, Any], type: type[T]) -> T:
        assert (resource, key) == (LEASES, KEY)
        return await self._send("patch", lambda: self.api.patch(body))

    async def update(self, resource: Resource, key: ObjectKey, body: Mapping[str, Any], type: type[T]) -> T:
        assert (resource, key) == (LEASES, KEY)
        assert (body["apiVersion"], body["kind"]) == ("coordination.k8s.io/v1", "Lease")
        assert (body["metadata"]["namespace"], body["metadata"]["name"]) == KEY
        return await self._send("put", lambda: self.api.put(body))

    async def pages(self, resource: Resource, type: type[T], **query: Any) -> AsyncIterator[Page[Any]]:
        self._check(resource, query)
        yield await self._send("list", self._list, decoded=False)

    @asynccontextmanager
    async def watch(self, resource: Resource, **query: Any) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._check(resource, query)
        self._broken.clear()
        seen = int(query["resource_version"])
        await self._send("watch", lambda: None, decoded=False)
        news = asyncio.Event()
        self.api.watchers.append(news)
        try:
            yield self._events(seen, news, now() + query["timeout_seconds"])
        finally:
            self.api.watchers.remove(news)

    def _check(self, resource: Resource, query: Mapping[str, Any]) -> None:
        assert resource == LEASES
        assert (query["namespace"], query["field_selector"]) == (KEY.namespace, f"metadata.name={KEY.name}")

    def _list(self) -> Page[Lease]:
        version = str(self.api.revision)
        try:
            return Page([] if self.api.lease is None else [_decoded(self.api.lease)], version)
        except InvalidAnswer as error:
            return Page([], version, (Skipped(KEY, str(error)),))

    async def _events(self, seen: int, news: asyncio.Event, end: float) -> AsyncIterator[WatchEvent]:
        while now() < end:
            for revision, kind, document in self.api.events[seen - FIRST_REVISION :]:
                await asyncio.sleep(max(self._paused_until - now(), 0) + self.back)
                if self.deaf:
                    break
                seen = revision
                yield WatchEvent(kind, Raw(document))
            news.clear()
            waiting = [asyncio.ensure_future(event.wait()) for event in (news, self._broken)]
            try:
                await asyncio.wait(waiting, timeout=end - now(), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
            if self._broken.is_set():
                raise ConnectionFailed("connection reset")

    # --- The wire -------------------------------------------------------------------------------------------------

    async def _send(self, verb: str, act: Callable[[], Any], *, decoded: bool = True) -> Any:
        """Send a request. What has left arrives, and is answered, even if nobody waits for the answer any more."""
        loop = asyncio.get_running_loop()
        self.api.requests.append(Request(now(), self.sender, verb))
        for waiter in [waiter for waiter in self._waiting if waiter[0] == verb]:
            self._waiting.remove(waiter)
            waiter[1].set_result(None)
        error = self.watch_error if verb == "watch" else self.error
        if error is not None:
            await asyncio.sleep(self.there)
            raise error
        answer: asyncio.Future[Any] = loop.create_future()

        def arrive() -> None:
            try:
                content = act()
                content = _decoded(content) if decoded else content
            except KubernetesError as error:
                failure = error
                self._later(lambda: settle(failure))
            else:
                self._later(lambda: settle(None, content))

        def settle(failure: Exception | None, content: Any = None) -> None:
            if answer.done() or self.lost == "back":
                return
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(content)

        if self.lost != "there":
            loop.call_later(max(self._paused_until - now(), 0) + self.there, arrive)
        return await answer

    def _later(self, act: Callable[[], None]) -> None:
        """Act after the way back, and not while the process is paused."""
        loop = asyncio.get_running_loop()

        def when_awake() -> None:
            if now() < self._paused_until:
                loop.call_at(self._paused_until, when_awake)
            else:
                act()

        loop.call_later(self.back, when_awake)


def _decoded(document: Mapping[str, Any]) -> Lease:
    try:
        return msgspec.convert(document, Lease)
    except msgspec.ValidationError as error:
        raise InvalidAnswer(str(error)) from error


class Candidate:
    """An elector at work in a process of its own, with what it told.

    ``skipped`` is by how many seconds its clock is ahead of the loop's: what it slept while it was stopped.
    ``wall`` is by how many its time of day is wrong.
    """

    def __init__(self, api: LeaseApi, name: str, *, also: Callable[[], None] = lambda: None, **options: Any) -> None:
        self.name = name
        self.link = Link(api, name)
        self._also = also
        self.skipped = 0.0
        self.wall = 0.0
        self.told: list[tuple[float, bool]] = []
        self.changed = asyncio.Event()
        self.elector = Elector(
            self.link,  # type: ignore[arg-type]
            KEY,
            name,
            on_change=self._changed,
            clock=lambda: now() + self.skipped,
            random=lambda: 0.5,
            now=lambda: MIDNIGHT + timedelta(seconds=now() + self.wall),
            **options,
        )

    def start(self) -> "Candidate":
        self.task = asyncio.create_task(self.elector.run())
        return self

    async def stop(self) -> None:
        await cancelled(self.task)

    @property
    def leads(self) -> bool:
        return self.elector.is_leader()

    def _changed(self) -> None:
        if self.leads != (self.told[-1][1] if self.told else False):
            self.told.append((round(now(), 2), self.leads))
        self.changed.set()
        self._also()


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and raise what it died of, if it did."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
