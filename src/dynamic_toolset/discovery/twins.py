"""Which candidates lead to the same workload, so that only one of them is listed. Pure.

Charts and operators make several Services for one workload: a headless one for its StatefulSet, one for gRPC load
balancing, one that an operator keeps for itself. A headless Service that is the only one is no duplicate.
"""

from collections import defaultdict
from collections.abc import Mapping

from dynamic_toolset.discovery.catalog import CUSTOM, Catalog
from dynamic_toolset.discovery.endpoints import is_headless
from dynamic_toolset.discovery.policy import ANNOTATION_PREFIX
from dynamic_toolset.kube.objects import Labels, Service
from dynamic_toolset.model import Decision, ServiceKey

_TWIN_SUFFIXES = ("-headless", "-hl", "-operated", "-discovery", "-nodes", "-internal")

# Labels that say how or by what a Service was made, not what is behind it.
_NOT_IDENTITY = ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart", "chart", "heritage")


def duplicates(
    candidates: Mapping[ServiceKey, tuple[Service, Decision]], catalog: Catalog
) -> dict[ServiceKey, ServiceKey]:
    """Return each duplicate with the Service that is listed in its place."""
    groups: defaultdict[tuple[str, str], list[ServiceKey]] = defaultdict(list)
    for key, (_, decision) in candidates.items():
        if decision.type is not None:
            groups[key.namespace, decision.type].append(key)
    found: dict[ServiceKey, ServiceKey] = {}
    for (_, name), keys in groups.items():
        if len(keys) == 1:
            continue
        service_type = catalog.types.get(name, catalog.types[CUSTOM])
        kept: list[ServiceKey] = []
        for key in sorted(keys, key=lambda key: _preference(candidates[key][0])):
            other = next(
                (one for one in kept if _is_twin(candidates[key], candidates[one], peers=service_type.peers)),
                None,
            )
            if other is None:
                kept.append(key)
            else:
                found[key] = other
    return found


def _preference(service: Service) -> tuple[object, ...]:
    """Order Services of one workload: asked for by its owner, for all Pods, load balanced, inside the cluster."""
    spec, name = service.spec, service.metadata.name
    outside = spec.type in {"NodePort", "LoadBalancer"}
    return (not _is_annotated(service), _is_for_one_pod(service), is_headless(service), outside, len(name), name)


def _is_twin(one: tuple[Service, Decision], kept: tuple[Service, Decision], *, peers: bool) -> bool:
    (service, decision), (other, other_decision) = one, kept
    if _is_annotated(service):
        # Its owner asked for it: then only another way to the very same thing is one too many.
        candidate, listed = decision.candidate, other_decision.candidate
        if not (_is_annotated(other) and candidate and listed and candidate.endpoint.path == listed.endpoint.path):
            return False
    loose = is_headless(service) or is_headless(other) or _is_for_one_pod(service)
    if not loose and _ports(service) != _ports(other):
        return False  # two load-balanced Services with different ports are two entrances that somebody meant
    selector, other_selector = service.spec.selector, other.spec.selector
    if selector and other_selector:
        if _agree(selector, other_selector, loose=loose):
            return True
    elif _same_labels(service, other, loose=loose) or (loose and _is_named_after(service, other)):
        return True
    return peers and is_headless(service) and _same_installation(service, other)


def _is_for_one_pod(service: Service) -> bool:
    """Whether it leads to a single replica of a StatefulSet: charts can make one of these for each, besides.

    The label is Kubernetes' own (kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-name-label).
    """
    return "statefulset.kubernetes.io/pod-name" in (service.spec.selector or ())


def _ports(service: Service) -> set[tuple[int, int | str | None]]:
    return {(port.port, port.target_port) for port in service.spec.ports or ()}


def _agree(one: Labels, other: Labels, *, loose: bool) -> bool:
    """Whether two selectors choose the same Pods, or, if ``loose``, one says it in fewer words."""
    return one == other or (loose and (one.items() <= other.items() or other.items() <= one.items()))


def _same_labels(service: Service, other: Service, *, loose: bool) -> bool:
    """Judge by labels where an object states no selector: they must name the thing, not just be there."""
    one, two = _identity(service), _identity(other)
    return bool(one and two) and _agree(one, two, loose=loose)


def _identity(service: Service) -> Labels:
    labels = service.metadata.labels or {}
    return {label: value for label, value in labels.items() if label not in _NOT_IDENTITY}


def _is_named_after(service: Service, other: Service) -> bool:
    name, other_name = service.metadata.name, other.metadata.name
    return any(name == other_name + suffix for suffix in _TWIN_SUFFIXES)


def _same_installation(service: Service, other: Service) -> bool:
    mine, theirs = service.metadata.labels or {}, other.metadata.labels or {}
    instance = mine.get("app.kubernetes.io/instance")
    name = mine.get("app.kubernetes.io/name")
    return (
        instance is not None
        and instance == theirs.get("app.kubernetes.io/instance")
        and name == theirs.get("app.kubernetes.io/name")
    )


def _is_annotated(service: Service) -> bool:
    return any(key.startswith(ANNOTATION_PREFIX) for key in service.metadata.annotations or ())
