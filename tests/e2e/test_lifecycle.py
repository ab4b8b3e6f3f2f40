"""Services come, change and go; the toolset follows."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.cluster.backends import alertmanager, prometheus, victoriametrics
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Program]
MERGE = "application/merge-patch+json"


def instances(program: Program) -> dict[str, str]:
    """The instances of prometheus/metrics that are published: name -> URL."""
    document = program.document("custom_toolset.yaml") or {}
    config = document.get("toolsets", {}).get("prometheus/metrics", {}).get("config", {})
    return {one["name"]: one["prometheus_url"] for one in config.get("instances", [])}


def toolsets(program: Program) -> set[str]:
    return set((program.document("custom_toolset.yaml") or {}).get("toolsets", {}))


def tools(program: Program) -> dict[str, str]:
    """The generic document: name of the Service -> endpoint."""
    document = program.document("toolset.json") or {"tools": []}
    return {f"{one['namespace']}/{one['metadata']['service']}": one["endpoint"] for one in document["tools"]}


def annotate(cluster: Cluster, namespace: str, name: str, annotations: dict[str, str | None]) -> None:
    path = f"/api/v1/namespaces/{namespace}/services/{name}"
    answer = cluster.api("PATCH", path, {"metadata": {"annotations": annotations}}, content_type=MERGE)
    assert answer.status == 200, answer


def test_a_service_is_created_deleted_and_created_again(cluster: Cluster, namespace: str, program: Start) -> None:
    subject = program()
    for _ in range(2):
        with prometheus(cluster, namespace, "metrics") as backend:
            url = f"http://{backend.host}:9090"
            eventually(lambda expected=url: instances(subject) == {f"{namespace}.metrics": expected})
        eventually(lambda: toolsets(subject) and not instances(subject))
    assert {"kubernetes/core", "kubernetes/logs"} <= toolsets(subject)


def test_a_backend_that_stops_answering_leaves_and_comes_back(cluster: Cluster, namespace: str, program: Start) -> None:
    quick = {"healthCheck": {"interval": "1s", "failureThreshold": 1}}
    with prometheus(cluster, namespace, "metrics") as backend:
        subject = program(quick)
        eventually(lambda: instances(subject))
        backend.stop()
        eventually(lambda: not instances(subject))
        backend.start()
        eventually(lambda: instances(subject))


def test_several_services_of_one_kind_are_instances_and_a_headless_twin_is_not(
    cluster: Cluster, namespace: str, program: Start
) -> None:
    with (
        prometheus(cluster, namespace, "b-prometheus"),
        prometheus(cluster, namespace, "a-prometheus"),
        victoriametrics(cluster, namespace, "c-victoria"),
        alertmanager(cluster, namespace, "alerts"),
    ):
        cluster.create_service(
            namespace,
            "a-prometheus-headless",
            ports=[9090],
            labels={"app.kubernetes.io/name": "prometheus"},
            selector={"app.kubernetes.io/instance": "a-prometheus"},
            clusterIP="None",
        )
        subject = program()
        names = [f"{namespace}.{name}" for name in ("a-prometheus", "b-prometheus", "c-victoria")]
        eventually(lambda: list(instances(subject)) == names)
        eventually(lambda: f"alertmanager-{namespace}-alerts" in toolsets(subject))
        assert set(tools(subject)) == {
            f"{namespace}/{n}" for n in ("a-prometheus", "b-prometheus", "c-victoria", "alerts")
        }


def test_with_require_annotations_a_label_is_not_enough(cluster: Cluster, namespace: str, program: Start) -> None:
    with prometheus(cluster, namespace, "metrics"), team_api(cluster, namespace, "orders", health_path="/"):
        subject = program({"requireAnnotations": True})
        eventually(lambda: set(tools(subject)) == {f"{namespace}/orders"})
        annotate(cluster, namespace, "metrics", {"kubernaut.io/toolset": "enabled"})
        eventually(lambda: set(tools(subject)) == {f"{namespace}/metrics", f"{namespace}/orders"})


def test_a_custom_type_is_an_http_toolset(cluster: Cluster, namespace: str, program: Start) -> None:
    with team_api(cluster, namespace, "orders", type_name="order-desk", path="/api", health_path="/healthz"):
        subject = program()
        eventually(lambda: f"order-desk-{namespace}-orders" in toolsets(subject))
        entry = subject.document("custom_toolset.yaml")["toolsets"][f"order-desk-{namespace}-orders"]
        assert entry["type"] == "http"
        assert entry["config"]["endpoints"][0]["hosts"] == [f"http://orders.{namespace}.svc.cluster.local:8080"]
        assert entry["config"]["endpoints"][0]["methods"] == ["GET"]
        assert tools(subject) == {f"{namespace}/orders": f"http://orders.{namespace}.svc.cluster.local:8080/api"}


def test_a_changed_annotation_is_followed(cluster: Cluster, namespace: str, program: Start) -> None:
    with team_api(cluster, namespace, "orders", path="/v1", health_path="/"):
        subject = program()
        base = f"http://orders.{namespace}.svc.cluster.local:8080"
        eventually(lambda: tools(subject) == {f"{namespace}/orders": f"{base}/v1"})
        annotate(cluster, namespace, "orders", {"kubernaut.io/toolset-path": "/v2"})
        eventually(lambda: tools(subject) == {f"{namespace}/orders": f"{base}/v2"})
        annotate(cluster, namespace, "orders", {"kubernaut.io/toolset": "disabled"})
        eventually(lambda: tools(subject) == {})
        annotate(cluster, namespace, "orders", {"kubernaut.io/toolset": "true"})
        eventually(lambda: tools(subject) == {f"{namespace}/orders": f"{base}/v2"})


def test_after_rapid_creations_and_deletions_the_last_state_counts(
    cluster: Cluster, namespace: str, program: Start
) -> None:
    subject = program()
    eventually(lambda: toolsets(subject))
    with team_api(cluster, namespace, "stays", health_path="/") as stays:
        address = stays.service["spec"]["clusterIP"]
        path = f"/api/v1/namespaces/{namespace}/services/stays"
        body = {key: stays.service[key] for key in ("apiVersion", "kind", "spec")}
        body["metadata"] = {"name": "stays", "annotations": stays.service["metadata"]["annotations"]}
        for _ in range(20):
            assert cluster.api("DELETE", path).status == 200
            created = cluster.api("POST", path.removesuffix("/stays"), body)
            assert created.status == 201, created
            assert created.json["spec"]["clusterIP"] == address
            gone = cluster.create_service(
                namespace,
                "goes",
                ports=[8080],
                annotations={"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": "orders"},
            )
            assert cluster.api("DELETE", f"{path.removesuffix('/stays')}/{gone['metadata']['name']}").status == 200
        eventually(lambda: set(tools(subject)) == {f"{namespace}/stays"}, within=20)


def test_a_namespace_that_is_left_out_stays_out(
    cluster: Cluster, make_namespace: Callable[[], str], namespace: str, program: Start
) -> None:
    other = make_namespace()
    with team_api(cluster, namespace, "seen", health_path="/"), team_api(cluster, other, "unseen", health_path="/"):
        subject = program({"namespaces": {"include": [namespace]}})
        eventually(lambda: set(tools(subject)) == {f"{namespace}/seen"})
        second = make_namespace()
        everywhere_but_there = program({"namespaces": {"exclude": [other]}}, namespace=second)
        eventually(lambda: f"{namespace}/seen" in tools(everywhere_but_there))
        assert f"{other}/unseen" not in tools(everywhere_but_there)


def test_a_silent_backend_holds_nobody_up(
    cluster: Cluster, namespace: str, program: Start, service: Callable[..., Any]
) -> None:
    annotations = {"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": "orders"}
    with ExitStack() as cleanup:
        for number in range(5):
            silent = service(f"silent-{number}", ports=[8080], annotations=annotations)
            Pods(cluster, silent)
            # Connections to it are taken, and nobody ever says anything: a check of it takes a minute.
            cleanup.enter_context(socket.create_server((silent["spec"]["clusterIP"], 8080)))
        cleanup.enter_context(team_api(cluster, namespace, "good", health_path="/"))
        subject = program({"healthCheck": {"timeout": "60s"}})
        eventually(lambda: set(tools(subject)) == {f"{namespace}/good"}, within=20)


def test_a_restart_neither_drops_nor_revives(cluster: Cluster, namespace: str, program: Start) -> None:
    with team_api(cluster, namespace, "orders", health_path="/") as api:
        subject = program()
        eventually(lambda: tools(subject))
        version = subject.published()["metadata"]["resourceVersion"]
        subject.stop()
        requests = api.requests
        subject.start()
        # Known to be well again, and said so: what that would have written is written.
        eventually(lambda: api.requests > requests)
        eventually(lambda: [one for one in subject.events("service_listed") if one["health"] == "healthy"], within=20)
        assert subject.published()["metadata"]["resourceVersion"] == version


def test_it_goes_on_when_the_api_server_comes_back(cluster: Cluster, namespace: str, program: Start) -> None:
    with team_api(cluster, namespace, "orders", health_path="/"):
        subject = program()
        eventually(lambda: tools(subject))
        cluster.stop_apiserver()
        cluster.start_apiserver()
        assert set(tools(subject)) == {f"{namespace}/orders"}
        annotate(cluster, namespace, "orders", {"kubernaut.io/toolset-path": "/later"})
        eventually(lambda: next(iter(tools(subject).values())).endswith("/later"), within=40)
