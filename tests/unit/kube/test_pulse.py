"""Whether a loop that makes progress is ever called late, and one that does not is: hours of both, in virtual time."""

import asyncio
import math
from collections.abc import Callable

import pytest

from dynamic_toolset.kube.errors import ConnectionFailed, TooManyRequests
from dynamic_toolset.kube.objects import Lease
from dynamic_toolset.kube.pulse import Pulse
from dynamic_toolset.kube.reflector import AT_MOST, Reflector, unchanged
from dynamic_toolset.kube.resources import LEASES
from tests.unit.kube.leases import KEY, Candidate, LeaseApi, Link, cancelled, now
from tests.virtual_time import virtual_time

HOUR = 3600.0


async def latest(pulse: Pulse, seconds: float, every: float = 1.0) -> float:
    """Return by how much the loop was late at most, meanwhile."""
    worst, end = 0.0, now() + seconds
    while now() < end:
        await asyncio.sleep(every)
        worst = max(worst, pulse.late)
    return worst


@virtual_time
async def test_a_promise_is_late_when_its_time_is_over_and_not_before() -> None:
    pulse = Pulse(now)
    assert pulse.late == 0
    pulse.promise(10)
    await asyncio.sleep(10)
    assert pulse.late == 0
    await asyncio.sleep(5)
    assert pulse.late == 5
    pulse.promise(1)
    assert pulse.late == 0
    pulse.promise(math.inf)
    await asyncio.sleep(HOUR)
    assert pulse.late == 0


# --- Election --------------------------------------------------------------------------------------------------------

Trouble = Callable[[Link], object]

TROUBLES: dict[str, Trouble] = {
    "none": lambda link: None,
    "the API refuses connections": lambda link: link.cut(),
    "the API asks for patience": lambda link: link.cut(TooManyRequests(429, "TooManyRequests", "x", retry_after=600)),
    "no answer ever comes": lambda link: setattr(link, "lost", "back"),
    "no request arrives": lambda link: setattr(link, "lost", "there"),
    "watches are silent": lambda link: setattr(link, "deaf", True),
    "everything takes seconds": lambda link: (setattr(link, "there", 3.0), setattr(link, "back", 1.5)),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_election_is_never_late_whatever_the_api_does(trouble: str) -> None:
    @virtual_time
    async def run() -> None:
        api = LeaseApi()
        leader, standby = Candidate(api, "a").start(), Candidate(api, "b").start()
        await asyncio.sleep(5)
        for one in (leader, standby):
            TROUBLES[trouble](one.link)
        assert await latest(leader.elector.pulse, HOUR / 4) < 1
        assert standby.elector.pulse.late < 1
        for one in (leader, standby):
            await one.stop()

    run()


@virtual_time
async def test_a_standby_that_waits_for_long_is_not_late() -> None:
    api = LeaseApi()
    leader, standby = Candidate(api, "a").start(), Candidate(api, "b").start()
    assert await latest(standby.elector.pulse, HOUR) == 0
    await leader.stop()
    await standby.stop()


@virtual_time
async def test_an_election_that_stands_still_is_late() -> None:
    candidate = Candidate(LeaseApi(), "a").start()
    await asyncio.sleep(5)
    await candidate.stop()
    await asyncio.sleep(60)
    assert candidate.elector.pulse.late > 30


# --- Reflector -------------------------------------------------------------------------------------------------------


def reflector(link: Link) -> Reflector[Lease, Lease]:
    return Reflector(
        link,  # type: ignore[arg-type]
        LEASES,
        Lease,
        namespace=KEY.namespace,
        field_selector=f"metadata.name={KEY.name}",
        transform=unchanged,
        clock=now,
    )


@virtual_time
async def test_a_watch_is_not_late_while_the_api_is_away_nor_after() -> None:
    link = Link(LeaseApi(), "a")
    watching = reflector(link)
    task = asyncio.create_task(watching.run())
    await asyncio.sleep(5)
    for error in (ConnectionFailed("refused"), TooManyRequests(429, "TooManyRequests", "x", retry_after=600)):
        link.cut(error)
        assert await latest(watching.pulse, HOUR) == 0
    link.heal()
    assert await latest(watching.pulse, AT_MOST - 30) == 0  # it is silent here; the client gives up sooner
    await cancelled(task)


@virtual_time
async def test_a_watch_whose_request_hangs_for_ever_is_late() -> None:
    link = Link(LeaseApi(), "a")
    link.lost = "back"
    watching = reflector(link)
    task = asyncio.create_task(watching.run())
    assert await latest(watching.pulse, AT_MOST) == 0
    await asyncio.sleep(60)
    assert watching.pulse.late == pytest.approx(60, abs=1)
    await cancelled(task)
