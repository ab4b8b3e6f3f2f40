"""The answers of the API: their shapes, as OpenAPI shows them. Times are RFC 3339, in UTC, with milliseconds."""

from typing import Any, Literal

from msgspec import Struct, field

from dynamic_toolset.model import EventName


class _Answer(Struct, frozen=True, rename="camel"):
    pass


class ServiceRef(_Answer, frozen=True):
    """A Service by its name. ``cluster`` is empty for our own cluster."""

    namespace: str
    name: str
    cluster: str = ""


class ServiceItem(_Answer, frozen=True):
    """What was decided about a Service, and why.

    ``cluster`` is empty for our own cluster. ``health`` is null for one that is no candidate. ``held``: it is listed
    only because many fail at once, or because its cluster is away. ``reason`` is why it is, or is not, listed.
    """

    namespace: str
    name: str
    cluster: str
    decision: Literal["candidate", "duplicate", "rejected", "ignored"]
    type: str | None
    endpoint: str | None
    health: Literal["healthy", "unhealthy", "unknown"] | None
    listed: bool
    held: bool
    reason: str


class ServiceList(_Answer, frozen=True):
    """A page of Services. ``total`` counts all that match, and ``continue`` leads to the next page."""

    items: tuple[ServiceItem, ...]
    total: int
    next: str | None = field(name="continue")


class PortItem(_Answer, frozen=True):
    """A port that was considered, and what was made of it."""

    port: int
    name: str | None
    chosen: bool
    note: str


class CheckItem(_Answer, frozen=True):
    """One health check: when it ended, its outcome, and how long it took."""

    at: str
    health: Literal["healthy", "unhealthy", "unknown"]
    reason: str
    seconds: float


class ServiceDetail(ServiceItem, frozen=True):
    """The whole decision about a Service.

    ``evidence`` are the rules that matched, ``checks`` the last ones, the newest first, ``failures`` how many of them
    failed in a row, ``toolsets`` the names under which the agent has it, and ``agent`` what the agent reads of it.
    """

    evidence: tuple[str, ...]
    ports: tuple[PortItem, ...]
    failures: int
    checks: tuple[CheckItem, ...]
    toolsets: tuple[str, ...]
    agent: dict[str, Any] | None


class DocumentItem(_Answer, frozen=True):
    """A published document: a key of the ConfigMap and its text."""

    key: str
    text: str


class EffectItem(_Answer, frozen=True):
    """What an override does to a toolset."""

    toolset: str
    section: Literal["toolsets", "mcp_servers"]
    kind: Literal["changed", "added", "removed", "waiting", "none"]
    message: str


class OverridesAnswer(_Answer, frozen=True):
    """What people wrote into ``overrides.yaml``, null if nothing, and what it does."""

    text: str | None
    effects: tuple[EffectItem, ...]


class ProblemItem(_Answer, frozen=True):
    """Something that a person should look at."""

    reason: str
    message: str


class ToolsetAnswer(_Answer, frozen=True):
    """The documents, and whether the cluster holds exactly them."""

    config_map: ServiceRef
    published: bool
    documents: tuple[DocumentItem, ...]
    overrides: OverridesAnswer
    problems: tuple[ProblemItem, ...]


class DiffItem(_Answer, frozen=True):
    """How one key of the ConfigMap would change, or its labels: a unified diff, of bounded length."""

    key: str
    diff: str


class DiffAnswer(_Answer, frozen=True):
    """What a write would change now. ``withheld`` says why nothing is written; empty if nothing is in the way.

    ``exists``: there is a ConfigMap. Without ``changes`` it says what it should.
    """

    config_map: ServiceRef
    exists: bool
    changes: tuple[DiffItem, ...]
    withheld: tuple[ProblemItem, ...]


class ToolsetItem(_Answer, frozen=True):
    """One toolset of the agent. ``source`` is who put it there, ``overridden`` whether people changed it."""

    name: str
    section: Literal["toolsets", "mcp_servers"]
    enabled: bool
    source: Literal["services", "base", "overrides"]
    services: tuple[ServiceRef, ...]
    overridden: bool
    description: str


class ToolsetList(_Answer, frozen=True):
    """All toolsets of the agent, by name."""

    items: tuple[ToolsetItem, ...]


class ToolsetDetail(ToolsetItem, frozen=True):
    """One toolset of the agent, with what the agent reads."""

    content: dict[str, Any]


class Accepted(_Answer, frozen=True):
    """What was asked for is on its way."""

    message: str


class ServiceCounts(_Answer, frozen=True):
    """How many Services there are, of which kind."""

    known: int
    candidates: int
    listed: int
    healthy: int
    unhealthy: int
    unknown: int
    held: int


class PassCounts(_Answer, frozen=True):
    """Passes so far, when the last one ended, what it did, and how long it took."""

    total: int
    last_at: str | None
    last_outcome: str | None
    last_seconds: float | None


class FullLookCounts(_Answer, frozen=True):
    """Looks at everything anew, though nothing need have changed: how many, and when the last was and the next is."""

    total: int
    last_at: str | None
    next_at: str | None


class CheckCounts(_Answer, frozen=True):
    """Checks so far, by outcome, and those under way or waiting."""

    healthy: int
    unhealthy: int
    needs_credentials: int
    running: int
    waiting: int


class WatchCounts(_Answer, frozen=True):
    """A watch: what it has done, what is in its way, and the seconds since it last heard anything, or a bookmark."""

    synced: bool
    objects: int
    skipped: int
    lists: int
    watches: int
    events: int
    bookmarks: int
    failures: int
    last_error: str | None
    since_heard: float | None
    since_bookmark: float | None


class PublicationCounts(_Answer, frozen=True):
    """Writes of the ConfigMap so far, and conflicts that were met."""

    writes: int
    conflicts: int


class StatisticsAnswer(_Answer, frozen=True):
    """How the service is, in figures."""

    version: str
    started_at: str
    leads: bool
    holder: str | None
    ready: bool
    services: ServiceCounts
    passes: PassCounts
    full_looks: FullLookCounts
    checks: CheckCounts
    watches: dict[str, WatchCounts]
    publications: PublicationCounts
    problems: tuple[ProblemItem, ...]


class SettingItem(_Answer, frozen=True):
    """A setting that is in force, and where it came from. What may be a secret is masked.

    ``sourceName`` is the file's path, or the name of the ToolsetConfig or of the variable.
    """

    name: str
    value: Any
    source: Literal["default", "file", "resource", "environment", "option"]
    source_name: str | None = None


class ConfigAnswer(_Answer, frozen=True):
    """All settings that are in force."""

    file: str | None
    settings: tuple[SettingItem, ...]


class ReloadAnswer(_Answer, frozen=True):
    """The settings that changed, and those of them that count only after a restart."""

    changed: tuple[str, ...]
    need_restart: tuple[str, ...]


class MistakeItem(_Answer, frozen=True):
    """Something wrong in a text: in which line, of which field."""

    line: int
    field: str
    message: str


class ValidationAnswer(_Answer, frozen=True):
    """Whether a text can be used, and every problem in it."""

    valid: bool
    problems: tuple[MistakeItem, ...]


class HistoryItem(_Answer, frozen=True):
    """A change: when, what, of which service, and what led to it."""

    id: str
    at: str
    event: EventName
    service: ServiceRef | None
    type: str
    endpoint: str
    health: str
    reason: str
    message: str
    cause: str
    diff: str


class HistoryList(_Answer, frozen=True):
    """The last changes, the newest first."""

    items: tuple[HistoryItem, ...]
