"""``make bench``: what the program costs, beside the least that anything with the same outcome would cost.

On a real cluster with 10,000 Services, 30 of them backends. One JSON line for each figure on standard output:
``{"name", "value", "unit", "floor"}``. The floor is the same work, done by ``bare.py`` in the same run. Figures are
medians; the machine is shared, so compare ``value`` with ``floor``, not with another day.

``python -m benchmarks [start] [change] [load]`` measures only these groups of figures.
"""

import asyncio
import ssl
import sys

import aiohttp
from tests.cluster import cache
from tests.cluster.cluster import Cluster
from tests.cluster.process import Process
from tests.e2e.program import grant

from benchmarks import dataset, under_load
from benchmarks.bench import BARE, CONFIG_MAP, PROGRAM, Bench
from benchmarks.figures import figure

COLD_STARTS = 7
CHANGES = 25


async def start(bench: Bench) -> None:
    """Measure the start, and what the process holds of memory then."""
    ours, floor = [], []
    once = [*BARE, "once", dataset.NAMESPACE, CONFIG_MAP]
    for number in range(COLD_STARTS + 1):
        cache.progress(f"cold start {number + 1} of {COLD_STARTS + 1}")
        ours.append(await bench.cold_start(PROGRAM))
        floor.append(await bench.cold_start(once))
    # The first of each pair found cold file caches.
    figure("cold_start", "s", [run[0] for run in ours[1:]], [run[0] for run in floor[1:]])
    figure("resident_memory", "MB", [run[1] for run in ours[1:]], [run[1] for run in floor[1:]])


async def change(bench: Bench) -> None:
    """Measure how long a change takes when there is nothing else to do."""
    cache.progress(f"{CHANGES} changes, one at a time")
    taken = []
    for command in (PROGRAM, [*BARE, "watch", dataset.NAMESPACE, CONFIG_MAP]):
        async with bench.running(command):
            taken.append([one.seconds for one in await bench.changes(range(CHANGES))])
    figure("change_to_publication", "s", *taken)


GROUPS = {"start": start, "change": change, "load": under_load.measure}


async def measure(cluster: Cluster, groups: list[str]) -> None:
    tls = ssl.create_default_context(cafile=str(cluster.ca_file))
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers, connector=aiohttp.TCPConnector(ssl=tls)) as api:
        bench = Bench(cluster, api)
        async with bench.watching():
            for group in groups:
                await GROUPS[group](bench)


def main(groups: list[str]) -> None:
    if unknown := set(groups) - GROUPS.keys():
        raise SystemExit(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    with Cluster(data=dataset.snapshot()) as cluster:
        grant(cluster, dataset.NAMESPACE, CONFIG_MAP)
        listening = Process(
            [sys.executable, "-m", "benchmarks.backends", *dataset.BACKEND_ADDRESSES, *dataset.EXTRA_ADDRESSES],
            cluster.folder / "backends.log",
        )
        listening.wait_until(lambda: "listening" in listening.output, within=10)
        try:
            asyncio.run(measure(cluster, groups or list(GROUPS)))
        finally:
            listening.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
