"""Who wants to read waits while a change is on its way, and never for long."""

import asyncio

from dynamic_toolset.controller.precedence import BETWEEN, HOLD, Precedence
from tests.virtual_time import virtual_time


async def waited(precedence: Precedence) -> float:
    """Return for how long somebody who comes now gives way."""
    began = asyncio.get_running_loop().time()
    await precedence.give_way()
    return asyncio.get_running_loop().time() - began


@virtual_time
async def test_without_a_change_nobody_waits() -> None:
    assert await waited(Precedence()) == 0


@virtual_time
async def test_everybody_waits_until_the_change_is_published() -> None:
    precedence = Precedence()
    precedence.begin()
    asyncio.get_running_loop().call_later(HOLD / 2, precedence.end)
    assert await asyncio.gather(waited(precedence), waited(precedence)) == [HOLD / 2] * 2
    assert await waited(precedence) == 0


@virtual_time
async def test_a_change_that_does_not_come_through_holds_nobody_up() -> None:
    precedence = Precedence()
    precedence.begin()
    await asyncio.sleep(HOLD / 4)
    precedence.begin()  # another one does not lengthen it
    assert await waited(precedence) == HOLD * 3 / 4
    assert await waited(precedence) == 0


@virtual_time
async def test_a_storm_of_changes_leaves_readers_most_of_the_time() -> None:
    precedence, held, loop = Precedence(), 0.0, asyncio.get_running_loop()
    while loop.time() < 10:
        precedence.begin()
        held += await waited(precedence)
        precedence.end()
        await asyncio.sleep(0.001)
    assert held <= 10 * HOLD / BETWEEN + HOLD
    assert held >= 9 * HOLD / BETWEEN


@virtual_time
async def test_an_end_without_a_beginning_is_nothing() -> None:
    precedence = Precedence()
    precedence.end()
    assert await waited(precedence) == 0
