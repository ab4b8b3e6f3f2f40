"""A team's own HTTP API behind a Service: the least that can be healthy, unhealthy, slow or gone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods


class TeamApi:
    """Answers every GET with ``status``.

    ``service`` is the Service in front of it, as the cluster returned it, and ``pods`` what its EndpointSlices show.
    """

    def __init__(self, service: dict[str, Any], pods: Pods) -> None:
        self.status = 200
        self.requests = 0
        self.service = service
        self.pods = pods
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests += 1
                self.send_response(api.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        port = service["spec"]["ports"][0]["port"]
        self._server = ThreadingHTTPServer((service["spec"]["clusterIP"], port), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def team_api(
    cluster: Cluster,
    namespace: str,
    name: str,
    *,
    type_name: str = "orders",
    port: int = 8080,
    replicas: int = 1,
    **annotations: str,
) -> Iterator[TeamApi]:
    """Create the Service with its annotations and Pods, and answer on its address.

    ``path="/x"`` is the annotation ``toolset-path: /x``. Service and Pods go with the namespace.
    """
    wanted = {"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": type_name}
    wanted |= {f"kubernaut.io/toolset-{key.replace('_', '-')}": value for key, value in annotations.items()}
    service = cluster.create_service(namespace, name, ports=[port], annotations=wanted)
    with TeamApi(service, Pods(cluster, service, replicas)) as api:
        yield api
