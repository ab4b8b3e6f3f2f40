# ruff: noqa: A002 - `type` is the word for what an object is decoded to
"""A copy of all objects of one kind, kept true by list and watch.

Level-based, like client-go's Reflector and Store (k8s.io/client-go/tools/cache): what counts is the present state, not
the events that led to it. **Stale beats partial**: a list takes effect when it is complete, and nothing that fails
ever takes an object out of the store.
"""

import asyncio
import random as randomness
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from dynamic_toolset.kube.answers import UNDECODABLE, Skipped, WatchEvent, identify
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    Forbidden,
    InvalidAnswer,
    KubernetesError,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from dynamic_toolset.kube.objects import ObjectKey, ObjectMeta
from dynamic_toolset.kube.pulse import Pulse
from dynamic_toolset.kube.resources import Resource

BACKOFF_BASE = 0.2
BACKOFF_CAP = 30.0
"""Seconds to wait after the first failure, doubling up to the cap."""

RETRY_AFTER_CAP = 120.0
"""Seconds that we wait at most because an answer's Retry-After says so."""

SETTLED = 1.0
"""Seconds after which an open watch counts as working, even if it has nothing to tell."""

WATCH_SECONDS = (240, 480)
"""The API ends a watch after a random time in this range, so that the watches of many clients do not end together."""

STALE_AFTER = 75.0
"""Seconds without a list, event or bookmark after which the next attempt is a list, whatever the reason.

A watch that works brings a bookmark every minute. One that cannot be had for so long leaves the store behind. And one
from a resourceVersion that the API does not know yet, after its etcd was restored from a backup, is accepted and stays
silent for ever (seen with 1.36; older ones answer 504 "Too large resource version").
"""

AT_MOST = 180.0
"""Seconds that any one step takes at most: a page, a silent watch, a pause. After it the loop is late (``pulse``)."""

LONGEST_LIST = 900.0
"""Seconds after which a list whose pages keep coming is given up. An API forgets the moment of one after five minutes,
and then gives the rest at once; what goes on for longer has no end, such as pages that each promise another one."""

NAMELESS = ObjectKey("", "")
"""Where ``skipped`` keeps an object that has no readable name."""

_RESUMABLE = (ConnectionFailed, ConfigurationError, Unauthorized, Forbidden, TooManyRequests, ServerError)
"""Failures that say nothing against the resourceVersion: the watch goes on from where it was."""


class KubernetesObject(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=KubernetesObject)
S = TypeVar("S", bound=KubernetesObject)


def unchanged(item: T) -> T:
    """Store objects as they are: the transform that does nothing."""
    return item


class Statistics(Struct, frozen=True):
    """What a reflector has done and how it is.

    ``last_error`` and ``consecutive_failures`` tell of the failures since the watch last worked. ``last_heard`` is the
    monotonic time, in seconds, of the last list, event or bookmark, None before the first; ``last_bookmark`` that of
    the last list or bookmark, which vouches for everything before it.
    """

    lists: int
    watches: int
    events: int
    bookmarks: int
    last_error: str | None
    consecutive_failures: int
    last_heard: float | None
    last_bookmark: float | None = None


class Reflector(Generic[T, S]):
    """Keeps ``store`` equal to the objects of a resource in the cluster, for as long as :meth:`run` runs.

    ``transform`` makes of each object what is stored, which must keep the name, namespace and resourceVersion.
    ``on_change`` is called, often, when there is something for :meth:`take_changed` to return. Neither may raise.

    ``synced`` is set after the first complete list. ``failure`` is what the last attempt has come to, None for one that
    has ended well, and after a list. ``resource_version`` is the newest seen of any object. An object
    that cannot be decoded is in ``skipped`` with the reason; the store keeps its last version that could be, if any.

    ``successor_of`` is one whose place this one takes: what that one has counted, this one counts on.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        type: type[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[T], S],
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = randomness.random,
        successor_of: "Reflector[T, S] | None" = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._type = type
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._on_change = on_change
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._decoder = msgspec.json.Decoder(type)

        self._objects: dict[ObjectKey, S] = {}
        self._skipped: dict[ObjectKey, str] = {}
        self._changed: set[ObjectKey] = set()
        self.store: Mapping[ObjectKey, S] = MappingProxyType(self._objects)
        self.skipped: Mapping[ObjectKey, str] = MappingProxyType(self._skipped)
        self.synced = asyncio.Event()
        self.resource_version = ""

        self.pulse = Pulse(clock)

        self._must_list = True
        self._attempt: asyncio.Timeout | None = None
        # Events up to the floor have all been seen. Above it, `_deleted` knows at which version an object went, so
        # that an event that comes late or twice does not raise the dead.
        self._floor = ""
        self._deleted: dict[ObjectKey, str] = {}

        self._watching_since: float | None = None
        self._watching_from = ""
        self._failures = 0
        self._last_error: str | None = None
        self.failure: KubernetesError | None = None
        self._last_heard: float | None = None
        self._last_bookmark: float | None = None
        self._lists = self._watches = self._events = self._bookmarks = 0
        if successor_of is not None:
            done = successor_of.statistics
            self._lists, self._watches = done.lists, done.watches
            self._events, self._bookmarks = done.events, done.bookmarks

    @property
    def statistics(self) -> Statistics:
        works = self._watch_works()
        return Statistics(
            lists=self._lists,
            watches=self._watches,
            events=self._events,
            bookmarks=self._bookmarks,
            last_error=None if works else self._last_error,
            consecutive_failures=0 if works else self._failures,
            last_heard=self._last_heard,
            last_bookmark=self._last_bookmark,
        )

    def take_changed(self) -> set[ObjectKey]:
        """Return the keys that were stored, removed or skipped since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def relist(self) -> None:
        """List again at once, though nothing fails: what ``transform`` makes of an object is another thing now."""
        self._must_list = True
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.reschedule(0)

    async def run(self) -> None:
        """List, watch, and begin again wherever that ends. Returns never; to be ended by cancellation."""
        while True:
            try:
                async with asyncio.timeout(None) as self._attempt:
                    await self._attempt_once()
                    self._attempt = None
            except TimeoutError:
                # By relist(), and by nothing else: the client has errors of its own. A list that was under way may
                # have ended just before it was broken off, so it is asked for once more.
                self._must_list = True
            finally:
                self._attempt = None  # also when it is cancelled: relist() must not touch what has ended

    async def _attempt_once(self) -> None:
        failure: KubernetesError | None = None
        self.pulse.promise(AT_MOST)
        try:
            if self._must_list or self._is_stale():
                await self._list()
            await self._watch()
        except KubernetesError as error:
            failure = error
        await self._pause(failure)

    async def _pause(self, failure: KubernetesError | None) -> None:
        """Wait before the next attempt, unless a watch has come to its ordinary end."""
        watched, worked = self._watching_since is not None, self._watch_works()
        if worked or (watched and self.resource_version != self._watching_from):
            self._failures = 0
        self._watching_since = None
        if worked and failure is None:
            return
        self._failures += 1
        self.failure = failure
        self._last_error = "the API ended the watch at once" if failure is None else str(failure)
        delay = backoff(self._failures, self._random())
        if isinstance(failure, ApiError) and failure.retry_after is not None:
            delay = max(delay, min(failure.retry_after, RETRY_AFTER_CAP))
        if failure is not None and not isinstance(failure, _RESUMABLE):
            self._must_list = True
        self.pulse.promise(AT_MOST)
        await self._sleep(delay)

    def _is_stale(self) -> bool:
        return self._last_heard is not None and self._clock() - self._last_heard >= STALE_AFTER

    def _watch_works(self) -> bool:
        return self._watching_since is not None and self._clock() - self._watching_since >= SETTLED

    # --- List -------------------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        self._lists += 1
        listed: dict[ObjectKey, S] = {}
        skipped: list[Skipped] = []
        version = ""
        began = self._clock()
        async for page in self._client.pages(
            self._resource,
            self._type,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            if self._clock() - began > LONGEST_LIST:
                raise InvalidAnswer(f"LIST {self._resource.plural}: no end after {LONGEST_LIST:g} s")
            self.pulse.promise(AT_MOST)
            if page.first:
                listed.clear()
                skipped.clear()
            for item in page.items:
                key = item.metadata.key
                listed[key] = self._unless_equal(key, self._transform(item))
            skipped += page.skipped
            version = page.resource_version
        self._replace(listed, {one.key or NAMELESS: one.error for one in skipped})
        self.resource_version = version
        self._must_list = False
        self.failure = None
        self._last_heard = self._last_bookmark = self._clock()
        self.pulse.promise(AT_MOST)
        self.synced.set()

    def _unless_equal(self, key: ObjectKey, item: S) -> S:
        # An unchanged object stays the same object: a second copy of everything would be held until the list is done.
        stored = self._objects.get(key)
        return item if stored is None or stored != item else stored

    def _replace(self, listed: dict[ObjectKey, S], skipped: dict[ObjectKey, str]) -> None:
        """Make a complete list the present state, and note what is different from before."""
        objects = self._objects
        changed = {key for key, item in listed.items() if objects.get(key) is not item}
        gone = objects.keys() - listed.keys() - skipped.keys()
        changed |= gone
        changed |= {key for key, _ in self._skipped.items() ^ skipped.items()}
        objects.update(listed)
        for key in gone:
            del objects[key]
        self._skipped.clear()
        self._skipped.update(skipped)
        if changed:
            self._changed |= changed
            self._on_change()

    # --- Watch ------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        self._watches += 1
        shortest, longest = WATCH_SECONDS
        async with self._client.watch(
            self._resource,
            namespace=self._namespace,
            resource_version=self.resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=round(shortest + (longest - shortest) * self._random()),
        ) as events:
            self._watching_since = self._clock()
            self._watching_from = self.resource_version
            self._advance_floor()
            async for event in events:
                self._take(event)

    def _take(self, event: WatchEvent) -> None:
        self._last_heard = self._clock()
        self.pulse.promise(AT_MOST)
        if event.type == "BOOKMARK":
            self._bookmarks += 1
            self._last_bookmark = self._last_heard
            self._advance(identify(event.object)[1])
            self._advance_floor()
            return
        self._events += 1
        if event.type in ("ADDED", "MODIFIED"):
            changed = self._store(event.object)
        elif event.type == "DELETED":
            changed = self._remove(event.object)
        else:
            return  # a kind of event that is yet to be invented
        if changed is not None:
            self._changed.add(changed)
            self._on_change()

    def _store(self, document: Raw) -> ObjectKey | None:
        """Take in an object that was added or modified. Return its key if that changed anything."""
        try:
            item = self._decoder.decode(document)
        except UNDECODABLE as error:
            return self._skip(document, str(error))
        key, version = item.metadata.key, item.metadata.resource_version
        if not self._is_news(key, version):
            return None
        self._advance(version)
        self._objects[key] = self._transform(item)
        self._skipped.pop(key, None)
        return key

    def _skip(self, document: Raw, error: str) -> ObjectKey | None:
        named, version = identify(document)
        key = named or NAMELESS
        if not self._is_news(key, version):
            return None
        self._advance(version)
        self._skipped[key] = error
        return key

    def _remove(self, document: Raw) -> ObjectKey | None:
        """Take out an object that was deleted. Only its name counts: the rest need not be decodable."""
        key, version = identify(document)
        if key is None:
            return None
        stored = self._objects.get(key)
        if stored is not None and is_older(version, stored.metadata.resource_version):
            return None  # the object was made anew since
        if is_older(version, self._deleted.get(key, "")):
            return None  # and deleted anew
        self._advance(version)
        self._deleted[key] = version
        removed = self._objects.pop(key, None) is not None
        skipped = self._skipped.pop(key, None) is not None
        return key if removed or skipped else None

    def _is_news(self, key: ObjectKey, version: str) -> bool:
        stored = self._objects.get(key)
        known = self._deleted.get(key, self._floor) if stored is None else stored.metadata.resource_version
        return version != known and not is_older(version, known)

    def _advance(self, version: str) -> None:
        if version and not is_older(version, self.resource_version):
            self.resource_version = version

    def _advance_floor(self) -> None:
        # What a bookmark or the start of a watch vouches for: everything up to here has been sent.
        self._floor = self.resource_version
        self._deleted.clear()


def is_older(version: str, than: str) -> bool:
    """Say whether a resourceVersion is older than another of the same resource.

    They are decimal integers of any length without leading zeros, so the longer one is the newer (KEP-5504). Of
    anything else nothing can be said, which counts as not older.
    """
    if not (version.isdecimal() and than.isdecimal()):
        return False
    return (len(version), version) < (len(than), than)


def backoff(failures: int, random: float) -> float:
    """Return the seconds to wait after so many failures in a row: doubling up to a cap, jittered by up to a half."""
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(failures - 1, 16))
    return ceiling * (1 - random / 2)
