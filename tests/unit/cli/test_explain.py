"""``dynamic-toolset explain -f``: why each Service of a manifest is, or is not, in."""

import json
import re
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import PROMETHEUS, WEB, Run

Write = Callable[..., str]

REJECTED = """\
apiVersion: v1
kind: Service
metadata:
  name: orders
  namespace: shop
  annotations: {kubernaut.io/toolset: "yes"}
spec: {ports: [{port: 80}]}
"""

HEADLESS = PROMETHEUS.replace("name: prometheus\n", "name: prometheus-headless\n").replace(
    "spec:\n", "spec:\n  clusterIP: None\n"
)


def test_a_candidate_in_words(run: Run, manifest: Write) -> None:
    ended = run("explain", "-f", manifest(PROMETHEUS))
    assert ended.status == 0
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[:3] == [
        "monitoring/prometheus: candidate",
        "  type      prometheus",
        "  endpoint  http://prometheus.monitoring.svc.cluster.local:9090",
    ]
    assert lines[3].startswith("  why       Prometheus: label app.kubernetes.io/name=prometheus, port web 9090")
    assert lines[4:] == ["  ports     9090 web: chosen, a port of Prometheus (9090)"]


def test_every_port_has_its_line(run: Run, manifest: Write) -> None:
    more = "ports: [{name: web, port: 9090}, {port: 53, protocol: UDP}, {name: reloader-web, port: 8080}]"
    text = re.sub(r"ports:.*", more, PROMETHEUS)
    ended = run("explain", "-f", manifest(text))
    assert ended.out.splitlines()[4:] == [
        "  ports     9090 web: chosen, a port of Prometheus (9090)",
        "            53: UDP, which cannot be asked over HTTP",
        "            8080 reloader-web: not a port of Prometheus",
    ]
    many = "ports: [{name: web, port: 9090}, " + ", ".join(f"{{port: {number}}}" for number in range(1, 30)) + "]"
    ended = run("explain", "-f", manifest(re.sub(r"ports:.*", many, PROMETHEUS)))
    assert ended.out.splitlines()[-1] == "            and 10 more ports"


def test_a_duplicate_says_of_what_and_by_which_evidence(run: Run, manifest: Write) -> None:
    ended = run("explain", "-f", manifest(f"{HEADLESS}---\n{PROMETHEUS}"))
    first, second = ended.out.split("\n\n")
    assert first.startswith("monitoring/prometheus-headless: duplicate\n")
    assert "\n  why       it leads to the same workload as Service prometheus, " in first
    assert "            - label app.kubernetes.io/name=prometheus\n" in first
    assert second.startswith("monitoring/prometheus: candidate\n")


def test_json_has_exactly_the_promised_keys_in_input_order(run: Run, manifest: Write) -> None:
    text = "---\n".join((WEB, HEADLESS, REJECTED, PROMETHEUS))
    ended = run("explain", "-f", manifest(text), "-o", "json")
    assert ended.status == 0
    assert list(ended.json) == ["services"]
    services = ended.json["services"]
    assert [list(one) for one in services] == [
        ["namespace", "name", "decision", "type", "endpoint", "reason", "ports"]
    ] * 4
    url = "http://{}.monitoring.svc.cluster.local:9090"
    assert [tuple(one.values())[:5] for one in services] == [
        ("shop", "web", "ignored", None, None),
        ("monitoring", "prometheus-headless", "duplicate", "prometheus", url.format("prometheus-headless")),
        ("shop", "orders", "rejected", None, None),
        ("monitoring", "prometheus", "candidate", "prometheus", url.format("prometheus")),
    ]
    assert all(one["reason"] for one in services)
    assert "kubernaut.io/toolset" in services[2]["reason"]
    note = "chosen, a port of Prometheus (9090)"
    assert [one["ports"] for one in services] == [
        *([], [{"port": 9090, "name": "web", "chosen": True, "note": note}]),
        *([], [{"port": 9090, "name": "web", "chosen": True, "note": note}]),
    ]


def test_several_files_and_standard_input_in_the_order_of_the_options(run: Run, manifest: Write) -> None:
    files = ("-f", manifest(WEB, "web.yaml"), "-f", "-", "--filename", manifest(REJECTED, "orders.json"))
    ended = run("explain", *files, "-o", "json", stdin=PROMETHEUS)
    assert [one["name"] for one in ended.json["services"]] == ["web", "prometheus", "orders"]


def test_what_cannot_be_used_is_told_and_the_rest_explained(run: Run, manifest: Write) -> None:
    bad = "kind: Service\nmetadata: {name: bad}\nspec: {ports: 1}\n"
    ended = run("explain", "-f", manifest(f"{bad}---\n{WEB}"))
    assert ended.status == 1
    assert ended.out.startswith("shop/web: ignored\n")
    assert (
        ended.err == "error: services.yaml, document 1: Service bad: spec.ports: expected `array | null`, got `int`\n"
    )


@pytest.mark.parametrize(("options", "out"), [((), ""), (("-o", "json"), '{\n  "services": []\n}\n')])
def test_no_service_is_no_failure(run: Run, options: tuple[str, ...], out: str) -> None:
    ended = run("explain", "-f", "-", *options, stdin="")
    assert ended.status == 0
    assert ended.out == out
    assert ended.err == "warning: standard input: there is no Service in it\n"


def test_a_service_that_is_there_twice_is_listed_twice_as_the_last_one_is(run: Run, manifest: Write) -> None:
    ended = run("explain", "-f", manifest(f"{PROMETHEUS}---\n{PROMETHEUS.replace('9090', '9091')}"), "-o", "json")
    assert ended.status == 0
    first, second = ended.json["services"]
    assert first == second
    assert "is there already (services.yaml, document 1); the last one counts" in ended.err


def test_no_manifest_steers_the_terminal(run: Run, manifest: Write) -> None:
    text = (
        'kind: Service\nmetadata: {name: "a\\e[2Jb\\nc"}\n---\nkind: Service\nmetadata: {name: "\\e[1m", labels: 1}\n'
    )
    ended = run("explain", "-f", manifest(text))
    assert ended.out.startswith("default/a\\x1b[2Jb\\nc: ignored\n")
    assert ended.err.startswith("error: services.yaml, document 2: Service \\x1b[1m: metadata.labels: expected")
    assert "\x1b" not in ended.out + ended.err
    ended = run("explain", "-f", manifest("a: !<\\u001b> b\nc: !%1b[2J d\n"))
    assert ended.status == 1
    assert "\x1b" not in ended.err


def test_settings_and_own_types_count(run: Run, manifest: Write) -> None:
    file = manifest(PROMETHEUS)
    ended = run("explain", "-f", file, "--set", "requireAnnotations=true", "-o", "json")
    assert ended.json["services"][0]["decision"] != "candidate"
    ended = run("explain", "-f", file, "-c", manifest("clusterDomain: k8s.example", "settings.yaml"), "-o", "json")
    assert ended.json["services"][0]["endpoint"] == "http://prometheus.monitoring.svc.k8s.example:9090"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["explain"], 2, "name one Service as NAMESPACE/NAME, or give manifests with -f FILE"),
        (["explain", "a/b", "-f", "x"], 2, "name one Service as NAMESPACE/NAME, or give manifests with -f FILE"),
        (["explain", "grafana"], 2, "'grafana': write NAMESPACE/NAME, e.g. monitoring/grafana"),
        (["explain", "a/b/c"], 2, "'a/b/c': write NAMESPACE/NAME"),
        (["explain", "/b"], 2, "'/b': write NAMESPACE/NAME"),
        (["explain", "a/"], 2, "'a/': write NAMESPACE/NAME"),
        (["explain", "-f", "x", "-o", "yaml"], 2, "'yaml' is not one of 'text', 'json'"),
        (["explain", "-f", "nowhere.yaml"], 1, "error: nowhere.yaml: No such file or directory\n"),
        (["explain", "-f", "-", "--set", "x=1"], 1, "error: 'x': write SETTING=VALUE with one of discovery"),
        (["explain", "-f", "-", "-c", "none.yaml"], 1, "error: none.yaml: No such file or directory\n"),
        (["explain", "-f", "-", "--set", "catalogFolder=none"], 1, "error: none"),
        (["explain", "a/b"], 1, "error: no Kubernetes API found: not in a cluster: KUBERNETES_SERVICE_HOST"),
        (["explain", "a/b", "--kubeconfig", "none"], 1, "error: the kubeconfig none cannot be used: "),
    ],
)
def test_a_wrong_call_says_what_is_right(run: Run, arguments: list[str], status: int, message: str) -> None:
    ended = run(*arguments)
    assert ended.status == status
    assert message in ended.err
    assert ended.out == ""


def test_each_mistake_of_a_type_of_ones_own_is_an_error_of_its_own_line(run: Run, manifest: Write) -> None:
    manifest("name: x\nlables: {}\n", "type.yaml")
    ended = run("explain", "-f", manifest(WEB), "--set", "catalogFolder=.")
    assert ended.status == 1
    assert "type.yaml:2: lables: " in ended.err


def test_the_json_is_one_object_that_round_trips(run: Run, manifest: Write) -> None:
    text = PROMETHEUS.replace("name: prometheus\n", 'name: "gr\\u00e4fana \\U0001F600"\n')
    ended = run("explain", "-f", manifest(text), "-o", "json")
    assert ended.out.isascii()
    assert json.loads(ended.out)["services"][0]["name"] == "gr\u00e4fana \U0001f600"
