"""A ToolsetConfig configures the real program in the real cluster, and says in its status what has become of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import APPLY, Cluster
from tests.cluster.pods import Pods
from tests.documentation import ROOT
from tests.e2e.program import Program
from tests.e2e.test_events import described
from tests.waiting import Stopwatch, eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Program]

CRD = yaml.safe_load((ROOT / "deploy" / "crd.yaml").read_text())
NAME = "kubernaut-toolset-config"
GROUP = "/apis/toolset.kubernaut.io/v1alpha1"
UNCHECKED = {"healthCheck": {"enabled": False}}
"""No backend is at work in these tests: what counts is which Services are taken."""

A_SECOND = 1.0


def install(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={ROOT / 'deploy' / 'crd.yaml'}")
    cluster.kubectl("wait", "--for=condition=Established", "crd", CRD["metadata"]["name"], "--timeout=20s")
    eventually(lambda: cluster.api("GET", f"{GROUP}/toolsetconfigs").status == 200)


def remove(cluster: Cluster) -> None:
    cluster.kubectl("delete", "crd", CRD["metadata"]["name"], "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="module")
def definition(cluster: Cluster) -> Iterator[None]:
    install(cluster)
    yield
    remove(cluster)


@pytest.fixture
def services(cluster: Cluster, namespace: str) -> tuple[str, str]:
    """Two Services that are to be listed, with ready Pods behind them."""
    annotations = {"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": "orders"}
    for name in ("a", "b"):
        service = cluster.create_service(namespace, name, ports=[8080], annotations=annotations, labels={"team": name})
        Pods(cluster, service)
    return ("a", "b")


class Config:
    """A ToolsetConfig, as a person applies it."""

    def __init__(self, cluster: Cluster, namespace: str, name: str = NAME) -> None:
        self._cluster = cluster
        self._metadata = {"namespace": namespace, "name": name}
        self.path = f"{GROUP}/namespaces/{namespace}/toolsetconfigs/{name}"

    def apply(self, **spec: Any) -> int:
        """Apply, and return the generation."""
        body = {"apiVersion": "toolset.kubernaut.io/v1alpha1", "kind": "ToolsetConfig"}
        body |= {"metadata": self._metadata, "spec": spec}
        query = "?fieldManager=test&force=true"
        answer = self._cluster.api("PATCH", self.path + query, body, content_type=APPLY)
        assert answer.status in {200, 201}, answer.body
        return answer.json["metadata"]["generation"]

    def delete(self) -> None:
        assert self._cluster.api("DELETE", self.path).status == 200

    @property
    def status(self) -> Mapping[str, Any]:
        return (self._cluster.get(self.path) or {}).get("status") or {}

    def condition(self, kind: str) -> tuple[str, str]:
        found = (one for one in self.status.get("conditions", ()) if one["type"] == kind)
        return next(((one["status"], one["reason"]) for one in found), ("", ""))


@pytest.fixture
def config(cluster: Cluster, namespace: str, definition: None) -> Config:
    return Config(cluster, namespace)


def tools(program: Program) -> set[str]:
    document = program.document("toolset.json") or {"tools": []}
    return {one["metadata"]["service"] for one in document["tools"]}


def soon(program: Program, names: set[str]) -> None:
    """Wait until exactly these are published, which takes a second at most; a busy machine is given two more.

    Moments in which it stands still do not count.
    """
    with Stopwatch() as watch:
        eventually(lambda: tools(program) == names)
    assert watch.seconds < A_SECOND + 2


def test_a_resource_is_taken_up_changed_and_given_up_within_a_second(
    config: Config, program: Start, services: tuple[str, str]
) -> None:
    subject = program(UNCHECKED)
    eventually(lambda: tools(subject) == {"a", "b"})
    config.apply(selector="team=a")
    soon(subject, {"a"})
    config.apply(selector="team=b")
    soon(subject, {"b"})
    config.delete()
    soon(subject, {"a", "b"})


def test_a_file_whose_link_is_swapped_is_taken_up_within_a_second(program: Start, services: tuple[str, str]) -> None:
    subject = program(UNCHECKED)
    eventually(lambda: tools(subject) == {"a", "b"})
    subject.configure({"selector": "team=a"})
    soon(subject, {"a"})
    subject.configure({"selector": "team in ("})
    eventually(lambda: "selector" in subject.problems().get("SettingsInvalid", ""))
    assert tools(subject) == {"a"}
    subject.configure({"server": {"port": 1}})
    soon(subject, {"a", "b"})
    eventually(lambda: set(subject.problems()) == {"RestartNeeded"})


def test_an_invalid_resource_leaves_the_last_good_settings_in_force(
    cluster: Cluster, namespace: str, config: Config, program: Start, services: tuple[str, str]
) -> None:
    subject = program(UNCHECKED)
    config.apply(selector="team=a")
    eventually(lambda: tools(subject) == {"a"} and config.condition("Ready") == ("True", "Published"))
    generation = config.apply(selector="team=b", policy={"trustedTypes": ["grafanna"]})
    eventually(lambda: config.status["phase"] == "Invalid")
    assert config.status["observedGeneration"] == generation
    assert config.condition("Accepted") == ("False", "ResourceInvalid")
    assert "grafanna" in subject.problems()["ResourceInvalid"]
    assert tools(subject) == {"a"}
    config.apply(selector="team=b")
    soon(subject, {"b"})
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"toolsetconfig/{NAME}", "--timeout=10s")
    assert config.condition("Ready") == ("True", "Published")


def test_what_becomes_of_the_toolset_is_told_in_events_on_the_resource(
    cluster: Cluster, namespace: str, config: Config, program: Start, services: tuple[str, str]
) -> None:
    def told() -> set[tuple[str, str]]:
        return {(kind, reason) for kind, reason, _ in described(cluster, "toolsetconfig", namespace, NAME)}

    config.apply(selector="team=a")
    program(UNCHECKED)
    eventually(lambda: ("Normal", "Published") in told())
    config.apply(selector="team=b", policy={"trustedTypes": ["grafanna"]})
    eventually(lambda: ("Warning", "ResourceInvalid") in told())


def test_nothing_is_written_while_the_resource_says_so_and_the_status_shows_it(
    config: Config, program: Start, services: tuple[str, str]
) -> None:
    subject = program(UNCHECKED)
    eventually(lambda: tools(subject) == {"a", "b"})
    version = subject.published()["metadata"]["resourceVersion"]
    config.apply(selector="team=a", paused=True)
    eventually(lambda: config.status.get("phase") == "Paused" and config.status["wouldChange"])
    assert config.condition("Paused") == ("True", "Paused")
    config.apply(selector="team=a", dryRun=True)
    eventually(lambda: config.status["phase"] == "DryRun")
    assert any(line.startswith("-") and "b." in line for line in config.status["diff"].splitlines())
    assert subject.published()["metadata"]["resourceVersion"] == version
    config.apply(selector="team=a")
    soon(subject, {"a"})
    eventually(lambda: config.condition("Ready") == ("True", "Published"))
    assert "diff" not in config.status


def test_a_restart_never_publishes_what_the_file_says_in_place_of_the_resource(
    cluster: Cluster, config: Config, namespace: str, program: Start, services: tuple[str, str]
) -> None:
    config.apply(selector="team=a")
    subject = program(UNCHECKED)
    eventually(lambda: tools(subject) == {"a"})
    version = subject.published()["metadata"]["resourceVersion"]
    subject.stop()
    subject.start()
    eventually(lambda: any(one["event"] == "leading" for one in subject.events()))
    eventually(lambda: subject.events("service_listed"))
    time.sleep(1)
    assert subject.published()["metadata"]["resourceVersion"] == version


def test_the_kind_may_come_later_and_go_again(
    cluster: Cluster, namespace: str, program: Start, services: tuple[str, str], definition: None
) -> None:
    remove(cluster)
    try:
        subject = program(UNCHECKED)
        eventually(lambda: tools(subject) == {"a", "b"})
        install(cluster)
        Config(cluster, namespace).apply(selector="team=a")
        eventually(lambda: tools(subject) == {"a"}, 40)  # it asks every ten seconds
        assert len(subject.events("toolset_configs_absent")) == 1  # however often it was asked for
        remove(cluster)
        soon(subject, {"a", "b"})
        assert not subject.problems()
    finally:
        install(cluster)  # for the tests after this one


def test_the_status_takes_no_more_than_its_own_permission_and_nothing_at_rest(
    cluster: Cluster, config: Config, namespace: str, program: Start, services: tuple[str, str]
) -> None:
    config.apply(selector="team=a")
    subject = program(UNCHECKED)
    told = eventually(lambda: config.status if config.condition("Ready") == ("True", "Published") else None)
    assert told["servicesDiscovered"] == told["servicesHealthy"] == 1
    assert [one["name"] for one in told["discoveredServices"]] == ["a"]
    assert all(one["observedGeneration"] == 1 for one in told["conditions"])

    path, token = config.path, cluster.token(namespace, "dynamic-toolset")
    for refused in (("PATCH", path), ("PUT", path), ("PUT", f"{path}/status"), ("DELETE", path), ("GET", path)):
        answer = cluster.api(*refused, {}, token=token, content_type="application/merge-patch+json")
        assert answer.status in {403, 415}, refused

    def requests() -> Counter[tuple[str, str]]:
        mine = (one for one in cluster.audit() if one.user == subject.user and one.stage == "ResponseComplete")
        return Counter((one.verb, one.resource) for one in mine if one.resource.startswith("toolsetconfigs"))

    def asked_at_rest() -> Counter[tuple[str, str]] | None:
        before = requests()
        time.sleep(6)
        return before if requests() == before else None

    # What was left to be told of the beginning may come yet, some seconds after the first.
    assert eventually(asked_at_rest)["list", "toolsetconfigs"] == 1

    stranger = {"status": {"phase": "Lost", "servicesHealthy": 99}}
    answer = cluster.api("PATCH", f"{path}/status", stranger, content_type="application/merge-patch+json")
    assert answer.status == 200
    config.apply(selector="team=b")
    eventually(lambda: (config.status["phase"], config.status["servicesHealthy"]) == ("Ready", 1))


def test_of_a_thousand_changes_in_a_minute_the_last_one_wins(
    cluster: Cluster, config: Config, program: Start, services: tuple[str, str]
) -> None:
    config.apply(selector="team=a")
    subject = program(UNCHECKED)
    eventually(lambda: tools(subject) == {"a"})
    began = time.monotonic()
    for number in range(1000):
        config.apply(selector="team in (a, b)", namespaces={"exclude": [f"n{number}"]})
        time.sleep(max(0.0, began + number * 0.06 - time.monotonic()))
    took = time.monotonic() - began
    generation = config.apply(selector="team=b")
    soon(subject, {"b"})
    eventually(lambda: config.status["observedGeneration"] == generation)
    eventually(lambda: config.condition("Ready") == ("True", "Published"))
    changes = len(subject.events("settings_changed"))
    assert changes < took + 10
    mine = [one for one in cluster.audit() if one.user == subject.user and one.resource == "toolsetconfigs/status"]
    assert len(mine) < took / 2 + 5
    assert not subject.problems()


def test_two_instances_side_by_side_do_not_disturb_each_other(
    cluster: Cluster, config: Config, namespace: str, make_namespace: Callable[[], str], program: Start
) -> None:
    """In one namespace: each has its own ToolsetConfig, ConfigMap, Lease, and namespaces to look at."""
    annotations = {"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": "orders"}
    shops = [make_namespace() for _ in range(2)]
    for number, shop in enumerate(shops):
        Pods(cluster, cluster.create_service(shop, f"s{number}", ports=[8080], annotations=annotations))
    configs = [Config(cluster, namespace, name) for name in ("one", "two")]
    for one, shop in zip(configs, shops, strict=True):
        one.apply(namespaces={"include": [shop]})
    subjects = [
        program(UNCHECKED, config_map=name, service_account=f"dynamic-toolset-{name}") for name in ("one", "two")
    ]
    for number, (subject, one) in enumerate(zip(subjects, configs, strict=True)):
        eventually(lambda subject=subject, number=number: tools(subject) == {f"s{number}"})
        eventually(lambda one=one: one.condition("Ready") == ("True", "Published"))
    versions = [cluster.get(one.path)["metadata"]["resourceVersion"] for one in configs]
    configs[0].apply(namespaces={"include": [shops[1]]})
    eventually(lambda: tools(subjects[0]) == {"s1"})
    eventually(lambda: configs[0].status["observedGeneration"] == 2)
    assert cluster.get(configs[1].path)["metadata"]["resourceVersion"] == versions[1]
    assert tools(subjects[1]) == {"s1"}
    for subject in subjects:
        assert not subject.problems()
        assert len(subject.events("leading")) >= 1
