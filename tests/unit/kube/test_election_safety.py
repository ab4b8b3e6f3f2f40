"""Never two leaders: electors in virtual time, with everything going wrong that can."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.kube.leases import Candidate, LeaseApi
from tests.virtual_time import VirtualTimeLoop

NAMES = st.sampled_from(["", "twin"])
"""A name of its own, or one that several bear by mistake."""


def in_loop(act: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a rule in the loop of its machine."""

    @wraps(act)
    def run(self: "Electors", **drawn: Any) -> None:
        self.loop.run_until_complete(act(self, **drawn))

    return run


class Electors(RuleBasedStateMachine):
    """Up to four electors whose requests, answers and watches fail, hang, come late, or land after nobody waits for
    them any more, and that are paused, killed and started: at no moment do two lead. Once all is well, one does."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.api = LeaseApi()
        self.candidates: list[Candidate] = []
        self.born = 0
        self.crowd: list[str] = []

    def teardown(self) -> None:
        try:
            self.end_well()
        finally:
            self.end_all()
            self.loop.close()

    @in_loop
    async def end_well(self) -> None:
        for candidate in self.candidates:
            candidate.link.heal()
        await asyncio.sleep(120)  # a pause of 60 s, a lease that was seen after it, and some
        leaders = [one.name for one in self.candidates if one.leads]
        assert len(leaders) == min(len(self.candidates), 1)
        assert self.crowd == []

    @in_loop
    async def end_all(self) -> None:
        for candidate in self.candidates:
            await candidate.stop()

    def look(self) -> None:
        """Called whenever a leadership begins, so that no moment is missed."""
        leaders = [one.name for one in self.candidates if one.leads]
        if len(leaders) > 1:
            self.crowd = leaders

    @invariant()
    @in_loop
    async def never_two(self) -> None:
        self.look()
        assert self.crowd == []

    # --- What may happen --------------------------------------------------------------------------------------------

    def one(self, number: int) -> Candidate:
        """Return one of them; 0 is who leads."""
        return sorted(self.candidates, key=lambda one: not one.leads)[number % len(self.candidates)]

    @initialize(names=st.lists(NAMES, min_size=2, max_size=3))
    def start_some(self, names: list[str]) -> None:
        for name in names:
            self.start(name=name, wall=0.0)
            self.wait(seconds=0.1)

    @rule(seconds=st.floats(0, 3) | st.floats(5, 20))
    @in_loop
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @precondition(lambda self: len(self.candidates) < 4)
    @rule(name=NAMES, wall=st.sampled_from([-3600.0, 0.0, 3600.0]))
    @in_loop
    async def start(self, name: str, wall: float) -> None:
        if self.api.lease is None and any(one.leads for one in self.candidates):
            return  # deleted this instant: one that starts now cannot know of the holder, and nobody can help that
        self.born += 1
        candidate = Candidate(self.api, name or f"elector-{self.born}", also=self.look)
        candidate.wall = wall + self.born * 0.0001234  # no two clocks agree to the microsecond
        self.candidates.append(candidate.start())
        await asyncio.sleep(0)

    @precondition(lambda self: self.candidates)
    @rule(number=st.integers(0, 3), in_order=st.booleans())
    @in_loop
    async def end(self, number: int, in_order: bool) -> None:
        candidate = self.one(number)
        self.candidates.remove(candidate)
        await candidate.stop()
        if in_order:
            await candidate.elector.release()

    @precondition(lambda self: self.candidates)
    @rule(number=st.integers(0, 3), seconds=st.floats(0, 60))
    @in_loop
    async def pause(self, number: int, seconds: float) -> None:
        self.one(number).link.pause(seconds)

    @precondition(lambda self: self.candidates)
    @rule(number=st.integers(0, 3), there=st.floats(0, 8), back=st.floats(0, 8))
    @in_loop
    async def slow_down(self, number: int, there: float, back: float) -> None:
        link = self.one(number).link
        link.there, link.back = there, back

    @precondition(lambda self: self.candidates)
    @rule(number=st.integers(0, 3), fault=st.sampled_from(["cut", "there", "back", "deaf"]))
    @in_loop
    async def disturb(self, number: int, fault: str) -> None:
        link = self.one(number).link
        if fault == "cut":
            link.cut()
        elif fault == "deaf":
            link.deaf = True
        else:
            link.lost = fault

    @precondition(lambda self: self.candidates)
    @rule(number=st.integers(0, 3))
    @in_loop
    async def heal(self, number: int) -> None:
        self.one(number).link.heal()

    @precondition(lambda self: self.candidates)
    @rule(number=st.integers(0, 3), seconds=st.floats(-7200, 7200))
    @in_loop
    async def set_the_time(self, number: int, seconds: float) -> None:
        self.one(number).wall += seconds

    @rule()
    @in_loop
    async def label_the_lease(self) -> None:
        if self.api.lease is not None:
            self.api.patch({"metadata": {"labels": {"at": str(self.loop.time())}}})

    @rule()
    @in_loop
    async def delete_the_lease(self) -> None:
        if self.api.lease is not None and all(one.elector.holder for one in self.candidates):
            self.api.delete()


TestElectors = Electors.TestCase
TestElectors.settings = settings(max_examples=100, stateful_step_count=40)
