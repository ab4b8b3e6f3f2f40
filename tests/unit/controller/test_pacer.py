"""When the controller looks: at once after a quiet time, less and less often while changes keep coming."""

import asyncio
from itertools import pairwise

import pytest

from dynamic_toolset.controller.pacer import Alarm, Pacer
from tests.virtual_time import virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def expect_a_look_at_once(pacer: Pacer) -> None:
    """Change something, which is looked at before any time has passed."""
    changed = now()
    pacer.notify()
    await pacer.wait()
    assert now() == changed


async def looks_during(storm: float, every: float) -> list[float]:
    """Change something every so many seconds for a time, and return when the pacer said to look."""
    pacer, looks = Pacer(), []

    async def look() -> None:
        while True:
            await pacer.wait()
            looks.append(round(now(), 3))

    looking = asyncio.create_task(look())
    while now() < storm:
        pacer.notify()
        await asyncio.sleep(every)
    await asyncio.sleep(60)
    looking.cancel()
    return looks


@virtual_time
async def test_one_change_after_a_quiet_time_is_looked_at_at_once() -> None:
    pacer = Pacer()
    for _ in range(3):
        await asyncio.sleep(100)
        await expect_a_look_at_once(pacer)


@virtual_time
async def test_the_verdict_that_follows_a_change_is_looked_at_at_once_as_well() -> None:
    pacer = Pacer()
    for _ in range(3):
        await asyncio.sleep(100)
        pacer.notify()
        await pacer.wait()
        await asyncio.sleep(0.01)
        await expect_a_look_at_once(pacer)


@virtual_time
async def test_while_changes_keep_coming_the_pauses_double_up_to_five_seconds() -> None:
    looks = await looks_during(storm=30, every=0.01)
    pauses = [round(later - earlier, 2) for earlier, later in pairwise(looks)]
    assert pauses[:8] == [0.01, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert max(pauses) == 5.0


@virtual_time
async def test_a_change_now_and_then_does_not_keep_a_storm_going() -> None:
    pacer = Pacer()
    for _ in range(12):
        pacer.notify()
        await pacer.wait()
    for _ in range(3):
        await asyncio.sleep(6)
        for _ in range(2):  # the change, and the verdict
            await expect_a_look_at_once(pacer)


@pytest.mark.parametrize("every", [0.001, 0.05, 0.3])
def test_a_storm_costs_a_bounded_number_of_looks_and_its_last_change_is_seen(every: float) -> None:
    @virtual_time
    async def run() -> None:
        looks = await looks_during(storm=60, every=every)
        assert len(looks) <= 22
        assert looks[-1] >= 60 - every

    run()


@virtual_time
async def test_many_changes_before_a_look_are_one() -> None:
    pacer = Pacer()
    for _ in range(1000):
        pacer.notify()
    await pacer.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            await pacer.wait()


@virtual_time
async def test_an_alarm_rings_once_at_the_time_that_was_set_last() -> None:
    rung: list[float] = []
    alarm = Alarm(lambda: rung.append(now()))
    for delay in (10, 30, 20):
        alarm.set(delay)
    await asyncio.sleep(100)
    assert rung == [20]
    alarm.set(5)
    alarm.set(None)
    await asyncio.sleep(100)
    assert rung == [20]


@virtual_time
async def test_what_cannot_wait_is_looked_at_at_once_even_in_a_burst() -> None:
    pacer = Pacer()
    for _ in range(10):
        pacer.notify()
        await pacer.wait()
    pacer.notify()
    waiting = asyncio.create_task(pacer.wait())
    await asyncio.sleep(0.5)
    assert not waiting.done()
    began = now()
    pacer.hurry()
    await waiting
    assert now() == began


@virtual_time
async def test_it_says_for_how_long_a_change_has_been_waiting() -> None:
    pacer = Pacer()
    assert pacer.waiting == 0
    await asyncio.sleep(100)
    assert pacer.waiting == 0
    pacer.notify()
    await asyncio.sleep(30)
    pacer.hurry()
    assert pacer.waiting == 30  # since the first of them
    await pacer.wait()
    assert pacer.waiting == 0


@virtual_time
async def test_nothing_waits_for_long_while_somebody_looks_whatever_comes() -> None:
    pacer, longest = Pacer(), 0.0

    async def look() -> None:
        while True:
            await pacer.wait()

    looking = asyncio.create_task(look())
    for _ in range(5000):
        pacer.notify()
        await asyncio.sleep(0.01)
        longest = max(longest, pacer.waiting)
    looking.cancel()
    assert longest <= Pacer.LONGEST


@virtual_time
async def test_who_wants_it_otherwise_is_woken_at_once_and_then_every_second_at_most() -> None:
    pacer, looks = Pacer(free=1, longest=1.0), []

    async def look() -> None:
        while True:
            await pacer.wait()
            looks.append(round(now(), 3))

    looking = asyncio.create_task(look())
    for _ in range(1000):
        pacer.notify()
        await asyncio.sleep(0.06)
    last = now()
    pacer.notify()
    await asyncio.sleep(10)
    looking.cancel()
    assert looks[:5] == [0, 0.1, 0.3, 0.7, 1.5]
    assert all(later - earlier <= 1.001 for earlier, later in pairwise(looks[4:]))
    assert len(looks) <= 66
    assert last <= looks[-1] <= last + 1
