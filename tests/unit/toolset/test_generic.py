import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.toolset.generic import published, render, tools
from tests.unit.toolset.samples import RICH, RICH_SETTINGS, candidate, candidate_sets, listed


def test_says_what_each_service_is_and_how_the_agent_uses_it():
    services = listed(
        candidate("opensearch", "search", "os", port=9200, name="logs"),
        candidate("jaeger", "a", "jaeger", port=16686, path="/jaeger"),
    )
    assert json.loads(render(services)) == {
        "tools": [
            {
                "name": "jaeger",
                "type": "jaeger",
                "endpoint": "http://jaeger.a.svc.cluster.local:16686/jaeger",
                "description": "What jaeger knows",
                "namespace": "a",
                "metadata": {"service": "jaeger", "title": "Jaeger", "toolsets": "jaeger-a-jaeger"},
            },
            {
                "name": "logs",
                "type": "opensearch",
                "endpoint": "http://os.search.svc.cluster.local:9200",
                "description": "What opensearch knows",
                "namespace": "search",
                "metadata": {
                    "service": "os",
                    "title": "Opensearch",
                    "toolsets": "elasticsearch/data,elasticsearch/cluster",
                },
            },
        ]
    }


def test_a_service_of_another_cluster_can_be_found_again():
    services = [
        candidate("jaeger", "a", "ui", cluster="eu", path="/jaeger", host="203.0.113.7"),
        candidate("grafana", "a", "ui", cluster="us", name="dashboards"),
        candidate("grafana", "a", "ui"),
    ]
    text = render(listed(*services))
    assert [tool["metadata"].get("cluster") for tool in json.loads(text)["tools"]] == [None, "eu", "us"]
    assert {(one.service, one.type, one.name, one.endpoint) for one in tools(text)} == {
        (one.key, one.type, one.name, one.endpoint.url) for one in services
    }


def test_nothing_found_is_an_empty_list():
    assert json.loads(render([])) == {"tools": []}


@given(candidate_sets, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bytes_which_are_read_back(candidates, random):
    text = render(listed(*candidates))
    random.shuffle(candidates)
    assert render(listed(*candidates)) == text
    assert published(text) == {(one.key, one.type) for one in candidates}
    entries = json.loads(text)["tools"]
    assert len({(tool["namespace"], tool["name"]) for tool in entries}) == len(entries)


def test_metadata_holds_texts_only():
    for tool in json.loads(render(listed(*RICH), RICH_SETTINGS))["tools"]:
        assert all(isinstance(value, str) for value in tool["metadata"].values())


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "[" * 100_000, '{"tools": 1}', '{"tools": {"a": 1}}', '{"tools": [1, null, {}]}']
)
def test_what_cannot_be_read_lists_nothing(text):
    assert published(text) == frozenset()


def test_one_broken_entry_costs_only_itself():
    content = json.loads(render(listed(*RICH)))
    content["tools"][0]["namespace"] = 5
    assert len(published(json.dumps(content))) == len(RICH) - 1
