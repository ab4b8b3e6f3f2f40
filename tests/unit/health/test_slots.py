"""The bound on how much runs at once."""

import asyncio

from dynamic_toolset.health.slots import Slots, Urgency
from tests.virtual_time import virtual_time


@virtual_time
async def test_never_more_than_the_bound_and_always_as_many_as_that() -> None:
    slots = Slots(3)
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        async with slots.hold(Urgency.NEW):
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(work())
    assert most == 3
    assert asyncio.get_running_loop().time() == 4
    assert (slots.taken, slots.waiting) == (0, 0)


@virtual_time
async def test_the_urgent_go_first_and_equals_in_order_of_arrival() -> None:
    slots = Slots(1)
    order: list[str] = []

    async def work(name: str, urgency: Urgency) -> None:
        async with slots.hold(urgency):
            order.append(name)
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        for name, urgency in (
            ("first", Urgency.FAILING),
            ("failing", Urgency.FAILING),
            ("new 1", Urgency.NEW),
            ("answering", Urgency.ANSWERING),
            ("new 2", Urgency.NEW),
        ):
            tasks.create_task(work(name, urgency))
    assert order == ["first", "answering", "new 1", "new 2", "failing"]


@virtual_time
async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    slots = Slots(1)

    async def hold() -> None:
        async with slots.hold(Urgency.NEW):
            await asyncio.sleep(10)

    holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(1)
    assert (slots.taken, slots.waiting) == (1, 1)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert (slots.taken, slots.waiting) == (1, 0)
    await holder
    assert slots.taken == 0


@virtual_time
async def test_a_slot_handed_to_one_who_is_cancelled_in_that_moment_is_not_lost() -> None:
    slots = Slots(1)

    async def wait_for_a_slot() -> None:
        async with slots.hold(Urgency.NEW):
            raise AssertionError("cancelled before its turn")

    async with slots.hold(Urgency.NEW):
        waiter = asyncio.create_task(wait_for_a_slot())
        await asyncio.sleep(1)
    waiter.cancel()  # the slot is its own by now, but it has not run since
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    assert slots.taken == 0
    async with asyncio.timeout(1), slots.hold(Urgency.NEW):
        pass


@virtual_time
async def test_a_waiter_cancelled_before_the_slot_comes_free_is_passed_over() -> None:
    slots = Slots(1)
    release = asyncio.Event()

    async def hold() -> None:
        async with slots.hold(Urgency.NEW):
            await release.wait()

    first, second, third = (asyncio.create_task(hold()) for _ in range(3))
    await asyncio.sleep(1)
    second.cancel()  # its future is cancelled at once, but it has no turn to take itself out of the queue before
    release.set()
    await asyncio.wait([first, second, third])
    assert second.cancelled()
    assert not third.cancelled()
    assert slots.taken == 0
