"""The table of health: many checks, in parallel, repeated, remembered.

What it guarantees:

* A check is one attempt. What is known without asking is its outcome, if there is anything; otherwise it is a probe,
  which holds one of ``concurrency`` slots for as long as it takes (``timeout`` at most). Nobody waits for another one's
  answer, only for a slot.
* Slots go first to candidates that answered last time, then to new ones, then to those that do not answer. So however
  many hang, the check of a healthy one waits until the next slot comes free, and the first check of a new one only for
  the first checks of those that came before it.
* The next check follows after ``interval``; after the first, second, third failed one in a row already after 1, 2, 4
  seconds and so on up to the interval. All give or take a tenth, so that what began together does not stay together.
* A refused candidate is never probed, and counts as refused at once, whatever is under way.
* One of which it cannot be known yet whether it may be probed waits, however long, until somebody wants to know again.
  That is no check: what was known of it stays.

How many failed checks are too many is not decided here: the table counts them.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from dynamic_toolset import tracing
from dynamic_toolset.health.slots import Slots, Urgency
from dynamic_toolset.model import UNCHECKED, Candidate, Check, Health, ServiceKey, Verdict
from dynamic_toolset.settings import HealthCheckSettings, seconds

_JITTER = 0.1

_BETWEEN_HASTENED = 0.5
"""Seconds that pass at least before a candidate is asked again because somebody wants to know: a tenant can make a
Pod ready and unready as fast as he likes."""

REMEMBERED = 20
"""Checks of a candidate that are kept to be shown."""

_LONGEST_DOUBLING = 32
"""Failures after which doubling has reached any interval."""


class Statistics(Struct, frozen=True):
    """Checks that ended, by outcome, and probes: those made so far, under way, and waiting for a slot."""

    healthy: int
    unhealthy: int
    needs_credentials: int
    probes: int
    running: int
    waiting: int


class _Entry:
    """One row of the table. The task keeps it up to date, and is None while nothing runs.

    ``asked`` is when the candidate was last asked, ``wanted`` whether somebody has wanted to know since, and ``due``
    when it is to be asked next. ``checks`` are the last ones, the newest first.
    """

    __slots__ = ("asked", "candidate", "checks", "due", "health", "task", "wanted")

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.health = UNCHECKED
        self.checks: deque[Check] = deque(maxlen=REMEMBERED)
        self.due = float("inf")
        self.task: asyncio.Task[None] | None = None
        self.asked = float("-inf")
        self.wanted = asyncio.Event()


class Checker:
    """Keeps the health of each present candidate and renews it, once ``run`` is running.

    ``probe`` makes one attempt. ``known`` returns the health of a candidate as far as it is known without asking it,
    such as that its address is refused, else None; it must be quick. An unknown health says that it must not be asked
    for now; ``hasten`` ends that. ``good`` says whether an outcome ends a row of
    failures: one that needs credentials may be as good as healthy to somebody who has them.

    ``on_change`` is called, in the event loop, when a check or ``hasten`` has changed the health of a candidate: its
    verdict, its reason, its want of credentials, that it is refused, or its failures, which are counted up to
    ``failure_threshold`` for that. ``on_checked`` is called with every outcome. Neither may raise. ``jitter`` returns a
    number from 0 to 1, and ``now`` the time of day, for people.
    """

    def __init__(
        self,
        probe: Callable[[Candidate], Awaitable[Health]],
        settings: HealthCheckSettings,
        *,
        known: Callable[[Candidate], Health | None] = lambda _candidate: None,
        good: Callable[[Candidate, Health], bool] = lambda _candidate, health: health.verdict is Verdict.HEALTHY,
        on_change: Callable[[], None] = lambda: None,
        on_checked: Callable[[Candidate, Health], None] = lambda _candidate, _health: None,
        jitter: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._probe = probe
        self._known = known
        self._good = good
        self._interval = seconds(settings.interval)
        self._threshold = settings.failure_threshold
        self._on_change = on_change
        self._on_checked = on_checked
        self._jitter = jitter
        self._now = now
        self._slots = Slots(settings.concurrency)
        self._table: dict[ServiceKey, _Entry] = {}
        self._unknown: set[ServiceKey] = set()
        self._inherited: Mapping[ServiceKey, _Entry] = {}
        self._settled = asyncio.Event()
        self._settled.set()
        self._tasks: asyncio.TaskGroup | None = None
        self._ended = {"healthy": 0, "unhealthy": 0, "needs_credentials": 0}
        self._probes = 0

    def succeed(self, other: "Checker") -> None:
        """Take over what another table, in whose place this one comes, has found out of candidates that are the same.

        It is to be called before the first ``update``. They are checked anew at once, and until then count as they did;
        a check that was under way does not count.
        """
        self._inherited = {
            key: entry
            for key, entry in other._table.items()  # noqa: SLF001 - one of us
            if entry.health.verdict is not Verdict.UNKNOWN
        }

    def update(self, candidates: Mapping[ServiceKey, Candidate]) -> None:
        """Take over the present candidates.

        A new one is checked at once, and so is one whose endpoint, check or type changed: what was known of it is
        forgotten, and so is a check of it that is under way. One that is refused needs no check for that. One that is
        gone is forgotten.
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
            before = self._inherited.get(key)
            if before is not None and _is_same_question(before.candidate, candidate):
                entry.health, entry.checks, entry.asked = before.health, before.checks, before.asked
                entry.wanted.set()
            else:
                self._unknown.add(key)
            known = self._known(candidate)
            if known is not None and known.refused:
                self._record(key, entry, known)
            elif known is not None and known.verdict is Verdict.UNKNOWN and key in self._unknown:
                entry.health = known
            self._start(key, entry)
        self._inherited = {}
        self._note_settled()

    def hasten(self, keys: Iterable[ServiceKey]) -> None:
        """Check these now. While a check of one is under way, it is checked once more right after it.

        However often it is called, a candidate is asked twice a second at most. One that has come to be refused
        counts as refused at once.
        """
        for key in keys:
            entry = self._table.get(key)
            if entry is None:
                continue
            refusal = self._refusal(entry.candidate)
            if refusal is None or entry.health.refused:
                entry.wanted.set()
                continue
            if entry.task is not None:
                entry.task.cancel()  # what a probe under way finds does not count any more
            self._record(key, entry, refusal)
            self._start(key, entry)
            self._note_settled()
            self._on_change()

    def health(self, key: ServiceKey) -> Health:
        """Return the outcome of the last check, or UNCHECKED if there was none."""
        entry = self._table.get(key)
        return entry.health if entry is not None else UNCHECKED

    def checks(self, key: ServiceKey) -> tuple[Check, ...]:
        """Return the last checks of a candidate, the newest first, :data:`REMEMBERED` at most."""
        entry = self._table.get(key)
        return tuple(entry.checks) if entry is not None else ()

    @property
    def late(self) -> float:
        """By how many seconds the check that is most overdue is; 0 if none is. Waiting for a slot is no delay."""
        now = asyncio.get_running_loop().time()
        return max(0.0, *(now - entry.due for entry in self._table.values())) if self._table else 0.0

    @property
    def statistics(self) -> Statistics:
        return Statistics(**self._ended, probes=self._probes, running=self._slots.taken, waiting=self._slots.waiting)

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
        async with asyncio.TaskGroup() as self._tasks:
            try:
                for key, entry in self._table.items():
                    self._start(key, entry)
                await asyncio.Event().wait()
            finally:
                self._tasks = None  # from here on the group takes no new ones

    # --- The table --------------------------------------------------------------------------------------------------

    def _start(self, key: ServiceKey, entry: _Entry) -> None:
        if self._tasks is not None:
            entry.task = self._tasks.create_task(self._keep_checking(key, entry), name=f"health {key}")

    def _forget(self, key: ServiceKey) -> None:
        entry = self._table.pop(key)
        self._unknown.discard(key)
        if entry.task is not None:
            entry.task.cancel()

    def _record(self, key: ServiceKey, entry: _Entry, outcome: Health) -> None:
        """Take over the outcome of a check."""
        self._ended["needs_credentials" if outcome.needs_credentials else outcome.verdict.value] += 1
        failures = 0 if self._good(entry.candidate, outcome) else entry.health.failures + 1
        entry.health = replace(outcome, failures=failures)
        entry.checks.appendleft(Check(self._now(), entry.health))
        self._unknown.discard(key)
        self._on_checked(entry.candidate, entry.health)

    def _note_settled(self) -> None:
        if self._unknown:
            self._settled.clear()
        else:
            self._settled.set()

    # --- One candidate ----------------------------------------------------------------------------------------------

    async def _keep_checking(self, key: ServiceKey, entry: _Entry) -> None:
        """Check one candidate until cancelled, which happens when it is gone or changed."""
        while True:
            if entry.health.verdict is not Verdict.UNKNOWN:
                await self._pause(entry)
            before, outcome = entry.health, await self._check(entry)
            if outcome.verdict is Verdict.UNKNOWN:
                await entry.wanted.wait()
                continue
            self._record(key, entry, outcome)
            self._note_settled()
            if self._what_matters(before) != self._what_matters(entry.health):
                self._on_change()

    async def _check(self, entry: _Entry) -> Health:
        """Return what is known without asking, else what the probe finds."""
        known = self._ask_what_is_known(entry)
        if known is None:
            async with self._slots.hold(_urgency(entry.health)):
                known = self._ask_what_is_known(entry)  # while it waited for its slot that may have changed
                if known is None:
                    self._probes += 1
                    return await self._ask(entry.candidate)
        return known

    async def _ask(self, candidate: Candidate) -> Health:
        key, endpoint = candidate.key, candidate.endpoint.url
        # The task began in the pass that found the candidate, and goes on for long after it.
        with tracing.span(
            "health_check",
            alone=True,
            service=str(key),
            namespace=key.namespace,
            type=candidate.type,
            endpoint=endpoint,
        ):
            health = await self._probe(candidate)
            tracing.note(verdict=health.verdict.value, reason=health.reason)
            return health

    def _ask_what_is_known(self, entry: _Entry) -> Health | None:
        entry.asked = asyncio.get_running_loop().time()
        entry.wanted.clear()
        return self._known(entry.candidate)

    def _refusal(self, candidate: Candidate) -> Health | None:
        known = self._known(candidate)
        return known if known is not None and known.refused else None

    async def _pause(self, entry: _Entry) -> None:
        """Wait for the next check: until it is due, or wanted."""
        wait = self._until_next(entry.health)
        entry.due = asyncio.get_running_loop().time() + wait
        try:
            async with asyncio.timeout(wait):
                await entry.wanted.wait()
        except TimeoutError:
            return
        finally:
            entry.due = float("inf")
        await asyncio.sleep(entry.asked + _BETWEEN_HASTENED - asyncio.get_running_loop().time())

    def _until_next(self, health: Health) -> float:
        wait = self._interval
        if not (_answered(health) or health.refused):
            wait = min(2.0 ** min(health.failures - 1, _LONGEST_DOUBLING), self._interval)
        return wait * (1 - _JITTER + 2 * _JITTER * self._jitter())

    def _what_matters(self, health: Health) -> tuple[Verdict, str, bool, bool, int]:
        """Return what somebody would want to hear of: not how long it took, nor how often beyond the threshold."""
        failures = min(health.failures, self._threshold)
        return health.verdict, health.reason, health.needs_credentials, health.refused, failures


def _is_same_question(one: Candidate, other: Candidate) -> bool:
    """Whether a check of one is a check of the other."""
    return one is other or (one.endpoint, one.check, one.type) == (other.endpoint, other.check, other.type)


def _answered(health: Health) -> bool:
    return health.verdict is Verdict.HEALTHY or health.needs_credentials


def _urgency(health: Health) -> Urgency:
    """Return how urgent a check is, given the outcome of the last one."""
    if health.verdict is Verdict.UNKNOWN:
        return Urgency.NEW
    return Urgency.ANSWERING if _answered(health) else Urgency.FAILING
