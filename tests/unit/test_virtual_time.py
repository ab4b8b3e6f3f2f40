"""The helper itself: what the tests that use it rely on."""

import asyncio
import time

import pytest

from tests.virtual_time import Deadlock, virtual_time


@virtual_time
async def test_an_hour_takes_no_time() -> None:
    started = time.monotonic()
    await asyncio.sleep(3600)
    assert asyncio.get_running_loop().time() == pytest.approx(3600)
    assert time.monotonic() - started < 5


@virtual_time
async def test_timers_fire_in_the_order_of_their_time() -> None:
    order: list[str] = []

    async def note(name: str, after: float) -> None:
        await asyncio.sleep(after)
        order.append(name)

    await asyncio.gather(note("late", 2), note("early", 1), note("middle", 1.5))
    assert order == ["early", "middle", "late"]


@virtual_time
async def test_a_timeout_is_virtual_too() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == pytest.approx(600)


@virtual_time
async def test_a_thread_is_waited_for() -> None:
    assert await asyncio.to_thread(time.sleep, 0.01) is None


def test_waiting_for_nothing_fails_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.virtual_time._JumpingSelector._REAL_SECONDS_FOR_A_THREAD", 0.01)

    @virtual_time
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        stuck()


@pytest.mark.parametrize("number", [1, 2])
@virtual_time
async def test_fixtures_and_parameters_arrive(number: int, tmp_path: object) -> None:
    assert number in (1, 2)
    assert tmp_path
