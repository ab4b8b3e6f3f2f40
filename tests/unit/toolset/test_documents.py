import json
import re

import msgspec
import pytest
import yaml

from dynamic_toolset.settings import ConfigMapSettings, HealthCheckSettings, Settings, ToolsetSettings
from dynamic_toolset.toolset import generic, holmesgpt
from dynamic_toolset.toolset.documents import render
from dynamic_toolset.toolset.overrides import OverridesError
from tests.unit.toolset.samples import RICH, RICH_SETTINGS, candidate, listed, load

SETTINGS = Settings(toolset=RICH_SETTINGS)


def texts(rendered):
    return {document.key: document.text for document in rendered.documents}


def test_both_documents_are_rendered():
    rendered = render(listed(*RICH), SETTINGS, None)
    assert [document.key for document in rendered.documents] == ["custom_toolset.yaml", "toolset.json"]
    assert len(json.loads(texts(rendered)[generic.KEY])["tools"]) == len(RICH)
    assert rendered.problems == ()


def test_overrides_change_what_holmesgpt_reads_and_not_what_was_found():
    before, after = (texts(render(listed(*RICH), SETTINGS, text)) for text in (None, "grafana/loki: null"))
    assert "grafana/loki" in load(before[holmesgpt.KEY])["toolsets"]
    assert "grafana/loki" not in load(after[holmesgpt.KEY])["toolsets"]
    assert before[generic.KEY] == after[generic.KEY]


def test_overrides_that_cannot_be_used_are_an_error():
    with pytest.raises(OverridesError, match=r"^overrides.yaml:1: bash"):
        render([], SETTINGS, "bash: 1")


def test_tls_follows_the_health_checks():
    settings = Settings(health_check=HealthCheckSettings(verify_tls=False))
    one = candidate("loki", "a", "loki", scheme="https")
    assert '"verify_ssl": false' in texts(render(listed(one), settings, None))[holmesgpt.KEY]


def test_the_toolsets_in_both_documents_have_the_same_names():
    base = {**RICH_SETTINGS.base, "jaeger-tracing-jaeger-query": {"description": "mine", "tools": []}}
    settings = Settings(toolset=msgspec.structs.replace(RICH_SETTINGS, base=base))
    written = texts(render(listed(*RICH), settings, None))
    file = yaml.safe_load(written[holmesgpt.KEY])
    names = {
        name for tool in json.loads(written[generic.KEY])["tools"] for name in tool["metadata"]["toolsets"].split(",")
    }
    generated = {*file["toolsets"], *file["mcp_servers"]} - base.keys()
    assert names == {name for name in generated if not name.startswith("dynamic-toolset-rev-")}


def test_what_is_left_out_is_reported_and_the_rest_goes_on():
    bad = candidate("loki", "a", "bad", path="/{{ env.SECRET }}")
    settings = Settings(toolset=ToolsetSettings({"my.api": {}}))
    rendered = render(listed(bad, candidate("loki", "a", "good")), settings, "jaeger-a-b: {enabled: false}")
    assert [problem.reason for problem in rendered.problems] == ["ServiceUnsafe", "BaseInvalid", "OverrideWaiting"]
    for text in texts(rendered).values():
        assert "SECRET" not in text
        assert "good" in text
        assert not re.search("my.api", text)


def test_what_overrides_did_is_told():
    text = "grafana/loki: {enabled: false}\njaeger-a-b: {enabled: false}"
    rendered = render(listed(*RICH), Settings(toolset=RICH_SETTINGS), text)
    assert [(one.toolset, one.kind) for one in rendered.effects] == [
        ("grafana/loki", "changed"),
        ("jaeger-a-b", "waiting"),
    ]
    assert [one.message for one in rendered.problems if one.reason == "OverrideWaiting"] == [
        rendered.effects[1].message
    ]
    assert render(listed(*RICH), Settings(), None).effects == ()


NOT_APPLIED = Settings(toolset=RICH_SETTINGS, config_map=ConfigMapSettings(preserve_overrides=False))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grafana/loki: null", ["toolsets.grafana/loki"]),
        ("toolsets: {a: {type: http}}\nmcp_servers: {b: {config: {url: x}}}", ["toolsets.a", "mcp_servers.b"]),
        ("toolsets: [not, a, mapping", []),  # nobody reads it, so nobody has to mend it
    ],
)
def test_overrides_that_are_not_to_be_applied_change_nothing_and_whoever_wrote_them_is_told(text, said):
    rendered = render(listed(*RICH), NOT_APPLIED, text)
    assert rendered.documents == render(listed(*RICH), SETTINGS, None).documents
    why = "has no effect: the setting configMap.preserveOverrides is false"
    assert [effect.message for effect in rendered.effects] == [f"overrides.yaml: {one} {why}" for one in said]
    assert {effect.kind for effect in rendered.effects} <= {"none"}
    assert [problem.reason for problem in rendered.problems] == ["OverridesIgnored"]


@pytest.mark.parametrize("text", [None, "", "# what could be done here", "toolsets:"])
def test_where_nobody_wrote_overrides_there_is_nothing_to_tell(text):
    rendered = render(listed(*RICH), NOT_APPLIED, text)
    assert (rendered.problems, rendered.effects) == ((), ())
