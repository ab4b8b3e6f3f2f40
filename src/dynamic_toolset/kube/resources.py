"""The kinds of objects, as the API's paths name them (kubernetes.io/docs/reference/using-api/api-concepts/)."""

from typing import NamedTuple
from urllib.parse import quote


class Resource(NamedTuple):
    """Names a kind of objects as the API's paths do. ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str

    @property
    def discovery(self) -> str:
        """The path of the document that says which kinds its group and version have."""
        return "/" + "/".join(["apis", self.group, self.version] if self.group else ["api", self.version])

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of an object, or of the collection if ``name`` is empty (of all namespaces without one)."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "".join("/" + _segment(part) for part in parts)


def _segment(text: str) -> str:
    if text in (".", ".."):
        raise ValueError(f"{text!r} cannot be a part of a path")
    return quote(text, safe="")


SERVICES = Resource("", "v1", "services")
CONFIG_MAPS = Resource("", "v1", "configmaps")
NAMESPACES = Resource("", "v1", "namespaces")
SECRETS = Resource("", "v1", "secrets")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
EVENTS = Resource("events.k8s.io", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews")
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews")
