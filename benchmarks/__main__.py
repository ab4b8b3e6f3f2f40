"""``make bench``: what the program costs, beside the least that anything with the same outcome would cost.

On a real cluster with 10,000 Services, 30 of them backends. One JSON line for each figure on standard output:
``{"name", "value", "unit", "floor"}``. The floor is the same work, done by ``bare.py`` in the same run. Figures are
medians; the machine is shared, so compare ``value`` with ``floor``, not with another day.
"""

import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from tests.cluster import cache
from tests.cluster.cluster import Cluster
from tests.cluster.process import Process
from tests.e2e.program import SERVICE_ACCOUNT, grant

from benchmarks import dataset, pod

CONFIG_MAP = "kubernaut-toolset-config"
COLD_STARTS = 7
CHANGES = 25
QUIET = 1.0
"""Seconds between two changes: the program is at rest by then, as it is almost always."""

DEADLINE = 30.0

PROGRAM = [
    "-m",
    "dynamic_toolset",
    "run",
    f"--set=configMap.namespace={dataset.NAMESPACE}",
    f"--set=policy.allowedRanges={dataset.SERVICE_RANGE}",
    "--set=policy.maxPerNamespace=100",
]
BARE = ["-m", "benchmarks.bare"]

Data = dict[str, str]


class Bench:
    """One cluster, one watch on the ConfigMap, and the processes that are measured, one after the other."""

    def __init__(self, cluster: Cluster, api: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._api = api
        self._token = cluster.token(dataset.NAMESPACE, SERVICE_ACCOUNT)
        self._text = ""
        self._changed = asyncio.Condition()

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

    def start(self, command: list[str]) -> Process:
        return pod.start(self._cluster, self._token, dataset.NAMESPACE, command)

    async def cold_start(self, command: list[str]) -> tuple[float, float]:
        """Return the seconds from the start of a process to its ConfigMap, and its memory three seconds later."""
        await self.delete(f"/api/v1/namespaces/{dataset.NAMESPACE}/configmaps/{CONFIG_MAP}")
        await self.until(lambda text: not text)
        began = time.perf_counter()
        process = self.start(command)
        try:
            elapsed = await self.until(lambda text: text.count(":9090") >= dataset.BACKENDS) - began
            await asyncio.sleep(3)
            return elapsed, process.memory
        finally:
            process.stop()

    async def changes(self, command: list[str]) -> list[float]:
        """Return the seconds from each Service's creation to its line in the ConfigMap."""
        process = self.start(command)
        path = f"/api/v1/namespaces/{dataset.NAMESPACE}/services"
        names = [dataset.extra_name(number) for number in range(CHANGES)]
        elapsed = []
        try:
            await self.until(lambda text: text.count(":9090") >= dataset.BACKENDS)
            for name, address in zip(names, dataset.EXTRA_ADDRESSES, strict=False):
                await asyncio.sleep(QUIET)
                body = dataset.backend(name, dataset.NAMESPACE, address)
                began = time.perf_counter()
                async with self._api.post(path, json=body) as answer:
                    answer.raise_for_status()
                elapsed.append(await self.until(lambda text, name=name: name in text) - began)  # type: ignore[misc]
        finally:
            process.stop()
            for name in names:
                await self.delete(f"{path}/{name}")
        return elapsed

    async def delete(self, path: str) -> None:
        async with self._api.delete(path) as answer:
            await answer.read()


async def measure(cluster: Cluster) -> None:
    tls = ssl.create_default_context(cafile=str(cluster.ca_file))
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers, connector=aiohttp.TCPConnector(ssl=tls)) as api:
        bench = Bench(cluster, api)
        async with bench.watching():
            ours, floor = [], []
            once = [*BARE, "once", dataset.NAMESPACE, CONFIG_MAP]
            for number in range(COLD_STARTS + 1):
                cache.progress(f"cold start {number + 1} of {COLD_STARTS + 1}")
                ours.append(await bench.cold_start(PROGRAM))
                floor.append(await bench.cold_start(once))
            # The first of each pair found cold file caches.
            figure("cold_start", "s", [run[0] for run in ours[1:]], [run[0] for run in floor[1:]])
            figure("resident_memory", "MB", [run[1] for run in ours[1:]], [run[1] for run in floor[1:]])
            cache.progress(f"{CHANGES} changes, one at a time")
            changes = await bench.changes(PROGRAM)
            bare = await bench.changes([*BARE, "watch", dataset.NAMESPACE, CONFIG_MAP])
            figure("change_to_publication", "s", changes, bare)


def figure(name: str, unit: str, values: list[float], floor: list[float]) -> None:
    row: dict[str, Any] = {
        "name": name,
        "value": round(statistics.median(values), 4),
        "unit": unit,
        "floor": round(statistics.median(floor), 4),
    }
    print(json.dumps(row), flush=True)
    spread = f"{min(values):.4g} to {max(values):.4g}, floor {min(floor):.4g} to {max(floor):.4g}"
    cache.progress(f"{name}: {row['value'] / row['floor']:.2f} times the floor ({spread} {unit})")


def main() -> None:
    with Cluster(data=dataset.snapshot()) as cluster:
        grant(cluster, dataset.NAMESPACE, CONFIG_MAP)
        listening = Process(
            [sys.executable, "-m", "benchmarks.backends", *dataset.BACKEND_ADDRESSES, *dataset.EXTRA_ADDRESSES],
            cluster.folder / "backends.log",
        )
        listening.wait_until(lambda: "listening" in listening.output, within=10)
        try:
            asyncio.run(measure(cluster))
        finally:
            listening.stop()


if __name__ == "__main__":
    main()
