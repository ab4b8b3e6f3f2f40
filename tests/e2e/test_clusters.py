"""Two real clusters: Services of the other are found, with the rights that the page names, and stay while it is off."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.documentation import DOCS, blocks
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Program]
NAME, SECRET = "eu-west", "cluster-eu-west"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Cluster]:
    """Another cluster, with a Service range of its own."""
    with Cluster() as running:
        yield running


@pytest.fixture
def theirs(elsewhere: Cluster, namespace: str) -> Iterator[str]:
    """A namespace there that is called like the test's here."""
    elsewhere.create_namespace(namespace)
    yield namespace
    elsewhere.delete_namespace(namespace)


def documented(name: str) -> list[dict[str, Any]]:
    """Return the objects of this name that the page on permissions shows."""
    found = [
        document
        for block in blocks(DOCS / "permissions.md")
        if block.language == "yaml"
        for document in yaml.safe_load_all(block.text)
        if document["metadata"]["name"] == name
    ]
    assert found
    return found


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "--filename=-", input="\n---\n".join(map(json.dumps, objects)))


def token_of_another(elsewhere: Cluster, namespace: str, name: str) -> str:
    """Make an account there that may do what the page says, and return a token of it."""
    (role,) = documented("dynamic-toolset-from-outside")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{namespace}-{name}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}}
    apply(elsewhere, role, account, binding)
    return elsewhere.token(namespace, name)


def hand_over(cluster: Cluster, namespace: str, elsewhere: Cluster, token: str) -> None:
    """Put a kubeconfig of the other cluster into its Secret, and let the program read that."""
    authority = base64.b64encode(elsewhere.ca_file.read_bytes()).decode()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "there",
        "contexts": [{"name": "there", "context": {"cluster": "there", "user": "us"}}],
        "clusters": [{"name": "there", "cluster": {"server": elsewhere.url, "certificate-authority-data": authority}}],
        "users": [{"name": "us", "user": {"token": token}}],
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": SECRET},
        "stringData": {"kubeconfig": json.dumps(kubeconfig)},
    }
    text = json.dumps(documented("dynamic-toolset-clusters")).replace("kubernaut-system", namespace)
    apply(cluster, secret, *json.loads(text))


@contextmanager
def balanced(elsewhere: Cluster, namespace: str, name: str) -> Iterator[None]:
    """An API of a team there behind a load balancer, which is where its Service's address is."""
    with team_api(elsewhere, namespace, name, health_path="/healthz"):
        path = f"/api/v1/namespaces/{namespace}/services/{name}"
        address = elsewhere.get(path)["spec"]["clusterIP"]
        for where, change in (
            (path, {"spec": {"type": "LoadBalancer"}}),
            (f"{path}/status", {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}),
        ):
            answer = elsewhere.api("PATCH", where, change, content_type=MERGE)
            assert answer.status == 200, answer
        yield


def listed(program: Program) -> set[str]:
    """The Services that are published, those of the other cluster with its name."""
    tools = (program.document("toolset.json") or {"tools": []})["tools"]
    return {f"{one['metadata'].get('cluster', 'ours')}:{one['metadata']['service']}" for one in tools}


def both(cluster: Cluster, elsewhere: Cluster, **more: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": NAME, "secret": SECRET}],
        "policy": {"allowedRanges": [cluster.service_range, elsewhere.service_range]},
        "namespaces": {"selector": "kubernetes.io/metadata.name!=kube-system"},
        "healthCheck": {"interval": "1s", "timeout": "1s"},
        **more,
    }


def test_services_of_another_cluster_are_found_and_stay_while_it_is_away(
    cluster: Cluster, elsewhere: Cluster, namespace: str, theirs: str, program: Start
) -> None:
    hand_over(cluster, namespace, elsewhere, token_of_another(elsewhere, theirs, "reader"))
    with ExitStack() as there, team_api(cluster, namespace, "orders", health_path="/healthz"):
        there.enter_context(balanced(elsewhere, theirs, "orders"))
        going = there.enter_context(ExitStack())
        going.enter_context(balanced(elsewhere, theirs, "payments"))
        subject = program(both(cluster, elsewhere))
        everything = {"ours:orders", f"{NAME}:orders", f"{NAME}:payments"}
        eventually(lambda: listed(subject) == everything)
        before = subject.published()["data"]
        assert f"orders-{namespace}-{NAME}-orders" in before["custom_toolset.yaml"]

        elsewhere.stop_apiserver()
        try:
            eventually(lambda: "ClusterUnreachable" in subject.problems(), within=60)
            assert NAME in subject.problems()["ClusterUnreachable"]
            subject.stop()
            subject.start()
            eventually(lambda: "ClusterUnreachable" in subject.problems(), within=60)
            assert subject.published()["data"] == before
        finally:
            elsewhere.start_apiserver()
        going.close()
        eventually(lambda: listed(subject) == everything - {f"{NAME}:payments"}, within=60)
        eventually(lambda: "ClusterUnreachable" not in subject.problems(), within=60)


def test_a_token_that_is_void_is_replaced_by_that_of_a_changed_secret(
    cluster: Cluster, elsewhere: Cluster, namespace: str, theirs: str, program: Start
) -> None:
    hand_over(cluster, namespace, elsewhere, "void")
    with balanced(elsewhere, theirs, "orders"):
        subject = program(both(cluster, elsewhere))
        eventually(lambda: "401" in subject.problems().get("ClusterUnreachable", ""), within=60)
        hand_over(cluster, namespace, elsewhere, token_of_another(elsewhere, theirs, "reader"))
        eventually(lambda: listed(subject) == {f"{NAME}:orders"})
        assert "void" not in subject.log
    assert not [one for one in cluster.audit() if one.user == subject.user and one.code == 403]
