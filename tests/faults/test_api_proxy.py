"""The proxy for the API does what it says: a proxy that does nothing would let every fault test pass."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster import http
from tests.cluster.cluster import Cluster
from tests.cluster.http import Answer
from tests.faults.api_proxy import ApiProxy, doubled, event, halved, lost, status, withheld
from tests.waiting import eventually

pytestmark = pytest.mark.faults


@pytest.fixture
def ask(cluster: Cluster, proxy: ApiProxy) -> Callable[..., Answer]:
    """Send a request through the proxy, as the administrator."""

    def send(method: str, path: str, body: Any = None, token: str = cluster.admin_token) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        return http.request(method, proxy.url + path, body=data, headers=headers, tls=tls(proxy))

    return send


@pytest.fixture
def watch(cluster: Cluster, proxy: ApiProxy, namespace: str) -> Iterator[Callable[[], HTTPResponse]]:
    """Open a watch of the namespace's Services through the proxy, whose lines can be read."""
    connections = []

    def open_watch() -> HTTPResponse:
        version = cluster.get(f"/api/v1/namespaces/{namespace}/services")["metadata"]["resourceVersion"]
        address = urlsplit(proxy.url)
        connection = HTTPSConnection(str(address.hostname), address.port, timeout=5, context=tls(proxy))
        connections.append(connection)
        path = f"/api/v1/namespaces/{namespace}/services?watch=true&resourceVersion={version}"
        connection.request("GET", path, headers={"Authorization": f"Bearer {cluster.admin_token}"})
        return connection.getresponse()

    yield open_watch
    for connection in connections:
        connection.close()


def tls(proxy: ApiProxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=proxy.ca_file)


def named(line: bytes) -> str:
    name: str = json.loads(line)["object"]["metadata"]["name"]
    return name


def test_it_passes_on_what_is_asked_and_answered_with_the_callers_credentials(
    cluster: Cluster, proxy: ApiProxy, namespace: str, ask: Callable[..., Answer]
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a.b"}, "data": {"k": "v"}}
    assert ask("POST", path, body).status == 201
    assert ask("POST", path, body).status == 409
    assert ask("GET", f"{path}/a.b").json["data"] == {"k": "v"}
    assert ask("GET", f"{path}?fieldSelector=metadata.name%3Da.b").json["items"][0]["metadata"]["name"] == "a.b"
    assert ask("GET", path, token="nobody").status == 401
    assert ask("DELETE", f"{path}/a.b").status == 200
    assert cluster.get(f"{path}/a.b") is None
    assert [(one.verb, one.resource, one.namespace, one.name, one.status) for one in proxy.requests] == [
        ("create", "configmaps", namespace, "", 201),
        ("create", "configmaps", namespace, "", 409),
        ("get", "configmaps", namespace, "a.b", 200),
        ("list", "configmaps", namespace, "", 200),
        ("list", "configmaps", namespace, "", 401),
        ("delete", "configmaps", namespace, "a.b", 200),
    ]
    assert proxy.requests[4].token == "nobody"


def test_requests_are_read_as_the_audit_log_reads_them(
    cluster: Cluster, proxy: ApiProxy, namespace: str, ask: Callable[..., Answer]
) -> None:
    before = len(list(cluster.audit()))
    for method, path in (
        ("GET", "/api/v1/services"),
        ("GET", f"/api/v1/namespaces/{namespace}"),
        ("GET", "/api/v1/namespaces"),
        ("GET", f"/api/v1/namespaces/{namespace}/services/x"),
        ("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/x"),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices"),
        ("GET", f"/api/v1/namespaces/{namespace}/services/x/status"),
        ("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/x"),
        ("PATCH", f"/api/v1/namespaces/{namespace}/configmaps/x"),
    ):
        ask(method, path)
    expected = [(one.verb, one.resource, one.name) for one in proxy.requests]

    def logged() -> list[tuple[str, str, str]]:
        return [(one.verb, one.resource, one.name) for one in cluster.audit(before) if one.user == "admin"]

    eventually(lambda: len(logged()) >= len(expected))
    assert logged() == expected


def test_a_watch_comes_through_line_by_line(
    proxy: ApiProxy, service: Callable[..., Any], watch: Callable[[], HTTPResponse]
) -> None:
    lines = watch()
    for name in ("a", "b"):
        service(name, ports=[80])
        assert named(lines.readline()) == name
    assert [one.verb for one in proxy.requests] == ["watch"]


def test_every_answer_can_be_delayed(proxy: ApiProxy, ask: Callable[..., Answer]) -> None:
    proxy.delay = 0.5
    started = time.monotonic()
    assert ask("GET", "/api/v1/services").status == 200
    assert time.monotonic() - started >= 0.5


def test_some_requests_can_be_refused_some_times(proxy: ApiProxy, ask: Callable[..., Answer]) -> None:
    with proxy.refusing(503, verb="list", resource="services", times=2) as refused:
        assert ask("GET", "/api/v1/configmaps").status == 200
        assert [ask("GET", "/api/v1/services").status for _ in range(3)] == [503, 503, 200]
        assert len(refused) == 2
    with proxy.refusing(429, where=lambda request: "continue" in request.query):
        assert ask("GET", "/api/v1/services").status == 200
        answer = ask("GET", "/api/v1/services?continue=x")
        assert (answer.status, answer.json["reason"]) == (429, "TooManyRequests")
    assert ask("GET", "/api/v1/services").status == 200
    assert [one.status for one in proxy.asked(verb="list", resource="services")] == [503, 503, 200, 200, 429, 200]


def test_a_request_can_be_held(cluster: Cluster, proxy: ApiProxy, namespace: str, ask: Callable[..., Answer]) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}
    with proxy.holding(verb="create") as held:
        asking = threading.Thread(target=ask, args=["POST", path, body])
        asking.start()
        eventually(lambda: held)
        assert cluster.get(f"{path}/late") is None
    asking.join()
    assert cluster.get(f"{path}/late")


def test_an_answer_can_be_lost_or_break_in_the_middle(
    cluster: Cluster, proxy: ApiProxy, namespace: str, ask: Callable[..., Answer]
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    with proxy.editing(lost, verb="create"), pytest.raises(ConnectionError):
        ask("POST", path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "done"}})
    assert cluster.get(f"{path}/done")
    with proxy.editing(halved, verb="list"), pytest.raises((OSError, HTTPException)):
        ask("GET", path)
    assert ask("GET", path).status == 200


def test_a_watch_can_be_changed_on_its_way(
    proxy: ApiProxy, service: Callable[..., Any], watch: Callable[[], HTTPResponse]
) -> None:
    with proxy.editing(doubled, verb="watch"):
        twice = watch()
    with proxy.editing(halved, verb="watch"):
        half = watch()
    with proxy.editing(withheld, verb="watch"):
        nothing = watch()
    service("a", ports=[80])
    assert [named(twice.readline()) for _ in range(2)] == ["a", "a"]
    with pytest.raises((ConnectionResetError, IncompleteRead)):
        half.read()
    nothing.fp.raw._sock.settimeout(0.5)  # type: ignore[union-attr]
    with pytest.raises(TimeoutError):
        nothing.readline()


def test_a_line_can_be_put_into_an_open_watch(
    proxy: ApiProxy, service: Callable[..., Any], watch: Callable[[], HTTPResponse]
) -> None:
    lines = watch()
    assert proxy.inject(event("ERROR", status(410)), resource="configmaps") == 0
    assert proxy.inject(event("ERROR", status(410)), resource="services") == 1
    assert json.loads(lines.readline())["object"]["code"] == 410
    service("a", ports=[80])
    assert named(lines.readline()) == "a"


def test_lists_can_be_cut_into_pages(
    proxy: ApiProxy, namespace: str, service: Callable[..., Any], ask: Callable[..., Answer]
) -> None:
    for name in ("a", "b", "c"):
        service(name, ports=[80])
    proxy.page_size = 2
    path = f"/api/v1/namespaces/{namespace}/services"
    page = ask("GET", f"{path}?limit=500").json
    assert [item["metadata"]["name"] for item in page["items"]] == ["a", "b"]
    page = ask("GET", f"{path}?limit=500&continue={page['metadata']['continue']}").json
    assert [item["metadata"]["name"] for item in page["items"]] == ["c"]


def test_where_there_is_no_api_server_a_connection_breaks(
    cluster: Cluster, proxy: ApiProxy, ask: Callable[..., Answer]
) -> None:
    cluster.stop_apiserver()
    try:
        with pytest.raises(ConnectionError):
            ask("GET", "/api/v1/services")
    finally:
        cluster.start_apiserver()
    assert ask("GET", "/api/v1/services").status == 200


def test_its_wire_can_break_what_it_carries(
    proxy: ApiProxy, watch: Callable[[], HTTPResponse], ask: Callable[..., Answer]
) -> None:
    lines = watch()
    proxy.wire.cut()
    with pytest.raises((ConnectionResetError, IncompleteRead)):
        lines.read()
    with proxy.wire.refusing(), pytest.raises(ConnectionRefusedError):
        ask("GET", "/api/v1/services")
    assert ask("GET", "/api/v1/services").status == 200
