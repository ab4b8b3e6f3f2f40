"""One settings model, with the same names in file, environment and flags."""

import re
from pathlib import Path

import pytest

from dynamic_toolset.settings import DEFAULT_BASE, Settings, SettingsError, load, seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("5s", 5), ("1m30s", 90), ("1h", 3600), ("0.5s", 0.5), ("1h1ms", 3600.001)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Settings()
    assert load().toolset.base == DEFAULT_BASE


def test_an_assignment_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("clusterDomain: file.local\nhealthCheck:\n  timeout: 1s\n  failureThreshold: 1\n  interval: 1m\n")
    environ = {
        "DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT": "2s",
        "DYNAMIC_TOOLSET_HEALTH_CHECK_FAILURE_THRESHOLD": "2",
        "HOME": "/elsewhere",
    }
    settings = load(file, environ, ["healthCheck.timeout=3s"])
    assert settings.cluster_domain == "file.local"
    assert (settings.health_check.timeout, settings.health_check.failure_threshold) == ("3s", 2)
    assert settings.health_check.interval == "1m"


@pytest.mark.parametrize("text", ["a,b", "[a, b]", " a , b "])
def test_a_list_may_be_written_with_commas_or_as_yaml(text: str) -> None:
    assert load(assignments=[f"namespaces.include={text}"]).namespaces.include == ("a", "b")


def test_words_stay_words_and_booleans_are_read() -> None:
    settings = load(assignments=["clusterDomain=123", "requireAnnotations=true", "healthCheck.verifyTls=false"])
    assert settings.cluster_domain == "123"
    assert settings.require_annotations
    assert not settings.health_check.verify_tls


def test_the_base_toolsets_are_replaced_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("toolset: {base: {internet: {enabled: true}}}")
    assert load(file).toolset.base == {"internet": {"enabled": True}}
    assert load(file, assignments=["toolset.base={}"]).toolset.base == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("healthCheck: {timeout: 5}", "healthCheck.timeout: expected `str`, got `int`"),
        ("healthCheck: {timeout: soon}", "healthCheck.timeout: expected a duration such as 500ms, 5s or 1m30s"),
        ("healthCheck: {failureThreshold: 0}", "healthCheck.failureThreshold: expected `int` >= 1"),
        ("configMap: {namespace: No_Such}", "configMap.namespace: expected a name in lower case"),
        ("endpointHost: ip", "endpointHost: invalid enum value 'ip'"),
        ("requireAnotations: true", "unknown field `requireAnotations`"),
        ("toolset: {credentials: [{namespace: a, service: b, apiKey: 'x y'}]}", "expected the name of an environment"),
        ("healthCheck: {timeout: 0s}", "healthCheck: timeout must be longer than 0s"),
        ("healthCheck: {interval: 0ms}", "healthCheck: interval must be longer than 0s"),
        ("policy: {allowedRanges: [10.0.0.0/33]}", "policy: '10.0.0.0/33' does not appear to be"),
        ("policy: {refusedRanges: [10.0.0.1/8]}", "policy: 10.0.0.1/8 has host bits set"),
        ("policy: {withoutSelector: ['Big']}", "expected the name of a namespace, in which * stands for any text"),
        ("policy: {foreignEndpoints: [{namespaces: [a], hosts: ['a.*']}]}", "expected a host name such as"),
        ("policy: {foreignEndpoints: [{hosts: [a.example]}]}", "missing required field `namespaces`"),
        ("policy: {maxInAll: 0}", "policy.maxInAll: expected `int` >= 1"),
        ("namespaces: {selector: 'a in b'}", "namespaces: unable to parse requirement: 'a in b'"),
        ("leaderElection: {leaseDuration: 10s}", "leaseDuration must be longer than renewDeadline"),
        ("leaderElection: {retryPeriod: 9s}", "longer than 1.2 times retryPeriod; they are 15s, 10s and 9s"),
        ("- a", "a mapping of settings is expected, not a list"),
        ("a: [", "not YAML"),
        ("a: 2001-99-99", "settings.yaml: a value does not fit its type: month must be in 1..12; put it in quotes"),
        ("a: !!bool x", "settings.yaml: a value does not fit its type: 'x'"),
        ("a: !!timestamp x", "settings.yaml: a value does not fit its type"),
        ("a: " + ":".join(["1"] * 180) + ".5", "settings.yaml: a value does not fit its type: int too large to conv"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(file)


def test_a_missing_file_and_a_huge_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(SettingsError, match="at most 1048576"):
        load(tmp_path / "huge.yaml")


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(tmp_path / "empty.yaml") == Settings()


@pytest.mark.parametrize(
    ("environ", "assignments", "message"),
    [
        ({"DYNAMIC_TOOLSET_NO_SUCH": "1"}, [], "DYNAMIC_TOOLSET_NO_SUCH: no such setting"),
        ({}, ["noSuch=1"], "write SETTING=VALUE"),
        ({}, ["clusterDomain"], "write SETTING=VALUE"),
        ({}, ["namespaces.include=[a"], "namespaces.include"),
        ({}, ["namespaces.include=2001-99-99,[a"], "namespaces.include"),
        ({}, ["namespaces.include=" + ":".join(["1"] * 180) + ".5"], "namespaces.include"),
    ],
)
def test_a_misspelt_setting_is_refused(environ: dict[str, str], assignments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(None, environ, assignments)
