"""Ties the stages together: looks again when something changed, publishes when the outcome did.

Level-based (as controllers of Kubernetes are): an event only says *look again*. What to do follows from the whole
present state, so that a lost, doubled or late event costs nothing but time.
"""

import asyncio
import gc
import random
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct

from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory, Judged
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.kube.client import CONFIG_MAPS, SERVICES, Client
from dynamic_toolset.kube.errors import KubernetesError
from dynamic_toolset.kube.objects import ConfigMap, Service
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.model import (
    Candidate,
    DiscoveredService,
    Document,
    Problem,
    Report,
)
from dynamic_toolset.publication.configmap import DocumentsTooLarge
from dynamic_toolset.publication.publisher import Publisher, Render, Written
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset import documents, generic, holmesgpt, overrides
from dynamic_toolset.toolset.listing import is_listed

log = structlog.get_logger()

FIRST_PUBLICATION_WAIT = 1.0
"""Seconds that the first publication waits for verdicts, where nothing says what was listed before."""


class Pacer:
    """Says when to look: at once after a quiet time, then less and less often while changes keep coming.

    One change of a person comes as two events, the Service's and then the verdict of its first check; so the first
    two looks of a burst are free. From then on the time between two looks is 100 ms, doubling to 5 s. A burst is
    over when nothing came for half a second, and for twice the time that the next look would have to wait.
    """

    FREE = 2
    FIRST = 0.1
    LONGEST = 5.0
    QUIET = 0.5

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._looks = 0
        self._last = float("-inf")

    def notify(self) -> None:
        """Something changed. Cheap, and any number of calls before the next look count as one."""
        self._changed.set()

    async def wait(self) -> None:
        """Return when it is time to look."""
        await self._changed.wait()
        now = asyncio.get_running_loop().time()
        if now - self._last > max(self.QUIET, 2 * self._pause(max(self._looks, self.FREE))):
            self._looks = 0
        if self._looks >= self.FREE:
            await asyncio.sleep(self._last + self._pause(self._looks) - now)
        self._changed.clear()
        self._looks += 1
        self._last = asyncio.get_running_loop().time()

    def _pause(self, looks: int) -> float:
        return float(min(self.FIRST * 2 ** min(looks - self.FREE, 16), self.LONGEST))


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
        self._inventory = Inventory(Detector(catalog, settings))
        self._services = Reflector(
            client, SERVICES, Service, transform=self._inventory.judge, on_change=self._pacer.notify
        )
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
        self._publisher = Publisher(client, target, self._config_maps)
        self._probe = Probe(settings.health_check, Guard(settings.health_check.allowed_ranges))
        self._checker = Checker(self._probe, settings.health_check, on_change=self._pacer.notify)
        self._published: generic.Published = frozenset()
        self._good: tuple[Document, ...] = ()
        self._source: tuple[tuple[Candidate, ...], str | None] | None = None
        self._rendered = _NOTHING
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._report: Report | None = None

    async def run(self) -> None:
        """Work until cancelled. Every task has this one as its owner: if one dies, all end, and the error is raised."""
        async with self._probe, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._services.run(), name="services")
            tasks.create_task(self._config_maps.run(), name="configmap")
            tasks.create_task(self._checker.run(), name="health")
            tasks.create_task(self._work(), name="controller")

    async def _work(self) -> None:
        await _synced("services", self._services)
        await _synced("configmap", self._config_maps)
        present = self._publisher.present()
        self._good = _documents_of(present)
        self._published = generic.published(_data(present).get(generic.KEY, ""))
        self._look()
        if not self._published:
            # Nothing says what was listed: the first publication into a cluster, or a document that was damaged while
            # nobody looked. Without verdicts the toolset would be empty.
            await self._checker.settled(FIRST_PUBLICATION_WAIT)
        # What is loaded by now stays for the life of the process: no collection needs to walk it again.
        gc.freeze()
        while True:
            await self._pass()
            await self._pacer.wait()
            self._look()
            await asyncio.sleep(0)  # the checks of what is new are on their way before the pass keeps the loop busy

    def _look(self) -> None:
        self._inventory.update(self._services.take_changed(), self._services.store)
        self._checker.update(self._inventory.candidates)

    async def _pass(self) -> None:
        """Decide what is listed, and make it so."""
        discovered = tuple(self._discovered(candidate) for candidate in self._inventory.candidates.values())
        rendered = _NOTHING

        def render(present: ConfigMap | None) -> tuple[Document, ...]:
            nonlocal rendered
            rendered = self._render(discovered, present)
            return rendered.documents

        failure = await self._publish(render)
        if failure is None and not rendered.held:
            self._published = frozenset((one.candidate.key, one.candidate.type) for one in discovered if one.listed)
            self._good = rendered.documents
        unreadable = (
            Problem("ServiceUnreadable", f"Service {key}: {error}") for key, error in self._services.skipped.items()
        )
        problems = (*unreadable, *rendered.problems, *(() if failure is None else (failure,)))
        report = Report(self._inventory.decisions, discovered, rendered.documents, problems, failure is None)
        if report != self._report:
            _log_changes(self._report, report)
            self._report = report
            self._on_report(report)

    def _discovered(self, candidate: Candidate) -> DiscoveredService:
        health = self._checker.health(candidate.key)
        return DiscoveredService(
            candidate, health, is_listed(candidate, health, self._published, self._settings.toolset)
        )

    def _render(self, discovered: tuple[DiscoveredService, ...], present: ConfigMap | None) -> _Rendered:
        """Render the documents; with overrides that cannot be used, what was good last stays."""
        text = _data(present).get(overrides.KEY)
        source = (tuple(one.candidate for one in discovered if one.listed), text)
        if source == self._source:  # most looks find nothing that an agent would read
            return self._rendered
        try:
            rendered = documents.render(discovered, self._settings, text)
        except overrides.OverridesError as error:
            message = f"{error}; what was published last stays until this is mended"
            return _Rendered(self._good, (Problem("OverridesInvalid", message),), held=True)
        self._source, self._rendered = source, _Rendered(rendered.documents, rendered.problems)
        return self._rendered

    async def _publish(self, render: Render) -> Problem | None:
        """Publish; what went wrong, if anything, is a problem to report, and what was published last stays."""
        try:
            written = await self._publisher.publish(render)
        except DocumentsTooLarge as error:
            return Problem("TooLarge", f"{error}; what was published last stays")
        except KubernetesError as error:
            self._try_again_later()
            return Problem("PublicationFailed", str(error))
        self._failures = 0
        if written is not Written.NOTHING:
            target = self._settings.config_map
            log.info("published", configmap=f"{target.namespace}/{target.name}", outcome=written.value)
        return None

    def _try_again_later(self) -> None:
        """Wake up by timer, as a failed write causes no event: after 1 s, doubling to a minute, with jitter."""
        self._failures += 1
        delay = min(2.0 ** (self._failures - 1), 60.0) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter is no secret
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(delay, self._pacer.notify)

    def _config_map_changed(self) -> None:
        if not self._publisher.is_echo():
            self._pacer.notify()


async def _synced(name: str, reflector: Reflector[Service, Judged] | Reflector[ConfigMap, ConfigMap]) -> None:
    """Wait for the first complete list, and say what is in the way while there is none."""
    while True:
        try:
            async with asyncio.timeout(5):
                await reflector.synced.wait()
                return
        except TimeoutError:
            log.warning("not_synced", what=name, error=reflector.statistics.last_error)


def _data(present: ConfigMap | None) -> Mapping[str, str]:
    return (present.data if present is not None else None) or {}


def _documents_of(present: ConfigMap | None) -> tuple[Document, ...]:
    """Return the documents that a ConfigMap holds."""
    data = _data(present)
    return tuple(Document(key, data[key]) for key in (holmesgpt.KEY, generic.KEY) if key in data)


def _log_changes(old: Report | None, new: Report) -> None:
    """Log one event for each service whose listing or health changed, and for each problem that is new."""
    before = {one.candidate.key: one for one in old.discovered} if old else {}
    for one in new.discovered:
        was = before.pop(one.candidate.key, None)
        if was is None or (was.listed, was.health.verdict) != (one.listed, one.health.verdict):
            log.info("service_listed" if one.listed else "service_not_listed", **_fields(one))
    for gone in before.values():
        log.info("service_gone", **_fields(gone))
    for problem in new.problems:
        if old is None or problem not in old.problems:
            log.warning("problem", reason=problem.reason, message=problem.message)


def _fields(one: DiscoveredService) -> dict[str, str]:
    return {
        "service": str(one.candidate.key),
        "type": one.candidate.type,
        "endpoint": one.candidate.endpoint.url,
        "health": one.health.verdict.value,
        "reason": one.health.reason,
    }
