"""Pods that nobody runs, and what the EndpointSlice controller makes of them.

No kubelet is there: what one would report of a Pod, a test says. What is dialled is the Service's ClusterIP, so the
address of a Pod is made up, unless the API server itself is to dial it (``behind``)::

    service = cluster.create_service("shop", "orders", ports=[8080])
    pods = Pods(cluster, service, replicas=2)
    pods.restart()  # a rolling one
    pods.set_ready(False)
"""

import itertools
import socket
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from tests.cluster.cache import Missing
from tests.cluster.cluster import NODE, Cluster
from tests.waiting import eventually

# The controller that makes the slices has an API server and an etcd that may have been away just now.
_SLICE_DEADLINE = 60.0
_MERGE_PATCH = "application/merge-patch+json"

_addresses: Iterator[IPv4Address] = (IPv4Address("10.0.0.0") + number for number in itertools.count(1))


class Pod:
    """One Pod, ready as soon as it is created."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, labels: Mapping[str, str], address: str | None = None
    ) -> None:
        self.name = name
        self._address = address
        self._cluster = cluster
        self._collection = f"/api/v1/namespaces/{namespace}/pods"
        self._path = f"{self._collection}/{name}"
        self._labels = dict(labels)

    def create(self) -> None:
        """Create the Pod, under an address that no other had unless one is given, and report it ready."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": self._labels},
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "example.com/nothing"}]},
        }
        answer = self._cluster.api("POST", self._collection, pod)
        assert answer.status == 201, answer
        address = self._address or str(next(_addresses))
        self._report({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]} | _ready(True))

    def set_ready(self, ready: bool) -> None:
        """Report what the Pod's readiness probe would have found."""
        self._report(_ready(ready))

    def delete(self) -> None:
        """Delete the Pod at once: no kubelet would ever confirm its orderly end."""
        answer = self._cluster.api("DELETE", f"{self._path}?gracePeriodSeconds=0")
        assert answer.status in (200, 404), answer

    def _report(self, status: Mapping[str, Any]) -> None:
        answer = self._cluster.api("PATCH", f"{self._path}/status", {"status": status}, content_type=_MERGE_PATCH)
        assert answer.status == 200, answer


class Pods:
    """The ready Pods behind a Service that has a selector; made here, and in its EndpointSlices when this returns.

    One Pod may stand behind many Services: those of the same selector.

    Raises Missing where the cluster has no controllers.
    """

    def __init__(self, cluster: Cluster, service: Mapping[str, Any], replicas: int = 1) -> None:
        if cluster.controllers_missing:
            raise cluster.controllers_missing
        self._cluster = cluster
        self._namespace: str = service["metadata"]["namespace"]
        self._service: str = service["metadata"]["name"]
        labels = service["spec"]["selector"]
        self.each = [Pod(cluster, self._namespace, f"{self._service}-{n}", labels) for n in range(replicas)]
        for pod in self.each:
            pod.create()
        self.wait_for(replicas)

    @property
    def ready(self) -> int:
        """How many ready endpoints the Service's EndpointSlices have."""
        return ready_endpoints(self._cluster, self._namespace, self._service)

    def wait_for(self, ready: int) -> None:
        """Wait until the EndpointSlices have so many ready endpoints."""
        eventually(lambda: self.ready == ready, within=_SLICE_DEADLINE)

    def set_ready(self, ready: bool) -> None:
        """Make all Pods ready or unready, and wait until the EndpointSlices say so."""
        for pod in self.each:
            pod.set_ready(ready)
        self.wait_for(len(self.each) if ready else 0)

    def restart(self) -> None:
        """Replace one Pod after the other, as a StatefulSet does: the next when the last is ready."""
        for pod in self.each:
            pod.delete()
            self.wait_for(len(self.each) - 1)
            pod.create()
            self.wait_for(len(self.each))

    def delete(self) -> None:
        """Delete all Pods."""
        for pod in self.each:
            pod.delete()


def own_address() -> str:
    """Return an address of this machine that the API server may proxy to: it refuses loopback. Raises Missing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but finds out which address would be used
        except OSError:
            raise Missing(
                "an address besides loopback", "connect the machine, or its container, to a network"
            ) from None
        address: str = probe.getsockname()[0]
    return address


def behind(cluster: Cluster, service: Mapping[str, Any], address: str, port: int) -> Pod:
    """Make a Pod with a real address the one endpoint of a Service, for the API server's proxy.

    That looks at Endpoints, which no controller makes here, and dials only what belongs to a Pod.
    """
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    pod = Pod(cluster, namespace, f"{name}-0", service["spec"]["selector"], address)
    pod.create()
    target = {"kind": "Pod", "namespace": namespace, "name": pod.name}
    subset = {
        "addresses": [{"ip": address, "targetRef": target}],
        "ports": [{"name": one.get("name", ""), "port": port} for one in service["spec"]["ports"]],
    }
    body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": [subset]}
    answer = cluster.api("POST", f"/api/v1/namespaces/{namespace}/endpoints", body)
    assert answer.status == 201, answer
    return pod


def ready_endpoints(cluster: Cluster, namespace: str, service: str) -> int:
    """Return how many ready endpoints the EndpointSlices of a Service have."""
    selector = f"labelSelector=kubernetes.io/service-name={service}"
    slices = cluster.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{selector}")["items"]
    return sum(endpoint["conditions"]["ready"] for one in slices for endpoint in one["endpoints"] or ())


def _ready(ready: bool) -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": str(ready)}]}
