"""Services of another cluster: where they can be reached from here, and that they are trusted with nothing of ours."""

import msgspec
import pytest
from hypothesis import given, settings

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.endpoints import read_url
from dynamic_toolset.discovery.inventory import Inventory, judge, recall
from dynamic_toolset.kube.objects import Ingress, LoadBalancer, ServiceStatus
from dynamic_toolset.model import Endpoint, Outcome, ServiceKey
from dynamic_toolset.settings import (
    AllowedTypes,
    ForeignEndpoints,
    Namespaces,
    Policy,
    ServiceTypeSettings,
    Settings,
)

from .absurd import services as absurd_services
from .building import SOMETHING, catalog, headless, is_plain, service

CUSTOM = {"-type": "custom"}
GRAFANA = {"own": "app=grafana", "listens": "service:80>3000", "pods": "app=grafana"}


def there(*ingress, annotations=CUSTOM, own="", listens="8080", pods=SOMETHING, how="LoadBalancer", **more):
    """A Service whose load balancer is at these addresses and names."""
    entries = tuple(Ingress(ip=one) if one[:1].isdigit() or ":" in one else Ingress(hostname=one) for one in ingress)
    made = service("api", own, listens, pods, annotations=annotations, type=how, **more)
    return msgspec.structs.replace(made, status=ServiceStatus(LoadBalancer(entries)))


def detector(cluster="eu", **how):
    return Detector(catalog(), Settings(**how), cluster=cluster)


def seen(one, **policy):
    return detector(policy=Policy(**policy)).detect(one)


def granted(namespaces, *hosts):
    return {"foreign_endpoints": (ForeignEndpoints(namespaces, hosts),)}


# --- Where it is reached --------------------------------------------------------------------------------------------

EXTERNAL = ("203.0.113.9",)


@pytest.mark.parametrize(
    ("one", "policy", "url"),
    [
        (there("203.0.113.7"), {}, "http://203.0.113.7:8080"),
        (there("2001:db8::7"), {}, "http://[2001:db8::7]:8080"),
        (there("a1.eu-west-1.elb.amazonaws.com"), {}, "http://a1.eu-west-1.elb.amazonaws.com:8080"),
        (there("A1.elb.AMAZONAWS.com."), {}, "http://a1.elb.amazonaws.com:8080"),
        (there("203.0.113.7", "203.0.113.8"), {}, "http://203.0.113.7:8080"),
        (there("not..a..host", "203.0.113.8"), {}, "http://203.0.113.8:8080"),
        (there("203.0.113.7", cluster_ip="10.96.0.5"), {}, "http://203.0.113.7:8080"),
        (there("203.0.113.7", annotations={**CUSTOM, "-path": "/x"}), {}, "http://203.0.113.7:8080/x"),
        (there("203.0.113.7", listens="443>8443"), {}, "https://203.0.113.7:443"),
        (there("203.0.113.7", annotations={}, **GRAFANA), {}, "http://203.0.113.7:80"),
        (
            there("203.0.113.7", annotations={**CUSTOM, "-endpoint": "https://203.0.113.7:8080/x"}),
            {},
            "https://203.0.113.7:8080/x",
        ),
        # What its owner alone says takes a grant that names his cluster.
        (there(external_ips=EXTERNAL), granted(("eu/shop",), "203.0.113.9"), "http://203.0.113.9:8080"),
        (there(external_ips=EXTERNAL, how="ClusterIP"), granted(("*/*",), "203.0.113.9"), "http://203.0.113.9:8080"),
        (
            there(annotations={**CUSTOM, "-endpoint": "https://api.example.com:443"}),
            granted(("eu/*",), "*.example.com"),
            "https://api.example.com:443",
        ),
        (
            there(how="ExternalName", external_name="api.example.com"),
            granted(("e*/shop",), "api.example.com"),
            "http://api.example.com:8080",
        ),
        (there("203.0.113.7", external_ips=EXTERNAL), granted(("eu/shop",), "203.0.113.9"), "http://203.0.113.7:8080"),
    ],
)
def test_it_is_reached_at_its_load_balancer_or_where_a_grant_allows(one, policy, url):
    decision = seen(one, **policy)
    assert decision.outcome is Outcome.CANDIDATE, decision.reason
    assert decision.endpoint == url
    assert decision.candidate.endpoint.address is None
    assert decision.candidate.key == ServiceKey("shop", "api", "eu")


NEEDS = "a Service of another cluster needs an address that can be reached from here"


@pytest.mark.parametrize(
    ("one", "policy", "why"),
    [
        (there(cluster_ip="10.96.0.5"), {}, NEEDS),
        (headless("api", "", "8080", annotations=CUSTOM), {}, NEEDS),
        (service("api", "", "8080", annotations=CUSTOM), {}, NEEDS),
        (there("203.0.113.7", how="ClusterIP"), {}, NEEDS),  # left over from what it was
        (there(annotations={}, **GRAFANA), {}, f"it looks like Grafana, but {NEEDS}"),
        # A name that our own DNS would complete to a Service of ours.
        (there("prometheus.monitoring.svc.cluster.local"), {}, NEEDS),
        (there("prometheus.monitoring.svc"), {}, NEEDS),
        (there("prometheus.monitoring"), {}, NEEDS),
        (there("localhost"), {}, NEEDS),
        (there("fe80::1%eth0"), {}, NEEDS),
        (there("203.0.113.999"), {}, NEEDS),
        (there("x y.example.com", "{{ env.KEY }}.example.com", ""), {}, NEEDS),
        # Whoever may create a Service there must not choose what we dial here.
        (there(external_ips=EXTERNAL), {}, NEEDS),
        (there(external_ips=EXTERNAL), granted(("shop", "*"), "203.0.113.9"), NEEDS),
        (there(external_ips=EXTERNAL), granted(("us/shop",), "203.0.113.9"), NEEDS),
        (
            there(annotations={**CUSTOM, "-endpoint": "http://api.shop.svc:8080"}),
            {},
            "not to its load balancer: the setting policy.foreignEndpoints can allow that for its namespace as eu/shop",
        ),
        (
            there("203.0.113.7", annotations={**CUSTOM, "-endpoint": "http://10.96.0.5:8080"}),
            granted(("shop",), "10.96.0.5"),
            "not to its load balancer",
        ),
        (there("203.0.113.7", pods=""), {"without_selector": ("shop",)}, "for its namespace as eu/shop"),
        (there("203.0.113.7", listens="53@UDP"), {}, "no TCP port"),
    ],
)
def test_otherwise_it_is_refused_and_the_reason_says_what_to_do(one, policy, why):
    decision = seen(one, **policy)
    assert decision.outcome is Outcome.REJECTED
    assert why in decision.reason
    assert is_plain(decision.reason)


@given(absurd_services())
@settings(max_examples=150)
def test_whatever_it_says_it_is_never_reached_at_an_address_of_its_own_cluster(one):
    decision = seen(one)
    assert is_plain(decision.reason)
    if decision.outcome is Outcome.CANDIDATE:
        assert decision.candidate.endpoint.host != one.spec.cluster_ip
        assert not decision.candidate.endpoint.host.endswith((".svc", ".cluster.local"))


def test_our_own_are_reached_as_ever_whatever_load_balancer_they_have():
    assert detector("").detect(there("203.0.113.7")).endpoint == "http://api.shop.svc.cluster.local:8080"


# --- Trust ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ({}, False),
        ({"trusted_namespaces": ("shop",)}, True),
        ({"trusted_namespaces": ("*",)}, True),
        ({"trusted_namespaces": ("*/shop",)}, False),
        ({"trusted_namespaces": ("eu/sh*",)}, False),
        ({"trusted_namespaces": ("us/shop",)}, True),
        # What limits ours limits theirs, unless theirs are spoken of.
        ({"allowed_types": (AllowedTypes(("shop",), ("loki",)),)}, True),
        ({"allowed_types": (AllowedTypes(("shop",), ("grafana",)),)}, False),
        ({"allowed_types": (AllowedTypes(("shop",), ("loki",)), AllowedTypes(("eu/*",), ("grafana",)))}, False),
        ({"allowed_types": (AllowedTypes(("shop",), ("grafana",)), AllowedTypes(("eu/*",), ("loki",)))}, True),
        ({"allowed_types": (AllowedTypes(("us/*",), ("loki",)),)}, False),
    ],
)
def test_a_namespace_is_trusted_with_nothing_for_being_called_like_one_of_ours(policy, refused):
    decision = seen(there("203.0.113.7", annotations={}, **GRAFANA), **policy)
    assert decision.outcome is (Outcome.REJECTED if refused else Outcome.CANDIDATE), decision.reason


@pytest.mark.parametrize("pattern", ["*/*", "eu/shop", "*/shop"])
def test_what_is_granted_to_other_clusters_is_not_granted_to_ours(pattern):
    policy = Policy(without_selector=(pattern,), trusted_namespaces=(pattern,))
    for one in (service("api", "", "8080", "", annotations=CUSTOM), service("g", **GRAFANA)):
        assert detector("", policy=policy).detect(one).outcome is Outcome.REJECTED


def test_the_labels_of_its_own_namespaces_count():
    how = Settings(namespaces=Namespaces(selector="team=a", exclude=("kube-system",)))
    labels = {"shop": {"team": "a"}, "kube-system": {"team": "a"}}
    decide = Detector(catalog(), how, labels, "eu").detect
    assert decide(there("203.0.113.7")).outcome is Outcome.CANDIDATE
    assert decide(there("203.0.113.7", namespace="kube-system")).outcome is Outcome.IGNORED
    assert decide(there("203.0.113.7", namespace="other")).outcome is Outcome.IGNORED


# --- What Services mean for each other ------------------------------------------------------------------------------


def test_one_is_no_duplicate_of_ours_and_each_namespace_of_each_cluster_has_its_own_share():
    how = Settings(policy=Policy(max_per_namespace=1, max_in_all=2))
    at_home, abroad = Detector(catalog(), how), Detector(catalog(), how, cluster="eu")
    inventory = Inventory(at_home)
    one = there("203.0.113.7", annotations={}, **GRAFANA)
    key = ServiceKey.of(one.metadata.key)
    second = msgspec.structs.replace(
        there("203.0.113.8"), metadata=msgspec.structs.replace(one.metadata, name="other", annotations=None)
    )
    inventory.update({key: judge(at_home, one), key._replace(cluster="eu"): judge(abroad, one)})
    assert list(inventory.candidates) == [key, key._replace(cluster="eu")]
    inventory.update({ServiceKey("shop", "other", "us"): judge(Detector(catalog(), how, cluster="us"), second)})
    assert len(inventory.candidates) <= 2
    inventory.update({key: None})
    assert key not in inventory.decisions


def test_two_ways_into_one_workload_are_one_there_too():
    one = there("203.0.113.7", annotations={}, **GRAFANA)
    other = msgspec.structs.replace(
        there("203.0.113.8", annotations={}, **GRAFANA),
        metadata=msgspec.structs.replace(one.metadata, name="api-public"),
    )
    decisions = detector().discover([one, other])
    assert [decision.outcome for decision in decisions.values()] == [Outcome.CANDIDATE, Outcome.DUPLICATE]


# --- What was published last ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://203.0.113.7:8080", Endpoint("http", "203.0.113.7", 8080)),
        ("https://[2001:db8::7]:443/base/x", Endpoint("https", "2001:db8::7", 443, "/base/x")),
        ("http://203.0.113.7", None),
        ("ftp://203.0.113.7:21", None),
        ("http://user@203.0.113.7:80", None),
        ("http://203.0.113.7:80/?q", None),
        ("http://203.0.113.7:80/#f", None),
        ("http://203.0.113.7:999999", None),
        ("http://[::1", None),
        ("http://203.0.113.7:80\n", None),
        ("", None),
    ],
)
def test_an_endpoint_is_read_back_from_its_url_or_not_at_all(url, endpoint):
    assert read_url(url) == endpoint


def test_what_was_published_last_is_the_candidate_that_it_was():
    one = there("203.0.113.7", annotations={"-type": "grafana", "-name": "dash", "-path": "/g"})
    was = detector().detect(one).candidate
    judged = recall(detector(), was.key, was.type, was.name, was.endpoint.url)
    assert judged.decision.candidate == was
    own = detector().detect(there("203.0.113.7", annotations={"-type": "orders-api"})).candidate
    assert recall(detector(), own.key, own.type, own.name, own.endpoint.url).decision.candidate == own


@pytest.mark.parametrize("wrong", ["", "A", "a.b", "a\n", "a" * 64, "\ud800"])
@pytest.mark.parametrize("field", ["namespace", "service", "type", "name"])
def test_of_what_no_service_can_be_called_nothing_is_recalled(field, wrong):
    names = {"namespace": "shop", "service": "api", "type": "orders-api", "name": "api"} | {field: wrong}
    key = ServiceKey(names["namespace"], names["service"], "eu")
    assert recall(detector(), key, names["type"], names["name"], "http://203.0.113.7:80") is None


@pytest.mark.parametrize(
    "how",
    [
        {"policy": Policy(trusted_namespaces=("shop",))},
        {"namespaces": Namespaces(exclude=("shop",))},
        {"namespaces": Namespaces(include=("other",))},
        {"service_types": {"grafana": ServiceTypeSettings(enabled=False)}},
    ],
)
def test_what_the_settings_take_out_is_out_though_its_cluster_is_away(how):
    judged = recall(detector(**how), ServiceKey("shop", "api", "eu"), "grafana", "api", "http://203.0.113.7:80")
    assert judged.decision.outcome is Outcome.REJECTED
