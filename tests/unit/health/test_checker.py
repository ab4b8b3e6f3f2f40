"""The table of health, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest

from dynamic_toolset.health.checker import REMEMBERED, Checker, Statistics
from dynamic_toolset.model import UNCHECKED, Candidate, Health, HealthCheck, ServiceKey, Verdict
from dynamic_toolset.settings import HealthCheckSettings
from tests.unit.health.candidates import candidate
from tests.virtual_time import virtual_time

GOOD = Health(Verdict.HEALTHY, "answers as Prometheus", seconds=0.01)
BAD = Health(Verdict.UNHEALTHY, "connection refused", seconds=0.01)
LOCKED = Health(Verdict.UNHEALTHY, "needs credentials (HTTP 401)", needs_credentials=True)
UNREADY = Health(Verdict.UNHEALTHY, "no ready endpoint in its EndpointSlices")
UNREAD = Health(Verdict.UNKNOWN, "not read yet")
REFUSED = Health(Verdict.UNHEALTHY, "169.254.169.254 is a link-local address", refused=True)

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


def failed(health: Health, failures: int) -> Health:
    """The health after so many failed checks in a row, of which this was the last."""
    return msgspec.structs.replace(health, failures=failures)


def checker_of(
    probe: Probe,
    *,
    known: Callable[[Candidate], Health | None] = lambda _: None,
    on_change: Callable[[], None] = lambda: None,
    **settings: object,
) -> Checker:
    how = msgspec.structs.replace(HealthCheckSettings(), **settings)
    return Checker(probe, how, known=known, on_change=on_change, jitter=lambda: 0.5)


A = candidate("a")
B = candidate("b")


@virtual_time
async def test_a_new_candidate_is_checked_at_once_and_again_after_the_interval() -> None:
    backends = Backends()
    async with running(checker_of(backends)) as checker:
        await asyncio.sleep(7)
        checker.update(present(A))
        assert checker.health(A.key) == UNCHECKED
        await asyncio.sleep(0.02)
        assert checker.health(A.key) == GOOD
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
async def test_a_failing_one_is_checked_again_at_doubling_distances_up_to_the_interval() -> None:
    backends = Backends()
    backends.answers["a"] = BAD
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(90)
        assert checker.health(A.key) == failed(BAD, 7)
    waits = [round(after - before - 0.01, 3) for before, after in pairwise(backends.times("a"))]
    assert waits == [1, 2, 4, 8, 16, 30]


@virtual_time
async def test_no_pause_is_longer_than_the_interval() -> None:
    backends = Backends()
    backends.answers["a"] = BAD
    async with running(checker_of(backends, interval="300ms")) as checker:
        checker.update(present(A))
        await asyncio.sleep(1)
    assert backends.times("a") == [0, 0.31, 0.62, 0.93]


@virtual_time
async def test_one_that_failed_for_years_is_still_checked_and_counted() -> None:
    backends = Backends()
    backends.answers["a"] = BAD
    backends.takes["a"] = 0
    async with running(checker_of(backends, interval="1s")) as checker:
        checker.update(present(A))
        await asyncio.sleep(2000.5)
        assert checker.health(A.key) == failed(BAD, 2001)


@virtual_time
async def test_one_good_check_ends_a_row_of_failures() -> None:
    backends = Backends()
    backends.answers["a"] = [BAD, BAD, GOOD, BAD]
    seen: list[tuple[Verdict, int]] = []

    def note() -> None:
        health = checker.health(A.key)
        seen.append((health.verdict, health.failures))

    checker = checker_of(backends, on_change=note)
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(35)
    bad, good = Verdict.UNHEALTHY, Verdict.HEALTHY
    assert seen == [(bad, 1), (bad, 2), (good, 0), (bad, 1), (bad, 2)]
    assert backends.times("a") == [0, 1.01, 3.02, 33.03, 34.04]


@virtual_time
async def test_one_that_asks_for_credentials_has_failed_but_is_in_no_hurry() -> None:
    backends = Backends()
    backends.answers["a"] = LOCKED
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(61)
        assert checker.health(A.key) == failed(LOCKED, 3)
    assert backends.times("a") == [0, 30.01, 60.02]


@virtual_time
async def test_to_somebody_with_the_credentials_it_is_as_good_as_healthy() -> None:
    backends = Backends()
    backends.answers["a"] = [LOCKED, LOCKED, BAD]
    how = HealthCheckSettings()
    checker = Checker(backends, how, good=lambda one, health: health.needs_credentials, jitter=lambda: 0.5)
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(59)
        assert checker.health(A.key) == LOCKED
        await asyncio.sleep(2)
        assert checker.health(A.key) == failed(BAD, 1)


@virtual_time
async def test_a_change_is_told_and_a_repetition_is_not() -> None:
    slower = msgspec.structs.replace(GOOD, seconds=0.4)
    other = Health(Verdict.UNHEALTHY, LOCKED.reason)
    backends = Backends()
    backends.answers["a"] = [GOOD, slower, BAD, other, LOCKED, GOOD]
    seen: list[Health] = []
    checker = checker_of(backends, on_change=lambda: seen.append(checker.health(A.key)), failure_threshold=1)
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(40)
        assert checker.health(A.key).seconds == 0.4
        await asyncio.sleep(150)
    assert seen == [GOOD, failed(BAD, 1), failed(other, 2), failed(LOCKED, 3), GOOD]


@virtual_time
async def test_failures_beyond_the_threshold_are_no_news() -> None:
    backends = Backends()
    backends.answers["a"] = BAD
    seen: list[int] = []
    checker = checker_of(backends, on_change=lambda: seen.append(checker.health(A.key).failures), failure_threshold=3)
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(1000)
        assert checker.health(A.key).failures > 30
    assert seen == [1, 2, 3]


@virtual_time
async def test_the_last_verdict_stands_while_the_next_check_runs() -> None:
    backends = Backends()
    backends.answers["a"] = [GOOD, BAD]
    backends.takes["a"] = 2
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(33)
        assert len(backends.times("a")) == 2
        assert checker.health(A.key) == GOOD
        await asyncio.sleep(1.5)
        assert checker.health(A.key) == failed(BAD, 1)


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
        assert await checker.settled(1)
        assert backends.times("a") == [0, 5]


@virtual_time
async def test_a_check_of_what_a_candidate_was_does_not_count() -> None:
    async def probe(one: Candidate) -> Health:
        await asyncio.sleep(3 if one.endpoint.port == 1 else 10)
        return BAD if one.endpoint.port == 1 else GOOD

    seen: list[Health] = []
    checker = checker_of(probe, on_change=lambda: seen.append(checker.health(A.key)))
    async with running(checker):
        checker.update(present(candidate("a", port=1)))
        await asyncio.sleep(2.999)
        checker.update(present(candidate("a", port=2)))
        await asyncio.sleep(9)
        assert seen == []
        await asyncio.sleep(2)
        assert seen == [GOOD]


@virtual_time
async def test_a_table_that_takes_the_place_of_another_one_knows_what_that_knew_and_asks_at_once() -> None:
    backends = Backends()
    backends.answers = {"a": BAD}
    first, changes = checker_of(backends, interval="1h"), []
    async with running(first):
        first.update(present(A, B, candidate("c", port=1)))
        await asyncio.sleep(1)
    second = checker_of(backends, interval="1h", on_change=lambda: changes.append(1))
    second.succeed(first)
    async with running(second):
        second.update(present(A, B, candidate("c", port=2), candidate("d")))
        assert second.health(A.key) == failed(BAD, 1)
        assert second.health(B.key) == GOOD
        assert [check.health for check in second.checks(A.key)] == [failed(BAD, 1)]
        assert second.health(candidate("c").key) == second.health(candidate("d").key) == UNCHECKED
        assert await second.settled(1)
        assert backends.times("b") == [0, 1]
        assert second.health(A.key) == failed(BAD, 2)
        assert len(second.checks(A.key)) == 2
        second.update({})
        second.update(present(A))
        assert second.health(A.key) == UNCHECKED  # once gone it is forgotten, whoever knew it


@virtual_time
async def test_a_check_that_was_under_way_in_another_table_does_not_count() -> None:
    backends = Backends()
    backends.takes = {"a": 5}
    first = checker_of(backends)
    async with running(first):
        first.update(present(A, B))
        await asyncio.sleep(1)
    second = checker_of(backends)
    second.succeed(first)
    backends.takes = {"a": 8}
    async with running(second):
        second.update(present(A, B))
        await asyncio.sleep(7)
        assert second.health(A.key) == UNCHECKED
        await asyncio.sleep(1.1)
        assert second.health(A.key) == GOOD


@virtual_time
async def test_what_another_table_knew_does_not_save_one_that_is_refused_by_now() -> None:
    first = checker_of(Backends())
    async with running(first):
        first.update(present(A))
        await asyncio.sleep(1)
    for known, expected in ((REFUSED, REFUSED), (UNREAD, GOOD)):
        second = checker_of(Backends(), known=lambda _, known=known: known)
        second.succeed(first)
        async with running(second):
            second.update(present(A))
            assert failed(second.health(A.key), 0) == expected
            await asyncio.sleep(0.1)
            assert failed(second.health(A.key), 0) == expected


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
        assert await checker.settled(10)
        assert asyncio.get_running_loop().time() == pytest.approx(4)


@virtual_time
async def test_no_more_probes_at_once_than_the_bound_and_no_slot_held_between_two() -> None:
    backends = Backends()
    many = [candidate(f"c{number}") for number in range(40)]
    for one in many:
        backends.answers[one.key.name] = BAD
        backends.takes[one.key.name] = 0.2
    async with running(checker_of(backends, concurrency=10)) as checker:
        checker.update(present(*many))
        await asyncio.sleep(0.3)
        assert (checker.statistics.running, checker.statistics.waiting) == (10, 20)
        await asyncio.sleep(0.6)
        # All are asked in four rounds, and then wait for a second, each by itself.
        assert len(backends.asked) == 40
        assert (checker.statistics.running, checker.statistics.waiting) == (0, 0)
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
        # All silent ones have been asked once, and all slots are busy with asking them again.
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
async def test_by_default_a_thousand_newcomers_that_hang_delay_a_good_one_by_one_check() -> None:
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
async def test_the_pauses_after_failures_are_jittered_too() -> None:
    backends = Backends()
    many = [candidate(f"c{number}") for number in range(200)]
    for one in many:
        backends.answers[one.key.name] = BAD
    async with running(Checker(backends, HealthCheckSettings())) as checker:
        checker.update(present(*many))
        await asyncio.sleep(2)
    second = [when for when, _ in backends.asked if when > 0.1]
    assert len(second) == 200
    assert 0.9 <= min(second) < 0.95
    assert 1.05 < max(second) <= 1.12


# --- What is known without asking -----------------------------------------------------------------------------------


class Knowledge:
    """Plays what is known of candidates without asking them, by name."""

    def __init__(self, **known: Health) -> None:
        self.of = dict(known)

    def __call__(self, one: Candidate) -> Health | None:
        return self.of.get(one.key.name)


@virtual_time
async def test_what_is_known_is_a_failed_check_without_a_probe_and_without_a_slot() -> None:
    backends = Backends()
    backends.takes = {"b": 100, "c": 100}
    known = Knowledge(a=UNREADY)
    async with running(checker_of(backends, known=known, concurrency=1)) as checker:
        checker.update(present(B, candidate("c")))
        await asyncio.sleep(1)
        checker.update(present(A, B, candidate("c")))
        await asyncio.sleep(7.5)
        assert checker.health(A.key) == failed(UNREADY, 4)  # at once, after 1, 2 and 4 seconds
        assert (checker.statistics.running, checker.statistics.waiting) == (1, 1)
    assert backends.times("a") == []


@virtual_time
async def test_what_is_known_no_more_is_asked() -> None:
    backends = Backends()
    known = Knowledge(a=UNREADY)
    async with running(checker_of(backends, known=known)) as checker:
        checker.update(present(A))
        await asyncio.sleep(0.5)
        del known.of["a"]
        await asyncio.sleep(1)
        assert checker.health(A.key) == GOOD
    assert backends.times("a") == [1]


@virtual_time
async def test_a_refused_newcomer_is_refused_before_any_check() -> None:
    backends = Backends()
    checker = checker_of(backends, known=Knowledge(a=REFUSED))
    checker.update(present(A))
    assert checker.health(A.key) == failed(REFUSED, 1)
    assert await checker.settled(0)
    async with running(checker):
        checker.update(present(A, candidate("a2")))
        changed = candidate("a", port=1)
        checker.update(present(changed))
        assert checker.health(A.key) == failed(REFUSED, 1)
        await asyncio.sleep(100)
        assert checker.health(A.key) == failed(REFUSED, 4)  # once each interval
    assert backends.times("a") == []


@virtual_time
async def test_one_that_must_not_be_asked_yet_waits_until_somebody_wants_to_know_and_that_is_no_check() -> None:
    backends = Backends()
    known = Knowledge(a=UNREAD)
    seen: list[Health] = []
    checker = checker_of(backends, known=known, on_change=lambda: seen.append(checker.health(A.key)), concurrency=1)
    async with running(checker):
        checker.update(present(A, B))
        assert checker.health(A.key) == UNREAD
        assert not await checker.settled(1000)
        assert checker.health(A.key) == UNREAD
        checker.hasten([A.key])
        await asyncio.sleep(100)
        assert checker.health(A.key) == UNREAD
        assert checker.statistics.unhealthy == 0
        assert seen == [UNREAD]  # when the other one was found good
        del known.of["a"]
        checker.hasten([A.key])
        assert await checker.settled(0.02)
        assert checker.health(A.key) == GOOD
    assert backends.times("a") == [1100]


@virtual_time
async def test_what_was_known_of_one_stays_while_it_must_not_be_asked() -> None:
    backends = Backends()
    known = Knowledge()
    async with running(checker_of(backends, known=known)) as checker:
        checker.update(present(A))
        await asyncio.sleep(1)
        known.of["a"] = UNREAD
        await asyncio.sleep(1000)
        assert checker.health(A.key) == GOOD
        known.of["a"] = REFUSED
        checker.hasten([A.key])
        assert checker.health(A.key) == failed(REFUSED, 1)
    assert backends.times("a") == [0]


@virtual_time
async def test_one_that_must_not_be_asked_yet_is_refused_at_once_when_it_comes_to_that() -> None:
    known = Knowledge(a=UNREAD)
    async with running(checker_of(Backends(), known=known)) as checker:
        checker.update(present(A))
        await asyncio.sleep(1)
        known.of["a"] = REFUSED
        checker.hasten([A.key])
        assert checker.health(A.key) == failed(REFUSED, 1)
        assert await checker.settled(0)


@virtual_time
async def test_a_newcomer_that_is_only_unready_waits_for_its_check() -> None:
    checker = checker_of(Backends(), known=Knowledge(a=UNREADY))
    checker.update(present(A))
    assert checker.health(A.key) == UNCHECKED
    async with running(checker):
        assert await checker.settled(1)
        assert checker.health(A.key) == failed(UNREADY, 1)


@virtual_time
async def test_one_that_is_refused_while_it_waits_for_a_slot_is_not_probed() -> None:
    backends = Backends()
    backends.takes["b"] = 3
    known = Knowledge()
    async with running(checker_of(backends, known=known, concurrency=1)) as checker:
        checker.update(present(B))
        await asyncio.sleep(1)
        checker.update(present(A, B))
        await asyncio.sleep(1)
        known.of["a"] = REFUSED
        await asyncio.sleep(2)
        assert checker.health(A.key).refused
    assert backends.times("a") == []


@virtual_time
async def test_that_it_is_refused_is_news_even_if_it_failed_before_for_the_same_reason() -> None:
    known = Knowledge(a=msgspec.structs.replace(REFUSED, refused=False))
    seen: list[bool] = []
    checker = checker_of(Backends(), known=known, on_change=lambda: seen.append(checker.health(A.key).refused))
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(100)
        assert not any(seen)
        known.of["a"] = REFUSED
        await asyncio.sleep(31)
        assert seen.count(True) == 1


# --- In a hurry -----------------------------------------------------------------------------------------------------


@virtual_time
async def test_who_is_hastened_is_checked_now_and_then_as_usual() -> None:
    backends = Backends()
    async with running(checker_of(backends)) as checker:
        checker.update(present(A, B))
        await asyncio.sleep(10)
        checker.hasten([A.key, candidate("nobody").key])
        await asyncio.sleep(35)
    assert backends.times("a") == [0, 10, 40.01]
    assert backends.times("b") == [0, 30.01]


@virtual_time
async def test_a_hastened_check_counts_like_any_other() -> None:
    backends = Backends()
    backends.answers["a"] = BAD
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        await asyncio.sleep(4)  # asked at 0, 1 and 3 seconds
        checker.hasten([A.key])
        await asyncio.sleep(0.1)
        assert checker.health(A.key) == failed(BAD, 4)
        await asyncio.sleep(8)
    assert backends.times("a") == [0, 1.01, 3.02, 4, 12.01]


@virtual_time
async def test_during_a_check_one_more_follows_right_after_it_however_often_it_is_asked_for() -> None:
    backends = Backends()
    backends.takes["a"] = 3
    async with running(checker_of(backends)) as checker:
        checker.update(present(A))
        for _ in range(10):
            await asyncio.sleep(0.2)
            checker.hasten([A.key])
        await asyncio.sleep(20)
    assert backends.times("a") == [0, 3]


@virtual_time
async def test_one_that_waits_for_its_slot_is_hurried_enough() -> None:
    backends = Backends()
    backends.takes["b"] = 3
    async with running(checker_of(backends, concurrency=1)) as checker:
        checker.update(present(B))
        await asyncio.sleep(1)
        checker.update(present(A, B))
        await asyncio.sleep(1)
        checker.hasten([A.key])
        await asyncio.sleep(10)
    assert backends.times("a") == [3]


@virtual_time
async def test_however_fast_it_is_hastened_it_is_asked_twice_a_second_at_most() -> None:
    backends = Backends()
    asked = 0

    def known(_: Candidate) -> Health | None:
        nonlocal asked
        asked += 1
        return UNREADY if asked % 5 else None

    async with running(checker_of(backends, known=known)) as checker:
        checker.update(present(A))
        await asyncio.sleep(1)
        asked = 0
        for _ in range(1000):
            checker.hasten([A.key])
            await asyncio.sleep(0.01)
        # Every hasten looks whether it is refused; a check looks once, or twice where it makes a probe.
        assert asked - 1000 <= 2 * 21
        assert checker.statistics.unhealthy + checker.statistics.healthy <= 23


@virtual_time
async def test_what_comes_to_be_refused_is_refused_at_once_and_its_probe_does_not_count() -> None:
    backends = Backends()
    backends.takes["a"] = 4
    known = Knowledge()
    seen: list[Health] = []
    checker = checker_of(backends, known=known, on_change=lambda: seen.append(checker.health(A.key)))
    async with running(checker):
        checker.update(present(A))
        await asyncio.sleep(1)
        known.of["a"] = REFUSED
        checker.hasten([A.key])
        assert seen == [failed(REFUSED, 1)]
        assert await checker.settled(0)
        await asyncio.sleep(10)
        assert backends.running == 0
        # However often that is told.
        for _ in range(10):
            checker.hasten([A.key])
        assert seen == [failed(REFUSED, 1)]
        # And back again.
        del known.of["a"]
        checker.hasten([A.key])
        await asyncio.sleep(5)
        assert seen == [failed(REFUSED, 1), GOOD]


@virtual_time
async def test_refused_and_not_refused_in_turn_causes_no_more_probes_than_anything_else() -> None:
    backends = Backends()
    known = Knowledge()
    async with running(checker_of(backends, known=known)) as checker:
        checker.update(present(A))
        for _ in range(500):
            known.of["a"] = REFUSED
            checker.hasten([A.key])
            await asyncio.sleep(0.01)
            known.of.clear()
            checker.hasten([A.key])
            await asyncio.sleep(0.01)
    assert all(after - before >= 0.5 - 1e-9 for before, after in pairwise(backends.times("a")))


@virtual_time
async def test_the_end_of_the_run_may_overlap_with_a_hurry() -> None:
    backends = Backends()
    backends.takes = {"a": 100}
    known = Knowledge()
    checker = checker_of(backends, known=known)
    checker.update(present(A, B))
    checker.hasten([A.key, B.key])  # before it runs, too
    task = asyncio.create_task(checker.run())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(0)
    known.of = {"a": REFUSED, "b": REFUSED}
    checker.hasten([A.key, B.key])
    checker.update(present(A, B, candidate("c")))
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(asyncio.all_tasks()) == 1


# --- The end --------------------------------------------------------------------------------------------------------


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
    known = {"d": REFUSED}
    async with running(checker_of(backends, known=lambda one: known.get(one.key.name))) as checker:
        checker.update(present(A, B, candidate("c"), candidate("d")))
        await asyncio.sleep(10)
        # b is asked at 0, 1, 3 and 7 seconds, d never.
        assert checker.statistics == Statistics(
            healthy=1, unhealthy=5, needs_credentials=1, probes=6, running=0, waiting=0
        )


# --- What is told of the past ---------------------------------------------------------------------------------------


@virtual_time
async def test_the_last_checks_are_remembered_the_newest_first() -> None:
    backends = Backends()
    backends.answers["a"] = [GOOD, BAD, GOOD]
    told: list[Health] = []
    checker = Checker(
        backends,
        HealthCheckSettings(),
        jitter=lambda: 0.5,
        now=lambda: 1000 + asyncio.get_running_loop().time(),
        on_checked=lambda _, health: told.append(health),
    )
    async with running(checker):
        checker.update(present(A))
        assert checker.checks(A.key) == ()
        await asyncio.sleep(32)
        assert [(round(one.at), one.health.reason) for one in checker.checks(A.key)] == [
            *((1031, GOOD.reason), (1030, BAD.reason), (1000, GOOD.reason)),
        ]
        assert [one.health for one in checker.checks(A.key)] == told[::-1]
        assert checker.checks(A.key)[0].health == checker.health(A.key)
        await asyncio.sleep(3600)
        assert len(checker.checks(A.key)) == REMEMBERED
        assert [one.health for one in checker.checks(A.key)] == told[: -REMEMBERED - 1 : -1]


@virtual_time
async def test_of_one_that_is_gone_or_is_another_now_no_check_is_remembered() -> None:
    checker = checker_of(Backends())
    async with running(checker):
        checker.update(present(A, B))
        await asyncio.sleep(1)
        moved = msgspec.structs.replace(A, endpoint=msgspec.structs.replace(A.endpoint, port=1))
        checker.update(present(moved))
        assert (checker.checks(A.key), checker.checks(B.key)) == ((), ())


@virtual_time
async def test_a_refusal_is_remembered_too() -> None:
    checker = checker_of(Backends(), known=lambda _: REFUSED)
    async with running(checker):
        checker.update(present(A))
        [check] = checker.checks(A.key)
        assert check.health.refused


# --- Whether it makes progress --------------------------------------------------------------------------------------


@virtual_time
async def test_it_is_never_late_while_it_works_however_long_checks_take_or_wait() -> None:
    backends = Backends()
    backends.takes = {"a": 100.0}
    checker = checker_of(backends, concurrency=1)
    assert checker.late == 0
    async with running(checker):
        checker.update(present(A, B))
        for _ in range(1000):
            await asyncio.sleep(1)
            assert checker.late < 0.1
            if asyncio.get_running_loop().time() % 97 == 0:
                checker.hasten([A.key, B.key])


@virtual_time
async def test_it_is_late_when_checks_are_due_and_nobody_makes_them() -> None:
    checker = checker_of(Backends())
    async with running(checker):
        checker.update(present(A, B))
        await asyncio.sleep(1)
        asyncio.get_running_loop()._jumping.now += 90  # type: ignore[attr-defined] - and nothing ran meanwhile
        assert checker.late == pytest.approx(61, abs=0.1)
        await asyncio.sleep(0.1)
        assert checker.late == 0
        asyncio.get_running_loop()._jumping.now += 90  # type: ignore[attr-defined]
        checker.update({})
        assert checker.late == 0
