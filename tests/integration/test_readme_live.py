"""The commands of the README that need a cluster, against the sandbox, with the cluster of the demo."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.scenario import Scenario
from dynamic_toolset.settings import ConfigMapSettings
from tests.documentation import README, commands, shows

SHOWN = {command.line: command.output or "" for command in commands(README)}
# Where nothing but loopback is there to be dialled.
ENVIRONMENT = {
    "DYNAMIC_TOOLSET_POLICY_ALLOWED_RANGES": "127.0.0.0/8",
    # Somebody may use the ports that it takes by default.
    "DYNAMIC_TOOLSET_SERVER_PORT": "0",
    "DYNAMIC_TOOLSET_SERVER_METRICS_PORT": "0",
    "DYNAMIC_TOOLSET_SERVER_SHUTDOWN_DELAY": "0s",
}
RUN = next(line for line in SHOWN if line.startswith("dynamic-toolset run "))


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    """The cluster of the demo as its story begins, and a home with a kubeconfig that leads to it."""
    async with Sandbox() as sandbox, Scenario(sandbox, ConfigMapSettings(namespace="holmes")) as scenario:
        await scenario.steps[0].change()
        (tmp_path / ".kube").mkdir()
        config = {
            "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": {"server": sandbox.url}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "me"}}],
        }
        (tmp_path / ".kube" / "config").write_text(yaml.safe_dump(config))
        yield scenario


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
    process = await start(line, home)
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, err) == (0, b"")
    return out.decode()


async def test_discover_is_as_shown(scenario: Scenario, tmp_path: Path) -> None:
    real = await said("dynamic-toolset discover", tmp_path)
    assert shows(SHOWN["dynamic-toolset discover"], real), real


async def test_explain_is_as_shown(scenario: Scenario, tmp_path: Path) -> None:
    real = await said("dynamic-toolset explain monitoring/grafana", tmp_path)
    assert shows(SHOWN["dynamic-toolset explain monitoring/grafana"], real), real


async def test_run_as_shown(scenario: Scenario, tmp_path: Path) -> None:
    process = await start(RUN, tmp_path)
    try:
        async with asyncio.timeout(30):
            while not await scenario.reached(scenario.steps[0]):
                assert process.returncode is None
                await asyncio.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
