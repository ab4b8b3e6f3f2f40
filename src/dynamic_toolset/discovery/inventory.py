"""What detection says of every Service, kept up to date at the cost of what changed."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.kube.objects import ObjectMeta, Service
from dynamic_toolset.model import Candidate, Decision, Outcome, ServiceKey


class Judged(Struct, frozen=True, gc=False):
    """A Service as far as it is of interest: who it is, what was decided on it, and all of it only for a candidate.

    Of 10,000 Services a handful are candidates. Without the labels, annotations and ports of the others the process
    is a third smaller.
    """

    metadata: ObjectMeta
    decision: Decision
    service: Service | None = None


class Inventory:
    """The decision for every Service that is there.

    The same as ``Detector.discover`` over all Services, whatever the order of the changes, at the cost of what
    changed: each Service is looked at once, when it arrives, and duplicates, which stay inside of a namespace, are
    resolved anew only where a candidate came, changed or went.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._decided: dict[ServiceKey, Decision] = {}
        self._possible: dict[str, dict[ServiceKey, tuple[Service, Decision]]] = {}
        self.decisions: Mapping[ServiceKey, Decision] = MappingProxyType({})
        """Every Service's decision, as of the last update."""
        self.candidates: Mapping[ServiceKey, Candidate] = MappingProxyType({})
        """The candidates, without duplicates, sorted by key, as of the last update."""

    def judge(self, service: Service) -> Judged:
        """Decide on a Service that has just been read. Pure: what follows from it is for ``update``."""
        decision = self._detector.detect(service)
        if decision.outcome is Outcome.CANDIDATE:
            return Judged(service.metadata, decision, service)
        metadata = service.metadata
        bare = ObjectMeta(metadata.name, metadata.namespace, resource_version=metadata.resource_version)
        return Judged(bare, decision)

    def update(self, changed: Iterable[ServiceKey], present: Mapping[ServiceKey, Judged]) -> None:
        """Take over the Services that changed. A key that is not in ``present`` has been deleted."""
        unresolved = {key.namespace for key in changed if self._take(key, present.get(key))}
        for namespace in unresolved:
            self._decided |= self._detector.resolve(self._possible[namespace])
        self.decisions = MappingProxyType(self._decided.copy())
        if unresolved:
            self.candidates = MappingProxyType(
                {
                    key: decision.candidate
                    for key in sorted(key for group in self._possible.values() for key in group)
                    if (decision := self._decided[key]).outcome is Outcome.CANDIDATE and decision.candidate
                }
            )

    def _take(self, key: ServiceKey, judged: Judged | None) -> bool:
        """Note what is new about one Service. Return whether its namespace's duplicates may be others now."""
        group = self._possible.setdefault(key.namespace, {})
        was_possible = group.pop(key, None) is not None
        if judged is None:
            self._decided.pop(key, None)
            return was_possible
        self._decided[key] = judged.decision
        if judged.service is None:
            return was_possible
        group[key] = (judged.service, judged.decision)
        return True
