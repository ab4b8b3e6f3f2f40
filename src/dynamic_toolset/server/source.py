"""What the API shows: the last report, read once for all who ask until there is another one."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import msgspec

from dynamic_toolset import __version__
from dynamic_toolset.controller.statistics import Condition
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.model import Report, ServiceKey
from dynamic_toolset.server import answers, views
from dynamic_toolset.server.conditional import entity_tag
from dynamic_toolset.server.problems import Refusal
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.server.views import Documents, Query, Services
from dynamic_toolset.settings import ConfigMapSettings

T = TypeVar("T")

MEMORY = 64
"""Queries, and pages of them, that are remembered of one report."""

_NOTHING = Report({}, (), (), (), published=False)

encoder = msgspec.json.Encoder()


class Snapshot:
    """A report as the API shows it, and where it is published: each part is made when it is first asked for."""

    def __init__(self, report: Report, target: ConfigMapSettings, before: "Snapshot | None" = None) -> None:
        self.report = report
        self.target = target
        self._before: Services | None = before.services if before is not None and "services" in vars(before) else None
        self._found: OrderedDict[Query, tuple[answers.ServiceItem, ...]] = OrderedDict()
        self._pages: OrderedDict[tuple[Query, ServiceKey | None, int], bytes] = OrderedDict()

    @cached_property
    def services(self) -> Services:
        """Every Service."""
        services, self._before = Services(self.report, self._before), None
        return services

    @cached_property
    def documents(self) -> Documents:
        """What the documents say, read back."""
        return Documents(self.report)

    @cached_property
    def etag(self) -> str:
        """What tells this state of the toolset from another."""
        return entity_tag(self.toolset_key)

    @cached_property
    def toolset_key(self) -> bytes:
        """Everything that makes up the answer on the toolset."""
        report = self.report
        parts = (self.target, report.documents, report.published, report.overrides, report.effects, report.problems)
        return encoder.encode(parts)

    @cached_property
    def toolset_body(self) -> bytes:
        """The answer on the toolset, encoded."""
        return encoder.encode(views.toolset(self.report, self.target))

    def page(self, query: Query, after: ServiceKey | None, limit: int) -> bytes:
        """Return a page of Services, encoded."""
        return _remembered(
            self._pages,
            (query, after, limit),
            lambda: encoder.encode(views.page(self._matching(query), after, limit)),
        )

    def _matching(self, query: Query) -> tuple[answers.ServiceItem, ...]:
        items = self.services.items
        if query == Query():
            return items
        return _remembered(self._found, query, lambda: tuple(item for item in items if query.matches(item)))


K = TypeVar("K")


def _remembered(memory: "OrderedDict[K, T]", key: K, make: Callable[[], T]) -> T:
    if key in memory:
        memory.move_to_end(key)
        return memory[key]
    value = memory[key] = make()
    if len(memory) > MEMORY:
        memory.popitem(last=False)
    return value


class Source:
    """Everything that is answered from. ``is_ending``: the service has been told to end, and is still there."""

    def __init__(self, supervisor: Supervisor, telemetry: Telemetry) -> None:
        self.supervisor = supervisor
        self.history = telemetry.history
        self.started_at = time.time()
        self.is_ending = False
        self._telemetry = telemetry
        self._snapshot = Snapshot(_NOTHING, supervisor.settings.config_map)
        self._compared: tuple[object, bytes] | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The last report."""
        report, target = self.supervisor.controller.report or _NOTHING, self.supervisor.settings.config_map
        if self._snapshot.report is not report or self._snapshot.target != target:
            self._snapshot = Snapshot(report, target, self._snapshot)
        return self._snapshot

    async def give_way(self) -> None:
        """Wait, for a moment at most, while a change is on its way to its publication."""
        await self.supervisor.controller.give_way()

    def readiness(self) -> tuple[Condition, ...]:
        """Return what must hold to be ready."""
        ending = Condition("not ending", not self.is_ending, "it has been told to end" if self.is_ending else "")
        return (*self.supervisor.controller.readiness(), ending)

    def detail(self, key: ServiceKey) -> answers.ServiceDetail | None:
        """Return the whole decision about a Service; None if there is none of this name."""
        found = self.snapshot.services.get(key)
        if found is None:
            return None
        return views.detail(*found, self.supervisor.controller.checks(key), self.snapshot.documents)

    async def diff(self) -> bytes:
        """Return what a write would change now, encoded.

        Comparing long texts keeps a processor busy, so it is done in a thread, and once for each state. Raises Refusal
        while nothing has been decided.
        """
        report, present = self.snapshot.report, self.supervisor.controller.present()
        now, settings = self.supervisor.statistics(), self.supervisor.settings
        if not now.passes:
            raise Refusal(503, "nothing has been decided yet", headers={"Retry-After": "1"})
        withheld = views.withheld(
            report, settings, leads=now.leads, holder=now.holder, unsettled=self.supervisor.unsettled
        )
        state = (report.documents, present, settings.config_map, withheld)
        if self._compared is None or self._compared[0] != state:
            found = await asyncio.to_thread(views.diff, report, present, settings.config_map, withheld)
            self._compared = state, encoder.encode(found)
        return self._compared[1]

    def statistics(self) -> answers.StatisticsAnswer:
        """Return how the service is, in figures."""
        now, last = self.supervisor.statistics(), self._telemetry.last
        return answers.StatisticsAnswer(
            version=__version__,
            started_at=views.time(self.started_at),
            leads=now.leads,
            holder=now.holder,
            ready=all(one.holds for one in self.readiness()),
            services=views.counts(self.snapshot.report),
            passes=answers.PassCounts(
                now.passes,
                views.time(last.at) if last else None,
                last.outcome if last else None,
                round(last.seconds, 4) if last else None,
            ),
            full_looks=views.full_looks(now.full_looks),
            checks=msgspec.convert(now.checks, answers.CheckCounts, from_attributes=True),
            watches={
                name: msgspec.convert(one, answers.WatchCounts, from_attributes=True)
                for name, one in now.watches.items()
            },
            publications=msgspec.convert(now.publications, answers.PublicationCounts, from_attributes=True),
            problems=views.problems(self.snapshot.report),
        )
