import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.model import HttpBinding, McpBinding, ServiceKey
from dynamic_toolset.toolset.names import BUILT_IN, MAX_LENGTH, fold, instance_names, toolset_names, unique
from tests.unit.toolset.samples import candidate, candidate_sets


def test_a_chosen_name_is_used():
    assert instance_names([candidate("grafana", "a", "svc", name="main")]) == {ServiceKey("a", "svc"): "a.main"}


def test_two_who_chose_the_same_name_both_get_their_services():
    chosen = [candidate("grafana", "a", service, name="main") for service in ("x", "y")]
    other = candidate("grafana", "b", "x", name="main")
    assert instance_names([*chosen, other]) == {
        ServiceKey("a", "x"): "a.x",
        ServiceKey("a", "y"): "a.y",
        ServiceKey("b", "x"): "b.main",
    }


def test_a_chosen_name_does_not_take_a_name_that_another_falls_back_to():
    services = [("x", "y"), ("z", "y"), ("w", "x")]
    names = instance_names([candidate("grafana", "a", service, name=name) for service, name in services])
    assert names == {ServiceKey("a", "x"): "a.x", ServiceKey("a", "z"): "a.z", ServiceKey("a", "w"): "a.w"}


@pytest.mark.parametrize(
    ("type_", "namespace", "service", "name"),
    [
        ("jaeger", "tracing", "jaeger-query", "jaeger-tracing-jaeger-query"),
        ("mcp", "shop", "orders", "mcp-shop-orders"),
        ("a", "b" * 50, "c" * 50, "a-" + "b" * 45 + "-ddc166ab"),
        ("kubernetes", "kube", "prometheus-stack", "kubernetes-kube-prometheus-stack-"),
    ],
)
def test_toolset_names(type_, namespace, service, name):
    found = toolset_names([candidate(type_, namespace, service)])[ServiceKey(namespace, service)]
    assert found.startswith(name) if name.endswith("-") else found == name
    assert len(found) <= MAX_LENGTH


def test_reserved_names_are_nobodys():
    one = candidate("shop", "orders", "api")
    assert toolset_names([one], ["shop_orders/API"])[one.key].startswith("shop-orders-api-")


def test_names_that_would_be_written_alike_are_told_apart():
    first, second = candidate("a", "b-c", "d"), candidate("a", "b", "c-d")
    names = toolset_names([first, second])
    assert all(name.startswith("a-b-c-d-") for name in names.values())
    assert len(set(names.values())) == 2


def test_who_takes_the_hashed_name_of_another_gets_it_not():
    victim = [candidate("a", "b", service, name="same") for service in ("c" * 60, "d" * 60)]
    hashed = toolset_names(victim)[victim[0].key]
    thief = candidate("a", "b", "x", name=hashed.removeprefix("a-b-"))
    names = toolset_names([*victim, thief])
    assert len(set(names.values())) == 3


def test_wishes_that_cannot_be_told_apart_end():
    assert unique({ServiceKey("a", "x"): ("n",), ServiceKey("a", "y"): ("n",)}) == {
        ServiceKey("a", "x"): "n",
        ServiceKey("a", "y"): "n",
    }


@given(candidate_sets, st.randoms(use_true_random=False))
def test_names_are_unique_harmless_and_the_same_in_any_order(candidates, shuffle: random.Random):
    shuffled = list(candidates)
    shuffle.shuffle(shuffled)
    instances, toolsets = instance_names(candidates), toolset_names(candidates)
    assert instances == instance_names(shuffled)
    assert toolsets == toolset_names(shuffled)
    assert len(set(instances.values())) == len(candidates)
    assert len(set(toolsets.values())) == sum(isinstance(one.agent, HttpBinding | McpBinding) for one in candidates)
    for name in toolsets.values():
        assert name == fold(name)
        assert len(name) <= MAX_LENGTH
    assert {fold(name) for name in BUILT_IN}.isdisjoint(toolsets.values())
