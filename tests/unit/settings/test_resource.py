"""What the spec of a ToolsetConfig may say."""

import time
from typing import Any

import pytest
from hypothesis import given

from dynamic_toolset.settings import (
    PROCESS_SETTINGS,
    RESOURCE_FIELDS,
    Resource,
    load_with_sources,
    problems,
    problems_of_spec,
)
from dynamic_toolset.settings.model import Settings, leaves
from dynamic_toolset.strict_yaml import MAX_DEPTH, MAX_MISTAKES
from tests.unit.settings.test_problems import values

PROCESS = "belongs to the process: set it in its file, environment or options"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"discoveryInterval": "10m", "healthCheck": {"timeout": "1s"}, "toolset": {"base": {"a": {"b": None}}}}, []),
        (None, ["spec: expected `object`, got `null`"]),
        ({"server": {"port": 1}, "paused": True}, [f"server: {PROCESS}"]),
        ({"server": None}, [f"server: {PROCESS}"]),
        (
            {"healthCheck": {"caFile": "/etc/x", "timeout": "0s"}, "clusters": [], "leaderElection": {}},
            [
                f"healthCheck.caFile: {PROCESS}",
                "healthCheck.timeout: must be at least 1s, not 0s",
                f"clusters: {PROCESS}",
                f"leaderElection: {PROCESS}",
            ],
        ),
        ({"servr": {}}, ["servr: unknown field `servr`; there are discoveryInterval, paused, "]),
        ({"healthCheck": {"timout": "1s"}}, ["healthCheck.timout: unknown field `timout`; did you mean `timeout`?"]),
        (
            {"paused": "true", "policy": {"maxInAll": "5"}},
            ["paused: expected `bool`", "policy.maxInAll: expected `int`"],
        ),
        (
            {"discoveryInterval": "2h", "selector": "a in b"},
            ["discoveryInterval: must be from 1m to 1h, not 2h", "selector: unable to parse requirement: 'a in b'"],
        ),
    ],
)
def test_says_where_and_what_is_allowed(spec: Any, expected: list[str]) -> None:
    found = [str(problem) for problem in problems_of_spec(spec)]
    assert len(found) == len(expected), found
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True)), found


def test_each_setting_is_one_of_the_resource_or_one_of_the_process() -> None:
    for path, _ in leaves():
        told = problems_of_spec(nested(path, "\0"))
        assert told, path
        assert (path in RESOURCE_FIELDS) is not (told[0].message == PROCESS), path
    assert not any(field.startswith(PROCESS_SETTINGS) for field in RESOURCE_FIELDS)


def test_who_has_too_many_problems_is_told_so() -> None:
    found = problems_of_spec({"namespaces": {"include": ["B"] * 5000}})
    assert len(found) == MAX_MISTAKES + 1
    assert str(found[-1]) == "spec: more than 1000 problems: the rest is not looked at"


@pytest.mark.parametrize("depth", [MAX_DEPTH, 500, 20_000])
def test_what_the_schema_leaves_open_is_nested_as_deep_as_in_a_file_at_most(depth: int) -> None:
    entry: Any = {}
    for number in range(depth):
        entry = {"a": entry} if number % 2 else [entry]
    (found,) = problems_of_spec({"toolset": {"base": {"mine": {"config": entry}}}})
    assert str(found) == "toolset.base.mine.config: nested more than 32 deep"


def test_one_that_was_stored_before_any_rule_is_judged_in_no_time() -> None:
    credentials = [{"namespace": f"n{number}", "service": "s", "apiKey": "A"} for number in range(50_000)]
    began = time.thread_time()
    assert problems_of_spec({"toolset": {"credentials": credentials}})
    assert time.thread_time() - began < 15  # one; comparing each with each other takes 40


@given(values(Settings))
def test_a_spec_without_problems_can_be_layered_over_anything(spec: Any) -> None:
    if problems_of_spec(spec) == ():
        assert problems(spec) == ()
        load_with_sources(None, {}, resource=Resource("a", spec))


def nested(path: str, value: Any) -> Any:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value
