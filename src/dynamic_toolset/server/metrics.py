"""What is counted as it happens, for the metrics: see ``exposition`` for what is read off only when somebody asks.

What is guaranteed:

- Counting costs a look-up and an addition. Nothing here has a clock or a task: a process at rest does no work for it.
- Whatever Services say and whoever calls, the number of series is bounded: a type that is in no catalog counts as
  ``custom``, a route and a method that we do not have as ``unknown`` and ``other``.

The counts are plain numbers, as all of it happens in the event loop. That keeps the library which knows the formats,
30 ms to load, out of the way of the first publication.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, get_args

from dynamic_toolset.model import Candidate, DiscoveredService, Health, Hold, Pass, Report, ServiceKey
from dynamic_toolset.server.exchange import STREAM

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: what is a matter of milliseconds, unless something is wrong."""

SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a Service's change to its publication. What is new waits for its check, what fails for three."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""The methods that are told apart; any other word that is sent as one is ``other``."""

UNKNOWN = "unknown"
"""The route of a path that we do not have, and of a request that was refused before its path was looked at."""

MAX_ROUTES = 64
"""Routes that are told apart. There are a dozen: the bound is there in case a path is ever taken for one."""

MAX_EXAMPLE = 118
"""Characters of a request id that may stand for its bucket: an exemplar's labels have 128 with their name."""


class Example(NamedTuple):
    """One of the values in a bucket, when it came (seconds since the epoch), and the id of its request."""

    request_id: str
    value: float
    at: float


class Histogram:
    """How many values there were up to each bound, one above them all, and their sum; and the last example of each."""

    __slots__ = ("bounds", "counts", "examples", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.examples: list[Example | None] = [None] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, request_id: str = "") -> None:
        """Count a value. The request id, if there is one, becomes the example of its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if request_id and len(request_id) <= MAX_EXAMPLE:
            self.examples[bucket] = Example(request_id, value, time.time())


class Metrics:
    """Everything that is counted. Keys are the values of labels, in the order in which ``exposition`` names them."""

    def __init__(self) -> None:
        self.report: Report | None = None
        """The last one."""
        self.types: set[str] = set()
        """The types of which there has been a candidate."""
        self.discovered: Counter[str] = Counter()
        self.reconciliations: Counter[str] = Counter(
            dict.fromkeys(("unchanged", "created", "updated", "withheld", "failed", *get_args(Hold)), 0)
        )
        self.passes = Histogram(QUICK)
        self.latencies = Histogram(SLOW)
        self.checks: Counter[tuple[str, str]] = Counter()
        self.probes: dict[tuple[str, str], Histogram] = {}
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.request_seconds: dict[tuple[str, str], Histogram] = {}
        self.limited = 0
        self.events: Counter[tuple[str, str]] = Counter()
        self._found: frozenset[tuple[ServiceKey, str]] = frozenset()
        self._routes: set[str] = {UNKNOWN}

    def passed(self, done: Pass) -> None:
        """Take in what a pass has come to."""
        if done.outcome != "standby":  # there was nothing to try: another instance publishes
            self.reconciliations[done.outcome] += 1
        if done.seconds:  # none: there was no pass, only word of why there cannot be one yet
            self.passes.add(done.seconds)
        for latency in done.latencies:
            self.latencies.add(latency)
        if done.report is not self.report:
            self.report = done.report
            self._discover(done.report.discovered)

    def checked(self, candidate: Candidate, health: Health) -> None:
        """Take in the outcome of a check."""
        key = (candidate.catalog_type, status(health))
        self.checks[key] += 1
        if not health.seconds:  # it was known without asking
            return
        if key not in self.probes:
            self.probes[key] = Histogram(QUICK)
        self.probes[key].add(health.seconds)

    def recorded(self, reason: str, outcome: str) -> None:
        """Take in what became of an Event that was to be recorded. Both are words of this program."""
        self.events[reason, outcome] += 1

    def requested(self, route: str, method: str, status: int, seconds: float, request_id: str) -> None:
        """Take in that a request was answered; ``status`` is 0 for one that was given up without an answer."""
        if route not in self._routes:
            if len(self._routes) < MAX_ROUTES:
                self._routes.add(route)
            else:
                route = UNKNOWN
        if method not in METHODS:
            method = "other"
        self.requests[route, method, str(status)] += 1
        if status == 429:
            self.limited += 1
        if route == STREAM:
            return
        key = (route, method)
        if key not in self.request_seconds:
            self.request_seconds[key] = Histogram(QUICK)
        self.request_seconds[key].add(seconds, request_id)

    def _discover(self, discovered: Sequence[DiscoveredService]) -> None:
        found = frozenset((one.candidate.key, one.candidate.catalog_type) for one in discovered)
        for _, kind in found - self._found:
            self.discovered[kind] += 1
            self.types.add(kind)
        self._found = found


def status(health: Health) -> str:
    """Return the outcome of a check in one word."""
    if health.refused:
        return "refused"
    return "needs_credentials" if health.needs_credentials else health.verdict.value
