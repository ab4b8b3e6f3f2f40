"""``dynamic-toolset generate -f``: what would be published for the Services of manifests."""

from collections.abc import Callable

import pytest
import yaml

from dynamic_toolset.publication.configmap import MAX_BYTES
from tests.unit.cli.conftest import PROMETHEUS, WEB, Run

Write = Callable[..., str]
INSTANCE = {
    "name": "monitoring.prometheus",
    "prometheus_url": "http://prometheus.monitoring.svc.cluster.local:9090",
}


def test_all_documents_as_one_stream_of_yaml(run: Run, manifest: Write) -> None:
    ended = run("generate", "-f", manifest(PROMETHEUS))
    assert ended.status == 0
    assert ended.err == ""
    holmesgpt, generic = yaml.safe_load_all(ended.out)
    assert holmesgpt["toolsets"]["prometheus/metrics"]["config"]["instances"] == [INSTANCE]
    assert [tool["endpoint"] for tool in generic["tools"]] == [INSTANCE["prometheus_url"]]
    assert ended.out.startswith("---\n# custom_toolset.yaml\n")
    assert "\n---\n# toolset.json\n{" in ended.out


def test_one_document_is_what_the_configmap_would_hold_to_the_byte(run: Run, manifest: Write) -> None:
    file = manifest(PROMETHEUS)
    published = yaml.safe_load(run("generate", "-f", file, "-o", "configmap").out)
    assert published["data"] == {
        "custom_toolset.yaml": run("generate", "-f", file, "-o", "holmesgpt").out,
        "toolset.json": run("generate", "-f", file, "--output", "generic").out,
    }


def test_the_configmap_can_be_applied_as_it_is(run: Run, manifest: Write) -> None:
    settings = ("--set", "configMap.name=tools", "--set", "configMap.namespace=holmes")
    ended = run("generate", "-f", manifest(PROMETHEUS), "-o", "configmap", *settings)
    published = yaml.safe_load(ended.out)
    assert (published["apiVersion"], published["kind"]) == ("v1", "ConfigMap")
    assert published["metadata"]["name"] == "tools"
    assert published["metadata"]["namespace"] == "holmes"
    assert "resourceVersion" not in published["metadata"]
    # For a person to read: each document is a block, not one line with escapes.
    assert "\n  custom_toolset.yaml: |\n" in ended.out
    assert "\n  toolset.json: |\n" in ended.out


def test_the_order_of_the_input_does_not_matter(run: Run, manifest: Write) -> None:
    other = PROMETHEUS.replace("namespace: monitoring", "namespace: staging")
    one = run("generate", "-f", manifest(f"{PROMETHEUS}---\n{other}"))
    two = run("generate", "-f", manifest(f"{other}---\n{WEB}---\n{PROMETHEUS}"))
    assert one.out == two.out


def test_overrides_are_merged(run: Run, manifest: Write) -> None:
    overrides = manifest("toolsets: {prometheus/metrics: {enabled: false}, kubernetes/logs: null}\n", "mine.yaml")
    ended = run("generate", "-f", manifest(PROMETHEUS), "--overrides", overrides, "-o", "holmesgpt")
    toolsets = yaml.safe_load(ended.out)["toolsets"]
    assert toolsets["prometheus/metrics"]["enabled"] is False
    assert "kubernetes/logs" not in toolsets


def test_an_override_that_waits_for_its_service_is_told(run: Run, manifest: Write) -> None:
    overrides = manifest("toolsets: {grafana/loki: {config: {instances: [{name: a.loki}]}}}\n", "mine.yaml")
    ended = run("generate", "-f", manifest(PROMETHEUS), "--overrides", overrides)
    assert ended.status == 1
    assert ended.err.startswith("error: ")
    assert "a.loki" in ended.err
    assert INSTANCE["prometheus_url"] in ended.out


def test_without_services_the_base_is_left_and_can_be_loaded(run: Run) -> None:
    ended = run("generate", "-f", "-", "-o", "holmesgpt", stdin="")
    assert ended.status == 0
    assert {"kubernetes/core", "kubernetes/logs"} < yaml.safe_load(ended.out)["toolsets"].keys()
    assert ended.err == "warning: standard input: there is no Service in it\n"


def test_what_cannot_be_used_is_told_and_the_rest_generated(run: Run, manifest: Write) -> None:
    ended = run("generate", "-f", manifest(f"kind: Service\n---\n{PROMETHEUS}"), "-o", "generic")
    assert ended.status == 1
    assert ended.err == (
        "error: services.yaml, document 1: Service without a name: object missing required field `metadata`\n"
    )
    assert INSTANCE["prometheus_url"] in ended.out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["generate"], 2, "give manifests with -f FILE, or -f - for standard input"),
        (["generate", "-f", "-", "-o", "table"], 2, "'table' is not one of 'documents', 'holmesgpt', 'generic', 'con"),
        (["generate", "-f"], 2, "requires an argument"),
        (["generate", "-f", "nowhere"], 1, "error: nowhere: No such file or directory\n"),
        (["generate", "-f", "-", "--overrides", "none.yaml"], 1, "error: none.yaml: No such file or directory\n"),
        (["generate", "-f", "-", "--overrides", "latin.yaml"], 1, "error: latin.yaml: not UTF-8 at byte 0\n"),
        (["generate", "-f", "-", "--overrides", "broken.yaml"], 1, "error: overrides.yaml:2: "),
        (["generate", "-f", "-", "--set", "clusterDomain"], 1, "error: 'clusterDomain': write SETTING=VALUE"),
    ],
)
def test_a_wrong_call_says_what_is_right(
    run: Run, manifest: Write, arguments: list[str], status: int, message: str
) -> None:
    manifest(b"\xff", "latin.yaml")
    manifest("toolsets:\n  a: 5\n", "broken.yaml")
    ended = run(*arguments)
    assert ended.status == status
    assert message in ended.err
    assert ended.out == ""


def test_more_than_a_configmap_holds_is_refused(run: Run, manifest: Write) -> None:
    overrides = "toolsets:\n" + "".join(
        f"  own-{number}: {{description: {'x' * 20_000}, tools: []}}\n" for number in range(12)
    )
    services = "---\n".join(
        f"kind: Service\nmetadata: {{name: s{number}, namespace: n, annotations: {{kubernaut.io/toolset: enabled, "
        f"kubernaut.io/toolset-type: api}}}}\nspec: {{selector: {{app: s{number}}}, ports: [{{port: 80}}]}}\n"
        for number in range(900)
    )
    file, mine = manifest(services), manifest(overrides, "mine.yaml")
    many = ("--set", "policy.maxPerNamespace=1000", "--set", "policy.maxInAll=1000")
    ended = run("generate", "-f", file, "--overrides", mine, "-o", "configmap", *many)
    assert ended.status == 1
    assert ended.err.startswith("error: the ConfigMap would hold ")
    assert f"may hold {MAX_BYTES // 1024} KiB" in ended.err
    assert ended.out == ""
