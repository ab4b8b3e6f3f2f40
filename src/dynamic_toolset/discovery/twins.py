"""Which candidates lead to the same workload, so that only one of them is listed. Pure.

Charts and operators make several Services for one workload: a headless one for its StatefulSet, one for gRPC load
balancing, one that an operator keeps for itself. A headless Service that is the only one is no duplicate.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec import Struct

from dynamic_toolset.discovery.annotations import ANNOTATION_PREFIX
from dynamic_toolset.discovery.catalog import CUSTOM, Catalog
from dynamic_toolset.discovery.endpoints import external_addresses, is_headless
from dynamic_toolset.kube.objects import Labels, Service
from dynamic_toolset.model import Candidate, ServiceKey

MAX_COMPARISONS = 20_000
"""How many pairs of a namespace are compared at most, in 10 ms: enough for 200 headless Services of one type that have
nothing to do with each other. Beyond that only equals are found, which takes no comparison; the caps do the rest."""

_TWIN_SUFFIXES = ("-headless", "-hl", "-operated", "-discovery", "-nodes", "-internal")

# Labels that say how or by what a Service was made, not what is behind it.
_NOT_IDENTITY = ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart", "chart", "heritage")

_Pairs = frozenset[tuple[str, str]]
_Exact = tuple[str | None, str, _Pairs, frozenset[tuple[int, int | str | None]] | None]


class Entrance(Struct, frozen=True, gc=False):
    """One way into a workload: what is needed of a candidate's Service to see whether another leads to the same.

    ``created`` is when the Service was made, as the API writes it. ``path`` is there if its owner annotated it.
    ``loose``: it may choose the Pods of another in more words or in fewer. ``installation`` is the release and product
    by its labels. ``outside``: it leads to another host, so nothing is known of what is behind it.
    """

    name: str
    created: str
    type: str
    preference: tuple[bool, bool, bool, bool, int, str]
    path: str | None
    headless: bool
    loose: bool
    outside: bool
    ports: frozenset[tuple[int, int | str | None]]
    selector: _Pairs
    identity: _Pairs
    installation: tuple[str, str | None] | None


def entrance(service: Service, candidate: Candidate) -> Entrance:
    """Return what is needed of a candidate's Service, and let go of the rest."""
    metadata, spec = service.metadata, service.spec
    labels = metadata.labels or {}
    instance = labels.get("app.kubernetes.io/instance")
    is_annotated = any(key.startswith(ANNOTATION_PREFIX) for key in metadata.annotations or ())
    # The label is Kubernetes' own: charts can make a Service for each replica of a StatefulSet, besides
    # (kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-name-label).
    is_for_one_pod = "statefulset.kubernetes.io/pod-name" in (spec.selector or ())
    is_exposed = spec.type in {"NodePort", "LoadBalancer"}
    headless = is_headless(service)
    return Entrance(
        name=metadata.name,
        created=metadata.creation_timestamp,
        type=candidate.type,
        preference=(not is_annotated, is_for_one_pod, headless, is_exposed, len(metadata.name), metadata.name),
        path=candidate.endpoint.path if is_annotated else None,
        headless=headless,
        loose=headless or is_for_one_pod,
        outside=_leads_elsewhere(service, candidate),
        ports=frozenset((port.port, port.target_port) for port in spec.ports or ()),
        selector=frozenset((spec.selector or {}).items()),
        identity=frozenset(_identity(labels)),
        installation=None if instance is None else (instance, labels.get("app.kubernetes.io/name")),
    )


def _leads_elsewhere(service: Service, candidate: Candidate) -> bool:
    host, metadata = candidate.endpoint.host, service.metadata
    if not candidate.key.cluster:
        return host != candidate.endpoint.address and not host.startswith(f"{metadata.name}.{metadata.namespace}.svc.")
    balancer = service.status.load_balancer if service.status else None
    balanced = {text for one in (balancer.ingress if balancer else None) or () for text in (one.ip, one.hostname)}
    return host not in balanced and host not in external_addresses(service)


def recalled(candidate: Candidate) -> Entrance:
    """Return what is known of a candidate whose Service cannot be read for now: it leads somewhere else than others."""
    nothing: frozenset[tuple[str, str]] = frozenset()
    return Entrance(
        name=candidate.key.name,
        created="",
        type=candidate.type,
        preference=(True, False, False, False, len(candidate.key.name), candidate.key.name),
        path=None,
        headless=False,
        loose=False,
        outside=True,
        ports=frozenset(),
        selector=nothing,
        identity=nothing,
        installation=None,
    )


def duplicates(entrances: Mapping[ServiceKey, Entrance], catalog: Catalog) -> dict[ServiceKey, ServiceKey]:
    """Return each duplicate of one namespace with the Service that stands for both.

    Entrances are taken best first: asked for by its owner, for all Pods, load balanced, inside the cluster. The cost
    grows with their number, not with its square.
    """
    groups: defaultdict[str, list[ServiceKey]] = defaultdict(list)
    for key, one in entrances.items():
        if not one.outside:
            groups[one.type].append(key)
    found: dict[ServiceKey, ServiceKey] = {}
    budget = MAX_COMPARISONS
    for name, keys in sorted(groups.items()):
        if len(keys) == 1:
            continue
        kept = _Kept(budget, peers=catalog.types.get(name, catalog.types[CUSTOM]).peers)
        for key in sorted(keys, key=lambda key: entrances[key].preference):
            other = kept.find(entrances[key])
            if other is None:
                kept.add(key, entrances[key])
            else:
                found[key] = other
        budget = kept.budget
    return found


class _Kept:
    """The entrances of one type that are no duplicates, best first."""

    def __init__(self, budget: int, *, peers: bool) -> None:
        self.budget = budget
        self._peers = peers
        self._all: list[tuple[ServiceKey, Entrance]] = []
        self._headless: list[tuple[ServiceKey, Entrance]] = []
        self._exact: dict[_Exact, ServiceKey] = {}

    def add(self, key: ServiceKey, one: Entrance) -> None:
        self._all.append((key, one))
        if one.headless:
            self._headless.append((key, one))
        for exact in _known_as(one):
            self._exact.setdefault(exact, key)

    def find(self, one: Entrance) -> ServiceKey | None:
        """Return a twin that is kept: an equal, or else the best of those that are alike."""
        for exact in _looks_for(one):
            if exact in self._exact:
                return self._exact[exact]
        for key, other in self._all if one.loose else self._headless:
            if self.budget == 0:
                return None
            self.budget -= 1
            if _is_alike(one, other, peers=self._peers):
                return key
        return None


def _known_as(kept: Entrance) -> Iterable[_Exact]:
    """Yield by what an equal would find it: by selector or labels, with its ports or, if loose, without."""
    kinds = [("identity", kept.identity)] if kept.identity else []
    if kept.selector:
        kinds.append(("selector", kept.selector))
    elif kept.identity:
        kinds.append(("only identity", kept.identity))
    for path in {None, kept.path}:
        for kind, pairs in kinds:
            yield path, kind, pairs, kept.ports
            yield path, kind, pairs, None


def _looks_for(one: Entrance) -> Iterable[_Exact]:
    """Yield what an equal is known as. Labels count where one of the two has no selector."""
    ports = None if one.loose else one.ports
    if one.selector:
        yield one.path, "selector", one.selector, ports
        yield one.path, "only identity", one.identity, ports
    else:
        yield one.path, "identity", one.identity, ports


def _is_alike(one: Entrance, kept: Entrance, *, peers: bool) -> bool:
    """Whether one of two entrances, of which at least one is loose, leads to the other's workload."""
    if one.path is not None and one.path != kept.path:
        return False  # its owner asked for it: then only another way to the very same thing is one too many
    if one.selector and kept.selector:
        if _agree(one.selector, kept.selector):
            return True
    elif (one.identity and kept.identity and _agree(one.identity, kept.identity)) or _is_named_after(one, kept):
        return True
    return peers and one.headless and one.installation is not None and one.installation == kept.installation


def _agree(one: _Pairs, other: _Pairs) -> bool:
    """Whether two selectors choose the same Pods, or one says it in fewer words."""
    return one <= other or other <= one


def _identity(labels: Labels) -> Iterable[tuple[str, str]]:
    """Yield the labels by which an object is judged that states no selector: those that name the thing."""
    return ((label, value) for label, value in labels.items() if label not in _NOT_IDENTITY)


def _is_named_after(one: Entrance, kept: Entrance) -> bool:
    return any(one.name == kept.name + suffix for suffix in _TWIN_SUFFIXES)
