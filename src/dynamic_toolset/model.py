"""The words of the domain (design: Service, service type, candidate, endpoint, health, document, report).

Every value here is immutable, so that a stage can hand it on without asking who else holds it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from msgspec import Struct

from dynamic_toolset.kube.objects import ObjectKey


class ServiceKey(NamedTuple):
    """Names a Service. ``cluster`` is what the settings call its cluster, empty for our own."""

    namespace: str
    name: str
    cluster: str = ""

    def __str__(self) -> str:
        return f"{self.cluster}:{self.namespace}/{self.name}" if self.cluster else f"{self.namespace}/{self.name}"

    @property
    def tenant(self) -> tuple[str, str]:
        """Whose it is: cluster and namespace."""
        return self.cluster, self.namespace

    @classmethod
    def of(cls, key: ObjectKey, cluster: str = "") -> "ServiceKey":
        """Return the key of an object of a cluster."""
        return cls(key.namespace, key.name, cluster)


Scheme = Literal["http", "https"]


# --- Service types: what the catalog says of a product -------------------------------------------------------------


class Identity(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One way in which an answer proves which product gave it. Every condition that is stated must hold.

    ``path`` is asked with GET, relative to the endpoint's base path unless ``root``; without a path the answer of
    the health check itself is judged. ``json`` maps JSON pointers (RFC 6901) to regular expressions that the value,
    as text, must match in full (``.*`` for "is there"); ``absent`` lists pointers that must lead nowhere; ``body`` is
    a regular expression searched in the text; ``headers`` maps header names to regular expressions.
    """

    path: str | None = None
    root: bool = False
    status: tuple[int, ...] = (200,)
    json: dict[str, str] = {}
    absent: tuple[str, ...] = ()
    body: str | None = None
    headers: dict[str, str] = {}


class HealthCheck(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How to see that a backend answers, and that it is what it claims to be.

    Healthy is: ``path`` answers 200 or 204, and one of ``identity`` holds, if there are any. ``path`` is relative to
    the endpoint's base path, or to the host and port if ``root``. ``session_header`` names a response header whose
    value must be given back with DELETE when the check is over (MCP, Streamable HTTP transport, session management).
    """

    path: str = "/"
    root: bool = False
    method: Literal["GET", "POST"] = "GET"
    headers: dict[str, str] = {}
    body: str | None = None
    session_header: str | None = None
    identity: tuple[Identity, ...] = ()


class InstancesBinding(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind", tag="instances"
):
    """HolmesGPT serves the type with built-in toolsets that take a list of instances.

    ``toolsets`` are the names (``elasticsearch/data`` and ``elasticsearch/cluster`` belong together), ``list`` the
    key of the list in ``config``, ``name`` and ``url`` the keys of an entry, ``options`` what each entry also says,
    ``credentials`` how this product's keys are called (our word -> its word), and ``headers`` the key of the HTTP
    headers of an entry, into which a bearer token goes where the product has no key for one.
    """

    toolsets: tuple[str, ...]
    url: str
    list: str = "instances"
    name: str = "name"
    trailing_slash: bool = False
    options: dict[str, str | int | bool] = {}
    credentials: dict[Literal["apiKey", "username", "password", "bearerToken"], str] = {}
    headers: str | None = None


class HttpBinding(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind", tag="http"):
    """The agent calls the type's API with GET through a toolset of ``type: http``, one for each Service.

    ``instructions`` is what the agent reads; ``{base}`` in it stands for the endpoint's URL. ``paths`` are shell
    patterns relative to the endpoint's base path. ``health_path`` is what the agent asks before it uses the toolset.
    """

    instructions: str
    paths: tuple[str, ...] = ("/*",)
    health_path: str | None = None


class McpBinding(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind", tag="mcp"):
    """The endpoint is an MCP server, which brings its own tools."""

    mode: Literal["streamable-http", "sse"] = "streamable-http"


AgentBinding = InstancesBinding | HttpBinding | McpBinding
"""How the agent uses a service type (HolmesGPT 0.45, custom toolset file)."""


# --- Detection ------------------------------------------------------------------------------------------------------


class Endpoint(Struct, frozen=True):
    """The URL that the agent would use, in parts, and the address behind it where the Service states one.

    ``path`` is empty or starts with ``/`` and does not end with one. ``address`` is the Service's ClusterIP: what is
    dialled in a health check instead of asking the DNS, so that what was checked is what is connected to. It is None
    for a headless Service.
    """

    scheme: Scheme
    host: str
    port: int
    path: str = ""
    address: str | None = None

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + self.path

    def resolve(self, path: str, *, root: bool = False) -> str:
        """Return the path on the host for ``path``, which is relative to the base path unless ``root``."""
        return path if root else self.path + path


class Candidate(Struct, frozen=True):
    """A Service that detection takes for a service type, with its endpoint, its health check and its use.

    ``name`` tells instances of one type apart for the agent: the Service's name or its ``-name`` annotation. It
    holds only ``[a-z0-9-]``. ``title`` and ``description`` are the catalog's words, never the Service's. So is
    ``catalog_type``, the entry that holds for it: its type, or ``custom`` for a type of its owner's own.
    """

    key: ServiceKey
    type: str
    name: str
    endpoint: Endpoint
    check: HealthCheck
    agent: AgentBinding
    title: str
    description: str
    catalog_type: str = "custom"


class Outcome(StrEnum):
    """What detection decided about a Service."""

    CANDIDATE = "candidate"
    """It is listed if it is healthy."""
    DUPLICATE = "duplicate"
    """It leads to the same workload as another Service, which stands for both."""
    REJECTED = "rejected"
    """It wants to be listed, or looks like a backend, but must not be: the reason says what to change."""
    IGNORED = "ignored"
    """It is no backend that we know, or its owner opted out."""


class Rejection(StrEnum):
    """What a rejected Service fails by, which is also whose turn it is to do something about it."""

    ANNOTATION = "annotation"
    """An annotation is wrong or missing: its owner's."""
    PORT = "port"
    """It has no port that could be meant: its owner's."""
    POLICY = "policy"
    """The settings do not let it be published: the operator's, if anybody's."""
    LIMIT = "limit"
    """There is too much of something: of its labels or ports, or of candidates."""


class PortNote(Struct, frozen=True):
    """A port of a Service that was considered, and in a sentence what was made of it."""

    port: int
    name: str | None
    chosen: bool
    note: str


class Decision(Struct, frozen=True):
    """What was decided about one Service, and why, in words for the person who asks.

    ``candidate`` is there for a candidate and for a duplicate. ``evidence`` lists the rules that matched, in order, and
    ``ports`` the ports that were considered, in the Service's order. ``rejection`` is there for what is rejected.
    """

    outcome: Outcome
    reason: str
    candidate: Candidate | None = None
    evidence: tuple[str, ...] = ()
    ports: tuple[PortNote, ...] = ()
    rejection: Rejection | None = None

    @property
    def type(self) -> str | None:
        return self.candidate.type if self.candidate else None

    @property
    def endpoint(self) -> str | None:
        return self.candidate.endpoint.url if self.candidate else None


# --- Health ---------------------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    """Whether a candidate answers as what it claims to be."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Health(Struct, frozen=True):
    """The outcome of the last check of a candidate. ``reason`` is one line, safe to show; ``seconds`` its duration.

    ``failures`` counts the checks that failed in a row, this one included. ``needs_credentials``: it answered 401 or
    403, so it is there, but an agent without credentials gets nothing. ``refused``: it leads to an address that must
    be neither dialled nor published.
    """

    verdict: Verdict
    reason: str
    failures: int = 0
    needs_credentials: bool = False
    refused: bool = False
    seconds: float = 0.0


UNCHECKED = Health(Verdict.UNKNOWN, "not checked yet")


class Check(Struct, frozen=True):
    """One check of a candidate that ended: when, in seconds since the epoch, and with which outcome."""

    at: float
    health: Health


# --- Toolset and report ---------------------------------------------------------------------------------------------


class DiscoveredService(Struct, frozen=True):
    """A candidate with its health, and whether it belongs into the toolset."""

    candidate: Candidate
    health: Health
    listed: bool


class Document(Struct, frozen=True):
    """One rendered file: a key of the ConfigMap and its text."""

    key: str
    text: str


class Problem(Struct, frozen=True):
    """Something a person should look at. ``reason`` is a CamelCase word for machines, ``message`` a sentence."""

    reason: str
    message: str


class Effect(Struct, frozen=True):
    """What an override does to one toolset, in a sentence. ``waiting``: it would change what is not there now."""

    toolset: str
    section: Literal["toolsets", "mcp_servers"]
    kind: Literal["changed", "added", "removed", "waiting", "none"]
    message: str


class Report(Struct, frozen=True):
    """Everything decided in one pass: what API, page, status, metrics, logs and commands render.

    ``decisions`` holds every Service that was seen; ``discovered`` every candidate, sorted by key; ``documents`` what
    is, or would be, published; ``published`` whether the cluster holds exactly these documents. While ``problems``
    hold a publication back, the documents are the last good ones, whatever is listed by now; but while the settings say
    that nothing is to be written, they are those that would be.

    ``held`` are the services that stay listed only because so many fail at once, or because their cluster is away,
    ``overrides`` what people wrote, None if nothing, with its ``effects``, and ``leads`` says whether this instance is
    the one that writes.
    """

    decisions: Mapping[ServiceKey, Decision]
    discovered: tuple[DiscoveredService, ...]
    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]
    published: bool
    held: frozenset[ServiceKey] = frozenset()
    overrides: str | None = None
    effects: tuple[Effect, ...] = ()
    leads: bool = False


# --- What a pass did ------------------------------------------------------------------------------------------------

EventName = Literal["service_listed", "service_not_listed", "service_gone", "published", "problem", "problem_solved"]
"""What can be said of a change: the name of the log event, of the entry in the history, and of what is streamed."""


class Change(Struct, frozen=True):
    """Something that a pass changed, and what led to it (``cause``, a sentence).

    Of a service: its ``type``, ``endpoint``, ``health`` and the ``reason`` of that. Of a problem: ``reason`` is its
    word and ``message`` its sentence. Of a publication: ``message`` says what was written, and ``diff`` how HolmesGPT's
    file changed (unified, of bounded length).
    """

    event: EventName
    service: ServiceKey | None = None
    type: str = ""
    endpoint: str = ""
    health: str = ""
    reason: str = ""
    message: str = ""
    cause: str = ""
    diff: str = ""


class Entry(Struct, frozen=True):
    """A change as the history keeps it: ``id`` grows from one to the next, ``at`` is in seconds since the epoch."""

    id: str
    at: float
    change: Change


Hold = Literal["paused", "dry_run", "unsettled"]
"""Why nothing is written, though there is something to write: by the setting of that name, or because it is not known
which settings are to be in force."""

PublishOutcome = Literal["unchanged", "created", "updated", "standby", "withheld", "failed"] | Hold
"""What became of the publication in a pass. ``standby``: another instance leads; ``withheld``: a person must judge."""


class Pass(Struct, frozen=True):
    """One look of the controller at everything: what came of it, when (seconds since the epoch), and what it took.

    ``report`` is the same object as that of the pass before where nothing changed. ``latencies`` are the seconds from
    the arrival of each change of a Service to the publication in which it showed, if this pass made it. ``before`` are
    the services that were published, by whom ever, when the pass began, each with its type, and ``after`` those that
    were when it ended: what is listed need not be, if it could not be written.
    """

    report: Report
    at: float
    seconds: float
    outcome: PublishOutcome
    changes: tuple[Change, ...] = ()
    latencies: tuple[float, ...] = ()
    before: frozenset[tuple[ServiceKey, str]] = frozenset()
    after: frozenset[tuple[ServiceKey, str]] = frozenset()
