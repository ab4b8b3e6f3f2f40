"""What the status of a ToolsetConfig says: pure.

The conditions are those of the API conventions (github.com/kubernetes/community/blob/master/contributors/devel/
sig-architecture/api-conventions.md, "Typical status properties"): each is there from the first status on, whether it
holds or not, so that somebody can wait for it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from dynamic_toolset.model import DiscoveredService, Document, Problem, Report, ServiceKey, Verdict
from dynamic_toolset.settings import ConfigMapSettings, Settings
from dynamic_toolset.strict_yaml import shortened
from dynamic_toolset.toolset_config import (
    MAX_CONDITION_MESSAGE,
    MAX_DIFF,
    MAX_ENDPOINT,
    MAX_ERRORS,
    MAX_MESSAGE,
    MAX_SERVICES,
    Condition,
    ConfigMapRef,
    Phase,
    ServiceStatus,
    Status,
)

IGNORED: Phase = "Ignored"

_MAX_REASON = 256
"""Characters of what a check found: 500 of them are a good part of what an object may hold."""

_HARMLESS = frozenset({"Paused", "DryRun", "RestartNeeded", "OverrideWaiting", "OverridesIgnored"})
"""Problems that are somebody's will, and take nothing from the toolset: they degrade nothing."""


class Looks(Protocol):
    """Full looks at everything: how many, when the last one was, and when the next one is due (since the epoch)."""

    @property
    def count(self) -> int: ...
    @property
    def last_at(self) -> float | None: ...
    @property
    def next_at(self) -> float | None: ...


class Facts(Struct, frozen=True):
    """Everything that a status is made from.

    ``problems`` are all that are known, ``checked`` says when each service was checked last (seconds since the epoch),
    ``generation`` is that of the spec of which all this speaks, and ``diff`` what a dry run would change.
    """

    report: Report
    settings: Settings
    problems: tuple[Problem, ...]
    looks: Looks
    checked: Mapping[ServiceKey, float]
    generation: int
    diff: str = ""


def status(facts: Facts, before: Status, now: float) -> Status:
    """Return the status, of bounded size. ``before`` is the one that it replaces; ``now`` is since the epoch."""
    report, target = facts.report, facts.settings.config_map
    shown = report.discovered[:MAX_SERVICES]
    verdicts = [one.health.verdict for one in report.discovered]
    return Status(
        observed_generation=facts.generation,
        phase=_phase(facts),
        conditions=_carried(_conditions(facts), before, facts.generation, now),
        last_discovery_time=_optional_time(facts.looks.last_at),
        next_discovery_time=_optional_time(facts.looks.next_at),
        discovery_count=facts.looks.count,
        services_discovered=len(verdicts),
        services_healthy=verdicts.count(Verdict.HEALTHY),
        services_unhealthy=verdicts.count(Verdict.UNHEALTHY),
        discovered_services=tuple(_service(one, facts.checked.get(one.candidate.key)) for one in shown),
        omitted_services=len(report.discovered) - len(shown),
        errors=tuple(shortened(one.message, MAX_MESSAGE - 3) for one in facts.problems[:MAX_ERRORS]),
        config_map_ref=ConfigMapRef(target.name, target.namespace, _published_hash(report, before, target)),
        diff=_whole_lines(facts.diff, MAX_DIFF),
        would_change=not report.published if facts.settings.paused or facts.settings.dry_run else None,
    )


def ignored(generation: int, chosen: str, before: Status, now: float) -> Status:
    """Return the status of a ToolsetConfig that configures nobody, because ``chosen`` is the one that counts."""
    why = (
        f"no running instance has this name: the one that says so is configured by ToolsetConfig {chosen}. An instance "
        "takes the ToolsetConfig that is called as its setting toolsetConfig.name says, or as its ConfigMap is"
    )
    ready = Condition("Ready", "False", "NotInUse", why, "")
    return Status(observed_generation=generation, phase=IGNORED, conditions=_carried((ready,), before, generation, now))


def means_the_same(one: Status, other: Status) -> bool:
    """Whether two statuses say the same: when something was checked is no news as long as it is as it was."""
    return _timeless(one) == _timeless(other)


def _timeless(one: Status) -> Status:
    services = tuple(replace(service, last_checked=None) for service in one.discovered_services)
    conditions = tuple(
        replace(condition, last_transition_time="") for condition in sorted(one.conditions, key=lambda one: one.type)
    )
    return replace(one, discovered_services=services, conditions=conditions)


# --- In one word, and in several -------------------------------------------------------------------------------------


def _phase(facts: Facts) -> Phase:
    problems = {problem.reason for problem in facts.problems}
    if "ResourceInvalid" in problems:
        return "Invalid"
    if facts.settings.paused:
        return "Paused"
    if facts.settings.dry_run:
        return "DryRun"
    if problems - _HARMLESS:
        return "Degraded"
    return "Ready" if facts.report.published else "Pending"


def _conditions(facts: Facts) -> tuple[Condition, ...]:
    by_reason: dict[str, str] = {}
    for problem in facts.problems:
        by_reason.setdefault(problem.reason, problem.message)
    serious = [problem for problem in facts.problems if problem.reason not in _HARMLESS]
    invalid = by_reason.get("ResourceInvalid")
    published, target = facts.report.published, facts.settings.config_map
    where = f"ConfigMap {target.namespace}/{target.name}"
    synced = Condition("Synced", "True", "Published", f"{where} says what it should", "")
    if not published:
        synced = _unsynced(facts, where, serious)
    ready = replace(synced, type="Ready")
    if invalid is not None:
        ready = Condition("Ready", "False", "ResourceInvalid", _bounded(invalid), "")
    return (
        ready,
        synced,
        _refuted("Accepted", "ResourceInvalid", by_reason, "InForce", "the spec is in force"),
        _refuted("OverridesValid", "OverridesInvalid", by_reason, "Valid", "the overrides can be used"),
        _degraded(serious),
        _stated("MassFailure", by_reason, "services fail one by one, or not at all"),
        _stated("Paused", by_reason, "the ConfigMap is written", holds=facts.settings.paused),
        _stated("DryRun", by_reason, "the ConfigMap is written", holds=facts.settings.dry_run),
        _stated("RestartNeeded", by_reason, "all settings are in force"),
    )


def _unsynced(facts: Facts, where: str, serious: Sequence[Problem]) -> Condition:
    for reason, holds in (("Paused", facts.settings.paused), ("DryRun", facts.settings.dry_run)):
        if holds:
            return Condition("Synced", "False", reason, f"{where} does not say what it should: nothing is written", "")
    if serious:
        return Condition("Synced", "False", serious[-1].reason, _bounded(serious[-1].message), "")
    return Condition("Synced", "False", "Pending", f"{where} is yet to be written", "")


def _degraded(serious: Sequence[Problem]) -> Condition:
    if not serious:
        return Condition("Degraded", "False", "AsExpected", "nothing is in the way", "")
    reasons = sorted({problem.reason for problem in serious})
    reason = reasons[0] if len(reasons) == 1 else "SeveralProblems"
    return Condition("Degraded", "True", reason, _bounded("; ".join(problem.message for problem in serious)), "")


def _refuted(kind: str, problem: str, problems: Mapping[str, str], reason: str, message: str) -> Condition:
    """Return a condition that holds unless there is that problem."""
    if problem in problems:
        return Condition(kind, "False", problem, _bounded(problems[problem]), "")
    return Condition(kind, "True", reason, message, "")


def _stated(kind: str, problems: Mapping[str, str], otherwise: str, *, holds: bool | None = None) -> Condition:
    """Return a condition that holds if there is a problem of that name, or because it is said so."""
    if kind in problems if holds is None else holds:
        return Condition(kind, "True", kind, _bounded(problems.get(kind, f"the settings say {kind}")), "")
    return Condition(kind, "False", "AsExpected", otherwise, "")


def _carried(found: Iterable[Condition], before: Status, generation: int, now: float) -> tuple[Condition, ...]:
    """Return conditions with the time since when each is as it is."""
    old = {condition.type: condition for condition in before.conditions}
    carried = []
    for condition in found:
        was = old.get(condition.type)
        same = was is not None and was.status == condition.status and was.last_transition_time
        since = was.last_transition_time if was is not None and same else time(now)
        carried.append(replace(condition, last_transition_time=since, observed_generation=generation))
    return tuple(carried)


# --- The services ----------------------------------------------------------------------------------------------------

_WORDS: Mapping[Verdict, tuple[str, str]] = {
    Verdict.HEALTHY: ("Healthy", "Answers"),
    Verdict.UNHEALTHY: ("Unhealthy", "CheckFailed"),
    Verdict.UNKNOWN: ("Unknown", "NotChecked"),
}


def _service(one: DiscoveredService, checked: float | None) -> ServiceStatus:
    candidate, health = one.candidate, one.health
    condition, reason = _WORDS[health.verdict]
    if health.refused:
        reason = "AddressRefused"
    elif health.needs_credentials:
        reason = "CredentialsNeeded"
    return ServiceStatus(
        namespace=candidate.key.namespace,
        name=candidate.key.name,
        cluster=candidate.key.cluster,
        type=candidate.type,
        endpoint=candidate.endpoint.url[:MAX_ENDPOINT],
        healthy=health.verdict is Verdict.HEALTHY,
        condition=condition,
        last_checked=_optional_time(checked),
        reason=reason,
        message=shortened(health.reason, _MAX_REASON),
    )


# --- Small things ----------------------------------------------------------------------------------------------------


def _published_hash(report: Report, before: Status, target: ConfigMapSettings) -> str:
    """Return the hash of what the ConfigMap holds, as far as that is known."""
    if report.published:
        return hash_of(report.documents)
    was = before.config_map_ref
    return was.hash if was is not None and (was.name, was.namespace) == (target.name, target.namespace) else ""


def hash_of(documents: Iterable[Document]) -> str:
    """Return what tells these documents from others: SHA-256 of each key and text, in the order of the keys."""
    digest = hashlib.sha256()
    for document in sorted(documents, key=lambda one: one.key):
        for part in (document.key.encode(), document.text.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{digest.hexdigest()}"


def time(seconds: float) -> str:
    """Return a time as the API writes it (meta/v1 Time)."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _optional_time(seconds: float | None) -> str | None:
    return None if seconds is None else time(seconds)


def _whole_lines(text: str, limit: int) -> str:
    """Return as many lines of a text as may be; a last one says that there are more."""
    if len(text) <= limit:
        return text
    more = "\n..."
    return text[: text.rfind("\n", 0, limit - len(more) + 1)] + more


def _bounded(message: str) -> str:
    return shortened(message, MAX_CONDITION_MESSAGE - 3)
