"""Looks again when something changed, publishes when the outcome did.

Level-based (as controllers of Kubernetes are): an event only says *look again*. What to do follows from the whole
present state, so that a lost, doubled or late event costs nothing but time.
"""

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dynamic_toolset import tracing
from dynamic_toolset.controller import conditions, latency, logbook
from dynamic_toolset.controller.clusters import RECALLED, Clusters
from dynamic_toolset.controller.conditions import RELEASE
from dynamic_toolset.controller.latency import Latency
from dynamic_toolset.controller.leadership import Leadership
from dynamic_toolset.controller.namespaces import NamespaceLabels
from dynamic_toolset.controller.observer import Nobody, Observer
from dynamic_toolset.controller.pacer import Alarm, Pacer
from dynamic_toolset.controller.publishing import Publication, Publishing
from dynamic_toolset.controller.statistics import Condition, Loop, Publications, Statistics, Watch
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory, Judged
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.outage import Held, Outage, Removals
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.health.readiness import Readiness, dialled
from dynamic_toolset.kube.client import CONFIG_MAPS, SERVICES, Client
from dynamic_toolset.kube.objects import ConfigMap, Service
from dynamic_toolset.kube.pulse import Pulse
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.model import (
    Candidate,
    Change,
    Check,
    DiscoveredService,
    Document,
    Effect,
    Pass,
    Problem,
    PublishOutcome,
    Report,
    ServiceKey,
    Verdict,
)
from dynamic_toolset.publication import configmap
from dynamic_toolset.publication.publisher import NotLeading, Publisher
from dynamic_toolset.settings import Settings, seconds
from dynamic_toolset.toolset import documents, generic, holmesgpt, overrides
from dynamic_toolset.toolset.listing import answers, is_listed

log = structlog.get_logger()

FIRST_PUBLICATION_WAIT = 1.0
"""Seconds that the first publication waits for verdicts, where nothing says what was listed before."""

SLICES_WAIT = 0.5
"""Seconds that a look waits for the EndpointSlices of new candidates, which are not checked without: mostly they come
within milliseconds, and the checks are then under way while the pass keeps the loop busy."""

CLUSTERS_WAIT = 1.0
"""Seconds that the first look waits for the Services of other clusters. Until then they are as published last."""

LAST_WRITE = 5.0
"""Seconds that a write under way may still take when the service is to end."""

PERIOD = 2.0
"""Seconds between two looks at what causes no event: whether the watches and the lease can be had."""

LATELY = 120.0
"""Seconds within which a watch that works has surely been heard of: it brings a bookmark every minute."""

PASS_AT_MOST = 60.0
"""Seconds that a pass takes at most, and that one which is due is waited for: its requests have deadlines."""


class _Rendered(Struct, frozen=True):
    """The documents of one pass, what there is to say about them, and whether they are those of an earlier pass."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...] = ()
    effects: tuple[Effect, ...] = ()
    held: bool = False


_NOTHING = _Rendered(())


class Controller:
    """The service: reflectors at one end, the publisher at the other, and one loop between them.

    ``observer`` is told of each pass and each check. ``report`` is the last one; ``previous`` is that of a controller
    whose place this one takes, so that only what differs from it is news.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        catalog: Catalog,
        *,
        observer: Observer | None = None,
        previous: Report | None = None,
    ) -> None:
        self.report = previous
        self._succeeds = previous is not None
        self._settings = settings
        self._observer = observer or Nobody()
        self._pacer = Pacer()
        self._leadership = Leadership(client, settings, on_change=self._pacer.hurry)

        self._namespaces = NamespaceLabels(client, settings.namespaces.selector, on_change=self._relist)
        self._inventory = Inventory(Detector(catalog, settings, self._namespaces.labels))
        self._services = Reflector(
            client, SERVICES, Service, transform=self._inventory.judge, on_change=self._services_changed
        )

        guard = Guard(settings.policy.allowed_ranges, settings.policy.refused_ranges)
        self._readiness = Readiness(client, guard, api_server=dialled(client.server), on_change=self._hasten)
        self._clusters = Clusters(
            client,
            settings,
            catalog,
            namespace=settings.config_map.namespace,
            on_change=self._services_changed,
            notify=self._pacer.notify,
            protect=self._readiness.protect,
        )
        self._probe = Probe(settings.health_check, guard)
        self._checker = Checker(
            self._probe,
            settings.health_check,
            known=self._readiness.known,
            good=lambda candidate, health: answers(candidate, health, settings),
            on_change=self._pacer.notify,
            on_checked=self._observer.checked,
        )
        self._settle = seconds(settings.health_check.timeout) + 1
        self._removals = Removals(settings.mass_failure, self._settle)
        self._failing: frozenset[ServiceKey] = frozenset()
        self._outage: Outage | None = None
        self._all_asked = -math.inf

        target = settings.config_map
        self._config_maps = Reflector(
            client,
            CONFIG_MAPS,
            ConfigMap,
            namespace=target.namespace,
            field_selector=f"metadata.name={target.name}",
            transform=unchanged,
            on_change=self._config_map_changed,
        )
        self._publisher = Publisher(client, target, self._config_maps, permit=self._leadership.remaining)
        self._publishing = Publishing(self._publisher, self._leadership, target, self._pacer)
        self._published: generic.Published = frozenset()
        self._good: tuple[Document, ...] = ()
        self._remembered: ConfigMap | None = None
        self._source: tuple[tuple[Candidate, ...], str | None] | None = None
        self._outcome: documents.Rendered | Problem = documents.Rendered((), ())
        self._unusable: str | None = None

        self._stopping = asyncio.Event()
        self._passing = asyncio.Lock()
        self._passes = 0
        self._pulse = Pulse()
        self._surroundings = Pulse()
        self._wake = Alarm(self._pacer.notify)
        self._conditions: tuple[Problem, ...] = ()

        # The changes of Services since the last look: when the first of them came, and whose they are.
        self._arrived_at: float | None = None
        self._events: frozenset[ServiceKey] = frozenset()
        self._latency = Latency()

    async def run(self) -> None:
        """Work until ``stop`` is called, or until cancelled, which breaks off whatever is under way.

        Every task has this one as its owner: if one dies, all end, and the error is raised.
        """
        async with self._probe, asyncio.TaskGroup() as tasks:
            election = tasks.create_task(self._leadership.run(), name="election")
            others = [
                tasks.create_task(self._namespaces.run(), name="namespaces"),
                tasks.create_task(self._follow_services(), name="services"),
                tasks.create_task(self._clusters.run(), name="clusters"),
                tasks.create_task(self._config_maps.run(), name="configmap"),
                tasks.create_task(self._readiness.run(), name="readiness"),
                tasks.create_task(self._checker.run(), name="health"),
                tasks.create_task(self._look_around(), name="conditions"),
            ]
            work = tasks.create_task(self._work(), name="controller")
            await self._stopping.wait()
            finished = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITE), self._passing:
                    finished = work.cancel()
            work.cancel()
            election.cancel()
            await asyncio.wait([work, election])
            if finished:
                await self._leadership.release()
            # Otherwise a write that was broken off may still land: the lease runs out, and who leads next fences it.
            for task in others:
                task.cancel()

    def stop(self) -> None:
        """Let the write under way end, give the lease back, and end ``run``."""
        self._stopping.set()

    def look_again(self) -> None:
        """List all Services anew, and ask every candidate, though nothing says that anything changed."""
        self._services.relist()
        self._clusters.relist()
        self._checker.hasten(self._inventory.candidates)

    # --- How it is ---------------------------------------------------------------------------------------------------

    def checks(self, service: ServiceKey) -> tuple[Check, ...]:
        """Return the last checks of a candidate, the newest first."""
        return self._checker.checks(service)

    def loops(self) -> tuple[Loop, ...]:
        """Return whether each loop makes progress, which it does though the API is away."""
        loops = [Loop(f"watch of {name}", reflector.pulse.late) for name, reflector in self._reflectors().items()]
        loops.append(Loop("health checks", self._checker.late))
        loops.append(Loop("election", self._leadership.late))
        # Before the first pass a change waits for the first lists, for as long as the API is away.
        waiting = self._pacer.waiting if self._passes else 0.0
        loops.append(Loop("passes", max(self._pulse.late, waiting - PASS_AT_MOST, 0.0)))
        loops.append(Loop("conditions", self._surroundings.late))
        return tuple(loops)

    def readiness(self) -> tuple[Condition, ...]:
        """Return what must hold to be ready: to lead, or to take over at once. Asks nobody."""
        needed: dict[str, Reflector[Any, Any]] = {"Services": self._services, "ConfigMap": self._config_maps}
        watches = {name: self._watch(one) for name, one in needed.items()}
        heard = min((one.since_heard for one in watches.values() if one.since_heard is not None), default=math.inf)
        away = "" if heard < LATELY else "the Kubernetes API has not been heard of lately"
        return (
            *(
                Condition(
                    f"{name} synced", one.synced, "" if one.synced else f"not listed yet: {one.last_error or 'busy'}"
                )
                for name, one in watches.items()
            ),
            Condition("API reached lately", not away, away),
            Condition("leader or standby", self._leadership.problem is None, self._leadership.problem or ""),
            Condition("first pass done", self._passes > 0, "" if self._passes else "nothing was decided yet"),
        )

    def statistics(self) -> Statistics:
        """Return everything that is counted."""
        return Statistics(
            leads=self._leadership.remaining() > 0,
            holder=self._leadership.holder,
            passes=self._passes,
            watches={name: self._watch(one) for name, one in self._reflectors().items()},
            checks=self._checker.statistics,
            publications=Publications(self._publisher.writes, self._publisher.conflicts),
            election=self._leadership.statistics,
        )

    def _reflectors(self) -> dict[str, Reflector[Any, Any]]:
        """Return the reflectors by what they follow, as far as they are at work."""
        found: dict[str, Reflector[Any, Any]] = {"Services": self._services, "ConfigMap": self._config_maps}
        if self._namespaces.needed:
            found["Namespaces"] = self._namespaces.reflector
        if self._readiness.reflector is not None:
            found["EndpointSlices"] = self._readiness.reflector
        if self._leadership.reflector is not None:
            found["Lease"] = self._leadership.reflector
        return found | self._clusters.reflectors()

    def _watch(self, reflector: Reflector[Any, Any]) -> Watch:
        done, now = reflector.statistics, time.monotonic()
        return Watch(
            synced=reflector.synced.is_set(),
            objects=len(reflector.store),
            skipped=len(reflector.skipped),
            lists=done.lists,
            watches=done.watches,
            events=done.events,
            bookmarks=done.bookmarks,
            failures=done.consecutive_failures,
            last_error=done.last_error,
            since_heard=None if done.last_heard is None else now - done.last_heard,
            since_bookmark=None if done.last_bookmark is None else now - done.last_bookmark,
        )

    # --- What is woken by events -----------------------------------------------------------------------------------

    def _services_changed(self) -> None:
        if self._arrived_at is None:
            self._arrived_at = asyncio.get_running_loop().time()
        self._pacer.notify()

    async def _follow_services(self) -> None:
        await self._namespaces.synced.wait()  # before, no Service would be in a namespace that is selected
        await self._services.run()

    def _relist(self) -> None:
        self._services.relist()

    def _hasten(self, keys: frozenset[ServiceKey]) -> None:
        self._checker.hasten(keys)

    def _config_map_changed(self) -> None:
        if not self._publisher.is_echo():
            self._pacer.notify()

    async def _look_around(self) -> None:
        """Notice what causes no event."""
        while True:
            self._surroundings.promise(PASS_AT_MOST)
            await asyncio.sleep(PERIOD)
            if tuple(self._find_conditions()) != self._conditions:
                self._pacer.notify()

    def _find_conditions(self) -> Iterator[Problem]:
        """Yield what is in the way of knowing the cluster, though what was known last stays in force."""
        yield from conditions.watch_failing("Services", self._services)
        yield from conditions.watch_failing("the ConfigMap", self._config_maps)
        yield from conditions.watch_failing("Namespaces", self._namespaces.reflector)
        if self._readiness.problem:
            yield Problem("EndpointSlicesUnreadable", self._readiness.problem)
        if self._leadership.problem:
            yield Problem("LeaseUnavailable", self._leadership.problem)
        yield from self._clusters.problems()

    # --- The loop --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        for reflector in (self._services, self._config_maps):
            await self._synced(reflector)
        self._remember(self._publisher.present())
        with tracing.span("pass"):
            await self._clusters.settled(CLUSTERS_WAIT)
            await self._look()
            if self._succeeds:
                # What is known is shown meanwhile. Without the verdicts all would be news: not known, and known again.
                await self._checker.settled(self._settle)
            elif not self._published:
                # Nothing says what was listed: the first publication into a cluster, or a document that was damaged
                # while nobody looked. Without verdicts the toolset would be empty.
                await self._checker.settled(FIRST_PUBLICATION_WAIT)
            # What is loaded by now stays for the life of the process: no collection needs to walk it again.
            gc.freeze()
            await self._pass_undisturbed()
        while True:
            await self._pacer.wait()
            with tracing.span("pass"):
                await self._look()
                await asyncio.sleep(0)  # the checks of what is new are on their way before this keeps the loop busy
                await self._pass_undisturbed()

    async def _pass_undisturbed(self) -> None:
        self._pulse.promise(PASS_AT_MOST)
        async with self._passing:
            await self._pass()
        self._pulse.promise(math.inf)

    async def _synced(self, reflector: Reflector[Service, Judged] | Reflector[ConfigMap, ConfigMap]) -> None:
        """Wait for the first complete list, and say what is in the way while there is none."""
        while not reflector.synced.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await reflector.synced.wait()
                    return
            self._conditions = tuple(self._find_conditions())
            if self._conditions:
                known = self.report or Report({}, (), (), (), published=False)
                self._tell(replace(known, problems=self._conditions), "failed")

    async def _look(self) -> None:
        """Take over what changed. Of new candidates the EndpointSlices are read before they are asked anything."""
        with tracing.span("look"):
            await self._take_over()

    async def _take_over(self) -> None:
        changed = {ServiceKey.of(key): self._services.store.get(key) for key in self._services.take_changed()}
        changed |= self._clusters.take_changed()
        self._inventory.update(changed)
        self._latency.arrived(changed, self._arrived_at or asyncio.get_running_loop().time())
        self._events, self._arrived_at = self._events | changed.keys(), None
        self._readiness.update(self._inventory.candidates)
        if self._readiness.problem is None:
            await self._readiness.settled(SLICES_WAIT)
        self._checker.update(self._to_check())

    def _to_check(self) -> Mapping[ServiceKey, Candidate]:
        candidates = self._inventory.candidates
        return {key: one for key, one in candidates.items() if not (key.cluster and self._clusters.is_recalled(key))}

    def _remember(self, present: ConfigMap | None) -> None:
        """Take what the ConfigMap says for what is published: by an earlier run, or by the instance that leads."""
        if present is not self._remembered:
            self._remembered = present
            self._good = _documents_of(present)
            tools = generic.tools(_data(present).get(generic.KEY, ""))
            self._published = generic.published_by(tools)
            self._clusters.remember(tools)

    async def _pass(self) -> None:
        """Decide what is listed, and make it so, or only know it while another instance leads."""
        began = asyncio.get_running_loop().time()
        leads = self._leadership.remaining() > 0
        present = self._publisher.present()
        if not leads:
            self._publisher.stand_down()
            self._remember(present)
        held = self._held(present)
        discovered = tuple(self._discovered(candidate, held) for candidate in self._inventory.candidates.values())
        rendered = _NOTHING

        def render(present: ConfigMap | None) -> tuple[Document, ...]:
            nonlocal rendered
            rendered = self._render(discovered, present)
            return rendered.documents

        published: Publication | None = None
        if leads:
            with contextlib.suppress(NotLeading):
                published = await self._publishing.publish(render)
        failure = published.problem if published else None
        holds = published is not None and failure is None if leads else configmap.says(present, render(present))
        if leads and holds and not rendered.held:
            self._published = frozenset((one.candidate.key, one.candidate.type) for one in discovered if one.listed)
            self._good = rendered.documents
        self._conditions = tuple(self._find_conditions())
        unreadable = (
            Problem("ServiceUnreadable", f"Service {key}: {error}")
            for key, error in (*self._services.skipped.items(), *self._clusters.unreadable())
        )
        report = Report(
            self._inventory.decisions,
            discovered,
            rendered.documents,
            (
                *unreadable,
                *rendered.problems,
                *conditions.mass_failure(held, self._settings),
                *self._publishing.contest(failure),
                *self._conditions,
                *(() if failure is None else (failure,)),
            ),
            published=holds,
            held=frozenset(key for key in held.services if key in self._inventory.candidates),
            overrides=_data(self._publisher.present()).get(overrides.KEY),
            effects=rendered.effects,
            leads=published is not None,
        )
        self._passes += 1
        self._tell(report, published.outcome if published else "standby", began)

    def _tell(self, report: Report, outcome: PublishOutcome, began: float | None = None) -> None:
        """Say what a pass has changed: to the log, and to whoever observes."""
        now = asyncio.get_running_loop().time()
        before = self.report
        changes: tuple[Change, ...] = ()
        if before is not None and report == before:
            report = before
        else:
            changes = logbook.changes(before, report, self._events, is_first=self._passes <= 1 and not self._succeeds)
            self.report = report
        if outcome in {"created", "updated"}:
            target = self._settings.config_map
            written = f"ConfigMap {target.namespace}/{target.name} was {outcome}"
            changes = (*changes, logbook.publication(before, report, changes, written))
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
            )
        )

    def _latencies(self, report: Report, outcome: PublishOutcome, now: float) -> tuple[float, ...]:
        seen = latency.shown(report.discovered)
        if not report.leads:
            self._latency.forget(seen)
            return ()
        waiting = {one.candidate.key for one in report.discovered if one.health.verdict is Verdict.UNKNOWN}
        shows = outcome in {"created", "updated", "unchanged"}
        took = self._latency.settle(seen, waiting, published=shows, now=now)
        return () if outcome == "unchanged" else took

    # --- What is listed --------------------------------------------------------------------------------------------

    def _held(self, present: ConfigMap | None) -> Held:
        """Find out whether it is the backends that fail or our own network, and what stays listed meanwhile."""
        candidates, now = self._to_check(), asyncio.get_running_loop().time()
        health = {key: self._checker.health(key) for key in candidates}
        published = frozenset(
            key
            for key, kind in self._published
            if (found := candidates.get(key)) and found.type == kind and not health[key].refused
        )
        answering = {key for key, one in candidates.items() if answers(one, health[key], self._settings)}
        failing = frozenset(key for key in published - answering if health[key].failures)
        unproven = self._clusters.unproven(failing, now)
        published, failing = published - unproven, failing - unproven
        if failing - self._failing and now - self._all_asked > self._settle:
            self._checker.hasten(published - failing)  # is it only this one?
            self._all_asked = now
        if self._outage is not None and self._failing - failing:
            self._checker.hasten(failing)  # the first one answers again: do the others?
        release = ((present and present.metadata.annotations) or {}).get(RELEASE, "")
        held = self._removals.hold(failing, published, len(answering), now=now, release=release)
        self._failing, self._outage = failing, held.outage
        self._wake.set(None if held.wake is None else held.wake - now)
        return replace(held, services=held.services | unproven)

    def _discovered(self, candidate: Candidate, held: Held) -> DiscoveredService:
        recalled = candidate.key.cluster and self._clusters.is_recalled(candidate.key)
        health = RECALLED if recalled else self._checker.health(candidate.key)
        listed = is_listed(candidate, health, self._settings, self._published, held.services)
        return DiscoveredService(candidate, health, listed)

    # --- What is published -----------------------------------------------------------------------------------------

    def _render(self, discovered: tuple[DiscoveredService, ...], present: ConfigMap | None) -> _Rendered:
        """Render the documents; with overrides that cannot be used, what was good last stays."""
        text = _data(present).get(overrides.KEY)
        source = (tuple(one.candidate for one in discovered if one.listed), text)
        if source != self._source:  # most looks find nothing that an agent would read
            self._source, self._outcome = source, self._outcome_of(discovered, text)
        if isinstance(self._outcome, Problem):
            return _Rendered(self._good, (self._outcome,), held=True)
        return _Rendered(self._outcome.documents, self._outcome.problems, self._outcome.effects)

    def _outcome_of(self, discovered: tuple[DiscoveredService, ...], text: str | None) -> documents.Rendered | Problem:
        """Render the documents, or say what is wrong with the overrides."""
        try:
            return documents.render(discovered, self._settings, text)
        except overrides.OverridesError as error:
            why = str(error)
        except Exception as error:  # one text in one ConfigMap must not end the service for good
            documents.render(discovered, self._settings, None)  # raises what is not the overrides' fault
            if text != self._unusable:
                log.exception("overrides_unusable")
            self._unusable = text
            why = f"{overrides.KEY}: it cannot be used ({type(error).__name__}), for a reason that the log shows"
        return Problem("OverridesInvalid", f"{why}; what was published last stays until this is mended")


def _data(present: ConfigMap | None) -> Mapping[str, str]:
    return (present.data if present is not None else None) or {}


def _documents_of(present: ConfigMap | None) -> tuple[Document, ...]:
    """Return the documents that a ConfigMap holds."""
    data = _data(present)
    return tuple(Document(key, data[key]) for key in (holmesgpt.KEY, generic.KEY) if key in data)
