"""Everything that can be set, with its default, its bounds, and what must not contradict each other."""

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from dynamic_toolset.kube import selectors

# The patterns end with \Z, as before $ Python allows a line feed.
DnsLabel = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")]
DnsName = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z", max_length=253)
]
OtherCluster = Annotated[str, Meta(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?\Z")]
"""The name of another cluster, empty for our own."""
EnvName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z")]
Duration = Annotated[str, Meta(pattern=r"^([0-9]{1,6}(\.[0-9]{1,6})?(ms|s|m|h))+\Z", max_length=16)]
"""So short that no sum of them is more than Go, in which a ToolsetConfig is checked, can hold: 292 years."""
Selector = Annotated[str, Meta(max_length=4096)]
"""A label selector. How long it takes to read one grows with the square of its length."""
LabelName = Annotated[
    str, Meta(pattern=r"^([a-z0-9][-.a-z0-9]{0,252}/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")
]
"""The key of a label or annotation (kubernetes.io/docs/concepts/overview/working-with-objects/labels/)."""
LabelValue = Annotated[str, Meta(pattern=r"^([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?\Z")]
AnnotationValue = Annotated[str, Meta(max_length=1024)]
Range = Annotated[str, Meta(max_length=64)]
"""A range of addresses (CIDR), or one address."""
NamespacePattern = Annotated[
    str, Meta(pattern=r"^([a-z0-9*]([-a-z0-9*]{0,61}[a-z0-9*])?/)?[a-z0-9*]([-a-z0-9*]{0,61}[a-z0-9*])?\Z")
]
"""The name of a namespace, in which ``*`` stands for any text; with ``CLUSTER/`` before it, of another cluster."""
HostPattern = Annotated[str, Meta(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")]
"""A host name, or ``*.`` and a domain for every name below it."""
FilePath = Annotated[str, Meta(pattern=r"^[^\x00]*\Z", max_length=4095)]
"""The path of a file or folder, as long as Linux takes one (limits.h, PATH_MAX); empty where there is none."""
Origin = Annotated[str, Meta(pattern=r"^https?://[a-z0-9.\-\[\]:]+\Z")]
"""An origin as browsers send it (RFC 6454): scheme, host and port, without a slash at the end."""

MAX_ITEMS = 500
MAX_ENTRIES = 200
"""How many members a list, and a mapping, has at most. What checks a ToolsetConfig wants to know, to say how long that
takes at worst."""

_RANGE = re.compile(r"[0-9A-Fa-f.:]+(/(0|[1-9][0-9]{0,2}))?")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """Return the seconds that a duration such as ``1m30s`` stands for, to the nanosecond, as Go counts them."""
    total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))
    return round(total, 9)  # 0.6s0.3s0.1s is a second, for the API server too


class Contradiction(NamedTuple):
    """What a type alone cannot say is wrong. ``at`` is the setting within its group, and empty for several of them.

    It says nothing as long as one of ``fields``, of which it speaks, is wrong in itself.
    """

    at: str
    fields: tuple[str, ...]
    message: str


class Unfit(ValueError):
    """A group of settings contradicts itself."""

    def __init__(self, found: tuple[Contradiction, ...]) -> None:
        super().__init__("; ".join(f"{one.at}: {one.message}" if one.at else one.message for one in found))
        self.found = found


class _Settings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A group of settings. Nobody can make one that contradicts itself."""

    def __post_init__(self) -> None:
        found = (*self._too_many(), *self._contradictions())
        if found:
            raise Unfit(found)

    def _too_many(self) -> Iterator[Contradiction]:
        for attribute, name in zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True):
            value = getattr(self, attribute)
            most = MAX_ITEMS if isinstance(value, tuple) else MAX_ENTRIES
            if not isinstance(value, (tuple, dict)):
                continue
            if len(value) > most:
                yield Contradiction(name, (name,), f"{len(value)} of them: at most {most} are allowed")
            elif isinstance(value, tuple) and all(isinstance(member, str) for member in value):
                for number, member in enumerate(value):
                    if member in value[:number]:
                        yield Contradiction(f"{name}[{number}]", (name,), f"{member!r} is there twice")

    def _contradictions(self) -> Iterator[Contradiction]:
        return iter(())


def _refused(at: str, check: Callable[[str], object], text: str) -> Iterator[Contradiction]:
    """Yield what a function that raises ValueError has against a text."""
    try:
        check(text)
    except ValueError as error:
        yield Contradiction(at, (at.partition("[")[0],), str(error))


def _check_range(text: str) -> None:
    """Raise ValueError unless it is written as everybody reads it alike; Python knows more ways than Kubernetes."""
    network = ip_network(text)
    if not _RANGE.fullmatch(text):
        raise ValueError(f"{text!r} should be written as {network}")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"{text!r} stands for addresses of IPv4 in IPv6: write it as a range of IPv4")


class Namespaces(_Settings, frozen=True):
    """Which namespaces are looked at: all of ``include`` (every namespace if it is empty) that ``exclude`` leaves.

    ``selector`` is a label selector that a namespace's labels must match besides.
    """

    include: tuple[DnsLabel, ...] = ()
    exclude: tuple[DnsLabel, ...] = ()
    selector: Selector = ""

    def _contradictions(self) -> Iterator[Contradiction]:
        return _refused("selector", selectors.parse, self.selector)


class ServiceTypeSettings(_Settings, frozen=True):
    """What holds for one service type: whether it is taken at all, and what its Services must carry besides.

    ``labels`` and ``annotations`` must all be there, with these values.
    """

    enabled: bool = True
    labels: dict[LabelName, LabelValue] = {}
    annotations: dict[LabelName, AnnotationValue] = {}


class HealthCheckSettings(_Settings, frozen=True):
    """How candidates are checked. A published one is taken out after ``failure_threshold`` failed checks in a row.

    If it is not ``enabled``, every candidate counts as healthy whose addresses may be published.
    """

    enabled: bool = True
    timeout: Duration = "5s"
    interval: Duration = "30s"
    failure_threshold: Annotated[int, Meta(ge=1, le=20)] = 3
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 512
    verify_tls: bool = True
    ca_file: FilePath | None = None

    def _contradictions(self) -> Iterator[Contradiction]:
        if seconds(self.timeout) < 1:
            yield Contradiction("timeout", ("timeout",), f"must be at least 1s, not {self.timeout}")
        if seconds(self.interval) < 0.1:
            yield Contradiction("interval", ("interval",), f"must be at least 100ms, not {self.interval}")


class MassFailure(_Settings, frozen=True):
    """When many published services turn unhealthy within ``window``, none is taken out for as long as ``hold``."""

    window: Duration = "2m"
    hold: Duration = "10m"


class ForeignEndpoints(_Settings, frozen=True):
    """Services of these namespaces may point to these hosts outside of themselves (annotation, ExternalName)."""

    namespaces: tuple[NamespacePattern, ...]
    hosts: tuple[HostPattern, ...]


class AllowedTypes(_Settings, frozen=True):
    """Services of these namespaces may be of these types only. ``custom`` stands for all types of people's own."""

    namespaces: tuple[NamespacePattern, ...]
    types: tuple[DnsLabel, ...]


TRUSTED_TYPES = (
    *("prometheus", "thanos", "mimir", "victoriametrics", "loki", "elasticsearch", "opensearch", "grafana"),
    "mcp",
)
"""The types that an agent asks first, and believes; the tools of an MCP server describe themselves in its prompt."""


class Policy(_Settings, frozen=True):
    """Who may publish what, and which addresses may be dialled and published."""

    allowed_ranges: tuple[Range, ...] = ()
    refused_ranges: tuple[Range, ...] = ()
    foreign_endpoints: tuple[ForeignEndpoints, ...] = ()
    without_selector: tuple[NamespacePattern, ...] = ()
    allowed_types: tuple[AllowedTypes, ...] = ()
    trusted_namespaces: tuple[NamespacePattern, ...] = ()
    trusted_types: tuple[DnsLabel, ...] = TRUSTED_TYPES
    max_per_namespace: Annotated[int, Meta(ge=1, le=100_000)] = 50
    max_in_all: Annotated[int, Meta(ge=1, le=100_000)] = 500

    def _contradictions(self) -> Iterator[Contradiction]:
        for name, ranges in (("allowedRanges", self.allowed_ranges), ("refusedRanges", self.refused_ranges)):
            for number, cidr in enumerate(ranges):
                yield from _refused(f"{name}[{number}]", _check_range, cidr)


class LeaderElection(_Settings, frozen=True):
    """Of several instances only the one that holds the lease writes. By default it is called as the ToolsetConfig is.

    The names and the rules are those of Kubernetes' own components (k8s.io/client-go/tools/leaderelection).
    """

    enabled: bool = True
    lease_name: DnsName | None = None
    lease_duration: Duration = "15s"
    renew_deadline: Duration = "10s"
    retry_period: Duration = "2s"

    def _contradictions(self) -> Iterator[Contradiction]:
        duration, deadline, retry = map(seconds, (self.lease_duration, self.renew_deadline, self.retry_period))
        if not 1.2 * retry < deadline < duration:
            yield Contradiction(
                "",
                ("leaseDuration", "renewDeadline", "retryPeriod"),
                "leaseDuration must be longer than renewDeadline, and renewDeadline longer than 1.2 times retryPeriod; "
                f"they are {self.lease_duration}, {self.renew_deadline} and {self.retry_period}",
            )


class ConfigMapSettings(_Settings, frozen=True):
    """Where the toolset is published.

    Without ``preserve_overrides`` the overrides that people wrote there are kept, but not applied.
    """

    name: DnsName = "kubernaut-toolset-config"
    namespace: DnsLabel = "kubernaut-system"
    preserve_overrides: bool = True


class ToolsetConfigSettings(_Settings, frozen=True):
    """Which ToolsetConfig configures this instance: ``name``, in the namespace of the file's ConfigMap.

    By default it is called as that ConfigMap, so that one name names all that belongs to an instance.
    """

    enabled: bool = True
    name: DnsName | None = None


class RemoteCluster(_Settings, frozen=True):
    """Another cluster whose Services are discovered too.

    Its kubeconfig is the value of ``key`` in a Secret, which is in the namespace of the file's ConfigMap. ``name`` is
    what instances of that cluster are told apart by.
    """

    name: DnsLabel
    secret: DnsName
    key: Annotated[str, Meta(pattern=r"^[-._a-zA-Z0-9]{1,253}\Z")] = "kubeconfig"


class Credential(_Settings, frozen=True):
    """Which environment variables of the *agent* hold the credentials for one Service.

    Bound to a namespace and a Service by name: a credential for "every Grafana" would be handed to whoever may
    create a Service that looks like one. Without ``cluster`` it is one of our own cluster.
    """

    namespace: DnsLabel
    service: DnsLabel
    cluster: OtherCluster = ""
    api_key: EnvName | None = None
    username: EnvName | None = None
    password: EnvName | None = None
    bearer_token: EnvName | None = None


DEFAULT_BASE: dict[str, dict[str, Any]] = {"kubernetes/core": {"enabled": True}, "kubernetes/logs": {"enabled": True}}


class ToolsetSettings(_Settings, frozen=True):
    """What the documents hold beside the discovered services. ``base`` is HolmesGPT's ``toolsets`` mapping."""

    base: dict[str, dict[str, Any]] = msgspec.field(default_factory=lambda: DEFAULT_BASE)
    credentials: tuple[Credential, ...] = ()

    def _contradictions(self) -> Iterator[Contradiction]:
        seen: set[tuple[str, str, str]] = set()
        for number, one in enumerate(self.credentials):
            service = (one.namespace, one.service, one.cluster)
            if service in seen:
                why = f"there are credentials for {'/'.join(service[:2])} already"
                yield Contradiction(f"credentials[{number}]", ("credentials",), why)
            seen.add(service)


class TlsFiles(_Settings, frozen=True):
    """A certificate with its chain, and its key, PEM. Both are read again when the files change."""

    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    def _contradictions(self) -> Iterator[Contradiction]:
        if (self.cert_file is None) != (self.key_file is None):
            yield Contradiction("", ("certFile", "keyFile"), "certFile and keyFile belong together: give both, or none")


class ServerSettings(_Settings, frozen=True):
    """Where the service listens (``port``: probes, API and page; ``metrics_port``), and who may call.

    ``address`` is where both ports are bound: by default every address with ``auth: token``, and loopback with
    ``auth: none``, which anywhere else takes ``allow_anonymous``. A port of 0 is one that is free. ``rate_limit``
    counts the requests of one caller in a minute, 0 for no limit. ``shutdown_deadline`` includes ``shutdown_delay``.
    """

    enabled: bool = True
    address: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 9090
    auth: Literal["none", "token"] = "token"
    allow_anonymous: bool = False
    audience: Annotated[str, Meta(min_length=1, max_length=253)] = "dynamic-toolset"
    metrics_auth: Literal["none", "token"] = "none"
    tls: TlsFiles = TlsFiles()
    metrics_tls: TlsFiles = TlsFiles()
    rate_limit: Annotated[int, Meta(ge=0)] = 100
    cors_origins: tuple[Origin, ...] = ()
    max_connections: Annotated[int, Meta(ge=1, le=10000)] = 512
    shutdown_delay: Duration = "5s"
    shutdown_deadline: Duration = "30s"

    def _contradictions(self) -> Iterator[Contradiction]:
        wrong = [] if self.address is None else list(_refused("address", ip_address, self.address))
        yield from wrong
        if self.auth == "none" and not self.allow_anonymous and not wrong and not ip_address(self.bound).is_loopback:
            yield Contradiction(
                "",
                ("address", "auth", "allowAnonymous"),
                f"auth none on address {self.bound} would let everybody in who can reach it: choose auth token, "
                "bind to 127.0.0.1, or set allowAnonymous",
            )
        if not seconds(self.shutdown_delay) < seconds(self.shutdown_deadline):
            why = "shutdownDeadline must be longer than shutdownDelay"
            yield Contradiction("", ("shutdownDelay", "shutdownDeadline"), why)

    @property
    def bound(self) -> str:
        """The address that is bound; ``::`` stands for every one, of either family."""
        return self.address or ("::" if self.auth == "token" else "127.0.0.1")


class Settings(_Settings, frozen=True):
    """Everything that a person can set."""

    discovery_interval: Duration = "5m"
    paused: bool = False
    dry_run: bool = False
    cluster_domain: DnsName = "cluster.local"
    endpoint_host: Literal["dns", "clusterIP"] = "dns"
    require_annotations: bool = False
    catalog_folder: FilePath | None = None
    namespaces: Namespaces = Namespaces()
    selector: Selector = ""
    service_types: dict[DnsLabel, ServiceTypeSettings] = {}
    policy: Policy = Policy()
    health_check: HealthCheckSettings = HealthCheckSettings()
    mass_failure: MassFailure = MassFailure()
    config_map: ConfigMapSettings = ConfigMapSettings()
    toolset_config: ToolsetConfigSettings = ToolsetConfigSettings()
    clusters: tuple[RemoteCluster, ...] = ()
    leader_election: LeaderElection = LeaderElection()
    toolset: ToolsetSettings = ToolsetSettings()
    server: ServerSettings = ServerSettings()

    @property
    def instance(self) -> str:
        """What this instance is called by: the name of its ToolsetConfig and, by default, of its Lease."""
        return self.toolset_config.name or self.config_map.name

    def _contradictions(self) -> Iterator[Contradiction]:
        if not 60 <= seconds(self.discovery_interval) <= 3600:
            why = f"must be from 1m to 1h, not {self.discovery_interval}"
            yield Contradiction("discoveryInterval", ("discoveryInterval",), why)
        yield from _refused("selector", selectors.parse, self.selector)
        names = [one.name for one in self.clusters]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield Contradiction("clusters", ("clusters",), f"each cluster needs a name of its own: {', '.join(twice)}")


def leaves(model: type[Struct] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the type of each setting that is not a group of settings, in their order."""
    for field in msgspec.structs.fields(model):
        path = prefix + field.encode_name
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield from leaves(field.type, path + ".")
        else:
            yield path, field.type
