"""A busy life around the program::

with Life(cluster, namespace, ["kubernaut-toolset-config"], seed=1) as life:
    ...
    with life.paused():
        assert ... life.last_override("kubernaut-toolset-config")
"""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from tests.cluster.cluster import APPLY, Cluster
from tests.cluster.pods import Pods
from tests.e2e.team_api import TeamApi

ANNOTATIONS = {
    "kubernaut.io/toolset": "enabled",
    "kubernaut.io/toolset-type": "orders",
    "kubernaut.io/toolset-health-path": "/",
}

_SERVICES = 6
_MERGE = "application/merge-patch+json"


class Life:
    """Services come, change and go, all of them healthy, and people edit the overrides of the ConfigMaps.

    Between two happenings pass up to ``pause`` seconds. ``overrides`` are the texts that were written into each
    ConfigMap, in order, no two of them equal. What goes wrong is raised at the end of the ``with`` block.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, config_maps: Sequence[str], *, seed: int, pause: float = 0.04
    ) -> None:
        self.overrides: defaultdict[str, list[str]] = defaultdict(list)
        self._cluster = cluster
        self._namespace = namespace
        self._services = f"/api/v1/namespaces/{namespace}/services"
        self._config_maps = {name: f"/api/v1/namespaces/{namespace}/configmaps/{name}" for name in config_maps}
        self._random = random.Random(seed)
        self._pause = pause
        self._manifests: dict[str, dict[str, Any]] = {}
        self._gone: set[str] = set()
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        pods: Pods | None = None
        with ExitStack() as cleanup:
            for number in range(_SERVICES):
                service = self._cluster.create_service(
                    self._namespace, f"life-{number}", ports=[8080], annotations=ANNOTATIONS, selector={"app": "life"}
                )
                pods = pods or Pods(self._cluster, service)
                cleanup.enter_context(TeamApi(service, pods))
                self._manifests[service["metadata"]["name"]] = _anew(service)
            running = cleanup.enter_context(ThreadPoolExecutor(1)).submit(self._run)
            cleanup.callback(running.result)
            cleanup.callback(self._over.set)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing changes inside of the block."""
        with self._turn:
            yield

    def last_override(self, config_map: str) -> str | None:
        """Return what was written last into the overrides of a ConfigMap; None if nothing was."""
        return next(reversed(self.overrides[config_map]), None)

    def _run(self) -> None:
        while not self._over.is_set():
            with self._turn:
                self._do_something()
            self._over.wait(self._random.uniform(0, self._pause))

    def _do_something(self) -> None:
        match self._random.choice(["come or go", "come or go", "change", "change", "edit"]):
            case "come or go":
                name = self._random.choice(list(self._manifests)[1:])  # the first one is always there
                if name in self._gone:
                    self._ask("POST", self._services, self._manifests[name], 201)
                else:
                    self._ask("DELETE", f"{self._services}/{name}", None, 200)
                self._gone ^= {name}
            case "change":
                annotations = {"kubernaut.io/toolset-path": f"/v{self._random.randrange(9)}"}
                body = {"metadata": {"annotations": annotations}}
                self._ask("PATCH", f"{self._services}/life-0", body, 200, content_type=_MERGE)
            case "edit":
                text = f"internet: {{enabled: {self._random.choice(['true', 'false'])}}} # {self._random.random()}\n"
                for name, config_map in self._config_maps.items():
                    # As a person would, with an apply that does not own anything else.
                    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
                    body |= {"data": {"overrides.yaml": text}}
                    self._ask("PATCH", f"{config_map}?fieldManager=person", body, 200, 201, content_type=APPLY)
                    self.overrides[name].append(text)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, *statuses: int, **options: Any) -> None:
        answer = self._cluster.api(method, path, body, **options)
        assert answer.status in statuses, f"{method} {path}: {answer}"


def _anew(service: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest that brings a Service back at the address where its backend listens."""
    metadata, spec = service["metadata"], service["spec"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {key: metadata[key] for key in ("name", "annotations")},
        "spec": {key: spec[key] for key in ("ports", "selector", "clusterIP")},
    }
