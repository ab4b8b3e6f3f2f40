"""The ConfigMap: what is ours is put right, what is people's is kept, and nothing is written at rest."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dynamic_toolset.publication.configmap import MAX_BYTES
from tests.cluster.cluster import APPLY, Cluster
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
from tests.e2e.test_lifecycle import MERGE, annotate, tools, toolsets
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Program]


@pytest.fixture
def subject(cluster: Cluster, namespace: str, program: Start) -> Iterator[Program]:
    """The program, with one Service published."""
    with team_api(cluster, namespace, "orders", health_path="/"):
        running = program()
        eventually(lambda: tools(running))
        yield running


def path(subject: Program) -> str:
    return f"/api/v1/namespaces/{subject.namespace}/configmaps/{subject.config_map}"


def edit(cluster: Cluster, subject: Program, change: dict[str, Any]) -> None:
    answer = cluster.api("PATCH", path(subject), change, content_type=MERGE)
    assert answer.status == 200, answer


def writes(cluster: Cluster, subject: Program, skip: int = 0) -> list[str]:
    """What the program did to the ConfigMap. Its Lease it renews again and again, and what it tells is in Events."""
    mine = (event for event in cluster.audit(skip) if event.user == subject.user)
    return [event.verb for event in mine if event.is_write and event.resource not in {"leases", "events"}]


def test_what_somebody_edits_or_deletes_by_hand_is_put_right(cluster: Cluster, subject: Program) -> None:
    good = subject.published()["data"]
    edit(cluster, subject, {"data": {"custom_toolset.yaml": "toolsets: {}"}})
    eventually(lambda: subject.published().get("data") == good)
    edit(cluster, subject, {"data": {"toolset.json": None, "custom_toolset.yaml": None}})
    eventually(lambda: subject.published().get("data") == good)
    for _ in range(3):
        assert cluster.api("DELETE", path(subject)).status == 200
        eventually(lambda: (subject.published() or {}).get("data") == good)


def test_what_is_not_ours_survives_every_write(cluster: Cluster, subject: Program) -> None:
    theirs = "toolsets:\n  internet:\n    enabled: true # by hand\n"
    edit(
        cluster,
        subject,
        {
            "metadata": {"labels": {"team": "sre"}, "annotations": {"note": "ours"}},
            "data": {"overrides.yaml": theirs, "notes.txt": "kept"},
        },
    )
    eventually(lambda: "internet" in toolsets(subject))
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/moved"})
    eventually(lambda: any(url.endswith("/moved") for url in tools(subject).values()))
    now = subject.published()
    assert now["data"]["overrides.yaml"] == theirs
    assert now["data"]["notes.txt"] == "kept"
    assert now["metadata"]["labels"]["team"] == "sre"
    assert now["metadata"]["annotations"]["note"] == "ours"


def test_overrides_switch_off_remove_and_change(cluster: Cluster, subject: Program) -> None:
    name = f"orders-{subject.namespace}-orders"
    edit(cluster, subject, {"data": {"overrides.yaml": f"{name}: {{enabled: false}}\nkubernetes/logs: null\n"}})
    eventually(lambda: "kubernetes/logs" not in toolsets(subject))
    assert subject.document("custom_toolset.yaml")["toolsets"][name]["enabled"] is False
    edit(cluster, subject, {"data": {"overrides.yaml": None}})
    eventually(lambda: "kubernetes/logs" in toolsets(subject))
    assert subject.document("custom_toolset.yaml")["toolsets"][name]["enabled"] is True


def test_with_broken_overrides_the_last_good_result_stays_also_after_a_restart(
    cluster: Cluster, subject: Program
) -> None:
    good = subject.published()["data"]["custom_toolset.yaml"]
    edit(cluster, subject, {"data": {"overrides.yaml": "toolsets: [not, a, mapping"}})
    eventually(lambda: "OverridesInvalid" in subject.log)
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset": "disabled"})
    eventually(lambda: subject.events("service_gone"))  # it knows, and has decided
    assert subject.published()["data"]["custom_toolset.yaml"] == good
    subject.stop()
    subject.start()
    eventually(lambda: "OverridesInvalid" in subject.log)
    assert subject.published()["data"]["custom_toolset.yaml"] == good
    edit(cluster, subject, {"data": {"overrides.yaml": None}})
    eventually(lambda: tools(subject) == {})


def test_a_concurrent_editor_loses_nothing(cluster: Cluster, subject: Program) -> None:
    """Somebody writes overrides again and again while the program publishes: both end where they should."""
    stop = threading.Event()
    last = 0

    def edit_on() -> None:
        nonlocal last
        while not stop.is_set():
            last += 1
            edit(cluster, subject, {"data": {"overrides.yaml": f"internet: {{enabled: true, description: n{last}}}\n"}})
            stop.wait(0.02)  # without it a busy machine would let nobody else in between

    editor = threading.Thread(target=edit_on)
    editor.start()
    try:
        for number in range(10):
            annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": f"/v{number}"})
            eventually(lambda wanted=f"/v{number}": next(iter(tools(subject).values())).endswith(wanted), within=30)
    finally:
        stop.set()
        editor.join()
    overrides = f"internet: {{enabled: true, description: n{last}}}\n"
    assert subject.published()["data"]["overrides.yaml"] == overrides
    eventually(
        lambda: subject.document("custom_toolset.yaml")["toolsets"]["internet"]["description"] == f"n{last}", within=20
    )


def test_a_field_that_another_manager_applied_is_taken_over(cluster: Cluster, subject: Program) -> None:
    good = subject.published()["data"]["custom_toolset.yaml"]
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": subject.config_map},
        "data": {"custom_toolset.yaml": "theirs", "their-key": "kept"},
    }
    answer = cluster.api("PATCH", f"{path(subject)}?fieldManager=somebody&force=true", body, content_type=APPLY)
    assert answer.status == 200
    eventually(lambda: subject.published()["data"]["custom_toolset.yaml"] == good)
    assert subject.published()["data"]["their-key"] == "kept"


def test_nothing_is_asked_for_at_rest(cluster: Cluster, subject: Program) -> None:
    # What is published has been said, and is in the audit log: that comes after the answer.
    eventually(lambda: subject.events("service_listed"))
    eventually(lambda: len(writes(cluster, subject)) >= len(subject.events("published")))
    seen = len(list(cluster.audit()))
    # Changes that mean nothing: a Service that is no backend, and a label of one that is.
    for number in range(5):
        cluster.create_service(subject.namespace, f"plain-{number}", ports=[80])
    path = f"/api/v1/namespaces/{subject.namespace}/services/orders"
    assert cluster.api("PATCH", path, {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE).status == 200
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/new"})
    eventually(lambda: next(iter(tools(subject).values())).endswith("/new"))
    eventually(lambda: writes(cluster, subject, seen) == ["patch"])
    mine = (event for event in cluster.audit(seen) if event.user == subject.user)
    assert not [event for event in mine if event.verb in ("list", "get")]


def test_too_large_a_result_is_refused_and_the_last_good_one_stays(cluster: Cluster, subject: Program) -> None:
    good = subject.published()["data"]["custom_toolset.yaml"]
    used = sum(len(key) + len(text) for key, text in subject.published()["data"].items())
    edit(cluster, subject, {"data": {"notes.txt": "x" * (MAX_BYTES - used - 10)}})
    annotate(cluster, subject.namespace, "orders", {"kubernaut.io/toolset-path": "/a/longer/path"})
    eventually(lambda: "TooLarge" in subject.log)
    assert subject.published()["data"]["custom_toolset.yaml"] == good
    edit(cluster, subject, {"data": {"notes.txt": None}})
    eventually(lambda: "/a/longer/path" in subject.published()["data"]["custom_toolset.yaml"])


def test_two_instances_in_two_namespaces_leave_each_other_alone(
    cluster: Cluster, make_namespace: Callable[[], str], program: Start
) -> None:
    first, second = make_namespace(), make_namespace()
    with team_api(cluster, first, "a", health_path="/"), team_api(cluster, second, "b", health_path="/"):
        one = program({"namespaces": {"include": [first]}}, namespace=first)
        two = program({"namespaces": {"include": [second]}}, namespace=second)
        eventually(lambda: set(tools(one)) == {f"{first}/a"})
        eventually(lambda: set(tools(two)) == {f"{second}/b"})
        for subject, own in ((one, first), (two, second)):
            assert {event.namespace for event in cluster.audit() if event.user == subject.user and event.is_write} == {
                own
            }
