import re
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.model import McpBinding
from dynamic_toolset.settings import Credential, ToolsetSettings
from dynamic_toolset.toolset.holmesgpt import base_problems, generate, has_credentials, serialize
from tests.unit.toolset.samples import BINDINGS, RICH, RICH_SETTINGS, candidate, candidate_sets, listed, load

GOLDEN = Path(__file__).parent / "golden" / "custom_toolset.yaml"
BARE = ToolsetSettings(base={})


def toolsets(*candidates, settings=BARE, **options):
    return generate(listed(*candidates), settings, **options)["toolsets"]


def instances(toolset, *candidates, settings=BARE, **options):
    return toolsets(*candidates, settings=settings, **options)[toolset]["config"]["instances"]


class TestFile:
    def test_golden(self):
        # Checked with the real loader: tests/e2e/check_with_holmesgpt.py tests/unit/toolset/golden/custom_toolset.yaml
        assert serialize(generate(listed(*RICH), RICH_SETTINGS)) == GOLDEN.read_text()

    @given(candidate_sets, st.randoms(use_true_random=False))
    def test_any_order_gives_the_same_bytes_and_holmesgpt_can_load_them(self, candidates, random):
        mapping = generate(listed(*candidates), ToolsetSettings())
        text = serialize(mapping)
        random.shuffle(candidates)
        assert serialize(generate(listed(*candidates), ToolsetSettings())) == text
        content = load(text)
        (marker,) = content["toolsets"].keys() - mapping["toolsets"].keys()
        assert re.fullmatch("dynamic-toolset-rev-[0-9a-f]{8}", marker)
        assert content["toolsets"].pop(marker)["tools"] == []
        assert content == mapping

    @given(candidate_sets)
    def test_names_are_unique_over_both_sections(self, candidates):
        mapping = generate(listed(*candidates), ToolsetSettings())
        names = [*mapping["toolsets"], *mapping.get("mcp_servers", {})]
        assert len({re.sub("[-/_]", "_", name) for name in names}) == len(names)
        for entry in mapping["toolsets"].values():
            for key in ("instances", "clusters"):
                inside = [one.get("name") or one.get("id") for one in entry.get("config", {}).get(key, [])]
                assert len(set(inside)) == len(inside)

    def test_no_service_at_all_is_still_a_file_that_loads(self):
        content = load(serialize(generate([], BARE)))
        assert [name[:20] for name in content["toolsets"]] == ["dynamic-toolset-rev-"]
        assert load(serialize({}))["toolsets"].keys() != content["toolsets"].keys()

    def test_the_marker_changes_with_the_content_and_only_with_it(self):
        def marker(*candidates):
            return next(
                name for name in load(serialize(generate(listed(*candidates), BARE)))["toolsets"] if "rev" in name
            )

        one, moved = candidate("prometheus", "a", "p", port=1), candidate("prometheus", "a", "p", port=2)
        assert marker(one) == marker(one)
        assert marker(one) != marker(moved)

    def test_the_header_says_who_wrote_it_and_where_changes_go(self):
        header = "".join(line for line in serialize({}).splitlines(keepends=True) if line.startswith("#"))
        assert "dynamic-toolset" in header
        assert "overrides.yaml" in header

    def test_only_known_keys_are_ever_written(self):
        content = generate(listed(*RICH), RICH_SETTINGS)
        allowed = {"enabled", "type", "description", "llm_instructions", "config"}
        for entry in (*content["toolsets"].values(), *content["mcp_servers"].values()):
            assert entry.keys() <= allowed
            assert entry["enabled"] is True

    def test_env_references_are_those_of_the_operator(self):
        text = serialize(generate(listed(*RICH), RICH_SETTINGS))
        names = {name for one in RICH_SETTINGS.credentials for name in msgspec.structs.astuple(one)[3:] if name}
        assert set(re.findall(r"\{\{(.*?)\}\}", text)) == {f" env.{name} " for name in names}


class TestInstances:
    def test_several_types_fill_one_toolset(self):
        first, second = candidate("victoriametrics", "a", "vm", port=8428), candidate("prometheus", "b", "p", port=9090)
        assert instances("prometheus/metrics", second, first) == [
            {"name": "a.vm", "prometheus_url": "http://vm.a.svc.cluster.local:8428"},
            {"name": "b.p", "prometheus_url": "http://p.b.svc.cluster.local:9090"},
        ]

    @pytest.mark.parametrize("type_", ["elasticsearch", "opensearch"])
    def test_one_type_fills_several_toolsets(self, type_):
        found = toolsets(candidate(type_, "a", "es"))
        assert found["elasticsearch/data"] == found["elasticsearch/cluster"]

    def test_rabbitmq_has_clusters_and_a_slash(self):
        found = toolsets(candidate("rabbitmq", "mq", "r", path="/rabbit"))["rabbitmq/core"]
        url = "http://r.mq.svc.cluster.local:8080/rabbit/"
        assert found == {"enabled": True, "config": {"clusters": [{"id": "mq.r", "api_url": url}]}}

    def test_options_of_the_type_are_in_each_entry(self):
        (entry,) = instances("grafana/loki", candidate("loki", "a", "loki"))
        assert (entry["timeout_seconds"], entry["max_retries"]) == (5, 1)

    def test_what_is_not_listed_is_not_there(self):
        (service,) = listed(candidate("loki", "a", "loki"))
        assert generate([msgspec.structs.replace(service, listed=False)], BARE) == {"toolsets": {}}


class TestHttp:
    def test_one_toolset_for_each_service(self):
        one = candidate("jaeger", "tracing", "jaeger", port=16686, path="/jaeger")
        origin = "http://jaeger.tracing.svc.cluster.local:16686"
        assert toolsets(one) == {
            "jaeger-tracing-jaeger": {
                "type": "http",
                "enabled": True,
                "description": "Jaeger of Service jaeger in namespace tracing",
                "llm_instructions": f"Jaeger query API. Base URL: {origin}/jaeger\n"
                f"- GET {origin}/jaeger/api/services lists the names of services.\n",
                "config": {
                    "endpoints": [
                        {
                            "hosts": [origin],
                            "paths": ["/jaeger/api/*"],
                            "methods": ["GET"],
                            "health_check_url": f"{origin}/jaeger/api/services",
                        }
                    ]
                },
            }
        }

    def test_without_a_health_path_nothing_is_asked_first(self):
        (entry,) = toolsets(candidate("custom", "a", "b")).values()
        assert "health_check_url" not in entry["config"]["endpoints"][0]


class TestMcp:
    @pytest.mark.parametrize("mode", ["streamable-http", "sse"])
    def test_servers_are_in_a_section_of_their_own(self, mode):
        one = candidate("mcp", "shop", "orders", path="/mcp", agent=McpBinding(mode))
        assert generate(listed(one), BARE) == {
            "toolsets": {},
            "mcp_servers": {
                "mcp-shop-orders": {
                    "enabled": True,
                    "description": "Mcp of Service orders in namespace shop",
                    "config": {"url": "http://orders.shop.svc.cluster.local:8080/mcp", "mode": mode},
                }
            },
        }


class TestTls:
    def test_is_verified_unless_the_operator_says_no_and_then_for_https_only(self):
        secure = [candidate(type_, "s", type_, scheme="https") for type_ in BINDINGS]
        plain = [candidate(type_, "p", type_) for type_ in BINDINGS]
        assert "verify_ssl" not in serialize(generate(listed(*secure, *plain), BARE))
        assert "verify_ssl" not in serialize(generate(listed(*plain), BARE, verify_tls=False))
        found = generate(listed(*secure, *plain), BARE, verify_tls=False)
        assert [one.get("verify_ssl") for one in found["toolsets"]["grafana/loki"]["config"]["instances"]] == [
            None,
            False,
        ]
        assert found["toolsets"]["jaeger-s-jaeger"]["config"]["verify_ssl"] is False
        assert found["mcp_servers"]["mcp-s-mcp"]["config"]["verify_ssl"] is False


class TestCredentials:
    @pytest.mark.parametrize(
        ("type_", "given", "added"),
        [
            ("grafana", {"api_key": "K"}, {"api_key": "{{ env.K }}"}),
            ("grafana", {"api_key": "K", "username": "U", "password": "P"}, {"api_key": "{{ env.K }}"}),
            ("grafana", {"username": "U", "password": "P"}, {"username": "{{ env.U }}", "password": "{{ env.P }}"}),
            ("grafana", {"username": "U"}, {}),
            ("grafana", {"bearer_token": "T"}, {}),
            ("victorialogs", {"bearer_token": "T"}, {"bearer_token": "{{ env.T }}"}),
            ("prometheus", {"api_key": "K"}, {}),
            ("prometheus", {"bearer_token": "T"}, {"additional_headers": {"Authorization": "Bearer {{ env.T }}"}}),
            ("jaeger", {"bearer_token": "T"}, {"auth": {"type": "bearer", "token": "{{ env.T }}"}}),
            (
                "jaeger",
                {"username": "U", "password": "P"},
                {"auth": {"type": "basic", "username": "{{ env.U }}", "password": "{{ env.P }}"}},
            ),
            ("jaeger", {"api_key": "K"}, {}),
            ("mcp", {"bearer_token": "T"}, {"headers": {"Authorization": "Bearer {{ env.T }}"}}),
            ("mcp", {"username": "U", "password": "P"}, {}),
        ],
    )
    def test_become_references_of_a_kind_that_the_toolset_takes(self, type_, given, added):
        one, settings = candidate(type_, "a", "b"), ToolsetSettings({}, (Credential("a", "b", **given),))
        assert has_credentials(one, settings) is bool(added)
        without, with_ = (yaml.safe_load(serialize(generate(listed(one), each))) for each in (BARE, settings))
        found = dict(flat(with_).items() - flat(without).items())
        assert {key: value for key, value in found.items() if "dynamic-toolset" not in key} == {
            key: value for place in places(without) for key, value in flat(added, place).items()
        }

    @pytest.mark.parametrize(("namespace", "service"), [("a", "other"), ("other", "b")])
    def test_are_bound_to_one_service(self, namespace, service):
        one = candidate("grafana", namespace, service)
        settings = ToolsetSettings({}, (Credential("a", "b", api_key="K"),))
        assert not has_credentials(one, settings)
        assert "{{" not in serialize(generate(listed(one), settings))

    @pytest.mark.parametrize("type_", ["grafana", "jaeger", "mcp", "prometheus", "elasticsearch"])
    @pytest.mark.parametrize("meant", ["", "eu", "us"])
    def test_are_bound_to_one_cluster(self, type_, meant):
        given = {"api_key": "K", "bearer_token": "K", "username": "K", "password": "K"}
        settings = ToolsetSettings({}, (Credential("a", "b", meant, **given),))
        for cluster in ("", "eu", "us"):
            one = candidate(type_, "a", "b", cluster=cluster)
            assert has_credentials(one, settings) is (cluster == meant)
            assert ("env.K" in serialize(generate(listed(one), settings))) is (cluster == meant)


def places(content):
    """The paths of the mappings to which credentials are added: instances, endpoints, the config of an MCP server."""
    for section, entries in content.items():
        for name, entry in entries.items():
            config = entry.get("config", {})
            if section == "mcp_servers":
                yield f"/{section}/{name}/config"
            for key in ("instances", "endpoints"):
                for index in range(len(config.get(key, []))):
                    yield f"/{section}/{name}/config/{key}/{index}"


def flat(value, path=""):
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if members is None:
        return {path: value}
    return {inner: leaf for key, member in members for inner, leaf in flat(member, f"{path}/{key}").items()}


class TestBase:
    def test_is_there_by_default(self):
        base = generate([], ToolsetSettings())["toolsets"]
        assert base == {"kubernetes/core": {"enabled": True}, "kubernetes/logs": {"enabled": True}}

    def test_gives_defaults_to_generated_toolsets(self):
        base = {"prometheus/metrics": {"enabled": False, "config": {"query_timeout_seconds_default": 9}}}
        found = toolsets(candidate("prometheus", "a", "p"), settings=ToolsetSettings(base))["prometheus/metrics"]
        assert found["enabled"] is True
        assert found["config"]["query_timeout_seconds_default"] == 9
        assert len(found["config"]["instances"]) == 1

    def test_a_service_cannot_take_the_name_of_a_base_toolset(self):
        base = {"shop-orders-api": {"type": "http", "config": {"default_headers": {"X-Key": "{{ env.SECRET }}"}}}}
        found = toolsets(candidate("shop", "orders", "api"), settings=ToolsetSettings(base))
        assert found.pop("shop-orders-api") == base["shop-orders-api"]
        assert "SECRET" not in str(found)

    def test_an_entry_that_would_cost_the_whole_file_is_left_out_and_named(self):
        settings = ToolsetSettings(
            {"my.api": {"enabled": True}, "bash": {"enabled": True, "config": {"a.b": 1}}, "ok": {}}
        )
        assert generate([], settings) == {"toolsets": {"ok": {}}}
        assert list(base_problems(settings)) == [
            "toolset.base.bash.config: the name 'a.b' contains '.': HolmesGPT would refuse the whole file",
            "toolset.base: the name 'my.api' contains '.': HolmesGPT would refuse the whole file",
        ]


def test_a_harmful_service_costs_only_itself():
    bad = candidate("prometheus", "a", "bad", path="/{{ env.SECRET }}")
    assert toolsets(bad, candidate("loki", "a", "good")).keys() == {"grafana/loki"}
