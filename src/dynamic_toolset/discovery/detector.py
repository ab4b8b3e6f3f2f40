"""From a Service to a candidate, or to the reason why not. Pure.

What a Service is, is said by its annotations, or else by evidence that must agree: labels (of the Service, and in its
selector those of the Pods behind it) and a port of the product. A name or a port alone proves nothing: every second
controller listens on 9090, and everything that has to do with Prometheus is called so.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import IntEnum

import msgspec
from msgspec import Struct

from dynamic_toolset.discovery import annotations, selection
from dynamic_toolset.discovery.annotations import Request, quoted
from dynamic_toolset.discovery.catalog import CUSTOM, Catalog, Rule, ServiceType, as_tuple, port_pattern
from dynamic_toolset.discovery.endpoints import (
    endpoint,
    foreign_host,
    is_headless,
    matching_port,
    named_port,
    only_port,
    outside_port,
    scheme_of,
    target_number,
    web_ports,
)
from dynamic_toolset.discovery.policy import NO_LABELS, NamespaceLabels, Permissions
from dynamic_toolset.discovery.ports import Patterns, considered
from dynamic_toolset.discovery.selection import Possible, Rank, Selection
from dynamic_toolset.discovery.twins import Entrance, entrance
from dynamic_toolset.kube.objects import Labels, Service, ServicePort
from dynamic_toolset.model import Candidate, Decision, Endpoint, Outcome, PortNote, Rejection, Scheme, ServiceKey
from dynamic_toolset.settings import Namespaces, Settings

MAX_LABELS = 64
"""How many labels a Service, or its selector, may have. Real ones have up to a dozen; the API sets no bound."""

MAX_PORTS = 250
"""How many ports a Service may have. The API sets no bound but its size."""

# The labels that `app` and `component` stand for in rules, the recommended ones first
# (kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/), then those of older charts, of kubectl
# run, of kompose, of OpenStack-Helm and Zalando (application), and of manifests that say service for app.
_SHORT: dict[str, tuple[str, ...]] = {
    "app": ("app.kubernetes.io/name", "app", "k8s-app", "name", "run", "io.kompose.service", "application", "service"),
    "component": ("app.kubernetes.io/component", "component"),
}
_LONG = frozenset(label for labels in _SHORT.values() for label in labels)

# What stands beside a product under its name and is not its query API. A rule may name such a component explicitly.
_HELPERS = frozenset(
    {
        *("agent", "collector", "distributor", "exporter", "ingester", "metrics", "pushgateway"),  # on the way in
        *("cache", "compactor", "gossip", "memberlist", "memcached", "ruler", "sidecar"),  # on the inside
        *("adapter", "canary", "controller", "mcp", "operator", "provisioner", "reloader", "renderer"),  # beside it
        *("cronjob", "hook", "job", "test", "webhook", "webhooks"),
    }
)

_Index = dict[str, list[tuple[ServiceType, Rule]]]

_NO_TRACE = Decision(Outcome.IGNORED, "it has no toolset annotation, and no labels or name of a known service type")


class _Strength(IntEnum):
    """How well evidence names a product, best first."""

    EXACT = 0
    SUFFIX = 1
    NAME = 2


class _Match(Struct, frozen=True):
    """A rule that holds for a Service, and the port that corroborates it."""

    type: ServiceType
    rule: Rule
    port: ServicePort
    strength: _Strength
    evidence: tuple[str, ...]


class _Miss(Struct, frozen=True):
    """Why a rule whose labels fit does not hold after all."""

    reason: str


class _Kind(Struct, frozen=True):
    """What a Service is taken for, and why. ``name`` is the type's, or what its owner calls a type of his own.

    ``ports`` are the patterns of its ports that count here.
    """

    name: str
    type: ServiceType
    evidence: tuple[str, ...]
    ports: Patterns


class _Place(Struct, frozen=True):
    """Where a service type is usually found in a Service."""

    port: ServicePort | None
    scheme: Scheme
    path: str


class _Facts(Struct, frozen=True):
    """What a Service says about itself, read once. ``pods``: the labels of the Pods, as far as the selector tells."""

    service: Service
    own: Labels
    pods: Labels
    ports: tuple[ServicePort, ...]

    def short(self, word: str) -> list[tuple[str, str]]:
        """Return the labels that ``app`` or ``component`` stands for.

        The Pods' own word on which product they are beats the Service's: an umbrella chart labels its Services with
        its own name. On the component both are heard, because the Service's part may be one of several of a Pod.
        """
        pods = [(label, self.pods[label]) for label in _SHORT[word] if label in self.pods]
        own = [(label, self.own[label]) for label in _SHORT[word] if label in self.own]
        if word == "app":
            return pods or own
        return own + [found for found in pods if found not in own]

    def is_anonymous(self) -> bool:
        """Whether no label says what is behind the Service. Where there is a selector, it is the one to say it."""
        labels = self.pods or self.own
        return not any(label in labels for label in _SHORT["app"])


class Detector:
    """Decides about Services by a catalog and the settings. It holds no state that changes.

    ``namespace_labels`` are the labels of each namespace, by which the setting ``namespaces.selector`` selects. It may
    be a live mapping: what it says at the time of a decision counts, and a namespace that it lacks is not selected.
    """

    def __init__(self, catalog: Catalog, settings: Settings, namespace_labels: NamespaceLabels = NO_LABELS) -> None:
        self._catalog = catalog
        self._settings = settings
        self._permissions = Permissions(settings, catalog, namespace_labels)
        self._everywhere = settings.namespaces == Namespaces()
        self._selects = bool(settings.selector)
        self._by_value: _Index = {}
        self._by_name: _Index = {}
        self._by_label: dict[str, _Index] = {}
        for service_type in catalog.types.values():
            for rule in service_type.detect:
                self._file(service_type, rule)

    def detect(self, service: Service) -> Decision:
        """Decide about one Service on its own: a candidate, rejected or ignored. It never raises."""
        metadata = service.metadata
        asked = annotations.request(metadata.annotations)
        if isinstance(asked, annotations.OptedOut):
            return _ignored(f"its owner opted out: annotation {annotations.TOOLSET} is {asked.value}")
        outside = None if self._everywhere else self._permissions.outside(metadata.namespace)
        if outside:
            return _ignored(outside)
        unselected = self._permissions.unselected(metadata) if self._selects else None
        if unselected:
            return _ignored(unselected)
        if isinstance(asked, annotations.Broken):
            return _rejected(asked.reason)
        if self._settings.require_annotations and not (asked and asked.wanted):
            switch = f"{annotations.TOOLSET}: enabled"
            return _ignored(f"the setting requireAnnotations is on, and it has no annotation {switch}")
        rules = self._plausible(service)
        if not rules and asked is None:
            return _NO_TRACE
        excess = _excess(service)
        if excess:
            return _rejected(excess, by=Rejection.LIMIT)
        found = self._recognise(service, rules)
        if asked is None:
            return self._detected(service, Request(), found)
        return self._asked_for(service, asked, found)

    def select(self, possible: Possible) -> Selection:
        """Decide what the possible candidates of one namespace mean for each other; their order does not matter."""
        return selection.within_namespace(possible, self._catalog, self._settings.policy.max_per_namespace)

    def beyond_all(
        self, taken: Mapping[str, tuple[Rank, ...]], decided: Mapping[ServiceKey, Decision]
    ) -> dict[ServiceKey, Decision]:
        """Decide which of the candidates that are taken of each namespace are too many in all."""
        return selection.beyond_all(taken, decided, self._settings.policy.max_in_all)

    def discover(self, services: Iterable[Service]) -> dict[ServiceKey, Decision]:
        """Decide about all Services of a cluster, in their order."""
        decided: dict[ServiceKey, Decision] = {}
        possible: defaultdict[str, dict[ServiceKey, tuple[Entrance, Decision]]] = defaultdict(dict)
        for service in services:
            key = service.metadata.key
            decided[key] = decision = self.detect(service)
            possible[key.namespace].pop(key, None)  # of two with one name the last counts
            if decision.candidate:
                possible[key.namespace][key] = (entrance(service, decision.candidate), decision)
        selected = {namespace: self.select(group) for namespace, group in possible.items()}
        for one in selected.values():
            decided |= one.decisions
        return decided | self.beyond_all({namespace: one.taken for namespace, one in selected.items()}, decided)

    # --- Which rules are worth a look -----------------------------------------------------------------------------

    def _file(self, service_type: ServiceType, rule: Rule) -> None:
        """Put a rule under one of its conditions, by which Services that may fit are found: most fit none."""
        entry = (service_type, rule)
        for word in _SHORT:
            values = as_tuple(rule.labels.get(word, ""))
            if all(values):
                for value in values:
                    self._by_value.setdefault(_tail(value) if value[0] == "*" else value, []).append(entry)
                return
        for label, wanted in (*rule.selector.items(), *rule.labels.items()):
            values = as_tuple(wanted)
            if label not in _SHORT and all(values):
                index = self._by_label.setdefault(label, {})
                for value in values:
                    index.setdefault("*" if value[0] == "*" else value, []).append(entry)
                return
        for name in rule.names:
            self._by_name.setdefault(name, []).append(entry)

    def _plausible(self, service: Service) -> list[tuple[ServiceType, Rule]]:
        by_value, by_label = self._by_value, self._by_label
        found = list(self._by_name.get(service.metadata.name, ()))
        for labels in (service.metadata.labels, service.spec.selector):
            if not labels:
                continue
            for label, value in labels.items():
                if label in by_label:
                    found += by_label[label].get(value, ())
                    found += by_label[label].get("*", ())
                if label in _LONG:
                    if value in by_value:
                        found += by_value[value]
                    if "-" in value:
                        found += by_value.get(_tail(value), ())
        return found

    # --- What it is -----------------------------------------------------------------------------------------------

    def _recognise(self, service: Service, rules: list[tuple[ServiceType, Rule]]) -> "_Match | _Miss | None":
        if not rules:
            return None
        facts = _Facts(service, service.metadata.labels or {}, service.spec.selector or {}, web_ports(service))
        matches: dict[str, _Match] = {}
        missed: _Miss | None = None
        for service_type in {service_type.name: service_type for service_type, _ in rules}.values():
            for rule in service_type.detect:
                found = _judge(facts, service_type, rule)
                if isinstance(found, _Match):
                    matches[service_type.name] = found
                    break
                missed = missed or found
        if not matches:
            return missed
        best = min(match.strength for match in matches.values())
        first, *others = (matches[name] for name in sorted(matches) if matches[name].strength == best)
        if others:
            titles = " and ".join(match.type.title for match in (first, *others))
            return _Miss(f"it looks like {titles} at the same time: annotation {annotations.TYPE} can say which it is")
        return first

    def _detected(self, service: Service, asked: Request, found: "_Match | _Miss | None") -> Decision:
        if not isinstance(found, _Match):
            return _ignored(found.reason) if found else _NO_TRACE
        kind = _Kind(found.type.name, found.type, found.evidence, found.type.ports_of(found.rule))
        if found.rule.reject and asked.path is None and asked.endpoint is None:
            return _rejected(found.rule.reject, _ports(service, kind))
        refused = self._refusal(service, asked, kind)
        if refused:
            return _rejected(
                f"it looks like {found.type.title}, but {refused}", _ports(service, kind), by=Rejection.POLICY
            )
        return self._candidate(service, asked, kind, _place(found))

    # --- What its owner asks for ----------------------------------------------------------------------------------

    def _asked_for(self, service: Service, asked: Request, found: "_Match | _Miss | None") -> Decision:
        if not asked.type:
            if isinstance(found, _Match):
                return self._detected(service, asked, found)
            why = found.reason if found else "nothing else says what it is"
            return _rejected(f"annotation {annotations.TYPE} is needed: {why}", considered(service))
        types = self._catalog.types
        service_type = types.get(asked.type, types[CUSTOM])
        evidence = [f"annotation {annotations.TYPE}: {asked.type}"]
        if asked.type not in types:
            near = difflib.get_close_matches(asked.type, types, n=1, cutoff=0.75)
            evidence.append(f"a type of its owner's own{f', not {near[0]}' if near else ''}")
        if isinstance(found, _Match) and found.type is service_type:
            patterns, place = service_type.ports_of(found.rule), _place(found)
        else:
            patterns, place = _usual_place(service, service_type)
        kind = _Kind(asked.type, service_type, tuple(evidence), patterns)
        refused = self._refusal(service, asked, kind)
        if refused:
            return _rejected(refused, _ports(service, kind), by=Rejection.POLICY)
        return self._candidate(service, asked, kind, place)

    # --- Whether it may be, and where it is -----------------------------------------------------------------------

    def _refusal(self, service: Service, asked: Request, kind: "_Kind") -> str | None:
        """Return why it must not be listed, though it could be; None if it may be."""
        return self._permissions.refusal(service, kind.name, self._foreign_host(service, asked))

    def _foreign_host(self, service: Service, asked: Request) -> str | None:
        return foreign_host(service, asked.endpoint, self._settings.cluster_domain)

    def _candidate(self, service: Service, asked: Request, kind: "_Kind", place: "_Place") -> Decision:
        """Make the candidate, with all that the owner asked for."""
        host = self._foreign_host(service, asked)
        port, scheme, path = place.port, place.scheme, place.path
        wanted = str(asked.endpoint.port) if asked.endpoint else asked.port
        annotation = None
        if wanted is not None:
            annotation = annotations.ENDPOINT if asked.endpoint else annotations.PORT
            port = named_port(service, wanted) if host is None else outside_port(service, wanted)
            if port is None:
                rule = f"a port of this Service: {_ports_in_words(service)}"
                return _rejected(annotations.broken(annotation, wanted, rule), _ports(service, kind))
        if port is None:
            if host is None and not web_ports(service):
                return _rejected("it has no TCP port that could speak HTTP", _ports(service, kind), by=Rejection.PORT)
            why = f"annotation {annotations.PORT} is needed, to say which port is meant: {_ports_in_words(service)}"
            return _rejected(why, _ports(service, kind))
        if asked.endpoint:
            scheme, path = asked.endpoint.scheme, asked.endpoint.path
        else:
            scheme = asked.scheme or scheme_of(service, port, scheme)
            path = _first(asked.path, path)
        evidence = kind.evidence
        if host is None:
            url = endpoint(service, port, scheme, path, self._settings)
        else:
            url = Endpoint(scheme, host, port.port, path)
            evidence = (*evidence, f"it leads to {host}, as the setting policy.foreignEndpoints allows")
        check = kind.type.health
        if asked.health_path:
            check = msgspec.structs.replace(check, path=asked.health_path, root=True)
        candidate = Candidate(
            key=service.metadata.key,
            type=kind.name,
            name=asked.name or service.metadata.name,
            endpoint=url,
            check=check,
            agent=kind.type.holmesgpt,
            title=kind.type.title,
            description=kind.type.description,
            catalog_type=kind.type.name,
        )
        title = kind.type.title if kind.name == kind.type.name else f"{kind.type.title} ({kind.name})"
        ports = _ports(service, kind, port, annotation)
        return Decision(Outcome.CANDIDATE, f"{title}: {', '.join(evidence)}", candidate, evidence, ports)


def _judge(facts: _Facts, service_type: ServiceType, rule: Rule) -> _Match | _Miss | None:
    """Hold one rule against a Service. A miss is worth telling only where the labels fit."""
    name = facts.service.metadata.name
    if rule.names and name not in rule.names:
        return None
    evidence: list[str] = [f"name {name}"] if rule.names else []
    strength = _Strength.EXACT if rule.labels or rule.selector else _Strength.NAME
    named = False
    for label, values in (*rule.selector.items(), *rule.labels.items()):
        wanted = as_tuple(values)
        fact = _fact(facts, label, wanted, in_selector=label in rule.selector)
        if fact is None:
            return _other_part(facts, service_type) if named and label == "component" else None
        if fact:
            key, value, exact = fact
            named = True
            evidence.append(f"label {key}={quoted(value)[1:-1]}")
            if label == "app" and not exact:
                strength = _Strength.SUFFIX
    if not named:
        strength = _Strength.NAME
    helper = _helper(facts, rule)
    if helper:
        return _Miss(f"it has labels of {service_type.title}, but {helper} is not its query API")
    patterns = service_type.ports_of(rule)
    port = matching_port(facts.ports, patterns)
    if port is None:
        shown = ", ".join(str(pattern) for pattern in patterns[:4])
        return _Miss(f"it has labels of {service_type.title}, but no port of its query API ({shown})")
    evidence += [f"port {quoted(port.name)[1:-1]} {port.port}" if port.name else f"port {port.port}", rule.source]
    return _Match(service_type, rule, port, strength, tuple(evidence))


def _fact(
    facts: _Facts, label: str, wanted: tuple[str, ...], *, in_selector: bool
) -> tuple[str, str, bool] | tuple[()] | None:
    """Return the label that fits, with whether it fits exactly; () where none is wanted and none there; else None."""
    if label in _SHORT:
        found = facts.short(label)
        absent = facts.is_anonymous() if label == "app" else not found
    else:
        places = (facts.pods,) if in_selector else (facts.own, facts.pods)
        found = [(label, labels[label]) for labels in places if label in labels]
        absent = not found
    if absent and "" in wanted:
        return ()
    for exact in (True, False):
        for key, value in found:
            for pattern in wanted:
                if (value == pattern) if exact else (pattern[:1] == "*" and value.endswith(pattern[1:])):
                    return key, value, exact
    return None


def _other_part(facts: _Facts, service_type: ServiceType) -> _Miss | None:
    parts = ", ".join(quoted(component)[1:-1] for _, component in facts.short("component"))
    return (
        _Miss(f"it has labels of {service_type.title}, but component {parts} is not its query API") if parts else None
    )


def _helper(facts: _Facts, rule: Rule) -> str | None:
    """Return what shows that the Service belongs to a helper of the product; None if nothing does."""
    if "component" not in rule.labels:
        for _, component in facts.short("component"):
            if not _HELPERS.isdisjoint(component.lower().replace("_", "-").split("-")):
                return f"component {quoted(component)[1:-1]}"
    name = facts.service.metadata.name
    for suffix in ("-headless", "-service", "-svc", "-server"):
        name = name.removesuffix(suffix)
    word = name.rpartition("-")[2]
    # A product's own name may end so too: victoria-metrics.
    if "-" in name and word in _HELPERS and not any(value.endswith(f"-{word}") for _, value in facts.short("app")):
        return f"a Service whose name ends with -{word}"
    return None


def _place(found: _Match) -> _Place:
    scheme, path = found.rule.scheme or found.type.scheme, _first(found.rule.path, found.type.path)
    return _Place(found.port, scheme, path)


def _usual_place(service: Service, service_type: ServiceType) -> tuple[Patterns, _Place]:
    """Return where a product listens when only its annotation says which it is, and the patterns that say so.

    A rule's port number tells how the product is deployed here (a cluster's query part has another base path), a name
    such as ``http`` does not.
    """
    ports = web_ports(service)
    port = matching_port(ports, service_type.ports)
    if port is not None:
        return service_type.ports, _Place(port, service_type.scheme, service_type.path)
    for rule in service_type.detect:
        numbered = tuple(pattern for pattern in rule.ports if port_pattern(pattern)[1] is not None)
        port = None if rule.reject else matching_port(ports, numbered)
        if port is not None:
            return numbered, _Place(port, rule.scheme or service_type.scheme, _first(rule.path, service_type.path))
    return service_type.ports, _Place(only_port(ports), service_type.scheme, service_type.path)


def _excess(service: Service) -> str | None:
    """Return what a Service has too much of; None if it is of a size that people make."""
    metadata, spec = service.metadata, service.spec
    for what, found, most in (
        ("labels", metadata.labels, MAX_LABELS),
        ("labels in its selector", spec.selector, MAX_LABELS),
        ("ports", spec.ports, MAX_PORTS),
    ):
        if found and len(found) > most:
            return f"it has {len(found)} {what}, and at most {most} are looked at"
    return None


def _ports_in_words(service: Service) -> str:
    shown = []
    for port in web_ports(service)[:8]:
        target = target_number(port)
        number = f"{port.port}" if not is_headless(service) or target is None else f"{target}"
        shown.append(f"{number} ({quoted(port.name, 20)[1:-1]})" if port.name else number)
    return ", ".join(shown) or "it has none that could speak HTTP"


def _tail(value: str) -> str:
    return "*" + value[value.rfind("-") + 1 :]


def _first(value: str | None, otherwise: str) -> str:
    return otherwise if value is None else value


def _ignored(reason: str) -> Decision:
    return Decision(Outcome.IGNORED, reason)


def _rejected(reason: str, ports: tuple[PortNote, ...] = (), *, by: Rejection = Rejection.ANNOTATION) -> Decision:
    return Decision(Outcome.REJECTED, reason, ports=ports, rejection=by)


def _ports(
    service: Service, kind: _Kind, chosen: ServicePort | None = None, annotation: str | None = None
) -> tuple[PortNote, ...]:
    return considered(service, chosen, title=kind.type.title, patterns=kind.ports, annotation=annotation)
