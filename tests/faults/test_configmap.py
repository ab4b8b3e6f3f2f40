"""The ConfigMap under other hands: deleted, edited, fought for, locked, owned, full of nonsense, or with no place."""

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.cluster import APPLY, Cluster, KubectlFailed
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
from tests.e2e.test_lifecycle import MERGE, annotate, tools
from tests.waiting import eventually

pytestmark = pytest.mark.faults

Start = Callable[..., Program]

CONFIG_MAP = "kubernaut-toolset-config"
OURS = ("custom_toolset.yaml", "toolset.json")


@pytest.fixture
def orders(cluster: Cluster, namespace: str) -> Iterator[None]:
    """One Service that is to be published."""
    with team_api(cluster, namespace, "orders", health_path="/"):
        yield


@pytest.fixture
def subject(orders: None, program: Start) -> Program:
    """The program, with that Service published."""
    running = program()
    eventually(lambda: tools(running), within=20)
    return running


def path(subject: Program) -> str:
    return f"/api/v1/namespaces/{subject.namespace}/configmaps/{CONFIG_MAP}"


def edit(cluster: Cluster, subject: Program, change: dict[str, Any]) -> None:
    answer = cluster.api("PATCH", path(subject), change, content_type=MERGE)
    assert answer.status == 200, answer


def manifest(subject: Program, data: dict[str, str]) -> str:
    """The ConfigMap as somebody else has it in a file."""
    metadata = {"name": CONFIG_MAP, "namespace": subject.namespace}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def documents(subject: Program) -> dict[str, str]:
    data = (subject.published() or {}).get("data") or {}
    return {key: text for key, text in data.items() if key in OURS}


def writes(cluster: Cluster, subject: Program) -> list[int]:
    """The status of each request of the program that would write the ConfigMap."""
    return [
        event.code
        for event in cluster.audit()
        if event.user == subject.user and event.is_write and event.resource == "configmaps"
    ]


def settled(cluster: Cluster, subject: Program) -> int:
    """Wait until what is published has been said and noted as well, and return how many writes there have been.

    They may be two: a Service whose first answer takes more than a second is not in the first publication. The program
    says that a Service is listed once it is written, and the audit log has a line for a request once it is answered.
    """
    eventually(lambda: tools(subject).keys() <= {one["service"] for one in subject.events("service_listed")})
    eventually(lambda: sum(code < 300 for code in writes(cluster, subject)) >= len(subject.events("published")))
    return len(writes(cluster, subject))


def problem(subject: Program, reason: str) -> str:
    """Wait for a problem, and return what the program says of it."""
    return eventually(lambda: subject.problems().get(reason), within=20)


# --- By hand, and by kubectl -----------------------------------------------------------------------------------------


def test_a_single_edit_or_deletion_by_hand_is_put_right_at_once(cluster: Cluster, subject: Program) -> None:
    good = documents(subject)
    edit(cluster, subject, {"data": {"custom_toolset.yaml": "toolsets: {}"}, "metadata": {"labels": None}})
    eventually(lambda: documents(subject) == good and "labels" in subject.published()["metadata"])
    assert cluster.api("DELETE", path(subject)).status == 200
    eventually(lambda: documents(subject) == good)
    assert "problem" not in {event["event"] for event in subject.events()}


def test_kubectl_apply_cannot_take_our_keys_and_keeps_its_own(cluster: Cluster, subject: Program) -> None:
    good = documents(subject)
    theirs = manifest(subject, {"custom_toolset.yaml": "toolsets: {}", "notes.txt": "theirs"})
    with pytest.raises(KubectlFailed, match=r'conflict with "dynamic-toolset": \.data\.custom_toolset\.yaml'):
        cluster.kubectl("apply", "--server-side", "--filename=-", input=theirs)
    assert documents(subject) == good
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=theirs)
    eventually(lambda: documents(subject) == good)
    cluster.kubectl("apply", "--filename=-", input=theirs)
    eventually(lambda: documents(subject) == good)
    assert subject.published()["data"]["notes.txt"] == "theirs"


def test_kubectl_replace_replaces_all_but_our_keys(cluster: Cluster, subject: Program) -> None:
    good = documents(subject)
    edit(cluster, subject, {"data": {"overrides.yaml": "internet: {enabled: true}\n"}})
    eventually(lambda: "internet" in documents(subject)["custom_toolset.yaml"])
    cluster.kubectl("replace", "--filename=-", input=manifest(subject, {"notes.txt": "theirs"}))
    eventually(lambda: subject.published()["data"] == good | {"notes.txt": "theirs"})
    assert "kubernaut.io/managed-by" in subject.published()["metadata"]["labels"]


# --- Again and again -------------------------------------------------------------------------------------------------


@contextmanager
def again_and_again(do: Callable[[], None], every: float) -> Iterator[None]:
    """Do something for as long as the block lasts; what goes wrong with it is raised at the end."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every):
            do()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            over.set()
    running.result()


def test_deleted_every_second_it_comes_back_ever_more_slowly_and_then_for_good(
    cluster: Cluster, subject: Program
) -> None:
    good = documents(subject)

    def delete() -> None:
        assert cluster.api("DELETE", path(subject)).status in (200, 404)

    with again_and_again(delete, every=1):
        said = problem(subject, "ConfigMapContested")
        assert "by somebody who deletes it" in said
        eventually(lambda: _rounds(subject) >= 5, within=30)
    # The first one, two that are put right at once, and those after pauses of 1, 2 and 4 seconds.
    assert len(writes(cluster, subject)) <= 7
    eventually(lambda: documents(subject) == good, within=25)
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/moved"})
    eventually(lambda: "/moved" in documents(subject)["toolset.json"])


def test_who_fights_for_our_keys_is_named_and_answered_ever_more_slowly(cluster: Cluster, subject: Program) -> None:
    good = documents(subject)
    theirs = {"custom_toolset.yaml": "toolsets: {theirs: {}}", "toolset.json": "[]"}
    overwritten = 0

    def fight() -> None:
        """Put their word in the place of ours as soon as that is seen, as a second controller would."""
        nonlocal overwritten
        if documents(subject) != theirs:
            body = json.loads(manifest(subject, theirs))
            answer = cluster.api(
                "PATCH", f"{path(subject)}?fieldManager=rival-controller&force=true", body, content_type=APPLY
            )
            assert answer.status in (200, 201), answer
            overwritten += 1

    with again_and_again(fight, every=0.01):
        said = problem(subject, "ConfigMapContested")
        assert re.search(r"changed \d+ times in a row by rival-controller;", said)
        assert f"{subject.namespace}/{CONFIG_MAP}" in said
        eventually(lambda: _rounds(subject) >= 5, within=30)  # after 1 + 2 s
        # A change of our own is no reason to hurry.
        annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/moved"})
        eventually(lambda: _rounds(subject) >= 6, within=30)  # and 4
    assert overwritten >= 5
    assert len(writes(cluster, subject)) <= 8
    assert len(subject.events("problem")) <= 8
    eventually(lambda: documents(subject).keys() == good.keys() and "/moved" in str(documents(subject)), within=30)
    assert "ConfigMapContested" in subject.problems(), "until ten minutes have been quiet"


def _rounds(subject: Program) -> int:
    """How many rounds the program says that the fight has had."""
    found = re.search(r"changed (\d+) times", subject.problems().get("ConfigMapContested", ""))
    return int(found[1]) if found else 0


# --- Not ours to write -----------------------------------------------------------------------------------------------


def test_an_immutable_one_is_left_alone_until_it_is_deleted(cluster: Cluster, subject: Program) -> None:
    good = documents(subject)
    written = settled(cluster, subject)
    edit(cluster, subject, {"immutable": True})
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/moved"})
    said = problem(subject, "ConfigMapImmutable")
    assert f"{subject.namespace}/{CONFIG_MAP}" in said
    assert "delete it" in said
    assert documents(subject) == good
    assert writes(cluster, subject)[written:] == []
    assert cluster.api("DELETE", path(subject)).status == 200
    eventually(lambda: "/moved" in documents(subject).get("toolset.json", ""))
    eventually(lambda: subject.problems() == {})


HELM = {
    "labels": {"app.kubernetes.io/managed-by": "Helm"},
    "annotations": {"meta.helm.sh/release-name": "holmes", "meta.helm.sh/release-namespace": "holmes"},
}


def create(cluster: Cluster, namespace: str, data: dict[str, str], **metadata: Any) -> None:
    body = {"metadata": {"name": CONFIG_MAP, **metadata}, "data": data}
    answer = cluster.api("POST", f"/api/v1/namespaces/{namespace}/configmaps?fieldManager=helm", body)
    assert answer.status == 201, answer


def test_a_toolset_file_of_somebody_else_is_not_destroyed_until_it_is_handed_over(
    cluster: Cluster, namespace: str, orders: None, program: Start
) -> None:
    theirs = {"custom_toolset.yaml": "toolsets:\n  theirs: {enabled: true}\n", "notes.txt": "theirs"}
    create(cluster, namespace, theirs, **HELM)
    subject = program()
    said = problem(subject, "ConfigMapForeign")
    for word in (f"{namespace}/{CONFIG_MAP}", "custom_toolset.yaml", "helm", "configMap.name"):
        assert word in said
    assert subject.published()["data"] == theirs
    assert writes(cluster, subject) == []
    found = re.search(r"\(kubectl (label [^)]*)\)", said)
    assert found, said
    cluster.kubectl(*shlex.split(found[1]))  # what it says is what helps
    eventually(lambda: tools(subject))
    eventually(lambda: subject.problems() == {})
    now = subject.published()
    assert now["data"]["notes.txt"] == "theirs"
    assert now["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert now["metadata"]["annotations"].items() >= HELM["annotations"].items()


def test_one_that_somebody_prepared_with_overrides_is_used(
    cluster: Cluster, namespace: str, orders: None, program: Start
) -> None:
    prepared = {"overrides.yaml": "internet: {enabled: true}\n", "custom_toolset.yaml": ""}
    create(cluster, namespace, prepared, **HELM)
    subject = program()
    eventually(lambda: tools(subject), within=20)
    assert "internet" in documents(subject)["custom_toolset.yaml"]
    assert subject.published()["data"]["overrides.yaml"] == prepared["overrides.yaml"]
    assert subject.problems() == {}


def test_a_key_that_somebody_holds_as_binary_is_named_and_taken_back_once_it_is_free(
    cluster: Cluster, subject: Program
) -> None:
    good = documents(subject)
    edit(cluster, subject, {"data": {"toolset.json": None}, "binaryData": {"toolset.json": "AAECAw=="}})
    said = problem(subject, "PublicationFailed")
    assert "toolset.json" in said
    assert "binaryData" in said
    edit(cluster, subject, {"binaryData": None})
    eventually(lambda: documents(subject) == good)


# --- Overrides that cannot be used -----------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{below}'])}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("toolsets: [not, a, mapping", "overrides.yaml:2: not valid YAML: ", id="broken"),
        pytest.param(
            BOMB, "overrides.yaml:5: e[2]: more than 30000 values and names, with aliases expanded", id="alias bomb"
        ),
        pytest.param("x: " + 900 * 1024 * "y", "921603 bytes", id="900 KiB"),
        pytest.param("- a\n- b\n", "overrides.yaml:1: this is a list", id="a list"),
        pytest.param("toolsets: 5\n", "toolsets: this is 5", id="a number"),
        pytest.param("internet: yes please\n", "internet: this is the text", id="a text"),
        pytest.param("internet: {enabled: 'true'}\n", "internet.enabled: this is the text", id="a text for a boolean"),
        pytest.param(
            "kubernetes/logs: {config: [a]}\n", "kubernetes/logs.config: this is a list", id="a list for a mapping"
        ),
        pytest.param(
            "internet: !!python/object/apply:os.system [id]\n",
            "internet: the tag python/object/apply:os.system is not allowed",
            id="a tag",
        ),
        pytest.param("\x01\x02", "control characters are not allowed", id="control characters"),
        pytest.param(5000 * "[", ": nested more than 32 deep", id="deep"),
    ],
)
def test_with_overrides_that_cannot_be_used_what_was_published_stays(
    cluster: Cluster, subject: Program, text: str, expected: str
) -> None:
    good = documents(subject)
    written = settled(cluster, subject)
    edit(cluster, subject, {"data": {"overrides.yaml": text}})
    assert expected in problem(subject, "OverridesInvalid")
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/moved"})
    eventually(lambda: len([one for one in subject.events("service_listed") if one["endpoint"].endswith("/moved")]) > 0)
    assert documents(subject) == good
    assert writes(cluster, subject)[written:] == []
    edit(cluster, subject, {"data": {"overrides.yaml": None}})
    eventually(lambda: "/moved" in documents(subject)["toolset.json"])
    eventually(lambda: subject.problems() == {})


# --- Nowhere to put it -----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(cluster: Cluster, namespace: str) -> Iterator[str]:
    """The name of a namespace that does not exist yet, and that the program may publish into all the same."""
    name = f"{namespace}-target"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [CONFIG_MAP], "verbs": ["*"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [CONFIG_MAP],
                "verbs": ["*"],
            },
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "dynamic-toolset", "namespace": namespace}],
    }
    cluster.kubectl("apply", "--filename=-", input=json.dumps(role))
    cluster.kubectl("apply", "--filename=-", input=json.dumps(binding))
    yield name
    cluster.kubectl("delete", "clusterrole,clusterrolebinding", name)
    if cluster.get(f"/api/v1/namespaces/{name}"):
        cluster.delete_namespace(name)


def published_in(cluster: Cluster, namespace: str) -> dict[str, str]:
    found = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}") or {}
    return {key: text for key, text in (found.get("data") or {}).items() if key in OURS}


def alone(namespace: str) -> dict[str, Any]:
    """Settings to publish into another namespace, as the only instance."""
    return {"configMap": {"namespace": namespace}, "leaderElection": {"enabled": False}}


@pytest.mark.parametrize("election", [True, False], ids=["election", "alone"])
def test_a_namespace_that_does_not_exist_yet_is_named_and_used_once_it_does(
    cluster: Cluster, orders: None, program: Start, elsewhere: str, election: bool
) -> None:
    subject = program({**alone(elsewhere), "leaderElection": {"enabled": election}})
    said = problem(subject, "LeaseUnavailable" if election else "PublicationFailed")
    assert f'namespaces "{elsewhere}" not found' in said
    cluster.create_namespace(elsewhere)
    eventually(lambda: published_in(cluster, elsewhere), within=30)
    eventually(lambda: subject.problems() == {})


def test_a_namespace_that_is_being_deleted_is_named_and_used_again_once_it_is_made_anew(
    cluster: Cluster, orders: None, program: Start, elsewhere: str
) -> None:
    cluster.create_namespace(elsewhere)
    subject = program(alone(elsewhere))
    eventually(lambda: published_in(cluster, elsewhere), within=20)
    keeper = {"metadata": {"name": "keeper", "finalizers": ["example.com/keep"]}}
    keepers = f"/api/v1/namespaces/{elsewhere}/configmaps"
    assert cluster.api("POST", keepers, keeper).status == 201
    cluster.delete_namespace(elsewhere)
    said = problem(subject, "PublicationFailed")
    assert f"unable to create new content in namespace {elsewhere} because it is being terminated" in said
    attempts = len(writes(cluster, subject))
    edit_keeper = {"metadata": {"finalizers": None}}
    assert cluster.api("PATCH", f"{keepers}/keeper", edit_keeper, content_type=MERGE).status == 200
    eventually(lambda: cluster.get(f"/api/v1/namespaces/{elsewhere}") is None, within=30)
    cluster.create_namespace(elsewhere)
    eventually(lambda: published_in(cluster, elsewhere), within=60)
    eventually(lambda: subject.problems() == {})
    assert len(writes(cluster, subject)) - attempts <= 8, "with pauses that grow"


def test_a_quota_that_is_exceeded_is_named_and_nothing_more_is_needed_than_room(
    cluster: Cluster, orders: None, program: Start, elsewhere: str
) -> None:
    cluster.create_namespace(elsewhere)
    quotas = f"/api/v1/namespaces/{elsewhere}/resourcequotas"
    full = {"count/configmaps": "0"}
    quota = {"metadata": {"name": "full"}, "spec": {"hard": full}}
    assert cluster.api("POST", quotas, quota).status == 201
    # What the quota controller would do, which does not run here.
    counted = {"status": {"hard": full, "used": full}}
    assert cluster.api("PATCH", f"{quotas}/full/status", counted, content_type=MERGE).status == 200
    subject = program(alone(elsewhere))
    said = problem(subject, "PublicationFailed")
    assert "exceeded quota: full, requested: count/configmaps=1" in said
    assert published_in(cluster, elsewhere) == {}
    assert cluster.api("DELETE", f"{quotas}/full").status == 200
    eventually(lambda: published_in(cluster, elsewhere), within=60)
    eventually(lambda: subject.problems() == {})
