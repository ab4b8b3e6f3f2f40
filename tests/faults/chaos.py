"""What happens to replicas and to their connections, at random."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.cluster.cluster import AuditEvent
from tests.e2e.program import Program
from tests.faults.api_proxy import ApiProxy
from tests.waiting import eventually


class Victim(NamedTuple):
    """A replica, and its way to the API server."""

    program: Program
    proxy: ApiProxy


@contextmanager
def killed(victim: Victim) -> Iterator[None]:
    victim.program.kill()
    yield
    victim.program.start()


@contextmanager
def ended(victim: Victim) -> Iterator[None]:
    eventually(lambda: victim.program.hears)  # it may have been started just now
    victim.program.send(signal.SIGTERM)
    yield
    victim.program.stop()
    victim.program.start()


@contextmanager
def paused(victim: Victim) -> Iterator[None]:
    victim.program.pause()
    yield
    victim.program.resume()


@contextmanager
def cut(victim: Victim) -> Iterator[None]:
    victim.proxy.wire.cut()
    yield


@contextmanager
def refused(victim: Victim) -> Iterator[None]:
    with victim.proxy.wire.refusing():
        yield


@contextmanager
def silent(victim: Victim) -> Iterator[None]:
    with victim.proxy.wire.silent():
        yield


@contextmanager
def slow(victim: Victim) -> Iterator[None]:
    """Each answer takes a second, which is the most that a request for a lease of three seconds may take."""
    victim.proxy.delay = 1.0
    yield
    victim.proxy.delay = 0.0


@contextmanager
def delayed(victim: Victim) -> Iterator[None]:
    victim.proxy.delay = 0.2
    yield
    victim.proxy.delay = 0.0


@contextmanager
def held_up(victim: Victim) -> Iterator[None]:
    """What it writes into the ConfigMap is on its way for long, and arrives in the end unless it gives up."""
    with victim.proxy.holding(verb="patch", resource="configmaps"):
        yield


Misfortune = Callable[[Victim], AbstractContextManager[None]]

TO_PROCESSES: dict[Misfortune, tuple[float, float]] = {killed: (0, 2), ended: (0, 2), paused: (3.5, 6)}
TO_CONNECTIONS: dict[Misfortune, tuple[float, float]] = {
    cut: (0, 0),
    refused: (0.2, 4),
    silent: (0.5, 6),
    held_up: (0.5, 6),
    delayed: (1, 4),
    slow: (1, 4),
}
"""For how many seconds at least and at most each lasts. A pause outlasts a lease of three seconds."""

AT_ONCE = 2
"""So many things happen at the same time: of three replicas one has peace."""

PAUSE = 1.5
"""The most seconds between the beginnings of two."""


class Chaos:
    """Lets things happen to replicas, every other time to who leads. The same replica may suffer both kinds at once.

    ``count`` is how often each happened.
    """

    def __init__(self, victims: Sequence[Victim], leader: Callable[[], Program | None], seed: int) -> None:
        self.count: Counter[str] = Counter()
        self._restored: list[tuple[str, datetime]] = []
        self._leader = leader
        self._chance = random.Random(seed)
        self._free = [(victim, kind) for victim in victims for kind in (TO_PROCESSES, TO_CONNECTIONS)]
        self._under_way: list[tuple[float, ExitStack]] = []

    def rage(self, seconds: float) -> None:
        """Return when the time is over and everything works again."""
        end = time.monotonic() + seconds
        due = 0.0
        try:
            while (now := time.monotonic()) < end:
                self._finish(until=now)
                if now >= due and len(self._under_way) < AT_ONCE:
                    self._begin()
                    due = now + self._chance.uniform(0, PAUSE)
                time.sleep(0.02)
        finally:
            self._finish(until=float("inf"))

    def excuses(self, write: AuditEvent) -> bool:
        """Whether a write may have been held up: it came just when its sender, or its connection, came back."""
        gaps = (abs(write.received - at) for user, at in self._restored if user == write.user)
        return min(gaps, default=timedelta.max) < timedelta(seconds=1)

    def _begin(self) -> None:
        leader = self._leader() if self._chance.random() < 0.5 else None
        victim, kind = self._chance.choice([one for one in self._free if one[0].program is leader] or self._free)
        what = self._chance.choice(list(kind))
        self.count[what.__name__] += 1
        self._free.remove((victim, kind))
        with ExitStack() as cleanup:
            cleanup.callback(self._free.append, (victim, kind))
            cleanup.callback(lambda: self._restored.append((victim.program.user, datetime.now(UTC))))
            cleanup.enter_context(what(victim))
            self._under_way.append((time.monotonic() + self._chance.uniform(*kind[what]), cleanup.pop_all()))

    def _finish(self, until: float) -> None:
        for one in sorted(self._under_way, key=lambda one: one[0]):
            if one[0] <= until:
                self._under_way.remove(one)
                one[1].close()
