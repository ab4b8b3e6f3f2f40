"""Tells of what changed in Events on the objects that it happened to, in the words of the report.

Only the leader tells. What it tells is what is different from what was published: after a start, or when another
instance begins to lead, that is what the ConfigMap says, so that nothing is told anew which is as it was. Only for the
very first publication everything is news.

Which reason stands for what, and on which object, is in docs/events.md.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import Protocol

import structlog
from msgspec import Struct

from dynamic_toolset.kube.events import Outcome as Recorded
from dynamic_toolset.kube.objects import EventType, ObjectReference
from dynamic_toolset.model import (
    Candidate,
    Decision,
    DiscoveredService,
    Health,
    Outcome,
    Pass,
    Problem,
    Rejection,
    Report,
    ServiceKey,
    Verdict,
)
from dynamic_toolset.toolset.generic import Published

log = structlog.get_logger()

INTENDED = frozenset({"Paused", "DryRun"})
"""Problems that somebody wants to have."""


class Standing(Enum):
    """What has been told of a candidate, or may be taken for known."""

    LISTED = auto()
    """It is in the toolset."""
    LEFT = auto()
    """It was in the toolset, and does not answer."""
    OUT = auto()
    """It does not answer, and nothing says that it ever did."""
    REFUSED = auto()
    """It leads to an address that must be neither dialled nor published."""
    UNKNOWN = auto()
    """It was there before we were, and has not been checked yet."""


class Announcement(Struct, frozen=True):
    """What an Event says. It is on a Service, or without one on what configures this program."""

    type: EventType
    reason: str
    action: str
    note: str
    service: ServiceKey | None = None


class Known(Struct, frozen=True):
    """What has been told: of each candidate, why a Service is rejected, and which problems there are, by their gist."""

    standings: Mapping[ServiceKey, Standing] = {}
    refusals: Mapping[ServiceKey, str] = {}
    problems: frozenset[tuple[str, str]] = frozenset()


def presumed(report: Report, before: Published) -> Known:
    """Return what whoever reads of this for the first time may take for known: what was published, and what was not."""
    standings = {one.candidate.key: _presumed(one, before) for one in report.discovered}
    return Known(
        {key: standing for key, standing in standings.items() if standing is not None},
        _refusals(report.decisions),
        frozenset(map(_gist, report.problems)),
    )


def announcements(known: Known, report: Report, after: Published) -> tuple[Known, tuple[Announcement, ...]]:
    """Return what is known after a report, and what is to be told so that it is; ``after`` is what is published."""
    found: list[Announcement] = []
    standings: dict[ServiceKey, Standing] = {}
    for one in report.discovered:
        key = one.candidate.key
        was = known.standings.get(key)
        now = _standing(one, was, after)
        if now is not None:
            standings[key] = now
            found.extend(_of_service(one, was, now))
    refusals = _refusals(report.decisions)
    found.extend(
        Announcement("Warning", "Refused", "Detect", report.decisions[key].reason, key)
        for key, reason in refusals.items()
        if known.refusals.get(key) != reason
    )
    problems = frozenset(map(_gist, report.problems))
    found.extend(_of_problem(problem) for problem in report.problems if _gist(problem) not in known.problems)
    return Known(standings, refusals, problems), tuple(found)


def _presumed(one: DiscoveredService, before: Published) -> Standing | None:
    if (one.candidate.key, one.candidate.type) in before:
        return Standing.LISTED
    if one.health.refused:
        return Standing.REFUSED
    if one.listed:
        return None
    return Standing.OUT if one.health.verdict is Verdict.UNHEALTHY else Standing.UNKNOWN


def _standing(one: DiscoveredService, was: Standing | None, after: Published) -> Standing | None:
    """Return how a candidate stands now; as before while it is not known, or not published yet."""
    if (one.candidate.key, one.candidate.type) in after:
        return Standing.LISTED
    if one.health.refused:
        return Standing.REFUSED
    if one.health.verdict is Verdict.UNHEALTHY:
        return Standing.LEFT if was in {Standing.LISTED, Standing.LEFT} else Standing.OUT
    return was


def _of_service(one: DiscoveredService, was: Standing | None, now: Standing) -> Iterator[Announcement]:
    if now is was or (was is Standing.UNKNOWN and now is not Standing.LISTED):
        return
    key, candidate, health = one.candidate.key, one.candidate, one.health
    what = f"{candidate.type}, {candidate.endpoint.url}"
    match now:
        case Standing.LISTED if was is Standing.LEFT:
            yield Announcement("Normal", "Recovered", "Check", f"back in the toolset ({what}): {health.reason}", key)
        case Standing.LISTED:
            yield Announcement("Normal", "Discovered", "Check", f"in the toolset ({what}): {health.reason}", key)
        case Standing.LEFT | Standing.OUT:
            yield Announcement("Warning", "Unhealthy", "Check", f"not in the toolset ({what}): {health.reason}", key)
        case Standing.REFUSED:
            yield Announcement("Warning", "Refused", "Check", f"not in the toolset ({what}): {health.reason}", key)


def _refusals(decisions: Mapping[ServiceKey, Decision]) -> dict[ServiceKey, str]:
    """Return why each Service is rejected; of how many there are too many does not count."""
    return {
        key: _without_numbers(one.reason) if one.rejection is Rejection.LIMIT else one.reason
        for key, one in decisions.items()
        if one.outcome is Outcome.REJECTED
    }


def _of_problem(problem: Problem) -> Announcement:
    kind: EventType = "Normal" if problem.reason in INTENDED else "Warning"
    return Announcement(kind, problem.reason, "Publish", problem.message)


def _gist(problem: Problem) -> tuple[str, str]:
    """Return what makes a problem another one: not a number that has grown."""
    return problem.reason, _without_numbers(problem.message)


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "#", text)


# --- The observer ---------------------------------------------------------------------------------------------------


class Objects(Protocol):
    """What Events refer to."""

    def service(self, key: ServiceKey) -> ObjectReference | None:
        """Return a Service that is there and of interest."""

    def config_map(self) -> ObjectReference:
        """Return the ConfigMap that is published."""


Record = Callable[[ObjectReference, EventType, str, str, str, ObjectReference | None], None]


class Announcer:
    """The observer that records Events: ``record`` is asked for each, and must be quick.

    ``objects`` returns what they refer to, and ``configuration`` the ToolsetConfig, if there is one: what is on no
    Service is on that, and without one on the ConfigMap.
    """

    def __init__(
        self,
        record: Record,
        objects: Callable[[], Objects],
        configuration: Callable[[], ObjectReference | None] = lambda: None,
    ) -> None:
        self._record = record
        self._objects = objects
        self._configuration = configuration
        self._known: Known | None = None
        self._report: Report | None = None
        self._after: Published = frozenset()
        self._has_led = False

    def passed(self, done: Pass) -> None:
        """Tell of what a pass has changed."""
        if not done.seconds:  # there was no pass, only word of why there cannot be one yet
            return
        leads = done.report.leads
        if done.outcome == "created" and not self._has_led:
            self._known = Known()
        elif self._known is None or not leads:
            self._known = presumed(done.report, done.before)
        self._has_led = self._has_led or leads
        if leads and (done.report is not self._report or done.after != self._after):
            self._known, found = announcements(self._known, done.report, done.after)
            self._report, self._after = done.report, done.after
            for one in found:
                self._tell(one)
        for change in done.changes:
            if change.event == "published":
                self._tell(Announcement("Normal", "Published", "Publish", change.message))

    def checked(self, candidate: Candidate, health: Health) -> None:
        """Leave it to the pass that follows."""

    def _tell(self, one: Announcement) -> None:
        objects = self._objects()
        if one.service is not None:
            regarding, related = objects.service(one.service), None
        else:
            config_map = objects.config_map()
            regarding = self._configuration()
            related = config_map if regarding is not None else None
            regarding = regarding or config_map
        if regarding is not None:
            self._record(regarding, one.type, one.reason, one.action, one.note, related)


class Outcomes:
    """Hears what became of what was recorded: has it counted, and says what was dropped for an error."""

    def __init__(self, count: Callable[[str, Recorded], None]) -> None:
        self._count = count
        self._warned = False

    def __call__(self, reason: str, outcome: Recorded, error: str) -> None:
        self._count(reason, outcome)
        if outcome == "forbidden" and not self._warned:
            self._warned = True
            log.warning("events_forbidden", message=error)
        elif error:
            log.debug("event_lost", reason=reason, message=error)
