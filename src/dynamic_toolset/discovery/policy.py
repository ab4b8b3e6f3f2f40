"""Who may publish what: which namespaces are looked at, which types each may publish, and where a Service may lead.

Whoever may create a Service must not reach further through us, or through the agent, than through a Pod of his own. So
what a Service can do without a Pod behind it (name any host, stand for endpoints that somebody wrote by hand) takes a
grant by the operator, and so does, if the operator says so, what an agent relies on most. All of it is pure.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from ipaddress import AddressValueError, IPv4Address
from itertools import islice
from types import MappingProxyType

from dynamic_toolset.discovery.annotations import ENDPOINT, quoted
from dynamic_toolset.discovery.catalog import CUSTOM, Catalog
from dynamic_toolset.kube import selectors
from dynamic_toolset.kube.objects import ObjectKey, ObjectMeta, Service
from dynamic_toolset.settings import Settings
from dynamic_toolset.strict_yaml import MAX_MISTAKES

NamespaceLabels = Mapping[str, Mapping[str, str]]
"""The labels of each namespace, by its name."""

NO_LABELS: NamespaceLabels = MappingProxyType({})

_KUBERNETES_API = ObjectKey("default", "kubernetes")

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_HOST_LENGTH = 253

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What the last label of a host looks like if resolvers take the whole for an address, in any base (127.1, 0x7f.1)."""

_MAX_TYPES_SHOWN = 8


class Permissions:
    """What the settings let Services publish. Every answer is a reason for a person, or None where nothing is refused.

    ``namespace_labels`` is read anew for each answer, so it may be a live mapping.

    ``cluster`` is whose Services they are, empty for our own. A namespace of another cluster is trusted with nothing
    because one of ours is called like it: a pattern grants something there only if it names the cluster, too.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, namespace_labels: NamespaceLabels, cluster: str = ""
    ) -> None:
        policy = settings.policy

        def meant(patterns: tuple[str, ...]) -> Callable[[str], bool]:
            return _any_of(_of_cluster(patterns, cluster))

        self._cluster = cluster
        self._namespaces = settings.namespaces
        self._selected = selectors.parse(settings.namespaces.selector)
        self._labels = namespace_labels
        self._chosen = selectors.parse(settings.selector)
        self._service_types = settings.service_types
        self._known_types = catalog.types.keys()
        self._allowed_types = [(meant(one.namespaces), frozenset(one.types)) for one in policy.allowed_types]
        # They limit a namespace, which without them may publish everything: so those without a cluster hold everywhere.
        self._allowed_anywhere = [
            (_any_of(_of_cluster(one.namespaces, "")), frozenset(one.types)) for one in policy.allowed_types
        ]
        self._trusted = meant(policy.trusted_namespaces) if policy.trusted_namespaces else _any_of(("*",))
        self._trusted_types = frozenset(policy.trusted_types)
        self._foreign = [(meant(one.namespaces), one.hosts) for one in policy.foreign_endpoints]
        self._without_selector = meant(policy.without_selector)
        self._cluster_domain = settings.cluster_domain

    def outside(self, namespace: str) -> str | None:
        """Return why Services of this namespace are not looked at."""
        if left_out := self._left_out(namespace):
            return left_out
        if self._namespaces.selector:
            labels = self._labels.get(namespace)
            if labels is None:
                return "the labels of its namespace are not known, by which the setting namespaces.selector selects"
            if not self._selected(labels):
                return "the labels of its namespace do not match the setting namespaces.selector"
        return None

    def unselected(self, metadata: ObjectMeta) -> str | None:
        """Return why a Service with these labels is not looked at."""
        if self._chosen(metadata.labels or {}):
            return None
        return "its labels do not match the setting selector"

    def _left_out(self, namespace: str) -> str | None:
        if namespace in self._namespaces.exclude:
            return "its namespace is excluded by the setting namespaces.exclude"
        if self._namespaces.include and namespace not in self._namespaces.include:
            return "its namespace is not in the setting namespaces.include"
        return None

    def refusal_of(self, namespace: str, type_name: str) -> str | None:
        """Return why nothing of this namespace may be published as this type, as far as that follows from names."""
        return self._left_out(namespace) or self._disabled(type_name) or self._refused_type(namespace, type_name)

    def grants(self, namespace: str, host: str) -> bool:
        """Whether Services of this namespace may lead to this host, though it is not theirs."""
        return any(applies(namespace) and any(_fits(host, one) for one in hosts) for applies, hosts in self._foreign)

    def refusal(self, service: Service, type_name: str, host: str | None) -> str | None:
        """Return why the Service must not be published as this type.

        ``host`` is where it leads to, if that is not the Service itself.
        """
        metadata = service.metadata
        if not has_dns_name(metadata):
            return "its name or namespace is not a DNS label, so it has no address"
        if metadata.key == _KUBERNETES_API or (host is not None and self._is_kubernetes_api(host)):
            return "it leads to the Kubernetes API, which is never listed"
        refused = self._unwanted(metadata, type_name) or self._refused_type(metadata.namespace, type_name)
        if refused:
            return refused
        if host is not None:
            return self._refused_host(service, host)
        if not service.spec.selector and not self._without_selector(metadata.namespace):
            return (
                "it has no selector, so its endpoints are written by hand and may be anywhere: "
                f"the setting policy.withoutSelector can allow that for its namespace{self._as(metadata.namespace)}"
            )
        return None

    def _unwanted(self, metadata: ObjectMeta, type_name: str) -> str | None:
        """Return why a Service is not taken for a type, whoever publishes it."""
        if disabled := self._disabled(type_name):
            return disabled
        setting = self._setting_of(type_name)
        wanted = self._service_types.get(setting)
        if wanted is None:
            return None
        for kind, asked, found in (
            ("label", wanted.labels, metadata.labels or {}),
            ("annotation", wanted.annotations, metadata.annotations or {}),
        ):
            for name, value in asked.items():
                if found.get(name) != value:
                    must = f"it must carry the {kind} {name} with the value {quoted(value)}"
                    return f"by the setting serviceTypes.{setting}.{kind}s {must}"
        return None

    def _disabled(self, type_name: str) -> str | None:
        setting = self._setting_of(type_name)
        wanted = self._service_types.get(setting)
        return None if wanted is None or wanted.enabled else f"the setting serviceTypes.{setting}.enabled is false"

    def _setting_of(self, type_name: str) -> str:
        return type_name if type_name in self._known_types else CUSTOM

    def _refused_type(self, namespace: str, type_name: str) -> str | None:
        allowances = [types for applies, types in self._allowed_types if applies(namespace)] or [
            types for applies, types in self._allowed_anywhere if applies(namespace)
        ]
        if allowances and not any(self._covers(types, type_name) for types in allowances):
            allowed = sorted(frozenset().union(*allowances))
            shown = ", ".join([*allowed[:_MAX_TYPES_SHOWN], *(["..."] if len(allowed) > _MAX_TYPES_SHOWN else [])])
            return f"the setting policy.allowedTypes lets its namespace publish {shown or 'nothing'}, not {type_name}"
        if self._covers(self._trusted_types, type_name) and not self._trusted(namespace):
            which = f"its namespace{self._as(namespace)}"
            return f"the setting policy.trustedNamespaces does not have {which}, as it must for {type_name}"
        return None

    def _covers(self, types: frozenset[str], type_name: str) -> bool:
        return type_name in types or (CUSTOM in types and type_name not in self._known_types)

    def _refused_host(self, service: Service, host: str) -> str | None:
        metadata = service.metadata
        if service.spec.type == "ExternalName" and host == (service.spec.external_name or ""):
            how = f"it is of type ExternalName and leads to {quoted(host)}"
        else:
            own_host = "its load balancer" if self._cluster else own_hosts(metadata, self._cluster_domain)[1]
            how = f"annotation {ENDPOINT} leads to {quoted(host)}, not to {own_host}"
        if not is_host(host):
            return (
                f"{how}, and that is no host name: lower-case letters, digits, '-' and '.', no '.' at the end, "
                "and an address only in its usual form"
            )
        if self.grants(metadata.namespace, host):
            return None
        which = f"its namespace{self._as(metadata.namespace)}"
        return f"{how}: the setting policy.foreignEndpoints can allow that for {which}"

    def _as(self, namespace: str) -> str:
        """Return how a namespace is to be named in the settings, where its name alone is not enough."""
        return f" as {self._cluster}/{namespace}" if self._cluster else ""

    def _is_kubernetes_api(self, host: str) -> bool:
        """Whether a host is, or is a Pod behind, the Service of the API, by any name that a search path completes."""
        name = f"{_KUBERNETES_API.name}.{_KUBERNETES_API.namespace}"
        names = (name, f"{name}.svc", f"{name}.svc.{self._cluster_domain}")
        plain = host.lower().rstrip(".")
        return plain == _KUBERNETES_API.name or any(plain == one or plain.endswith(f".{one}") for one in names)


def has_dns_name(metadata: ObjectMeta) -> bool:
    """Whether the Service can be addressed by name. The API server lets no other in; a file might hold one."""
    return is_dns_label(metadata.name) and is_dns_label(metadata.namespace)


def is_dns_label(text: str) -> bool:
    """Whether it is a label of a DNS name in lower case, as the names of Services and types are."""
    return bool(_DNS_LABEL.fullmatch(text))


def is_host(host: str) -> bool:
    """Whether it is a DNS name in lower case, or an IPv4 address in the one form that everybody reads alike."""
    if len(host) > _MAX_HOST_LENGTH:
        return False
    labels = host.split(".")
    if not all(map(is_dns_label, labels)):
        return False
    return _is_address(host) or not _NUMBER.fullmatch(labels[-1])


def unknown_types(settings: Settings, catalog: Catalog) -> list[str]:
    """Return, for each type in the settings that the catalog does not have, one line that names setting and type.

    Of more than MAX_MISTAKES the first are named.
    """
    policy = settings.policy
    named = [
        *((f"policy.allowedTypes[{number}].types", one.types) for number, one in enumerate(policy.allowed_types)),
        ("policy.trustedTypes", policy.trusted_types),
        *((f"serviceTypes.{name}", (name,)) for name in settings.service_types),
    ]
    found = (
        f"{path}: there is no service type {name!r}; {_near(name, catalog.types)}"
        for path, names in named
        for name in names
        if name not in catalog.types
    )
    return list(islice(found, MAX_MISTAKES))


def own_hosts(metadata: ObjectMeta, cluster_domain: str) -> tuple[str, str, str]:
    """Return the names of a Service itself, from the shortest that works everywhere to the full one."""
    base = f"{metadata.name}.{metadata.namespace}"
    return base, f"{base}.svc", f"{base}.svc.{cluster_domain}"


def _fits(host: str, pattern: str) -> bool:
    """Whether a pattern names a host: exactly, or, as ``*.domain``, any name below it. An address only exactly."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and not _is_address(host)
    return host == pattern


def _is_address(host: str) -> bool:
    try:
        return str(IPv4Address(host)) == host
    except AddressValueError:
        return False


def _of_cluster(patterns: tuple[str, ...], cluster: str) -> tuple[str, ...]:
    """Return the patterns that are for a cluster, each without what names that; without a name it is our own."""
    parts = (pattern.rpartition("/") for pattern in patterns)
    return tuple(
        namespace
        for whose, slash, namespace in parts
        if (fnmatchcase(cluster, whose) if slash and cluster else not slash and not cluster)
    )


def _any_of(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return whether a name fits one of the patterns, in which ``*`` stands for any text."""
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    loose = tuple(pattern for pattern in patterns if "*" in pattern)
    return lambda name: name in exact or any(fnmatchcase(name, pattern) for pattern in loose)


def _near(name: str, types: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, types, n=1)
    hint = f"did you mean {near[0]!r}? There" if near else "there"
    return f"{hint} are {', '.join(types)}; '{CUSTOM}' stands for all that are people's own"
