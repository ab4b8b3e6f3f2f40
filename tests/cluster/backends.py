"""Real Prometheus, Alertmanager and VictoriaMetrics, each behind a Service of the cluster.

Each listens on its Service's own ClusterIP and port (see ``cluster.py``), so whoever follows the Service reaches it::

    with prometheus(cluster, "monitoring", "prometheus-k8s", labels={...}, port=9090) as backend:
        backend.stop()

The ready Pods behind the Service are for the API only (``pods.py``); they stay ready while the program is stopped.
"""

import json
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster import http
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods
from tests.cluster.process import Process, StartFailed
from tests.cluster.programs import system_program
from tests.waiting import eventually

_DEADLINE = 30.0


class _Product(NamedTuple):
    """How to run a product: its arguments follow from the address to listen on and a folder for its files."""

    program: str
    port: int
    label: str
    ready: str
    arguments: Callable[[str, Path], Sequence[str]]


class Backend:
    """A backend that runs behind a Service. ``host`` is the Service's DNS name, ``url`` dials its ClusterIP."""

    def __init__(self, service: Mapping[str, Any], pods: Pods, product: _Product, folder: Path) -> None:
        self.pods = pods
        self.namespace: str = service["metadata"]["namespace"]
        self.name: str = service["metadata"]["name"]
        self.host = f"{self.name}.{self.namespace}.svc.cluster.local"
        self.port: int = service["spec"]["ports"][0]["port"]
        self._address: str = service["spec"]["clusterIP"]
        self.url = f"http://{self._address}:{self.port}"
        self._product = product
        self._folder = folder
        self._command = [
            str(system_program(product.program)),
            *product.arguments(f"{self._address}:{self.port}", folder),
        ]
        self._process: Process | None = None

    def start(self) -> None:
        """Start the program and wait until it calls itself ready. Raises StartFailed."""
        _check_free(self._address, self.port)
        self._process = Process(self._command, self._folder / "log")
        self._process.wait_until(lambda: http.answers(self.url + self._product.ready), _DEADLINE)

    def stop(self) -> None:
        """End the program; the Service stays, and connections to it are refused."""
        if self._process:
            self._process.stop()
            self._process = None

    def wait_for_samples(self) -> None:
        """Wait until the query ``up`` has a result; a metrics store takes its first sample after some 5 seconds."""
        eventually(self._knows_up, within=_DEADLINE, every=0.1)

    def _knows_up(self) -> bool:
        answer = http.request("GET", f"{self.url}/api/v1/query?query=up", timeout=2)
        return answer.status == 200 and bool(answer.json["data"]["result"])


def prometheus(
    cluster: Cluster, namespace: str, name: str = "prometheus", **service: Any
) -> AbstractContextManager[Backend]:
    """Run a Prometheus that scrapes itself. ``service``: ``port``, ``labels``, ``annotations``, ``replicas``."""
    return _run(_PROMETHEUS, cluster, namespace, name, **service)


def alertmanager(
    cluster: Cluster, namespace: str, name: str = "alertmanager", **service: Any
) -> AbstractContextManager[Backend]:
    """Run an Alertmanager that notifies nobody. ``service``: ``port``, ``labels``, ``annotations``, ``replicas``."""
    return _run(_ALERTMANAGER, cluster, namespace, name, **service)


def victoriametrics(
    cluster: Cluster, namespace: str, name: str = "victoria-metrics", **service: Any
) -> AbstractContextManager[Backend]:
    """Run a VictoriaMetrics that scrapes itself. ``service``: ``port``, ``labels``, ``annotations``, ``replicas``."""
    return _run(_VICTORIAMETRICS, cluster, namespace, name, **service)


@contextmanager
def _run(
    product: _Product,
    cluster: Cluster,
    namespace: str,
    name: str,
    *,
    port: int | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    replicas: int = 1,
) -> Iterator[Backend]:
    """Create the Service and its Pods, run the program on its address, and take all of it away again."""
    service = cluster.create_service(
        namespace,
        name,
        ports=[port or product.port],
        labels={"app.kubernetes.io/name": product.label} if labels is None else labels,
        annotations=annotations,
    )
    with ExitStack() as cleanup:
        cleanup.callback(cluster.api, "DELETE", f"/api/v1/namespaces/{namespace}/services/{name}")
        pods = Pods(cluster, service, replicas)
        cleanup.callback(pods.delete)
        folder = cleanup.enter_context(tempfile.TemporaryDirectory(dir=cluster.folder, prefix=f"{name}-"))
        backend = Backend(service, pods, product, Path(folder))
        cleanup.callback(backend.stop)
        backend.start()
        yield backend


def _prometheus_arguments(listen: str, folder: Path) -> list[str]:
    return [
        f"--config.file={_scrape(listen, folder)}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={listen}",
    ]


def _victoriametrics_arguments(listen: str, folder: Path) -> list[str]:
    return [
        f"-promscrape.config={_scrape(listen, folder)}",
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr={listen}",
        "-search.latencyOffset=1s",  # the age from which on a sample can be asked for, by default 30 s
        "-memory.allowedPercent=5",
    ]


def _alertmanager_arguments(listen: str, folder: Path) -> list[str]:
    configuration = folder / "alertmanager.json"
    configuration.write_text(json.dumps({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}))
    return [
        f"--config.file={configuration}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={listen}",
        "--cluster.listen-address=",
    ]


def _scrape(target: str, folder: Path) -> Path:
    """Write a configuration that both Prometheus and VictoriaMetrics read, and return its path."""
    configuration = folder / "scrape.json"
    job = {"job_name": "self", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    configuration.write_text(json.dumps({"scrape_configs": [job]}))
    return configuration


_PROMETHEUS = _Product("prometheus", 9090, "prometheus", "/-/ready", _prometheus_arguments)
_ALERTMANAGER = _Product("alertmanager", 9093, "alertmanager", "/-/ready", _alertmanager_arguments)
_VICTORIAMETRICS = _Product("victoria-metrics", 8428, "victoria-metrics-single", "/-/ready", _victoriametrics_arguments)


def _check_free(address: str, port: int) -> None:
    """Say clearly that, say, a system service listens on this port of every address."""
    try:
        socket.create_server((address, port)).close()
    except OSError as error:
        raise StartFailed(
            f"{address}:{port} cannot be listened on ({error.strerror}). Does a system service use port {port} on all "
            f"addresses? See `ss -ltnp 'sport = :{port}'`"
        ) from error
