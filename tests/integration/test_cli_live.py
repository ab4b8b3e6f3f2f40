"""The commands that speak to a cluster, against the sandbox, with a kubeconfig as a user has one."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox import Sandbox, status
from dynamic_toolset.sandbox.resources import ENDPOINT_SLICES, SERVICES
from dynamic_toolset.sandbox.scenario import FIRST_LISTED, Scenario
from tests.command import Ended, called
from tests.documentation import README, commands, shows
from tests.waiting import PATIENCE

PROGRAM = (sys.executable, "-m", "dynamic_toolset")
# What listens on loopback here may be dialled.
SETTINGS = ("--set", "policy.allowedRanges=127.0.0.0/8")
# Somebody may use the ports that it takes by default.
PORTS = ("--set", "server.port=0", "--set", "server.metricsPort=0", "--set", "server.shutdownDelay=0s")
LISTED = {f"{key.namespace}/{key.name}" for key in FIRST_LISTED}


Command = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def scenario(sandbox: Sandbox) -> AsyncIterator[Scenario]:
    """The cluster of the demo as its story begins."""
    async with Scenario(sandbox) as scenario:
        await scenario.steps[0].change()
        yield scenario


@pytest.fixture
def kubeconfig(sandbox: Sandbox, tmp_path: Path) -> Path:
    return _kubeconfig(tmp_path, sandbox.url)


def _kubeconfig(folder: Path, server: str) -> Path:
    file = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "nowhere",
        "clusters": [
            {"name": "sandbox", "cluster": {"server": server}},
            {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("sandbox", "nowhere")],
    }
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def command(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call a command that ends, in a thread of its own, as its loop is not ours."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def command(*arguments: str, context: str = "sandbox") -> Ended:
        cluster = ("--kubeconfig", str(kubeconfig), "--context", context)
        return await asyncio.to_thread(called, monkeypatch, capsys, *arguments, *cluster, *SETTINGS)

    return command


# --- discover -------------------------------------------------------------------------------------------------------


async def test_discover_as_json(scenario: Scenario, command: Command) -> None:
    ended = await command("discover", "-o", "json")
    assert (ended.status, ended.err) == (0, "")
    rows = {f"{row['namespace']}/{row['name']}": row for row in ended.json["services"]}
    assert list(rows) == sorted(rows)
    assert {name for name, row in rows.items() if row["listed"]} == LISTED
    assert list(rows["monitoring/prometheus"]) == [
        *("namespace", "name", "decision", "type", "endpoint", "health", "listed", "reason")
    ]
    assert rows["monitoring/prometheus"]["health"] == "healthy"
    assert rows["monitoring/prometheus-headless"]["decision"] == "duplicate"
    assert rows["monitoring/prometheus-headless"]["health"] is None
    # It answers 200 to everything, and is no Prometheus.
    assert rows["playground/prometheus"]["health"] == "unhealthy"
    assert "shop/grafana" not in rows, "its owner opted out: no news"


async def test_discover_as_yaml_says_the_same(scenario: Scenario, command: Command) -> None:
    as_json, as_yaml = await command("discover", "-o", "json"), await command("discover", "-o", "yaml")
    assert yaml.safe_load(as_yaml.out) == as_json.json


async def test_discover_says_that_it_looks_at_one_cluster_of_several(scenario: Scenario, command: Command) -> None:
    ended = await command("discover", "--set", "clusters=[{name: eu, secret: eu}, {name: us, secret: us}]")
    assert ended.status == 0
    assert ended.err.startswith("warning: only this cluster is looked at, and not eu, us: ")


async def test_discover_as_a_table_keeps_a_row_on_a_line_in_a_pipe(scenario: Scenario, command: Command) -> None:
    ended = await command("discover")
    header, *rows, empty, summary = ended.out.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "TYPE", "ENDPOINT", "HEALTH", "LISTED", "WHY"]
    assert empty == ""
    assert summary == f"{len(LISTED)} in the toolset, of 10 Services."
    columns = {tuple(row.split()[:2]): row.split()[2:6] for row in rows}
    endpoint = f"http://grafana.monitoring.svc.cluster.local:{_port(scenario, 'monitoring/grafana')}"
    assert columns["monitoring", "grafana"] == ["grafana", endpoint, "healthy", "yes"]
    assert columns["playground", "prometheus"][2:] == ["unhealthy", "no"]
    assert "\x1b" not in ended.out


async def test_discover_writes_nothing(sandbox: Sandbox, scenario: Scenario, command: Command) -> None:
    await command("discover")
    assert {verb for verb, _resource in sandbox.requests} == {"list", "watch"}
    assert not await scenario.published()


async def test_discover_in_an_empty_cluster(command: Command) -> None:
    ended = await command("discover", "-o", "json")
    assert (ended.status, ended.json) == (0, {"services": []})


async def test_a_service_that_cannot_be_read_is_told_and_the_others_are_shown(
    sandbox: Sandbox, scenario: Scenario, command: Command
) -> None:
    key = ObjectKey("monitoring", "grafana")
    whole = sandbox._store.objects(SERVICES)[key]
    sandbox._store.put(SERVICES, key, {**whole, "spec": {**whole["spec"], "ports": [{"port": "eighty"}]}})
    ended = await command("discover", "-o", "json")
    assert ended.status == 0
    assert ended.err.startswith("warning: Service monitoring/grafana cannot be read: ")
    assert {f"{row['namespace']}/{row['name']}" for row in ended.json["services"] if row["listed"]} == (
        LISTED - {"monitoring/grafana"}
    )
    ended = await command("explain", "monitoring/grafana")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error: Service monitoring/grafana cannot be read: ")


async def test_an_interrupt_while_it_waits_ends_it_at_once(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        file = _kubeconfig(tmp_path, f"http://{host}:{port}")
        process = await _start("discover", "--kubeconfig", str(file), "--context", "sandbox")
        try:
            async with asyncio.timeout(2 * PATIENCE):
                await asked.wait()
        finally:
            process.send_signal(signal.SIGINT)
            out, err = await _end(process)
    assert (process.returncode, out, err.strip()) == (130, "", "")


# --- explain --------------------------------------------------------------------------------------------------------


async def test_explain_a_service_that_is_in(scenario: Scenario, command: Command) -> None:
    ended = await command("explain", "monitoring/grafana")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "monitoring/grafana: candidate"
    assert lines[1] == "  type      grafana"
    assert lines[-2:] == ["  health    healthy: answers as Grafana", "  listed    yes"]


@pytest.mark.parametrize(
    ("service", "decision", "listed", "words"),
    [
        ("monitoring/alertmanager", "candidate", True, "Alertmanager"),
        ("monitoring/prometheus-headless", "duplicate", False, "same workload as Service prometheus"),
        ("shop/grafana", "ignored", False, "its owner opted out"),
        ("playground/prometheus", "candidate", False, "Prometheus"),
    ],
)
async def test_explain_as_json(
    scenario: Scenario, command: Command, service: str, decision: str, listed: bool, words: str
) -> None:
    ended = await command("explain", service, "-o", "json")
    assert ended.status == 0
    (one,) = ended.json["services"]
    assert f"{one['namespace']}/{one['name']}" == service
    assert (one["decision"], one["listed"]) == (decision, listed)
    assert words in one["reason"]


async def test_explain_says_why_it_does_not_answer(scenario: Scenario, command: Command) -> None:
    next(backend for key, backend in scenario.backends.items() if key.name == "jaeger-query").healthy = False
    ended = await command("explain", "tracing/jaeger-query")
    assert ended.out.splitlines()[-2:] == ["  health    unhealthy: HTTP 503", "  listed    no"]


async def test_explain_a_service_that_is_not_there(sandbox: Sandbox, scenario: Scenario, command: Command) -> None:
    ended = await command("explain", "monitoring/nobody", "-o", "json")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"error: Service monitoring/nobody does not exist in {sandbox.url}\n"


async def test_explain_asks_no_more_than_one_namespace(sandbox: Sandbox, scenario: Scenario, command: Command) -> None:
    await command("explain", "shop/orders")
    backends = {key.namespace: backend.requests.total() for key, backend in scenario.backends.items()}
    assert backends["shop"] > 0
    assert backends["monitoring"] == backends["tracing"] == 0


@pytest.mark.parametrize("arguments", [("discover",), ("explain", "monitoring/grafana")])
async def test_an_api_that_does_not_answer(command: Command, arguments: tuple[str, ...]) -> None:
    ended = await command(*arguments, context="nowhere")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error: ")
    assert "Cannot connect to host 127.0.0.1:1 " in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("arguments", [("discover",), ("explain", "monitoring/grafana")])
async def test_a_context_that_is_not_there(command: Command, arguments: tuple[str, ...]) -> None:
    ended = await command(*arguments, context="typo")
    assert ended.status == 1
    assert ended.err.startswith("error: the kubeconfig ")
    assert "typo" in ended.err


@pytest.mark.parametrize("arguments", [("discover", "-o", "json"), ("explain", "monitoring/grafana", "-o", "json")])
async def test_without_the_permission_to_read_slices_nobody_is_asked_and_the_reason_is_told(
    sandbox: Sandbox, scenario: Scenario, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    read = sandbox._api._list

    async def refused(request: web.Request, wanted: Any) -> web.StreamResponse:
        if wanted.resource is ENDPOINT_SLICES:
            raise status.forbidden(ENDPOINT_SLICES, "", "not allowed")
        return await read(request, wanted)

    monkeypatch.setattr(sandbox._api, "_list", refused)
    ended = await command(*arguments)
    assert ended.status == 0
    assert ended.err.startswith("warning: EndpointSlices cannot be read: 403 Forbidden: ")
    assert "permission to list and watch endpointslices" in ended.err
    shown = next(row for row in ended.json["services"] if (row["namespace"], row["name"]) == ("monitoring", "grafana"))
    assert (shown["health"], shown["listed"]) == ("unknown", False)
    assert "its EndpointSlices have not been read yet" in {shown["reason"], shown.get("healthReason")}
    assert all(backend.requests.total() == 0 for backend in scenario.backends.values())


# --- run and demo: processes of their own ---------------------------------------------------------------------------


async def _start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )


async def _end(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Wait for the end, and return what the process wrote; it does not outlive a test that fails."""
    try:
        async with asyncio.timeout(3 * PATIENCE):  # the demo has a story to tell
            out, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    return out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_publishes_and_ends_in_order_when_it_is_told_to(
    sandbox: Sandbox, scenario: Scenario, kubeconfig: Path, number: signal.Signals
) -> None:
    process = await _start("run", "--kubeconfig", str(kubeconfig), "--context", "sandbox", *SETTINGS, *PORTS)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            while not await scenario.reached(scenario.steps[0]):
                assert process.returncode is None
                await asyncio.sleep(0.02)
    finally:
        process.send_signal(number)
        out, err = await _end(process)
    assert process.returncode == 0, err
    assert out == ""
    events = [json.loads(line) for line in err.splitlines()]
    assert {event["level"] for event in events} == {"info"}
    assert events[0].pop("timestamp")
    assert events[0].pop("version")
    assert events[0] == {
        "event": "starting",
        "level": "info",
        "server": sandbox.url,
        "configmap": "kubernaut-system/kubernaut-toolset-config",
    }
    assert events[-1]["event"] == "stopped"
    listed = {event["service"] for event in events if event["event"] == "service_listed"}
    assert listed == LISTED


async def test_run_waits_for_an_api_that_does_not_answer_yet(kubeconfig: Path) -> None:
    process = await _start("run", "--kubeconfig", str(kubeconfig), "--log-format", "console", *PORTS)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(2 * PATIENCE):
            lines = [await process.stderr.readline() for _ in range(3)]
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = await _end(process)
    assert b"starting" in lines[0]
    assert any(b"WatchFailing" in line and b"127.0.0.1" in line for line in lines[1:])
    assert process.returncode == 0, rest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "configMap.name=No_Name"), "error: configMap.name: expected a name"),
        (("--set", "catalogFolder=nowhere"), "error: nowhere"),
    ],
)
async def test_run_refuses_wrong_settings_before_it_connects(
    sandbox: Sandbox, kubeconfig: Path, options: tuple[str, str], message: str
) -> None:
    process = await _start("run", "--kubeconfig", str(kubeconfig), "--context", "sandbox", *PORTS, *options)
    out, err = await _end(process)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(message)
    assert not sandbox.requests


async def test_the_demo_tells_its_story_as_the_readme_shows_and_ends_with_the_configmap() -> None:
    process = await _start("demo")
    out, err = await _end(process)
    assert (process.returncode, err) == (0, "")
    shown = next(command.output for command in commands(README) if command.line == "make demo" and command.output)
    assert shows(f"...\n{shown}", out), out
    steps = [line for line in out.splitlines() if line[:1].isdigit()]
    assert [step[0] for step in steps] == ["1", "2", "3", "4", "5"]
    assert "+  monitoring/prometheus: Prometheus, healthy, answers as Prometheus" in out
    assert "-  tracing/jaeger-query: Jaeger, unhealthy, HTTP 503" in out
    assert "-  platform/runbooks: deleted" in out
    documents = out.partition("The ConfigMap kubernaut-system/kubernaut-toolset-config now holds:\n")[2]
    assert [line for line in documents.splitlines() if line.startswith("--- ")] == [
        "--- custom_toolset.yaml",
        "--- overrides.yaml",
        "--- toolset.json",
    ]
    assert '"llm_instructions": "Ask for rates over five minutes' in documents


async def test_the_demo_is_kept_until_it_is_interrupted() -> None:
    process = await _start("demo", "--keep", PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    seen = ""
    try:
        async with asyncio.timeout(3 * PATIENCE):
            while "kubectl --server http://127.0.0.1:" not in seen:
                line = await process.stdout.readline()
                assert line, "it ended by itself"
                seen += line.decode()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = await _end(process)
    assert (process.returncode, err) == (0, "")


def _port(scenario: Scenario, service: str) -> int:
    return next(backend.port for key, backend in scenario.backends.items() if str(key) == service)
