"""From a report to the answers of the API: pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Literal

import yaml
from msgspec import Struct
from msgspec.structs import asdict

from dynamic_toolset.controller import logbook
from dynamic_toolset.controller.statistics import FullLooks
from dynamic_toolset.kube.objects import ConfigMap
from dynamic_toolset.model import (
    UNCHECKED,
    Check,
    Decision,
    DiscoveredService,
    Entry,
    Outcome,
    Report,
    ServiceKey,
)
from dynamic_toolset.publication import configmap
from dynamic_toolset.server import answers
from dynamic_toolset.server.answers import ServiceItem, ServiceRef
from dynamic_toolset.settings import ConfigMapSettings, Settings, YamlLoader
from dynamic_toolset.toolset import generic, holmesgpt

Section = Literal["toolsets", "mcp_servers"]

_SECTIONS: tuple[Section, ...] = ("toolsets", "mcp_servers")


class Query(Struct, frozen=True):
    """Which Services are wanted. Of several values of one kind any will do; an empty one asks for nothing."""

    types: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()
    health: frozenset[str] = frozenset()
    decisions: frozenset[str] = frozenset()
    listed: bool | None = None
    search: str = ""

    def matches(self, item: ServiceItem) -> bool:
        return (
            (not self.types or item.type in self.types)
            and (not self.namespaces or item.namespace in self.namespaces)
            and (not self.clusters or item.cluster in self.clusters)
            and (not self.health or item.health in self.health)
            and (not self.decisions or item.decision in self.decisions)
            and (self.listed is None or item.listed is self.listed)
            and (not self.search or self._finds(item))
        )

    def _finds(self, item: ServiceItem) -> bool:
        text = f"{_key(item)} {item.type or ''} {item.endpoint or ''} {item.reason}".casefold()
        return all(word in text for word in self.search.casefold().split())


_FEW = 500
"""Rows that are put where they belong one by one; of more all are made anew."""


class Services:
    """Every Service of a report as the API shows it, sorted by namespace, name and cluster.

    ``before`` is the same of an earlier report: what did not change is taken over, so that a change among 10,000 costs
    little, and holds nobody up. One report may be asked from several places, always in the event loop.
    """

    def __init__(self, report: Report, before: "Services | None" = None) -> None:
        discovered = {one.candidate.key: one for one in report.discovered}
        self.decisions: Mapping[ServiceKey, Decision] = report.decisions
        self.special: AbstractSet[ServiceKey] = discovered.keys() | report.held
        """Whose rows depend on more than their decision: few, and made anew without a look at what they were."""

        def row(key: ServiceKey) -> ServiceItem:
            return _item(key, self.decisions[key], discovered.get(key), held=key in report.held)

        changed = before._differs_from(self) if before is not None else None  # noqa: SLF001 - one of us
        if before is None or changed is None:
            keys = sorted(self.decisions)
            items = [row(key) for key in keys]
        else:
            keys, items = list(before.keys), list(before.items)
            for key in changed:
                at = bisect_left(keys, key)
                is_there = keys[at : at + 1] == [key]
                stays = key in self.decisions
                keys[at : at + is_there] = [key] * stays
                items[at : at + is_there] = [row(key)] if stays else []
        self.keys: Sequence[ServiceKey] = keys
        self.items: tuple[ServiceItem, ...] = tuple(items)

    def _differs_from(self, later: "Services") -> AbstractSet[ServiceKey] | None:
        """Return whose rows may be others later; None if they are many."""
        known = self.decisions
        changed = {key for key, decision in later.decisions.items() if known.get(key) is not decision}
        if len(known) + len(changed - known.keys()) > len(later.decisions):
            changed |= known.keys() - later.decisions.keys()
        changed |= self.special | later.special
        return changed if len(changed) <= _FEW else None

    def get(self, key: ServiceKey) -> tuple[ServiceItem, Decision] | None:
        """Return a Service with its decision; None if there is none of this name."""
        decision = self.decisions.get(key)
        return (self.items[bisect_left(self.keys, key)], decision) if decision is not None else None


def page(items: Sequence[ServiceItem], after: ServiceKey | None, limit: int) -> answers.ServiceList:
    """Return ``limit`` of the sorted items that come after a name, though it may be gone by now."""
    start = 0 if after is None else bisect_right(items, after, key=_key)
    chosen = tuple(items[start : start + limit])
    more = start + limit < len(items)
    return answers.ServiceList(chosen, len(items), str(_key(chosen[-1])) if more else None)


def detail(
    item: ServiceItem, decision: Decision, checks: Iterable[Check], documents: "Documents"
) -> answers.ServiceDetail:
    """Return the whole decision about a Service."""
    shown = tuple(checks)
    toolsets = documents.toolsets_of(_key(item)) if item.listed else ()
    return answers.ServiceDetail(
        **asdict(item),
        evidence=decision.evidence,
        ports=tuple(answers.PortItem(one.port, one.name, one.chosen, one.note) for one in decision.ports),
        failures=shown[0].health.failures if shown else 0,
        checks=tuple(
            answers.CheckItem(time(one.at), one.health.verdict.value, one.health.reason, round(one.health.seconds, 4))
            for one in shown
        ),
        toolsets=toolsets,
        agent=documents.excerpt(_key(item), toolsets) if toolsets else None,
    )


def toolset(report: Report, target: ConfigMapSettings) -> answers.ToolsetAnswer:
    """Return the documents."""
    return answers.ToolsetAnswer(
        ServiceRef(target.namespace, target.name),
        report.published,
        tuple(answers.DocumentItem(one.key, one.text) for one in report.documents),
        answers.OverridesAnswer(
            report.overrides,
            tuple(answers.EffectItem(one.toolset, one.section, one.kind, one.message) for one in report.effects),
        ),
        problems(report),
    )


LABELS = "metadata.labels"
"""Stands for the labels of the ConfigMap beside its keys: no document is called so."""

_SAME_LINES = "(the lines are the same, their ends are not)"

_HOLDING = frozenset(
    {
        *("Paused", "DryRun"),
        *("OverridesInvalid", "TooLarge", "PublicationFailed", "LeaseUnavailable"),
        *("ConfigMapImmutable", "ConfigMapForeign", "ConfigMapContested"),
    }
)
"""The problems for which what is published stays as it is."""

_UNSETTLING = frozenset({"ResourceInvalid", "ResourceUnknown"})
"""The same while it is not known which settings are to be in force. Later the last good settings stay in force."""


def diff(
    report: Report, present: ConfigMap | None, target: ConfigMapSettings, withheld: tuple[answers.ProblemItem, ...]
) -> answers.DiffAnswer:
    """Return what a write of the documents would change in the ConfigMap as it is."""
    data = (present.data if present is not None else None) or {}
    keys, labels = configmap.differences(present, report.documents)
    texts = {one.key: one.text for one in report.documents}
    changes = [
        answers.DiffItem(
            key,
            logbook.diff(data.get(key, ""), texts[key], f"{key} as it is", f"{key} as it would be") or _SAME_LINES,
        )
        for key in keys
    ]
    if labels and texts:  # without a document nothing is written at all
        changes.append(answers.DiffItem(LABELS, _labels(present, labels)))
    ref = ServiceRef(target.namespace, target.name)
    return answers.DiffAnswer(ref, present is not None, tuple(changes), withheld)


def _labels(present: ConfigMap | None, names: Iterable[str]) -> str:
    given = (present.metadata.labels if present is not None else None) or {}
    lines = [f"--- {LABELS} as they are", f"+++ {LABELS} as they would be"]
    for name in names:
        lines += [f"-{name}: {given[name]}"] if name in given else []
        lines.append(f"+{name}: {configmap.LABELS[name]}")
    return "\n".join(lines)


def withheld(
    report: Report, settings: Settings, *, leads: bool, holder: str | None, unsettled: bool = False
) -> tuple[answers.ProblemItem, ...]:
    """Return why what differs is not written now."""
    holding = _HOLDING | _UNSETTLING if unsettled else _HOLDING
    found = {one.reason: one.message for one in report.problems if one.reason in holding}
    if unsettled and _UNSETTLING.isdisjoint(found):  # the API is slow, which is no problem yet
        found["ResourceUnknown"] = "whether a ToolsetConfig configures this instance is not known yet"
    if not leads:
        found["Standby"] = f"another instance leads, and writes: {holder}" if holder else "no instance leads at present"
    # The settings may be newer than the report.
    if settings.paused:
        found.setdefault("Paused", "the setting paused is true, so nothing is written")
    if settings.dry_run:
        found.setdefault("DryRun", "the setting dryRun is true, so nothing is written")
    return tuple(answers.ProblemItem(reason, message) for reason, message in found.items())


def problems(report: Report) -> tuple[answers.ProblemItem, ...]:
    """Return what a person should look at."""
    return tuple(answers.ProblemItem(one.reason, one.message) for one in report.problems)


class Documents:
    """What the documents of a report say, read back: what an agent would find in them, as far as it can be read."""

    def __init__(self, report: Report) -> None:
        texts = {one.key: one.text for one in report.documents}
        self._holmesgpt = _read(texts.get(holmesgpt.KEY, ""))
        self._used: dict[str, list[ServiceRef]] = {}
        self._names: dict[ServiceKey, tuple[str, tuple[str, ...]]] = {}
        for tool in generic.tools(texts.get(generic.KEY, "")):
            self._names[tool.service] = tool.instance, tool.toolsets
            for name in tool.toolsets:
                self._used.setdefault(name, []).append(ServiceRef(*tool.service))
        self._effects = {(one.section, one.toolset): one.kind for one in report.effects}

    def toolsets_of(self, service: ServiceKey) -> tuple[str, ...]:
        """Return the names of the toolsets through which the agent uses a service."""
        return self._names.get(service, ("", ()))[1]

    def excerpt(self, service: ServiceKey, toolsets: Iterable[str]) -> dict[str, Any]:
        """Return what the agent reads of one service: its toolsets, without the instances of others."""
        instance = self._names.get(service, ("", ()))[0]
        found: dict[str, Any] = {}
        for name in toolsets:
            for section in _SECTIONS:
                entry = self._section(section).get(name)
                if isinstance(entry, dict):
                    found.setdefault(section, {})[name] = _only(entry, instance)
        return found

    def items(self) -> tuple[answers.ToolsetItem, ...]:
        """Return all toolsets, by name."""
        return tuple(
            self._item(section, name, entry)
            for section in _SECTIONS
            for name, entry in sorted(self._section(section).items())
            if name in self._used or not name.startswith(holmesgpt.MARKER)  # a type of somebody's own may be called so
        )

    def get(self, name: str) -> answers.ToolsetDetail | None:
        """Return one toolset with its content; None if there is none of this name."""
        for section in _SECTIONS:
            entry = self._section(section).get(name)
            if entry is not None:
                content = entry if isinstance(entry, dict) else {}
                return answers.ToolsetDetail(**asdict(self._item(section, name, entry)), content=content)
        return None

    def _section(self, section: Section) -> Mapping[str, Any]:
        content = self._holmesgpt.get(section)
        return {str(name): entry for name, entry in content.items()} if isinstance(content, dict) else {}

    def _item(self, section: Section, name: str, entry: Any) -> answers.ToolsetItem:
        effect = self._effects.get((section, name))
        services = tuple(self._used.get(name, ()))
        content = entry if isinstance(entry, dict) else {}
        return answers.ToolsetItem(
            name,
            section,
            enabled=content.get("enabled") is not False,
            source="overrides" if effect == "added" else "services" if services else "base",
            services=services,
            overridden=effect in {"changed", "added"},
            description=str(content.get("description", "")),
        )


def _read(text: str) -> Mapping[str, Any]:
    """Read HolmesGPT's file, as far as that goes: while we must not write it anybody may have damaged it."""
    try:
        content = yaml.load(text, YamlLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def history(entries: Iterable[Entry]) -> answers.HistoryList:
    """Return the entries, which are given in their order, the newest first."""
    return answers.HistoryList(tuple(map(entry, reversed(tuple(entries)))))


def entry(one: Entry) -> answers.HistoryItem:
    """Return one entry of the history."""
    change = one.change
    return answers.HistoryItem(
        one.id,
        time(one.at),
        change.event,
        ServiceRef(*change.service) if change.service is not None else None,
        change.type,
        change.endpoint,
        change.health,
        change.reason,
        change.message,
        change.cause,
        change.diff,
    )


def counts(report: Report) -> answers.ServiceCounts:
    """Return how many Services there are, of which kind."""
    verdicts = [one.health.verdict.value for one in report.discovered]
    return answers.ServiceCounts(
        known=len(report.decisions),
        candidates=len(report.discovered),
        listed=sum(one.listed for one in report.discovered),
        healthy=verdicts.count("healthy"),
        unhealthy=verdicts.count("unhealthy"),
        unknown=verdicts.count("unknown"),
        held=len(report.held),
    )


def full_looks(of: FullLooks) -> answers.FullLookCounts:
    """Return how many full looks there were, and when."""
    last, following = (None if at is None else time(at) for at in (of.last_at, of.next_at))
    return answers.FullLookCounts(of.count, last, following)


def time(at: float) -> str:
    """Return seconds since the epoch as people write them (RFC 3339)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _key(item: ServiceItem) -> ServiceKey:
    return ServiceKey(item.namespace, item.name, item.cluster)


def _item(key: ServiceKey, decision: Decision, one: DiscoveredService | None, *, held: bool) -> ServiceItem:
    is_candidate = decision.outcome is Outcome.CANDIDATE
    health = (one.health if one is not None else UNCHECKED) if is_candidate else None
    return ServiceItem(
        key.namespace,
        key.name,
        key.cluster,
        decision.outcome.value,
        decision.type,
        decision.endpoint,
        health.verdict.value if health is not None else None,
        listed=one is not None and one.listed,
        held=held,
        reason=health.reason if health is not None else decision.reason,
    )


def _only(entry: dict[str, Any], instance: str) -> dict[str, Any]:
    """Return a toolset without the instances of others."""
    config = entry.get("config")
    if not isinstance(config, dict):
        return entry
    kept = {
        key: [one for one in value if one.get("name", one.get("id")) == instance] if _is_list_of_named(value) else value
        for key, value in config.items()
    }
    return {**entry, "config": kept}


def _is_list_of_named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and ("name" in one or "id" in one) for one in value)
