"""A real cluster: etcd, kube-apiserver, controller manager and cluster DNS, as processes on the loopback interface.

The trick is the Service range. The whole of 127.0.0.0/8 is local on Linux, so with ``--service-cluster-ip-range``
in it a Service gets an address that can be dialled, once somebody listens there (``backends.py``). No container, no
kube-proxy, no root, except for port 53 of the DNS.
"""

import csv
import errno
import ipaddress
import json
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from tests.cluster import http
from tests.cluster.cache import Missing
from tests.cluster.http import Answer
from tests.cluster.process import Process, StartFailed
from tests.cluster.programs import cluster_program, system_program

NODE = "nowhere"
"""The Node that Pods claim to run on. Without one the EndpointSlice controller leaves them out."""

_START_DEADLINE = 60.0
_SIGN_PORT = 5399
_JSON = "application/json"
APPLY = "application/apply-patch+yaml"
"""The content type of server-side apply."""

# What the tests ask about: who wrote, listed or watched what. The servers' own requests are of no interest.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "None", "users": ["system:apiserver", "controller-manager", "coredns"]},
        {"level": "Metadata"},
    ],
}


class AuditEvent(NamedTuple):
    """One request as the API server's audit log tells it. ``resource`` includes the subresource, as in RBAC.

    ``user`` is empty where nobody could be made of the credentials (401). ``received`` is when the request came in,
    ``logged`` when the answer began (of a watch: and once more when it ended) or was complete.
    """

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    user_agent: str
    stage: str
    received: datetime
    logged: datetime

    @property
    def is_write(self) -> bool:
        return self.verb not in ("get", "list", "watch")


class ApiServer(Protocol):
    """Where somebody finds the Kubernetes API: at a Cluster, or at a proxy in front of it."""

    @property
    def url(self) -> str: ...

    @property
    def ca_file(self) -> Path: ...


class KubectlFailed(Exception):
    """kubectl ended with an error. The text is the command and what it said."""


class Cluster:
    """A cluster that lives as long as the ``with`` block.

    ``data`` is a folder that ``snapshot`` made; without it the cluster is empty. ``service_range`` is a /16 in
    127.0.0.0/8; by default that of the snapshot, or the first one that no other cluster on this machine uses.

    Raises Missing where the machine lacks a part, and StartFailed with the end of the log of the part that failed.
    Without a controller manager (only ``KUBEBUILDER_ASSETS``, no Go) no Service has endpoints and namespaces are never
    quite deleted; ``controllers_missing`` says how to get it. Without DNS (not root) ``dns_missing`` says why.
    """

    def __init__(self, *, data: Path | None = None, service_range: str | None = None) -> None:
        if sys.platform != "linux":
            raise Missing("Linux", "only there is all of 127.0.0.0/8 local; run the tests in a Linux container or VM")
        recorded = (data / "service-range").read_text() if data else None
        if recorded and service_range and recorded != service_range:
            raise ValueError(f"the snapshot {data} was made with the Service range {recorded}, not {service_range}")
        self._wanted_range = service_range or recorded
        self.dns_missing: Missing | None = None
        self.controllers_missing: Missing | None = None
        self.admin_token = secrets.token_hex(16)
        self._data = data
        self._processes: dict[str, Process] = {}
        self._cleanup = ExitStack()

    # --- Start and end -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._programs = {name: cluster_program(name) for name in ("etcd", "kube-apiserver", "kubectl")}
        with ExitStack() as cleanup:
            self.folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dynamic-toolset-cluster-")))
            self.service_range = self._wanted_range or cleanup.enter_context(_service_range())
            self.dns_address = str(ipaddress.ip_network(self.service_range)[10])
            cleanup.callback(self._stop_processes)
            self._start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _start(self) -> None:
        if self._data:
            shutil.copytree(self._data / "etcd", self._etcd_data)
        self._ports = free_ports("etcd", "etcd-peer", "kube-apiserver", "coredns-ready")
        self.url = f"https://127.0.0.1:{self._ports['kube-apiserver']}"
        self._write_configuration()
        self._start_etcd()
        self._start_apiserver()
        self.kubeconfig = self.kubeconfig_for("admin", self.admin_token)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        _expect(self.api("POST", "/api/v1/nodes", node), "POST /api/v1/nodes", 201, 409)
        self._start_controller_manager()
        self._start_dns()

    def _stop_processes(self) -> None:
        """End the API server first, and by force: without etcd its orderly end takes a minute."""
        for name in ("coredns", "kube-controller-manager"):
            if process := self._processes.pop(name, None):
                process.stop(signal.SIGKILL)
        self.stop_apiserver()
        if etcd := self._processes.pop("etcd", None):
            etcd.stop()

    def stop_apiserver(self) -> None:
        """Take the Kubernetes API away, as a crash would."""
        if process := self._processes.pop("kube-apiserver", None):
            process.stop(signal.SIGKILL)

    def start_apiserver(self) -> None:
        """Bring the Kubernetes API back after ``stop_apiserver``, under the same address."""
        self._start_apiserver()
        # The controller manager would find it within half a minute. A new one has endpoints for new Services at once.
        if process := self._processes.pop("kube-controller-manager", None):
            process.stop(signal.SIGKILL)
            self._start_controller_manager()

    def restart_apiserver(self) -> None:
        """Break every connection to the API, and have it back under the same address."""
        self.stop_apiserver()
        self.start_apiserver()

    @contextmanager
    def without_apiserver(self) -> Iterator[None]:
        """Have no Kubernetes API inside of the block, as after a crash."""
        self.stop_apiserver()
        try:
            yield
        finally:
            self.start_apiserver()

    @contextmanager
    def without_etcd(self) -> Iterator[None]:
        """Have no etcd inside of the block, as after a crash: the API server answers what it remembers, or errors."""
        self._processes.pop("etcd").stop(signal.SIGKILL)
        try:
            yield
        finally:
            self._start_etcd()

    @contextmanager
    def with_hanging_etcd(self) -> Iterator[None]:
        """Let etcd hang inside of the block, as with a disk that does not answer: so do requests that need it."""
        self._processes["etcd"].send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes["etcd"].send(signal.SIGCONT)

    def snapshot(self, folder: Path) -> None:
        """End the cluster, and keep its data in ``folder``, from which a later one can start.

        What takes long to make (10,000 Services: two minutes) is so made once.
        """
        self._stop_processes()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            data = Path(unfinished, "data")
            shutil.copytree(self._etcd_data, data / "etcd")
            (data / "service-range").write_text(self.service_range)
            data.rename(folder)

    # --- Use ---------------------------------------------------------------------------------------------------------

    @property
    def ca_file(self) -> Path:
        """The certificate to check the API server's with: it signs its own."""
        return self.folder / "certificates" / "apiserver.crt"

    def api(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        content_type: str = _JSON,
        timeout: float = 10.0,
    ) -> Answer:
        """Send one request to the API, as the administrator unless ``token`` says who, and return any answer."""
        return http.request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token or self.admin_token}", "Content-Type": content_type},
            tls=self._tls(),
            timeout=timeout,
        )

    def get(self, path: str) -> Any:
        """Return the object or list at a path of the API; None if there is none."""
        answer = self.api("GET", path)
        if answer.status == 404:
            return None
        return _expect(answer, f"GET {path}", 200)

    def create_namespace(self, name: str) -> None:
        """Create a namespace."""
        path = "/api/v1/namespaces"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        _expect(self.api("POST", path, body), f"POST {path}", 201)

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace; its Services and Pods are gone when this returns, the rest soon after."""
        path = f"/api/v1/namespaces/{name}"
        for collection in (f"{path}/services", f"{path}/pods?gracePeriodSeconds=0"):
            _expect(self.api("DELETE", collection), f"DELETE {collection}", 200)
        _expect(self.api("DELETE", path), f"DELETE {path}", 200, 404, 409)

    def create_service(
        self,
        namespace: str,
        name: str,
        *,
        ports: Sequence[int | Mapping[str, Any]],
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Any:
        """Create a Service and return it, with its ClusterIP. A port may be given as its number.

        As nearly every Service it has a selector, one of its own; ``selector=None`` for none.
        """
        path = f"/api/v1/namespaces/{namespace}/services"
        usual = {
            "ports": [{"port": port} if isinstance(port, int) else port for port in ports],
            "selector": {"app.kubernetes.io/instance": name},
        }
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}},
            "spec": usual | spec,
        }
        return _expect(self.api("POST", path, body), f"POST {path}", 201)

    def token(
        self,
        namespace: str,
        service_account: str,
        *,
        bound_to: Mapping[str, Any] | None = None,
        audience: str | None = None,
    ) -> str:
        """Return a token for a ServiceAccount, valid for an hour (TokenRequest).

        ``bound_to`` is a Secret, with whose deletion the token is void, at the latest ten seconds after. ``audience``
        is whom it is for, if not the API server.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        spec: dict[str, Any] = {"expirationSeconds": 3600}
        if audience is not None:
            spec["audiences"] = [audience]
        if bound_to is not None:
            metadata = bound_to["metadata"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Secret",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer: str = _expect(self.api("POST", path, body), f"POST {path}", 201)["status"]["token"]
        return answer

    def kubeconfig_for(self, name: str, token: str, *, server: ApiServer | None = None) -> Path:
        """Write the kubeconfig of somebody who holds ``token``, and return its path. ``server`` may be a proxy."""
        path = self.folder / f"{name}.kubeconfig"
        server = server or self
        cluster = {"server": server.url, "certificate-authority": str(server.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        }
        path.write_text(json.dumps(document))
        return path

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002, as in subprocess.run
        """Run kubectl as the administrator and return its output. Raises KubectlFailed."""
        options = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'kubectl'}")
        result = subprocess.run(
            [self._programs["kubectl"], *options, *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if result.returncode:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def audit(self, skip: int = 0) -> Iterator[AuditEvent]:
        """Return what was asked of the API since the start, in order, without the first ``skip`` events.

        A watch has two events: it began, it ended.
        """
        with (self.folder / "audit.log").open() as log:
            for number, line in enumerate(log):
                if number < skip or not line.endswith("\n"):
                    continue
                event = json.loads(line)
                target = event.get("objectRef", {})
                parts = (target.get("resource", ""), target.get("subresource"))
                yield AuditEvent(
                    user=event["user"].get("username", ""),
                    verb=event["verb"],
                    resource="/".join(part for part in parts if part),
                    namespace=target.get("namespace", ""),
                    name=target.get("name", ""),
                    code=event["responseStatus"]["code"],
                    user_agent=event.get("userAgent", ""),
                    stage=event["stage"],
                    received=datetime.fromisoformat(event["requestReceivedTimestamp"]),
                    logged=datetime.fromisoformat(event["stageTimestamp"]),
                )

    # --- The parts ---------------------------------------------------------------------------------------------------

    @property
    def _etcd_data(self) -> Path:
        return self.folder / "etcd"

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def _write_configuration(self) -> None:
        key = self.folder / "service-accounts.key"
        command = [str(system_program("openssl")), "genrsa", "-out", str(key), "2048"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        (self.folder / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
        self._tokens = {
            "admin": self.admin_token,
            "controller-manager": secrets.token_hex(16),
            "coredns": secrets.token_hex(16),
        }
        with (self.folder / "tokens.csv").open("w", newline="") as file:
            csv.writer(file).writerows([token, name, name, "system:masters"] for name, token in self._tokens.items())

    def _run(self, program: Path, *arguments: str) -> Process:
        process = Process([program, *arguments], self.folder / f"{program.name}.log")
        self._processes[program.name] = process
        return process

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        process = self._run(
            self._programs["etcd"],
            f"--data-dir={self._etcd_data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        process.wait_until(lambda: http.answers(f"{client}/health"), _START_DEADLINE)

    def _start_apiserver(self) -> None:
        process = self._run(
            self._programs["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports['kube-apiserver']}",
            f"--cert-dir={self.ca_file.parent}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'service-accounts.key'}",
            f"--service-account-signing-key-file={self.folder / 'service-accounts.key'}",
            f"--service-cluster-ip-range={self.service_range}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self.folder / 'audit.log'}",
            "--audit-log-maxsize=10000",
        )
        process.wait_until(self._api_is_ready, _START_DEADLINE)

    def _api_is_ready(self) -> bool:
        try:
            return http.answers(f"{self.url}/readyz", self._tls())
        except OSError:  # its certificate is not there yet, or not whole
            return False

    def _start_controller_manager(self) -> None:
        try:
            program = cluster_program("kube-controller-manager")
        except Missing as missing:
            self.controllers_missing = missing
            return
        kubeconfig = self.kubeconfig_for("controller-manager", self._tokens["controller-manager"])
        process = self._run(
            program,
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--controllers=endpointslice-controller,namespace-controller,garbage-collector-controller,"
            "serviceaccount-controller",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        process.wait_until(lambda: self.get(account) is not None, _START_DEADLINE)

    def _start_dns(self) -> None:
        try:
            program = cluster_program("coredns")
            _check_dns_port(self.dns_address)
        except Missing as missing:
            self.dns_missing = missing
            return
        kubeconfig = self.kubeconfig_for("coredns", self._tokens["coredns"])
        configuration = self.folder / "Corefile"
        configuration.write_text(
            "cluster.local:53 {\n"
            f"  bind {self.dns_address}\n"
            f"  kubernetes cluster.local {{\n    kubeconfig {kubeconfig} tests\n  }}\n"
            f"  ready 127.0.0.1:{self._ports['coredns-ready']}\n"
            "  errors\n"
            "}\n"
        )
        process = self._run(program, "-conf", str(configuration))
        ready = f"http://127.0.0.1:{self._ports['coredns-ready']}/ready"
        process.wait_until(lambda: http.answers(ready), _START_DEADLINE)


def _expect(answer: Answer, request: str, *statuses: int) -> Any:
    assert answer.status in statuses, f"{request}: {answer.status} {answer.body.decode(errors='replace')}"
    return answer.json


def free_ports(*names: str) -> dict[str, int]:
    """Return a free port for each name. All are held until the last is found, so that they differ.

    It is none of those that the kernel hands out to whoever does not care. Such a one may be somebody's by the time
    that a server listens on it, or listens again.
    """
    first_of_the_kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ours = range(10_000, first_of_the_kernels)
    numbers = random.sample(ours, min(len(ours), 1000)) if len(ours) > 100 else [0] * len(names)
    found: dict[str, int] = {}
    with ExitStack() as held:
        for number in numbers:
            if len(found) == len(names):
                break
            with suppress(OSError):
                listener = held.enter_context(socket.create_server(("127.0.0.1", number)))
                found[names[len(found)]] = listener.getsockname()[1]
    return found


def _check_dns_port(address: str) -> None:
    """Raise Missing if this user may not use port 53, and StartFailed if another cluster does."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind((address, 53))
    except PermissionError:
        raise Missing(
            "the right to serve DNS on port 53", "run the tests as root, or in a container (`unshare -r` is not enough)"
        ) from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartFailed(
            f"{address}:53 is in use: another cluster runs with this Service range. Wait for its end, or pass another "
            "service_range"
        ) from None


@contextmanager
def _service_range() -> Iterator[str]:
    """Keep a /16 from 127.96.0.0 on that no other cluster uses: a socket in it is the sign, whoever else looks."""
    for second in range(96, 128):
        network = f"127.{second}.0.0/16"
        with socket.socket() as sign:
            try:
                sign.bind((str(ipaddress.ip_network(network)[9]), _SIGN_PORT))
                _check_dns_port(str(ipaddress.ip_network(network)[10]))
            except (OSError, StartFailed):
                continue
            except Missing:
                pass  # it will have no DNS, as it says itself
            yield network
            return
    raise StartFailed("every Service range from 127.96.0.0/16 to 127.127.0.0/16 is in use by another cluster")
