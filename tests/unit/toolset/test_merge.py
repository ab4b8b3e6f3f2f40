import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.toolset.emitter import to_yaml
from dynamic_toolset.toolset.merge import differences, merge
from tests.unit.toolset.samples import plain


@pytest.mark.parametrize(
    ("value", "patch", "result"),
    [
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": None, "z": 3}}, {"a": {"y": 2, "z": 3}}),
        ({"a": 1}, {"a": {"x": None, "y": 1}}, {"a": {"y": 1}}),
        ({"a": {"x": 1}}, {"a": 5}, {"a": 5}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": [{"x": 1}]}, {"a": [{"x": None, "y": 2}]}, {"a": [{"y": 2}]}),
        ({}, {"a": [1, None]}, {"a": [1, None]}),
        (
            {"a": [{"name": "x", "k": 1, "gone": 2}, {"name": "y"}]},
            {"a": [{"name": "z", "n": None}, {"name": "x", "k": 5, "gone": None}]},
            {"a": [{"name": "x", "k": 5}, {"name": "y"}, {"name": "z"}]},
        ),
        ({"a": [{"id": "x", "k": 1}]}, {"a": [{"id": "x", "j": 2}]}, {"a": [{"id": "x", "k": 1, "j": 2}]}),
        ({"a": [{"name": "x"}]}, {"a": [{"name": "y"}, {"other": 1}]}, {"a": [{"name": "y"}, {"other": 1}]}),
        ({"a": [{"name": "x"}, {"name": "x"}]}, {"a": [{"name": "x", "k": 1}]}, {"a": [{"name": "x", "k": 1}]}),
    ],
)
def test_merge(value, patch, result):
    assert merge(value, patch) == result


@given(plain, plain)
def test_merging_again_changes_nothing(value, patch):
    once = merge(value, patch)
    assert merge(once, patch) == once


@given(plain, plain)
def test_inputs_are_left_alone(value, patch):
    before = copy.deepcopy((value, patch))
    merge(value, patch)
    assert (value, patch) == before


@given(plain)
def test_an_empty_patch_is_the_identity(value):
    assert merge({"a": value}, {}) == {"a": value}


@given(plain)
def test_null_removes(value):
    assert merge({"a": value, "b": 1}, {"a": None}) == {"b": 1}


def shaped(depth: int) -> st.SearchStrategy:
    """Mappings without null in which a key tells what kind of value it has, as in a toolset file."""
    scalars = st.integers(0, 3) | st.booleans() | st.text("ab", max_size=2)
    fields = {"x": scalars, "y": scalars, "plain": st.lists(st.integers(0, 3), max_size=2)}
    if depth:
        below = shaped(depth - 1)
        entries = st.tuples(st.sampled_from("pqr"), below).map(lambda pair: {**pair[1], "name": pair[0]})
        fields |= {"a": below, "b": below, "named": st.lists(entries, max_size=3, unique_by=lambda one: one["name"])}
    return st.fixed_dictionaries({}, optional=fields)


@given(shaped(2), shaped(2), shaped(2))
def test_changes_of_one_shape_can_be_put_together_first(value, first, second):
    assert merge(merge(value, first), second) == merge(value, merge(first, second))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, ["a", "c"]),
        ({"a": {"b": 1, "c": [1]}}, {"a": {"b": True, "c": [1, 2]}}, ["a.b", "a.c"]),
        ({"a": [1, {"b": 1}]}, {"a": [1, {"b": 1.0}]}, ["a"]),
        ({"a": [1, {"b": 1}]}, {"a": [1, {"b": 1}]}, []),
        ({"a": [{"name": "x", "y": 1}]}, {"a": [{"name": "x", "y": 2}, {"name": "z"}]}, ["a[x].y", "a[z]"]),
        ({"a": [{"id": "x", "y": 1}]}, {"a": [{"id": "x"}]}, ["a[x].y"]),
        ({"a": [{"name": "x"}, {"name": "y"}]}, {"a": [{"name": "y"}, {"name": "x"}]}, ["a"]),
        ({"a": [{"name": "x"}]}, {"a": []}, ["a"]),
        ({"a": []}, {"a": {}}, ["a"]),
    ],
)
def test_what_differs_is_named(before, after, expected):
    assert list(differences(before, after)) == expected


@given(plain, plain)
def test_nothing_differs_exactly_if_both_are_written_alike(before, patch):
    after = merge(before, patch)
    for one, other in ((before, after), (after, before), (before, patch)):
        assert (not any(differences(one, other, "x"))) is (to_yaml({"a": one}) == to_yaml({"a": other}))
    assert not any(differences(before, copy.deepcopy(before), "x"))
