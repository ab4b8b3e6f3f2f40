"""Whoever may create a Service reaches no further through the program than through a Pod of his own."""

import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cluster.cluster import APPLY, Cluster
from tests.cluster.mounts import with_resolv_conf
from tests.e2e.program import Program
from tests.e2e.test_lifecycle import tools
from tests.faults import hostile
from tests.faults.hostile import Behaviour, Servers, create_pod, own_selector
from tests.faults.test_backends import running
from tests.faults.test_configmap import writes
from tests.waiting import eventually

pytestmark = pytest.mark.faults

Start = Callable[..., Program]


class Tenants:
    """Creates Services as their owners do. On the address of each something answers well."""

    def __init__(self, cluster: Cluster, servers: Servers) -> None:
        self._cluster = cluster
        self.servers = servers

    def create(
        self,
        namespace: str,
        name: str,
        *,
        annotations: Mapping[str, str] = {},
        slices: Sequence[Sequence[str]] = (),
        behaviour: Behaviour = hostile.healthy,
        **spec: Any,
    ) -> dict[str, Any]:
        """Create a Service that asks to be listed, with its annotations (without prefix), and return it.

        ``slices`` are the addresses of EndpointSlices that somebody has written for it before.
        """
        for number, addresses in enumerate(slices):
            self.write_slice(namespace, name, addresses, number)
        wanted = {"type": "orders", "health-path": "/"} | annotations
        service: dict[str, Any] = self._cluster.create_service(
            namespace,
            name,
            ports=[self.servers.port],
            annotations={f"kubernaut.io/toolset-{key}": value for key, value in wanted.items()},
            **({"selector": own_selector(name)} | spec),
        )
        self.servers.put(service["spec"].get("clusterIP", ""), behaviour)
        return service

    def write_slice(self, namespace: str, service: str, addresses: Sequence[str], number: int = 0) -> None:
        """Write an EndpointSlice by hand, or write it anew."""
        name = f"{service}-by-hand-{number}"
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": f"IPv{ip_address(addresses[0]).version}",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"port": self.servers.port}],
        }
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"
        answer = self._cluster.api("PATCH", f"{path}?fieldManager=somebody", body, content_type=APPLY)
        assert answer.status in (200, 201), answer


@pytest.fixture
def tenants(cluster: Cluster) -> Iterator[Tenants]:
    with Servers() as servers:
        yield Tenants(cluster, servers)


def explain(
    cluster: Cluster, folder: Path, settings: Mapping[str, Any], service: str, resolv_conf: Path | None = None
) -> dict[str, Any]:
    """Run ``dynamic-toolset explain`` as somebody with a kubeconfig does, and return what it says."""
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(dict(settings)))
    command: list[str | Path] = [sys.executable, "-m", "dynamic_toolset", "explain", service, "--output=json"]
    command += [f"--kubeconfig={cluster.kubeconfig}", f"--config={file}"]
    if resolv_conf:
        command = with_resolv_conf(resolv_conf, command)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    (one,) = json.loads(ended.stdout)["services"]
    return dict(one)


def reason(said: Mapping[str, Any]) -> str:
    """Why a Service is, or is not, listed: by what its check found, or else by what was decided before."""
    return str(said.get("healthReason") or said["reason"])


# --- Where a Service may lead, and who may publish what --------------------------------------------------------------


class Case(NamedTuple):
    """A Service, and why it is not listed, as a regular expression; None if it is.

    In annotations and ``external`` {tenant} and so on stand for the names of namespaces, {port} for that of all servers
    here, and {api_port} for that of the Kubernetes API. {forbidden} is the address of a server of the platform which
    the settings refuse, and ``forbidden`` the name of its Service: whoever dials it is seen.
    """

    reason: str | None
    annotations: Mapping[str, str] = {}
    slices: Sequence[Sequence[str]] = ()
    behaviour: Behaviour = hostile.healthy
    selector: bool = True
    external: str | None = None

    @property
    def has_pods(self) -> bool:
        return self.selector and not self.external


def to(url: str) -> dict[str, str]:
    return {"endpoint": url}


POD = "10.0.0.1"
ALIBABA, AZURE = "100.100.100.200", "168.63.129.16"
BY_NAT64 = "64:ff9b::a9fe:a9fe"

BY_HAND = r"it has no selector, .*: the setting policy\.withoutSelector can allow that for its namespace"
BY_ANNOTATION = r"annotation kubernaut\.io/toolset-endpoint leads to \".*\", not to .*"
FOREIGN = r": the setting policy\.foreignEndpoints can allow that for its namespace"
ALIAS = r"it is of type ExternalName and leads to \".*\"" + FOREIGN
NO_HOST = r", and that is no host name: .*"
API = "it leads to the Kubernetes API, which is never listed"
METADATA = r"is a metadata address, which is not dialled \(policy\.allowedRanges can allow it\)"
FORBIDDEN = r"127\.[\d.]+ is in 127\.[\d.]+/32, which policy\.refusedRanges refuses"

CASES = {
    # Nothing is granted to this namespace.
    "tenant": {
        "own-name": Case(None, to("http://own-name.{tenant}.svc:{port}/v1")),
        "by-hand": Case(BY_HAND, slices=[[POD]], selector=False),
        "to-a-host": Case(BY_ANNOTATION + FOREIGN, to("http://grafana.example.com:3000")),
        "to-metadata": Case(BY_ANNOTATION + FOREIGN, to("http://169.254.169.254:80/latest/meta-data")),
        "to-a-neighbour": Case(BY_ANNOTATION + FOREIGN, to("http://forbidden.{platform}.svc.cluster.local:{port}")),
        "to-its-address": Case(BY_ANNOTATION + FOREIGN, to("http://{forbidden}:{port}")),
        "to-an-address-in-decimal": Case(BY_ANNOTATION + NO_HOST, to("http://2852039166:80")),
        "to-an-address-in-octal": Case(BY_ANNOTATION + NO_HOST, to("http://0251.0376.0251.0376:80")),
        "to-the-api": Case(API, to("https://kubernetes.default.svc:443")),
        "alias-of-metadata": Case(ALIAS, external="metadata.google.internal"),
        "alias-of-an-address": Case(ALIAS, external="169.254.169.254"),
        "alias-of-a-neighbour": Case(ALIAS, external="forbidden.{platform}.svc.cluster.local"),
        "alias-of-its-address": Case(ALIAS, external="{forbidden}"),
        "alias-of-the-api": Case(API, external="kubernetes.default.svc.cluster.local"),
        "prometheus": Case(
            r"the setting policy\.trustedNamespaces does not have its namespace, as it must for prometheus",
            {"type": "prometheus"},
            behaviour=hostile.prometheus,
        ),
    },
    # Everything is granted that can be.
    "granted": {
        "by-hand": Case(None, slices=[[POD]], selector=False),
        "by-hand-to-metadata": Case(f"its EndpointSlice .*: {ALIBABA} {METADATA}", slices=[[ALIBABA]], selector=False),
        "by-hand-to-azure": Case(f"its EndpointSlice .*: {AZURE} {METADATA}", slices=[[AZURE]], selector=False),
        "one-of-two": Case(f"its EndpointSlice .*: {ALIBABA} {METADATA}", slices=[[POD, ALIBABA]], selector=False),
        "in-a-second-slice": Case(f".*: {ALIBABA} {METADATA}", slices=[[POD], [ALIBABA]], selector=False),
        "beside-its-pods": Case(f"its EndpointSlice .*: {ALIBABA} {METADATA}", slices=[[ALIBABA]]),
        "by-nat64": Case(
            rf"its EndpointSlice .*: {BY_NAT64} leads to 169\.254\.169\.254, a link-local address, .*",
            slices=[[BY_NAT64]],
            selector=False,
        ),
        "to-the-api-server": Case(
            r"127\.0\.0\.1 is the Kubernetes API server, which is never dialled", to("http://127.0.0.1:{api_port}")
        ),
        "to-a-neighbour": Case(None, to("http://neighbour.{platform}.svc.cluster.local:{port}")),
        "to-a-refused-address": Case(FORBIDDEN, to("http://{forbidden}:{port}")),
        "to-a-refused-name": Case(
            rf"forbidden\..* resolves to .*: {FORBIDDEN}", to("http://forbidden.{platform}.svc.cluster.local:{port}")
        ),
        "alias-of-a-refused-address": Case(FORBIDDEN, external="{forbidden}"),
        "alias-of-a-refused-name": Case(
            rf"forbidden\..* resolves to .*: {FORBIDDEN}", external="forbidden.{platform}.svc.cluster.local"
        ),
        "alias-of-an-address": Case(
            r"169\.254\.169\.254 is a link-local address, which is not dialled .*", external="169.254.169.254"
        ),
        "alias-of-a-neighbour": Case(None, external="neighbour.{platform}.svc.cluster.local"),
        "alias-of-a-name-of-metadata": Case(
            rf"astray\..* resolves to {ALIBABA}: {ALIBABA} {METADATA}", external="astray.{platform}.svc.cluster.local"
        ),
        "alias-of-the-api": Case(API, external="kubernetes.default.svc.cluster.local"),
    },
    "limited": {
        "orders": Case(None),
        "loki": Case(
            r"the setting policy\.allowedTypes lets its namespace publish custom, grafana, not loki", {"type": "loki"}
        ),
    },
    "platform": {"prometheus": Case(None, {"type": "prometheus"}, behaviour=hostile.prometheus)},
}

NEED_DNS = {
    "granted/to-a-neighbour",
    "granted/to-a-refused-name",
    "granted/alias-of-a-neighbour",
    "granted/alias-of-a-refused-name",
    "granted/alias-of-a-name-of-metadata",
}

ALL = [f"{role}/{name}" for role, cases in CASES.items() for name in cases]


class Trial:
    """The program, to be started, with all these Services before it."""

    def __init__(self, cluster: Cluster, tenants: Tenants, folder: Path, namespaces: Mapping[str, str]) -> None:
        self.visits = tenants.servers.visits
        self.addresses: dict[str, str] = {}
        self._cluster = cluster
        self._tenants = tenants
        self._folder = folder
        self._namespaces = namespaces
        self._resolv_conf = folder / "resolv.conf"
        self._resolv_conf.write_text(f"nameserver {cluster.dns_address}\n")
        self._create()
        self.subject = Program(cluster, namespaces["platform"], self._settings, resolv_conf=self._seen_resolv_conf)

    def key(self, name: str) -> str:
        """Return namespace and name of the Service of a case."""
        role, _, service = name.partition("/")
        return f"{self._namespaces[role]}/{service}"

    def explain(self, name: str) -> dict[str, Any]:
        return explain(self._cluster, self._folder, self._settings, self.key(name), self._seen_resolv_conf)

    @property
    def _seen_resolv_conf(self) -> Path | None:
        return None if self._cluster.dns_missing else self._resolv_conf

    @property
    def _settings(self) -> dict[str, Any]:
        platform = f"*.{self._namespaces['platform']}.svc.cluster.local"
        hosts = ["127.0.0.1", "169.254.169.254", self.forbidden, platform]
        return {
            "namespaces": {"include": list(self._namespaces.values())},
            "policy": {
                "allowedRanges": ["127.0.0.0/8"],
                "refusedRanges": [f"{self.forbidden}/32"],
                "withoutSelector": ["granted-*"],
                "foreignEndpoints": [{"namespaces": ["granted-*"], "hosts": hosts}],
                "allowedTypes": [{"namespaces": ["limited-*"], "types": ["grafana", "custom"]}],
                "trustedNamespaces": ["platform-*"],
            },
        }

    def _create(self) -> None:
        platform, port = self._namespaces["platform"], self._tenants.servers.port
        neighbours = [self._cluster.create_service(platform, name, ports=[port]) for name in ("neighbour", "forbidden")]
        for neighbour in neighbours:
            self._tenants.servers.put(neighbour["spec"]["clusterIP"], hostile.healthy)
        self.forbidden = str(neighbours[1]["spec"]["clusterIP"])
        self._cluster.create_service(platform, "astray", ports=[port], selector=None, clusterIP="None")
        self._tenants.write_slice(platform, "astray", [ALIBABA])
        for role, cases in CASES.items():
            for service, case in cases.items():
                self.addresses[f"{role}/{service}"] = self._create_case(self._namespaces[role], service, case)
            with_pods = (service for service, case in cases.items() if case.has_pods)
            create_pod(self._cluster, self._namespaces[role], with_pods)

    def _create_case(self, namespace: str, name: str, case: Case) -> str:
        ports = {"port": self._tenants.servers.port, "api_port": urlsplit(self._cluster.url).port}
        meant = {**self._namespaces, **ports, "forbidden": self.forbidden}
        spec: dict[str, Any] = {} if case.selector else {"selector": None}
        if case.external:
            spec = {"type": "ExternalName", "externalName": case.external.format_map(meant), "selector": None}
        annotations = {key: value.format_map(meant) for key, value in case.annotations.items()}
        service = self._tenants.create(
            namespace, name, annotations=annotations, slices=case.slices, behaviour=case.behaviour, **spec
        )
        return str(service["spec"].get("clusterIP", ""))


@pytest.fixture(scope="module")
def trial(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with ExitStack() as cleanup:
        tenants = Tenants(cluster, cleanup.enter_context(Servers()))
        namespaces = {role: f"{role}-{secrets.token_hex(4)}" for role in CASES}
        for namespace in namespaces.values():
            cluster.create_namespace(namespace)
            cleanup.callback(cluster.delete_namespace, namespace)
        trial = Trial(cluster, tenants, tmp_path_factory.mktemp("policy"), namespaces)
        cleanup.enter_context(running(trial.subject))
        eventually(lambda: trial.key("platform/prometheus") in tools(trial.subject), within=20)
        yield trial


@pytest.mark.parametrize("name", ALL)
def test_what_is_refused_is_never_dialled_nor_published_and_explain_says_why(
    cluster: Cluster, trial: Trial, name: str
) -> None:
    if cluster.dns_missing and name in NEED_DNS:
        raise cluster.dns_missing
    subject, key = trial.subject, trial.key(name)
    role, _, service = name.partition("/")
    expected = CASES[role][service].reason
    if expected is None:
        eventually(lambda: key in tools(subject))
        assert trial.explain(name)["listed"]
        return
    said = trial.explain(name)
    assert re.fullmatch(expected, reason(said)), said
    assert not said["listed"]
    if said["decision"] == "candidate":
        words = eventually(lambda: [one for one in about(subject, key) if one["health"] != "unknown"])
        if name not in NEED_DNS:  # the DNS may not have known it at first, and another reason alone is no event
            assert words[-1]["reason"] == reason(said)
    assert "service_listed" not in {one["event"] for one in about(subject, key)}
    assert key not in tools(subject)
    assert not trial.visits(trial.addresses[name])
    assert not trial.visits(trial.forbidden)


def test_a_newcomer_whose_endpoints_lead_astray_is_never_dialled(
    namespace: str, tenants: Tenants, program: Start
) -> None:
    subject = program({"namespaces": {"include": [namespace]}, "policy": {"withoutSelector": [namespace]}})
    eventually(lambda: tools(subject) == {} and subject.published())
    astray = [tenants.create(namespace, f"astray-{n}", slices=[[ALIBABA]], selector=None) for n in range(5)]
    tenants.create(namespace, "straight", slices=[[POD]], selector=None)
    eventually(lambda: list(tools(subject)) == [f"{namespace}/straight"])
    for service in astray:
        key = f"{namespace}/{service['metadata']['name']}"
        eventually(lambda key=key: refused(subject, key))
        assert not tenants.servers.visits(service["spec"]["clusterIP"])
    eventually(lambda: about(subject, f"{namespace}/straight"))  # said once it is written
    assert [one["service"] for one in subject.events("service_listed")] == [f"{namespace}/straight"]


def test_one_whose_endpoints_are_led_astray_is_taken_out_at_once_and_dialled_no_more(
    namespace: str, tenants: Tenants, program: Start
) -> None:
    settings = {
        "namespaces": {"include": [namespace]},
        "healthCheck": {"interval": "300ms", "failureThreshold": 20},
        "policy": {"withoutSelector": [namespace]},
    }
    service = tenants.create(namespace, "orders", slices=[[POD]], selector=None)
    watched = tenants.create(namespace, "watched", slices=[[POD]], selector=None)
    subject = program(settings)
    eventually(lambda: len(tools(subject)) == 2)
    tenants.write_slice(namespace, "orders", [POD, AZURE])
    eventually(lambda: list(tools(subject)) == [f"{namespace}/watched"])
    eventually(lambda: refused(subject, f"{namespace}/orders"))  # said once it is written
    address, other = service["spec"]["clusterIP"], watched["spec"]["clusterIP"]
    visits, others = len(tenants.servers.visits(address)), len(tenants.servers.visits(other))
    eventually(lambda: len(tenants.servers.visits(other)) > others + 5)
    assert len(tenants.servers.visits(address)) == visits
    tenants.write_slice(namespace, "orders", [POD])
    eventually(lambda: len(tools(subject)) == 2)


def about(subject: Program, key: str) -> list[dict[str, Any]]:
    """What the log says of a Service."""
    return [event for event in subject.events("service_listed", "service_not_listed") if event["service"] == key]


def refused(subject: Program, key: str) -> bool:
    """Whether the log has said that the addresses of a Service are refused."""
    return any("its EndpointSlice has a refused address" in event["reason"] for event in about(subject, key))


# --- Caps ------------------------------------------------------------------------------------------------------------


def test_of_sixty_candidates_of_a_namespace_the_fifty_oldest_are_taken(
    cluster: Cluster,
    namespace: str,
    make_namespace: Callable[[], str],
    tenants: Tenants,
    program: Start,
    tmp_path: Path,
) -> None:
    other = make_namespace()
    old = [f"old-{n:02}" for n in range(50)]
    new = [f"new-{n}" for n in range(10)]  # first by name, but not by age
    *_, last = [tenants.create(namespace, name) for name in old]
    eventually(lambda: age(last) > 1.1)  # times of creation are whole seconds
    for name in new:
        tenants.create(namespace, name)
    create_pod(cluster, namespace, [*old, *new])
    settings = {"namespaces": {"include": [namespace, other]}, "policy": {"allowedRanges": [cluster.service_range]}}
    subject = program(settings)
    expected = {f"{namespace}/{name}" for name in old}
    eventually(lambda: set(tools(subject)) == expected, within=20)

    # A newcomer pushes nobody out; one of another namespace shows that it has been noticed.
    tenants.create(namespace, "a-newcomer")
    create_pod(cluster, namespace, ["a-newcomer"])
    tenants.create(other, "orders")
    create_pod(cluster, other, ["orders"])
    expected.add(f"{other}/orders")
    eventually(lambda: set(tools(subject)) == expected)
    for name in ("new-0", "a-newcomer"):
        said = explain(cluster, tmp_path, settings, f"{namespace}/{name}")
        assert (said["decision"], said["listed"]) == ("rejected", False)
        assert reason(said) == (
            "its namespace has 61 candidates, of which 50 are taken, the oldest first, "
            "by the setting policy.maxPerNamespace"
        )
    eventually(lambda: {one["service"] for one in subject.events("service_listed")} == expected)

    assert cluster.api("DELETE", f"/api/v1/namespaces/{namespace}/services/old-00").status == 200
    eventually(lambda: set(tools(subject)) == expected - {f"{namespace}/old-00"} | {f"{namespace}/new-0"})


def age(service: Mapping[str, Any]) -> float:
    created = datetime.fromisoformat(service["metadata"]["creationTimestamp"])
    return time.time() - created.timestamp()


def test_a_namespace_with_many_takes_nothing_from_one_with_few(
    cluster: Cluster,
    namespace: str,
    make_namespace: Callable[[], str],
    tenants: Tenants,
    program: Start,
    tmp_path: Path,
) -> None:
    modest = make_namespace()
    many, few = [f"orders-{n}" for n in range(9)], ["orders-0", "orders-1"]
    for name in many:
        tenants.create(namespace, name)
    for name in few:
        tenants.create(modest, name)
    create_pod(cluster, namespace, many)
    create_pod(cluster, modest, few)
    settings = {
        "namespaces": {"include": [namespace, modest]},
        "policy": {"allowedRanges": [cluster.service_range], "maxInAll": 5},
    }
    subject = program(settings)
    eventually(lambda: len(tools(subject)) == 5, within=20)
    assert {key for key in tools(subject) if key.startswith(modest)} == {f"{modest}/{name}" for name in few}
    crowded = [f"{namespace}/{name}" for name in many if f"{namespace}/{name}" not in tools(subject)]
    said = explain(cluster, tmp_path, settings, crowded[-1])
    assert not said["listed"]
    assert reason(said) == (
        "there are 11 candidates in all, of which 5 are taken, by the setting policy.maxInAll; "
        "the share of its namespace is 3 of its 9, the oldest first"
    )


# --- Namespaces ------------------------------------------------------------------------------------------------------


def test_namespaces_come_and_go_with_their_labels(
    cluster: Cluster, namespace: str, tenants: Tenants, program: Start, tmp_path: Path
) -> None:
    settings = {
        "namespaces": {"include": [namespace], "selector": "observed=yes,tier in (shop, platform)"},
        "policy": {"allowedRanges": [cluster.service_range]},
    }
    key = f"{namespace}/orders"
    tenants.create(namespace, "orders")
    create_pod(cluster, namespace, ["orders"])
    subject = program(settings)
    eventually(lambda: subject.published() and tools(subject) == {}, within=20)
    for labels, is_in in (
        (("observed=yes",), False),
        (("tier=shop",), True),
        (("tier=cellar",), False),
        (("tier=platform",), True),
        (("observed-",), False),
    ):
        cluster.kubectl("label", "--overwrite", "namespace", namespace, *labels)
        eventually(lambda expected=is_in: list(tools(subject)) == ([key] if expected else []))
        said = explain(cluster, tmp_path, settings, key)
        assert said["listed"] is is_in
        if not is_in:
            assert reason(said) == "the labels of its namespace do not match the setting namespaces.selector"
    eventually(lambda: len(writes(cluster, subject)) == 5)  # the first, and one for each time that it came or went
