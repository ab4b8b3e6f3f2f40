"""Several replicas: one writes, and whatever happens to it, another one goes on; never do two of them write.

Each replica has an account of its own, so that the API server's audit log tells who wrote what.
"""

import operator
import os
import re
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import combinations, dropwhile, groupby, pairwise
from typing import Any

import pytest

from tests.cluster.cluster import AuditEvent, Cluster
from tests.e2e.program import Program
from tests.e2e.team_api import TeamApi, team_api
from tests.e2e.test_lifecycle import MERGE, annotate, tools
from tests.faults.api_proxy import ApiProxy
from tests.faults.chaos import Chaos, Victim
from tests.faults.documents import check_documents, documents
from tests.faults.history import History
from tests.faults.life import Life
from tests.faults.writers import acquisitions, late_writes, succeeded
from tests.waiting import Stopwatch, eventually

pytestmark = pytest.mark.faults

Start = Callable[..., Program]

CONFIG_MAP = "kubernaut-toolset-config"

LASTS = 10.0
LEASE = {"leaseDuration": f"{LASTS:g}s", "renewDeadline": "6s", "retryPeriod": "300ms"}
"""Short, so that tests need not wait; with some seconds between who must cease and who may begin, and long enough for
who leads to keep it when the machine stands still for a moment."""


def lease_path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{CONFIG_MAP}"


class Replicas:
    """Some replicas behind one ConfigMap, and one Service that they publish."""

    def __init__(self, cluster: Cluster, namespace: str, each: Sequence[Program]) -> None:
        self.each = list(each)
        self._cluster = cluster
        self._namespace = namespace
        self._changes = 0

    def lease(self) -> dict[str, Any]:
        """Return what the Lease says; nothing if there is none."""
        found = self._cluster.get(lease_path(self._namespace)) or {"spec": {}}
        return dict(found["spec"])

    def leader(self) -> Program | None:
        """Return the replica that takes itself for the leader and is named by the Lease."""
        holder = self.lease().get("holderIdentity")
        return next((one for one in self.each if holder and leads_as(one) == holder), None)

    def wait_for_leader(self, *, other_than: Program | None = None, within: float = 40.0) -> Program:
        return eventually(lambda: (found := self.leader()) is not other_than and found, within)

    def change(self) -> str:
        """Change the Service, and return the path that the toolset must show from now on."""
        self._changes += 1
        path = f"/change/{self._changes}"
        annotate(self._cluster, self._namespace, "orders", {"kubernaut.io/toolset-path": path})
        return path

    def wait_for(self, path: str, within: float = 40.0) -> None:
        """Wait until a change is published."""
        eventually(lambda: self.endpoint().endswith(path), within)

    def endpoint(self) -> str:
        """Return where the toolset says that the Service is; empty if it does not."""
        return tools(self.each[0]).get(f"{self._namespace}/orders", "")

    def audit(self) -> list[AuditEvent]:
        return [one for one in self._cluster.audit() if one.namespace == self._namespace]

    def writes(self, subject: Program, *, since: datetime) -> list[AuditEvent]:
        """Return the successful writes of the ConfigMap by a replica that were received later than ``since``."""
        written = succeeded(self.audit(), "configmaps", CONFIG_MAP)
        return [one for one in written if one.user == subject.user and one.received > since]

    def taken(self, subject: Program, *, since: datetime) -> datetime:
        """Return when a replica sent what gave it the lease."""

        def found() -> datetime | None:
            leases = acquisitions(succeeded(self.audit(), "leases", CONFIG_MAP))
            return next((one.received for one in leases if one.user == subject.user and one.received > since), None)

        return eventually(found)  # a request is in the audit log once it is answered

    def assert_one_at_a_time(self) -> None:
        """No two ever led at the same time, by their own word, and none wrote when another one led."""
        for one, other in combinations(self.each, 2):
            for start, end in reigns(one):
                assert not [term for term in reigns(other) if term[0] < end and start < term[1]]
        self.assert_no_late_write()

    def assert_no_late_write(self) -> None:
        """Nobody wrote who did not hold the lease. What makes a write one of the holder's may be logged after it."""
        eventually(lambda: not late_writes(self.audit(), CONFIG_MAP, {one.user for one in self.each}))


def leads_as(subject: Program) -> str | None:
    """The identity under which a replica leads, as far as it knows; None for a standby."""
    last = next(reversed(subject.events("leading", "standing_by")), {"event": ""})
    return last["holder"] if last["event"] == "leading" else None


def reigns(subject: Program) -> list[tuple[datetime, datetime]]:
    """From when until when a replica took itself for the leader, since its last start."""
    found: list[tuple[datetime, datetime]] = []
    for event in subject.events("leading", "standing_by"):
        at = datetime.fromisoformat(event["timestamp"])
        found = [*found, (at, now())] if event["event"] == "leading" else [*found[:-1], (found[-1][0], at)]
    return found


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def orders(cluster: Cluster, namespace: str) -> Iterator[TeamApi]:
    """The Service's backend."""
    with team_api(cluster, namespace, "orders", health_path="/") as backend:
        yield backend


@pytest.fixture
def replicas(cluster: Cluster, namespace: str, program: Start, orders: TeamApi) -> Callable[..., Replicas]:
    """``replicas(settings)`` starts two that find the API server itself, ``replicas(settings, servers=...)`` others.

    They are ready when it returns: the Service is published, and who does not lead knows of it as well.
    """

    def start(settings: dict[str, Any] | None = None, servers: Sequence[Any] = (None, None)) -> Replicas:
        each = [
            program(settings, service_account=f"replica-{number}", server=server)
            for number, server in enumerate(servers)
        ]
        built = Replicas(cluster, namespace, each)
        built.wait_for_leader()
        for one in each:
            eventually(lambda subject=one: subject.events("service_listed"), within=20)
        eventually(built.endpoint)
        return built

    return start


# --- Handover --------------------------------------------------------------------------------------------------------


def seconds_to_the_next_write(replicas: Replicas, old: Program, end: signal.Signals) -> float:
    """End the leader, change the Service right after its end, and return how long after it another one has written.

    Moments in which the machine stood still until that was seen do not count.
    """
    old.send(end)
    eventually(lambda: old.exit_code is not None, every=0.001)
    ended, began = now(), time.monotonic()
    with Stopwatch() as watch:
        path = replicas.change()
        new = replicas.wait_for_leader(other_than=old)
        replicas.wait_for(path)
    stood_still = time.monotonic() - began - watch.seconds
    first, *_ = eventually(lambda: replicas.writes(new, since=ended))
    return (first.logged - ended).total_seconds() - stood_still


@pytest.mark.parametrize(
    ("end", "limit", "rounds"), [(signal.SIGTERM, 2.0, 5), (signal.SIGKILL, 20.0, 3)], ids=["SIGTERM", "SIGKILL"]
)
def test_the_next_one_writes_in_time_after_the_end_of_the_leader(
    replicas: Callable[..., Replicas], end: signal.Signals, limit: float, rounds: int
) -> None:
    """With the times that a lease has by default."""
    subjects = replicas()
    figures = []
    for _ in range(rounds):
        old = subjects.wait_for_leader()
        figures.append(seconds_to_the_next_write(subjects, old, end))
        old.stop() if end == signal.SIGTERM else old.kill()
        old.start()
        eventually(lambda subject=old: subject.events("service_listed"), within=20)
    print(f"{end.name} of the leader to the first write of the next: {', '.join(f'{one:.2f} s' for one in figures)}")
    assert max(figures) < limit


def test_in_the_middle_of_many_changes_the_next_one_takes_over_as_soon(
    cluster: Cluster, namespace: str, replicas: Callable[..., Replicas]
) -> None:
    """Though the next one looks every 5 s only by then, what changed just before the signal need not wait for that."""
    subjects = replicas()
    figures = []
    with Life(cluster, namespace, [CONFIG_MAP], seed=1):
        for _ in range(3):
            time.sleep(4)  # so many changes that all look every 5 s only
            old = subjects.wait_for_leader()
            path = subjects.change()
            with Stopwatch() as watch:
                old.send(signal.SIGTERM)
                subjects.wait_for(path)
            figures.append(watch.seconds)
            old.stop()
            subjects.wait_for_leader(other_than=old)
            old.start()
            eventually(lambda subject=old: subject.events("service_listed"), within=20)
    print(f"SIGTERM amid many changes to the publication of the last one: {', '.join(f'{s:.2f} s' for s in figures)}")
    assert max(figures) < 4


def test_kubectl_shows_who_leads_as_for_any_other_program(
    cluster: Cluster, namespace: str, replicas: Callable[..., Replicas]
) -> None:
    subjects = replicas()
    leader = subjects.wait_for_leader()
    head, row = cluster.kubectl("get", "lease", f"--namespace={namespace}").splitlines()
    assert head.split() == ["NAME", "HOLDER", "AGE"]
    name, holder, age = row.split()
    assert (name, holder) == (CONFIG_MAP, leads_as(leader))
    assert age[-1] == "s"
    record = subjects.lease()
    assert record["leaseDurationSeconds"] == 15
    assert record.get("leaseTransitions", 0) == 0
    for key in ("acquireTime", "renewTime"):  # MicroTime, in UTC
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record[key])
        assert timedelta() <= now() - datetime.fromisoformat(record[key]) < timedelta(minutes=1)
    acquired = record["acquireTime"]
    renewed = eventually(lambda: (later := subjects.lease())["renewTime"] > record["renewTime"] and later)
    assert renewed["acquireTime"] == acquired
    leader.stop()
    new = subjects.wait_for_leader(other_than=leader)
    taken = subjects.lease()
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == (leads_as(new), 1)
    assert taken["acquireTime"] > acquired


# --- Cut off ---------------------------------------------------------------------------------------------------------


@contextmanager
def nothing_gets_through(proxy: ApiProxy) -> Iterator[None]:
    with proxy.wire.silent():
        yield


@contextmanager
def no_request_is_answered(proxy: ApiProxy) -> Iterator[None]:
    """The API does what it is asked to, and the watches go on."""
    proxy.delay = 3600.0
    yield
    proxy.delay = 0.0


@pytest.mark.parametrize("fault", [nothing_gets_through, no_request_is_answered])
def test_a_leader_that_cannot_renew_ceases_before_another_one_begins_and_stands_by_afterwards(
    cluster: Cluster,
    replicas: Callable[..., Replicas],
    orders: TeamApi,
    fault: Callable[[ApiProxy], AbstractContextManager[None]],
) -> None:
    with ApiProxy(cluster) as one, ApiProxy(cluster) as other:
        quick = {"healthCheck": {"interval": "1s", "failureThreshold": 1}}
        subjects = replicas({"leaderElection": LEASE, **quick}, servers=(one, other))
        old = subjects.wait_for_leader()
        began = now()
        with fault(one if old is subjects.each[0] else other):
            orders.status = 500  # it sees that, and would write
            eventually(lambda: not leads_as(old))
            ceased = now()
            new = subjects.wait_for_leader(other_than=old)
            assert reigns(old)[-1][1] < subjects.taken(new, since=began)
            eventually(lambda: not subjects.endpoint())
        orders.status = 200
        path = subjects.change()
        subjects.wait_for(path)
        eventually(lambda: any(event["endpoint"].endswith(path) for event in old.events("service_listed")), within=40)
        assert subjects.leader() is new
        assert subjects.writes(old, since=ceased) == []
        subjects.assert_one_at_a_time()


# --- Paused ----------------------------------------------------------------------------------------------------------


def test_a_leader_that_was_paused_does_not_write_when_it_wakes_up(replicas: Callable[..., Replicas]) -> None:
    subjects = replicas({"leaderElection": LEASE})
    old = subjects.wait_for_leader()
    old.pause()
    paused = now()
    subjects.wait_for(subjects.change())
    published = documents(old)
    old.resume()
    eventually(lambda: not leads_as(old))
    assert documents(old) == published
    subjects.wait_for(path := subjects.change())
    eventually(lambda: any(event["endpoint"].endswith(path) for event in old.events("service_listed")))
    assert subjects.writes(old, since=paused) == []
    subjects.assert_no_late_write()


def test_what_a_paused_leader_had_on_its_way_is_refused_when_it_arrives(
    cluster: Cluster, replicas: Callable[..., Replicas]
) -> None:
    """Even if the next one had found nothing to change."""
    with ApiProxy(cluster) as one, ApiProxy(cluster) as other:
        subjects = replicas({"leaderElection": LEASE}, servers=(one, other))
        subjects.wait_for(right := subjects.change())
        old = subjects.wait_for_leader()
        proxy = one if old is subjects.each[0] else other
        with proxy.holding(verb="patch", resource="configmaps") as held:
            subjects.change()
            eventually(lambda: held)
            old.pause()
            paused = now()
            annotate(cluster, old.namespace, "orders", {"kubernaut.io/toolset-path": right})
            new = subjects.wait_for_leader(other_than=old)
            eventually(lambda: subjects.writes(new, since=paused))
        eventually(lambda: held[0].status == 409)
        assert subjects.endpoint().endswith(right)
        old.resume()
        eventually(lambda: not leads_as(old))
        subjects.wait_for(subjects.change())
        assert subjects.writes(old, since=paused) == []


# --- Nobody to ask ---------------------------------------------------------------------------------------------------


def test_while_the_api_server_is_away_nobody_leads_twice_and_afterwards_one_does(
    cluster: Cluster, replicas: Callable[..., Replicas], orders: TeamApi
) -> None:
    subjects = replicas({"healthCheck": {"interval": "1s", "failureThreshold": 1}})
    with cluster.without_apiserver():
        time.sleep(2)
        orders.status = 500
        time.sleep(10)
    leader = subjects.wait_for_leader()
    eventually(lambda: not subjects.endpoint(), within=40)
    orders.status = 200
    subjects.wait_for(subjects.change(), within=40)
    assert subjects.leader() is leader
    assert [leads_as(one) is not None for one in subjects.each].count(True) == 1
    subjects.assert_one_at_a_time()


# --- Somebody else at the Lease --------------------------------------------------------------------------------------


def test_a_lease_that_somebody_deletes_is_made_anew_and_stays_with_who_leads(
    cluster: Cluster, namespace: str, replicas: Callable[..., Replicas]
) -> None:
    subjects = replicas({"leaderElection": LEASE})
    leader = subjects.wait_for_leader()
    for _ in range(3):
        assert cluster.api("DELETE", lease_path(namespace)).status == 200
        eventually(lambda: subjects.leader() is leader, within=LASTS - 1)  # another one would have to wait for longer
        subjects.wait_for(subjects.change())
    assert [len(reigns(one)) for one in subjects.each if one is not leader] == [0]
    assert len(reigns(leader)) == 1


def test_a_stranger_in_the_lease_is_waited_for(
    cluster: Cluster, namespace: str, replicas: Callable[..., Replicas]
) -> None:
    subjects = replicas({"leaderElection": LEASE})
    old = subjects.wait_for_leader()
    transitions = subjects.lease()["leaseTransitions"]
    began = now()
    stranger = {"spec": {"holderIdentity": "stranger"}}
    assert cluster.api("PATCH", lease_path(namespace), stranger, content_type=MERGE).status == 200
    eventually(lambda: not leads_as(old))
    path = subjects.change()
    new = subjects.wait_for_leader()
    taken = subjects.taken(new, since=began)
    assert (taken - began).total_seconds() > LASTS
    subjects.wait_for(path)
    for one in subjects.each:
        assert all(write.received > taken for write in subjects.writes(one, since=began))
    assert subjects.lease()["leaseTransitions"] == transitions + 1
    subjects.assert_one_at_a_time()


# --- All at once -----------------------------------------------------------------------------------------------------

CHAOS_LEASE = {"leaseDuration": "3s", "renewDeadline": "2s", "retryPeriod": "300ms"}

MINUTES = float(os.environ.get("CHAOS_MINUTES") or 3)
SEED = os.environ.get("CHAOS_SEED")


@pytest.mark.chaos
@pytest.mark.long
def test_three_replicas_under_kills_pauses_and_cuts_never_write_two_at_a_time_and_lose_nothing(
    cluster: Cluster, namespace: str, program: Start
) -> None:
    seed = int(SEED) if SEED else secrets.randbelow(10**6)
    print(f"\nCHAOS_SEED={seed} CHAOS_MINUTES={MINUTES:g}")
    settings = {"leaderElection": CHAOS_LEASE, "massFailure": {"hold": "0s"}}
    with ExitStack() as cleanup:
        proxies = [cleanup.enter_context(ApiProxy(cluster)) for _ in range(3)]
        history = cleanup.enter_context(History(cluster, f"/api/v1/namespaces/{namespace}/configmaps", CONFIG_MAP))
        leases = cleanup.enter_context(History(cluster, *lease_path(namespace).rsplit("/", 1)))
        control = program(settings, config_map="control", service_account="control")
        victims = [
            Victim(program(settings, service_account=f"replica-{number}", server=proxy), proxy)
            for number, proxy in enumerate(proxies)
        ]
        subjects = Replicas(cluster, namespace, [victim.program for victim in victims])
        subjects.wait_for_leader()
        chaos = Chaos(victims, subjects.leader, seed)
        with Life(cluster, namespace, [CONFIG_MAP, "control"], seed=seed, pause=0.8) as life:
            chaos.rage(60 * MINUTES)
        leader = subjects.wait_for_leader()
        eventually(lambda: documents(leader) == documents(control), within=60)
        versions = history.complete()
        records = [version["spec"] for version in leases.complete() if version]

    # What the audit log says of writers is the whole truth: there is no version that it does not know.
    eventually(lambda: len(versions) == len(succeeded(subjects.audit(), "configmaps", CONFIG_MAP)))
    audit = subjects.audit()
    users = {one.user for one in subjects.each}
    late = late_writes(audit, CONFIG_MAP, users)
    tried = Counter(one.code for one in audit if one.user in users and one.is_write and one.resource == "configmaps")
    figures = {
        "elections": len(list(groupby(one["holderIdentity"] for one in records if one["holderIdentity"]))),
        **chaos.count,
        "writes": sum(count for code, count in tried.items() if code < 300),
        "writes refused": sum(count for code, count in tried.items() if code >= 300),
        "writes that came late": len(late),
        "versions of the ConfigMap": len(versions),
    }
    print(", ".join(f"{name}: {figure}" for name, figure in figures.items()))

    assert figures["elections"] > 3 * MINUTES, "that was no chaos"
    assert not stolen(records)
    assert not [one for one in late if one.second or not chaos.excuses(one.write)]
    assert_loadable(versions)
    assert overrides(versions) == life.overrides[CONFIG_MAP]


def stolen(records: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return where the Lease went from one to another who had not waited for it to run out."""
    return [
        (before, after)
        for before, after in pairwise(records)
        if before["holderIdentity"] not in ("", after["holderIdentity"])
        and after["holderIdentity"]
        and datetime.fromisoformat(after["renewTime"]) - datetime.fromisoformat(before["renewTime"])
        < timedelta(seconds=before["leaseDurationSeconds"])
    ]


def assert_loadable(versions: list[dict[str, Any] | None]) -> None:
    """What is published can be read by an agent at any time, and never goes."""
    check = cache(lambda data: check_documents(dict(data)))
    published = [check(frozenset(one["data"].items())) if one else {} for one in versions]
    assert all(dropwhile(operator.not_, published))


def overrides(versions: list[dict[str, Any] | None]) -> list[str | None]:
    """What the overrides said, one after the other."""
    texts = (one["data"].get("overrides.yaml") if one else None for one in versions)
    return [text for text, _ in groupby(dropwhile(operator.not_, texts))]
