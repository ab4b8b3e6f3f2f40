"""Laws and tables of the sandbox's pure parts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.sandbox import ownership
from dynamic_toolset.sandbox.defaults import tidy
from dynamic_toolset.sandbox.ownership import Manager, after_apply, after_update, decode, describe, encode, fields
from dynamic_toolset.sandbox.patches import merge
from dynamic_toolset.sandbox.resources import CONFIG_MAPS, LEASES, NAMESPACES, SERVICES, Target, target

NOW = "2026-01-01T00:00:00Z"
ME, YOU = Manager("Apply", "me"), Manager("Apply", "you")
HAND = Manager("Update", "hand")

keys = st.sampled_from(["a", "b", "c"])
texts = st.dictionaries(keys, st.sampled_from(["1", "2"]), max_size=3)
ports = st.lists(
    st.fixed_dictionaries(
        {"port": st.sampled_from([80, 81])}, optional={"name": keys, "protocol": st.sampled_from(["TCP", "UDP"])}
    ),
    unique_by=lambda port: (port["port"], port.get("protocol", "TCP")),
    min_size=1,
    max_size=3,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({}, optional={"labels": texts, "annotations": texts}),
        "data": texts,
        "spec": st.fixed_dictionaries({}, optional={"ports": ports, "selector": texts, "type": keys}),
    },
)
writes = st.lists(st.tuples(st.sampled_from([ME, YOU, HAND]), objects), max_size=6)


def apply(
    live: dict[str, Any], body: dict[str, Any], owners: ownership.Managers, manager: Manager
) -> tuple[dict[str, Any], ownership.Managers, dict[Manager, frozenset[ownership.Path]]]:
    """Apply by force, and store as the server does: without what is empty."""
    new, left, conflicts = after_apply(live, body, owners, manager, NOW)
    return stored(new), left, conflicts


def stored(obj: dict[str, Any]) -> dict[str, Any]:
    kept = tidy({"metadata": {}, **obj})
    return kept | {"spec": {key: value for key, value in kept.get("spec", {}).items() if value}}


def replay(history: list[tuple[Manager, dict[str, Any]]]) -> tuple[dict[str, Any], ownership.Managers]:
    live: dict[str, Any] = {}
    owners: ownership.Managers = {}
    for manager, body in history:
        if manager.operation == "Apply":
            live, owners, _ = apply(live, body, owners, manager)
        else:
            owners = after_update(live, stored(body), owners, manager, NOW)
            live = stored(body)
    return live, owners


@given(writes)
def test_ownership_survives_the_wire(history: list[tuple[Manager, dict[str, Any]]]) -> None:
    _, owners = replay(history)
    assert decode(encode(owners, "v1")) == owners


@given(writes, objects)
def test_what_is_applied_is_there_and_owned(
    history: list[tuple[Manager, dict[str, Any]]], body: dict[str, Any]
) -> None:
    live, owners = replay(history)
    new, left, _ = apply(live, body, owners, ME)
    stated = fields(body, applied=True)
    present = fields(new)
    assert all(present[path] == value for path, value in stated.items() if value)
    assert (left[ME].paths if stated else frozenset()) == stated.keys()


@given(writes, objects)
def test_applying_the_same_again_changes_nothing(
    history: list[tuple[Manager, dict[str, Any]]], body: dict[str, Any]
) -> None:
    live, owners = replay(history)
    once, left, _ = apply(live, body, owners, ME)
    twice, left_again, conflicts = apply(once, body, left, ME)
    assert (twice, left_again, conflicts) == (once, left, {})


@given(writes, objects)
def test_without_a_conflict_nobody_elses_field_changes(
    history: list[tuple[Manager, dict[str, Any]]], body: dict[str, Any]
) -> None:
    live, owners = replay(history)
    new, _, conflicts = apply(live, body, owners, ME)
    if conflicts:
        return
    before, after = fields(live), fields(new)
    for manager, owned in owners.items():
        if manager != ME:
            theirs = {path for path in owned.paths & before.keys() if before[path] and "f:ports" not in path}
            assert {path: after.get(path) for path in theirs} == {path: before[path] for path in theirs}


def test_a_path_is_described_as_in_conflicts() -> None:
    assert describe(("f:data", "f:toolset.json")) == ".data.toolset.json"
    entry = 'k:{"port":80,"protocol":"TCP"}'
    assert describe(("f:spec", "f:ports", entry, "f:name")) == '.spec.ports[port=80,protocol="TCP"].name'


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_in_the_appendix_of_rfc_7396(before: Any, patch: Any, after: Any) -> None:
    assert merge(before, patch) == after


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces", Target(NAMESPACES)),
        ("/api/v1/namespaces/shop", Target(NAMESPACES, "", "shop")),
        ("/api/v1/services", Target(SERVICES)),
        ("/api/v1/namespaces/shop/services", Target(SERVICES, "shop")),
        ("/api/v1/namespaces/shop/configmaps/a.b", Target(CONFIG_MAPS, "shop", "a.b")),
        ("/apis/coordination.k8s.io/v1/namespaces/shop/leases/a", Target(LEASES, "shop", "a")),
        ("/api/v1/services/a", None),
        ("/api/v1/namespaces/shop/namespaces", None),
        ("/api/v1/namespaces/shop/services/a/status", None),
        ("/api/v1/leases", None),
        ("/apis/v1/services", None),
        ("/api", None),
        ("/", None),
    ],
)
def test_a_path_leads_to(path: str, expected: Target | None) -> None:
    assert target(path) == expected
