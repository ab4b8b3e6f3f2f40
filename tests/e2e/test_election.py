"""Leader election on the real API, with the rights that are documented: on this one Lease, by its name."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.election import Elector
from dynamic_toolset.kube.objects import ObjectKey
from tests.cluster.cluster import AuditEvent, Cluster
from tests.e2e.program import SERVICE_ACCOUNT, grant
from tests.waiting import PATIENCE

pytestmark = pytest.mark.e2e

NAME = "kubernaut-toolset-config"
RETRY = 0.2
SHORT = {"lease_duration": 4.0, "renew_deadline": 3.0}
LONG = {"lease_duration": 30.0, "renew_deadline": 20.0}


class Candidate:
    """An elector at work, in a connection of its own."""

    def __init__(self, elector: Elector) -> None:
        self.elector = elector
        self._task = asyncio.create_task(elector.run())

    async def stop(self) -> None:
        """End it as a lost node ends."""
        assert not self._task.done() or self._task.cancelled()
        self._task.cancel()
        await asyncio.wait([self._task])


Elect = Callable[..., Awaitable[Candidate]]


@pytest.fixture
async def elect(cluster: Cluster, namespace: str) -> AsyncIterator[Elect]:
    """Let somebody stand for election until the test is over."""
    grant(cluster, namespace, NAME)
    connection = static(cluster.url, token=cluster.token(namespace, SERVICE_ACCOUNT), ca_file=cluster.ca_file)
    async with AsyncExitStack() as cleanup:

        async def elect(identity: str, **options: float) -> Candidate:
            client = await cleanup.enter_async_context(Client(connection))
            elector = Elector(client, ObjectKey(namespace, NAME), identity, retry_period=RETRY, **options)
            candidate = Candidate(elector)
            cleanup.push_async_callback(candidate.stop)
            return candidate

        yield elect
    # A TLS connection is closed only when the server has answered that, and one that is left behind is a warning.
    open_files = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
    await until(lambda: len(open_files) == 1)  # the loop's own


async def until(condition: Callable[[], Any], within: float = PATIENCE) -> float:
    """Return after how many seconds ``condition`` was true."""
    start = time.monotonic()
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
    return time.monotonic() - start


def columns(cluster: Cluster, namespace: str) -> list[str]:
    """What a person sees of the Lease: name, holder, age."""
    _, row = cluster.kubectl("get", "lease", NAME, f"--namespace={namespace}").splitlines()
    return row.split()


def lease(cluster: Cluster, namespace: str) -> dict[str, Any]:
    return cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{NAME}")


async def test_a_lease_is_held_handed_over_and_taken_over(cluster: Cluster, namespace: str, elect: Elect) -> None:
    first = await elect("pod-a_1", **LONG)
    await until(first.elector.is_leader)
    second = await elect("pod-b_2", **SHORT)  # it waits for as long as the Lease says, not as its own would last
    await until(lambda: second.elector.holder == "pod-a_1")

    name, holder, age = columns(cluster, namespace)
    assert (name, holder) == (NAME, "pod-a_1")
    assert age.endswith("s")
    cluster.kubectl("label", "lease", NAME, f"--namespace={namespace}", "team=sre")
    await until(lambda: first.elector.statistics.renewals >= 5)
    assert first.elector.is_leader()
    assert not second.elector.is_leader()
    assert first.elector.last_error is second.elector.last_error is None

    await first.stop()
    await first.elector.release()
    await until(second.elector.is_leader)  # it does not wait for the lease to run out
    assert not second.elector.unclean
    assert columns(cluster, namespace)[1] == "pod-b_2"

    await second.stop()
    third = await elect("pod-c_3", **SHORT)
    assert await until(third.elector.is_leader) > 3
    assert third.elector.unclean
    held = lease(cluster, namespace)
    assert (held["spec"]["holderIdentity"], held["spec"]["leaseTransitions"]) == ("pod-c_3", 2)
    assert held["metadata"]["labels"] == {"team": "sre"}


async def test_a_standby_sends_nothing(cluster: Cluster, namespace: str, elect: Elect) -> None:
    def sent(skip: int = 0) -> list[AuditEvent]:
        return [event for event in cluster.audit(skip) if (event.resource, event.namespace) == ("leases", namespace)]

    first = await elect("a")
    await until(first.elector.is_leader)
    await elect("b")
    await until(lambda: [event.verb for event in sent()].count("watch") == 2)
    before = len(list(cluster.audit()))
    renewals = first.elector.statistics.renewals
    await until(lambda: first.elector.statistics.renewals >= renewals + 5)
    await until(lambda: len(sent(before)) >= 5)  # it is in the audit log once it is answered
    assert {(event.verb, event.code) for event in sent(before)} == {("patch", 200)}
    assert len(sent(before)) <= first.elector.statistics.renewals - renewals + 2  # one at the beginning, one at the end


async def test_of_many_one_creates_the_lease_and_one_makes_it_anew(
    cluster: Cluster, namespace: str, elect: Elect
) -> None:
    candidates = await asyncio.gather(*(elect(f"racer-{number}") for number in range(8)))

    def leaders() -> list[Elector]:
        return [one.elector for one in candidates if one.elector.is_leader()]

    await until(lambda: all(one.elector.holder for one in candidates))
    await until(leaders)
    leader, *others = leaders()
    assert others == []
    deleted = lease(cluster, namespace)
    cluster.kubectl("delete", "lease", NAME, f"--namespace={namespace}")
    await until(lambda: lease(cluster, namespace))
    renewals = leader.statistics.renewals
    await until(lambda: leader.statistics.renewals >= renewals + 2)
    made = lease(cluster, namespace)
    assert made["metadata"]["uid"] != deleted["metadata"]["uid"]
    assert made["spec"]["holderIdentity"] == deleted["spec"]["holderIdentity"] == leader.identity
    assert leaders() == [leader]
    assert leader.statistics.terms == 1
