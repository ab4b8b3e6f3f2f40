"""The CustomResourceDefinition on a real API server: what it takes, refuses, stores and shows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_toolset.definition import crd
from dynamic_toolset.settings import PROCESS_SETTINGS, Settings, problems_of_spec
from dynamic_toolset.settings.model import Range, Selector
from dynamic_toolset.toolset_config import (
    API_VERSION,
    KIND,
    MAX_CONDITION_MESSAGE,
    MAX_DIFF,
    MAX_ENDPOINT,
    MAX_ERRORS,
    MAX_MESSAGE,
    MAX_SERVICES,
    VERSION,
    Condition,
    ConfigMapRef,
    ServiceStatus,
    Status,
    ToolsetConfig,
    written,
)
from tests.cluster.cluster import APPLY, Cluster, KubectlFailed
from tests.cluster.http import Answer
from tests.documentation import DOCS, ROOT, commands
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Api = Callable[..., Answer]


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[None]:
    """The cluster has the CustomResourceDefinition, installed as the guide says."""
    line = "kubectl apply --server-side -f deploy/crd.yaml"
    assert line in [command.line for command in commands(DOCS / "configuration-by-resource.md")]
    arguments = line.replace("deploy/", f"{ROOT}/deploy/").split()[1:]
    cluster.kubectl(*arguments)
    wait_for(cluster, crd.NAME)
    yield
    cluster.kubectl("delete", "crd", crd.NAME)


@pytest.fixture
def collection(installed: None, namespace: str) -> str:
    """The path of the test's own ToolsetConfigs."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/toolsetconfigs"


def wait_for(cluster: Cluster, name: str) -> None:
    """Wait until the API server serves the kind."""

    def conditions() -> dict[str, str]:
        status = cluster.get(f"{DEFINITIONS}/{name}").get("status") or {}
        return {one["type"]: one["status"] for one in status.get("conditions") or ()}

    eventually(lambda: conditions().get("Established") == "True")
    assert "NonStructuralSchema" not in conditions()
    plural, _, group = name.partition(".")
    eventually(lambda: cluster.get(f"/apis/{group}/{VERSION}/{plural}"))


def body(spec: Any, name: str = "mine", **more: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec, **more}


def create(cluster: Cluster, collection: str, spec: Any, *, dry: bool = True) -> Answer:
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
    return cluster.api("POST", collection + query, body(spec))


def causes(answer: Answer) -> dict[str, str]:
    """Return what is said of each field. A field of which nothing is said in particular stands for the whole."""
    found: dict[str, str] = {}
    for cause in answer.json.get("details", {}).get("causes", ()):
        found[cause["field"]] = f"{found.get(cause['field'], '')}{cause['message']}\n"
    return found or {"": answer.json["message"]}


# --- What is taken, and what is not --------------------------------------------------------------------------------

TAKEN: list[Any] = [
    {},
    {"discoveryInterval": "1m", "paused": True, "dryRun": False},
    {"discoveryInterval": "59m60s", "endpointHost": "clusterIP", "clusterDomain": "cluster.example"},
    {"namespaces": {"include": ["a", "b"], "exclude": [], "selector": "team in (a, b),!legacy, tier!=web"}},
    {"selector": " a = b , c notin (,)\t,d"},
    {
        "serviceTypes": {
            "jaeger": {"enabled": False},
            "x": {"labels": {"a/b": ""}, "annotations": {"c.d/e": "any thing"}},
        }
    },
    {
        "healthCheck": {
            "timeout": "1s",
            "interval": "100ms",
            "failureThreshold": 20,
            "concurrency": 1,
            "verifyTls": False,
        }
    },
    {"healthCheck": {"timeout": "0.6s0.3s0.1s", "interval": "0.01s90ms"}},
    {"massFailure": {"window": "0s", "hold": "999999h999999h"}},
    {
        "policy": {
            "allowedRanges": ["10.0.0.0/8", "1.2.3.4", "fe80::/10", "::1"],
            "refusedRanges": ["0.0.0.0/0", "::/0"],
        }
    },
    {"policy": {"foreignEndpoints": [{"namespaces": ["team-*"], "hosts": ["*.example.com", "10.1.2.3"]}]}},
    {"policy": {"allowedTypes": [{"namespaces": ["*"], "types": []}], "trustedTypes": [], "maxInAll": 100000}},
    {"configMap": {"name": "a.b", "namespace": "holmes", "preserveOverrides": False}},
    {"toolset": {"base": {}, "credentials": []}},
    {"toolset": {"base": {"a/b": {"config": {"x": None, "y": [1, {"z": "1"}]}}}}},
    {"toolset": {"credentials": [{"namespace": "a", "service": "b", "apiKey": "K", "username": None}]}},
    {"toolset": {"credentials": [{"namespace": "a", "service": name} for name in ("b", "c")]}},
    {"namespaces": {"include": [f"n{number}" for number in range(500)]}},
]

DURATION = "must be a duration such as 500ms, 5s or 1m30s"
RANGE = "must be a range such as 10.0.0.0/8, without host bits, or an address"
SELECTOR = "must be a label selector such as tier=web,team in (a, b),!legacy"
REFUSED: list[tuple[Any, str, str]] = [
    ({"discoveryInterval": "59s"}, "spec.discoveryInterval", "must be from 1m to 1h"),
    ({"discoveryInterval": "1h1ms"}, "spec.discoveryInterval", "must be from 1m to 1h"),
    ({"discoveryInterval": "soon"}, "spec.discoveryInterval", DURATION),
    ({"discoveryInterval": "-5m"}, "spec.discoveryInterval", DURATION),
    ({"discoveryInterval": 300}, "spec.discoveryInterval", "must be of type string"),
    ({"paused": "true"}, "spec.paused", "must be of type boolean"),
    ({"endpointHost": "ip"}, "spec.endpointHost", 'supported values: "dns", "clusterIP"'),
    ({"clusterDomain": "a..b"}, "spec.clusterDomain", "should match"),
    ({"clusterDomain": "a" * 254}, "spec.clusterDomain", "may not be more than 253"),
    ({"namespaces": {"include": ["a", "B"]}}, "spec.namespaces.include[1]", "should match"),
    ({"namespaces": {"include": ["a", "b", "a"]}}, "spec.namespaces.include[2]", "Duplicate value"),
    ({"namespaces": {"include": [f"n{n}" for n in range(501)]}}, "spec.namespaces.include", "must have at most 500"),
    ({"namespaces": {"selector": "a in b"}}, "spec.namespaces.selector", SELECTOR),
    ({"selector": "a,"}, "spec.selector", SELECTOR),
    ({"selector": "a" * 4097}, "spec.selector", "may not be more than 4096"),
    ({"serviceTypes": {"Jaeger": {}}}, "spec.serviceTypes", "each name must be a name in lower case"),
    ({"serviceTypes": {f"t{n}": {} for n in range(201)}}, "spec.serviceTypes", "must have at most 200"),
    (
        {"serviceTypes": {"a": {"labels": {"b c": "d"}}}},
        "spec.serviceTypes[a].labels",
        "each name must be the name of a",
    ),
    ({"serviceTypes": {"a": {"labels": {"b": "c d"}}}}, "spec.serviceTypes.a.labels.b", "should match"),
    ({"serviceTypes": {"a": {"annotations": {"/": "d"}}}}, "spec.serviceTypes[a].annotations", "each name must be"),
    ({"healthCheck": {"timeout": "999ms"}}, "spec.healthCheck.timeout", "must be at least 1s"),
    ({"healthCheck": {"interval": "99.999ms"}}, "spec.healthCheck.interval", "must be at least 100ms"),
    ({"healthCheck": {"failureThreshold": 21}}, "spec.healthCheck.failureThreshold", "less than or equal to 20"),
    ({"healthCheck": {"failureThreshold": 1.5}}, "spec.healthCheck.failureThreshold", "must be of type integer"),
    ({"massFailure": {"hold": "1000000h"}}, "spec.massFailure.hold", DURATION),
    ({"massFailure": {"hold": "999999h999999h10h"}}, "spec.massFailure.hold", "may not be more than 16"),
    ({"policy": {"allowedRanges": ["10.0.0.0/8", "10.0.0.1/8"]}}, "spec.policy.allowedRanges[1]", RANGE),
    ({"policy": {"refusedRanges": ["10.0.0.0/33"]}}, "spec.policy.refusedRanges[0]", RANGE),
    ({"policy": {"refusedRanges": ["10.0.0.0/255.0.0.0"]}}, "spec.policy.refusedRanges[0]", RANGE),
    ({"policy": {"refusedRanges": ["::ffff:10.0.0.0/104"]}}, "spec.policy.refusedRanges[0]", RANGE),
    ({"policy": {"refusedRanges": ["fe80::%eth0"]}}, "spec.policy.refusedRanges[0]", RANGE),
    (
        {"policy": {"foreignEndpoints": [{"hosts": ["a"]}]}},
        "spec.policy.foreignEndpoints[0].namespaces",
        "Required value",
    ),
    ({"policy": {"allowedTypes": [{"namespaces": ["a"]}]}}, "spec.policy.allowedTypes[0].types", "Required value"),
    ({"policy": {"withoutSelector": ["Big*"]}}, "spec.policy.withoutSelector[0]", "should match"),
    ({"policy": {"maxInAll": 0}}, "spec.policy.maxInAll", "greater than or equal to 1"),
    ({"policy": {"maxPerNamespace": 100001}}, "spec.policy.maxPerNamespace", "less than or equal to 100000"),
    ({"configMap": {"name": "a\n"}}, "spec.configMap.name", "should match"),
    ({"toolset": {"base": {"a": 1}}}, "spec.toolset.base.a", "must be of type object"),
    (
        {"toolset": {"credentials": [{"namespace": "a", "service": "b", "apiKey": key} for key in ("K", "L")]}},
        "spec.toolset.credentials[1]",
        "Duplicate value",
    ),
    (
        {"toolset": {"credentials": [{"namespace": "a", "service": "b", "apiKey": "x y"}]}},
        "spec.toolset.credentials[0].apiKey",
        "should match",
    ),
    ({"healthCheck": {"timout": "5s"}}, "", 'unknown field "spec.healthCheck.timout"'),
    ({"server": {"port": 1}}, "", 'unknown field "spec.server"'),
    ({"healthCheck": {"caFile": "/etc/ca"}}, "", 'unknown field "spec.healthCheck.caFile"'),
]


@pytest.mark.parametrize("spec", TAKEN, ids=lambda spec: json.dumps(spec)[:50])
def test_what_is_right_is_taken_by_server_and_program(cluster: Cluster, collection: str, spec: Any) -> None:
    answer = create(cluster, collection, spec)
    assert answer.status == 201, causes(answer)
    assert problems_of_spec(spec) == ()
    assert problems_of_spec(answer.json["spec"]) == ()


@pytest.mark.parametrize(("spec", "field", "why"), REFUSED, ids=[json.dumps(spec)[:50] for spec, _, _ in REFUSED])
def test_what_is_wrong_is_refused_by_server_and_program(
    cluster: Cluster, collection: str, spec: Any, field: str, why: str
) -> None:
    answer = create(cluster, collection, spec)
    assert answer.status in (400, 422)
    said = causes(answer)
    assert why in said.get(field, ""), said
    assert problems_of_spec(spec)


def test_everything_that_is_wrong_is_told_at_once(cluster: Cluster, collection: str) -> None:
    spec = {"discoveryInterval": "2h", "selector": "a in b", "policy": {"maxInAll": 0}, "configMap": {"name": "A"}}
    said = causes(create(cluster, collection, spec))
    assert said.keys() >= {"spec.discoveryInterval", "spec.selector", "spec.policy.maxInAll", "spec.configMap.name"}
    assert len(problems_of_spec(spec)) == 4


def test_a_refusal_reads_as_the_guide_shows(cluster: Cluster, installed: None, namespace: str, tmp_path: Path) -> None:
    shown = next(
        one for one in commands(DOCS / "configuration-by-resource.md") if one.line.startswith("kubectl apply -f")
    )
    manifest = body(
        {"discoveryInterval": "2h", "healthCheck": {"timeout": "0.5s", "interval": "soon"}}, "kubernaut-toolset-config"
    )
    (tmp_path / "toolsetconfig.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(KubectlFailed) as caught:
        cluster.kubectl("apply", f"--filename={tmp_path}/toolsetconfig.yaml", f"--namespace={namespace}")
    lines = str(caught.value).partition(".yaml --")[2].splitlines()
    assert lines[0].rstrip().endswith(str(shown.output).splitlines()[0])
    assert sorted(lines[1:]) == sorted(str(shown.output).splitlines()[1:])


class TestLaw:
    """The API server takes exactly what the program takes."""

    RANGES = (
        *("10.0.0.0/8", "10.1.0.0/8", "0.0.0.0/0", "1.2.3.4", "::1", "fd00::/8", "fd00::1/8", "a::b%c", "1.2.3", "x/1"),
        *("010.0.0.0/8", "1.2.3.4/32", "::ffff:1.2.3.4", "64:ff9b::1.2.3.4", "FE80::/10", "1.0.0.0/08", "::/129", ""),
    )
    SELECTORS = (
        *("", " ", "a", "!a", "a=b", "a==b,c!=d", "a in (b, c)", "a notin (b)"),
        *("a in b", "a,", "(", "a\u00a0", "a\n"),
    )

    @classmethod
    def of(cls, hint: Any, path: str = "") -> st.SearchStrategy[Any]:
        """Return values of the model's type, mostly right ones, never null."""
        origin, parts = get_origin(hint), get_args(hint)
        if hint == Range:
            return st.sampled_from(cls.RANGES)
        if hint == Selector:
            return st.sampled_from(cls.SELECTORS)
        if origin is Annotated:
            meta = hint.__metadata__[0]
            if meta.pattern:
                # What is nearly right is worth more than what is far off.
                right = st.from_regex(meta.pattern, fullmatch=True).filter(lambda text: len(text) < 300)
                return right | right | right | right.map(lambda text: text[:-1]) | right.map(lambda text: text + "-")
            if parts[0] is int:
                return st.integers(max(meta.ge - 1, 0), meta.le + 1)
            return st.text("ab \u20ac", max_size=5)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            fields = {field.encode_name: field for field in msgspec.structs.fields(hint)}
            own = {
                name: cls.of(field.type, f"{path}{name}.")
                for name, field in fields.items()
                if f"{path}{name}" not in PROCESS_SETTINGS
            }
            must = {name: own[name] for name, field in fields.items() if field.required}
            return st.fixed_dictionaries(must, optional={name: one for name, one in own.items() if name not in must})
        if origin is tuple:
            return st.lists(cls.of(parts[0], "[]"), max_size=3)
        if origin is dict:
            name = st.text("ab/", min_size=1, max_size=3) if parts[0] is str else cls.of(parts[0])
            is_base = get_origin(parts[1]) is dict
            value = st.dictionaries(st.text(max_size=3), PLAIN, max_size=2) if is_base else cls.of(parts[1], "*.")
            return st.dictionaries(name, value, max_size=2)
        if type(None) in parts:
            return cls.of(parts[0])
        if hint is bool:
            return st.booleans()
        return st.sampled_from([*parts, "other"])  # a Literal

    def test_the_server_takes_exactly_what_the_program_takes(self, cluster: Cluster, collection: str) -> None:
        taken: list[bool] = []

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(self.of(Settings))
        def law(spec: Any) -> None:
            found = problems_of_spec(spec)
            answer = create(cluster, collection, spec)
            assert answer.status in (201, 400, 422)
            assert (answer.status == 201) is (found == ()), (found, answer.json)
            if answer.status == 201:
                assert problems_of_spec(answer.json["spec"]) == ()
            taken.append(answer.status == 201)

        law()
        assert 30 < sum(taken) < len(taken) - 30  # it has been tried both ways


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


# --- What is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        # No default of a setting: it would beat the file.
        ({}, {}),
        ({"healthCheck": {}}, {"healthCheck": {}}),
        ({"paused": None, "healthCheck": {"timeout": None}}, {"healthCheck": {}}),
        ({"serviceTypes": {"a": {}}}, {"serviceTypes": {"a": {"enabled": True}}}),
        ({"serviceTypes": {"a": {"enabled": False}}}, {"serviceTypes": {"a": {"enabled": False}}}),
        (
            {"toolset": {"base": {"a": {"b": None, "c": {}}}}},
            {"toolset": {"base": {"a": {"b": None, "c": {}}}}},
        ),
    ],
)
def test_defaults_are_stored_only_within_an_entry(cluster: Cluster, collection: str, given: Any, stored: Any) -> None:
    answer = create(cluster, collection, given, dry=False)
    assert answer.status == 201, causes(answer)
    assert cluster.get(f"{collection}/mine")["spec"] == stored


def test_a_resource_without_spec_has_an_empty_one(cluster: Cluster, collection: str) -> None:
    manifest = body(None)
    del manifest["spec"]
    assert cluster.api("POST", collection, manifest).json["spec"] == {}


# --- Several owners ---------------------------------------------------------------------------------------------------


def apply(cluster: Cluster, collection: str, manager: str, spec: Any) -> Answer:
    query = f"?fieldManager={manager}&fieldValidation=Strict"
    return cluster.api("PATCH", f"{collection}/mine{query}", body(spec), content_type=APPLY)


def test_two_appliers_own_different_fields(cluster: Cluster, collection: str) -> None:
    ops = {
        "healthCheck": {"timeout": "3s"},
        "namespaces": {"exclude": ["a"]},
        "serviceTypes": {"jaeger": {"enabled": False}},
        "toolset": {
            "credentials": [{"namespace": "a", "service": "b", "cluster": "", "apiKey": "K"}],
            "base": {"x": {"y": True}},
        },
    }
    team = {
        "healthCheck": {"interval": "10s"},
        "namespaces": {"exclude": ["b"]},
        "serviceTypes": {"loki": {"labels": {"team": "t"}}},
        "toolset": {"credentials": [{"namespace": "a", "service": "c", "apiKey": "L"}], "base": {"y": {"z": [1]}}},
    }
    assert apply(cluster, collection, "ops", ops).status == 201
    answer = apply(cluster, collection, "team", team)
    assert answer.status == 200, answer.json
    spec = answer.json["spec"]
    assert spec["healthCheck"] == {"timeout": "3s", "interval": "10s"}
    assert set(spec["namespaces"]["exclude"]) == {"a", "b"}
    assert spec["serviceTypes"] == {"jaeger": {"enabled": False}, "loki": {"enabled": True, "labels": {"team": "t"}}}
    assert {one["service"]: one["apiKey"] for one in spec["toolset"]["credentials"]} == {"b": "K", "c": "L"}
    assert spec["toolset"]["base"] == {"x": {"y": True}, "y": {"z": [1]}}
    # Who applies less gives back what was his, and nothing else.
    assert apply(cluster, collection, "team", {"healthCheck": {"interval": "10s"}}).status == 200
    left = cluster.get(f"{collection}/mine")["spec"]
    assert left == {**ops, "healthCheck": {"timeout": "3s", "interval": "10s"}}


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        ({"healthCheck": {"timeout": "3s"}}, {"healthCheck": {"timeout": "4s"}}, ".spec.healthCheck.timeout"),
        ({"paused": True}, {"paused": False}, ".spec.paused"),
        (
            {"serviceTypes": {"a": {"enabled": False}}},
            {"serviceTypes": {"a": {"enabled": True}}},
            ".spec.serviceTypes.a.enabled",
        ),
        (
            {"policy": {"allowedTypes": [{"namespaces": ["a"], "types": []}]}},
            {"policy": {"allowedTypes": [{"namespaces": ["b"], "types": []}]}},
            ".spec.policy.allowedTypes",
        ),
    ],
)
def test_two_appliers_of_one_field_conflict(
    cluster: Cluster, collection: str, one: Any, other: Any, field: str
) -> None:
    assert apply(cluster, collection, "ops", one).status == 201
    assert apply(cluster, collection, "team", one).status == 200  # the same value is no conflict
    answer = apply(cluster, collection, "third", other)
    assert answer.status == 409
    assert field in causes(answer)
    assert cluster.get(f"{collection}/mine")["spec"] == one


# --- The status -------------------------------------------------------------------------------------------------------

TIME = "2026-01-31T12:00:00Z"
SERVICE = ServiceStatus(
    "monitoring", "grafana", "grafana", "http://grafana.monitoring.svc:3000", healthy=False, condition="Unhealthy"
)
STATUS = Status(
    observed_generation=1,
    phase="Ready",
    conditions=(Condition("Ready", "True", "Published", "all is well", TIME, 1),),
    last_discovery_time=TIME,
    next_discovery_time=TIME,
    discovery_count=7,
    services_discovered=3,
    services_healthy=0,
    services_unhealthy=3,
    discovered_services=(
        SERVICE,
        msgspec.structs.replace(
            SERVICE, cluster="other", healthy=True, last_checked=TIME, reason="Answers", message="m"
        ),
    ),
    omitted_services=1,
    errors=("one", "one"),
    config_map_ref=ConfigMapRef("a", "b", "sha256:0123"),
    would_change=False,
    diff="-a\n+b\n",
)


def write_status(cluster: Cluster, collection: str, status: Status) -> Answer:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "mine"},
        "status": msgspec.to_builtins(status),
        "spec": {"paused": True},
    }
    query = "?fieldManager=dynamic-toolset&force=true&fieldValidation=Strict"
    return cluster.api("PATCH", f"{collection}/mine/status{query}", manifest, content_type=APPLY)


def test_a_status_is_stored_as_it_is_written_and_the_spec_stays(cluster: Cluster, collection: str) -> None:
    create(cluster, collection, {}, dry=False)
    answer = write_status(cluster, collection, STATUS)
    assert answer.status == 200, causes(answer)
    stored = msgspec.convert(cluster.get(f"{collection}/mine"), ToolsetConfig)
    assert written(stored) == STATUS
    assert (stored.spec, stored.metadata.generation) == ({}, 1)
    # In its turn, a write of the spec leaves the status as it is, and counts as a generation.
    assert apply(cluster, collection, "ops", {"paused": True}).status == 200
    again = msgspec.convert(cluster.get(f"{collection}/mine"), ToolsetConfig)
    assert (written(again), again.metadata.generation) == (STATUS, 2)


def test_the_empty_status_is_a_status(cluster: Cluster, collection: str) -> None:
    create(cluster, collection, {}, dry=False)
    assert write_status(cluster, collection, Status()).status == 200


def test_as_many_services_as_fit_and_no_more(cluster: Cluster, collection: str) -> None:
    create(cluster, collection, {}, dry=False)
    texts = {
        **dict.fromkeys(("namespace", "cluster", "type"), "n" * 63),
        **dict.fromkeys(("reason", "condition"), "R" * 64),
        "endpoint": "u" * MAX_ENDPOINT,
        "message": "m" * MAX_MESSAGE,
        "last_checked": TIME,
    }
    many = [msgspec.structs.replace(SERVICE, name=f"s{number:062}", **texts) for number in range(MAX_SERVICES + 1)]
    full = msgspec.structs.replace(
        STATUS,
        discovered_services=tuple(many[:-1]),
        conditions=tuple(Condition(f"C{n}", "True", "R", "m" * MAX_CONDITION_MESSAGE, TIME) for n in range(32)),
        errors=("e" * MAX_MESSAGE,) * MAX_ERRORS,
        diff="d" * MAX_DIFF,
    )
    answer = write_status(cluster, collection, full)
    assert answer.status == 200, causes(answer)
    answer = write_status(cluster, collection, msgspec.structs.replace(STATUS, discovered_services=tuple(many)))
    assert "must have at most 500 items" in causes(answer)["status.discoveredServices"]


def test_a_service_is_there_once(cluster: Cluster, collection: str) -> None:
    create(cluster, collection, {}, dry=False)
    twice = msgspec.structs.replace(STATUS, discovered_services=(SERVICE, SERVICE))
    assert "duplicate entries for key" in causes(write_status(cluster, collection, twice))[""]


# --- What people see --------------------------------------------------------------------------------------------------


def test_kubectl_explain_reads_well(cluster: Cluster, installed: None) -> None:
    def explained(field: str) -> str:
        text = eventually(lambda: _explain(cluster, f"toolsetconfig.{field}"))
        return " ".join(text.split())

    text = explained("spec")
    assert "discoveryInterval <string> Between two full looks, which also check every candidate anew, `1m` to" in text
    assert "endpointHost <string> enum: dns, clusterIP The host in published URLs" in text
    assert "healthCheck <Object> How candidates are checked." in text
    assert text.count("<no description>") == 0
    text = explained("spec.healthCheck.timeout")
    assert "How long one check may take, `1s` at least. Default: `5s`." in text
    assert "<no description>" not in explained("status")
    assert "<no description>" not in explained("status.discoveredServices")


def _explain(cluster: Cluster, field: str) -> str | None:
    try:
        return cluster.kubectl("explain", field)
    except KubectlFailed:  # the API server publishes a new kind a moment after it serves it
        return None


def test_kubectl_get_has_the_columns(cluster: Cluster, collection: str, namespace: str) -> None:
    create(cluster, collection, {}, dry=False)
    get = partial(eventually, lambda: cluster.kubectl("get", "tsc", f"--namespace={namespace}").splitlines())
    titles, row = get()
    assert titles.split("  ")[0] == "NAME"
    assert titles.split() == ["NAME", "PHASE", "SERVICES", "HEALTHY", "LAST", "DISCOVERY", "AGE"]
    assert row.split()[0] == "mine"
    write_status(cluster, collection, STATUS)
    _, row = get()
    assert row.split()[:4] == ["mine", "Ready", "3", "0"]
    assert len(row.split()) == 6
    assert "mine" in cluster.kubectl("get", "kubernaut", f"--namespace={namespace}")  # the category


def test_config_show_takes_the_resource_of_the_cluster_into_account(
    cluster: Cluster, collection: str, namespace: str
) -> None:
    def show(*more: str) -> tuple[dict[str, Any], str]:
        command = [
            sys.executable,
            "-m",
            "dynamic_toolset",
            "config",
            "show",
            "-o",
            "json",
            "--set",
            "toolsetConfig.name=mine",
        ]
        arguments = [f"--set=configMap.namespace={namespace}", f"--kubeconfig={cluster.kubeconfig}", *more]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DYNAMIC_TOOLSET_")}
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, env=environ)
        assert ended.returncode == 0, ended.stderr
        return {row["name"]: row for row in json.loads(ended.stdout)["settings"]}, ended.stderr

    rows, warning = show()
    assert rows["paused"]["source"] == {"kind": "default"}
    assert warning == f"warning: there is no ToolsetConfig {namespace}/mine\n"
    create(cluster, collection, {"paused": True, "dryRun": True}, dry=False)
    rows, warning = show("--set=dryRun=false")
    assert (rows["paused"]["value"], rows["paused"]["source"]) == (True, {"kind": "resource", "name": "mine"})
    assert (rows["dryRun"]["value"], rows["dryRun"]["source"]) == (False, {"kind": "option"})
    assert warning == ""


# --- Upgrades ---------------------------------------------------------------------------------------------------------


def test_what_was_stored_before_a_rule_is_served_and_can_be_changed(cluster: Cluster, namespace: str) -> None:
    """In a group of its own: an older definition, without most of the checks, stores what the new one refuses."""
    new = json.loads(json.dumps(crd.definition()).replace(crd.GROUP, "upgrade.example"))
    old = json.loads(json.dumps(new))
    schema = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    schema["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    name = new["metadata"]["name"]
    stored = {
        "discoveryInterval": "1d",
        "healthCheck": {"timeout": "0s", "failureThreshold": 99},
        "selector": "a in b",
        "policy": {"allowedRanges": ["everywhere"]},
        "namespaces": {"include": ["a", "a"]},
        "removedSince": True,
    }
    path = f"/apis/upgrade.example/v1alpha1/namespaces/{namespace}/toolsetconfigs"
    manifest = {**body(stored), "apiVersion": "upgrade.example/v1alpha1"}

    def patch(spec: Any) -> Answer:
        return cluster.api("PATCH", f"{path}/mine", {"spec": spec}, content_type="application/merge-patch+json")

    def refused_now() -> bool:
        return cluster.api("POST", f"{path}?dryRun=All", manifest | {"metadata": {"name": "other"}}).status == 422

    assert cluster.api("POST", DEFINITIONS, old).status == 201
    try:
        wait_for(cluster, name)
        assert eventually(lambda: cluster.api("POST", path, manifest).status == 201)
        version = cluster.get(f"{DEFINITIONS}/{name}")["metadata"]["resourceVersion"]
        new["metadata"]["resourceVersion"] = version
        answer = cluster.api("PUT", f"{DEFINITIONS}/{name}", new)
        assert answer.status == 200, answer.json
        eventually(refused_now)
        # It is served; what is not in the schema any more is pruned.
        served = cluster.get(f"{path}/mine")["spec"]
        assert served == {key: value for key, value in stored.items() if key != "removedSince"}
        assert len(problems_of_spec(served)) >= 5
        # What is right can be changed, what was wrong may stay, and what is touched must be right.
        assert patch({"paused": True}).status == 200
        assert patch({"healthCheck": {"interval": "10s"}}).status == 200
        assert "must be at least 1s" in causes(patch({"healthCheck": {"timeout": "0.5s"}}))["spec.healthCheck.timeout"]
        mended = {
            "discoveryInterval": "1h",
            "healthCheck": {"timeout": "1s", "failureThreshold": 20},
            "selector": None,
            "policy": None,
            "namespaces": {"include": ["a"]},
        }
        assert patch(mended).status == 200
        assert problems_of_spec(cluster.get(f"{path}/mine")["spec"]) == ()
    finally:
        cluster.kubectl("delete", "crd", name)
