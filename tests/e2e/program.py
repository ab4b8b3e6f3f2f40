"""The real program, as a user starts it, with the rights that it is documented to need."""

import json
import os
import secrets
import signal
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster.cluster import ApiServer, Cluster
from tests.cluster.mounts import with_resolv_conf, with_service_account
from tests.cluster.process import Process

_RBAC = Path(__file__).parents[1] / "cluster" / "rbac.yaml"
SERVICE_ACCOUNT = "dynamic-toolset"


class Program:
    """``dynamic-toolset run`` against the cluster, as a ServiceAccount of ``namespace``, where it also publishes.

    ``settings`` is the content of its settings file, merged into what every test needs: the namespace, and the
    permission to dial the cluster's Service range. Several replicas publish the same ConfigMap; with a
    ``service_account`` of its own each the audit log can tell them apart (``user``).

    ``server`` is where it finds the Kubernetes API, if not at the cluster itself: a proxy, say. ``in_cluster`` lets it
    find address and credentials as in a Pod, where ``renew_token`` can replace the token. ``environment`` is added to
    its environment, and ``resolv_conf`` is what it sees as ``/etc/resolv.conf``.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        settings: Mapping[str, Any] | None = None,
        *,
        config_map: str = "kubernaut-toolset-config",
        service_account: str = SERVICE_ACCOUNT,
        server: ApiServer | None = None,
        in_cluster: bool = False,
        environment: Mapping[str, str] | None = None,
        resolv_conf: Path | None = None,
    ) -> None:
        self.namespace = namespace
        self.config_map = config_map
        self.service_account = service_account
        self.user = f"system:serviceaccount:{namespace}:{service_account}"
        self._cluster = cluster
        self._server: ApiServer = server or cluster
        self._name = f"{namespace}-{config_map}-{service_account}"
        self._file = cluster.folder / f"{self._name}.mounted" / "settings.yaml"
        self._settings = merged(
            {
                "configMap": {"namespace": namespace, "name": config_map},
                "policy": {"allowedRanges": [cluster.service_range]},
                # Many programs run on one machine here, and no test waits for endpoints that nobody follows.
                "server": {"address": "127.0.0.1", "port": 0, "metricsPort": 0, "shutdownDelay": "0s"},
            },
            settings or {},
        )
        self._environment = environment or {}
        self._resolv_conf = resolv_conf
        self._process: Process | None = None
        grant(cluster, namespace, config_map, service_account)
        self._pod_files = cluster.folder / f"{self._name}.serviceaccount" if in_cluster else None
        if self._pod_files:
            self._pod_files.mkdir()
            (self._pod_files / "namespace").write_text(namespace)
            (self._pod_files / "ca.crt").write_bytes(self._server.ca_file.read_bytes())
            self.renew_token(cluster.token(namespace, service_account))

    # --- Its life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the program; return at once."""
        self.configure()
        command: list[str | Path] = [sys.executable, "-m", "dynamic_toolset", "run", f"--config={self._file}"]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        environment |= self._environment
        if self._pod_files:
            address = urlsplit(self._server.url)
            environment |= {
                "KUBERNETES_SERVICE_HOST": str(address.hostname),
                "KUBERNETES_SERVICE_PORT": str(address.port),
            }
            command = with_service_account(self._pod_files, command)
        else:
            token = self._cluster.token(self.namespace, self.service_account)
            command.append(f"--kubeconfig={self._cluster.kubeconfig_for(self._name, token, server=self._server)}")
        if self._resolv_conf:
            command = with_resolv_conf(self._resolv_conf, command)
        self._process = Process(command, self._cluster.folder / f"{self._name}.log", environment)

    def configure(self, settings: Mapping[str, Any] | None = None) -> None:
        """Write the settings file anew, these merged in, by a link that is swapped, as for a mounted ConfigMap."""
        folder = self._file.parent
        folder.mkdir(exist_ok=True)
        version = folder / f"..{secrets.token_hex(8)}"
        version.mkdir()
        (version / self._file.name).write_text(yaml.safe_dump(merged(self._settings, settings or {})))
        for name, target in (("..data", version.name), (self._file.name, f"..data/{self._file.name}")):
            (folder / f"{name}.new").symlink_to(target)
            (folder / f"{name}.new").replace(folder / name)

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

    def pause(self) -> None:
        """Let the program stand still (SIGSTOP), as on a node that is starved or a VM that is moved."""
        self._running.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the program go on after ``pause``: for itself no time has passed."""
        self._running.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, and do not wait for what comes of it."""
        self._running.send(number)

    def renew_token(self, token: str) -> None:
        """Replace the token at once, as the kubelet does; only with ``in_cluster``."""
        assert self._pod_files, "a program with a kubeconfig has its token in there"
        new = self._pod_files / "token.new"
        new.write_text(token)
        new.replace(self._pod_files / "token")

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def hears(self) -> bool:
        """Whether the program has begun, so that SIGTERM ends it in order: Python takes some 20 ms to get there."""
        return self._running.catches(signal.SIGTERM)

    @property
    def exit_code(self) -> int | None:
        """What the program ended with by itself; None while it runs, negative for a signal."""
        return self._running.exit_code

    @property
    def memory(self) -> float:
        """The resident memory in MB (10^6 bytes)."""
        return self._running.memory

    @property
    def _running(self) -> Process:
        assert self._process, "the program was not started, or was stopped"
        return self._process

    # --- What it says ------------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """What the program has written since its last start."""
        return (self._cluster.folder / f"{self._name}.log").read_text(errors="replace")

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the log events since the last start, of these names if any is given."""
        *lines, _unfinished = self.log.split("\n")
        events = (json.loads(line) for line in lines if line.startswith("{"))
        return [event for event in events if not names or event["event"] in names]

    def problems(self) -> dict[str, str]:
        """Return the problems that the program has reported and not called solved since: reason -> message."""
        present: dict[str, str] = {}
        for event in self.events("problem", "problem_solved"):
            if event["event"] == "problem":
                present[event["reason"]] = event["message"]
            else:
                present.pop(event["reason"], None)
        return present

    def published(self) -> Any:
        """Return the ConfigMap as the cluster holds it; None if there is none."""
        return self._cluster.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{self.config_map}")

    def document(self, key: str) -> Any:
        """Return what a key of the ConfigMap says, read as YAML (or JSON, which is YAML); None if it is not there."""
        config_map = self.published() or {}
        text = (config_map.get("data") or {}).get(key)
        return None if text is None else yaml.safe_load(text)


def grant(cluster: Cluster, namespace: str, config_map: str, service_account: str = SERVICE_ACCOUNT) -> None:
    """Give the program its ServiceAccount in a namespace, and its rights.

    An account of another name has roles of its own, called like it.
    """
    manifest = string.Template(_RBAC.read_text()).substitute(namespace=namespace, config_map=config_map)
    cluster.kubectl("apply", "--filename=-", input=manifest.replace(SERVICE_ACCOUNT, service_account))


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``change`` put over it, mapping by mapping."""
    result = dict(base)
    for key, value in change.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
