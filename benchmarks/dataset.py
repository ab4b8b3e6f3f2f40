"""A cluster with 10,000 Services, of which 30 are backends. Made once and kept, because making it takes two minutes."""

import asyncio
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
from tests.cluster import cache
from tests.cluster.cluster import NODE, Cluster

SERVICES = 10_000
BACKENDS = 30
EXTRA = 60
NAMESPACE = "bench"
SERVICE_RANGE = "127.98.0.0/16"
GROUPS = 100

Manifest = dict[str, Any]


def addresses(count: int, first: int) -> list[str]:
    """Return fixed ClusterIPs, from the part of the range that is left to those who ask for one."""
    network = ipaddress.ip_network(SERVICE_RANGE)
    return [str(network[20 + first + number]) for number in range(count)]


BACKEND_ADDRESSES = addresses(BACKENDS, 0)
EXTRA_ADDRESSES = addresses(EXTRA, BACKENDS)


def backend(name: str, namespace: str, address: str) -> Manifest:
    """Return a Service as the Prometheus chart makes it."""
    labels = {
        "app.kubernetes.io/name": "prometheus",
        "app.kubernetes.io/component": "server",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "Helm",
    }
    ports = [{"name": "http", "port": 9090, "targetPort": 9090}]
    return _service(name, namespace, labels, {"clusterIP": address, "ports": ports})


def pod(service: Manifest) -> Manifest:
    """Return the Pod behind a Service."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": service["metadata"]["name"], "labels": service["spec"]["selector"]},
        "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "example.com/nothing"}]},
    }


def running(number: int) -> Manifest:
    """Return what a kubelet would report of a Pod that is ready."""
    address = str(ipaddress.ip_address("10.0.0.1") + number)
    conditions = [{"type": "Ready", "status": "True"}]
    return {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}}


def plain(number: int) -> Manifest:
    """Return a Service of an ordinary application: the labels, annotations and ports that charts give them."""
    name, namespace = f"app-{number:05}", f"team-{number % GROUPS:02}"
    labels = {
        "app.kubernetes.io/name": f"app-{number % 700}",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "backend",
        "app.kubernetes.io/part-of": f"suite-{number % 50}",
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": f"app-{number % 700}-1.2.3",
    }
    ports = [
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "metrics", "port": 9100, "targetPort": "metrics"},
    ]
    return _service(name, namespace, labels, {"ports": ports})


def extra_name(number: int) -> str:
    """Return the name of a backend that comes later. Its Pod is there already."""
    return f"new-{number:02}"


def _service(name: str, namespace: str, labels: dict[str, str], spec: Manifest) -> Manifest:
    selector = {key: labels[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": {
                "meta.helm.sh/release-name": name,
                "meta.helm.sh/release-namespace": namespace,
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "9100",
            },
        },
        "spec": {"selector": selector, **spec},
    }
    # What `kubectl apply` leaves behind, on every object that was made with it.
    manifest["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json.dumps(manifest)
    return manifest


def snapshot() -> Path:
    """Return the folder with the cluster's data, made if it is not there."""
    root = cache.folder("benchmarks")
    data = root / cache.content_hash(Path(__file__))
    with cache.locked(root):
        if not data.exists():
            cache.progress(f"creating {SERVICES:,} Services; the first time this takes some minutes")
            with Cluster(service_range=SERVICE_RANGE) as cluster:
                asyncio.run(_fill(cluster))
                cluster.snapshot(data)
    return data


async def _fill(cluster: Cluster) -> None:
    tls = ssl.create_default_context(cafile=str(cluster.ca_file))
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    manifests = [plain(number) for number in range(SERVICES - BACKENDS)]
    backends = [backend(f"prometheus-{n:02}", NAMESPACE, ip) for n, ip in enumerate(BACKEND_ADDRESSES)]
    extra = [backend(extra_name(n), NAMESPACE, ip) for n, ip in enumerate(EXTRA_ADDRESSES)]
    manifests += backends
    async with aiohttp.ClientSession(cluster.url, headers=headers, connector=aiohttp.TCPConnector(ssl=tls)) as api:

        async def create(path: str, body: Manifest) -> None:
            async with api.post(path, json=body) as answer:
                if answer.status not in (201, 409):
                    raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")

        for name in [NAMESPACE, *(f"team-{number:02}" for number in range(GROUPS))]:
            await create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        queue = iter(enumerate(manifests, 1))

        async def work() -> None:
            for number, manifest in queue:
                await create(f"/api/v1/namespaces/{manifest['metadata']['namespace']}/services", manifest)
                if number % 1000 == 0:
                    cache.progress(f"... {number:,} of {SERVICES:,}")

        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        for number, manifest in enumerate([*backends, *extra]):
            await create(pods, pod(manifest))
            path = f"{pods}/{manifest['metadata']['name']}/status"
            merge_patch = {"Content-Type": "application/merge-patch+json"}
            async with api.patch(path, json=running(number), headers=merge_patch) as answer:
                answer.raise_for_status()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(work())
