"""When everything is looked at anew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dynamic_toolset.controller.full_looks import Rounds
from dynamic_toolset.controller.statistics import FullLooks
from tests.virtual_time import virtual_time

EPOCH = 1_000_000.0


def now() -> float:
    return asyncio.get_running_loop().time()


class Looker:
    """Rounds at work, and when they had somebody look."""

    def __init__(self, interval: float) -> None:
        self.looks: list[float] = []
        self.rounds = Rounds(interval, lambda: self.looks.append(now()), now=lambda: EPOCH + now())


@asynccontextmanager
async def looking(interval: float) -> AsyncIterator[Looker]:
    looker = Looker(interval)
    task = asyncio.create_task(looker.rounds.run())
    try:
        yield looker
    finally:
        task.cancel()
        await asyncio.wait([task])


@virtual_time
async def test_it_is_looked_once_in_an_interval_after_the_first_look() -> None:
    async with looking(300) as looker:
        await asyncio.sleep(1000)
        assert (looker.looks, looker.rounds.statistics) == ([], FullLooks(0, None, None))
        looker.rounds.note()
        assert looker.rounds.statistics == FullLooks(1, EPOCH + 1000, EPOCH + 1300)
        await asyncio.sleep(1000)
        assert looker.looks == [1300, 1600, 1900]
        assert looker.rounds.statistics == FullLooks(4, EPOCH + 1900, EPOCH + 2200)


@virtual_time
async def test_a_look_for_another_reason_counts_and_puts_off_the_next_one() -> None:
    async with looking(300) as looker:
        looker.rounds.note()
        await asyncio.sleep(200)
        looker.rounds.note()
        assert looker.rounds.statistics == FullLooks(2, EPOCH + 200, EPOCH + 500)
        await asyncio.sleep(299)
        assert looker.looks == []
        await asyncio.sleep(2)
        assert looker.looks == [500]


@virtual_time
async def test_another_interval_counts_from_the_last_look_on() -> None:
    async with looking(300) as looker:
        looker.rounds.note()
        await asyncio.sleep(100)
        looker.rounds.every(60)  # that is over already
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        assert looker.looks == [100]
        looker.rounds.every(3600)
        assert looker.rounds.statistics == FullLooks(2, EPOCH + 100, EPOCH + 3700)
        await asyncio.sleep(3598)
        assert looker.looks == [100]
        await asyncio.sleep(2)
        assert looker.looks == [100, 3700]


@virtual_time
async def test_it_is_late_when_nobody_looks() -> None:
    looker = Looker(300)
    task = asyncio.create_task(looker.rounds.run())
    looker.rounds.note()
    await asyncio.sleep(1)
    assert looker.rounds.late == 0
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
