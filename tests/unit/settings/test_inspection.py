"""What is in force, without a secret; what changed, and what waits for a restart."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.settings import (
    MASK,
    RESTART,
    Credential,
    Setting,
    Settings,
    Source,
    ToolsetSettings,
    changed,
    effective,
    load,
    load_with_sources,
    needs_restart,
)
from dynamic_toolset.settings.model import leaves


def shown(base: dict[str, Any]) -> Any:
    rows = effective(Settings(toolset=ToolsetSettings(base=base)), {})
    return next(row.value for row in rows if row.name == "toolset.base")


def test_every_setting_is_a_row_with_its_value_and_source() -> None:
    loaded = load_with_sources(None, {"DYNAMIC_TOOLSET_NAMESPACES_INCLUDE": "a,b"}, ["server.port=0"])
    rows = effective(loaded.settings, loaded.sources)
    assert [row.name for row in rows] == [path for path, _ in leaves()]
    by_name = {row.name: row for row in rows}
    assert by_name["namespaces.include"] == Setting(
        "namespaces.include", ["a", "b"], Source("environment", "DYNAMIC_TOOLSET_NAMESPACES_INCLUDE")
    )
    assert by_name["server.port"] == Setting("server.port", 0, Source("option"))
    assert by_name["healthCheck.timeout"] == Setting("healthCheck.timeout", "5s", Source("default"))
    assert by_name["leaderElection.leaseName"].value is None
    json.dumps([row.value for row in rows])


def test_the_names_of_the_agents_variables_are_no_secret() -> None:
    credential = Credential(namespace="a", service="b", password="B_PASSWORD")
    rows = effective(Settings(toolset=ToolsetSettings(credentials=(credential,))), {})
    assert next(row.value for row in rows if row.name == "toolset.credentials")[0]["password"] == "B_PASSWORD"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "bearerToken", "api_key", "API-KEY", "apikey", "password", "passwd", "client_secret", "db_pwd"),
        *("Authorization", "X-Auth", "cookie", "privateKey", "credentials", "session_id", "DSN", "p.a.s.s.w.o.r.d"),
        *("headers", "extra_headers", "env", "args", "command"),
    ],
)
@pytest.mark.parametrize("value", ["hunter2", 4711, 1.5, ["hunter2"], {"x": "hunter2"}, [{"x": ["hunter2", 4711]}]])
def test_what_a_name_says_to_be_secret_is_masked_with_all_below_it(name: str, value: Any) -> None:
    text = json.dumps(shown({"a": {"config": {name: value}}}))
    assert MASK in text
    assert "hunter2" not in text
    assert "4711" not in text
    assert "1.5" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, 5 words: fine", None),
        ("http://a.b:90/c?d=e#f", None),
        ("https://u:p@host/x", "https://***@host/x"),
        ("https://u@host/x", "https://***@host/x"),
        ("https://u:p@ss/w@host/x", "https://***@host/x"),
        ("see https://u:p@a and postgres://x:y@b:1/c", "see https://***@a and postgres://***@b:1/c"),
        ("u:p@host:5432/db", "***@host:5432/db"),
        ("u:p://q@host/db", "***@host/db"),
        ("ask sre@example.com", None),
        ("http://a/?api_key=abc&x=1", "http://a/?api_key=***&x=1"),
        ("curl -H 'Authorization: Bearer abc.def'", "curl -H 'Authorization: Bearer ***"),
        ("basic dXNlcjpw", "basic ***"),
        ("{{ env.GRAFANA_KEY }}", None),
        ("--token=abc", "--token=***"),
    ],
)
def test_secrets_within_a_text_are_masked(text: str, expected: str | None) -> None:
    assert shown({"a": {"hint": text, "list": [text]}}) == {"a": {"hint": expected or text, "list": [expected or text]}}


@pytest.mark.parametrize("value", [True, False, None, "{{ env.KEY }}", "{{env.KEY}}", "Bearer {{ env.KEY }}"])
def test_what_is_no_secret_under_such_a_name_is_shown(value: Any) -> None:
    assert shown({"a": {"api_key": value}}) == {"a": {"api_key": value}}


def test_long_texts_take_no_time() -> None:
    for text in ("://" * 80_000, "@" * 200_000, "a=" * 100_000, "bearer " * 40_000, "{{ env." * 40_000):
        shown({"a": {"hint": text}})


@given(
    st.sampled_from(["https://u:{}@h", "x ftp://{}@h/", "Bearer {}", "https://h/?token={}", "a:{}@b"]),
    st.text("abcXYZ019:/?#", min_size=1).map(lambda text: f"s3cr3t{text}"),
)
def test_no_secret_in_a_url_is_shown(form: str, secret: str) -> None:
    if "?token" in form:
        secret = secret.replace("#", "").replace("?", "")
    assert "s3cr3t" not in json.dumps(shown({"a": {"url": form.format(secret)}}))


class TestChanges:
    def test_equal_settings_have_not_changed(self) -> None:
        assert changed(Settings(), load(None, {}, ["server.port=8080"])) == ()

    def test_what_differs_is_told_in_the_order_of_the_model(self) -> None:
        new = load(None, {}, ["server.port=1", "healthCheck.timeout=1s", "configMap.name=x", "toolset.base={}"])
        assert changed(Settings(), new) == ("healthCheck.timeout", "configMap.name", "toolset.base", "server.port")
        assert needs_restart(Settings(), new) == ("configMap.name", "server.port")

    def test_true_is_not_one(self) -> None:
        old, new = (Settings(toolset=ToolsetSettings(base={"a": {"b": value}})) for value in (1, True))
        assert changed(old, new) == ("toolset.base",)

    def test_every_setting_and_group_that_needs_a_restart_is_there(self) -> None:
        paths = {path for path, _ in leaves()}
        assert {path.partition(".")[0] for path in paths} | paths >= set(RESTART)

    def test_of_the_configmap_only_its_place_needs_a_restart(self) -> None:
        new = load(None, {}, ["configMap.preserveOverrides=false", "configMap.namespace=x", "toolsetConfig.name=y"])
        assert needs_restart(Settings(), new) == ("configMap.namespace", "toolsetConfig.name")
