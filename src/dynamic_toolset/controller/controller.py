"""Looks again when something changed, publishes when the outcome did.

Level-based (as controllers of Kubernetes are): an event only says *look again*. What to do follows from the whole
present state, so that a lost, doubled or late event costs nothing but time.
"""

import asyncio
import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from dynamic_toolset import tracing
from dynamic_toolset.controller import conditions, rendering
from dynamic_toolset.controller.clusters import Clusters
from dynamic_toolset.controller.full_looks import Rounds
from dynamic_toolset.controller.leadership import Leadership, lease_of
from dynamic_toolset.controller.listing import Listing
from dynamic_toolset.controller.namespaces import NamespaceLabels
from dynamic_toolset.controller.observer import Nobody, Observer
from dynamic_toolset.controller.pacer import Pacer
from dynamic_toolset.controller.precedence import Precedence
from dynamic_toolset.controller.publishing import Publication, Publishing
from dynamic_toolset.controller.rendering import Rendering
from dynamic_toolset.controller.reporting import Reporting
from dynamic_toolset.controller.statistics import Condition, Loop, Publications, Statistics, loop_of, watch_of
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory, Judged
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.health.readiness import Readiness, dialled
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.objects import ConfigMap, ObjectKey, ObjectReference, Service
from dynamic_toolset.kube.pulse import Pulse
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.kube.resources import CONFIG_MAPS, SERVICES
from dynamic_toolset.model import Check, Document, Problem, Report, ServiceKey
from dynamic_toolset.publication import configmap
from dynamic_toolset.publication.publisher import NotLeading, Publisher
from dynamic_toolset.settings import Settings, seconds
from dynamic_toolset.toolset import generic, overrides
from dynamic_toolset.toolset.listing import answers

ADJUSTABLE = frozenset({"discoveryInterval", "paused", "dryRun"})
"""The settings that a controller at work takes over as they are. For others it takes another controller."""

FIRST_PUBLICATION_WAIT = 1.0
"""Seconds that the first publication waits for verdicts, where nothing says what was listed before."""

SLICES_WAIT = 0.5
"""Seconds that a look waits for the EndpointSlices of new candidates, which are not checked without: mostly they come
within milliseconds, and the checks are then under way while the pass keeps the loop busy."""

CLUSTERS_WAIT = 1.0
"""Seconds that the first look waits for the Services of other clusters, which are until then as published last."""

CLUSTERS_WAIT_AGAIN = 0.3
"""The same where other settings come into force, for which nobody wants to wait."""

LAST_WRITE = 5.0
"""Seconds that a write under way may still take when the service is to end."""

PERIOD = 2.0
"""Seconds between two looks at what causes no event: whether the watches and the lease can be had."""

LATELY = 120.0
"""Seconds within which a watch that works has surely been heard of: it brings a bookmark every minute."""

PASS_AT_MOST = 60.0
"""Seconds that a pass takes at most, and that one which is due is waited for: its requests have deadlines."""


class Controller:
    """The service: reflectors at one end, the publisher at the other, and one loop between them.

    ``observer`` is told of each pass and each check. ``lease`` is the one that it stands for, by default the one that
    goes with ``settings``. ``notices`` says what else is a problem. While it is ``unsettled`` which settings are
    to be in force, nothing is written. ``authorities`` are trusted besides the system's when backends are checked.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        catalog: Catalog,
        *,
        observer: Observer | None = None,
        lease: ObjectKey | None = None,
        notices: Callable[[], Iterable[Problem]] = tuple,
        unsettled: bool = False,
        authorities: str = "",
    ) -> None:
        self._settings = settings
        self._notices = notices
        observer, target = observer or Nobody(), settings.config_map
        lease = lease or lease_of(settings)
        self._pacer = Pacer()
        self._leadership = Leadership(client, settings.leader_election, lease, on_change=self._pacer.hurry)
        self._reporting = Reporting(observer, target)

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
            namespace=lease.namespace,
            on_change=self._services_changed,
            notify=self._pacer.notify,
            protect=self._readiness.protect,
            known=self._readiness.known,
        )
        self._probe = Probe(settings.health_check, guard, authorities)
        self._checker = Checker(
            self._probe,
            settings.health_check,
            known=self._readiness.known,
            good=lambda candidate, health: answers(candidate, health, settings),
            on_change=self._pacer.notify,
            on_checked=observer.checked,
        )
        self._settle = seconds(settings.health_check.timeout) + 1
        self._listing = Listing(settings, self._checker, self._clusters, self._settle, on_change=self._pacer.notify)
        self._rounds = Rounds(seconds(settings.discovery_interval), self._look_at_all)

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
        self._publishing = Publishing(self._publisher, self._leadership, settings, self._pacer, unsettled=unsettled)
        self._rendering = Rendering(settings)
        self._remembered: ConfigMap | None = None

        # Of the one whose place this one takes, if there is one.
        self._succeeds = False
        self._knows_verdicts = False
        self._was_published: generic.Published = frozenset()

        self._stopping = asyncio.Event()
        self._passing = asyncio.Lock()
        self._passes = 0
        self._pulse = Pulse()
        self._surroundings = Pulse()
        self._conditions: tuple[Problem, ...] = ()
        self._arrived_at: float | None = None
        """When the first change of a Service since the last look came."""
        self._precedence = Precedence()

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
                tasks.create_task(self._rounds.run(), name="full looks"),
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
        """Have a full look, and list all Services anew besides, though nothing says that anything changed."""
        self._services.relist()
        self._clusters.relist()
        self._rounds.note()
        self._look_at_all()

    def adjust(self, settings: Settings, *, unsettled: bool = False) -> None:
        """Take over settings that differ from the present ones in those that are ADJUSTABLE only."""
        self._settings = settings
        self._publishing.adjust(settings, unsettled=unsettled)
        self._rounds.every(seconds(settings.discovery_interval))
        self._pacer.hurry()

    def notice(self) -> None:
        """Report what ``notices`` says now."""
        self._pacer.notify()

    def succeed(self, other: "Controller") -> None:
        """Take the place of another one, which has ended. It is to be called before ``run``.

        Only what differs from its last report is news. What was listed counts as published, also where another
        ConfigMap is to be written. The verdicts of its checks count too, as long as those were made as they are now.
        """
        self._reporting.report = other.report
        self._succeeds = other.report is not None
        self._was_published = other._listing.published  # noqa: SLF001 - one of us
        if other.report is not None:
            self._clusters.remember(next((one.text for one in other.report.documents if one.key == generic.KEY), None))
        if self._succeeds and asks_alike(self._settings, other._settings):  # noqa: SLF001
            self._checker.succeed(other._checker)  # noqa: SLF001
            self._knows_verdicts = True

    # --- How it is ---------------------------------------------------------------------------------------------------

    @property
    def report(self) -> Report | None:
        """The last one."""
        return self._reporting.report

    @property
    def passes(self) -> int:
        """Passes so far."""
        return self._passes

    @property
    def leads(self) -> bool:
        """Whether this instance is the one that writes."""
        return self._leadership.remaining() > 0

    def present(self) -> ConfigMap | None:
        """Return the ConfigMap as it is, as far as is known by now; None if there is none."""
        return self._publisher.present()

    def checks(self, service: ServiceKey) -> tuple[Check, ...]:
        """Return the last checks of a candidate, the newest first."""
        return self._checker.checks(service)

    async def give_way(self) -> None:
        """Wait, for a moment at most, while a change is on its way to its publication."""
        await self._precedence.give_way()

    def service(self, key: ServiceKey) -> ObjectReference | None:
        """Return what an Event on a Service refers to; None if it is gone, of no interest, or elsewhere."""
        judged = None if key.cluster else self._services.store.get(ObjectKey(key.namespace, key.name))
        if judged is None or not judged.metadata.uid:
            return None
        version = judged.metadata.resource_version
        return ObjectReference("v1", "Service", key.name, key.namespace, judged.metadata.uid, version)

    def config_map(self) -> ObjectReference:
        """Return what an Event on the ConfigMap refers to, be it there or not."""
        target, present = self._settings.config_map, self._publisher.present()
        uid, version = (present.metadata.uid, present.metadata.resource_version) if present else ("", "")
        return ObjectReference("v1", "ConfigMap", target.name, target.namespace, uid, version)

    def loops(self) -> tuple[Loop, ...]:
        """Return whether each loop makes progress, which it does though the API is away."""
        loops = [*map(loop_of, self._reflectors().items())]
        loops.append(Loop("health checks", self._checker.late))
        loops.append(Loop("election", self._leadership.late))
        # Before the first pass a change waits for the first lists, for as long as the API is away.
        waiting = self._pacer.waiting if self._passes else 0.0
        loops.append(Loop("passes", max(self._pulse.late, waiting - PASS_AT_MOST, 0.0)))
        loops.append(Loop("conditions", self._surroundings.late))
        loops.append(Loop("full looks", self._rounds.late))
        return tuple(loops)

    def readiness(self) -> tuple[Condition, ...]:
        """Return what must hold to be ready: to lead, or to take over at once. Asks nobody."""
        needed: dict[str, Reflector[Any, Any]] = {"Services": self._services, "ConfigMap": self._config_maps}
        watches = {name: watch_of(one) for name, one in needed.items()}
        heard = min((one.since_heard for one in watches.values() if one.since_heard is not None), default=math.inf)
        decided = self._passes > 0 or self._succeeds
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
            Condition("first pass done", decided, "" if decided else "nothing was decided yet"),
        )

    def statistics(self) -> Statistics:
        """Return everything that is counted."""
        return Statistics(
            leads=self.leads,
            holder=self._leadership.holder,
            passes=self._passes,
            full_looks=self._rounds.statistics,
            watches={name: watch_of(one) for name, one in self._reflectors().items()},
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

    # --- What is woken by events -----------------------------------------------------------------------------------

    def _services_changed(self) -> None:
        if self._arrived_at is None:
            self._arrived_at = asyncio.get_running_loop().time()
            self._precedence.begin()
        self._pacer.notify()

    async def _follow_services(self) -> None:
        await self._namespaces.synced.wait()  # before, no Service would be in a namespace that is selected
        await self._services.run()

    def _relist(self) -> None:
        self._services.relist()

    def _look_at_all(self) -> None:
        self._checker.hasten(self._inventory.candidates)
        self._pacer.notify()

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
        yield from self._notices()

    # --- The loop --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        for reflector in (self._services, self._config_maps):
            await self._synced(reflector)
        self._remember(self._publisher.present())
        self._listing.published = self._listing.published or self._was_published
        with tracing.span("pass"):
            await self._clusters.settled(CLUSTERS_WAIT if not self._succeeds else CLUSTERS_WAIT_AGAIN)
            await self._look()
            if self._succeeds and not self._knows_verdicts:
                # What is known is shown meanwhile. Without the verdicts all would be news: not known, and known again.
                await self._checker.settled(self._settle)
            elif not self._listing.published:
                # Nothing says what was listed: the first publication into a cluster, or a document that was damaged
                # while nobody looked. Without verdicts the toolset would be empty.
                await self._checker.settled(FIRST_PUBLICATION_WAIT)
            if not self._succeeds:
                # What is loaded by now stays for the life of the process: no collection needs to walk it again.
                gc.freeze()
            await self._pass_undisturbed()
        self._rounds.note()
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
                told = replace(known, problems=self._conditions)
                self._reporting.tell(told, "failed", is_first=self._is_first)

    async def _look(self) -> None:
        """Take over what changed. Of new candidates the EndpointSlices are read before they are asked anything."""
        with tracing.span("look"):
            await self._take_over()

    async def _take_over(self) -> None:
        changed = {ServiceKey.of(key): self._services.store.get(key) for key in self._services.take_changed()}
        changed |= self._clusters.take_changed()
        self._inventory.update(changed)
        self._reporting.arrived(changed, self._arrived_at or asyncio.get_running_loop().time())
        self._arrived_at = None
        self._readiness.update(self._inventory.candidates)
        if self._readiness.problem is None:
            await self._readiness.settled(SLICES_WAIT)
        self._checker.update(self._clusters.without_recalled(self._inventory.candidates))

    def _remember(self, present: ConfigMap | None) -> None:
        """Take what the ConfigMap says for what is published: by an earlier run, or by the instance that leads."""
        if present is not self._remembered:
            self._remembered = present
            self._rendering.remember(present)
            self._listing.remember(present)
            self._clusters.remember(rendering.data_of(present).get(generic.KEY))

    async def _pass(self) -> None:
        """Decide what is listed, and make it so, or only know it while another instance leads."""
        began = asyncio.get_running_loop().time()
        leads = self._leadership.remaining() > 0
        present = self._publisher.present()
        if not leads:
            self._publisher.stand_down()
            self._remember(present)
        before = self._listing.published
        discovered, held = self._listing.decide(self._inventory.candidates, present)
        rendered = rendering.NOTHING

        def render(present: ConfigMap | None) -> tuple[Document, ...]:
            nonlocal rendered
            rendered = self._rendering.render(discovered, present)
            return rendered.documents

        published: Publication | None = None
        if leads:
            with contextlib.suppress(NotLeading):
                published = await self._publishing.publish(render)
        failure = published.problem if published else None
        holds = published is not None and published.holds if leads else configmap.says(present, render(present))
        if leads and holds and not rendered.held:
            self._listing.has_published(discovered)
            self._rendering.good = rendered.documents
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
                *conditions.on_hold(self._settings, holds=holds),
                *self._publishing.contest(failure),
                *self._conditions,
                *(() if failure is None else (failure,)),
            ),
            published=holds,
            held=frozenset(key for key in held.services if key in self._inventory.candidates),
            overrides=rendering.data_of(self._publisher.present()).get(overrides.KEY),
            effects=rendered.effects,
            leads=published is not None,
        )
        self._passes += 1
        outcome = published.outcome if published else "standby"
        self._reporting.tell(
            report, outcome, began=began, before=before, after=self._listing.published, is_first=self._is_first
        )
        if not self._reporting.waits:
            self._precedence.end()

    @property
    def _is_first(self) -> bool:
        return self._passes <= 1 and not self._succeeds


def asks_alike(one: Settings, other: Settings) -> bool:
    """Whether the outcome of a check with these settings is one with those."""
    policies = [(how.policy.allowed_ranges, how.policy.refused_ranges) for how in (one, other)]
    return one.health_check == other.health_check and policies[0] == policies[1]
