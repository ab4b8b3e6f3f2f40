"""The service as a process of its own, and what it writes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.waiting import PATIENCE

# What listens on loopback here may be dialled, and ports are those that are free.
SETTINGS = ("policy.allowedRanges=127.0.0.0/8", "server.port=0", "server.metricsPort=0", "server.auth=none")


@asynccontextmanager
async def running(
    server: str, folder: Path, *settings: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The service as a process of its own."""
    file = folder / "kubeconfig"
    content = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    file.write_text(yaml.safe_dump(content))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dynamic_toolset", "run", "--kubeconfig", str(file)),
        *(part for setting in (*SETTINGS, *settings) for part in ("--set", setting)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "100", **environment},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def events_until(process: asyncio.subprocess.Process, name: str) -> list[dict[str, Any]]:
    """Return what it says until there is an event of this name, with that."""
    assert process.stderr is not None
    events = []
    async with asyncio.timeout(2 * PATIENCE):  # it may have to start
        while line := await process.stderr.readline():
            events.append(json.loads(line))
            if events[-1]["event"] == name:
                return events
    raise AssertionError(events)


async def ended(process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
    """End it as a person at a terminal does, and return what it still says."""
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return [json.loads(line) for line in err.splitlines()]
