"""Events, as people see them with kubectl."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.events import Recorder
from dynamic_toolset.kube.objects import ObjectReference
from tests.cluster.backends import prometheus
from tests.cluster.cluster import AuditEvent, Cluster
from tests.e2e.program import SERVICE_ACCOUNT, Program, grant
from tests.e2e.team_api import team_api
from tests.e2e.test_lifecycle import annotate, instances, tools
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Program]
MERGE = "application/merge-patch+json"
FLAPS = 3
QUICK = {"healthCheck": {"interval": "1s", "failureThreshold": 1}}


def described(cluster: Cluster, kind: str, namespace: str, name: str) -> list[tuple[str, str, str]]:
    """What ``kubectl describe`` shows of ours below "Events": type, reason and message, the oldest first.

    The cluster's own controllers tell of a Service too, such as that its endpoints could not be updated at once.
    """
    text = cluster.kubectl("describe", kind, name, f"--namespace={namespace}")
    lines = text.partition("Events:")[2].splitlines()[3:]
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=4) for line in lines]
    return [(row[0], row[1], row[4]) for row in rows if row[3] == "dynamic-toolset"]


def counts(cluster: Cluster, namespace: str, reason: str) -> list[int]:
    """The column COUNT of ``kubectl get events`` for the Events with this reason."""
    options = ("--output=wide", "--no-headers", f"--field-selector=reason={reason}")
    rows = cluster.kubectl("get", "events", f"--namespace={namespace}", *options).splitlines()
    return [int(row.split()[-2]) for row in rows if row.startswith(tuple("0123456789<"))]


def asked(cluster: Cluster, subject: Program, skip: int = 0) -> list[AuditEvent]:
    """What the program asked of Events."""
    return [one for one in cluster.audit(skip) if one.user == subject.user and one.resource == "events"]


def test_kubectl_describe_shows_what_happened_to_a_service(cluster: Cluster, namespace: str, program: Start) -> None:
    cluster.create_service(
        namespace, "broken", ports=[80], annotations={"kubernaut.io/toolset": "enabled"}
    )  # the type is missing
    with prometheus(cluster, namespace, "metrics") as backend:
        subject = program(QUICK)
        eventually(lambda: instances(subject))
        eventually(lambda: described(cluster, "service", namespace, "metrics"))
        backend.stop()
        eventually(lambda: not instances(subject))
        eventually(lambda: len(described(cluster, "service", namespace, "metrics")) == 2)
        backend.start()
        eventually(lambda: instances(subject))
        eventually(lambda: len(described(cluster, "service", namespace, "metrics")) == 3)
        first, second, third = sorted(described(cluster, "service", namespace, "metrics"), key=lambda row: row[1])
        what = f"(prometheus, http://{backend.host}:9090)"
        assert first == ("Normal", "Discovered", f"in the toolset {what}: answers as Prometheus")
        assert second == ("Normal", "Recovered", f"back in the toolset {what}: answers as Prometheus")
        assert third == ("Warning", "Unhealthy", f"not in the toolset {what}: connection refused")
    ((kind, reason, message),) = described(cluster, "service", namespace, "broken")
    assert (kind, reason) == ("Warning", "Refused")
    assert "kubernaut.io/toolset-type" in message
    published = described(cluster, "configmap", namespace, subject.config_map)
    name = f"ConfigMap {namespace}/{subject.config_map}"
    assert ("Normal", "Published", f"{name} was created") in published
    assert ("Normal", "Published", f"{name} was updated") in published


def test_a_problem_is_shown_where_it_is_to_be_solved(cluster: Cluster, namespace: str, program: Start) -> None:
    subject = program()
    eventually(subject.published)
    path = f"/api/v1/namespaces/{namespace}/configmaps/{subject.config_map}"
    cluster.api("PATCH", path, {"data": {"overrides.yaml": "toolsets: 7"}}, content_type=MERGE)
    shown = eventually(
        lambda: [one for one in described(cluster, "configmap", namespace, subject.config_map) if one[0] == "Warning"]
    )
    assert [reason for _, reason, _ in shown] == ["OverridesInvalid"]
    assert shown[0][2] == subject.problems()["OverridesInvalid"]


def test_what_flaps_is_one_series_of_each_kind(cluster: Cluster, namespace: str, program: Start) -> None:
    subject = program()
    with team_api(cluster, namespace, "orders", health_path="/"):
        eventually(lambda: tools(subject))
        for _ in range(FLAPS):
            annotate(cluster, namespace, "orders", {"kubernaut.io/toolset-port": "99999"})
            eventually(lambda: not tools(subject), every=0.1)
            annotate(cluster, namespace, "orders", {"kubernaut.io/toolset-port": None})
            eventually(lambda: tools(subject), every=0.1)
        assert len(counts(cluster, namespace, "Refused")) == 1
        eventually(lambda: counts(cluster, namespace, "Refused")[0] > 1)  # it grows while it flaps
    subject.stop()  # what is owed is written at the end
    eventually(lambda: counts(cluster, namespace, "Refused") == [FLAPS])
    assert counts(cluster, namespace, "Discovered") == [FLAPS + 1]


def test_at_rest_and_after_a_restart_nothing_is_told(cluster: Cluster, namespace: str, program: Start) -> None:
    cluster.create_service(namespace, "broken", ports=[80], annotations={"kubernaut.io/toolset": "enabled"})
    cluster.create_service(namespace, "dead", ports=[9090], labels={"app.kubernetes.io/name": "prometheus"})
    with team_api(cluster, namespace, "orders", health_path="/"):
        subject = program(QUICK)
        eventually(lambda: tools(subject))
        eventually(lambda: {one[1] for one in described(cluster, "service", namespace, "dead")} == {"Unhealthy"})
        eventually(lambda: described(cluster, "service", namespace, "broken"))
        eventually(lambda: described(cluster, "configmap", namespace, subject.config_map))
        for _ in range(2):
            subject.stop()
            seen = len(list(cluster.audit()))
            subject.start()
            eventually(lambda: {one["type"] for one in subject.events("service_listed", "service_not_listed")})
            # A change that is told shows that nothing before it was.
            annotate(cluster, namespace, "orders", {"kubernaut.io/toolset-path": "/new"})
            eventually(lambda: next(iter(tools(subject).values())).endswith("/new"))
            annotate(cluster, namespace, "orders", {"kubernaut.io/toolset-path": None})
            eventually(lambda: not next(iter(tools(subject).values())).endswith("/new"))
            eventually(lambda seen=seen: asked(cluster, subject, seen))
            reasons = {one.name.rpartition(".")[0] for one in asked(cluster, subject, seen)}
            assert reasons <= {"", subject.config_map}  # a name is in the path of a patch only
            about = [one for one in events(cluster, namespace) if one["regarding"]["kind"] == "Service"]
            assert len(about) == 3
            assert not [one for one in about if "series" in one]


def events(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """All Events of a namespace, as the API has them."""
    found: list[dict[str, Any]] = cluster.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return found


@pytest.fixture
def silenced(cluster: Cluster, namespace: str) -> Iterator[Program]:
    """A program that may not record Events."""
    subject = Program(cluster, namespace, QUICK, service_account=f"silent-{namespace}")
    role = json.loads(cluster.kubectl("get", "clusterrole", subject.service_account, "--output=json"))
    role["rules"] = [rule for rule in role["rules"] if rule.get("resources") != ["events"]]
    cluster.kubectl("replace", "--filename=-", input=json.dumps(role))
    subject.start()
    yield subject
    subject.stop()
    cluster.kubectl("delete", "clusterrole", subject.service_account)
    cluster.kubectl("delete", "clusterrolebinding", f"{subject.service_account}-{namespace}")


def test_without_the_right_everything_else_goes_on(cluster: Cluster, namespace: str, silenced: Program) -> None:
    with prometheus(cluster, namespace, "metrics") as backend:
        eventually(lambda: instances(silenced))
        backend.stop()
        eventually(lambda: not instances(silenced))
        (warning,) = eventually(lambda: silenced.events("events_forbidden"))
        assert 'cannot create resource "events" in API group "events.k8s.io"' in warning["message"]
        backend.start()
        eventually(lambda: instances(silenced))
    assert {one.code for one in asked(cluster, silenced)} == {403}
    assert len(asked(cluster, silenced)) == 1
    assert len(silenced.events("events_forbidden")) == 1
    assert not silenced.problems()
    assert not events(cluster, namespace)


def test_a_namespace_that_is_being_deleted_is_no_reason_to_stop(
    cluster: Cluster, namespace: str, make_namespace: Callable[[], str], program: Start
) -> None:
    ending = make_namespace()
    subject = program(QUICK | {"massFailure": {"hold": "0s"}})
    with (
        team_api(cluster, namespace, "orders", health_path="/") as staying,
        team_api(cluster, ending, "orders", health_path="/") as going,
    ):
        eventually(lambda: len(tools(subject)) == 2)
        path = f"/api/v1/namespaces/{ending}/services/orders"
        cluster.api("PATCH", path, {"metadata": {"finalizers": ["example.com/wait"]}}, content_type=MERGE)
        try:
            cluster.delete_namespace(ending)
            eventually(lambda: cluster.get(f"/api/v1/namespaces/{ending}")["status"]["phase"] == "Terminating")
            going.status = 500
            eventually(lambda: [one for one in asked(cluster, subject) if (one.namespace, one.code) == (ending, 403)])
            staying.status = 500
            eventually(lambda: described(cluster, "service", namespace, "orders")[-1][1] == "Unhealthy")
            assert not subject.events("events_forbidden")
        finally:
            cluster.api("PATCH", path, {"metadata": {"finalizers": None}}, content_type=MERGE)


async def test_the_api_takes_whatever_is_recorded(cluster: Cluster, namespace: str) -> None:
    """Names, notes and times as they may come, a thousand times the same, and an Event that somebody deletes."""
    grant(cluster, namespace, "toolset")
    connection = static(cluster.url, token=cluster.token(namespace, SERVICE_ACCOUNT), ca_file=cluster.ca_file)
    outcomes: Counter[str] = Counter()
    errors: list[str] = []

    def note(_reason: str, outcome: str, error: str) -> None:
        outcomes[outcome] += 1
        errors.extend([error] if error else [])

    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    one = ObjectReference("v1", "Service", "one", namespace, "uid-1", "7")
    started = len(list(cluster.audit()))
    async with Client(connection) as client:
        recorder = Recorder(client, "example.com/a-watcher", "w" * 300, on_outcome=note)
        task = asyncio.create_task(recorder.run())
        odd = [
            one,
            ObjectReference("rbac.authorization.k8s.io/v1", "Role", "system:odd", namespace),
            ObjectReference("v1", "ConfigMap", "a" * 253, namespace),
            ObjectReference("v1", "Node", f"node-of-{namespace}"),
        ]
        for regarding in odd:
            for text in ("plain", "€" * 5000, "\x00\ud800\u2028 {{ x }}", ""):
                recorder.record(regarding, "Warning", "Moved", "Move", text, one)
        await asyncio.to_thread(eventually, lambda: outcomes["created"] == 16)
        for _ in range(1000):
            recorder.record(one, "Warning", "Moved", "Move", "plain", one)
        plain = next(e for e in events(cluster, namespace) if e["regarding"].get("uid") and e.get("note") == "plain")
        where = f"{path}/{plain['metadata']['name']}"
        await asyncio.to_thread(eventually, lambda: cluster.get(where).get("series", {}).get("count") == 1001)
        cluster.api("DELETE", where)
        recorder.record(one, "Warning", "Moved", "Move", "plain", one)
        recorder.stop()
        await task
    assert not errors
    (again,) = (e for e in events(cluster, namespace) if e["regarding"].get("uid") and e.get("note") == "plain")
    assert again["series"]["count"] == 1002
    assert again["metadata"]["name"] != plain["metadata"]["name"]
    requests = Counter(e.verb for e in cluster.audit(started) if e.resource == "events" and e.is_write)
    assert requests == {"create": 17, "patch": 2, "delete": 1}
