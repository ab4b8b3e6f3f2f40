"""What a pass has come to, told to the log and to whoever observes; what has not changed is told to nobody."""

import asyncio
import time
from collections.abc import Collection
from typing import get_args

from dynamic_toolset import tracing
from dynamic_toolset.controller import latency, logbook
from dynamic_toolset.controller.latency import Latency
from dynamic_toolset.controller.observer import Observer
from dynamic_toolset.model import Change, Hold, Pass, PublishOutcome, Report, ServiceKey, Verdict
from dynamic_toolset.settings import ConfigMapSettings
from dynamic_toolset.toolset import generic


class Reporting:
    """Keeps the last ``report``, and says of each new one how it differs from that."""

    def __init__(self, observer: Observer, target: ConfigMapSettings) -> None:
        self.report: Report | None = None
        self._observer = observer
        self._target = target
        self._events: frozenset[ServiceKey] = frozenset()
        self._latency = Latency()

    def arrived(self, services: Collection[ServiceKey], at: float) -> None:
        """Take note that changes of these have arrived, the first of them at this time of the loop."""
        self._latency.arrived(services, at)
        self._events |= frozenset(services)

    @property
    def waits(self) -> bool:
        """Whether a change that has arrived may still come to be seen."""
        return self._latency.waits

    def tell(
        self,
        report: Report,
        outcome: PublishOutcome,
        *,
        began: float | None = None,
        before: generic.Published = frozenset(),
        after: generic.Published = frozenset(),
        is_first: bool,
    ) -> None:
        """Tell of a pass, which ``began`` at this time of the loop: None if it only says why there cannot be one.

        ``before`` and ``after`` are what was published when it began and when it ended.

        In the one that ``is_first`` of all everything is new, and nothing of that is somebody's doing.
        """
        now = asyncio.get_running_loop().time()
        known = self.report
        changes: tuple[Change, ...] = ()
        if known is not None and report == known:
            report = known
        else:
            changes = logbook.changes(known, report, self._events, is_first=is_first)
            self.report = report
        if outcome in {"created", "updated"}:
            written = f"ConfigMap {self._target.namespace}/{self._target.name} was {outcome}"
            changes = (*changes, logbook.publication(known, report, changes, written))
        logbook.write(changes)
        tracing.note(outcome=outcome, services=len(report.decisions), changes=len(changes))
        self._events = frozenset()
        self._observer.passed(
            Pass(
                report,
                time.time(),
                0.0 if began is None else now - began,
                outcome,
                changes,
                self._latencies(report, outcome, now),
                before,
                after,
            )
        )

    def _latencies(self, report: Report, outcome: PublishOutcome, now: float) -> tuple[float, ...]:
        seen = latency.shown(report.discovered)
        if not report.leads or outcome in get_args(Hold):
            self._latency.forget(seen)
            return ()
        waiting = {one.candidate.key for one in report.discovered if one.health.verdict is Verdict.UNKNOWN}
        shows = outcome in {"created", "updated", "unchanged"}
        took = self._latency.settle(seen, waiting, published=shows, now=now)
        return () if outcome == "unchanged" else took
