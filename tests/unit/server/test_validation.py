"""Whatever a text holds: an answer, soon, of bounded length, with every mistake and its line."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.server.validation import (
    Mistake,
    is_toolset_config,
    validate_overrides,
    validate_settings,
    validate_toolset_config,
)
from dynamic_toolset.settings import SettingsError, merged_settings
from dynamic_toolset.strict_yaml import MAX_BYTES, MAX_MISTAKES, YamlError, read
from dynamic_toolset.toolset.overrides import OverridesError, parse

VALIDATORS = (validate_overrides, validate_settings)
CATALOG = load_catalog()


def test_overrides_with_their_lines_and_fields() -> None:
    assert validate_overrides("toolsets:\n  bash: {enabled: true}\n") == ()
    assert validate_overrides("toolsets:\n  a: 1\n  b:\n    enabled: 'no'\n") == (
        Mistake(
            2,
            "toolsets.a",
            "this is 1; a mapping is allowed (to switch it off: 'enabled: false'), or null to remove it",
        ),
        Mistake(4, "toolsets.b.enabled", "this is the text 'no'; true or false is allowed, without quotes"),
    )


def test_settings_with_their_lines_and_fields() -> None:
    assert validate_settings("server: {port: 1}\n") == ()
    assert validate_settings("server:\n  port: x\n\nhealthChek: {}\n") == (
        Mistake(2, "server.port", "expected `int`, got `str`"),
        Mistake(4, "healthChek", "unknown field `healthChek`; did you mean `healthCheck`?"),
    )


def test_settings_that_name_what_is_not_there_or_cannot_be_loaded() -> None:
    text = "policy:\n  trustedTypes: [promotheus]\ntoolset:\n  base:\n    a:\n      b.c: 1\n"
    types, base = validate_settings(text, CATALOG)
    assert (types.line, types.field) == (2, "policy.trustedTypes")
    assert types.message.startswith("there is no service type 'promotheus'; did you mean 'prometheus'?")
    assert base == Mistake(5, "toolset.base.a", "the name 'b.c' contains '.': HolmesGPT would refuse the whole file")
    assert validate_settings(text) == (base,)


def test_a_service_type_that_does_not_exist_is_named_with_its_line() -> None:
    text = "serviceTypes:\n  loki: {}\n  promethues:\n    enabled: false\n"
    (found,) = validate_settings(text, CATALOG)
    assert (found.line, found.field) == (3, "serviceTypes.promethues")
    assert found.message.startswith("there is no service type 'promethues'; did you mean 'prometheus'?")


@pytest.mark.parametrize(
    "text",
    [
        "policy: {trustedTypes: [" + ", ".join(f"prometheu{number}" for number in range(12_000)) + "]}",
        "serviceTypes: {" + ", ".join(f"prometheu{number}: {{}}" for number in range(10_000)) + "}",
    ],
)
def test_of_very_many_types_that_do_not_exist_not_all_are_named(text: str) -> None:
    started = time.process_time()
    assert 1 <= len(validate_settings(text, CATALOG)) <= MAX_MISTAKES  # so many are too many in themselves
    assert time.process_time() - started < 10


BOMB = "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
FULL = MAX_BYTES - 100


@pytest.mark.parametrize("validate", VALIDATORS)
@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * FULL,
        "{a: " * (FULL // 4),
        "- " * (FULL // 2),
        "a: " + "x" * FULL,
        "x" * FULL + ": 1",
        "? " + "x" * FULL + "\n: 1",
        "? " + "1" * FULL + "\n: 1",
        "a: !" + "x" * FULL + " b",
        "a: *" + "x" * FULL,
        "a: " + "9" * FULL,
        "a: 1\n" * (FULL // 5),
        "".join(f"a{number}: 1\n" for number in range(FULL // 10)),
        "".join(f"healthChec{number}: 1\n" for number in range(FULL // 17)),
        "toolset: {base: {" + "".join(f"a{number}: 1," for number in range(FULL // 10)) + "}}",
        "namespaces: {include: [" + "A," * (FULL // 2 - 20) + "]}",
        "namespaces: {include: &x [" + "a," * (FULL // 2 - 40) + "], exclude: *x}",
        "namespaces: {selector: '" + "," * FULL + "'}",
        "policy: {allowedRanges: [" + "1," * (FULL // 2 - 20) + "]}",
        "policy: {allowedRanges: ['" + "1" * FULL + "']}",
        "healthCheck: {timeout: '" + "1s" * (FULL // 2 - 20) + "'}",
        "clusterDomain: '" + "a." * (FULL // 2 - 20) + "!'",
        "endpointHost: '" + "a" * FULL + "'",
        "server: {corsOrigins: ['https://" + "a" * FULL + "/']}",
        "toolsets: {a: {config: {instances: [" + "{}," * (FULL // 3 - 20) + "]}}}",
        "toolsets: {a: {config: {instances: [" + "{name: a}," * (FULL // 10 - 20) + "]}}}",
        "a: '" + "\\ud800" * 1000,
        'a: "\\ud800"',
        "a: \ud800",
        "\n\na: \x00",
        "a: |\n" + " x\n" * (FULL // 3),
        "%YAML 9.9\n---\na: 1",
        "--- a\n--- b\n" * 1000,
        "x" * (MAX_BYTES + 1),
        "\u20ac" * MAX_BYTES,
        "\n".join("{}{}:".format(" " * depth, "k" * 250) for depth in range(30)) + " [" + "1," * 100_000 + "]",
    ],
    ids=lambda text: f"{text[:24]!a} {len(text)}",
)
def test_nothing_is_too_much(validate, text) -> None:  # type: ignore[no-untyped-def]
    started = time.process_time()
    found = validate(text)
    assert time.process_time() - started < 10  # a second, on a machine that nobody else uses
    assert len(found) <= 2 * MAX_MISTAKES + 2
    lines = text.count("\n") + 1
    for mistake in found:
        assert 1 <= mistake.line <= lines
        assert (mistake.field + mistake.message).isprintable()
        assert len(mistake.field) < 600
        assert 0 < len(mistake.message) < 700


texts = st.text() | st.lists(
    st.sampled_from(
        [
            *(
                "a: 1",
                "a:",
                "  b: 2",
                "  - c",
                "toolsets:",
                "mcp_servers:",
                "  x: {enabled: true}",
                "  x: null",
                "- ",
                "? y",
            ),
            *(
                "server: {port: 1}",
                "  port: x",
                "healthCheck:",
                "  timeout: 0s",
                "k: &k {a: *k}",
                "<<: {a: 1}",
                "on: 1",
            ),
            *(
                "toolset: {base: {'a.b': {}, c: {d: .inf}}}",
                "policy: {trustedTypes: [x, loki]}",
                "...",
                "---",
                "!!set {a}",
            ),
            *(
                "\ta: 1",
                "'a",
                "#",
                "a: \u2028",
                "server: &s",
                "massFailure: *s",
                "clusterDomain: 2024-01-01",
                "\ufeffa: 1",
            ),
        ]
    ),
    max_size=8,
).map("\n".join)


@given(texts)
@example("")
def test_overrides_have_no_mistake_exactly_if_they_are_taken(text: str) -> None:
    found = validate_overrides(text)
    if not found:
        parse(text)
        return
    with pytest.raises(OverridesError) as caught:
        parse(text)
    first = min(found, key=lambda mistake: mistake.line)
    assert int(str(caught.value).split(":")[1]) >= first.line


@given(texts)
def test_settings_have_no_mistake_only_if_they_are_taken(text: str) -> None:
    found = validate_settings(text, CATALOG)
    if not found:
        merged_settings({} if (content := read(text)) is None else content)
    elif not any(mistake.field.startswith(("toolset.base", "policy.trustedTypes")) for mistake in found):
        with pytest.raises((SettingsError, YamlError)):
            merged_settings({} if (content := read(text)) is None else content)


class TestToolsetConfig:
    HEAD = "apiVersion: toolset.kubernaut.io/v1alpha1\nkind: ToolsetConfig\nmetadata: {name: a}\n"

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("", []),
            ("spec: {discoveryInterval: 10m}\nstatus: {anything: [1]}", []),
            ("spec:", [(4, "spec", "expected `object`, got `null`")]),
            ("spec: [1]", [(4, "spec", "expected `object`, got `array`")]),
            (
                "spec:\n  server: {port: 1}\n  healthCheck:\n    timeout: 0s\n    intervall: 1s\n",
                [
                    (5, "spec.server", "belongs to the process: set it in its file, environment or options"),
                    (7, "spec.healthCheck.timeout", "must be at least 1s, not 0s"),
                    (8, "spec.healthCheck.intervall", "unknown field `intervall`; did you mean `interval`?"),
                ],
            ),
            (
                "spec:\n  paused: true\n  paused: false",
                [(6, "spec.paused", "this name is there twice, first in line 5")],
            ),
            (
                "spec:\n  policy:\n    trustedTypes: [prom]",
                [(6, "spec.policy.trustedTypes", "there is no service type")],
            ),
            ("specs: {}", [(4, "specs", "there is no such field in a ToolsetConfig")]),
            ("spec: [", [(5, "", "not valid YAML")]),
        ],
    )
    def test_each_mistake_has_its_line(self, spec: str, said: list[tuple[int, str, str]]) -> None:
        found = validate_toolset_config(self.HEAD + spec, CATALOG)
        assert [(one.line, one.field) for one in found] == [(line, field) for line, field, _ in said], found
        assert all(one.message.startswith(why) for one, (_, _, why) in zip(found, said, strict=True)), found

    def test_another_version_is_none_of_ours(self) -> None:
        (one,) = validate_toolset_config(self.HEAD.replace("v1alpha1", "v1"))
        assert (one.line, one.field) == (1, "apiVersion")
        assert one.message == "toolset.kubernaut.io/v1alpha1 is expected, not toolset.kubernaut.io/v1"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (HEAD, True),
            (HEAD + "kind: x", True),
            ("kind: [ToolsetConfig]", False),
            ("clusterDomain: a", False),
            ("", False),
        ],
    )
    def test_it_is_known_by_its_kind(self, text: str, expected: bool) -> None:
        assert is_toolset_config(text) is expected

    def test_a_text_of_another_shape_is_told(self) -> None:
        assert [one.message for one in validate_toolset_config("[1]")] == ["a ToolsetConfig is expected, not a list"]
