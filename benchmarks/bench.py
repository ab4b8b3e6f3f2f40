"""What all measurements share: one cluster, one watch on the ConfigMap, one process at a time that is measured."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
from tests.cluster.cluster import Cluster
from tests.cluster.process import Process
from tests.e2e.program import SERVICE_ACCOUNT

from benchmarks import dataset, pod

CONFIG_MAP = "kubernaut-toolset-config"
QUIET = 1.0
"""Seconds between two changes: the program is at rest by then, as it is almost always."""

BURST_IS_OVER = 12.0
"""Seconds after many changes at once (each of ours ends with all that it made being deleted) in which nothing else may
come, or the next change is taken for a part of them, and may wait for 5 s: twice the longest wait between two looks."""

DEADLINE = 30.0

PROGRAM = [
    "-m",
    "dynamic_toolset",
    "run",
    f"--set=configMap.namespace={dataset.NAMESPACE}",
    f"--set=policy.allowedRanges={dataset.SERVICE_RANGE}",
    "--set=policy.maxPerNamespace=100",
    "--set=server.auth=none",
    "--set=server.port=0",
    "--set=server.metricsPort=0",
    "--set=server.rateLimit=0",
    "--set=server.shutdownDelay=0s",
]
BARE = ["-m", "benchmarks.bare"]

Data = dict[str, str]


class Change(NamedTuple):
    """A Service that was created: when, on the steady clock, and how long until its line was in the ConfigMap."""

    name: str
    began: float
    seconds: float


class Bench:
    """One cluster, one watch on the ConfigMap, and the processes that are measured, one after the other."""

    def __init__(self, cluster: Cluster, api: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._api = api
        self._token = cluster.token(dataset.NAMESPACE, SERVICE_ACCOUNT)
        self._text = ""
        self._changed = asyncio.Condition()

    @property
    def folder(self) -> Path:
        """Where files of a run can be put."""
        return self._cluster.folder

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keep ``_text`` equal to the published document inside of the block."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        path = f"/api/v1/namespaces/{dataset.NAMESPACE}/configmaps"
        query = {"watch": "1", "fieldSelector": f"metadata.name={CONFIG_MAP}"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._api.get(path, params=query, timeout=timeout) as stream:
            async for line in stream.content:
                event = json.loads(line)
                data: Data = event["object"].get("data") or {}
                async with self._changed:
                    self._text = "" if event["type"] == "DELETED" else data.get("custom_toolset.yaml", "")
                    self._changed.notify_all()

    async def until(self, condition: Callable[[str], bool]) -> float:
        """Wait until the published document is so, and return the time at which it was."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: condition(self._text))
            return time.perf_counter()

    async def all_published(self) -> float:
        """Wait until all backends are in the document."""
        return await self.until(lambda text: text.count(":9090") >= dataset.BACKENDS)

    def start(self, command: list[str]) -> Process:
        return pod.start(self._cluster, self._token, dataset.NAMESPACE, command)

    async def cold_start(self, command: list[str]) -> tuple[float, float]:
        """Return the seconds from the start of a process to its ConfigMap, and its memory three seconds later."""
        await self.delete(f"/api/v1/namespaces/{dataset.NAMESPACE}/configmaps/{CONFIG_MAP}")
        await self.until(lambda text: not text)
        began = time.perf_counter()
        process = self.start(command)
        try:
            elapsed = await self.all_published() - began
            await asyncio.sleep(3)
            return elapsed, process.memory
        finally:
            process.stop()

    @asynccontextmanager
    async def running(self, command: list[str]) -> AsyncIterator[Process]:
        """Let a process run inside of the block, from when it has published."""
        process = self.start(command)
        try:
            await self.all_published()
            yield process
        finally:
            process.stop()

    async def changes(self, numbers: Iterable[int]) -> list[Change]:
        """Create one extra Service after the other, delete them when the last is published, and let that settle."""
        path = f"/api/v1/namespaces/{dataset.NAMESPACE}/services"
        created: list[str] = []
        changes = []
        try:
            for number in numbers:
                await asyncio.sleep(QUIET)
                name = dataset.extra_name(number)
                body = dataset.backend(name, dataset.NAMESPACE, dataset.EXTRA_ADDRESSES[number])
                began = time.perf_counter()
                async with self._api.post(path, json=body) as answer:
                    answer.raise_for_status()
                created.append(name)
                done = await self.until(lambda text, name=name: name in text)  # type: ignore[misc]
                changes.append(Change(name, began, done - began))
        finally:
            for name in created:
                await self.delete(f"{path}/{name}")
        await asyncio.sleep(BURST_IS_OVER)
        return changes

    async def delete(self, path: str) -> None:
        async with self._api.delete(path) as answer:
            await answer.read()
