import copy
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynamic_toolset.settings import ToolsetSettings
from dynamic_toolset.strict_yaml import MAX_BYTES, MAX_MISTAKES
from dynamic_toolset.toolset.holmesgpt import generate, serialize
from dynamic_toolset.toolset.merge import differences
from dynamic_toolset.toolset.overrides import Overrides, OverridesError, apply, effects, mistakes, parse, waiting
from tests.unit.toolset.samples import RICH, RICH_SETTINGS, candidate_sets, listed, load, plain

GENERATED = generate(listed(*RICH), RICH_SETTINGS)
NOTHING_FOUND = generate([], ToolsetSettings())
GUIDE = Path(__file__).parents[3] / "docs" / "overrides.md"


def applied(text, generated=GENERATED):
    overrides = parse(text)
    result = apply(generated, overrides)
    load(serialize(result))
    return result


class TestGuide:
    @pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE))
    def test_every_example_does_something(self, text):
        result = applied(text)
        assert result != GENERATED
        assert waiting(GENERATED, parse(text)) == ()

    def test_the_error_that_it_shows_is_the_one_that_comes(self):
        (shown,) = re.findall(r"^overrides\.yaml:.*$", GUIDE.read_text(), re.MULTILINE)
        with pytest.raises(OverridesError, match=re.escape(shown)):
            parse("toolsets:\n  grafana/loki:\n    # off\n    enabled: 'false'\n")


class TestParse:
    @pytest.mark.parametrize(
        "text", [None, "", "# nothing\n", "---\n", "{}", "toolsets:\n", "toolsets:\nmcp_servers: {}\n", "toolsets: {}"]
    )
    def test_nothing_asks_for_nothing(self, text):
        assert applied(text) == GENERATED

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: b: c", "overrides.yaml:1: not valid YAML"),
            (
                "text",
                "overrides.yaml:1: this is the text 'text'; toolsets and mcp_servers, or toolset names, are allowed",
            ),
            ("- a", "overrides.yaml:1: this is a list;"),
            ("\ntoolsets: 5", "overrides.yaml:2: toolsets: this is 5; a mapping of toolset names is allowed"),
            ("toolsets: {}\nbash: {}", "overrides.yaml:2: bash: this stands beside toolsets or mcp_servers"),
            (
                "bash: false",
                "overrides.yaml:1: bash: this is false; a mapping is allowed (to switch it off: 'enabled: f",
            ),
            ("toolsets:\n  bash: []", "overrides.yaml:2: toolsets.bash: this is a list; a mapping is allowed"),
            ("mcp_servers:\n  x: text", "overrides.yaml:2: mcp_servers.x: this is the text 'text'"),
            ("toolsets:\n  my.api: {}", "overrides.yaml:2: toolsets: the name 'my.api' contains '.'"),
            ("bash:\n  enabled: 1", "overrides.yaml:2: bash.enabled: this is 1; true or false is allowed"),
            ("bash:\n  config: [a]", "overrides.yaml:2: bash.config: this is a list; a mapping is allowed"),
            ("bash: {enabled: {}}", "overrides.yaml:1: bash.enabled: this is a mapping; true or false"),
            (
                "a: {config: {instances: [{api_url: x}]}}",
                "overrides.yaml:1: a.config.instances[0]: an entry needs a 'na",
            ),
            (
                "a: {config: {instances: [{name: 5}]}}",
                "overrides.yaml:1: a.config.instances[0]: an entry needs a 'name'",
            ),
            ("a: {config: {clusters: [x]}}", "overrides.yaml:1: a.config.clusters[0]: an entry needs a 'name'"),
            (
                "a:\n  config:\n    instances:\n    - name: x\n    - name: x",
                "overrides.yaml:5: a.config.instances[1]: 'x' is there twice; names must be unique",
            ),
            (
                "a: &a\n  config: {instances: [{n: 1}]}\nb:\n  config: {instances: *a}\nc:\n  <<: *a\n",
                "overrides.yaml:2: a.config.instances[0]: an entry needs",
            ),
            (
                "x: {k: &i [{}]}\na:\n  config:\n    instances: *i",
                "overrides.yaml:4: a.config.instances[0]: an entry needs",
            ),
        ],
    )
    def test_says_where_and_why(self, text, message):
        with pytest.raises(OverridesError) as caught:
            parse(text)
        assert str(caught.value).startswith(message)
        assert str(caught.value) in {f"overrides.yaml:{mistake}" for mistake in mistakes(text)}

    def test_a_person_may_do_what_a_service_may_not(self):
        text = """
            mine: {description: d, tools: [{name: t, description: d, command: date}], prerequisites: [{command: id}]}
            stdio: {config: {mode: stdio, command: x}}
        """
        result = applied(text)
        assert result["toolsets"]["mine"]["prerequisites"] == [{"command": "id"}]
        assert result["mcp_servers"]["stdio"]["config"]["mode"] == "stdio"


class TestMistakes:
    @pytest.mark.parametrize("text", ["", "# nothing", "toolsets:\n", "bash: null", "bash: {enabled: true}"])
    def test_there_is_none_in_what_is_taken(self, text):
        assert mistakes(text) == ()

    def test_all_are_told_by_line(self):
        text = """\
bash: {}
mcp_servers: 5
toolsets:
  x: no
  y.z: {}
  w:
    enabled: 'no'
    config: {instances: [{}, {name: a}, {name: a}, 7], clusters: [5]}
  w: {}
  v: {enabled: 1, config: 2024-01-01}
"""
        assert [f"{mistake.line} {mistake.path}" for mistake in mistakes(text)] == [
            "1 bash",
            "2 mcp_servers",
            "4 toolsets.x",
            "5 toolsets",
            "7 toolsets.w.enabled",
            "8 toolsets.w.config.instances[0]",
            "8 toolsets.w.config.instances[2]",
            "8 toolsets.w.config.instances[3]",
            "8 toolsets.w.config.clusters[0]",
            "9 toolsets.w",
            "10 toolsets.v.config",
            "10 toolsets.v.enabled",
        ]

    def test_who_has_too_many_is_told_so(self):
        found = mistakes("".join(f"a{number}: 1\n" for number in range(5000)))
        assert len(found) == MAX_MISTAKES + 1
        assert str(found[-1]) == "1000: more than 1000 mistakes: the rest is not looked at"


class TestApply:
    def test_merges_deep(self):
        result = applied("prometheus/metrics: {config: {verify_ssl: false}}")
        before = GENERATED["toolsets"]["prometheus/metrics"]
        assert result["toolsets"].pop("prometheus/metrics") == {
            "enabled": True,
            "config": {**before["config"], "verify_ssl": False},
        }
        assert result["toolsets"].items() <= GENERATED["toolsets"].items()

    def test_one_instance_is_changed_and_the_others_stay(self):
        text = "prometheus/metrics: {config: {instances: [{name: metrics.vmselect, verify_ssl: false}]}}"
        first, second = GENERATED["toolsets"]["prometheus/metrics"]["config"]["instances"]
        result = applied(text)["toolsets"]["prometheus/metrics"]["config"]["instances"]
        assert result == [{**first, "verify_ssl": False}, second]

    def test_null_removes_and_enabled_false_switches_off(self):
        result = applied("toolsets: {grafana/loki: null, grafana/dashboards: {enabled: false}}")["toolsets"]
        assert "grafana/loki" not in result
        assert result["grafana/dashboards"]["enabled"] is False
        assert result["grafana/dashboards"]["config"] == GENERATED["toolsets"]["grafana/dashboards"]["config"]

    @pytest.mark.parametrize("text", ["mcp-shop-orders-mcp: null", "toolsets: {mcp-shop-orders-mcp: null}"])
    def test_a_generated_server_is_found_wherever_it_is_named(self, text):
        assert "mcp_servers" not in applied(text)

    @pytest.mark.parametrize("entry", ["{type: mcp, config: {url: u}}", "{config: {url: u, mode: sse}}"])
    def test_what_says_of_itself_that_it_is_a_server_becomes_one(self, entry):
        result = applied(f"tickets: {entry}")
        assert "tickets" in result["mcp_servers"]
        assert "tickets" not in result["toolsets"]

    def test_mcp_servers_wins_over_the_same_name_elsewhere(self):
        text = "toolsets: {mcp-shop-orders-mcp: {enabled: false}}\nmcp_servers: {mcp-shop-orders-mcp: {description: d}}"
        server = applied(text)["mcp_servers"]["mcp-shop-orders-mcp"]
        assert (server["enabled"], server["description"]) == (True, "d")

    def test_everything_removed_is_still_a_file_that_loads(self):
        removed = {section: dict.fromkeys(names) for section, names in GENERATED.items()}
        assert applied(yaml.safe_dump(removed)) == {"toolsets": {}}

    def test_the_result_of_a_copy_of_the_generated_file_is_the_generated_file(self):
        assert applied(yaml.safe_dump(GENERATED)) == GENERATED


def _filled(head, unit, tail=""):
    """As often the same as there is room for."""
    return head + unit * ((MAX_BYTES - len(head) - len(tail)) // len(unit)) + tail


BIG = "a: &big {" + ", ".join(f"k{number}: 1" for number in range(9000)) + "}\ns: &s {z: 1}\n"


class TestTime:
    """The event loop stands still meanwhile. Each of these took 1 to 12 s once; now a tenth of the bound, or less."""

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(_filled(BIG + "b:\n  <<: *big\n", "  <<: *s\n"), id="merged into a large one"),
            pytest.param(_filled(BIG + "b: {<<: *big, <<: [", "*s,", "*s]}\n"), id="a list merged into a large one"),
            pytest.param(_filled(BIG + "b: {<<: [", "*big,", "*s]}\n"), id="a large one merged often"),
            pytest.param(f"a: {{s: &s [{'{},' * 1000}]}}\nb: {{c: [{'*s,' * 900}]}}\n", id="many empty ones"),
            pytest.param(
                f"a: {{s: &s {'[' * 20}{']' * 20}, t: &t [{'*s,' * 99}]}}\nb: {{c: [{'*t,' * 400}]}}", id="tall"
            ),
            pytest.param(_filled("a: {b: [", "1,", "1]}\nzz: 5\n"), id="many small ones, and a mistake"),
            pytest.param(f"a: {{b: {':'.join(['1'] * 100_000)}}}\n", id="an integer to base 60"),
            pytest.param(f"a: {{b: [{'1,' * 14_000}], c: [{'{},' * 14_000}]}}\n", id="as many as are allowed"),
        ],
    )
    def test_no_text_takes_long_and_none_takes_long_twice(self, text):
        assert len(text) <= MAX_BYTES
        before = time.thread_time()
        applied_once = outcome(text)[1]
        serialize(apply(GENERATED, applied_once))
        waiting(GENERATED, applied_once)
        between = time.thread_time()
        outcome(text)
        assert time.thread_time() - between < 0.3
        assert between - before < 5


class TestWaiting:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("toolsets: {jaeger-tracing-jaeger-query: {llm_instructions: x}}", "toolsets.jaeger-tracing-jaeger-query"),
            ("jaeger-tracing-jaeger-query: {enabled: false, config: {verify_ssl: false}}", "toolsets.jaeger"),
            ("mcp_servers: {mcp-shop-orders-mcp: {enabled: false}}", "mcp_servers.mcp-shop-orders-mcp"),
        ],
    )
    def test_a_change_to_a_toolset_that_is_gone_waits(self, text, sentence):
        assert applied(text, NOTHING_FOUND) == NOTHING_FOUND
        (said,) = waiting(NOTHING_FOUND, parse(text))
        assert said.startswith(f"overrides.yaml: {sentence}")
        assert "has no effect at present" in said
        assert waiting(GENERATED, parse(text)) == ()

    def test_a_change_to_an_instance_that_is_gone_waits_and_the_rest_is_done(self):
        text = """
            grafana/loki:
              config:
                verify_ssl: false
                instances: [{name: gone.loki, timeout_seconds: 9}, {name: far, api_url: "https://loki"}]
            rabbitmq/core: {config: {clusters: [{id: gone.mq, timeout_seconds: 9}]}}
        """
        result = applied(text)
        config = result["toolsets"]["grafana/loki"]["config"]
        assert config["verify_ssl"] is False
        assert [one["name"] for one in config["instances"]] == ["logging.loki", "far"]
        assert result["toolsets"]["rabbitmq/core"] == GENERATED["toolsets"]["rabbitmq/core"]
        assert [sentence.split(" at present")[0] for sentence in waiting(GENERATED, parse(text))] == [
            "overrides.yaml: toolsets.grafana/loki has no effect on gone.loki",
            "overrides.yaml: toolsets.rabbitmq/core has no effect on gone.mq",
        ]

    @pytest.mark.parametrize(
        ("toolset", "key", "entry", "sentence"),
        [
            (
                "prometheus/metrics",
                "instances",
                "{id: metrics.vmselect, verify_ssl: false}",
                "metrics.vmselect: entries",
            ),
            ("prometheus/metrics", "instances", "{id: far, prometheus_url: 'https://far'}", "far: entries of"),
            ("rabbitmq/core", "clusters", "{name: mq.rabbit, timeout_seconds: 9}", "mq.rabbit: entries of"),
        ],
    )
    def test_an_entry_that_is_named_by_another_key_takes_the_place_of_nobody(self, toolset, key, entry, sentence):
        text = f"{toolset}: {{config: {{{key}: [{entry}]}}}}"
        assert applied(text) == GENERATED
        (said,) = waiting(GENERATED, parse(text))
        assert said.startswith(f"overrides.yaml: toolsets.{toolset} has no effect on {sentence}")

    def test_entries_are_merged_by_the_key_of_those_that_are_there_whatever_else_they_hold(self):
        text = """
            rabbitmq/core:
              config:
                clusters:
                - {id: mq.rabbit, name: Ours, timeout_seconds: 9}
                - {id: mq.rabbit, name: Ours again, timeout_seconds: 10}
        """
        (before,) = GENERATED["toolsets"]["rabbitmq/core"]["config"]["clusters"]
        result = applied(text)["toolsets"]["rabbitmq/core"]["config"]["clusters"]
        assert result == [{**before, "name": "Ours", "timeout_seconds": 9}]
        (said,) = waiting(GENERATED, parse(text))
        assert said.endswith("has no effect on mq.rabbit a second time: its 'id' is there twice")

    def test_a_list_of_which_nothing_is_left_is_left_out(self):
        text = "grafana/loki: {config: {verify_ssl: false, instances: [{name: gone.loki, timeout_seconds: 9}]}}"
        assert applied(text, NOTHING_FOUND)["toolsets"]["grafana/loki"] == {"config": {"verify_ssl": False}}

    @pytest.mark.parametrize(
        "text",
        [
            "robusta: {enabled: true}",
            "kubernetes/kube-prometheus-stack: {enabled: true}",
            "a-later/built-in: {enabled: true}",
            "my-own-database: {type: database, config: {connection_url: x}}",
            "my-own-tools: {description: d, tools: []}",
            "mcp_servers: {my-own-server: {config: {url: x}}}",
            "mcp_servers: {my-old-server: {url: x}}",
            "grafana/loki: {config: {verify_ssl: false}}",
        ],
    )
    def test_what_is_the_persons_own_does_not_wait(self, text):
        assert waiting(NOTHING_FOUND, parse(text)) == ()
        assert applied(text, NOTHING_FOUND) != NOTHING_FOUND


NO_TOOLSET = "has no effect at present: there is no such toolset, and it has no 'type' or 'url'"
NO_INSTANCE = "has no effect on gone.loki at present: there is no such instance, and it has no address"
ELSEWHERE = "has no effect: another change of this toolset counts instead"
VMSELECT = "prometheus/metrics: {config: {verify_ssl: false, instances: [{name: metrics.vmselect, verify_ssl: no}]}}"
VMSELECT_PLACES = "config.instances[metrics.vmselect].verify_ssl, config.verify_ssl"


class TestEffects:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (None, []),
            (
                VMSELECT,
                [f"changed toolsets prometheus/metrics changes {VMSELECT_PLACES}"],
            ),
            (
                "prometheus/metrics: {config: {instances: [{name: far, prometheus_url: u}]}}",
                ["changed toolsets prometheus/metrics changes config.instances[far]"],
            ),
            ("prometheus/metrics: {config: null}", ["changed toolsets prometheus/metrics changes config"]),
            ("mine: {type: http}", ["added toolsets mine is added"]),
            ("tickets: {type: mcp, config: {url: u}}", ["added mcp_servers tickets is added"]),
            ("mcp-shop-orders-mcp: null", ["removed mcp_servers mcp-shop-orders-mcp is removed"]),
            ("mine: null", ["none toolsets mine has no effect: it removes what is not there"]),
            (
                "grafana/loki: {enabled: true}",
                ["none toolsets grafana/loki has no effect: it says what is there already"],
            ),
            (
                "toolsets: {mcp-shop-orders-mcp: null}\nmcp_servers: {mcp-shop-orders-mcp: {description: d}}",
                [
                    f"none mcp_servers mcp-shop-orders-mcp {ELSEWHERE}",
                    "changed mcp_servers mcp-shop-orders-mcp changes description",
                ],
            ),
            (
                "toolsets: {mcp-shop-orders-mcp: null}\nmcp_servers: {mcp-shop-orders-mcp: null}",
                [
                    f"none mcp_servers mcp-shop-orders-mcp {ELSEWHERE}",
                    "removed mcp_servers mcp-shop-orders-mcp is removed",
                ],
            ),
            (
                "jaeger-a-b: {enabled: false}",
                [f"waiting toolsets jaeger-a-b {NO_TOOLSET}"],
            ),
            (
                "grafana/loki: {config: {verify_ssl: false, instances: [{name: gone.loki}]}}",
                [
                    "changed toolsets grafana/loki changes config.verify_ssl",
                    f"waiting toolsets grafana/loki {NO_INSTANCE}",
                ],
            ),
            (
                "grafana/loki: {config: {instances: [{name: gone.loki}]}}",
                [
                    f"waiting toolsets grafana/loki {NO_INSTANCE}",
                ],
            ),
            (
                f"grafana/loki: {{{', '.join(f'k{number}: 1' for number in range(20))}}}",
                ["changed toolsets grafana/loki changes k0, k1, k2, k3, k4, k5, k6, k7, and 12 more"],
            ),
        ],
    )
    def test_says_what_was_done(self, text, expected):
        told = effects(GENERATED, parse(text))
        assert [
            f"{one.kind} {one.section} {one.toolset}"
            + one.message.removeprefix(f"overrides.yaml: {one.section}.{one.toolset}")
            for one in told
        ] == expected

    def test_no_value_is_told(self):
        text = "grafana/loki: {config: {headers: {X: s3cr3t}, list: [s3cr3t]}}\nmine: {type: http, key: s3cr3t}"
        assert "s3cr3t" not in repr(effects(GENERATED, parse(text)))


entries = st.dictionaries(
    st.sampled_from(["prometheus/metrics", "jaeger-a-b", "mcp-a-b", "bash", "x", "a-a-x", "grafana/loki"]),
    st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "enabled": st.none() | st.booleans(),
            "type": st.sampled_from(["http", "mcp"]),
            "config": plain
            | st.fixed_dictionaries(
                {
                    "instances": st.lists(
                        st.builds(
                            lambda name, url: {"name": name, **url},
                            st.sampled_from(["a.b", "a.x", "b.a", "new"]),
                            st.sampled_from([{}, {"prometheus_url": "u"}, {"prometheus_url": None, "timeout": 1}]),
                        ),
                        max_size=3,
                        unique_by=lambda entry: entry["name"],
                    )
                }
            ),
        },
    ),
    max_size=4,
)
texts = st.builds(lambda sections: yaml.safe_dump(sections), entries) | st.builds(
    lambda toolsets, servers: yaml.safe_dump({"toolsets": toolsets, "mcp_servers": servers}), entries, entries
)


WORDS = (
    *(
        "a",
        "toolsets",
        "mcp_servers",
        "enabled",
        "config",
        "instances",
        "clusters",
        "name",
        "id",
        "x-y-z",
        "type",
        "url",
    ),
    *("kubernetes/logs", "jaeger-tracing-jaeger-query", "mcp-shop-orders-mcp", "grafana/loki", "logging.loki", "mode"),
    *("null", "true", "on", "~", "<<", "=", "", "''", '"\\0"', r'"\ud800"', "\x85", "\ufeff", "\ud800", "2001-01-01"),
    *(
        "0b",
        "0x",
        "08",
        "1_",
        "_",
        "+.inf",
        ".nan",
        "1e999",
        "9" * 400,
        "0x" + "f" * 300,
        "1:30",
        "-1:5.5",
        "2001-99-99",
    ),
    *(":".join(["1"] * 200), ":".join(["1"] * 200) + ".5", "9" * 5000, "1." + "1" * 6000, "1.7976931348623157e309"),
    *(
        "*a",
        "&a 1",
        "&a",
        "{<<: *a}",
        "{<<: [{a: b}, 1]}",
        "? x",
        "? [a]",
        "|\n  x\n",
        ">\n y\n",
        "%YAML 9.9",
        "---",
        "...",
    ),
)
TAGS = [
    "",
    "",
    "",
    "! ",
    "!x ",
    *(f"!!{t} " for t in ["int", "float", "bool", "null", "str", "merge", "seq", "map", "set", "binary", "timestamp"]),
]


def _nested(members):
    return (
        st.lists(members, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
        | st.lists(st.tuples(members, members), max_size=3).map(
            lambda pairs: f"{{{', '.join(f'{name}: {value}' for name, value in pairs)}}}"
        )
        | st.tuples(st.sampled_from(["&a ", "&b "]), members).map("".join)
    )


words = st.builds(str.__add__, st.sampled_from(TAGS), st.sampled_from(WORDS))
lines = st.tuples(st.sampled_from(["", "  ", "- "]), words, st.recursive(words, _nested, max_leaves=8))
anything = st.text() | st.lists(lines, max_size=4).map(
    lambda parts: "".join(f"{indent}{name}: {value}\n" for indent, name, value in parts)
)


def outcome(text):
    """Return why a text is refused, "" if it is not, and the changes that it asks for."""
    try:
        return "", parse(text)
    except OverridesError as error:
        return str(error), Overrides()


class TestLaws:
    @given(anything)
    @settings(max_examples=200)
    def test_any_text_is_applied_or_refused_with_a_reason(self, text):
        refusal, overrides = outcome(text)
        assert re.fullmatch(r"(overrides\.yaml:\d+: .{1,800})?", refusal)
        assert refusal.isprintable()
        load(serialize(apply(GENERATED, overrides)))
        waiting(GENERATED, overrides)

    @given(candidate_sets, texts)
    def test_the_result_loads_and_applying_again_changes_nothing(self, candidates, text):
        generated = generate(listed(*candidates), ToolsetSettings())
        before = copy.deepcopy(generated)
        try:
            overrides = parse(text)
        except OverridesError:
            return
        # Of two changes of one toolset the later counts, but not while it is half a change of one that is not there.
        assume(overrides.entries.keys().isdisjoint(overrides.servers))
        kept = copy.deepcopy(overrides)
        once = apply(generated, overrides)
        assert apply(once, overrides) == once
        assert (generated, overrides) == (before, kept)
        load(serialize(once))

    @given(candidate_sets, texts)
    def test_no_instance_without_an_address_comes_to_be(self, candidates, text):
        generated = generate(listed(*candidates), ToolsetSettings())
        try:
            result = apply(generated, parse(text))
        except OverridesError:
            return
        for entry in result["toolsets"].values():
            config = entry.get("config")
            for instance in config.get("instances") or [] if isinstance(config, dict) else []:
                name = instance["name"]
                generated_names = [
                    one["name"]
                    for toolset in generated["toolsets"].values()
                    for one in toolset.get("config", {}).get("instances", [])
                ]
                assert name in generated_names or instance.get("prometheus_url")

    @given(candidate_sets)
    def test_no_overrides_are_the_identity(self, candidates):
        generated = generate(listed(*candidates), ToolsetSettings())
        assert apply(generated, parse(None)) == generated

    @given(candidate_sets, texts)
    def test_the_effects_are_what_applying_does(self, candidates, text):
        generated = generate(listed(*candidates), ToolsetSettings())
        try:
            overrides = parse(text)
        except OverridesError:
            assert mistakes(text)
            return
        assert mistakes(text) == ()
        result = apply(generated, overrides)
        told = effects(generated, overrides)
        assert tuple(one.message for one in told if one.kind == "waiting") == waiting(generated, overrides)
        done = {(one.section, one.toolset): one.kind for one in told if one.kind in {"changed", "added", "removed"}}
        assert len(done) == sum(one.kind in {"changed", "added", "removed"} for one in told)
        assert (serialize(result) == serialize(generated)) is (not done)
        expected = {}
        for section in ("toolsets", "mcp_servers"):
            before, after = generated.get(section, {}), result.get(section, {})
            for name in before.keys() | after.keys():
                if name not in before:
                    expected[section, name] = "added"
                elif name not in after:
                    expected[section, name] = "removed"
                elif any(differences(before[name], after[name])):
                    expected[section, name] = "changed"
        assert done == expected
        changes = {*overrides.entries, *overrides.servers}
        assert {one.toolset for one in told} == changes
