"""The settings: one model, with the same names in file, environment and flags.

Names in the file are camelCase as in Kubernetes (``healthCheck.timeout``). Durations are written as ``500ms``,
``5s``, ``1m30s`` or ``1h``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import msgspec
import yaml
from msgspec import Meta, Struct

from dynamic_toolset.kube import selectors

YamlLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe loading, with libyaml where it is there: ten times faster."""

MISFITS = (ValueError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises, beside its own errors, for a value that does not fit its tag: ``!!int abc``, ``!!bool abc``,
``2001-99-99``, a long ``1:1:1.5``."""

DnsLabel = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
DnsName = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
EnvName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Duration = Annotated[str, Meta(pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$")]
NamespacePattern = Annotated[str, Meta(pattern=r"^[a-z0-9*]([-a-z0-9*]{0,61}[a-z0-9*])?$")]
"""The name of a namespace, in which ``*`` stands for any text."""
HostPattern = Annotated[str, Meta(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
"""A host name, or ``*.`` and a domain for every name below it."""

_IN_WORDS = {
    "^[a-z0-9]([-a-z0-9]": "a name in lower case, of letters, digits and -",
    "^[A-Za-z_]": "the name of an environment variable",
    "^([0-9]+": "a duration such as 500ms, 5s or 1m30s",
    "^[a-z0-9*]": "the name of a namespace, in which * stands for any text",
    "^(\\*\\.)?": "a host name such as grafana.example.com, or *.example.com",
}

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class SettingsError(ValueError):
    """The settings cannot be used. The message says where, what was given and what is allowed."""


def seconds(duration: str) -> float:
    """Return the seconds that a duration such as ``1m30s`` stands for."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))


class _Settings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class Namespaces(_Settings, frozen=True):
    """Which namespaces are looked at: all of ``include`` (every namespace if it is empty) that ``exclude`` leaves.

    ``selector`` is a label selector that a namespace's labels must match besides.
    """

    include: tuple[DnsLabel, ...] = ()
    exclude: tuple[DnsLabel, ...] = ()
    selector: str = ""

    def __post_init__(self) -> None:
        selectors.parse(self.selector)


class HealthCheckSettings(_Settings, frozen=True):
    """How candidates are checked. A published one is taken out after ``failure_threshold`` failed checks in a row."""

    timeout: Duration = "5s"
    interval: Duration = "30s"
    failure_threshold: Annotated[int, Meta(ge=1, le=20)] = 3
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 512
    verify_tls: bool = True
    ca_file: str | None = None

    def __post_init__(self) -> None:
        for name, duration in (("timeout", self.timeout), ("interval", self.interval)):
            if not seconds(duration):
                raise ValueError(f"{name} must be longer than 0s")


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

    allowed_ranges: tuple[str, ...] = ()
    refused_ranges: tuple[str, ...] = ()
    foreign_endpoints: tuple[ForeignEndpoints, ...] = ()
    without_selector: tuple[NamespacePattern, ...] = ()
    allowed_types: tuple[AllowedTypes, ...] = ()
    trusted_namespaces: tuple[NamespacePattern, ...] = ()
    trusted_types: tuple[DnsLabel, ...] = TRUSTED_TYPES
    max_per_namespace: Annotated[int, Meta(ge=1)] = 50
    max_in_all: Annotated[int, Meta(ge=1)] = 500

    def __post_init__(self) -> None:
        for cidr in (*self.allowed_ranges, *self.refused_ranges):
            ip_network(cidr)


class LeaderElection(_Settings, frozen=True):
    """Of several instances only the one that holds the lease writes. The lease is called as the ConfigMap by default.

    The names and the rules are those of Kubernetes' own components (k8s.io/client-go/tools/leaderelection).
    """

    enabled: bool = True
    lease_name: DnsName | None = None
    lease_duration: Duration = "15s"
    renew_deadline: Duration = "10s"
    retry_period: Duration = "2s"

    def __post_init__(self) -> None:
        duration, deadline, retry = map(seconds, (self.lease_duration, self.renew_deadline, self.retry_period))
        if not 1.2 * retry < deadline < duration:
            raise ValueError(
                "leaseDuration must be longer than renewDeadline, and renewDeadline longer than 1.2 times retryPeriod; "
                f"they are {self.lease_duration}, {self.renew_deadline} and {self.retry_period}"
            )


class ConfigMapSettings(_Settings, frozen=True):
    """Where the toolset is published."""

    name: DnsName = "kubernaut-toolset-config"
    namespace: DnsLabel = "kubernaut-system"


class Credential(_Settings, frozen=True):
    """Which environment variables of the *agent* hold the credentials for one Service.

    Bound to a namespace and a Service by name: a credential for "every Grafana" would be handed to whoever may
    create a Service that looks like one.
    """

    namespace: DnsLabel
    service: DnsLabel
    api_key: EnvName | None = None
    username: EnvName | None = None
    password: EnvName | None = None
    bearer_token: EnvName | None = None


DEFAULT_BASE: dict[str, dict[str, Any]] = {"kubernetes/core": {"enabled": True}, "kubernetes/logs": {"enabled": True}}


class ToolsetSettings(_Settings, frozen=True):
    """What the documents hold beside the discovered services. ``base`` is HolmesGPT's ``toolsets`` mapping."""

    base: dict[str, dict[str, Any]] = msgspec.field(default_factory=lambda: DEFAULT_BASE)
    credentials: tuple[Credential, ...] = ()


class Settings(_Settings, frozen=True):
    """Everything that a person can set."""

    cluster_domain: DnsName = "cluster.local"
    endpoint_host: Literal["dns", "clusterIP"] = "dns"
    require_annotations: bool = False
    catalog_folder: str | None = None
    namespaces: Namespaces = Namespaces()
    policy: Policy = Policy()
    health_check: HealthCheckSettings = HealthCheckSettings()
    mass_failure: MassFailure = MassFailure()
    config_map: ConfigMapSettings = ConfigMapSettings()
    leader_election: LeaderElection = LeaderElection()
    toolset: ToolsetSettings = ToolsetSettings()


# --- Reading --------------------------------------------------------------------------------------------------------

ENVIRONMENT_PREFIX = "DYNAMIC_TOOLSET_"

_MAX_FILE_BYTES = 1024 * 1024


def load(
    file: Path | None = None, environ: Mapping[str, str] | None = None, assignments: Iterable[str] = ()
) -> Settings:
    """Return the settings: the defaults, over them the file, over it the environment, over it the assignments.

    An environment variable is the setting's path in capitals (``healthCheck.timeout`` is
    ``DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT``); an assignment is ``healthCheck.timeout=3s``. A list may be written
    with commas, or as YAML. Raises SettingsError, which names the source and the setting.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        _merge(merged, _read(file))
    paths = dict(_leaves(Settings))
    variables = {ENVIRONMENT_PREFIX + _screaming(path): path for path in paths}
    for variable in sorted(environ or ()):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        if variable not in variables:
            raise SettingsError(f"{variable}: no such setting; there are {', '.join(variables)}")
        path = variables[variable]
        _merge(merged, _nested(path, _value((environ or {})[variable], paths[path])))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or path not in paths:
            raise SettingsError(f"{assignment!r}: write SETTING=VALUE with one of {', '.join(paths)}")
        _merge(merged, _nested(path, _value(text, paths[path])))
    return merged_settings(merged)


def merged_settings(values: Mapping[str, Any]) -> Settings:
    """Check a mapping against the model. Raises SettingsError that names the setting and what is allowed."""
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_readable(str(error))) from None


def _readable(message: str) -> str:
    """Say ``healthCheck.timeout: expected ...``, in words where the model has only a pattern."""
    problem, _, path = message.partition(" - at `$")
    for pattern, words in _IN_WORDS.items():
        if f"matching regex {pattern!r}"[:-1] in problem:
            problem = f"Expected {words}"
    path = path.strip("`").removeprefix(".")
    return f"{path or 'settings'}: {problem[:1].lower()}{problem[1:]}"


def _read(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise SettingsError(f"{file}: {len(data)} bytes; settings hold at most {_MAX_FILE_BYTES}")
    try:
        content = yaml.load(data, YamlLoader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    except MISFITS as error:
        raise SettingsError(f"{file}: a value does not fit its type: {error}; put it in quotes") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{file}: a mapping of settings is expected, not a {type(content).__name__}")
    merged_settings(content)  # a wrong file is named as wrong, whatever the environment says on top of it
    return content


def _leaves(model: type[Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the type of each setting that is not a group of settings."""
    hints = get_type_hints(model)
    for field in msgspec.structs.fields(model):
        path = prefix + field.encode_name
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from _leaves(hint, path + ".")
        else:
            yield path, hint


def _screaming(path: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path).replace(".", "_").upper()


def _value(text: str, hint: Any) -> Any:
    """Read what somebody wrote for one setting: as it stands for a word or a number, as YAML for what has parts."""
    if get_origin(hint) not in {tuple, dict}:
        return text
    try:
        value = yaml.load(text, YamlLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, *MISFITS):
        value = text
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        present = into.get(name)
        # The base toolsets are one value: two sources do not mix them.
        if isinstance(value, dict) and isinstance(present, dict) and name != "base":
            _merge(present, value)
        else:
            into[name] = dict(value) if isinstance(value, dict) else value
