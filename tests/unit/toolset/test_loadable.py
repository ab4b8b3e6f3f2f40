import datetime as dt

import pytest

from dynamic_toolset.toolset.loadable import problem


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a.b": 1}, "base: the name 'a.b' contains '.'"),
        ({"list": [{"a.b": 1}]}, "base.list[0]: the name 'a.b' contains '.'"),
        ({"x": {True: 1}}, "base.x: the name True is not text"),
        ({"k" * 300: 1}, "base: a name of 300 characters"),
        ({"a\nb": 1}, "base: the name 'a\\nb' contains a character that cannot be printed"),
        ({"x": [1, float("inf")]}, "base.x[1]: inf is not a number"),
        ({"x": float("nan")}, "base.x: nan is not a number"),
        ({"x": 2**64}, "base.x: the number does not fit"),
        ({"x": "\ud800"}, "base.x: the text contains half of a surrogate pair"),
        ({"x": dt.date(2024, 1, 1)}, "base.x: a value of type date"),
        ({"x": {1, 2}}, "base.x: a value of type set"),
    ],
)
def test_says_where_and_why(value, why):
    assert (problem(value, "base") or "").startswith(why)


def test_deep_nesting_is_a_problem_and_not_a_crash():
    value = {}
    for _ in range(5000):
        value = {"a": value}
    assert "nested more than 32 deep" in (problem(value, "base") or "")


def test_plain_data_is_fine():
    assert problem({"a": [1, 1.5, None, True, "x.y", {"b": {}}]}, "base") is None
