"""How many hold something at once, and for how long."""

import asyncio

import pytest

from dynamic_toolset.health.shares import Shares
from tests.virtual_time import virtual_time


async def sit(shares: Shares, seconds: float, log: list[tuple[str, float]], name: str) -> None:
    now = asyncio.get_running_loop().time
    try:
        async with shares.hold():
            log.append((f"{name} has it", now()))
            await asyncio.sleep(seconds)
        log.append((f"{name} is done", now()))
    except TimeoutError:
        log.append((f"{name} must leave", now()))


async def played(size: int, *sitters: tuple[float, float]) -> list[tuple[str, float]]:
    """Let each sitter come and stay for so many seconds, with a grace of 1. Return what happened, and when."""
    log: list[tuple[str, float]] = []
    shares = Shares(size, grace=1)

    async def later(number: int, comes: float, stays: float) -> None:
        await asyncio.sleep(comes)
        await sit(shares, stays, log, "abcdefgh"[number])

    await asyncio.gather(*(later(number, *sitter) for number, sitter in enumerate(sitters)))
    return [(what, round(when, 3)) for what, when in log]


@virtual_time
async def test_as_long_as_there_are_enough_nobody_is_hurried() -> None:
    log = await played(2, (0, 30), (0, 20))
    assert log == [("a has it", 0), ("b has it", 0), ("b is done", 20), ("a is done", 30)]


@virtual_time
async def test_who_has_sat_for_long_leaves_as_soon_as_somebody_waits() -> None:
    log = await played(1, (0, 30), (5, 0.5))
    assert log == [("a has it", 0), ("a must leave", 5), ("b has it", 5), ("b is done", 5.5)]


@virtual_time
async def test_who_has_just_sat_down_has_his_grace() -> None:
    log = await played(1, (0, 30), (0.4, 30))
    assert log == [("a has it", 0), ("a must leave", 1), ("b has it", 1), ("b is done", 31)]


@virtual_time
async def test_each_waits_no_longer_than_those_before_him_may_sit() -> None:
    log = dict(await played(2, *[(0, 60)] * 7, (0, 0.1)))
    assert (log["h has it"], log["h is done"]) == (3, 3.1)
    assert log["g is done"] == 63, "nobody waits any more"


@virtual_time
async def test_who_gives_up_waiting_hurries_nobody_after_him() -> None:
    shares = Shares(1, grace=1)
    log: list[tuple[str, float]] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sit(shares, 60, log, "a"))
        waiting = tasks.create_task(sit(shares, 60, log, "b"))
        await asyncio.sleep(0.5)
        waiting.cancel()
    assert log == [("a has it", 0), ("a is done", 60)]


@virtual_time
async def test_who_gives_up_in_the_moment_in_which_another_one_must_leave() -> None:
    shares = Shares(1, grace=1)
    log: list[tuple[str, float]] = []

    async def give_up() -> None:
        async with asyncio.timeout_at(1):
            await sit(shares, 60, log, "b")

    first, second = asyncio.create_task(sit(shares, 60, log, "a")), asyncio.create_task(give_up())
    await asyncio.wait([first, second])
    assert isinstance(second.exception(), TimeoutError)
    await sit(shares, 1, log, "c")
    assert [what for what, _ in log][-2:] == ["c has it", "c is done"]


@virtual_time
async def test_a_share_is_given_back_whatever_happens() -> None:
    shares = Shares(1, grace=1)
    for error in (ValueError, asyncio.CancelledError):
        with pytest.raises(error):
            async with shares.hold():
                raise error
    async with asyncio.timeout(1), shares.hold():
        pass
