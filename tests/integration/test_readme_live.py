"""The commands of the README that need a cluster, against the sandbox, with the cluster of the demo."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from yarl import URL

from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.scenario import Scenario
from dynamic_toolset.settings import ConfigMapSettings
from tests.command import Ended
from tests.documentation import DOCS, README, commands, shows
from tests.integration.sandboxed import TARGET

SHOWN = {command.line: command.output or "" for command in commands(README)}
# Where nothing but loopback is there to be dialled.
ENVIRONMENT = {
    "DYNAMIC_TOOLSET_POLICY_ALLOWED_RANGES": "127.0.0.0/8",
    # Somebody may use the ports that it takes by default.
    "DYNAMIC_TOOLSET_SERVER_PORT": "0",
    "DYNAMIC_TOOLSET_SERVER_METRICS_PORT": "0",
    "DYNAMIC_TOOLSET_SERVER_SHUTDOWN_DELAY": "0s",
    # The sandbox makes no tokens.
    "DYNAMIC_TOOLSET_SERVER_AUTH": "none",
}
FOR_THE_SERVICE = {command.line: command.output or "" for command in commands(DOCS / "commands.md")}
FOREIGN = "toolsets: {prometheus/metrics: {enabled: true}}\n"
RUN = next(line for line in SHOWN if line.startswith("dynamic-toolset run "))


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    """The cluster of the demo as its story begins, and a home with a kubeconfig that leads to it."""
    async with Sandbox() as sandbox, Scenario(sandbox, ConfigMapSettings(namespace="holmes")) as scenario:
        await scenario.steps[0].change()
        (tmp_path / ".kube").mkdir()
        (tmp_path / ".kube" / "config").write_text(kubeconfig(sandbox))
        yield scenario


def kubeconfig(sandbox: Sandbox) -> str:
    config = {
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": sandbox.url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "me"}}],
    }
    return yaml.safe_dump(config)


@asynccontextmanager
async def running(sandbox: Sandbox, home: Path) -> AsyncIterator[None]:
    """The service at work in the cluster of the demo, behind a Service as the documentation has it."""
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text(kubeconfig(sandbox))
    async with Scenario(sandbox) as scenario:
        await scenario.steps[0].change()
        process = await start("dynamic-toolset run", home)
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                while b'"serving"' not in (line := await process.stderr.readline()):
                    assert line, "it has ended"
            port = URL(json.loads(line)["api"]).port
            drained = asyncio.create_task(process.stderr.read())
            ports = [{"name": "http", "port": 8080, "targetPort": port}]
            metadata = {"namespace": TARGET.namespace, "name": "dynamic-toolset"}
            await sandbox.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})
            yield
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        await drained
        assert await process.wait() == 0


async def start(line: str, home: Path) -> asyncio.subprocess.Process:
    """Start a command as it is written, with ``~`` for ``home``."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "DYNAMIC_TOOLSET"))}
    arguments = [word.replace("~", str(home)) for word in line.split()[1:]]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dynamic_toolset", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environ, **ENVIRONMENT, "HOME": str(home)},
    )


async def said(line: str, home: Path) -> str:
    ended = await outcome(line, home)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


async def outcome(line: str, home: Path) -> Ended:
    process = await start(line, home)
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def test_discover_is_as_shown(scenario: Scenario, tmp_path: Path) -> None:
    real = await said("dynamic-toolset discover", tmp_path)
    assert shows(SHOWN["dynamic-toolset discover"], real), real


async def test_explain_is_as_shown(scenario: Scenario, tmp_path: Path) -> None:
    real = await said("dynamic-toolset explain monitoring/grafana", tmp_path)
    assert shows(SHOWN["dynamic-toolset explain monitoring/grafana"], real), real


async def test_run_as_shown(scenario: Scenario, tmp_path: Path) -> None:
    process = await start(RUN, tmp_path)
    try:
        async with asyncio.timeout(60):
            while not await scenario.reached(scenario.steps[0]):
                assert process.returncode is None
                await asyncio.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def test_a_command_for_the_running_service_is_as_shown(tmp_path: Path) -> None:
    shown = {line: output for line, output in FOR_THE_SERVICE.items() if " get " in line or " refresh" in line}
    assert len(shown) >= 5
    async with Sandbox() as sandbox, running(sandbox, tmp_path):
        async with asyncio.timeout(60):
            while "unknown" in await said("dynamic-toolset get services", tmp_path) or not await published(sandbox):
                await asyncio.sleep(0.1)
        for line, output in shown.items():
            real = await said(line, tmp_path)
            assert shows(output, real), real


async def published(sandbox: Sandbox) -> bool:
    found = await sandbox.get("ConfigMap", *TARGET)
    return "prometheus/metrics" in str((found or {}).get("data"))


async def test_diff_is_as_shown(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        await sandbox.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TARGET.namespace}})
        metadata = {"namespace": TARGET.namespace, "name": TARGET.name}
        there = {"kind": "ConfigMap", "metadata": metadata, "data": {"custom_toolset.yaml": FOREIGN}}
        await sandbox.put(there, manager="kubectl")
        async with running(sandbox, tmp_path), asyncio.timeout(60):
            while "prometheus/metrics" not in (ended := await outcome("dynamic-toolset diff", tmp_path)).out:
                await asyncio.sleep(0.1)
            assert ended.status == 1
            assert shows(FOR_THE_SERVICE["dynamic-toolset diff"], ended.out), ended.out
            assert ended.err.startswith(
                "ConfigMapForeign: ConfigMap kubernaut-system/kubernaut-toolset-config was there "
            )
