"""Shows in the ToolsetConfig what has become of it, as long as this instance leads."""

import asyncio
import time
from collections.abc import Iterator

from dynamic_toolset.configuration.configuration import REASONS, Configuration
from dynamic_toolset.configuration.toolset_configs import ToolsetConfigs
from dynamic_toolset.controller import logbook, rendering
from dynamic_toolset.controller.observer import Nobody
from dynamic_toolset.controller.pacer import Alarm
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.kube.client import Client
from dynamic_toolset.model import Pass, Problem, Report
from dynamic_toolset.publication import status
from dynamic_toolset.publication.status import Facts
from dynamic_toolset.publication.status_writer import StatusWriter, Wanted
from dynamic_toolset.toolset import holmesgpt
from dynamic_toolset.toolset_config import MAX_SERVICES, ToolsetConfig, written

UNCLAIMED_FOR = 30.0
"""Seconds for which a ToolsetConfig must have been without a status until we say that nobody uses it."""


class ResourceStatus(Nobody):
    """Keeps the status of our ToolsetConfig, and says of others in its namespace that nobody uses them.

    An observer: each pass may be a reason to write.

    **Others.** Another ToolsetConfig of the namespace is either that of another instance, which says so in its status
    within seconds, or nobody's. So only one without any status is called unused, after a while, and never one of which
    an instance has spoken: no two instances fight over a status. One that takes it later puts its own status in the
    place of ours, as it applies with the same field manager.
    """

    def __init__(self, client: Client, supervisor: Supervisor, configuration: Configuration) -> None:
        self._supervisor = supervisor
        self._configuration = configuration
        self._writer = StatusWriter(client, self._wanted)
        self._compared = ("", "")
        self._difference = ""
        self._seen: dict[str, float] = {}
        self._alarm = Alarm(self._writer.notify)
        configuration.on_decision = self._writer.notify
        notices = supervisor.notices
        supervisor.notices = lambda: (*notices(), *self.problems())

    def passed(self, done: Pass) -> None:  # noqa: ARG002 - what counts is how it is when it is written
        self._writer.notify()

    def problems(self) -> Iterator[Problem]:
        """Yield what is in the way of writing."""
        if self._writer.failure is not None:
            yield Problem("StatusNotWritten", f"the status of the ToolsetConfig is not written: {self._writer.failure}")

    async def run(self) -> None:
        """Write whenever there is something to say, for ever."""
        await self._writer.run()

    def _wanted(self) -> Iterator[Wanted]:
        follower, supervisor = self._configuration.toolset_configs, self._supervisor
        if follower is None:
            return
        if not supervisor.controller.leads:
            self._writer.forget()
            return
        own, report = self._configuration.observed, supervisor.controller.report
        if own is not None and report is not None and supervisor.is_settled:
            stored = written(follower.own or own)
            before = self._writer.last(own.metadata.uid) or stored
            said = status.status(self._facts(own, report), before, time.time())
            yield Wanted(own.metadata.key, own.metadata.uid, said, stored)
        yield from self._unused(follower)

    def _facts(self, own: ToolsetConfig, report: Report) -> Facts:
        controller = self._supervisor.controller
        mine = tuple(self._configuration.problems())
        others = (one for one in report.problems if one.reason not in REASONS and one not in mine)
        checks = {
            one.candidate.key: controller.checks(one.candidate.key)[:1] for one in report.discovered[:MAX_SERVICES]
        }
        return Facts(
            report=report,
            settings=self._configuration.setup.settings,
            problems=(*mine, *others),
            looks=self._supervisor.statistics().full_looks,
            checked={key: check.at for key, found in checks.items() for check in found},
            generation=own.metadata.generation,
            diff=self._diff(report) if self._configuration.setup.settings.dry_run else "",
        )

    def _diff(self, report: Report) -> str:
        """Return how HolmesGPT's file would change. It is compared once for each state: that takes a while."""
        was = rendering.data_of(self._supervisor.controller.present()).get(holmesgpt.KEY, "")
        would = next((one.text for one in report.documents if one.key == holmesgpt.KEY), "")
        if (was, would) != self._compared:
            self._compared, self._difference = (was, would), logbook.diff(was, would)
        return self._difference

    def _unused(self, follower: ToolsetConfigs) -> Iterator[Wanted]:
        now, soonest = asyncio.get_running_loop().time(), None
        others = [config for key, config in follower.all.items() if key != follower.key]
        self._seen = {config.metadata.uid: self._seen.get(config.metadata.uid, now) for config in others}
        for config in others:
            known, meta = written(config), config.metadata
            ours = known.phase == status.IGNORED
            if not (ours or not config.status) or (ours and known.observed_generation >= meta.generation):
                continue
            wait = self._seen[meta.uid] + UNCLAIMED_FOR - now
            if wait > 0:
                soonest = min(wait, soonest or wait)
                continue
            said = status.ignored(meta.generation, follower.key.name, known, time.time())
            yield Wanted(meta.key, meta.uid, said, known, ours=False)
        self._alarm.set(soonest)
