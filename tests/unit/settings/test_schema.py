"""The schemas say what the model says."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given

from dynamic_toolset.settings import PROCESS_SETTINGS, RESOURCE_FIELDS, Settings, problems
from dynamic_toolset.settings.descriptions import DESCRIPTIONS
from dynamic_toolset.settings.model import leaves
from dynamic_toolset.settings.schema import json_schema, paths, spec_schema, structural
from dynamic_toolset.toolset_config import Status
from tests.documentation import DOCS, table
from tests.unit.settings.test_problems import values

FILE = jsonschema_rs.Draft202012Validator(json_schema())


def test_every_setting_is_described_and_nothing_else() -> None:
    described = [
        path for path, schema in paths(json_schema()) if "properties" in schema or not path.endswith(("[]", ".*"))
    ]
    described.append("toolset.base.*")  # HolmesGPT says what is in there
    groups = {path for path, schema in paths(json_schema()) if "properties" in schema and path.endswith("[]")}
    assert set(described) - groups == set(DESCRIPTIONS)


def test_the_table_of_the_settings_says_the_same() -> None:
    said = {name.strip("`"): text for name, _, text in table(DOCS / "settings.md", "setting")}
    assert list(said) == [path for path, _ in leaves()]
    for path, text in said.items():
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
        assert f"{plain[:1].upper()}{plain[1:]}." == DESCRIPTIONS[path]


class TestFile:
    def test_it_is_a_schema(self) -> None:
        jsonschema_rs.meta.validate(json_schema())

    @given(values(Settings))
    def test_what_the_program_takes_as_it_stands_is_marked_by_no_editor(self, content: Any) -> None:
        try:
            msgspec.convert(content, Settings)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return
        FILE.validate(json.loads(msgspec.json.encode(content)))

    def test_the_defaults_are_those_of_the_model(self) -> None:
        FILE.validate(msgspec.json.decode(msgspec.json.encode(Settings())))
        plain = msgspec.json.decode(msgspec.json.encode(Settings()))
        schemas = dict(paths(json_schema()))
        for path, _ in leaves():
            value = plain
            for name in path.split("."):
                value = value[name]
            assert schemas[path]["default"] == value

    @pytest.mark.parametrize(
        "content",
        [
            {"healthCheck": {"timout": "5s"}},
            {"healthCheck": {"timeout": "soon"}},
            {"healthCheck": {"failureThreshold": 0}},
            {"healthCheck": {"failureThreshold": 21}},
            {"endpointHost": "ip"},
            {"selector": "a in b"},
            {"policy": {"foreignEndpoints": [{"hosts": []}]}},
            {"policy": {"trustedTypes": ["a", "a"]}},
            {"namespaces": {"include": ["B"]}},
            {"serviceTypes": {"B": {}}},
            {"serviceTypes": {"b": {"labels": {"a b": "c"}}}},
            {"toolset": {"base": {"a": 1}}},
            {"configMap": {"name": "a\n"}},
            {"clusters": [{"name": "a"}]},
        ],
    )
    def test_what_is_wrong_is_marked(self, content: Any) -> None:
        assert not FILE.is_valid(content)
        assert problems(content)


class TestSpec:
    def test_it_has_the_settings_of_the_resource(self) -> None:
        there = {path for path, _ in paths(spec_schema())}
        assert there >= set(RESOURCE_FIELDS)
        assert not [path for path in there if path in PROCESS_SETTINGS or path.startswith("server.")]

    def test_no_default_of_a_setting_is_stored(self) -> None:
        stored = [path for path, schema in paths(spec_schema()) if "default" in schema]
        assert stored == ["serviceTypes.*.enabled", "toolset.credentials[].cluster"]
        assert [path for path, schema in paths(structural(Status)) if "default" in schema] == [
            "discoveredServices[].cluster"
        ]

    def test_defaults_are_told(self) -> None:
        schemas = dict(paths(spec_schema()))
        assert schemas["discoveryInterval"]["description"].endswith(" Default: `5m`.")
        assert schemas["paused"]["description"].endswith(" Default: `false`.")
        assert schemas["policy.trustedTypes"]["description"].endswith(", `grafana`, `mcp`.")
        assert "Default" not in schemas["namespaces.include"]["description"]

    @pytest.mark.parametrize("schema", [spec_schema(), structural(Status)], ids=["spec", "status"])
    def test_it_is_structural_and_bounded(self, schema: dict[str, Any]) -> None:
        for path, inner in paths(schema):
            assert inner["type"] in {"object", "array", "string", "integer", "boolean"}, path
            assert not inner.keys() & {"$ref", "anyOf", "oneOf", "allOf", "uniqueItems", "propertyNames"}, path
            if inner["type"] == "array":
                assert "maxItems" in inner
                assert "x-kubernetes-list-type" in inner
            if "additionalProperties" in inner:
                assert inner["additionalProperties"]
                assert "properties" not in inner
                assert "maxProperties" in inner

    def test_the_keys_of_a_list_are_given_or_have_a_default(self) -> None:
        for schema in (spec_schema(), structural(Status)):
            for _, inner in paths(schema):
                for key in inner.get("x-kubernetes-list-map-keys", ()):
                    members = inner["items"]
                    assert key in members["required"] or "default" in members["properties"][key]

    def test_every_rule_has_a_message_that_can_follow_the_name_of_the_field(self) -> None:
        messages = [rule["message"] for rule in _rules(spec_schema())]
        assert len(messages) == 15
        assert all(re.fullmatch(r"(must|each name must) be .*[^.]", message) for message in messages)


def _rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    for _, inner in paths(schema):
        yield from inner.get("x-kubernetes-validations", ())
