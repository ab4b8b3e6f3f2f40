"""What holds for every Service whatever, also for those that no API server would let in."""

import re

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory
from dynamic_toolset.discovery.ports import MAX_NOTES
from dynamic_toolset.model import Outcome
from dynamic_toolset.settings import AllowedTypes, ForeignEndpoints, Namespaces, Policy, ServiceTypeSettings, Settings
from dynamic_toolset.toolset.safety import refusal

from .absurd import presentable, services
from .building import ANY_ENDPOINTS, PREFIX, catalog, is_plain

URL = re.compile(
    r"https?://([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\[[0-9a-f:.]+\]):[1-9][0-9]{0,4}"
    r"(/[A-Za-z0-9._~-]+)*"
)
EVERYTHING = Policy(
    foreign_endpoints=(
        ForeignEndpoints(("*",), ("x.example.com", "*.local", "*.svc", "10.0.0.1", "*.com", "localhost")),
    ),
    without_selector=("*",),
)
OFF = ServiceTypeSettings(enabled=False)
CAPPED = Policy(without_selector=("*",), max_per_namespace=2, max_in_all=3)
SELECTED = Settings(namespaces=Namespaces(selector="team=a", exclude=("b",)))
DETECTORS = [
    *(
        Detector(catalog(), chosen)
        for chosen in (
            Settings(),
            ANY_ENDPOINTS,
            Settings(policy=EVERYTHING),
            Settings(policy=EVERYTHING, endpoint_host="clusterIP", require_annotations=True),
            Settings(namespaces=Namespaces(include=("a",), exclude=("b",))),
            Settings(policy=CAPPED),
            Settings(
                policy=EVERYTHING,
                selector="!x",
                service_types={"custom": ServiceTypeSettings(annotations={"a": "b"}), "loki": OFF},
            ),
            Settings(
                policy=Policy(
                    allowed_types=(AllowedTypes(("a",), ("grafana", "custom")),), trusted_namespaces=("b", "default")
                )
            ),
        )
    ),
    Detector(catalog(), SELECTED, {"a": {"team": "a"}, "b": {"team": "a"}}),
]

clusters = st.lists(st.one_of(services(), presentable()), max_size=8, unique_by=lambda one: one.metadata.key)
crowds = st.lists(presentable(), max_size=12, unique_by=lambda one: one.metadata.key)


@given(services(), st.sampled_from(DETECTORS))
@settings(max_examples=250)
def test_every_service_gets_a_decision_with_a_plain_reason(one, detector):
    decision = detector.detect(one)
    assert is_plain(decision.reason)
    assert all(is_plain(evidence) for evidence in decision.evidence)
    assert (decision.candidate is not None) == (decision.outcome is Outcome.CANDIDATE)
    assert (decision.rejection is not None) == (decision.outcome is Outcome.REJECTED)
    if decision.candidate:
        kind = decision.candidate.type
        assert decision.candidate.catalog_type == (kind if kind in catalog().types else "custom")


@given(services(), st.sampled_from(DETECTORS))
@settings(max_examples=250)
def test_every_port_that_was_considered_is_told_in_plain_words_and_the_chosen_one_is_the_endpoints(one, detector):
    decision = detector.detect(one)
    assert len(decision.ports) <= MAX_NOTES + 1
    for port in decision.ports:
        assert is_plain(port.note)
        assert port.name is None or is_plain(port.name)
    if decision.outcome is Outcome.IGNORED:
        assert decision.ports == ()
    chosen = [port for port in decision.ports if port.chosen]
    assert len(chosen) == (decision.candidate is not None)
    if decision.candidate and one.spec.cluster_ip != "None":
        assert chosen[0].port == decision.candidate.endpoint.port


@given(services(), st.sampled_from(DETECTORS))
@settings(max_examples=250)
def test_nothing_of_a_tenant_reaches_a_candidate_unchecked(one, detector):
    candidate = detector.detect(one).candidate
    if candidate is None:
        return
    assert refusal(candidate) is None, "the last look would leave it out"
    assert URL.fullmatch(candidate.endpoint.url)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", candidate.name)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", candidate.type)
    assert re.fullmatch(r"(/[A-Za-z0-9._~/-]*)?", candidate.check.path)
    kind = catalog().types.get(candidate.type, catalog().types["custom"])
    assert (candidate.title, candidate.description, candidate.agent) == (kind.title, kind.description, kind.holmesgpt)
    assert msgspec.structs.replace(candidate.check, path="", root=False) == msgspec.structs.replace(
        kind.health, path="", root=False
    )


@given(services(), st.sampled_from(DETECTORS[:2]))
@settings(max_examples=250)
def test_without_a_grant_every_candidate_leads_to_its_own_service(one, detector):
    candidate = detector.detect(one).candidate
    if candidate is None:
        return
    assert candidate.endpoint.host == f"{one.metadata.name}.{one.metadata.namespace}.svc.cluster.local"
    assert one.spec.type != "ExternalName"
    assert one.spec.selector or detector is not DETECTORS[0]
    assert candidate.endpoint.port in {
        number for port in one.spec.ports for number in (port.port, port.target_port, int_or_none(port.target_port))
    }


def int_or_none(text):
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 6 else None


@given(services(), st.sampled_from(["disabled", "false"]), st.sampled_from(DETECTORS))
@settings(max_examples=200)
def test_opting_out_always_wins(one, switch, detector):
    annotations = {**(one.metadata.annotations or {}), PREFIX: switch}
    out = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=annotations))
    assert detector.detect(out).outcome is Outcome.IGNORED


@given(st.one_of(clusters, crowds), st.randoms(use_true_random=False), st.sampled_from(DETECTORS))
@settings(max_examples=120)
def test_the_order_of_services_does_not_matter(found, random, detector):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert detector.discover(found) == detector.discover(shuffled)


@given(crowds, st.sampled_from([DETECTORS[0], DETECTORS[5]]))
@settings(max_examples=200)
def test_a_duplicate_always_has_a_service_in_its_place_that_is_none(found, detector):
    decisions = detector.discover(found)
    assert all(is_plain(decision.reason) for decision in decisions.values())
    for key, decision in decisions.items():
        if decision.outcome is Outcome.DUPLICATE:
            (name,) = re.findall(r"Service (\S+), which", decision.reason)
            other = decisions[key._replace(name=name)]
            assert other.outcome is Outcome.CANDIDATE or "policy.max" in other.reason


@given(crowds)
@settings(max_examples=200)
def test_caps_hold_and_take_no_more_than_they_must(found):
    with_caps, without = (detector.discover(found) for detector in (DETECTORS[5], DETECTORS[1]))
    kept = {key for key, decision in with_caps.items() if decision.outcome is Outcome.CANDIDATE}
    all_of_them = {key for key, decision in without.items() if decision.outcome is Outcome.CANDIDATE}
    per_namespace = {name: sum(key.namespace == name for key in all_of_them) for name in "ab"}
    assert kept <= all_of_them
    assert len(kept) == min(3, sum(min(2, count) for count in per_namespace.values()))
    for name in "ab":
        assert sum(key.namespace == name for key in kept) <= 2


@given(
    st.lists(st.lists(st.tuples(st.one_of(services(), presentable()), st.booleans()), max_size=4), max_size=4),
    st.sampled_from(DETECTORS),
)
@settings(max_examples=120)
def test_any_sequence_of_changes_leads_to_what_one_look_says(batches, detector):
    inventory = Inventory(detector)
    present, store = {}, {}
    for batch in batches:
        for one, is_there in batch:
            key = one.metadata.key
            present.pop(key, None)
            store.pop(key, None)
            if is_there:
                present[key], store[key] = one, inventory.judge(one)
        inventory.update({one.metadata.key for one, _ in batch}, store)
    expected = detector.discover(present.values())
    assert inventory.decisions == expected
    assert dict(inventory.candidates) == {
        key: decision.candidate for key, decision in expected.items() if decision.outcome is Outcome.CANDIDATE
    }
