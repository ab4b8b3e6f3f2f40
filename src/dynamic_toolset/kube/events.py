# ruff: noqa: A002 - `type` is the API's word
"""Events (events.k8s.io/v1): what happened to an object, as ``kubectl describe`` and ``kubectl get events`` show it.

Telling of something must cost nothing of what is told, so:

- ``record`` neither waits nor raises. One task, ``run``, writes what is recorded, one request at a time.
- **Series**: what happens again within :data:`SERIES_ENDS` is no other Event: the ``series`` of the first one says how
  often it was seen, and when last. The second time is written at once, the later ones after pauses that double up to
  :data:`LONGEST_PAUSE`; no time is lost. That is what client-go's recorder does (k8s.io/client-go/tools/events), save
  that there the ``note`` does not tell one Event from another, so that a new one is never read, and that its counts
  are written every half an hour.
- **Limits**: of one object so many Events are written as the API server's own recorders allow (k8s.io/client-go/tools/
  record: 25 at once, one more every five minutes), the last few of them for new warnings. In all there are no more
  requests than a second limit allows, whatever is recorded: what is above the first is dropped, or counted later; what
  is above the second waits, in a queue of bounded length.
- **Memory** is bounded: of series and of objects those are forgotten that were heard of least lately.
- What cannot be written is dropped after :data:`ATTEMPTS`. Without the right to create Events in a namespace that one
  is left alone for :data:`FORBIDDEN_PAUSE`.
"""

import asyncio
import contextlib
import math
import random as randomness
import re
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    KubernetesError,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from dynamic_toolset.kube.objects import (
    Event,
    EventSeries,
    EventType,
    ObjectMeta,
    ObjectReference,
    micro_time,
)
from dynamic_toolset.kube.resources import EVENTS

SERIES_ENDS = 360.0
"""Seconds without another occurrence after which a series is over, as in client-go."""

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds between two requests that write the count of a series, doubling from the first to the longest."""

ATTEMPTS = 3
RETRY_PAUSE = 1.0
"""Seconds before the second attempt to write, doubling, and jittered by up to a half."""

RETRY_AFTER_CAP = 30.0
"""Seconds that we wait at most because an answer's Retry-After says so."""

FORBIDDEN_PAUSE = 300.0
"""Seconds for which a namespace is left alone in which we may not write."""

LAST_SECONDS = 1.0
"""What ``run`` takes at most once it is told to stop."""

MAX_QUEUED = 1000
MAX_SERIES = 1000
MAX_OBJECTS = 4096
"""New Events that wait to be written, series, and objects with a limit of their own that are remembered."""

MAX_NOTE = 1024
"""Bytes of a note, and characters of the other texts below, that the API takes (pkg/apis/core/validation/events.go)."""
MAX_WORD = 128

_TERMINATING = "NamespaceTerminating"
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RETRIED = (ConnectionFailed, Unauthorized, TooManyRequests, ServerError)

Outcome = Literal["created", "counted", "limited", "overflow", "forbidden", "failed"]
"""What became of something recorded: another Event was created, or it is one more of a series. Or it was dropped: by
the limit of its object, because too much waits, because we may not, or because the API would not have it."""


class Limit(NamedTuple):
    """So many at once, and one more after so many seconds, as long as there are fewer than that."""

    at_once: int
    every: float


PER_OBJECT = Limit(25, 300.0)
IN_ALL = Limit(100, 0.1)

FOR_WARNINGS = 5
"""How many of an object's are left to new warnings."""


class Recorder:
    """Writes Events in the name of ``controller``, a qualified name, and of the ``instance`` of it that this is.

    ``on_outcome`` is called with the reason of each thing recorded and what became of it, and for what is dropped by an
    error with the words of that; it may not raise. ``clock`` counts seconds steadily, as the event loop does; ``now``
    gives the time of day, in UTC.
    """

    def __init__(
        self,
        client: Client,
        controller: str,
        instance: str,
        *,
        per_object: Limit = PER_OBJECT,
        in_all: Limit = IN_ALL,
        on_outcome: Callable[[str, Outcome, str], None] = lambda _reason, _outcome, _error: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance[:MAX_WORD]
        self._per_object = per_object
        self._on_outcome = on_outcome
        self._clock = clock
        self._now = now
        self._random = random
        self._in_all = _Bucket(in_all, clock())
        self._buckets: OrderedDict[ObjectReference, _Bucket] = OrderedDict()
        self._series: OrderedDict[tuple[object, ...], _Series] = OrderedDict()
        self._queue: deque[_Series] = deque()
        self._waiting: dict[_Series, float] = {}
        """Series whose count is to be written, and when."""
        self._forbidden: dict[str, float] = {}
        """Namespaces that are left alone, and until when."""
        self._last_stamp = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._deadline: asyncio.Timeout | None = None

    def record(
        self,
        regarding: ObjectReference,
        type: EventType,
        reason: str,
        action: str,
        note: str,
        related: ObjectReference | None = None,
    ) -> None:
        """Tell that something happened to ``regarding``: why in CamelCase for machines, what was done, and a sentence.

        The note becomes one printable line that the API takes, and may come from anybody.
        """
        note, now = one_line(note), self._clock()
        key = (_identity(regarding), type, reason, action, note, related and _identity(related))
        series = self._series.get(key)
        if series is not None and (now - series.seen < SERIES_ENDS or series in self._waiting):
            self._series.move_to_end(key)
            series.count, series.seen, series.last = series.count + 1, now, self._now()
            self._owe(series)
            self._on_outcome(reason, "counted", "")
            return
        if len(self._queue) >= MAX_QUEUED:
            self._on_outcome(reason, "overflow", "")
            return
        if not self._bucket(regarding).take(now, leave=0 if type == "Warning" else FOR_WARNINGS):
            self._on_outcome(reason, "limited", "")
            return
        first = self._now()
        event = Event(
            metadata=ObjectMeta(self._name(regarding.name, first), regarding.namespace or "default"),
            regarding=regarding,
            type=type,
            reason=reason[:MAX_WORD],
            action=action[:MAX_WORD],
            note=note,
            event_time=micro_time(first),
            reporting_controller=self._controller,
            reporting_instance=self._instance,
            related=related,
        )
        series = self._series[key] = _Series(key, event, seen=now, last=first)
        self._series.move_to_end(key)
        if len(self._series) > MAX_SERIES:
            _, forgotten = self._series.popitem(last=False)
            self._waiting.pop(forgotten, None)
        self._queue.append(series)
        self._wake.set()

    async def run(self) -> None:
        """Write what is recorded until ``stop``, and then for :data:`LAST_SECONDS` at most what there is left."""
        try:
            async with asyncio.timeout(LAST_SECONDS if self._stopping else None) as self._deadline:
                while (series := await self._next()) is not None:
                    await self._write(series)
        except TimeoutError:
            pass  # the client has errors of its own
        finally:
            self._deadline = None

    def stop(self) -> None:
        """Let ``run`` come to its end. What is recorded from now on may be lost."""
        if self._stopping:
            return
        self._stopping = True
        self._wake.set()
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + LAST_SECONDS)

    # --- What to write next -----------------------------------------------------------------------------------------

    def _owe(self, series: "_Series") -> None:
        """See to it that the count of a series is written, if the API does not have it yet."""
        is_remembered = self._series.get(series.key) is series
        if is_remembered and 0 < series.written < series.count and series not in self._waiting:
            self._waiting[series] = series.due
            self._wake.set()

    async def _next(self) -> "_Series | None":
        """Return what is to be written now, as soon as there is something; None for the end."""
        while True:
            if self._queue:
                return self._queue.popleft()
            now = self._clock()
            series = min(self._waiting, key=self._waiting.__getitem__, default=None)
            due = math.inf if series is None else self._waiting[series]
            if series is not None and (due <= now or self._stopping):
                bucket = self._bucket(series.event.regarding)
                if bucket.take(now, leave=FOR_WARNINGS):
                    del self._waiting[series]
                    return series
                if self._stopping:
                    del self._waiting[series]
                else:
                    self._waiting[series] = now + bucket.wait(now, leave=FOR_WARNINGS)
                continue
            if self._stopping:
                return None
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if series is None else due - now):
                    await self._wake.wait()

    def _bucket(self, regarding: ObjectReference) -> "_Bucket":
        identity = _identity(regarding)
        bucket = self._buckets.get(identity)
        if bucket is None:
            bucket = self._buckets[identity] = _Bucket(self._per_object, self._clock())
            if len(self._buckets) > MAX_OBJECTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(identity)
        return bucket

    def _name(self, about: str, moment: datetime) -> str:
        """Return a name for an Event as client-go makes it; no two are given the same."""
        self._last_stamp = max(self._last_stamp + 1, int(moment.timestamp() * 1e6) * 1000)
        name = f"{about}.{self._last_stamp:x}"
        return name if _NAME.fullmatch(name) else str(uuid.uuid4())

    # --- Writing ----------------------------------------------------------------------------------------------------

    async def _write(self, series: "_Series") -> None:
        """Write a new Event, or the count of a series; what fails for good is dropped."""
        event, is_new = series.event, not series.written
        namespace = event.metadata.namespace
        if self._clock() < self._forbidden.get(namespace, -math.inf):
            self._drop(series, "forbidden", "")
            return
        try:
            await self._request(series)
        except (KubernetesError, ValueError) as error:
            is_forbidden = isinstance(error, Forbidden) and _TERMINATING not in error.causes
            if is_forbidden:
                self._leave_alone(namespace)
            self._drop(series, "forbidden" if is_forbidden else "failed", str(error))
            return
        series.due = self._clock()
        if is_new:
            self._on_outcome(event.reason, "created", "")
        else:
            series.due += series.pause
            series.pause = min(2 * series.pause, LONGEST_PAUSE)
        self._waiting.pop(series, None)
        self._owe(series)

    async def _request(self, series: "_Series") -> None:
        """Write what the API does not have yet of a series. Raises what the last attempt did."""
        first = series.count
        for attempt in range(1, ATTEMPTS + 1):
            await self._permission()
            is_new = not series.written
            count = first if is_new else series.count
            try:
                await (self._create(series, count) if is_new else self._patch(series, count))
            except Conflict:
                if not is_new:
                    raise
                # An attempt that was not answered has succeeded.
            except NotFound:
                if is_new or attempt == ATTEMPTS:
                    raise
                # Events last for an hour, or until somebody deletes them.
                series.begin_anew(self._name(series.event.regarding.name, self._now()))
                continue
            except _RETRIED as error:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(self._pause(attempt, error))
                continue
            series.written = count
            return

    async def _permission(self) -> None:
        """Wait until one more request may be made."""
        await asyncio.sleep(self._in_all.reserve(self._clock()))

    def _create(self, series: "_Series", count: int) -> Awaitable[Raw]:
        event = series.event
        if count > 1:
            event = replace(event, series=EventSeries(count, micro_time(series.last)))
        body = {"apiVersion": "events.k8s.io/v1", "kind": "Event", **msgspec.to_builtins(event)}
        return self._client.create(EVENTS, event.metadata.namespace, body, Raw)

    def _patch(self, series: "_Series", count: int) -> Awaitable[Raw]:
        body = {"series": msgspec.to_builtins(EventSeries(count, micro_time(series.last)))}
        return self._client.patch(EVENTS, series.event.metadata.key, body, Raw)

    def _pause(self, attempt: int, error: KubernetesError) -> float:
        pause = RETRY_PAUSE * 2.0 ** (attempt - 1) * (1 - self._random() / 2)
        asked = error.retry_after if isinstance(error, ApiError) else None
        return max(pause, min(asked or 0.0, RETRY_AFTER_CAP))

    def _leave_alone(self, namespace: str) -> None:
        now = self._clock()
        self._forbidden = {name: until for name, until in self._forbidden.items() if until > now}
        if len(self._forbidden) < MAX_SERIES:
            self._forbidden[namespace] = now + FORBIDDEN_PAUSE

    def _drop(self, series: "_Series", outcome: Outcome, error: str) -> None:
        """Give up. What happens again is another Event if the API has none, and else the count of this one."""
        if not series.written and self._series.get(series.key) is series:
            del self._series[series.key]
        series.due = self._clock() + series.pause
        if series in self._waiting:
            self._waiting[series] = series.due
        self._on_outcome(series.event.reason, outcome, error)


class _Series:
    """One Event and how often it happened: ``count`` times, of which the API has been told ``written``.

    ``seen`` is when last, on the clock, and ``last`` the same in the time of day; ``due`` is when the count may be
    written next, and ``pause`` how long to wait after that.
    """

    __slots__ = ("count", "due", "event", "key", "last", "pause", "seen", "written")

    def __init__(self, key: tuple[object, ...], event: Event, *, seen: float, last: datetime) -> None:
        self.key = key
        self.event = event
        self.count = 1
        self.written = 0
        self.seen = seen
        self.last = last
        self.due = -math.inf
        self.pause = FIRST_PAUSE

    def begin_anew(self, name: str) -> None:
        """Take another name: the API has no Event of the last one any more."""
        self.event = replace(self.event, metadata=replace(self.event.metadata, name=name))
        self.written = 0


class _Bucket:
    """A token bucket (a limit for one thing), full at first."""

    __slots__ = ("_at", "_limit", "_tokens")

    def __init__(self, limit: Limit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.at_once)
        self._at = now

    def take(self, now: float, *, leave: int = 0) -> bool:
        """Take one if there are more than ``leave``."""
        if self.wait(now, leave=leave) > 0:
            return False
        self._tokens -= 1
        return True

    def reserve(self, now: float) -> float:
        """Take one that may not be there yet, and return the seconds after which it will be."""
        wait = self.wait(now)
        self._tokens -= 1
        return wait

    def wait(self, now: float, *, leave: int = 0) -> float:
        """Return the seconds after which there will be more than ``leave``; 0 if there are."""
        self._tokens = min(float(self._limit.at_once), self._tokens + (now - self._at) / self._limit.every)
        self._at = now
        missing = 1 + leave - self._tokens
        return missing * self._limit.every if missing > _ROUNDING else 0.0


_ROUNDING = 1e-6
"""The part of a token that may be missing after a wait: sums of seconds are rounded."""


def one_line(text: str) -> str:
    """Return a text as one printable line of at most :data:`MAX_NOTE` bytes."""
    line = "".join(character if character.isprintable() else "?" for character in " ".join(text[:MAX_NOTE].split()))
    encoded = line.encode()
    if len(encoded) <= MAX_NOTE and len(text) <= MAX_NOTE:
        return line
    return encoded[: MAX_NOTE - 3].decode(errors="ignore") + "..."


def _identity(reference: ObjectReference) -> ObjectReference:
    """Return the reference to an object in whatever state."""
    return replace(reference, resource_version="")
