"""What becomes of the service when many ask it: 1,000 requests a second, 200 open streams, and it still has its work.

The load comes from processes of their own (``load.py``, ``readers.py``), on the same two cores.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from tests.cluster import cache
from tests.cluster.process import Process

from benchmarks import dataset
from benchmarks.bench import BARE, CONFIG_MAP, PROGRAM, QUIET, Bench, Change
from benchmarks.figures import figure

RATE = 1000
SECONDS = 30
STREAMS = 200
CHANGES = 12
"""Changes before the load, and again after it."""

CHANGES_UNDER_LOAD = 16
"""Changes one after the other that are over before the load is."""

SERVICES = "/api/v1/services"
TOOLSET = "/api/v1/toolset"


class Outcome(NamedTuple):
    """What was measured of one process. ``load`` is what ``load.py`` prints, ``heard`` what ``readers.py`` does."""

    quiet: list[Change]
    loaded: list[Change]
    load: dict[str, Any]
    heard: dict[str, Any]
    memory: float

    @property
    def slowdown(self) -> float:
        """How many times as long a change takes under load."""
        return median(self.loaded) / median(self.quiet)

    @property
    def streams(self) -> int:
        """How many readers heard of every change."""
        return min((self.heard["heard"].get(one.name, {"readers": 0})["readers"] for one in self.loaded), default=0)

    @property
    def to_last_stream(self) -> list[float]:
        """Seconds from the creation of each Service until the last reader had heard of it."""
        heard = self.heard["heard"]
        return [heard[one.name]["last"] - one.began for one in self.loaded if one.name in heard]


def median(changes: list[Change]) -> float:
    return statistics.median(one.seconds for one in changes)


async def measure(bench: Bench) -> None:
    """Measure the program, then the floor with answers of the same size."""
    sizes: list[int] = []
    ours = await _measure(bench, "the program", PROGRAM, lambda url: _walk(url, sizes))
    bare = [*BARE, "serve", dataset.NAMESPACE, CONFIG_MAP, *map(str, sizes)]
    paths = json.loads((bench.folder / "paths.json").read_text())
    floor = await _measure(bench, "the floor", bare, lambda _: _just(paths))
    figure("api_p95", "s", [ours.load["p95"]], [floor.load["p95"]])
    figure("api_errors", "requests", [ours.load["errors"]], [floor.load["errors"]])
    figure("api_rate", "requests/s", [ours.load["rate"]], [floor.load["rate"]])
    figure("change_to_publication_under_load", "times without load", [ours.slowdown], [floor.slowdown])
    figure("memory_under_load", "MB", [ours.memory], [floor.memory])
    figure("event_streams", "streams", [ours.streams], [floor.streams])
    figure("change_to_last_stream", "s", ours.to_last_stream, floor.to_last_stream)


async def _measure(
    bench: Bench, what: str, command: list[str], find_paths: Callable[[str], Awaitable[list[str]]]
) -> Outcome:
    cache.progress(f"{what} without load, then {RATE:,} requests a second for {SECONDS} s and {STREAMS} streams")
    async with bench.running(command) as process:
        url = await _url(process)
        file = bench.folder / "paths.json"
        file.write_text(json.dumps(await find_paths(url)))
        quiet = await bench.changes(range(CHANGES))
        readers = _start("readers", bench.folder, url, STREAMS, SECONDS + 60)
        await _until(lambda: "open" in readers.output, 40)
        began, waited = time.perf_counter(), _waited(process)
        load = _start("load", bench.folder, url, file, RATE, SECONDS)
        try:
            await asyncio.sleep(QUIET)
            loaded = await bench.changes(range(CHANGES, CHANGES + CHANGES_UNDER_LOAD))
            await _until(lambda: load.exit_code is not None, SECONDS + 30)
        finally:
            load.stop()
            readers.stop()
        memory, waited = _most_memory(process), _waited(process) - waited
        quiet += await bench.changes(range(CHANGES + CHANGES_UNDER_LOAD, 2 * CHANGES + CHANGES_UNDER_LOAD))
    if began + SECONDS < loaded[-1].began:
        cache.progress("the load was over before the changes were: some of them were measured without")
    outcome = Outcome(quiet, loaded, json.loads(load.output), json.loads(readers.output.splitlines()[-1]), memory)
    cache.progress(f"{what}: {load.output.strip()}")
    cache.progress(f"{what}: for {waited:.1f} s it could have run, but others had the CPUs")
    cache.progress(f"{what}: a change took {median(quiet):.4f} s without load, {median(loaded):.4f} s under it")
    return outcome


def _start(module: str, folder: Path, *arguments: object) -> Process:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return Process(command, folder / f"{module}.log")


async def _until(condition: Callable[[], bool], within: float) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.05)


async def _url(process: Process) -> str:
    """Return where a process serves, once it says so."""
    await _until(lambda: '"serving"' in process.output, 10)
    line = next(line for line in process.output.splitlines() if '"serving"' in line)
    return str(json.loads(line)["api"])


async def _walk(url: str, sizes: list[int]) -> list[str]:
    """Return the paths of all pages of Services, with the toolset between any two; and how large the answers are."""
    paths, position, bodies = [], "", []
    async with aiohttp.ClientSession(url) as api:
        await _all_known(api)
        while True:
            path = f"{SERVICES}?limit=50" + (f"&continue={position}" if position else "")
            async with api.get(path) as answer:
                body = await answer.read()
            bodies.append(len(body))
            paths += [path, TOOLSET]
            position = json.loads(body)["continue"]
            if not position:
                break
        async with api.get(TOOLSET) as answer:
            sizes += [round(statistics.mean(bodies)), len(await answer.read())]
    cache.progress(f"{len(bodies)} pages of {sizes[0]:,} bytes, a toolset of {sizes[1]:,}")
    return paths


async def _all_known(api: aiohttp.ClientSession) -> None:
    """Wait for the first pass: what an earlier run has published was there before."""
    async with asyncio.timeout(10):
        while True:
            async with api.get(SERVICES) as answer:
                if (await answer.json())["total"] >= dataset.SERVICES:
                    return
            await asyncio.sleep(0.05)


async def _just(paths: list[str]) -> list[str]:
    return paths


def _most_memory(process: Process) -> float:
    """Return the most memory that a process ever held, in MB (10^6 bytes)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e6


def _waited(process: Process) -> float:
    """Return for how many seconds a process was ready to run and did not (kernel: scheduler/sched-stats)."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
