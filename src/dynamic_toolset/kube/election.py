"""Leader election by a Lease: of many processes at most one leads, and that one knows for how long it may go on.

The record and its rules are those of client-go (k8s.io/client-go/tools/leaderelection), so programs of both kinds can
share a Lease. Why never two lead at once, however long a request or a process hangs:

- A leader trusts in its own clock only. It leads until ``renew_deadline`` after the *start* of the last request by
  which it acquired or renewed the lease, whenever the answer came.
- Everybody else waits until the record has not changed for the duration that it states, by *their* own clock from the
  moment when they saw it; that is later than the start of that request, and the duration is longer than the deadline.
  Times in the record are for people, so clocks may be wrong, or set back and forward.
- Every write is conditional on the state that was judged, which the API decided on last: one of several wins.

Only that clocks run at about the same speed is taken for granted: 10 s of one must not be 15 s of another.

Where client-go asks every two seconds, a standby here watches: a lease that is given back is an event, and one that is
not renewed is a timer. A watch that is broken can therefore not make it steal: before it takes over it reads the Lease.
"""

import asyncio
import math
import random as randomness
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import ApiError, Conflict, ConnectionFailed, Invalid, KubernetesError, NotFound
from dynamic_toolset.kube.objects import Lease, LeaseSpec, ObjectKey, micro_time
from dynamic_toolset.kube.pulse import Pulse
from dynamic_toolset.kube.reflector import Reflector, backoff, is_older, unchanged
from dynamic_toolset.kube.resources import LEASES

JITTER = 0.2
"""By how much of itself the time between two renewals may be longer, as in client-go."""

MAX_DURATION = 3600.0
"""Seconds after which a lease counts as run out at the latest, unless our own lasts longer.

The API accepts up to 68 years. One that was written by mistake must not stop the service for good.
"""

_MAX_TRANSITIONS = 2**31 - 1
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

T = TypeVar("T")


def time_since_boot() -> float:
    """Return the seconds since the machine started, with those in which it was suspended.

    ``time.monotonic`` stands still meanwhile on Linux, so that a leader would wake up and still take itself for one.
    """
    return time.clock_gettime(_CLOCK)


class Statistics(Struct, frozen=True):
    """What an elector has done.

    ``terms`` is how often it began to lead. ``renewals`` counts the requests that acquired or renewed the lease, and
    ``last_renewed`` is when the last of them was started, in seconds of its clock, None before the first. ``failures``
    counts the attempts that failed, and ``consecutive_failures`` those since the last that did not.
    """

    terms: int
    renewals: int
    failures: int
    consecutive_failures: int
    last_renewed: float | None


class Elector:
    """Stands for election for as long as :meth:`run` runs.

    ``identity`` is what the Lease shows, and is to be another for each process. Two that share one by mistake do not
    both lead: a record is our own only if its acquireTime is ours too.

    The rest is in seconds: the Lease says that it runs out ``lease_duration`` after a renewal, rounded up to whole
    seconds; a leader ceases to lead ``renew_deadline`` after the last one; it renews every ``retry_period`` and a
    little. No request may take longer than half of ``renew_deadline``, so that one that hangs leaves time for another.

    ``on_change`` is called when ``is_leader()`` or ``holder`` has changed, on time also while a request hangs. It may
    not raise. ``clock`` counts seconds steadily; ``now`` gives the time of day, in UTC, for the record.

    Needs the rights to get, list, watch, create, patch and update this one Lease, by its name.
    """

    def __init__(
        self,
        client: Client,
        key: ObjectKey,
        identity: str,
        *,
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time_since_boot,
        random: Callable[[], float] = randomness.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not 0 < (1 + JITTER) * retry_period < renew_deadline < lease_duration:
            raise ValueError(
                f"a lease of {lease_duration:g} s must be longer than its renew deadline, and that longer than "
                f"{1 + JITTER:g} times the retry period; they are {renew_deadline:g} s and {retry_period:g} s"
            )
        if not identity:
            raise ValueError("an elector needs an identity: a Lease without one is free")
        self.identity = identity
        self._client = client
        self._key = key
        self._lease_duration = lease_duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._on_change = on_change
        self._clock = clock
        self._random = random
        self._now = now
        self._changed = asyncio.Event()
        self.reflector = Reflector(
            client,
            LEASES,
            Lease,
            namespace=key.namespace,
            field_selector=f"metadata.name={key.name}",
            transform=unchanged,
            on_change=self._changed.set,
            clock=clock,
            random=random,
        )

        # What is known of the Lease: its newest state, and when it may be had by who does not hold it.
        self._lease: Lease | None = None
        self._given_back = True
        self._free_at = -math.inf

        # What we are: leading until when, since when by the record's acquireTime ("" if we never tried), and how.
        self._leading_until = -math.inf
        self._term = ""
        self._unclean = False
        self._retired = False
        self._told: tuple[bool, str | None] = (False, None)
        self._deadline: asyncio.TimerHandle | None = None

        self.pulse = Pulse(clock)

        # When to send something next.
        self._renew_at = -math.inf
        self._retry_at = -math.inf
        self._last_error: str | None = None
        self._terms = self._renewals = self._failures = self._consecutive_failures = 0
        self._last_renewed: float | None = None

    # --- What is known ----------------------------------------------------------------------------------------------

    def is_leader(self) -> bool:
        return self.remaining() > 0

    def remaining(self) -> float:
        """Return the seconds for which we surely lead; 0.0 if we do not. What only a leader may do must *end* in it."""
        return max(0.0, self._leading_until - self._clock())

    @property
    def holder(self) -> str | None:
        """Whom the Lease names, as far as we know, even if it has run out; None if nobody."""
        return (self._lease.spec.holder_identity if self._lease else None) or None

    @property
    def unclean(self) -> bool:
        """Whether we came to lead because another one's lease ran out, or was not there, instead of being given back.

        That one need not be dead: it may have been paused, or be cut off, with a write on its way that can land any
        time from now on. Such a write must be fenced off by who relies on writing alone. Who held a Lease that was
        deleted may even take itself for the leader yet, until it is told, or renews: about the retry period.
        """
        return self._unclean

    @property
    def last_error(self) -> str | None:
        """What is in the way of holding the lease, or of watching it; None if nothing is."""
        return self._last_error or self.reflector.statistics.last_error

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            terms=self._terms,
            renewals=self._renewals,
            failures=self._failures,
            consecutive_failures=self._consecutive_failures,
            last_renewed=self._last_renewed,
        )

    # --- At work ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Acquire the lease, renew it, lose it, and begin again. Returns never; to be ended by cancellation.

        That does not give the lease back. An error that is no KubernetesError is a bug, and is raised, in a group.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reflector.run(), name="lease")
            tasks.create_task(self._campaign(), name="campaign")

    async def release(self) -> None:
        """Cease to lead, at once and for good, and give the lease back, so that another one need not wait for its end.

        Call it when everything that only a leader may do is over, its outcome known: who leads next relies on it.
        Takes as long as one request at most, and raises nothing. A lease that cannot be given back runs out by itself.
        """
        self._retired = True
        self._leading_until = -math.inf
        self._disarm()
        self._tell()
        if not self._term:
            return
        try:
            await self._call(self._give_back())
        except KubernetesError as error:
            self._last_error = str(error)

    async def _give_back(self) -> None:
        """Write that nobody holds the lease, unless that is so. The record is the one that client-go leaves."""
        while (present := await self._read()) is not None and self._is_ours(present):
            stamp = self._stamp(present)
            free = LeaseSpec(holder_identity="", lease_duration_seconds=1, acquire_time=stamp, renew_time=stamp)
            try:
                self._observe(await self._patch(present, free))
            except (Conflict, NotFound):
                pass  # a renewal that was cut off has landed after all
            else:
                return

    async def _campaign(self) -> None:
        while not self._retired:
            self._take_news()
            due = max(self._renew_at if self.is_leader() else self._free_at, self._retry_at)
            if due > self._clock():
                self.pulse.promise(due - self._clock())
                await self._wait_until(due)
            else:
                self.pulse.promise(2 * self._renew_deadline)  # a few requests, none of which may take longer than half
                await self._attempt()

    async def _wait_until(self, due: float) -> None:
        try:
            async with asyncio.timeout(due - self._clock()):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _attempt(self) -> None:
        try:
            await self._acquire_or_renew()
        except KubernetesError as error:
            self._failures += 1
            self._consecutive_failures += 1
            # The first time it may just be a race that was lost (Invalid: the Lease is there by now).
            if self._consecutive_failures > 1 or not isinstance(error, (Conflict, Invalid)):
                self._last_error = str(error)
            self._retry_at = self._clock() + self._pause(error)
        else:
            if self._consecutive_failures > 1 and self.reflector.statistics.last_error:
                self.reflector.relist()  # the API is back, but the watch might wait for half a minute yet
            self._consecutive_failures = 0
            self._last_error = None

    def _pause(self, error: KubernetesError) -> float:
        """Return the seconds to wait after a failure."""
        pause = min(backoff(self._consecutive_failures, self._random()), self._retry_period)
        if isinstance(error, ApiError) and error.retry_after is not None:
            # An API that asks for time answers: a leader tries again, at ever shorter intervals, before its time is up.
            longest = self.remaining() / 2 if self.is_leader() else self._lease_duration
            pause = max(pause, min(error.retry_after, longest))
        return pause

    async def _acquire_or_renew(self) -> None:
        if self.is_leader() and self._lease is not None:
            try:
                await self._write(self._lease)
            except (Conflict, NotFound):
                pass  # somebody has touched or deleted it: see what it says now
            else:
                return
        present = await self._read()
        if self._retired or not (self.is_leader() or self._clock() >= self._free_at):
            return
        try:
            await self._write(present)
        except (Conflict, Invalid):
            await self._read()  # if somebody else won, we must not lead any more
            raise

    # --- What the Lease says ----------------------------------------------------------------------------------------

    def _take_news(self) -> None:
        """Take in what the watch has told, unless a request has told us something newer."""
        if self._key not in self.reflector.take_changed():
            return
        stored = self.reflector.store.get(self._key)
        known = self._lease.metadata.resource_version if self._lease else ""
        if stored is not None and not is_older(stored.metadata.resource_version, known):
            self._observe(stored)
        elif stored is None and is_older(known, self.reflector.resource_version):
            self._observe(None)
            self._renew_at = -math.inf  # a leader makes it anew, before anybody else has to wonder

    def _observe(self, lease: Lease | None) -> None:
        """Take in a newer state of the Lease, None if there is none.

        One that was deleted is free only after the time in which its holder may not have noticed. Where there never
        was one it is free at once.
        """
        known, self._lease = self._lease, lease
        if lease is None:
            if known is not None:
                self._free_at = self._clock() + self._lease_duration
        elif known is None or lease.spec != known.spec:
            self._judge(lease)
        self._tell()

    def _judge(self, lease: Lease) -> None:
        self._given_back = not lease.spec.holder_identity
        if self._is_ours(lease):
            self._free_at = -math.inf
            return
        self._term = ""
        self._leading_until = -math.inf
        self._free_at = -math.inf if self._given_back else self._clock() + self._duration(lease.spec)

    def _is_ours(self, lease: Lease) -> bool:
        spec = lease.spec
        return spec.holder_identity == self.identity and self._term != "" and spec.acquire_time == self._term

    def _duration(self, spec: LeaseSpec) -> float:
        """Return the seconds after which somebody else's lease has run out; our own duration if it states none."""
        stated = spec.lease_duration_seconds or 0
        return min(stated, max(MAX_DURATION, self._lease_duration)) if stated > 0 else self._lease_duration

    # --- Requests ---------------------------------------------------------------------------------------------------

    async def _read(self) -> Lease | None:
        try:
            found = await self._call(self._client.get(LEASES, self._key, Lease))
        except NotFound:
            found = None
        self._observe(found)
        return found

    async def _write(self, present: Lease | None) -> None:
        """Make the lease ours, from the state that it is in or where there is none; we lead if that succeeds."""
        started = self._clock()
        if not (self.is_leader() if present is None else self._is_ours(present)):
            # Now, not with the answer: without one we may find out later that the lease is ours.
            # Where there is no Lease it may have been deleted, and whoever held it does not know yet.
            self._unclean = not self._given_back or present is None
        record = self._record(present)
        written = await (self._create(record) if present is None else self._patch(present, record))
        if self._retired:
            return
        self._renewals += 1
        self._last_renewed = started
        self._leading_until = started + self._renew_deadline
        self._renew_at = started + self._retry_period * (1 + JITTER * self._random())
        self._arm()
        self._observe(written)

    def _record(self, present: Lease | None) -> LeaseSpec:
        """Return what the Lease is to say."""
        stamp = self._stamp(present)
        transitions = 0
        if present is not None:
            before = present.spec.lease_transitions or 0
            transitions = before if self._is_ours(present) else min(max(before, 0) + 1, _MAX_TRANSITIONS)
        # Kept until it is known that somebody else won: an attempt that was not answered may have succeeded.
        self._term = self._term or stamp
        return LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=math.ceil(self._lease_duration),
            acquire_time=self._term,
            renew_time=stamp,
            lease_transitions=transitions,
        )

    def _stamp(self, present: Lease | None) -> str:
        """Return the time of day, but never the one that is there: a write that changes nothing is none to the API."""
        now = self._now()
        stamp = micro_time(now)
        repeated = present is not None and present.spec.renew_time == stamp
        return micro_time(now + timedelta(microseconds=1)) if repeated else stamp

    async def _create(self, record: LeaseSpec) -> Lease:
        """Make the Lease by PUT: unlike POST, that is authorised by its name.

        Without a resourceVersion it never replaces one that is there: that is Invalid.
        """
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._key.name, "namespace": self._key.namespace},
            "spec": _document(record),
        }
        return await self._call(self._client.update(LEASES, self._key, body, Lease))

    async def _patch(self, present: Lease, record: LeaseSpec) -> Lease:
        """Change the record, and nothing else, if the Lease is still in the state ``present``.

        Not by PUT, which would make a Lease anew that was deleted meanwhile, whatever the resourceVersion says.
        """
        body = {"metadata": {"resourceVersion": present.metadata.resource_version}, "spec": _document(record)}
        return await self._call(self._client.patch(LEASES, self._key, body, Lease))

    async def _call(self, request: Awaitable[T]) -> T:
        seconds = self._renew_deadline / 2
        try:
            async with asyncio.timeout(seconds):
                return await request
        except TimeoutError:
            raise ConnectionFailed(f"Lease {self._key}: no answer within {seconds:g} s") from None

    # --- Telling ----------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the timer that notices the end of our time, whatever else is going on then."""
        self._disarm()
        self._deadline = asyncio.get_running_loop().call_later(self.remaining(), self._check_deadline)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _check_deadline(self) -> None:
        if self.is_leader():
            self._arm()  # a timer may fire a little before its time
        else:
            self._tell()

    def _tell(self) -> None:
        told, self._told = self._told, (self.is_leader(), self.holder)
        if self._told == told:
            return
        if self._told[0] and not told[0]:
            self._terms += 1
        self._on_change()


def _document(record: LeaseSpec) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(record)
    return document
