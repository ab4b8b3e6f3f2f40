"""The harness proves itself: what the other end-to-end tests take for granted is so."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import http
from tests.cluster.backends import alertmanager, prometheus, victoriametrics
from tests.cluster.cluster import APPLY, AuditEvent, Cluster, KubectlFailed
from tests.cluster.dns import under_cluster_dns
from tests.cluster.holmesgpt import Loaded
from tests.cluster.pods import Pods, ready_endpoints
from tests.cluster.process import Process, StartFailed
from tests.e2e.program import SERVICE_ACCOUNT, grant
from tests.waiting import eventually

pytestmark = pytest.mark.e2e


def test_a_service_can_be_dialled_at_its_cluster_ip_and_by_its_dns_name(cluster: Cluster, namespace: str) -> None:
    with prometheus(cluster, namespace) as backend:
        backend.wait_for_samples()
        url = f"http://{backend.host}:{backend.port}/api/v1/query?query=up"
        script = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=5).read().decode())"
        command = under_cluster_dns(cluster, [sys.executable, "-c", script])
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["data"]["result"][0]["value"][1] == "1"


def test_holmesgpt_loads_a_file_and_asks_a_backend_by_its_dns_name(
    cluster: Cluster, namespace: str, holmesgpt: Callable[..., Loaded]
) -> None:
    with prometheus(cluster, namespace) as backend:
        backend.wait_for_samples()
        config = {"prometheus_url": f"http://{backend.host}:{backend.port}"}
        document = {"toolsets": {"prometheus/metrics": {"enabled": True, "config": config}}}
        loaded = holmesgpt(
            yaml.safe_dump(document),
            expect={"prometheus/metrics": "enabled", "grafana/loki": "absent"},
            tool="execute_prometheus_instant_query",
            parameters={"query": "up", "description": "Is it up?"},
        )
        assert loaded.answer.startswith("status=success")
        assert '"1"' in loaded.answer

        backend.stop()
        with pytest.raises(AssertionError, match="prometheus/metrics is failed, not enabled"):
            holmesgpt(yaml.safe_dump(document), expect={"prometheus/metrics": "enabled"})


def test_a_backend_that_is_stopped_refuses_connections_and_can_come_back(cluster: Cluster, namespace: str) -> None:
    with victoriametrics(cluster, namespace) as backend:
        assert http.answers(f"{backend.url}/health")
        backend.stop()
        assert not http.answers(f"{backend.url}/health")
        backend.start()
        assert http.answers(f"{backend.url}/health")


def test_alertmanager_runs_behind_a_service_that_goes_with_it(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services/alerts"
    with alertmanager(cluster, namespace, "alerts", annotations={"kubernaut.io/toolset": "enabled"}) as backend:
        assert http.answers(f"{backend.url}/api/v2/status")
        assert cluster.get(path)["metadata"]["annotations"] == {"kubernaut.io/toolset": "enabled"}
    assert cluster.get(path) is None
    assert not http.answers(f"{backend.url}/api/v2/status")


def test_a_taken_address_is_named(cluster: Cluster, namespace: str) -> None:
    with prometheus(cluster, namespace) as backend, pytest.raises(StartFailed, match=r"9090 cannot be listened on"):
        backend.start()


def test_the_role_allows_what_is_documented(cluster: Cluster, namespace: str) -> None:
    grant(cluster, namespace, "kubernaut-toolset-config")
    token = cluster.token(namespace, SERVICE_ACCOUNT)
    config_maps = f"/api/v1/namespaces/{namespace}/configmaps"
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    def apply(path: str, version: str, kind: str) -> int:
        body = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": path.rpartition("/")[2], "labels": {"a": "b"}},
        }
        query = "?fieldManager=dynamic-toolset&force=true"
        return cluster.api("PATCH", path + query, body, token=token, content_type=APPLY).status

    def get(path: str) -> int:
        return cluster.api("GET", path, token=token).status

    for collection, version, kind in (
        (config_maps, "v1", "ConfigMap"),
        (leases, "coordination.k8s.io/v1", "Lease"),
    ):
        assert apply(f"{collection}/kubernaut-toolset-config", version, kind) == 201
        assert apply(f"{collection}/kubernaut-toolset-config", version, kind) == 200
        assert apply(f"{collection}/somebody-elses", version, kind) == 403
        assert get(f"{collection}?fieldSelector=metadata.name=kubernaut-toolset-config") == 200
        assert get(collection) == 403
    for readable in ("/api/v1/services", "/api/v1/namespaces", "/apis/discovery.k8s.io/v1/endpointslices"):
        assert get(readable) == 200
    for secret in ("/api/v1/secrets", "/api/v1/pods", "/api/v1/configmaps"):
        assert get(secret) == 403
    assert cluster.api("DELETE", f"{config_maps}/kubernaut-toolset-config", token=token).status == 403


def test_the_audit_log_tells_who_wrote_what(cluster: Cluster, namespace: str, service: Callable[..., Any]) -> None:
    grant(cluster, namespace, "kubernaut-toolset-config")
    before = len(list(cluster.audit()))
    service("grafana", ports=[3000])
    cluster.api("GET", f"/api/v1/namespaces/{namespace}/services", token=cluster.token(namespace, SERVICE_ACCOUNT))

    def mine() -> list[tuple[str, str, str, str, bool]]:
        events = (event for event in cluster.audit(skip=before) if event.namespace == namespace)
        return [(event.user, event.verb, event.resource, event.name, event.is_write) for event in events]

    user = f"system:serviceaccount:{namespace}:{SERVICE_ACCOUNT}"
    eventually(lambda: (user, "list", "services", "", False) in mine())
    assert ("admin", "create", "services", "grafana", True) in mine()


def test_the_audit_log_tells_when_and_from_which_program(cluster: Cluster, namespace: str) -> None:
    before = len(list(cluster.audit()))
    started = datetime.now(UTC)
    cluster.kubectl("get", "services", f"--namespace={namespace}")
    ended = datetime.now(UTC)

    def listed() -> list[AuditEvent]:
        events = cluster.audit(skip=before)
        return [event for event in events if (event.verb, event.namespace) == ("list", namespace)]

    (event,) = eventually(listed)
    assert started <= event.received <= event.logged <= ended
    assert event.user_agent.startswith("kubectl/")
    assert cluster.api("GET", f"/api/v1/namespaces/{namespace}/services", token="nobody").status == 401
    eventually(lambda: [(event.user, event.code) for event in listed()][1:] == [("", 401)])


def test_a_service_has_endpoints_as_its_pods_are_ready(cluster: Cluster, service: Callable[..., Any]) -> None:
    pods = Pods(cluster, service("orders", ports=[8080]), replicas=2)
    assert pods.ready == 2
    pods.each[0].set_ready(False)
    pods.wait_for(1)
    pods.each[0].set_ready(True)
    pods.wait_for(2)
    pods.delete()
    pods.wait_for(0)


def test_one_pod_stands_behind_several_services(cluster: Cluster, namespace: str, service: Callable[..., Any]) -> None:
    first, _ = (service(name, ports=[8080], selector={"app": "both"}) for name in ("first", "second"))
    Pods(cluster, first)
    eventually(lambda: ready_endpoints(cluster, namespace, "second") == 1)


def test_a_rolling_restart_never_leaves_a_service_without_endpoints(
    cluster: Cluster, namespace: str, service: Callable[..., Any]
) -> None:
    pods = Pods(cluster, service("orders", ports=[8080]), replicas=2)
    path = f"/api/v1/namespaces/{namespace}/pods"
    before = {item["metadata"]["uid"] for item in cluster.get(path)["items"]}
    pods.restart()
    assert pods.ready == 2
    assert not before & {item["metadata"]["uid"] for item in cluster.get(path)["items"]}


def test_etcd_can_hang_and_can_be_gone_and_comes_back_with_its_objects(
    cluster: Cluster, namespace: str, service: Callable[..., Any]
) -> None:
    service("kept", ports=[80])
    path = f"/api/v1/namespaces/{namespace}/services/kept"

    def is_there() -> bool:
        try:
            return cluster.api("GET", path, timeout=1).status == 200
        except OSError:
            return False

    for without_data in (cluster.with_hanging_etcd, cluster.without_etcd):
        eventually(is_there)
        with without_data():
            assert not is_there()
        eventually(is_there, within=30)


def test_the_api_comes_back_with_its_objects_under_the_same_address(
    cluster: Cluster, service: Callable[..., Any]
) -> None:
    created = service("loki", ports=[3100])
    path = f"/api/v1/namespaces/{created['metadata']['namespace']}/services/loki"
    cluster.stop_apiserver()
    with pytest.raises(OSError, match="refused"):
        cluster.get(path)
    cluster.start_apiserver()
    assert cluster.get(path)["metadata"]["uid"] == created["metadata"]["uid"]


def test_kubectl_says_what_went_wrong(cluster: Cluster) -> None:
    with pytest.raises(KubectlFailed, match=r'kubectl get service nothing: .*"nothing" not found'):
        cluster.kubectl("get", "service", "nothing")


def test_a_cluster_starts_from_a_snapshot_of_another(tmp_path: Path) -> None:
    with Cluster() as first:
        address = first.create_service("default", "kept", ports=[80])["spec"]["clusterIP"]
        first.snapshot(tmp_path / "snapshot")
    with Cluster(data=tmp_path / "snapshot") as second:
        assert second.get("/api/v1/namespaces/default/services/kept")["spec"]["clusterIP"] == address
        assert second.create_service("default", "new", ports=[80])["spec"]["clusterIP"] != address
    with pytest.raises(ValueError, match=r"made with the Service range"):
        Cluster(data=tmp_path / "snapshot", service_range="127.200.0.0/16")


def test_two_clusters_share_a_machine_but_not_a_service_range(cluster: Cluster) -> None:
    if cluster.dns_missing:
        raise cluster.dns_missing
    with Cluster() as other:
        assert other.service_range != cluster.service_range
    with (
        pytest.raises(StartFailed, match=r":53 is in use: another cluster"),
        Cluster(service_range=cluster.service_range),
    ):
        pass


def test_a_process_dies_with_the_test_run(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\n"
        "from tests.cluster.process import Process\n"
        f"process = Process(['sh', '-c', 'echo running; exec sleep 60'], pathlib.Path('{tmp_path}/log'))\n"
        "process.wait_until(lambda: 'running' in process.output, within=10)\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    child = int(result.stdout)
    eventually(lambda: not _is_running(child))


def test_a_program_that_cannot_start_is_shown_with_its_log(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo port taken; exit 3"], tmp_path / "log")
    with pytest.raises(StartFailed, match=r"sh ended with 3:\nport taken"):
        process.wait_until(lambda: False, within=10)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
