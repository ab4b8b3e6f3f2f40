"""What detection says of every Service, kept up to date at the cost of what changed."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.endpoints import read_url
from dynamic_toolset.discovery.policy import is_dns_label
from dynamic_toolset.discovery.selection import Selection, Tenant
from dynamic_toolset.discovery.twins import Entrance, entrance, recalled
from dynamic_toolset.kube.objects import ObjectMeta, Service
from dynamic_toolset.model import Candidate, Decision, Outcome, ServiceKey


class Judged(Struct, frozen=True, gc=False):
    """A Service as far as it is of interest: who it is, what was decided on it, and for a candidate what may follow.

    Of 10,000 Services a handful are candidates. Without the labels, annotations and ports of the others the process
    is a third smaller; and none can fill it with annotations.
    """

    metadata: ObjectMeta
    decision: Decision
    entrance: Entrance | None = None


def judge(detector: Detector, service: Service) -> Judged:
    """Decide on a Service that has just been read. Pure: what follows from it is for ``Inventory.update``."""
    decision = detector.detect(service)
    metadata = service.metadata
    # Of what is ignored nobody is told.
    uid = "" if decision.outcome is Outcome.IGNORED else metadata.uid
    bare = ObjectMeta(metadata.name, metadata.namespace, uid, metadata.resource_version)
    if decision.outcome is Outcome.CANDIDATE and decision.candidate:
        return Judged(bare, decision, entrance(service, decision.candidate))
    return Judged(bare, decision)


def recall(detector: Detector, key: ServiceKey, type_name: str, name: str, url: str) -> Judged | None:
    """Decide on a Service by what was published of it last; None if that cannot be used. Pure.

    What is published can be edited: a name that no Service can have would be in the way of all that tells of it.
    """
    endpoint = read_url(url)
    if endpoint is None or not all(map(is_dns_label, (key.namespace, key.name, type_name, name))):
        return None
    decision = detector.recall(key, type_name, name, endpoint)
    bare = ObjectMeta(key.name, key.namespace)
    return Judged(bare, decision, recalled(decision.candidate) if decision.candidate else None)


class Inventory:
    """The decision for every Service that is there.

    The same as ``Detector.discover`` over all Services, whatever the order of the changes, at the cost of what
    changed: each Service is looked at once, when it arrives; what Services mean for each other is decided anew only
    in a namespace (of one cluster) where a candidate came, changed or went, and across namespaces only where they have
    too many.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._decided: dict[ServiceKey, Decision] = {}
        self._possible: dict[Tenant, dict[ServiceKey, tuple[Entrance, Decision]]] = {}
        self._selected: dict[Tenant, Selection] = {}
        self._beyond: dict[ServiceKey, Decision] = {}
        self.decisions: Mapping[ServiceKey, Decision] = MappingProxyType({})
        """Every Service's decision, as of the last update."""
        self.candidates: Mapping[ServiceKey, Candidate] = MappingProxyType({})
        """The candidates that are taken, sorted by key, as of the last update."""

    def judge(self, service: Service) -> Judged:
        """Decide on a Service of our own cluster that has just been read."""
        return judge(self._detector, service)

    def update(self, changed: Mapping[ServiceKey, Judged | None]) -> None:
        """Take over the Services that changed, of whichever cluster. None stands for one that has been deleted."""
        touched = {key.tenant for key, judged in changed.items() if self._take(key, judged)}
        for tenant in touched:
            self._select(tenant)
        if touched:
            self._cap_all()
        self.decisions = MappingProxyType(self._decided.copy())
        if touched:
            self.candidates = MappingProxyType(
                {
                    key: decision.candidate
                    for key in sorted(rank.key for selected in self._selected.values() for rank in selected.taken)
                    if (decision := self._decided[key]).outcome is Outcome.CANDIDATE and decision.candidate
                }
            )

    def _take(self, key: ServiceKey, judged: Judged | None) -> bool:
        """Note what is new about one Service. Return whether that may matter to others."""
        was_possible = self._possible.get(key.tenant, {}).pop(key, None) is not None
        if judged is None:
            self._decided.pop(key, None)
            return was_possible
        self._decided[key] = judged.decision
        if judged.entrance is None:
            return was_possible
        self._possible.setdefault(key.tenant, {})[key] = (judged.entrance, judged.decision)
        return True

    def _select(self, tenant: Tenant) -> None:
        """Decide anew what the candidates of one namespace mean for each other."""
        if self._possible[tenant]:
            self._selected[tenant] = self._detector.select(self._possible[tenant])
            self._decided |= self._selected[tenant].decisions
        else:
            del self._possible[tenant]
            self._selected.pop(tenant, None)

    def _cap_all(self) -> None:
        """Reject what is too much in all, and take back in what no longer is."""
        taken = {tenant: selected.taken for tenant, selected in self._selected.items()}
        beyond = self._detector.beyond_all(taken, self._decided)
        for key in self._beyond.keys() - beyond.keys():
            selected = self._selected.get(key.tenant)
            if selected and key in selected.decisions:
                self._decided[key] = selected.decisions[key]
        self._decided |= beyond
        self._beyond = beyond
