"""Partial Structs of the Kubernetes objects that we read (kubernetes.io/docs/reference/kubernetes-api/).

Only the fields that somebody reads are declared: msgspec skips the rest while it decodes, which is most of an object
(managedFields, status). The API writes ``null`` for an empty list or map in places, so these fields allow ``None``.
Structs take no part in garbage collection (``gc=False``): 10,000 of them would otherwise be walked by every full
collection, and none of them can be part of a cycle.
"""

from typing import NamedTuple

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
    selector: Labels | None = None
    ports: tuple[ServicePort, ...] | None = None


class Service(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Service (core/v1)."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()


class ConfigMap(Struct, frozen=True, gc=False, omit_defaults=True):
    """A ConfigMap (core/v1), as far as text goes; ``binaryData`` is left to its owner."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None
