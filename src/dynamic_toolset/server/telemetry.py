"""Hears what the controller does, and hands it to who shows it: history, stream of events, metrics."""

import asyncio

from dynamic_toolset import __version__
from dynamic_toolset.model import Candidate, Health, Pass, Report
from dynamic_toolset.server.history import History
from dynamic_toolset.server.metrics import Metrics
from dynamic_toolset.server.stream import Stream


class Telemetry:
    """The observer of the controllers of one process, whichever is at work."""

    def __init__(self) -> None:
        self.history = History()
        self.stream = Stream(self.history, __version__)
        self.metrics = Metrics()
        self.last: Pass | None = None
        self.first_pass = asyncio.Event()
        self._report: Report | None = None

    def passed(self, done: Pass) -> None:
        """Take in what a pass has come to."""
        self.last = done
        self.first_pass.set()
        entries = self.history.add(done.changes, done.at)
        is_another = done.report is not self._report
        self._report = done.report
        self.metrics.passed(done)
        self.stream.tell(entries, done.report if is_another else None)

    def checked(self, candidate: Candidate, health: Health) -> None:
        """Take in the outcome of a check."""
        self.metrics.checked(candidate, health)
