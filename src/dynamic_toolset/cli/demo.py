"""``dynamic-toolset demo``: the real service at work, with a Kubernetes API and sample backends in this process."""

import asyncio
import contextlib
import sys
import time

from dynamic_toolset.cli.logs import configure  # isort: skip - the first to import structlog, see there

from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.configuration.sources import Fixed
from dynamic_toolset.controller.observer import Nobody, Several
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.model import Document, Outcome, Pass, Report, ServiceKey
from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.scenario import SAMPLES, Scenario, Step
from dynamic_toolset.server.ports import Ports
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.settings import HealthCheckSettings, Policy, ServerSettings, Settings

SETTINGS = Settings(
    # Everything listens on loopback here, and the story is to be told in seconds; if the machine stands still for one
    # of them, that is not to change it.
    policy=Policy(allowed_ranges=("127.0.0.0/8",)),
    health_check=HealthCheckSettings(timeout="2s", interval="1s", failure_threshold=1),
    server=ServerSettings(auth="none", port=0, metrics_port=0, rate_limit=0),
)

STEP_DEADLINE = 20.0
PAUSE = 1.5
"""Seconds to read what happened. It is also the quiet time after which the service looks at a change at once."""

_ABOUT = {ServiceKey.of(sample.key): sample.about for sample in SAMPLES}


def run(*, keep: bool) -> None:
    """Tell the story, and show the ConfigMap at the end. Exit status 1 if a step does not get where it should."""
    configure("console", "warning")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_demo(keep=keep))


async def _demo(*, keep: bool) -> None:
    async with Sandbox() as sandbox, Scenario(sandbox) as scenario, Client(static(sandbox.url)) as client:
        print(f"A Kubernetes API listens at {sandbox.url}.")
        first, *later = scenario.steps
        screen = Screen()
        screen.begin(f"1. {first.title}; the service starts")
        await first.change()
        telemetry = Telemetry()
        supervisor = Supervisor(client, SETTINGS, load_catalog(), observer=Several(screen, telemetry))
        service = asyncio.create_task(supervisor.run(), name="service")
        try:
            await _until_reached(scenario, first, service)
            for number, step in enumerate(later, 2):
                await asyncio.sleep(PAUSE)
                screen.begin(f"{number}. {step.title}")
                await step.change()
                await _until_reached(scenario, step, service)
            print("\nThe ConfigMap kubernaut-system/kubernaut-toolset-config now holds:")
            for key, text in sorted((await scenario.published()).items()):
                print(f"\n--- {key}\n{text.rstrip()}")
            if keep:
                path = "api/v1/namespaces/kubernaut-system/configmaps/kubernaut-toolset-config"
                ports = Ports(SETTINGS.server)
                print("\nStill running. Look at it, or change something, and press Ctrl-C to end:")
                print(f"  {ports.api.url}/ is the page, {ports.metrics.url}/metrics what Prometheus reads")
                print(f"  {sandbox.url}/{path}")
                print(f"  kubectl --server {sandbox.url} get services -A", flush=True)
                await asyncio.gather(service, _serve(client, supervisor, telemetry, ports))
        finally:
            service.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await service


async def _serve(client: Client, supervisor: Supervisor, telemetry: Telemetry, ports: Ports) -> None:
    from dynamic_toolset.server.server import Server
    from dynamic_toolset.server.source import Source

    sources = Fixed(SETTINGS, load_catalog())
    configuration = Configuration(sources, sources.read(), supervisor)
    source = Source(supervisor, telemetry)
    await Server(client, SETTINGS.server, ports, source, telemetry, configuration).run()


async def _until_reached(scenario: Scenario, step: Step, service: asyncio.Task[None]) -> None:
    deadline = time.monotonic() + STEP_DEADLINE
    while not await scenario.reached(step):
        if service.done():
            service.result()
        if time.monotonic() > deadline:
            print(f"error: {step.title!r} was not published within {STEP_DEADLINE:.0f} s", file=sys.stderr)
            sys.exit(1)
        await asyncio.sleep(0.02)


class Screen(Nobody):
    """Prints what changed from one report to the next, with the seconds since the step began."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._lines: dict[ServiceKey, str] = {}
        self._documents: tuple[Document, ...] = ()
        self._began = time.monotonic()

    def begin(self, title: str) -> None:
        self._began = time.monotonic()
        print(f"\n{title}", flush=True)

    def passed(self, done: Pass) -> None:
        if done.report is not self._report:
            self._report = done.report
            self._show(done.report)

    def _show(self, report: Report) -> None:
        lines = _lines(report)
        after = f"{time.monotonic() - self._began:6.2f} s"
        for key in sorted(lines.keys() | self._lines.keys()):
            if lines.get(key) != self._lines.get(key):
                print(f"  {after}  {lines.get(key, f'-  {key}: deleted')}", flush=True)
        for problem in report.problems:
            print(f"  {after}  !  {problem.message}", flush=True)
        changed = [document.key for document in report.documents if document not in self._documents]
        if changed and report.published:
            print(f"  {after}  =  published: {', '.join(changed)}", flush=True)
        self._lines, self._documents = lines, report.documents


def _lines(report: Report) -> dict[ServiceKey, str]:
    """Say of each Service whether it is in, and why."""
    lines = {}
    for key, decision in report.decisions.items():
        if decision.outcome is not Outcome.CANDIDATE:
            lines[key] = f"-  {key} ({_ABOUT.get(key, 'a Service')}): {decision.outcome.value}, {decision.reason}"
    for one in report.discovered:
        candidate = one.candidate
        mark = "+" if one.listed else "-"
        still = " (still listed, until the others have been asked)" if one.listed and one.health.failures else ""
        lines[candidate.key] = (
            f"{mark}  {candidate.key}: {candidate.title}, {one.health.verdict.value}, {one.health.reason}{still}"
        )
    return lines
