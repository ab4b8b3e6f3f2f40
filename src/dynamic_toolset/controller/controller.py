"""Looks again when something changed, publishes when the outcome did.

Level-based (as controllers of Kubernetes are): an event only says *look again*. What to do follows from the whole
present state, so that a lost, doubled or late event costs nothing but time.
"""

import asyncio
import contextlib
import gc
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog
from msgspec import Struct

from dynamic_toolset.controller.leadership import Leadership
from dynamic_toolset.controller.logbook import log_changes
from dynamic_toolset.controller.namespaces import NamespaceLabels
from dynamic_toolset.controller.pacer import Alarm, Pacer
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory, Judged
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.outage import Held, Outage, Removals
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.health.readiness import Readiness, dialled
from dynamic_toolset.kube.client import CONFIG_MAPS, SERVICES, Client
from dynamic_toolset.kube.errors import ApiError, KubernetesError
from dynamic_toolset.kube.objects import ConfigMap, Service
from dynamic_toolset.kube.reflector import RETRY_AFTER_CAP, Reflector, unchanged
from dynamic_toolset.model import (
    Candidate,
    DiscoveredService,
    Document,
    Problem,
    Report,
    ServiceKey,
)
from dynamic_toolset.publication import configmap
from dynamic_toolset.publication.configmap import DocumentsTooLarge
from dynamic_toolset.publication.publisher import CONTESTED, NotLeading, Publisher, Render, Withheld, Written
from dynamic_toolset.settings import Settings, seconds
from dynamic_toolset.toolset import documents, generic, holmesgpt, overrides
from dynamic_toolset.toolset.listing import answers, is_listed

log = structlog.get_logger()

FIRST_PUBLICATION_WAIT = 1.0
"""Seconds that the first publication waits for verdicts, where nothing says what was listed before."""

SLICES_WAIT = 0.5
"""Seconds that a look waits for the EndpointSlices of new candidates, which are not checked without: mostly they come
within milliseconds, and the checks are then under way while the pass keeps the loop busy."""

LAST_WRITE = 5.0
"""Seconds that a write under way may still take when the service is to end."""

PERIOD = 2.0
"""Seconds between two looks at what causes no event: whether the watches and the lease can be had."""

_PATIENCE = 3
"""Failures in a row after which a watch is called failing: an API server that restarts is no news."""

RELEASE = "kubernaut.io/release-removals"
"""Annotation of the ConfigMap: a new value releases the removals that are held because many services failed at once."""


class _Rendered(Struct, frozen=True):
    """The documents of one pass, what there is to say about them, and whether they are those of an earlier pass."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...] = ()
    held: bool = False


_NOTHING = _Rendered(())


class Controller:
    """The service: reflectors at one end, the publisher at the other, and one loop between them.

    ``on_report`` is called with the Report of each pass that differs from the one before.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        catalog: Catalog,
        *,
        on_report: Callable[[Report], None] = lambda _report: None,
    ) -> None:
        self._settings = settings
        self._on_report = on_report
        self._pacer = Pacer()
        self._leadership = Leadership(client, settings, on_change=self._pacer.hurry)

        self._namespaces = NamespaceLabels(client, settings.namespaces.selector, on_change=self._relist)
        self._inventory = Inventory(Detector(catalog, settings, self._namespaces.labels))
        self._services = Reflector(
            client, SERVICES, Service, transform=self._inventory.judge, on_change=self._pacer.notify
        )

        guard = Guard(settings.policy.allowed_ranges, settings.policy.refused_ranges)
        self._readiness = Readiness(client, guard, api_server=dialled(client.server), on_change=self._hasten)
        self._probe = Probe(settings.health_check, guard)
        self._checker = Checker(
            self._probe,
            settings.health_check,
            known=self._readiness.known,
            good=lambda candidate, health: answers(candidate, health, settings),
            on_change=self._pacer.notify,
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
        self._published: generic.Published = frozenset()
        self._good: tuple[Document, ...] = ()
        self._remembered: ConfigMap | None = None
        self._source: tuple[tuple[Candidate, ...], str | None] | None = None
        self._outcome: documents.Rendered | Problem = documents.Rendered((), ())
        self._unusable: str | None = None

        self._stopping = asyncio.Event()
        self._passing = asyncio.Lock()
        self._failures = 0
        self._refused: Problem | None = None
        self._retry = Alarm(self._pacer.notify)
        self._wake = Alarm(self._pacer.notify)
        self._calm = Alarm(self._pacer.notify)
        self._conditions: tuple[Problem, ...] = ()
        self._report: Report | None = None

    async def run(self) -> None:
        """Work until ``stop`` is called, or until cancelled, which breaks off whatever is under way.

        Every task has this one as its owner: if one dies, all end, and the error is raised.
        """
        async with self._probe, asyncio.TaskGroup() as tasks:
            election = tasks.create_task(self._leadership.run(), name="election")
            others = [
                tasks.create_task(self._namespaces.run(), name="namespaces"),
                tasks.create_task(self._follow_services(), name="services"),
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

    # --- What is woken by events -----------------------------------------------------------------------------------

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
            await asyncio.sleep(PERIOD)
            if tuple(self._find_conditions()) != self._conditions:
                self._pacer.notify()

    def _find_conditions(self) -> Iterator[Problem]:
        """Yield what is in the way of knowing the cluster, though what was known last stays in force."""
        yield from _failing("Services", self._services)
        yield from _failing("the ConfigMap", self._config_maps)
        yield from _failing("Namespaces", self._namespaces.reflector)
        if self._readiness.problem:
            yield Problem("EndpointSlicesUnreadable", self._readiness.problem)
        if self._leadership.problem:
            yield Problem("LeaseUnavailable", self._leadership.problem)

    # --- The loop --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        for reflector in (self._services, self._config_maps):
            await self._synced(reflector)
        self._remember(self._publisher.present())
        await self._look()
        if not self._published:
            # Nothing says what was listed: the first publication into a cluster, or a document that was damaged while
            # nobody looked. Without verdicts the toolset would be empty.
            await self._checker.settled(FIRST_PUBLICATION_WAIT)
        # What is loaded by now stays for the life of the process: no collection needs to walk it again.
        gc.freeze()
        while True:
            async with self._passing:
                await self._pass()
            await self._pacer.wait()
            await self._look()
            await asyncio.sleep(0)  # the checks of what is new are on their way before the pass keeps the loop busy

    async def _synced(self, reflector: Reflector[Service, Judged] | Reflector[ConfigMap, ConfigMap]) -> None:
        """Wait for the first complete list, and say what is in the way while there is none."""
        while not reflector.synced.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await reflector.synced.wait()
                    return
            self._conditions = tuple(self._find_conditions())
            if self._conditions:
                self._tell(Report({}, (), (), self._conditions, published=False))

    async def _look(self) -> None:
        """Take over what changed. Of new candidates the EndpointSlices are read before they are asked anything."""
        self._inventory.update(self._services.take_changed(), self._services.store)
        self._readiness.update(self._inventory.candidates)
        if self._readiness.problem is None:
            await self._readiness.settled(SLICES_WAIT)
        self._checker.update(self._inventory.candidates)

    def _remember(self, present: ConfigMap | None) -> None:
        """Take what the ConfigMap says for what is published: by an earlier run, or by the instance that leads."""
        if present is not self._remembered:
            self._remembered = present
            self._good = _documents_of(present)
            self._published = generic.published(_data(present).get(generic.KEY, ""))

    async def _pass(self) -> None:
        """Decide what is listed, and make it so, or only know it while another instance leads."""
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

        failure: Problem | None = None
        published = leads
        if leads:
            try:
                failure = await self._publish(render)
            except NotLeading:
                published = False
        else:
            published = configmap.says(present, render(present))
        if leads and published and failure is None and not rendered.held:
            self._published = frozenset((one.candidate.key, one.candidate.type) for one in discovered if one.listed)
            self._good = rendered.documents
        self._conditions = tuple(self._find_conditions())
        unreadable = (
            Problem("ServiceUnreadable", f"Service {key}: {error}") for key, error in self._services.skipped.items()
        )
        problems = (
            *unreadable,
            *rendered.problems,
            *_about(held, self._settings),
            *self._contest(failure),
            *self._conditions,
            *(() if failure is None else (failure,)),
        )
        report = Report(
            self._inventory.decisions, discovered, rendered.documents, problems, published and failure is None
        )
        self._tell(report)

    def _tell(self, report: Report) -> None:
        if report != self._report:
            log_changes(self._report, report)
            self._report = report
            self._on_report(report)

    # --- What is listed --------------------------------------------------------------------------------------------

    def _held(self, present: ConfigMap | None) -> Held:
        """Find out whether it is the backends that fail or our own network, and what stays listed meanwhile."""
        candidates, now = self._inventory.candidates, asyncio.get_running_loop().time()
        health = {key: self._checker.health(key) for key in candidates}
        published = frozenset(
            key
            for key, kind in self._published
            if (found := candidates.get(key)) and found.type == kind and not health[key].refused
        )
        answering = {key for key, one in candidates.items() if answers(one, health[key], self._settings)}
        failing = frozenset(key for key in published - answering if health[key].failures)
        if failing - self._failing and now - self._all_asked > self._settle:
            self._checker.hasten(published - failing)  # is it only this one?
            self._all_asked = now
        if self._outage is not None and self._failing - failing:
            self._checker.hasten(failing)  # the first one answers again: do the others?
        release = ((present and present.metadata.annotations) or {}).get(RELEASE, "")
        held = self._removals.hold(failing, published, len(answering), now=now, release=release)
        self._failing, self._outage = failing, held.outage
        self._wake.set(None if held.wake is None else held.wake - now)
        return held

    def _discovered(self, candidate: Candidate, held: Held) -> DiscoveredService:
        health = self._checker.health(candidate.key)
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
        return _Rendered(self._outcome.documents, self._outcome.problems)

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

    async def _publish(self, render: Render) -> Problem | None:
        """Publish; what went wrong, if anything, is a problem to report, and what was published last stays.

        After a failure nothing is tried before its pause is over, however many events come. Raises NotLeading.
        """
        if self._refused is not None and self._retry.is_set:
            render(self._publisher.present())
            return self._refused
        fence = self._leadership.fence
        try:
            written = await self._publisher.publish(render, fence=fence)
        except DocumentsTooLarge as error:
            return Problem("TooLarge", f"{error}; what was published last stays")
        except Withheld as withheld:
            self._retry.set(withheld.retry_in)
            return Problem(withheld.reason, str(withheld))
        except KubernetesError as error:
            self._refused = Problem("PublicationFailed", str(error))
            self._try_again_later(error)
            return self._refused
        self._failures, self._refused = 0, None
        self._retry.set(None)
        if written is not Written.NOTHING:
            self._leadership.has_fenced()
            target = self._settings.config_map
            log.info("published", configmap=f"{target.namespace}/{target.name}", outcome=written.value)
        return None

    def _contest(self, failure: Problem | None) -> Iterator[Problem]:
        """Yield the condition of a fight over the ConfigMap, as long as it goes on."""
        contest = self._publisher.contest
        if contest is not None and (failure is None or failure.reason != CONTESTED):
            yield Problem(CONTESTED, contest)
        self._calm.set(self._publisher.contest_ends_in)

    def _try_again_later(self, error: KubernetesError) -> None:
        """Pause for 1 s, doubling to a minute, with jitter; or longer, if the API asks for that. A timer ends it."""
        self._failures += 1
        delay = min(2.0 ** (self._failures - 1), 60.0) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter is no secret
        if isinstance(error, ApiError) and error.retry_after is not None:
            delay = max(delay, min(error.retry_after, RETRY_AFTER_CAP))
        self._retry.set(delay)


def _failing(what: str, reflector: Reflector[Any, Any]) -> Iterator[Problem]:
    """Yield the condition of a watch that cannot be had."""
    now = reflector.statistics
    if now.consecutive_failures >= _PATIENCE:
        message = f"{what} cannot be followed: {now.last_error}; what was seen last stays in force"
        yield Problem("WatchFailing", message)


def _about(held: Held, settings: Settings) -> Iterator[Problem]:
    """Yield the condition of a mass failure."""
    outage = held.outage
    if outage is None:
        return
    target = settings.config_map
    yield Problem(
        "MassFailure",
        f"{len(outage.services)} of {outage.published} published services turned unhealthy at about the same time, so "
        "our own network is the likeliest cause: they stay listed until they recover, for at most "
        f"{settings.mass_failure.hold}, or until somebody releases them: kubectl annotate --overwrite configmap "
        f"--namespace {target.namespace} {target.name} {RELEASE}=$(date +%s)",
    )


def _data(present: ConfigMap | None) -> Mapping[str, str]:
    return (present.data if present is not None else None) or {}


def _documents_of(present: ConfigMap | None) -> tuple[Document, ...]:
    """Return the documents that a ConfigMap holds."""
    data = _data(present)
    return tuple(Document(key, data[key]) for key in (holmesgpt.KEY, generic.KEY) if key in data)
