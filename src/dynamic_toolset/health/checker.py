"""The table of verdicts: many checks, in parallel, retried, remembered.

What it guarantees:

* Nobody waits for another one's answer, only for a slot. At most ``concurrency`` attempts run at once; each holds its
  slot for one attempt (``timeout`` at most), and never during a pause.
* Slots go first to candidates that answered last time, then to new ones, then to those that do not answer. So however
  many hang, the check of a healthy one waits until the next slot comes free, and the first check of a new one only for
  the first attempts of those that came before it.
* A check is up to ``attempts`` attempts, ``pause`` apart. It ends at the first that finds the candidate healthy, or in
  want of credentials. A verdict changes when a check ends, not before.
* The next check follows after ``interval``, or a third of it where the last one failed, give or take a tenth, so that
  what began together does not stay together.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from dynamic_toolset.health.slots import Slots, Urgency
from dynamic_toolset.model import UNCHECKED, Candidate, Health, ServiceKey, Verdict
from dynamic_toolset.settings import HealthCheckSettings, seconds

_SOONER = 1 / 3
"""What part of the interval passes before a candidate is checked again whose check failed."""

_JITTER = 0.1


class Statistics(Struct, frozen=True):
    """Checks that ended, by outcome, and attempts: those made so far, under way, and waiting for a slot."""

    healthy: int
    unhealthy: int
    needs_credentials: int
    attempts: int
    running: int
    waiting: int


class _Entry:
    """One row of the table. The task keeps it up to date, and is None while nothing runs."""

    __slots__ = ("candidate", "health", "task")

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.health = UNCHECKED
        self.task: asyncio.Task[None] | None = None


class Checker:
    """Keeps a verdict for each present candidate and renews it, once ``run`` is running.

    ``probe`` makes one attempt. ``on_change`` is called, in the event loop, when a verdict, its reason or its want of
    credentials has changed. ``jitter`` returns a number from 0 to 1.
    """

    def __init__(
        self,
        probe: Callable[[Candidate], Awaitable[Health]],
        settings: HealthCheckSettings,
        *,
        on_change: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._probe = probe
        self._attempts = settings.attempts
        self._pause = seconds(settings.pause)
        self._interval = seconds(settings.interval)
        self._on_change = on_change
        self._jitter = jitter
        self._slots = Slots(settings.concurrency)
        self._table: dict[ServiceKey, _Entry] = {}
        self._unknown: set[ServiceKey] = set()
        self._settled = asyncio.Event()
        self._settled.set()
        self._tasks: asyncio.TaskGroup | None = None
        self._ended = {"healthy": 0, "unhealthy": 0, "needs_credentials": 0}
        self._attempted = 0

    def update(self, candidates: Mapping[ServiceKey, Candidate]) -> None:
        """Take over the present candidates.

        A new one is checked at once, and so is one whose endpoint, check or type changed: what was known of it is
        forgotten, and so is a check of it that is under way. One that is gone is forgotten.
        """
        for key in self._table.keys() - candidates.keys():
            self._forget(key)
        for key, candidate in candidates.items():
            entry = self._table.get(key)
            if entry is not None and _is_same_question(entry.candidate, candidate):
                entry.candidate = candidate
                continue
            if entry is not None:
                self._forget(key)
            entry = self._table[key] = _Entry(candidate)
            self._unknown.add(key)
            if self._tasks is not None:
                entry.task = self._tasks.create_task(self._keep_checking(key, entry), name=f"health {key}")
        self._note_settled()

    def health(self, key: ServiceKey) -> Health:
        """Return the outcome of the last check, or UNCHECKED if there was none."""
        entry = self._table.get(key)
        return entry.health if entry is not None else UNCHECKED

    @property
    def pending(self) -> int:
        """How many candidates have no verdict yet."""
        return len(self._unknown)

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            **self._ended, attempts=self._attempted, running=self._slots.taken, waiting=self._slots.waiting
        )

    async def settled(self, timeout: float) -> bool:  # noqa: ASYNC109 - it is part of the question, not of the call
        """Wait until every candidate has a verdict, for ``timeout`` seconds at most. Return whether they have."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Check, for ever. When it is cancelled, so is every check; an error in one ends them all and is raised."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for key, entry in self._table.items():
                    entry.task = self._tasks.create_task(self._keep_checking(key, entry), name=f"health {key}")
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    def _forget(self, key: ServiceKey) -> None:
        entry = self._table.pop(key)
        self._unknown.discard(key)
        if entry.task is not None:
            entry.task.cancel()

    def _note_settled(self) -> None:
        if self._unknown:
            self._settled.clear()
        else:
            self._settled.set()

    async def _keep_checking(self, key: ServiceKey, entry: _Entry) -> None:
        """Check one candidate until cancelled, which happens when it is gone or changed."""
        while True:
            health = await self._check(entry)
            self._count(health)
            before, entry.health = entry.health, health
            if before.verdict is Verdict.UNKNOWN:
                self._unknown.discard(key)
                self._note_settled()
            if _what_matters(before) != _what_matters(health):
                self._on_change()
            await asyncio.sleep(self._until_next(health))

    async def _check(self, entry: _Entry) -> Health:
        """Make attempts until one settles the matter, or all are made. The last one's outcome is the check's."""
        urgency = _urgency(entry.health)
        for _ in range(self._attempts - 1):
            health = await self._attempt(entry, urgency)
            if _answered(health):
                return health
            urgency = Urgency.FAILING
            await asyncio.sleep(self._pause)
        return await self._attempt(entry, urgency)

    async def _attempt(self, entry: _Entry, urgency: Urgency) -> Health:
        async with self._slots.hold(urgency):
            self._attempted += 1
            return await self._probe(entry.candidate)

    def _until_next(self, health: Health) -> float:
        interval = self._interval if health.verdict is Verdict.HEALTHY else self._interval * _SOONER
        return interval * (1 - _JITTER + 2 * _JITTER * self._jitter())

    def _count(self, health: Health) -> None:
        self._ended["needs_credentials" if health.needs_credentials else health.verdict.value] += 1


def _is_same_question(one: Candidate, other: Candidate) -> bool:
    """Whether a check of one is a check of the other."""
    return one is other or (one.endpoint, one.check, one.type) == (other.endpoint, other.check, other.type)


def _what_matters(health: Health) -> tuple[Verdict, str, bool]:
    """Return what somebody would want to hear of, which is all but how long it took."""
    return health.verdict, health.reason, health.needs_credentials


def _answered(health: Health) -> bool:
    return health.verdict is Verdict.HEALTHY or health.needs_credentials


def _urgency(health: Health) -> Urgency:
    """Return how urgent the first attempt of a check is, given the outcome of the last one."""
    if health.verdict is Verdict.UNKNOWN:
        return Urgency.NEW
    return Urgency.ANSWERING if _answered(health) else Urgency.FAILING
