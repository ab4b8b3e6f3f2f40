"""The kinds that the sandbox serves, and where they are found."""

from typing import Any

from msgspec import Struct

from dynamic_toolset import toolset_config
from dynamic_toolset.kube.objects import ObjectKey

Object = dict[str, Any]
"""A Kubernetes object as JSON. Once stored it is never changed: a write stores another one."""


class Resource(Struct, frozen=True):
    """One kind.

    ``short`` is what people call it in kubectl. ``fields`` are the top-level fields beside apiVersion, kind and
    metadata. ``counted``: it has a ``metadata.generation``. ``guarded``: an update must state a resourceVersion.
    ``upserted``: an update of an object that is not there creates it. ``echoed``: a deletion is answered with the
    object instead of a Status. ``reports``: its status is a subresource, which is written by itself and as a whole.
    """

    group: str
    version: str
    plural: str
    kind: str
    short: tuple[str, ...]
    fields: tuple[str, ...]
    namespaced: bool = True
    counted: bool = False
    guarded: bool = False
    upserted: bool = False
    echoed: bool = False
    reports: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path below which all kinds of the group and version are."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def qualified(self) -> str:
        """The name in messages: ``leases.coordination.k8s.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", ("ns",), ("spec", "status"), namespaced=False, echoed=True)
SERVICES = Resource("", "v1", "services", "Service", ("svc",), ("spec", "status"), upserted=True, echoed=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", ("cm",), ("data", "binaryData", "immutable"))
SECRETS = Resource("", "v1", "secrets", "Secret", (), ("data", "type", "immutable"))
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", (), ("spec",), guarded=True, upserted=True)
ENDPOINT_SLICES = Resource(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", (), ("addressType", "endpoints", "ports"), counted=True
)
TOOLSET_CONFIGS = Resource(
    toolset_config.GROUP,
    toolset_config.VERSION,
    toolset_config.PLURAL,
    toolset_config.KIND,
    ("tsc",),
    ("spec", "status"),
    counted=True,
    guarded=True,
    reports=True,
)
RESOURCES = (NAMESPACES, SERVICES, CONFIG_MAPS, SECRETS, LEASES, ENDPOINT_SLICES, TOOLSET_CONFIGS)
"""The kinds of which objects are kept."""

TOKEN_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "tokenreviews", "TokenReview", (), ("spec", "status"), namespaced=False
)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
    (),
    ("spec", "status"),
    namespaced=False,
)
REVIEWS = (TOKEN_REVIEWS, SUBJECT_ACCESS_REVIEWS)
"""The kinds that can only be created, and are answered instead of kept."""

_BY_KIND = {resource.kind: resource for resource in RESOURCES}
_BY_PLACE = {(resource.group, resource.version, resource.plural): resource for resource in (*RESOURCES, *REVIEWS)}


def of_kind(kind: str) -> Resource:
    """Return the resource of a kind. Raises ValueError for one that the sandbox does not serve."""
    try:
        return _BY_KIND[kind]
    except KeyError:
        raise ValueError(f"the sandbox serves {', '.join(_BY_KIND)}, not {kind!r}") from None


class Target(Struct, frozen=True):
    """What a request is about. Without ``name`` all objects, without ``namespace`` those of all namespaces.

    ``status``: about that part of the object only.
    """

    resource: Resource
    namespace: str = ""
    name: str = ""
    status: bool = False

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.namespace, self.name)


def target(path: str) -> Target | None:
    """Return what a URL path is about; None for a path that leads to no object.

    ``/api/v1/...`` is the core group, ``/apis/GROUP/VERSION/...`` any other
    (kubernetes.io/docs/reference/using-api/api-concepts/, "Resource URIs").
    """
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        _, namespace, *rest = rest
    if len(rest) not in (1, 2, 3):
        return None
    resource = _BY_PLACE.get((group, version, rest[0]))
    if resource is None or (namespace and not resource.namespaced):
        return None
    if len(rest) > 2 and not (resource.reports and rest[2] == "status"):
        return None
    found = Target(resource, namespace, rest[1] if len(rest) > 1 else "", len(rest) > 2)
    return None if found.name and resource.namespaced and not namespace else found
