"""The real cluster, and what a test asks of it.

def test_a_service_is_published(cluster, namespace, program):
    with prometheus(cluster, namespace) as backend:
        subject = program()
        eventually(lambda: backend.host in str(subject.document("custom_toolset.yaml")))
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.cluster import holmesgpt as agent
from tests.cluster.cluster import Cluster
from tests.cluster.dns import under_cluster_dns
from tests.e2e.program import Program
from tests.waiting import eventually


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """One cluster for all tests; each works in namespaces of its own."""
    with ExitStack() as stack:
        with _visible_progress(pytestconfig):
            running = stack.enter_context(Cluster())
        yield running


@pytest.fixture(scope="session")
def holmesgpt(cluster: Cluster, pytestconfig: pytest.Config) -> Callable[..., agent.Loaded]:
    """``tests.cluster.holmesgpt.check`` in this cluster."""
    under_cluster_dns(cluster, ["true"])  # raises Missing before 800 MB are downloaded in vain
    with _visible_progress(pytestconfig):
        agent.python()
    return partial(agent.check, cluster=cluster)


@pytest.fixture
def make_namespace(cluster: Cluster) -> Iterator[Callable[[], str]]:
    """Make fresh namespaces, which are deleted when the test is over."""
    with ExitStack() as cleanup:

        def make() -> str:
            name = f"test-{secrets.token_hex(4)}"
            cluster.create_namespace(name)
            cleanup.callback(cluster.delete_namespace, name)
            return name

        yield make


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A fresh namespace."""
    return make_namespace()


@pytest.fixture
def make_account(cluster: Cluster, make_namespace: Callable[[], str]) -> Iterator[Callable[..., tuple[str, str]]]:
    """Make ServiceAccounts that may ``get`` these paths, and return namespace and name of each.

    ``/a/*`` stands for all paths that begin with ``/a/``, as in ``nonResourceURLs``.
    """
    with ExitStack() as cleanup:

        def make(*paths: str) -> tuple[str, str]:
            namespace, name = make_namespace(), "caller"
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
            subject = {"kind": "ServiceAccount", "namespace": namespace, "name": name}
            objects: list[dict[str, Any]] = [
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}},
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRole",
                    "metadata": {"name": namespace},
                    "rules": [{"nonResourceURLs": paths, "verbs": ["get"]}],
                },
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": namespace},
                    "roleRef": role,
                    "subjects": [subject],
                },
            ]
            cluster.kubectl("apply", "--filename=-", input="\n---\n".join(map(json.dumps, objects)))
            cleanup.callback(cluster.kubectl, "delete", "clusterrole,clusterrolebinding", namespace)
            question = {
                "user": f"system:serviceaccount:{namespace}:{name}",
                "nonResourceAttributes": {"path": paths[0].replace("*", ""), "verb": "get"},
            }
            review = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            # The authorizer hears of a role a moment after it was made.
            eventually(lambda: cluster.api("POST", review, {"spec": question}).json["status"]["allowed"])
            return namespace, name

        yield make


@pytest.fixture
def service(cluster: Cluster, namespace: str) -> Callable[..., Any]:
    """``Cluster.create_service`` in the test's namespace: ``service("grafana", ports=[3000], labels={...})``."""
    return partial(cluster.create_service, namespace)


@pytest.fixture
def program(cluster: Cluster, namespace: str) -> Iterator[Callable[..., Program]]:
    """Start the program with these settings; it is ended, in order, when the test is over."""
    with ExitStack() as cleanup:

        def start(settings: Mapping[str, Any] | None = None, *, namespace: str = namespace, **options: Any) -> Program:
            subject = Program(cluster, namespace, settings, **options)
            subject.start()
            cleanup.callback(subject.stop)
            return subject

        yield start


def _visible_progress(config: pytest.Config) -> Any:
    """Let the person who waits for minutes see why: capturing of output is off inside of the block."""
    return config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled()
