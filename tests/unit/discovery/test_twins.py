"""Several Services of one workload are listed once."""

import pytest

from dynamic_toolset.discovery import twins
from dynamic_toolset.model import Outcome

from .building import ANY_ENDPOINTS, discover, headless, service

POD = ".name=loki .instance=one"
ONE_POD = "statefulset.kubernetes.io/pod-name=loki-0"


def outcomes(*services):
    found = discover(*services, settings=ANY_ENDPOINTS)
    return {key.name: decision.outcome.value for key, decision in found.items()}


def loki(name, pods=POD, own=POD, **spec):
    return service(name, own, "http-metrics:3100", pods, **spec)


def headless_loki(name, pods=POD, own=POD, **spec):
    return headless(name, own, "http-metrics:3100", pods, **spec)


def test_a_headless_twin_names_the_service_that_is_listed():
    decisions = list(discover(headless_loki("a"), loki("z-is-longer")).values())
    assert [decision.outcome for decision in decisions] == [Outcome.DUPLICATE, Outcome.CANDIDATE]
    assert decisions[0].reason == "it leads to the same workload as Service z-is-longer, which stands for both"
    assert decisions[0].type == "loki"
    assert decisions[0].endpoint == "http://a.shop.svc.cluster.local:3100"


def test_a_headless_service_that_is_the_only_one_is_listed():
    assert outcomes(headless_loki("loki-headless")) == {"loki-headless": "candidate"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (loki("loki"), headless_loki("other-name")),
        (loki("loki", pods=f"{POD} .component=single-binary"), headless_loki("other-name")),
        (loki("loki"), headless_loki("other-name", pods=f"{POD} statefulset=loki")),
        (loki("loki"), loki("loki-second")),
        (loki("loki", annotations={"": "true"}), loki("lok")),
        (headless_loki("loki", annotations={"": "true"}), loki("lok", pods=f"{POD} .component=single-binary")),
        (loki("loki"), loki("lok", type="NodePort")),
        (loki("loki"), loki("lok", type="LoadBalancer")),
        (loki("loki", pods=""), headless_loki("other-name", pods="")),
        (loki("loki", pods=""), loki("loki-second")),
        (loki("loki"), loki("loki-second", pods="")),
        (loki("loki", pods=""), headless_loki("loki-headless", pods="", own=".name=loki app=x")),
        (headless_loki("lok"), headless_loki("lok-hl")),
        (loki("loki"), loki("lok", pods=f"{POD} {ONE_POD}")),
        (headless_loki("loki-headless"), loki("lok", pods=f"{POD} {ONE_POD}")),
    ],
)
def test_the_better_way_to_a_workload_is_kept(one, other):
    wanted = {one.metadata.name: "candidate", other.metadata.name: "duplicate"}
    assert outcomes(one, other) == wanted
    assert outcomes(other, one) == wanted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (loki("loki"), headless_loki("loki-headless", pods=".name=loki .instance=two")),
        (loki("loki"), headless_loki("loki-headless", namespace="other")),
        (loki("loki"), loki("loki-read", pods=f"{POD} .component=read")),
        (loki("loki-0", pods=f"{POD} {ONE_POD}"), loki("loki-1", pods=f"{POD} {ONE_POD[:-1]}1")),
        (loki("loki", pods="", own=".name=loki app=a"), loki("lok", pods="", own=".name=loki app=b")),
        (loki("loki"), service("loki-http", POD, "metrics:3100 grpc:9095", POD)),
        (loki("loki"), service("g", "", "3000", POD, annotations={"-type": "grafana"})),
    ],
)
def test_different_workloads_are_all_listed(one, other):
    assert set(outcomes(one, other).values()) == {"candidate"}


def test_two_apis_of_one_workload_that_its_owner_asked_for_are_both_listed():
    orders = service("orders", "", "8080", "app=shop", annotations={"-type": "custom"})
    stock = service("stock", "", "8081", "app=shop", annotations={"-type": "custom"})
    again = service("orders-again", "", "8080", "app=shop", annotations={"-type": "custom"})
    under_path = service("orders-v2", "", "8080", "app=shop", annotations={"-type": "custom", "-path": "/v2"})
    assert outcomes(orders, stock, again, under_path) == {
        "orders": "candidate",
        "stock": "candidate",
        "orders-again": "duplicate",
        "orders-v2": "candidate",
    }


def test_a_headless_service_that_its_owner_asked_for_is_another_entrance_under_another_path():
    orders = service("orders", "", "8080", "app=shop", annotations={"-type": "custom"})
    beside = headless("orders-v2", "", "8080", "app=shop tier=b", annotations={"-type": "custom", "-path": "/v2"})
    again = headless("orders-again", "", "8080", "app=shop tier=b", annotations={"-type": "custom"})
    assert outcomes(orders, beside, again) == {
        "orders": "candidate",
        "orders-v2": "candidate",
        "orders-again": "duplicate",
    }


@pytest.mark.parametrize("most", range(12))
def test_where_too_many_would_have_to_be_compared_the_order_does_not_matter_either(most, monkeypatch):
    monkeypatch.setattr(twins, "MAX_COMPARISONS", most)
    services = [loki(f"few-{number}", pods=f".name=loki n={number} m={number}") for number in range(2)]
    services += [headless_loki(f"loki-{number}", pods=f".name=loki n={number % 3}") for number in range(4)]
    services += [headless(f"g{number}", "app=grafana", "3000", f"app=grafana n={number % 3}") for number in range(4)]
    assert outcomes(*services) == outcomes(*reversed(services))
    assert outcomes(*services)["g3"] == "duplicate", "equals need no comparison"


def test_the_types_of_a_namespace_share_what_may_be_compared(monkeypatch):
    monkeypatch.setattr(twins, "MAX_COMPARISONS", 1)
    services = [
        *(headless(name, "app=grafana", "3000", f"app=grafana{more}") for name, more in (("g", ""), ("g-b", " x=y"))),
        *(headless_loki(name, pods=f".name=loki{more}") for name, more in (("l", ""), ("l-b", " x=y"))),
    ]
    assert outcomes(*services) == {"g": "candidate", "g-b": "duplicate", "l": "candidate", "l-b": "candidate"}


def test_node_groups_of_one_elasticsearch_answer_for_the_whole_cluster():
    def group(name, role, make=headless, instance="es"):
        labels = f".name=elasticsearch .instance={instance} .component={role}"
        return make(name, labels, "tcp-rest-api:9200 tcp-transport:9300", labels)

    assert outcomes(
        group("es-master-hl", "master"),
        group("es-data-hl", "data"),
        group("es", "coordinating-only", service),
        group("two-data-hl", "data", instance="two"),
    ) == {"es-master-hl": "duplicate", "es-data-hl": "duplicate", "es": "candidate", "two-data-hl": "candidate"}
