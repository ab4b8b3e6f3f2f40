"""From file, environment and flags to the settings."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.settings import (
    DEFAULT_BASE,
    Settings,
    SettingsError,
    Source,
    load,
    load_with_sources,
    mistakes,
    seconds,
)
from dynamic_toolset.settings.model import leaves


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("5s", 5), ("1m30s", 90), ("1h", 3600), ("0.5s", 0.5), ("1h1ms", 3600.001)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


def test_what_adds_up_to_a_second_is_a_second() -> None:
    assert seconds("0.6s0.3s0.1s") == 1
    assert seconds("0.01s90ms") == 0.1


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
        (
            "requireAnotations: true",
            ":1: requireAnotations: unknown field `requireAnotations`; did you mean `requireAnnotations`?",
        ),
        ("toolset: {credentials: [{namespace: a, service: b, apiKey: 'x y'}]}", "expected the name of an environment"),
        ("healthCheck: {timeout: 0s}", "healthCheck.timeout: must be at least 1s, not 0s"),
        ("healthCheck: {interval: 99.9ms}", "healthCheck.interval: must be at least 100ms, not 99.9ms"),
        ("policy: {allowedRanges: [10.0.0.0/33]}", "policy.allowedRanges[0]: '10.0.0.0/33' does not appear to be"),
        ("policy: {refusedRanges: [10.0.0.1/8]}", "policy.refusedRanges[0]: 10.0.0.1/8 has host bits set"),
        ("policy: {withoutSelector: ['Big']}", "expected the name of a namespace, in which * stands for any text"),
        ("policy: {foreignEndpoints: [{namespaces: [a], hosts: ['a.*']}]}", "expected a host name such as"),
        ("policy: {foreignEndpoints: [{hosts: [a.example]}]}", "missing required field `namespaces`"),
        ("policy: {maxInAll: 0}", "policy.maxInAll: expected `int` >= 1"),
        ("namespaces: {selector: 'a in b'}", "namespaces.selector: unable to parse requirement: 'a in b'"),
        ("leaderElection: {leaseDuration: 10s}", "leaseDuration must be longer than renewDeadline"),
        ("leaderElection: {retryPeriod: 9s}", "longer than 1.2 times retryPeriod; they are 15s, 10s and 9s"),
        ("- a", "a mapping of settings is expected, not a list"),
        ("a: [", ":2: not valid YAML"),
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
    (tmp_path / "huge.yaml").write_bytes(b"#" * (256 * 1024 + 1))
    with pytest.raises(SettingsError, match="at most 262144"):
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
    ],
)
def test_a_misspelt_setting_is_refused(environ: dict[str, str], assignments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(None, environ, assignments)


def test_a_wrong_file_is_told_with_all_its_problems_and_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("healthCheck:\n  timeout: soon\n  interval: 5\nserver: {port: 99999}\n")
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert str(caught.value).splitlines() == [
        f"{file}:2: healthCheck.timeout: expected a duration such as 500ms, 5s or 1m30s",
        f"{file}:3: healthCheck.interval: expected `str`, got `int`",
        f"{file}:4: server.port: expected `int` <= 65535",
    ]


def test_the_errors_that_the_page_shows_are_those_that_come(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()
    (tmp_path / "settings.yaml").write_text("healthCheck:\n  timeout: soon\n  intervall: 5s\n")
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "settings.yaml")
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == re.findall(
        "^settings.yaml:.*$", page, re.MULTILINE
    )


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("clusterDomain: a\nclusterDomain: b\n")
    with pytest.raises(SettingsError, match=":2: clusterDomain: this name is there twice, first in line 1"):
        load(file)


def test_a_file_that_is_not_utf_8_is_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes("\ufeffclusterDomain: a\n".encode())
    assert load(file).cluster_domain == "a"
    file.write_bytes(b"clusterDomain: a\n# \xe4\n")
    with pytest.raises(SettingsError, match=":2: this is not UTF-8"):
        load(file)


@pytest.mark.parametrize("setting", ["catalogFolder", "server.audience", "selector", "toolset.base", "paused"])
def test_bytes_that_are_no_text_are_refused(setting: str) -> None:
    text = os.fsdecode(b"a\xff")  # as Python reads arguments and environment
    with pytest.raises(SettingsError, match=f"^{setting}: this is not UTF-8$"):
        load(assignments=[f"{setting}={text}"])
    variable = "DYNAMIC_TOOLSET_" + re.sub("([A-Z])", r"_\1", setting).replace(".", "_").upper()
    with pytest.raises(SettingsError, match=f"^{variable}: this is not UTF-8$"):
        load(environ={variable: text})


def test_what_the_kubelet_says_of_services_is_no_setting() -> None:
    links = {
        f"{name}_{what}": value
        for name in ("DYNAMIC_TOOLSET", "DYNAMIC_TOOLSET_SERVER", "DYNAMIC_TOOLSET_METRICS", "KUBERNETES")
        for what, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "8080",
            "SERVICE_PORT_HTTP": "8080",
            "PORT": "tcp://10.0.0.1:8080",
            "PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "PORT_8080_TCP_PROTO": "tcp",
            "PORT_8080_TCP_PORT": "8080",
            "PORT_8080_TCP_ADDR": "10.0.0.1",
        }.items()
    }
    assert load_with_sources(None, links) == load_with_sources()
    assert load(None, links | {"DYNAMIC_TOOLSET_SERVER_PORT": "8081"}).server.port == 8081
    for wrong in ("DYNAMIC_TOOLSET_PORT", "DYNAMIC_TOOLSET_SERVICE_PORT"):  # without such a Service it is a mistake
        with pytest.raises(SettingsError, match=f"{wrong}: no such setting"):
            load(None, {wrong: "8080"})


def test_what_a_variable_gave_wrong_is_told_with_its_name() -> None:
    a_name = "a name in lower case, of letters, digits and -"
    environ = {"DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT": "soon", "DYNAMIC_TOOLSET_NAMESPACES_INCLUDE": "a,B"}
    with pytest.raises(SettingsError) as caught:
        load(None, environ, ["healthCheck.interval=0s", "toolset.base=a,b"])
    assert str(caught.value).splitlines() == [
        "DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT: healthCheck.timeout: expected a duration such as 500ms, 5s or 1m30s",
        "healthCheck.interval: must be at least 100ms, not 0s",
        f"DYNAMIC_TOOLSET_NAMESPACES_INCLUDE: namespaces.include[1]: expected {a_name}",
        "toolset.base: expected `object`, got `str`",
    ]


def test_what_only_fits_together_in_all_is_taken(tmp_path: Path) -> None:
    assert load(None, {}, ["server.auth=none", "server.address=::", "server.allowAnonymous=true"]).server.bound == "::"
    with pytest.raises(SettingsError, match="server: auth none on address :: would let everybody in"):
        load(None, {}, ["server.auth=none", "server.address=::"])


def test_one_alias_in_two_places_is_two_values(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("server:\n  tls: &t {certFile: a, keyFile: b}\n  metricsTls: *t\n")
    settings = load(file, assignments=["server.tls.certFile=c"])
    assert (settings.server.tls.cert_file, settings.server.metrics_tls.cert_file) == ("c", "a")


class TestSources:
    def test_each_setting_has_the_last_that_gave_it(self, tmp_path: Path) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text("clusterDomain: a\nhealthCheck: {timeout: 1s, interval: 1m}\ntoolset: {base: {x: {}}}\n")
        environ = {"DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT": "2s", "DYNAMIC_TOOLSET_SERVER_PORT": "1"}
        loaded = load_with_sources(file, environ, ["server.port=2"])
        assert loaded.settings == load(file, environ, ["server.port=2"])
        assert {path: source for path, source in loaded.sources.items() if source.kind != "default"} == {
            "clusterDomain": Source("file", str(file)),
            "healthCheck.timeout": Source("environment", "DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT"),
            "healthCheck.interval": Source("file", str(file)),
            "toolset.base": Source("file", str(file)),
            "server.port": Source("option"),
        }

    def test_every_setting_has_one_in_the_order_of_the_model(self) -> None:
        assert list(load_with_sources().sources) == [path for path, _ in leaves()]


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", []),
            ("# nothing", []),
            ("server: {port: 1}", []),
            ("a: [", ["2: not valid YAML"]),
            ("x", ["1: a mapping of settings is expected, not a str"]),
            ("server:\n  port: a\n  prot: 1\n", ["2: server.port: expected `int`", "3: server.prot: unknown field"]),
            ("server:\n  port: .inf\n", ["2: server.port: inf is not a number"]),
            (
                "policy:\n  foreignEndpoints:\n  - hosts: [a]\n",
                ["3: policy.foreignEndpoints[0]: missing required field"],
            ),
            ("- .inf", ["1: [0]: inf is not a number"]),
            (
                "massFailure:\n  hold: x\n  hold: y\nx: 1\n",
                ["2: massFailure.hold: expected", "3: massFailure.hold", "4: x"],
            ),
        ],
    )
    def test_says_where_and_why(self, text: str, said: list[str]) -> None:
        found = [str(mistake) for mistake in mistakes(text)]
        assert len(found) == len(said), found
        assert all(one.startswith(start) for one, start in zip(found, said, strict=True)), found

    @given(
        st.lists(
            st.sampled_from(
                [
                    *("server:", "  port: 1", "  port: x", "  auth: none", "  address: '::'", "  tls: {certFile: a}"),
                    *("toolset:", "  base: {a: {b: 1}}", "healthCheck: {timeout: 0s}", "clusterDomain: a", "- x"),
                    *("x: 1", "a: [", ""),
                ]
            ),
            max_size=6,
        )
    )
    def test_there_are_none_exactly_if_the_file_is_taken(self, lines: list[str]) -> None:
        text = "\n".join(lines)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "settings.yaml"
            file.write_text(text)
            expected = [f"{file}:{mistake}" for mistake in mistakes(text)]
            if not expected:
                load(file)
                return
            with pytest.raises(SettingsError) as caught:
                load(file)
            assert str(caught.value).splitlines() == expected
