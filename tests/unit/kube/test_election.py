"""Who leads, and for how long: electors in virtual time, and over HTTP against the sandbox."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.election import MAX_DURATION, Elector, time_since_boot
from dynamic_toolset.kube.errors import Forbidden, NotFound, TooManyRequests
from dynamic_toolset.sandbox import Sandbox
from tests.unit.kube.leases import KEY, MIDNIGHT, Candidate, LeaseApi, cancelled, now
from tests.virtual_time import virtual_time


@asynccontextmanager
async def electing(api: LeaseApi, *names: str, **options: Any) -> AsyncIterator[list[Candidate]]:
    """Candidates that are started one after the other, so that the first one leads."""
    async with AsyncExitStack() as cleanup:
        candidates = []
        for name in names:
            candidates.append(Candidate(api, name, **options).start())
            cleanup.push_async_callback(candidates[-1].stop)
            await asyncio.sleep(0.1)
        yield candidates


async def until(condition: Callable[[], Any], within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def until_leading(candidate: Candidate, within: float = 60.0) -> float:
    """Return how long it took."""
    start = now()
    async with asyncio.timeout(within):
        while not candidate.leads:
            candidate.changed.clear()
            await candidate.changed.wait()
    return now() - start


# --- The ordinary course --------------------------------------------------------------------------------------------


@virtual_time
async def test_the_first_one_creates_the_lease_and_leads() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        assert a.leads
        assert a.elector.holder == "a"
        assert a.elector.unclean, "where there is no Lease it may have been deleted"
        assert a.elector.last_error is None
        assert a.told == [(0.0, True)]
        assert api.spec == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-11-23T00:00:00.001002Z",
            "renewTime": "2026-11-23T00:00:00.001002Z",
            "leaseTransitions": 0,
        } | {name: api.spec[name] for name in ("acquireTime", "renewTime")}
        assert api.spec["acquireTime"] == api.spec["renewTime"]
        assert datetime.strptime(api.spec["renewTime"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) - MIDNIGHT < (
            timedelta(seconds=0.01)
        )
        assert sorted(api.sent("a")) == ["get", "list", "put", "watch"]


@virtual_time
async def test_a_leader_renews_and_is_seen_to() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        acquired = api.spec["acquireTime"]
        await asyncio.sleep(60)
        assert a.told == [(0.0, True)]
        times = [at for at, _ in api.history]
        assert all(2.0 <= after - before <= 2.5 for before, after in pairwise(times))
        assert len(times) > 25
        assert {spec["acquireTime"] for _, spec in api.history} == {acquired}
        assert {spec["leaseTransitions"] for _, spec in api.history} == {0}
        assert len({spec["renewTime"] for _, spec in api.history}) == len(times)
        assert set(api.sent("a", since=1)) == {"patch"}


@virtual_time
async def test_the_time_that_remains_counts_from_the_start_of_the_renewal() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.there, a.link.back = 1.0, 2.0
        await until(lambda: api.history[-1][0] > 10)  # a renewal has just arrived
        await asyncio.sleep(2.0)
        assert a.elector.remaining() == pytest.approx(10 - 3, abs=0.05)


@virtual_time
async def test_slow_answers_are_no_reason_to_cease() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.there, a.link.back = 1.5, 1.5
        await asyncio.sleep(300)
        assert a.told == [(0.0, True)]


@virtual_time
async def test_at_rest_a_standby_sends_nothing_but_its_watch() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        assert sorted(api.sent("b")) == ["get", "list", "watch"]
        await asyncio.sleep(3600)
        assert set(api.sent("b", since=1)) == {"watch"}
        assert len(api.sent("b", since=1)) <= 3600 / 240
        assert (a.told, b.told) == ([(0.0, True)], [])
        assert b.elector.holder == "a"
        assert b.elector.remaining() == 0.0


# --- Handover -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_lease_that_is_given_back_is_taken_at_once() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b", "c") as [a, b, c]:
        await asyncio.sleep(7)
        await a.stop()
        await a.elector.release()
        released = api.history[-1][1]
        assert (released["holderIdentity"], released["leaseDurationSeconds"]) == ("", 1)
        assert released["renewTime"] == released["acquireTime"]
        await asyncio.sleep(0.05)
        assert [b.leads, c.leads].count(True) == 1
        winner = b if b.leads else c
        assert not winner.elector.unclean
        assert api.spec["holderIdentity"] == winner.name
        assert api.spec["leaseTransitions"] == 1
        assert a.told[-1] == (7.3, False)


@virtual_time
async def test_who_gives_the_lease_back_ceases_to_lead_before_it_does() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        release = asyncio.create_task(a.elector.release())
        await asyncio.sleep(0)
        assert not a.leads
        assert api.spec["holderIdentity"] == "a"
        await release
        assert api.spec["holderIdentity"] == ""
        assert a.elector.holder is None
        assert api.sent("a")[-2:] == ["get", "patch"]


@virtual_time
async def test_who_has_given_it_back_stays_out_of_it() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.there = 0.3
        await a.link.sending("patch")  # a renewal is under way
        release = asyncio.create_task(a.elector.release())
        await asyncio.sleep(0.305)  # and succeeds
        assert not a.leads
        await release
        await asyncio.sleep(1)
        ended = len(api.requests)
        await asyncio.sleep(60)
        assert len(api.requests) == ended
        assert api.spec["holderIdentity"] == ""
        assert [leads for _, leads in a.told] == [True, False]


@virtual_time
async def test_who_is_to_stay_out_of_it_does_not_finish_a_takeover() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await a.stop()
        await b.link.sending("get")
        await b.elector.release()
        await asyncio.sleep(60)
        assert api.sent("b", since=1)[-1] == "get"
        assert api.spec["holderIdentity"] == "a"


@virtual_time
async def test_a_renewal_that_was_cut_off_does_not_undo_the_release() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await asyncio.sleep(2.05)
        a.link.there = 1.0
        await a.link.sending("patch")
        await a.stop()
        a.link.there = 0.99  # now it reads the Lease just before that lands, and writes to it afterwards
        await a.elector.release()
        await asyncio.sleep(5)
        assert api.spec["holderIdentity"] == ""


@virtual_time
async def test_a_standby_gives_nothing_back() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        before = len(api.requests)
        await b.elector.release()
        assert len(api.requests) == before
        assert a.leads
        assert api.spec["holderIdentity"] == "a"


@virtual_time
async def test_a_release_takes_a_bounded_time_and_raises_nothing() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await a.stop()
        a.link.lost = "there"
        start = now()
        await a.elector.release()
        assert now() - start == pytest.approx(5)
        assert "no answer" in (a.elector.last_error or "")
        a.link.cut()
        await a.elector.release()
        await until_leading(b, within=16)


@virtual_time
async def test_an_abandoned_lease_is_taken_when_it_has_run_out() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await asyncio.sleep(30)
        await a.stop()
        renewed = api.history[-1][0]
        await until_leading(b)
        assert now() - renewed == pytest.approx(15, abs=0.1)
        assert b.elector.unclean
        assert api.spec["leaseTransitions"] == 1
        assert api.spec["acquireTime"] == api.spec["renewTime"]


@virtual_time
async def test_who_comes_to_an_abandoned_lease_waits_for_its_whole_duration() -> None:
    api = LeaseApi()
    async with electing(api, "a"):
        pass
    await asyncio.sleep(3600)
    async with electing(api, "b") as [b]:
        assert await until_leading(b) == pytest.approx(15 - 0.1, abs=0.1)
        assert b.elector.unclean


@virtual_time
async def test_the_duration_that_counts_is_the_one_in_the_record() -> None:
    api = LeaseApi()
    async with electing(api, "a", lease_duration=59.2, renew_deadline=40.0):
        assert api.spec["leaseDurationSeconds"] == 60
    async with electing(api, "b") as [b]:
        assert await until_leading(b, within=90) == pytest.approx(60, abs=0.3)


@virtual_time
async def test_a_lease_of_ours_may_be_as_long_as_we_wish() -> None:
    api = LeaseApi()
    long = {"lease_duration": 2 * MAX_DURATION, "renew_deadline": MAX_DURATION}
    async with electing(api, "a", "b", **long) as [a, b]:
        await a.stop()
        assert await until_leading(b, within=3 * MAX_DURATION) == pytest.approx(2 * MAX_DURATION, abs=0.3)


# --- Losing it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["refused", "hanging", "unanswered"])
@virtual_time
async def test_who_cannot_renew_ceases_exactly_at_the_deadline(fault: str) -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await asyncio.sleep(21)
        last = a.elector.statistics.last_renewed
        assert last is not None
        if fault == "refused":
            a.link.cut()
        else:
            a.link.lost = "there" if fault == "hanging" else "back"
        await asyncio.sleep(last + 10 - 1e-6 - now())
        assert a.leads
        assert a.elector.remaining() == pytest.approx(1e-6)
        await asyncio.sleep(1e-6)
        assert not a.leads
        assert a.elector.remaining() == 0.0
        await asyncio.sleep(0.01)
        assert a.told[-1] == (round(last + 10, 2), False)
        assert a.elector.last_error
        assert a.elector.statistics.consecutive_failures >= 1
        assert not b.leads


@virtual_time
async def test_a_call_that_hangs_leaves_time_for_another() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.lost = "there"
        await asyncio.sleep(2.5)
        assert api.sent("a")[-1] == "patch"
        a.link.heal()  # but not for the request that is lost already
        await asyncio.sleep(60)
        assert a.told == [(0.0, True)]


@virtual_time
async def test_failures_are_followed_by_more_attempts_but_not_by_a_storm() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.cut()
        await asyncio.sleep(10)
        assert 5 <= api.sent("a", since=0.1).count("patch") <= 12
        await asyncio.sleep(600)
        assert api.sent("a", since=20).count("get") <= 600
        assert a.elector.last_error == "connection refused"
        a.link.heal()
        assert await until_leading(a) <= 2.5
        await asyncio.sleep(1.1)
        assert a.elector.last_error is None, "the watch is back, too"
        assert api.spec["leaseTransitions"] == 0


@virtual_time
async def test_who_finds_the_lease_still_its_own_goes_on() -> None:
    api = LeaseApi()
    async with electing(api, "b") as [b]:
        await b.stop()
        await b.elector.release()
    api.history.clear()
    async with electing(api, "a") as [a]:
        a.link.cut()
        await asyncio.sleep(300)
        assert not a.leads
        a.link.heal()
        await until_leading(a, within=5)
        assert a.elector.statistics.terms == 2
        assert len({spec["acquireTime"] for _, spec in api.history}) == 1
        assert not a.elector.unclean


@virtual_time
async def test_a_paused_process_does_not_lead_when_it_wakes_up() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await asyncio.sleep(5)
        a.skipped += 30
        assert not a.leads
        assert a.elector.remaining() == 0.0


@virtual_time
async def test_a_process_that_was_stopped_during_a_renewal_does_not_lead_after_it() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await a.link.sending("patch")
        a.skipped += 30  # and the answer is there when it goes on
        await asyncio.sleep(0.003)
        assert a.elector.statistics.renewals == 2
        assert not a.leads
        await until_leading(a, within=1)


@virtual_time
async def test_a_leader_that_was_paused_for_longer_than_the_lease_finds_another_one_leading() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await asyncio.sleep(5)
        a.link.pause(40)
        await asyncio.sleep(30)
        assert (a.leads, b.leads) == (False, True)
        await asyncio.sleep(60)
        assert (a.leads, b.leads) == (False, True)
        assert (a.elector.holder, b.elector.holder) == ("b", "b")
        assert b.elector.unclean


@virtual_time
async def test_a_standby_that_was_paused_does_not_steal() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        b.skipped += 40
        await asyncio.sleep(0.1)
        b.link.pause(40)
        await asyncio.sleep(100)
        assert (a.told, b.told) == ([(0.0, True)], [])


@virtual_time
async def test_a_standby_whose_watch_is_dead_looks_before_it_takes() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        b.link.deaf = True
        await asyncio.sleep(600)
        assert (a.told, b.told) == ([(0.0, True)], [])
        assert 600 / 15 - 5 <= api.sent("b", since=1).count("get") <= 600 / 15
        assert "patch" not in api.sent("b")
        await a.stop()
        assert await until_leading(b) <= 15 + 15.1


@virtual_time
async def test_a_standby_that_may_not_watch_says_so_and_still_takes_over() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        b.link.cut()
        b.link.error = None
        b.link.watch_error = Forbidden(403, "Forbidden", "cannot watch leases")
        await asyncio.sleep(60)
        assert "cannot watch" in (b.elector.last_error or "")
        await a.stop()
        assert await until_leading(b) <= 15 + 15.1


# --- Clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9, 1e9])
@virtual_time
async def test_a_time_of_day_that_jumps_changes_nothing(jump: float) -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        for candidate in (a, b, a):
            candidate.wall += jump
            await asyncio.sleep(60)
            candidate.wall -= jump
            await asyncio.sleep(60)
        assert (a.told, b.told) == ([(0.0, True)], [])
        await a.stop()
        b.wall += jump
        assert await until_leading(b) <= 15.1


@virtual_time
async def test_a_time_of_day_that_stands_still_does_not_make_renewals_invisible() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        a.elector._now = lambda: MIDNIGHT
        await asyncio.sleep(120)
        assert (a.told, b.told) == ([(0.0, True)], [])


@virtual_time
async def test_a_timer_that_fires_early_is_set_again() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        last = a.elector.statistics.last_renewed or 0.0
        a.link.cut()
        a.skipped = -0.5
        await asyncio.sleep(15)
        assert a.told[-1] == (pytest.approx(last + 10.5, abs=0.01), False)


# --- Somebody else at the Lease -------------------------------------------------------------------------------------


@virtual_time
async def test_a_change_of_labels_is_no_loss_and_no_renewal() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        for number in range(40):
            api.patch({"metadata": {"labels": {"number": str(number)}}})
            await asyncio.sleep(1.3)
        assert a.told == [(0.0, True)]
        assert api.lease["metadata"]["labels"] == {"number": "39"}
        await a.stop()
        for _ in range(15):
            api.patch({"metadata": {"labels": {"at": str(now())}}})
            await asyncio.sleep(1.3)
        assert b.leads


@virtual_time
async def test_who_sees_another_holder_does_not_lead_any_more() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        api.patch({"spec": {"holderIdentity": "kubectl"}})
        await asyncio.sleep(0.01)
        assert not a.leads
        assert a.elector.holder == "kubectl"
        assert a.told[-1][1] is False
        assert await until_leading(a) == pytest.approx(15, abs=0.1)
        assert a.elector.unclean
        assert api.spec["leaseTransitions"] == 1
        assert api.spec["acquireTime"] == api.spec["renewTime"]


@virtual_time
async def test_a_lease_that_somebody_else_gives_back_is_acquired_anew() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await asyncio.sleep(5)
        api.patch({"spec": {"holderIdentity": ""}})
        await asyncio.sleep(0.01)
        assert a.leads
        assert [leads for _, leads in a.told] == [True, False, True]
        assert api.spec["leaseTransitions"] == 1
        assert api.spec["acquireTime"] == api.spec["renewTime"]
        assert not a.elector.unclean


@virtual_time
async def test_who_makes_a_lease_anew_that_was_deleted_fences_off_its_holder() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.deaf = True
        api.delete()
        b = Candidate(api, "b").start()
        await until_leading(b)
        assert b.elector.unclean
        await asyncio.sleep(2.5)
        assert not a.leads, "at its next renewal"
        await b.stop()


@virtual_time
async def test_a_change_of_the_holder_is_told() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b", "c") as [a, b, c]:
        c.changed.clear()
        await asyncio.sleep(10)
        assert not c.changed.is_set()
        await a.stop()
        await a.elector.release()
        await until(lambda: b.leads or c.leads)
        standby = c if b.leads else b
        standby.changed.clear()
        api.patch({"spec": {"holderIdentity": "kubectl"}})
        await asyncio.sleep(0.01)
        assert standby.changed.is_set()
        assert standby.elector.holder == "kubectl"


@virtual_time
async def test_who_learns_of_another_holder_by_a_conflict_does_not_lead_either() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.deaf = True
        api.patch({"spec": {"holderIdentity": "kubectl"}})
        await asyncio.sleep(2.5)
        assert not a.leads


@virtual_time
async def test_one_who_bears_the_same_name_is_somebody_else() -> None:
    api = LeaseApi()
    first, second = Candidate(api, "twin").start(), Candidate(api, "twin")
    await asyncio.sleep(0.1)
    second.start()
    await asyncio.sleep(300)
    assert (first.told, second.told) == ([(0.0, True)], [])
    await first.stop()
    assert await until_leading(second) <= 15.1
    assert second.elector.unclean
    await second.stop()


@virtual_time
async def test_a_lease_that_is_deleted_is_made_anew_by_its_holder() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b", "c") as [a, b, c]:
        acquired = api.spec["acquireTime"]
        for _ in range(3):
            await asyncio.sleep(20)
            api.delete()
            await asyncio.sleep(0.02)
            assert api.spec["holderIdentity"] == "a"
            assert api.spec["acquireTime"] == acquired
        assert (a.told, b.told, c.told) == ([(0.0, True)], [], [])
        assert {verb for name in "bc" for verb in api.sent(name, since=1)} <= {"watch"}


@virtual_time
async def test_a_lease_that_is_deleted_is_not_taken_from_a_holder_who_cannot_know() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await asyncio.sleep(20)
        a.link.lost = "there"
        a.link.deaf = True
        api.delete()
        deleted = now()
        await until_leading(b)
        assert now() - deleted == pytest.approx(15, abs=0.1)
        assert not a.leads
        assert b.elector.unclean


@virtual_time
async def test_an_old_deletion_is_no_news() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await asyncio.sleep(5)
        a.link.deaf = True
        api.delete()
        await until(lambda: api.lease is not None)  # made anew at the next renewal
        await asyncio.sleep(0.01)
        sent = len(api.requests)
        a.link.heal()  # the watch tells of the deletion now, and then of the rest
        await asyncio.sleep(1)
        assert [request.verb for request in api.requests[sent:]] == ["watch"]
        assert a.told == [(0.0, True)]


@virtual_time
async def test_a_lease_that_was_made_anew_can_be_lost_and_had_again() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        api.delete()
        await asyncio.sleep(0.1)
        a.link.cut()
        await asyncio.sleep(10.5)
        assert not a.leads
        a.link.heal()
        await until_leading(a, within=2.5)


@virtual_time
async def test_a_holder_that_is_too_late_to_make_it_anew_does_not_lead_an_instant_longer() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.there = 0.1
        api.delete()
        await a.link.sending("put")
        api.put({"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "spec": {"holderIdentity": "x"}})
        a.link.deaf = True
        await asyncio.sleep(0.25)  # refused, and asked once more
        assert not a.leads


@virtual_time
async def test_whoever_makes_a_deleted_lease_first_leads_and_the_old_holder_does_not() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await asyncio.sleep(5)
        a.link.deaf = True
        api.delete()
        api.put({"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "spec": {"holderIdentity": "x"}})
        await asyncio.sleep(2.5)
        assert not a.leads
        assert a.elector.holder == "x"
        assert a.elector.last_error is None


@pytest.mark.parametrize(
    ("spec", "wait"),
    [
        ({}, 0),
        ({"holderIdentity": None}, 0),
        ({"holderIdentity": ""}, 0),
        ({"holderIdentity": "", "leaseDurationSeconds": 3600}, 0),
        ({"holderIdentity": "x"}, 15),
        ({"holderIdentity": "x", "leaseDurationSeconds": None}, 15),
        ({"holderIdentity": "x", "leaseDurationSeconds": 0}, 15),
        ({"holderIdentity": "x", "leaseDurationSeconds": -5}, 15),
        ({"holderIdentity": "x", "leaseDurationSeconds": 4}, 4),
        ({"holderIdentity": "x", "leaseDurationSeconds": 2**31 - 1}, MAX_DURATION),
        ({"holderIdentity": "x", "leaseDurationSeconds": 10**30}, MAX_DURATION),
        ({"holderIdentity": "x", "leaseTransitions": None}, 15),
        ({"holderIdentity": "x", "leaseTransitions": -7, "renewTime": "", "acquireTime": "yesterday"}, 15),
        ({"holderIdentity": "x" * 100_000 + "\n{{", "renewTime": "9999-12-31T23:59:59.999999Z"}, 15),
        ({"holderIdentity": "a", "leaseDurationSeconds": 15}, 15),
        ({"holderIdentity": "a", "acquireTime": ""}, 15),
    ],
    ids=lambda value: str(value)[:60],
)
@virtual_time
async def test_a_record_of_any_kind_delays_us_at_most(spec: dict[str, Any], wait: float) -> None:
    api = LeaseApi()
    api._store("ADDED", {"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "spec": spec})
    candidate = Candidate(api, "a").start()
    assert await until_leading(candidate, within=MAX_DURATION + 5) == pytest.approx(wait, abs=0.1)
    assert candidate.elector.unclean == (wait > 0)
    assert api.spec["leaseTransitions"] == 1
    await asyncio.sleep(5)
    assert candidate.leads
    await candidate.stop()


@virtual_time
async def test_transitions_do_not_grow_over_what_the_api_takes() -> None:
    api = LeaseApi()
    record = {"holderIdentity": "", "leaseTransitions": 2**31 - 1}
    api._store("ADDED", {"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "spec": record})
    async with electing(api, "a") as [a]:
        assert a.leads
        assert api.spec["leaseTransitions"] == 2**31 - 1


@pytest.mark.parametrize("spec", [None, {"leaseDurationSeconds": "soon"}, []])
@virtual_time
async def test_a_record_that_cannot_be_read_is_an_error_to_tell_and_no_end(spec: Any) -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        good = api.lease
        api._store("MODIFIED", {**good, "spec": spec})
        await asyncio.sleep(120)
        assert not a.leads
        assert not b.leads
        for one in (a, b):
            assert "Expected" in (one.elector.last_error or "")
            assert len(api.sent(one.name, since=60)) < 100
        api._store("MODIFIED", good)
        await asyncio.sleep(20)
        assert [a.leads, b.leads].count(True) == 1


# --- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [Forbidden(403, "Forbidden", "cannot get leases"), NotFound(404, "NotFound", 'namespaces "holmes" not found')],
)
@virtual_time
async def test_a_refusal_is_told_and_tried_again_without_haste(error: Any) -> None:
    api = LeaseApi()
    candidate = Candidate(api, "a")
    candidate.link.cut(error)
    candidate.start()
    await asyncio.sleep(600)
    assert error.message in (candidate.elector.last_error or "")
    # Twice for each attempt where there is no Lease: it asks, and tries to create.
    assert len([verb for verb in api.sent("a") if verb in ("get", "put")]) <= 2 * 600
    candidate.link.heal()
    await until_leading(candidate, within=3)
    await asyncio.sleep(60)  # the reflector needs longer
    assert candidate.elector.last_error is None
    await candidate.stop()


@virtual_time
async def test_a_server_that_asks_for_time_gets_it() -> None:
    api = LeaseApi()
    candidate = Candidate(api, "a")
    candidate.link.error = TooManyRequests(429, "TooManyRequests", "later", retry_after=6)
    candidate.start()
    await asyncio.sleep(60)
    assert api.sent("a").count("get") == 10
    candidate.link.error = TooManyRequests(429, "TooManyRequests", "much later", retry_after=1e9)
    await asyncio.sleep(6)
    candidate.link.heal()
    await until_leading(candidate, within=15)
    await candidate.stop()


@virtual_time
async def test_a_leader_that_is_asked_for_more_time_than_it_has_tries_again_before_it_is_over() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        a.link.error = TooManyRequests(429, "TooManyRequests", "later", retry_after=15)
        await asyncio.sleep(8)
        since = now() - 8
        assert 2 <= len(api.sent("a", since)) <= 6
        a.link.heal()
        await asyncio.sleep(10)
        assert a.told == [(0.0, True)]


@virtual_time
async def test_an_answer_that_was_lost_may_have_made_us_leader() -> None:
    api = LeaseApi()
    async with electing(api, "a"):
        pass
    b = Candidate(api, "b").start()
    await b.link.sending("patch")
    b.link.lost = "back"
    await until(lambda: api.spec["holderIdentity"] == "b")
    acquired = api.spec["acquireTime"]
    await asyncio.sleep(7)
    assert not b.leads
    b.link.heal()
    await until_leading(b, within=5)
    assert api.spec["acquireTime"] == acquired
    assert api.spec["leaseTransitions"] == 1
    assert b.elector.unclean, "a is still one that did not give it back"
    await b.stop()


@virtual_time
async def test_an_attempt_may_succeed_after_it_was_given_up() -> None:
    api = LeaseApi()
    async with electing(api, "a", "b") as [a, b]:
        await a.stop()
        release = asyncio.create_task(a.elector.release())
        await b.link.sending("get")
        b.link.there = 6.0  # longer than it waits
        await b.link.sending("patch")
        await release
        b.link.there = 0.001
        await b.link.sending("get")
        b.link.there = 2.0  # the second attempt comes after the first
        await until(lambda: api.spec["holderIdentity"] == "b")
        assert not b.leads
        await until_leading(b, within=8)
        assert api.spec["leaseTransitions"] == 1
        assert not b.elector.unclean


@virtual_time
async def test_a_lost_race_is_no_error_but_a_race_without_end_is() -> None:
    api = LeaseApi()
    async with electing(api, "a"):
        pass
    racers = [Candidate(api, name).start() for name in "bcd"]
    problems: set[str | None] = set()
    while not any(racer.leads for racer in racers):
        await asyncio.sleep(0.001)
        problems |= {racer.elector.last_error for racer in racers}
    await asyncio.sleep(1)
    problems |= {racer.elector.last_error for racer in racers}
    assert problems == {None}
    assert sum(racer.elector.statistics.failures for racer in racers) == 2
    for racer in racers:
        await racer.stop()

    async def meddle() -> None:
        while True:
            api.patch({"metadata": {"labels": {"at": str(now())}}})
            await asyncio.sleep(0.001)

    meddler = asyncio.create_task(meddle())
    late = Candidate(api, "late").start()
    await asyncio.sleep(20)
    assert "has been modified" in (late.elector.last_error or "")
    await cancelled(meddler)
    await until_leading(late, within=5)
    await late.stop()


@virtual_time
async def test_a_bug_ends_it() -> None:
    api = LeaseApi()
    candidate = Candidate(api, "a").start()
    await asyncio.sleep(1)
    candidate.elector._now = lambda: 1 / 0
    with pytest.raises(ExceptionGroup) as caught:
        await candidate.task
    assert caught.group_contains(ZeroDivisionError)


def test_a_nonsensical_elector_is_refused() -> None:
    for options in (
        {"lease_duration": 10.0},
        {"renew_deadline": 2.4},
        {"retry_period": 0.0},
        {"lease_duration": math.nan},
    ):
        with pytest.raises(ValueError, match="must be longer"):
            Elector(None, KEY, "a", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identity"):
        Elector(None, KEY, "")  # type: ignore[arg-type]


def test_time_goes_on_while_the_machine_sleeps() -> None:
    assert time_since_boot() <= time_since_boot()
    assert isinstance(time_since_boot(), float)


@virtual_time
async def test_what_it_has_done_is_counted() -> None:
    api = LeaseApi()
    async with electing(api, "a") as [a]:
        await asyncio.sleep(10)
        done = a.elector.statistics
        assert (done.terms, done.failures, done.consecutive_failures) == (1, 0, 0)
        assert done.renewals == len(api.history)
        assert done.last_renewed == pytest.approx(api.history[-1][0], abs=0.01)


# --- Over HTTP ------------------------------------------------------------------------------------------------------


async def test_two_over_http() -> None:
    async with Sandbox() as sandbox, AsyncExitStack() as cleanup:
        await sandbox.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KEY.namespace}})
        changes = asyncio.Event()
        electors, tasks = [], []
        for name in ("a", "b"):
            client = await cleanup.enter_async_context(Client(static(sandbox.url)))
            electors.append(
                Elector(
                    client,
                    KEY,
                    name,
                    lease_duration=1.0,
                    renew_deadline=0.6,
                    retry_period=0.1,
                    on_change=changes.set,
                )
            )
            tasks.append(asyncio.create_task(electors[-1].run()))
            cleanup.push_async_callback(cancelled, tasks[-1])

        async def leading(number: int) -> None:
            async with asyncio.timeout(10):
                while not electors[number].is_leader():
                    changes.clear()
                    await changes.wait()

        while not any(elector.is_leader() for elector in electors):
            changes.clear()
            await asyncio.wait_for(changes.wait(), 10)
        first = 0 if electors[0].is_leader() else 1
        second = 1 - first
        assert not electors[second].is_leader()
        await sandbox.patch("Lease", *KEY, {"metadata": {"labels": {"team": "sre"}}})

        await cancelled(tasks[first])
        await electors[first].release()
        await leading(second)
        assert not electors[second].unclean

        tasks[first] = asyncio.create_task(
            Elector(client, KEY, "c", lease_duration=1.0, renew_deadline=0.6, retry_period=0.1).run()
        )
        cleanup.push_async_callback(cancelled, tasks[first])
        lease = await sandbox.get("Lease", *KEY)
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == electors[second].identity
        assert lease["spec"]["leaseTransitions"] == 1
        assert lease["metadata"]["labels"] == {"team": "sre"}
