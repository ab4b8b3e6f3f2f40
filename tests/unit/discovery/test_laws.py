"""What holds for every Service whatever, also for those that no API server would let in."""

import re

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.kube.objects import ObjectMeta, Service, ServicePort, ServiceSpec
from dynamic_toolset.model import Outcome
from dynamic_toolset.settings import Namespaces, Settings

from .building import PREFIX, catalog

URL = re.compile(
    r"https?://([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+|\[[0-9a-f:.]+\]):[1-9][0-9]{0,4}"
    r"(/[A-Za-z0-9._~-]+)*"
)
DETECTORS = [
    Detector(catalog(), chosen)
    for chosen in (
        Settings(),
        Settings(endpoint_host="clusterIP", require_annotations=True),
        Settings(namespaces=Namespaces(include=("a",), exclude=("b",))),
    )
]

products = [value for kind in catalog().types.values() for value in (kind.name, f"x-{kind.name}", kind.title)]
nasty = st.sampled_from(["{{ env.SECRET }}", "a\nb", "", "${X}", "/../", "//", "\u202e", "a" * 300, "*", "-", "None"])
words = st.one_of(st.sampled_from([*products, "a", "b", "server", "query", "gateway"]), nasty, st.text(max_size=20))
label_names = st.sampled_from(
    ["app", "app.kubernetes.io/name", "app.kubernetes.io/component", "component", "prometheus", "chart", "k8s-app"]
)
labels = st.one_of(st.none(), st.dictionaries(st.one_of(label_names, st.text(max_size=9)), words, max_size=4))
annotation_names = st.sampled_from(
    ["-type", "-name", "-endpoint", "-port", "-scheme", "-path", "-health-path", "-x", "s"]
)
annotation_values = st.one_of(
    words,
    st.sampled_from(["/x", "/x/", "/", "http", "https", "3000", "custom", "http://a.a.svc:3000/x", "http://a.a:3000"]),
)
switches = st.sampled_from(["enabled", "true", "disabled", "false", "maybe"])
numbers = st.one_of(st.sampled_from([80, 443, 3000, 9090, 3100, 9200, 16686]), st.integers(-5, 70000))
service_ports = st.builds(
    ServicePort,
    port=numbers,
    name=st.one_of(st.none(), st.sampled_from(["http", "web", "https", "metrics"]), words),
    target_port=st.one_of(st.none(), numbers, words),
    protocol=st.sampled_from([None, "TCP", "UDP", "SCTP", ""]),
    app_protocol=st.one_of(st.none(), st.sampled_from(["http", "https", "grpc"]), words),
)


@st.composite
def services(draw):
    annotations = {PREFIX + key: draw(annotation_values) for key in draw(st.sets(annotation_names, max_size=3))}
    if draw(st.booleans()):
        annotations[PREFIX] = draw(switches)
    return Service(
        ObjectMeta(
            name=draw(st.one_of(st.sampled_from(["a", "b", "prometheus", "grafana"]), words)),
            namespace=draw(st.one_of(st.sampled_from(["a", "b"]), words)),
            labels=draw(labels),
            annotations=draw(st.sampled_from([annotations, None])),
        ),
        ServiceSpec(
            type=draw(st.sampled_from([None, "ClusterIP", "ExternalName", "NodePort", "?"])),
            cluster_ip=draw(
                st.one_of(st.sampled_from([None, "None", "", "10.0.0.1", "fd00::1", "fe80::1%eth0"]), words)
            ),
            external_name=draw(st.one_of(st.none(), words)),
            selector=draw(labels),
            ports=draw(st.one_of(st.none(), st.lists(service_ports, max_size=4).map(tuple))),
        ),
    )


@given(services(), st.sampled_from(DETECTORS))
@settings(max_examples=400, deadline=None)
def test_every_service_gets_a_decision_with_a_plain_reason(one, detector):
    decision = detector.detect(one)
    assert decision.reason
    assert decision.reason.isascii()
    assert decision.reason.isprintable()
    assert "{{" not in decision.reason
    assert len(decision.reason) < 2000
    assert (decision.candidate is not None) == (decision.outcome is Outcome.CANDIDATE)


@given(services(), st.sampled_from(DETECTORS))
@settings(max_examples=400, deadline=None)
def test_nothing_of_a_tenant_reaches_a_candidate_unchecked(one, detector):
    candidate = detector.detect(one).candidate
    if candidate is None:
        return
    assert URL.fullmatch(candidate.endpoint.url)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", candidate.name)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", candidate.type)
    assert re.fullmatch(r"(/[A-Za-z0-9._~/-]*)?", candidate.check.path)
    kind = catalog().types.get(candidate.type, catalog().types["custom"])
    assert (candidate.title, candidate.description, candidate.agent) == (kind.title, kind.description, kind.holmesgpt)
    assert msgspec.structs.replace(candidate.check, path="", root=False) == msgspec.structs.replace(
        kind.health, path="", root=False
    )


@given(services(), st.sampled_from(["disabled", "false"]), st.sampled_from(DETECTORS))
@settings(max_examples=100, deadline=None)
def test_opting_out_always_wins(one, switch, detector):
    annotations = {**(one.metadata.annotations or {}), PREFIX: switch}
    out = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=annotations))
    assert detector.detect(out).outcome is Outcome.IGNORED


@given(st.lists(services(), max_size=8, unique_by=lambda one: one.metadata.key), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_services_does_not_matter(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert DETECTORS[0].discover(found) == DETECTORS[0].discover(shuffled)


@given(st.lists(services(), max_size=8, unique_by=lambda one: one.metadata.key))
@settings(max_examples=100, deadline=None)
def test_a_duplicate_always_has_a_candidate_in_its_place(found):
    decisions = DETECTORS[0].discover(found)
    kept = {key for key, decision in decisions.items() if decision.outcome is Outcome.CANDIDATE}
    for key, decision in decisions.items():
        if decision.outcome is Outcome.DUPLICATE:
            names = [other.name for other in kept if other.namespace == key.namespace]
            assert any(f"Service {name}," in decision.reason for name in names)
