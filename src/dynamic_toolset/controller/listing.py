"""Which candidates are in the toolset, by their health, by what is published, and by how many fail at once."""

import asyncio
import math
from collections.abc import Callable, Mapping

from dynamic_toolset.controller.conditions import RELEASE
from dynamic_toolset.controller.pacer import Alarm
from dynamic_toolset.controller.rendering import data_of
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.health.outage import Held, Outage, Removals
from dynamic_toolset.kube.objects import ConfigMap
from dynamic_toolset.model import Candidate, DiscoveredService, ServiceKey
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset import generic
from dynamic_toolset.toolset.listing import answers, is_listed


class Listing:
    """Decides what is listed. ``published`` is what was listed last, as which counts what is not known.

    ``settle`` is how many seconds after one has begun to fail all others can have been asked. ``on_change`` is called
    when the decision may be another one by time alone.
    """

    def __init__(self, settings: Settings, checker: Checker, settle: float, on_change: Callable[[], None]) -> None:
        self.published: generic.Published = frozenset()
        self._settings = settings
        self._checker = checker
        self._settle = settle
        self._removals = Removals(settings.mass_failure, settle)
        self._failing: frozenset[ServiceKey] = frozenset()
        self._outage: Outage | None = None
        self._all_asked = -math.inf
        self._wake = Alarm(on_change)

    def remember(self, present: ConfigMap | None) -> None:
        """Take what a ConfigMap says for what is published."""
        self.published = generic.published(data_of(present).get(generic.KEY, ""))

    def has_published(self, discovered: tuple[DiscoveredService, ...]) -> None:
        """Take note of what is published now."""
        self.published = frozenset((one.candidate.key, one.candidate.type) for one in discovered if one.listed)

    def decide(
        self, candidates: Mapping[ServiceKey, Candidate], present: ConfigMap | None
    ) -> tuple[tuple[DiscoveredService, ...], Held]:
        """Return every candidate with its health and whether it is listed, and what stays listed though it fails."""
        health = {key: self._checker.health(key) for key in candidates}
        now = asyncio.get_running_loop().time()
        published = frozenset(
            key
            for key, kind in self.published
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
        return tuple(self._judged(one, held) for one in candidates.values()), held

    def _judged(self, candidate: Candidate, held: Held) -> DiscoveredService:
        health = self._checker.health(candidate.key)  # which may have come to be refused by now
        listed = is_listed(candidate, health, self._settings, self.published, held.services)
        return DiscoveredService(candidate, health, listed)
