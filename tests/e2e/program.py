"""The real program, as a user starts it, with the rights that it is documented to need."""

import os
import signal
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.process import Process

_RBAC = Path(__file__).parents[1] / "cluster" / "rbac.yaml"
SERVICE_ACCOUNT = "dynamic-toolset"


class Program:
    """``dynamic-toolset run`` against the cluster, as a ServiceAccount of ``namespace``, where it also publishes.

    ``settings`` is the content of its settings file, merged into what every test needs: the namespace, and the
    permission to dial the cluster's Service range.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        settings: Mapping[str, Any] | None = None,
        *,
        config_map: str = "kubernaut-toolset-config",
    ) -> None:
        self.namespace = namespace
        self.config_map = config_map
        self.user = f"system:serviceaccount:{namespace}:{SERVICE_ACCOUNT}"
        self._cluster = cluster
        self._name = f"{namespace}-{config_map}"
        self._settings = merged(
            {
                "configMap": {"namespace": namespace, "name": config_map},
                "healthCheck": {"allowedRanges": [cluster.service_range]},
            },
            settings or {},
        )
        self._process: Process | None = None
        grant(cluster, namespace, config_map)

    def start(self) -> None:
        """Start the program; return at once."""
        file = self._cluster.folder / f"{self._name}.settings.yaml"
        file.write_text(yaml.safe_dump(self._settings))
        token = self._cluster.token(self.namespace, SERVICE_ACCOUNT)
        kubeconfig = self._cluster.kubeconfig_for(self._name, token)
        options = [f"--kubeconfig={kubeconfig}", f"--config={file}"]
        command = [sys.executable, "-m", "dynamic_toolset", "run", *options]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        self._process = Process(command, self._cluster.folder / f"{self._name}.log", environment)

    def stop(self) -> None:
        """End the program as Kubernetes does, with SIGTERM; it must end in order, and soon."""
        if self._process:
            process, self._process = self._process, None
            code = process.stop(within=10)
            assert code == 0, f"exit code {code}\n{process.output}"

    def kill(self) -> None:
        """End the program as a lost node does."""
        if self._process:
            self._process.stop(signal.SIGKILL)
            self._process = None

    @property
    def log(self) -> str:
        """What the program has written since its last start."""
        return (self._cluster.folder / f"{self._name}.log").read_text(errors="replace")

    def published(self) -> Any:
        """Return the ConfigMap as the cluster holds it; None if there is none."""
        return self._cluster.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{self.config_map}")

    def document(self, key: str) -> Any:
        """Return what a key of the ConfigMap says, read as YAML (or JSON, which is YAML); None if it is not there."""
        config_map = self.published() or {}
        text = (config_map.get("data") or {}).get(key)
        return None if text is None else yaml.safe_load(text)


def grant(cluster: Cluster, namespace: str, config_map: str) -> None:
    """Give the program its ServiceAccount in a namespace, and its rights."""
    manifest = string.Template(_RBAC.read_text()).substitute(namespace=namespace, config_map=config_map)
    cluster.kubectl("apply", "--filename=-", input=manifest)


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``change`` put over it, mapping by mapping."""
    result = dict(base)
    for key, value in change.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
