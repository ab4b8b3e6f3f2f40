"""The commands that speak to the running service, through the proxy of a real API server, with a real kubeconfig."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from yarl import URL

from tests.cluster.backends import prometheus
from tests.cluster.cluster import Cluster
from tests.cluster.pods import behind, own_address
from tests.command import Ended
from tests.documentation import DOCS, blocks
from tests.e2e.program import Program
from tests.e2e.test_access import AUDIENCE
from tests.e2e.test_server import may_post
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

TLS = Path(__file__).parents[1] / "unit" / "kube" / "tls"
Start = Callable[..., Program]
Account = tuple[str, str]


class Person:
    """Somebody with a ServiceAccount, a kubeconfig, and the right to use the proxy, if any. Runs commands."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, role: dict[str, Any] | None) -> None:
        self._namespace = namespace
        self._cluster = cluster
        subject = {"kind": "ServiceAccount", "namespace": namespace, "name": name}
        objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": subject | {}}]
        objects[0]["metadata"].pop("kind")
        if role is not None:
            role["metadata"] = {"name": f"of-{name}", "namespace": namespace}
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"of-{name}"}
            binding = {"apiVersion": role["apiVersion"], "kind": "RoleBinding", "metadata": role["metadata"]}
            objects += [role, binding | {"roleRef": reference, "subjects": [subject]}]
        cluster.kubectl("apply", "--filename=-", input="\n---\n".join(map(json.dumps, objects)))
        self.kubeconfig = cluster.kubeconfig_for(f"{namespace}-{name}", cluster.token(namespace, name))
        for rule in role["rules"] if role else ():
            self._wait_for_right(rule, f"system:serviceaccount:{namespace}:{name}")

    def _wait_for_right(self, rule: dict[str, Any], user: str) -> None:
        resource, _, subresource = rule["resources"][0].partition("/")
        attributes = {
            "namespace": self._namespace,
            "resource": resource,
            "subresource": subresource,
            "name": rule["resourceNames"][0],
            "verb": rule["verbs"][0],
        }
        review = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        question = {"spec": {"user": user, "resourceAttributes": attributes}}
        eventually(lambda: self._cluster.api("POST", review, question).json["status"]["allowed"])

    def run(self, *arguments: str, kubeconfig: Path | None = None, **environment: str) -> Ended:
        """Run a command on the service in the namespace of the test."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "DYNAMIC_"))}
        service = [] if "--service" in arguments else ["--service", f"{self._namespace}/dynamic-toolset"]
        ended = subprocess.run(
            [sys.executable, "-m", "dynamic_toolset", *arguments, *service],
            env={**environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig), **environment},
            capture_output=True,
            text=True,
            timeout=90,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)


def documented_role() -> dict[str, Any]:
    """Return the Role that the documentation gives to those who use the commands."""
    for block in blocks(DOCS / "permissions.md"):
        if block.language == "yaml" and "dynamic-toolset-caller" in block.text:
            role: dict[str, Any] = yaml.safe_load(block.text)
            return role
    raise AssertionError("there is none")


@pytest.fixture
def reachable(cluster: Cluster, namespace: str, program: Start) -> Iterator[Callable[..., Program]]:
    """Start the program where the API server can dial it, behind the Service ``dynamic-toolset``."""
    with ExitStack() as cleanup:

        def start(**server: Any) -> Program:
            address = own_address()
            subject = program({"server": {"address": address, **server}})
            [serving] = eventually(lambda: subject.events("serving"), 30)
            port = URL(serving["api"]).port
            ports = [{"name": "http", "port": 8080, "targetPort": port}]
            service = cluster.create_service(namespace, "dynamic-toolset", ports=ports)
            cleanup.callback(behind(cluster, service, address, port or 0).delete)
            return subject

        yield start


OPEN = {"auth": "none", "allowAnonymous": True}


def test_who_may_use_the_proxy_is_shown_everything_of_a_service_that_is_open(
    cluster: Cluster, namespace: str, reachable: Callable[..., Program]
) -> None:
    person = Person(cluster, namespace, "person", documented_role())
    with prometheus(cluster, namespace) as backend:
        subject = reachable(**OPEN)
        eventually(lambda: backend.host in str(subject.document("custom_toolset.yaml")), 30)

        ended = person.run("get", "services", "-n", namespace, "-o", "json")
        assert (ended.status, ended.err) == (0, "")
        [row] = ended.json["services"]
        assert (row["type"], row["health"], row["listed"]) == ("prometheus", "healthy", True)
        known = len(cluster.get("/api/v1/services")["items"])
        everything = person.run("get", "services", "--all", "-o", "name").out.splitlines()
        assert len(everything) == known
        assert person.run("get", "toolset", "-o", "yaml").out == subject.published()["data"]["custom_toolset.yaml"]
        assert "prometheus/metrics" in person.run("get", "toolset").out
        assert f"configMap.namespace {namespace} file".split() in [
            line.split() for line in person.run("get", "config").out.splitlines()
        ]
        same = person.run("diff")
        assert (same.status, same.out) == (0, "")
        refreshed = person.run("refresh", "--wait")
        assert (refreshed.status, refreshed.err) == (0, "")
        assert f"{known} Services, " in refreshed.out

        frozen = json.dumps({"immutable": True})
        cluster.kubectl("patch", "configmap", "-n", namespace, subject.config_map, f"--patch={frozen}")
    eventually(lambda: "ConfigMapImmutable" in subject.problems(), 60)
    differs = person.run("diff")
    assert differs.status == 1
    assert differs.err.startswith("ConfigMapImmutable: ")
    assert any(line.startswith("-") and backend.host in line for line in differs.out.splitlines())


def test_a_token_of_a_service_account_lets_in_where_the_service_asks_for_one(
    cluster: Cluster,
    namespace: str,
    reachable: Callable[..., Program],
    make_account: Callable[..., Account],
    tmp_path: Path,
) -> None:
    home, _ = account = make_account("/dynamic-toolset/api/v1/*")
    role = documented_role()
    person = Person(cluster, namespace, "person", role)
    maker = {"apiVersion": role["apiVersion"], "kind": "Role"}
    right = [
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["caller"], "verbs": ["create"]}
    ]
    subject = reachable()

    ended = person.run("get", "services")
    assert (ended.status, ended.out) == (1, "")
    assert "--service-account" in ended.err
    forbidden = person.run("get", "services", "--service-account", f"{home}/caller")
    assert forbidden.status == 1
    assert f"Role in namespace {home} with the verb create on serviceaccounts/token" in forbidden.err

    # What the documentation says of the account sre, in the namespace of the account that this test has.
    binding = {
        "apiVersion": role["apiVersion"],
        "kind": "RoleBinding",
        "metadata": {"name": "maker", "namespace": home},
    }
    objects = [
        {**maker, "metadata": {"name": "maker", "namespace": home}, "rules": right},
        binding
        | {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maker"},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": "person"}],
        },
    ]
    cluster.kubectl("apply", "--filename=-", input="\n---\n".join(map(json.dumps, objects)))
    let_in = eventually(
        lambda: (found := person.run("get", "services", "--service-account", f"{home}/caller")).status == 0 and found
    )
    assert let_in.out.startswith("NAMESPACE")
    assert person.run("diff", "--service-account", f"{home}/caller").status == 0

    refused = person.run("refresh", "--service-account", f"{home}/caller")
    assert refused.status == 1
    assert "cannot post path '/dynamic-toolset/api/v1/discover'" in refused.err
    assert "ClusterRole" in refused.err
    may_post(cluster, account, "/dynamic-toolset/api/v1/discover")
    eventually(lambda: person.run("refresh", "--service-account", f"{home}/caller").status == 0, 30)

    token = cluster.token(*account, audience=AUDIENCE)
    (tmp_path / "token").write_text(token)
    assert person.run("get", "config", "--token-file", str(tmp_path / "token")).status == 0
    assert person.run("get", "config", DYNAMIC_TOOLSET_TOKEN=token).status == 0
    another = person.run("get", "config", DYNAMIC_TOOLSET_TOKEN=cluster.token(*account, audience="another"))
    assert another.status == 1
    assert "--audience" in another.err
    # The caller's own token for the API server goes no further than there.
    own = person.run("get", "config", DYNAMIC_TOOLSET_TOKEN=cluster.token(namespace, "person"))
    assert own.status == 1
    assert token not in subject.log


def test_whoever_is_not_let_in_or_misses_the_service_is_told_what_to_do(
    cluster: Cluster, namespace: str, reachable: Callable[..., Program]
) -> None:
    person = Person(cluster, namespace, "person", documented_role())
    stranger = Person(cluster, namespace, "stranger", None)
    admin = cluster.kubeconfig

    absent = person.run("get", "services", kubeconfig=admin)
    assert (absent.status, absent.out) == (1, "")
    assert f"there is no Service {namespace}/dynamic-toolset" in absent.err
    lonely = cluster.create_service(namespace, "lonely", ports=[8080])
    body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": lonely["metadata"]["name"]}}
    assert cluster.api("POST", f"/api/v1/namespaces/{namespace}/endpoints", body).status == 201
    ended = person.run("diff", "--service", f"{namespace}/lonely", kubeconfig=admin)
    assert ended.status == 2
    assert "no ready Pod at port 8080" in ended.err

    subject = reachable(**OPEN)
    assert person.run("get", "services").status == 0
    for command, verb in ((["get", "services"], "get"), (["refresh"], "create")):
        ended = stranger.run(*command)
        assert (ended.status, ended.out) == (1, "")
        assert f"Role in namespace {namespace} with the verb {verb} on services/proxy" in ended.err
    assert "--kubeconfig" in person.run("get", "services", kubeconfig=nobody(cluster)).err
    assert "has no port 81" in person.run("get", "services", "--port", "81", kubeconfig=admin).err
    assert "leave out --tls" in person.run("get", "services", "--tls", kubeconfig=admin).err
    subject.stop()
    ended = person.run("get", "services")
    assert "does not get through" in ended.err
    assert "connection refused" in ended.err
    assert "port-forward" in ended.err


def nobody(cluster: Cluster) -> Path:
    """Return the kubeconfig of somebody whom the API server does not know."""
    return cluster.kubeconfig_for("nobody", "no-token-of-anybody")


def test_a_service_that_speaks_tls_is_asked_over_it(
    cluster: Cluster, namespace: str, reachable: Callable[..., Program]
) -> None:
    person = Person(cluster, namespace, "person", None)
    files = {"certFile": str(TLS / "first.crt"), "keyFile": str(TLS / "first.key")}
    reachable(**OPEN, tls=files)
    ended = person.run("get", "services", "--tls", "--port", "http", kubeconfig=cluster.kubeconfig)
    assert (ended.status, ended.err) == (0, "")
    plain = person.run("get", "services", "--port", "http", kubeconfig=cluster.kubeconfig)
    assert plain.status == 1
    assert "give --tls" in plain.err
