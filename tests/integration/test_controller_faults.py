"""What the controller does when backends, its network or its fellow instances fail."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from dynamic_toolset.controller.conditions import RELEASE
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.model import ServiceKey, Verdict
from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.resources import ENDPOINT_SLICES, LEASES, SERVICES
from tests.integration.sandboxed import NAMESPACE, TARGET, Answer, Cluster, Subject, until
from tests.waiting import PATIENCE

Start = Callable[..., Awaitable[Subject]]

NAMES = ("a", "b", "c", "d")
HOLD = {"health": {"timeout": "3s"}, "massFailure": {"hold": "10m"}}
"""With the hold that it has by default. One that fails is held for as long as a check of the others may last."""


async def published(start: Start, cluster: Cluster, names: set[str], **changes: Any) -> Subject:
    subject = await start(**changes)
    await until(lambda: cluster.listed == names and subject.reports)
    return subject


def failures(subject: Subject, name: str) -> int:
    """How many checks have failed in a row by now; a report comes only with those that change something."""
    return subject.controller._checker.health(ServiceKey(NAMESPACE, name)).failures


# --- Hysteresis -----------------------------------------------------------------------------------------------------


async def test_a_service_is_taken_out_after_three_failed_checks_and_returns_after_one_good_one(
    cluster: Cluster, start: Start
) -> None:
    backend = await cluster.add("a")
    subject = await published(start, cluster, {"a"}, health={"failureThreshold": 3, "interval": "200ms"})
    backend.healthy = False
    for failures in (1, 2):
        await until(lambda expected=failures: subject.found("a").health.failures == expected)
        assert cluster.listed == {"a"}
    await until(lambda: cluster.listed == set())
    await until(lambda: subject.found("a").health.failures >= 3)
    backend.healthy = True
    await until(lambda: cluster.listed == {"a"})


async def test_two_failures_cause_no_write(cluster: Cluster, start: Start) -> None:
    backend = await cluster.add("a")
    subject = await published(start, cluster, {"a"}, health={"failureThreshold": 3, "interval": "200ms"})
    backend.healthy = False
    await until(lambda: subject.found("a").health.failures == 2)
    backend.healthy = True
    await until(lambda: subject.verdict("a") is Verdict.HEALTHY)
    assert len(cluster.writes) == 1


# --- Mass failure ---------------------------------------------------------------------------------------------------


async def test_when_most_fail_at_once_none_is_taken_out_until_they_recover(cluster: Cluster, start: Start) -> None:
    backends = {name: await cluster.add(name) for name in NAMES}
    subject = await published(start, cluster, set(NAMES), **HOLD)
    for name in ("a", "b", "c"):
        backends[name].healthy = False
    await until(lambda: "MassFailure" in subject.problems)
    assert "3 of 4" in subject.problems["MassFailure"]
    await until(lambda: all(failures(subject, name) > 2 for name in ("a", "b", "c")))
    assert cluster.listed == set(NAMES)
    await cluster.delete("a")  # deleted is deleted, whatever else fails
    await until(lambda: cluster.listed == {"b", "c", "d"})
    for name in ("b", "c"):
        backends[name].healthy = True
    await until(lambda: not subject.problems)
    assert cluster.listed == {"b", "c", "d"}
    backends["b"].healthy = False
    await until(lambda: cluster.listed == {"c", "d"})


async def test_a_mass_failure_is_over_after_a_time(cluster: Cluster, start: Start) -> None:
    backends = {name: await cluster.add(name) for name in NAMES}
    subject = await published(start, cluster, set(NAMES), health={"timeout": "3s"}, massFailure={"hold": "3s"})
    for name in ("a", "b", "c"):
        backends[name].healthy = False
    await until(lambda: "MassFailure" in subject.problems)
    await until(lambda: cluster.listed == {"d"})
    await until(lambda: not subject.problems)


async def test_a_person_releases_what_is_held(cluster: Cluster, start: Start) -> None:
    backends = {name: await cluster.add(name) for name in NAMES}
    await cluster.sandbox.put(
        {
            "kind": "ConfigMap",
            "metadata": {"namespace": TARGET.namespace, "name": TARGET.name, "annotations": {RELEASE: "last time"}},
        },
        manager="kubectl",
    )
    subject = await published(start, cluster, set(NAMES), **HOLD)
    for name in ("a", "b", "c"):
        backends[name].healthy = False
    await until(lambda: "MassFailure" in subject.problems)
    assert f"{RELEASE}=" in subject.problems["MassFailure"]
    await until(lambda: all(failures(subject, name) > 2 for name in ("a", "b", "c")))
    annotations = {"metadata": {"annotations": {RELEASE: "now"}}}
    await cluster.sandbox.patch("ConfigMap", *TARGET, annotations, manager="kubectl")
    await until(lambda: cluster.listed == {"d"})
    await until(lambda: not subject.problems)


# --- What is known without asking ------------------------------------------------------------------------------------


def endpoint_slice(service: str, *, ready: bool, address: str = "10.1.2.3") -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": f"{service}-1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        "ports": [{"port": 8080}],
    }


async def test_without_a_ready_endpoint_it_is_not_asked_and_with_one_it_is_listed_at_once(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = [0.1, 0.1]
    monkeypatch.setattr(Checker, "_until_next", lambda *_: pauses.pop() if pauses else 3600.0)
    await cluster.sandbox.put(endpoint_slice("a", ready=False))
    backend = await cluster.add("a")
    subject = await start()
    await until(lambda: subject.found("a") and "no ready endpoint" in subject.found("a").health.reason)
    asked = backend.requests.total()
    await until(lambda: failures(subject, "a") == 3)
    assert backend.requests.total() == asked
    await cluster.sandbox.put(endpoint_slice("a", ready=True))
    await until(lambda: cluster.listed == {"a"})  # its next check would have been an hour away


async def test_a_service_whose_endpoints_lead_astray_is_taken_out_at_once(cluster: Cluster, start: Start) -> None:
    await cluster.sandbox.put(endpoint_slice("a", ready=True))
    await cluster.add("a")
    subject = await published(start, cluster, {"a"}, health={"failureThreshold": 20, "interval": "1h"})
    await cluster.sandbox.put(endpoint_slice("a", ready=True, address="100.100.100.200"))
    await until(lambda: cluster.listed == set())
    await until(lambda: "100.100.100.200" in subject.found("a").health.reason)  # said once it is written


async def test_without_checks_all_are_listed_unasked_but_for_those_that_must_not_be(
    cluster: Cluster, start: Start
) -> None:
    for name in ("hangs", "unready", "astray"):
        await cluster.add(name, mode="hang")
    await cluster.sandbox.put(endpoint_slice("unready", ready=False))
    await cluster.sandbox.put(endpoint_slice("astray", ready=True, address="100.100.100.200"))
    subject = await published(start, cluster, {"hangs"}, health={"enabled": False})
    assert subject.found("hangs").health.reason == "taken for healthy: the setting healthCheck.enabled is false"
    assert subject.found("unready").health.reason == "no ready endpoint in its EndpointSlices"
    assert subject.found("astray").health.refused
    await cluster.sandbox.put(endpoint_slice("unready", ready=True))
    await until(lambda: cluster.listed == {"hangs", "unready"})


def delay_slices(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, seconds: float | None) -> None:
    """Let every list of slices take so long from now on; None: refuse it."""
    read = cluster.sandbox._api._list

    async def slow(request: web.Request, wanted: Any) -> web.StreamResponse:
        if wanted.resource is ENDPOINT_SLICES:
            if seconds is None:
                raise status.forbidden(ENDPOINT_SLICES, "", "not allowed")
            await asyncio.sleep(seconds)
        return await read(request, wanted)

    monkeypatch.setattr(cluster.sandbox._api, "_list", slow)


@pytest.mark.parametrize("delay", [0.7, 3.0])
async def test_who_leads_astray_is_neither_asked_nor_published_while_the_slices_are_late(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    good = await cluster.add("good")
    subject = await published(start, cluster, {"good"})
    delay_slices(cluster, monkeypatch, delay)
    await cluster.sandbox.put(endpoint_slice("bad", ready=True, address="100.100.100.200"))
    bad, late = await cluster.add("bad"), await cluster.add("late")
    await until(lambda: subject.found("bad") and "not been read" in subject.found("bad").health.reason)
    asked = good.requests.total()
    await until(lambda: cluster.listed == {"good", "late"}, within=2 * delay + 10)  # as soon as they are there
    assert late.requests.total()
    assert good.requests.total() > asked  # who was known before is asked all the while
    await until(lambda: "100.100.100.200" in subject.found("bad").health.reason)
    assert bad.requests.total() == 0
    assert not any("bad" in write.listed for write in cluster.writes)


async def test_while_slices_cannot_be_read_newcomers_wait_and_what_was_published_stays_unasked(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await cluster.add("old")
    first = await published(start, cluster, {"old"})
    await first.stop()
    delay_slices(cluster, monkeypatch, None)
    await cluster.sandbox.put(endpoint_slice("bad", ready=True, address="100.100.100.200"))
    newcomers = [await cluster.add("bad"), await cluster.add("new")]
    asked = old.requests.total()
    subject = await start()
    await until(lambda: "EndpointSlicesUnreadable" in subject.problems)
    assert "permission to list and watch endpointslices" in subject.problems["EndpointSlicesUnreadable"]
    old.healthy = False
    await asyncio.sleep(1)
    assert cluster.listed == {"old"}
    assert len(cluster.writes) == 1
    assert old.requests.total() == asked
    assert [backend.requests.total() for backend in newcomers] == [0, 0]
    monkeypatch.undo()
    await until(lambda: cluster.listed == {"new"} and not subject.problems, within=40)
    assert newcomers[0].requests.total() == 0


# --- Namespaces by label ---------------------------------------------------------------------------------------------


async def test_namespaces_are_selected_by_their_labels_as_they_change(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    subject = await start(namespaces={"selector": "observed=yes"})
    await until(lambda: cluster.documents and subject.reports)
    assert cluster.listed == set()
    (decision,) = subject.reports[-1].decisions.values()
    assert "namespaces.selector" in decision.reason
    for value, expected in (("yes", {"a"}), ("no", set()), ("yes", {"a"})):
        labels = {"metadata": {"labels": {"observed": value}}}
        await cluster.sandbox.patch("Namespace", "", NAMESPACE, labels)
        await until(lambda names=expected: cluster.listed == names)


# --- Several instances -----------------------------------------------------------------------------------------------

QUICK_LEASE = {"leaseDuration": "2s", "renewDeadline": "1500ms", "retryPeriod": "200ms"}
LONG_LEASE = {"leaseDuration": "60s", "renewDeadline": "40s", "retryPeriod": "200ms"}


def holder(cluster: Cluster) -> str | None:
    leases = cluster.sandbox._store.objects(LEASES)
    return leases[TARGET]["spec"].get("holderIdentity") if TARGET in leases else None


async def test_only_one_of_two_writes_and_the_other_takes_over_when_it_ends(cluster: Cluster, start: Start) -> None:
    backend = await cluster.add("a")
    first = await published(start, cluster, {"a"}, leaderElection=LONG_LEASE)
    second = await start(leaderElection=LONG_LEASE)
    await until(lambda: second.verdict("a") is Verdict.HEALTHY)
    assert second.found("a").listed
    assert second.reports[-1].published  # by the other one
    leading = holder(cluster)
    await cluster.add_service("b", backend)
    await until(lambda: cluster.listed == {"a", "b"} and second.found("b") and second.found("b").listed)
    assert len(cluster.writes) == 2
    await first.stop()
    await until(lambda: holder(cluster) not in {leading, "", None})  # it does not wait for the lease to run out
    await cluster.add_service("c", backend)
    await until(lambda: cluster.listed == {"a", "b", "c"})


async def test_after_a_leader_that_vanished_the_next_one_writes_a_fence(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    first = await published(start, cluster, {"a"}, leaderElection=QUICK_LEASE)
    await first.vanish()
    before = cluster.config_map["metadata"]["resourceVersion"]
    await start(leaderElection=QUICK_LEASE)
    changed = await until(lambda: (now := cluster.config_map)["metadata"]["resourceVersion"] != before and now)
    assert changed["metadata"]["annotations"]["kubernaut.io/taken-over-by"] == holder(cluster)
    assert cluster.listed == {"a"}


async def test_where_there_is_no_lease_the_first_write_is_a_fence_and_there_is_no_other(
    cluster: Cluster, start: Start
) -> None:
    """It may have been deleted while somebody held it, and has a write on its way."""
    await cluster.add("a")
    first = await published(start, cluster, {"a"}, leaderElection=LONG_LEASE)
    assert cluster.config_map["metadata"]["annotations"]["kubernaut.io/taken-over-by"] == holder(cluster)
    await first.stop()
    await cluster.sandbox.delete("Lease", *TARGET)
    second = await start(leaderElection=LONG_LEASE)
    await until(lambda: second.reports and second.reports[-1].published and len(cluster.writes) == 2)
    assert cluster.config_map["metadata"]["annotations"]["kubernaut.io/taken-over-by"] == holder(cluster)
    await asyncio.sleep(0.5)
    assert [write.listed for write in cluster.writes] == [{"a"}, {"a"}]


async def test_a_write_under_way_is_finished_before_the_end(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    subject = await published(start, cluster, {"a"})
    arrived, going_on = asyncio.Event(), asyncio.Event()

    async def slow(answer: Answer) -> web.StreamResponse:
        arrived.set()
        await going_on.wait()
        return await answer()

    cluster.around = slow
    await cluster.add("b")
    await arrived.wait()
    subject.controller.stop()
    await asyncio.sleep(0.1)
    assert not subject.task.done()
    assert holder(cluster)
    going_on.set()
    await asyncio.wait([subject.task], timeout=PATIENCE)
    subject.task.result()
    assert cluster.listed == {"a", "b"}
    assert not holder(cluster)


async def test_a_write_that_never_ends_does_not_hold_up_the_end(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_toolset.controller.controller.LAST_WRITE", 0.2)
    await cluster.add("a")
    subject = await published(start, cluster, {"a"})
    arrived = asyncio.Event()

    async def for_ever(answer: Answer) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    cluster.around = for_ever
    await cluster.add("b")
    await arrived.wait()
    subject.controller.stop()
    await asyncio.wait([subject.task], timeout=PATIENCE)
    subject.task.result()
    assert holder(cluster)  # the write may land yet, so nobody is to rely on its end


# --- The API ---------------------------------------------------------------------------------------------------------


async def test_a_list_that_is_refused_from_the_start_is_a_condition(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = cluster.sandbox._api
    read = api._list

    async def refused(request: web.Request, wanted: Any) -> web.StreamResponse:
        if wanted.resource is SERVICES:
            raise status.forbidden(SERVICES, "", "not allowed")
        return await read(request, wanted)

    monkeypatch.setattr(api, "_list", refused)
    subject = await start()
    await until(lambda: "WatchFailing" in subject.problems)
    assert "403" in subject.problems["WatchFailing"]
    assert not cluster.writes
    monkeypatch.undo()
    await cluster.add("a")
    await until(lambda: cluster.listed == {"a"} and not subject.problems, within=40)
