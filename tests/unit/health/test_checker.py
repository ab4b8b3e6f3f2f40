"""The table of verdicts, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest

from dynamic_toolset.health.checker import Checker, Statistics
from dynamic_toolset.model import UNCHECKED, Candidate, Health, HealthCheck, ServiceKey, Verdict
from dynamic_toolset.settings import HealthCheckSettings
from tests.unit.health.candidates import candidate
from tests.virtual_time import virtual_time

GOOD = Health(Verdict.HEALTHY, "answers as Prometheus", seconds=0.01)
BAD = Health(Verdict.UNHEALTHY, "connection refused", seconds=0.01)
LOCKED = Health(Verdict.UNHEALTHY, "needs credentials (HTTP 401)", needs_credentials=True)

Probe = Callable[[Candidate], Awaitable[Health]]


class Backends:
    """Plays the probe: says what a backend answers and how long it takes, and remembers when it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Health | list[Health]] = {}
        self.takes: dict[str, float] = {}
        self.asked: list[tuple[float, str]] = []
        self.running = self.most_running = 0

    async def __call__(self, candidate: Candidate) -> Health:
        name = candidate.key.name
        self.asked.append((asyncio.get_running_loop().time(), name))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.takes.get(name, 0.01))
        finally:
            self.running -= 1
        answer = self.answers.get(name, GOOD)
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    def times(self, name: str) -> list[float]:
        return [round(when, 3) for when, who in self.asked if who == name]


def present(*candidates: Candidate) -> dict[ServiceKey, Candidate]:
    return {one.key: one for one in candidates}


@asynccontextmanager
async def running(checker: Checker) -> AsyncIterator[Checker]:
    task = asyncio.create_task(checker.run())
    await asyncio.sleep(0)
    try:
        yield checker
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or not task.exception()


def checker_of(probe: Probe, *, on_change: Callable[[], None] = lambda: None, **settings: object) -> Checker:
    how = msgspec.convert(settings, HealthCheckSettings)
    return Checker(probe, how, on_change=on_change, jitter=lambda: 0.5)


A = candidate("a")
B = candidate("b")


@virtual_time
async def test_a_new_candidate_is_checked_at_once_and_again_after_the_interval() -> None:
    backends = Backends()
    async with running(checker_of(backends)) as checker:
        await asyncio.sleep(7)
        checker.update(present(A))
        assert checker.health(A.key) == UNCHECKED
        assert checker.pending == 1
        await asyncio.sleep(0.02)
        assert checker.health(A.key) == GOOD
        assert checker.pending == 0
        await asyncio.sleep(61)
    assert backends.times("a") == [7, 37.01, 67.02]


@virtual_time
async def test_what_is_present_before_it_runs_is_checked_when_it_runs() -> None:
    checker = checker_of(Backends())
    checker.update(present(A))
    assert not await checker.settled(1)
    async with running(checker):
        assert await checker.settled(1)
        assert checker.health(A.key) == GOOD


@virtual_time
async def test_a_failing_candidate_gets_its_attempts_before_the_verdict_and_is_checked_again_early() -> None:
    backends = Backends()
    backends.answers["a"] = BAD
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(2.02)
        assert checker.health(A.key) == UNCHECKED
        await asyncio.sleep(0.02)
        assert checker.health(A.key) == BAD
        await asyncio.sleep(10)
    assert backends.times("a") == [0, 1.01, 2.02, 12.03]


@virtual_time
async def test_one_good_attempt_makes_a_good_check() -> None:
    backends = Backends()
    backends.answers["a"] = [BAD, BAD, GOOD]
    changes: list[Verdict] = []
    checker = checker_of(backends, on_change=lambda: changes.append(checker.health(A.key).verdict))
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(20)
    assert changes == [Verdict.HEALTHY]
    assert backends.times("a") == [0, 1.01, 2.02]


@virtual_time
async def test_one_that_asks_for_credentials_is_not_asked_again_in_the_same_check() -> None:
    backends = Backends()
    backends.answers["a"] = LOCKED
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(9)
        assert checker.health(A.key) == LOCKED
        assert backends.times("a") == [0]


@virtual_time
async def test_a_change_is_told_and_a_repetition_is_not() -> None:
    slower = msgspec.structs.replace(GOOD, seconds=0.4)
    other = Health(Verdict.UNHEALTHY, "HTTP 500")
    backends = Backends()
    backends.answers["a"] = [GOOD, slower, BAD, BAD, other, LOCKED, GOOD]
    seen: list[Health] = []
    checker = checker_of(backends, on_change=lambda: seen.append(checker.health(A.key)), attempts=1)
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(40)
        assert checker.health(A.key).seconds == 0.4
        await asyncio.sleep(150)
    assert seen == [GOOD, BAD, other, LOCKED, GOOD]


@virtual_time
async def test_the_last_verdict_stands_while_the_next_check_runs() -> None:
    backends = Backends()
    backends.answers["a"] = [GOOD, BAD]
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(31.5)
        assert len(backends.times("a")) == 3
        assert checker.health(A.key) == GOOD
        assert checker.pending == 0
        await asyncio.sleep(1)
        assert checker.health(A.key) == BAD


@virtual_time
async def test_the_same_candidates_again_cause_nothing() -> None:
    backends = Backends()
    async with running(checker_of(backends)) as checker:
        for _ in range(10):
            checker.update(present(A, B))
            await asyncio.sleep(1)
        # What only the agent reads is no other question to the backend.
        checker.update(present(msgspec.structs.replace(A, name="other", description="Other."), B))
        await asyncio.sleep(1)
        assert checker.health(A.key) == GOOD
    assert Counter(name for _, name in backends.asked) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "changed",
    [
        candidate("a", port=1),
        candidate("a", address="10.0.0.1"),
        candidate("a", check=HealthCheck("/ready")),
        msgspec.structs.replace(A, type="thanos"),
    ],
    ids=["port", "address", "check", "type"],
)
@virtual_time
async def test_a_changed_candidate_is_a_new_one(changed: Candidate) -> None:
    backends = Backends()
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(5)
        checker.update(present(changed))
        assert checker.health(A.key) == UNCHECKED
        assert checker.pending == 1
        assert await checker.settled(1)
        assert backends.times("a") == [0, 5]


@virtual_time
async def test_a_check_of_what_a_candidate_was_does_not_count() -> None:
    async def probe(one: Candidate) -> Health:
        await asyncio.sleep(3 if one.endpoint.port == 1 else 10)
        return BAD if one.endpoint.port == 1 else GOOD

    seen: list[Health] = []
    checker = checker_of(probe, on_change=lambda: seen.append(checker.health(A.key)), attempts=1)
    async with running(checker):
        checker.update(present(candidate("a", port=1)))
        await asyncio.sleep(2.999)
        checker.update(present(candidate("a", port=2)))
        await asyncio.sleep(9)
        assert seen == []
        await asyncio.sleep(2)
        assert seen == [GOOD]


@virtual_time
async def test_a_candidate_that_is_gone_is_forgotten_and_its_check_ends() -> None:
    backends = Backends()
    backends.takes["a"] = 100
    async with running(checker_of(backends)) as checker:
        checker.update(present(A, B))
        await asyncio.sleep(1)
        assert not await checker.settled(1)
        assert backends.running == 1
        checker.update(present(B))
        assert checker.pending == 0
        assert checker.health(A.key) == UNCHECKED
        assert await checker.settled(0.001)
        await asyncio.sleep(0.001)
        assert backends.running == 0
        # It comes back as if it had never been there.
        backends.takes["a"] = 1
        checker.update(present(A, B))
        await asyncio.sleep(2)
        assert checker.health(A.key) == GOOD


@virtual_time
async def test_settled_says_whether_every_verdict_is_there() -> None:
    backends = Backends()
    backends.takes = {"a": 0.3, "b": 4}
    async with running(checker_of(backends)) as checker:
        assert await checker.settled(1)
        checker.update(present(A, B))
        assert not await checker.settled(1)
        assert asyncio.get_running_loop().time() == pytest.approx(1)
        assert checker.pending == 1
        assert await checker.settled(10)
        assert asyncio.get_running_loop().time() == pytest.approx(4)


@virtual_time
async def test_no_more_attempts_at_once_than_the_bound_and_none_held_during_a_pause() -> None:
    backends = Backends()
    many = [candidate(f"c{number}") for number in range(40)]
    for one in many:
        backends.answers[one.key.name] = BAD
        backends.takes[one.key.name] = 0.5
    async with running(checker_of(backends, concurrency=10, pause="10s", interval="1h")) as checker:
        checker.update(present(*many))
        await asyncio.sleep(0.75)
        assert checker.statistics.running == 10
        assert checker.statistics.waiting == 20
        await asyncio.sleep(1.5)
        # All first attempts are made in four rounds: the pauses of those that failed hold no slot.
        assert len(backends.asked) == 40
        assert checker.statistics.running == 0
    assert backends.most_running == 10


@virtual_time
async def test_thousands_that_hang_hold_up_nobody_who_answers() -> None:
    """1,000 silent backends and 64 slots for them: good ones are rechecked on time, new ones found within seconds."""
    backends = Backends()
    silent = [candidate(f"silent-{number}") for number in range(1000)]
    for one in silent:
        backends.answers[one.key.name] = BAD
        backends.takes[one.key.name] = 5
    good = [candidate(f"good-{number}") for number in range(30)]
    late = candidate("late")
    async with running(checker_of(backends, concurrency=64)) as checker:
        checker.update(present(*good))
        await asyncio.sleep(1)
        checker.update(present(*good, *silent))
        # All silent ones have had their first attempt, and all slots are busy with second ones.
        await asyncio.sleep(120)
        assert checker.statistics.running == 64
        appeared = asyncio.get_running_loop().time()
        checker.update(present(*good, *silent, late))
        await asyncio.sleep(60)
    assert backends.times("late")[0] - appeared <= 5
    for one in good:
        times = backends.times(one.key.name)
        waits = [after - before for before, after in pairwise(times)]
        assert len(waits) >= 4
        # The interval, and at worst until the next slot comes free: all 64 were taken in one moment.
        assert max(waits) <= 30 + 5.1


@virtual_time
async def test_by_default_a_thousand_newcomers_that_hang_delay_a_good_one_by_one_attempt() -> None:
    backends = Backends()
    silent = [candidate(f"silent-{number}") for number in range(1000)]
    for one in silent:
        backends.answers[one.key.name] = BAD
        backends.takes[one.key.name] = 5
    good = [candidate(f"good-{number}") for number in range(30)]
    async with running(checker_of(backends)) as checker:
        checker.update(present(*silent, *good))
        await asyncio.sleep(5.2)
        assert {checker.health(one.key) for one in good} == {GOOD}


@virtual_time
async def test_what_began_together_does_not_stay_together() -> None:
    backends = Backends()
    many = [candidate(f"c{number}") for number in range(200)]
    checker = Checker(backends, HealthCheckSettings())
    async with running(checker):
        checker.update(present(*many))
        await asyncio.sleep(33.5)
    second = [when for when, _ in backends.asked if when > 1]
    assert len(second) == 200
    assert min(second) >= 27
    assert max(second) <= 33.1
    assert max(second) - min(second) > 4


@virtual_time
async def test_a_bug_in_a_check_ends_the_run_and_every_other_check() -> None:
    hanging = 0

    async def probe(one: Candidate) -> Health:
        nonlocal hanging
        if one.key == A.key:
            await asyncio.sleep(1)
            raise ZeroDivisionError
        hanging += 1
        try:
            await asyncio.sleep(1000)
        finally:
            hanging -= 1
        return GOOD

    checker = checker_of(probe)
    checker.update(present(A, B))
    with pytest.raises(ExceptionGroup) as caught:
        await checker.run()
    assert caught.group_contains(ZeroDivisionError)
    assert hanging == 0


@virtual_time
async def test_cancelling_the_run_ends_every_check() -> None:
    backends = Backends()
    backends.takes = {"a": 100, "b": 100}
    checker = checker_of(backends)
    checker.update(present(A, B))
    task = asyncio.create_task(checker.run())
    await asyncio.sleep(1)
    assert backends.running == 2
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert backends.running == 0
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_statistics_count_checks_by_outcome() -> None:
    backends = Backends()
    backends.answers = {"a": GOOD, "b": BAD, "c": LOCKED}
    async with running(checker_of(backends, interval="1h")) as checker:
        checker.update(present(A, B, candidate("c")))
        await asyncio.sleep(10)
        assert checker.statistics == Statistics(
            healthy=1, unhealthy=1, needs_credentials=1, attempts=5, running=0, waiting=0
        )
