"""Partial Structs of the Kubernetes objects that we read (kubernetes.io/docs/reference/kubernetes-api/).

Only the fields that somebody reads are declared: msgspec skips the rest while it decodes, which is most of an object
(managedFields, save a ConfigMap's, and nearly all of status). The API writes ``null`` for an empty list or map in
places, so these fields allow ``None``. Structs take no part in garbage collection (``gc=False``): 10,000 of them would
otherwise be walked by every full collection, and none of them can be part of a cycle.
"""

from datetime import datetime
from typing import Any, Literal, NamedTuple

from msgspec import Struct, field

Labels = dict[str, str]


class ObjectKey(NamedTuple):
    """Names one object of a kind. ``namespace`` is empty for a cluster-scoped kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class ObjectMeta(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The part of ``metadata`` that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: Labels | None = None
    annotations: dict[str, str] | None = None

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.namespace, self.name)


class ServicePort(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One entry of ``spec.ports``. ``target_port`` is a number, or the name of a container's port."""

    port: int
    name: str | None = None
    target_port: int | str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class ServiceSpec(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The part of a Service's ``spec`` that we read."""

    type: str | None = None
    cluster_ip: str | None = field(default=None, name="clusterIP")
    external_name: str | None = None
    external_ips: tuple[str, ...] | None = field(default=None, name="externalIPs")
    selector: Labels | None = None
    ports: tuple[ServicePort, ...] | None = None


class Ingress(Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry of ``status.loadBalancer.ingress``: where a load balancer takes traffic, by address or by name."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancer(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Service's ``status.loadBalancer``."""

    ingress: tuple[Ingress, ...] | None = None


class ServiceStatus(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The part of a Service's ``status`` that we read."""

    load_balancer: LoadBalancer | None = None


class Service(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Service (core/v1)."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus | None = None


class Secret(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Secret (core/v1). ``data`` is base64, and is not shown where the object is."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.key})"


class Below(Struct, frozen=True, gc=False):
    """What of a tree is not read.

    Whoever may write an object may write ``managedFields`` as deep as he likes. To compare such a tree takes more of
    Python's stack than to read it, and so could fail where nothing may be raised.
    """


class ManagedFields(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One entry of ``metadata.managedFields``: who wrote, how, and which fields, as a tree of ``f:NAME``."""

    manager: str = ""
    operation: str = ""
    fields_v1: dict[str, dict[str, dict[str, Below | None] | None] | None] | None = field(default=None, name="fieldsV1")

    def owns(self, *path: str) -> bool:
        """Whether a field belongs to this manager: ``owns("data", "key")``. No more than three names are known."""
        node: Any = self.fields_v1
        for name in path:
            node = node.get(f"f:{name}") if isinstance(node, dict) else None
        return node is not None


class OwnedMeta(ObjectMeta, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """``metadata`` of an object of which we also read who owns what."""

    managed_fields: tuple[ManagedFields, ...] | None = None


class ConfigMap(Struct, frozen=True, gc=False, omit_defaults=True):
    """A ConfigMap (core/v1), as far as text goes; ``binaryData`` is left to its owner."""

    metadata: OwnedMeta
    data: dict[str, str] | None = None
    immutable: bool | None = None


class Namespace(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Namespace (core/v1): its labels are all that we read."""

    metadata: ObjectMeta


class EndpointConditions(Struct, frozen=True, gc=False, omit_defaults=True):
    """The part of an endpoint's ``conditions`` that we read. ``ready`` is to be taken for true where it is unset."""

    ready: bool | None = None


class SliceEndpoint(Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry of ``endpoints``: addresses of one Pod, all of which are equivalent."""

    addresses: tuple[str, ...] | None = None
    conditions: EndpointConditions | None = None


class SlicePort(Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry of ``ports``. Without a number it stands for all ports."""

    port: int | None = None


class EndpointSlice(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """A part of what is behind a Service (discovery.k8s.io/v1); the label ``kubernetes.io/service-name`` says which."""

    metadata: ObjectMeta
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class LeaseSpec(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Who leads, since when, and for how long unless renewed. Times are MicroTime: RFC 3339 in UTC, microseconds."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Lease (coordination.k8s.io/v1)."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class ObjectReference(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Names one object of any kind, and which one of those that have borne the name (``uid``)."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


EventType = Literal["Normal", "Warning"]


class EventSeries(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """How often the same was seen, from twice on, and when last (MicroTime)."""

    count: int
    last_observed_time: str


class Event(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """An Event (events.k8s.io/v1). ``event_time`` is a MicroTime: when it was seen first."""

    metadata: ObjectMeta
    regarding: ObjectReference
    type: EventType
    reason: str
    action: str
    note: str
    event_time: str
    reporting_controller: str
    reporting_instance: str
    related: ObjectReference | None = None
    series: EventSeries | None = None


def micro_time(moment: datetime) -> str:
    """Return a moment, which must be in UTC, as the API writes and compares it (meta/v1 MicroTime)."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
