"""The API under /api/v1: one function for each operation, which reads what there is to read and says no more."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import HeaderParameter, PathParameter, QueryParameter, RawBody
from litestar.response import Stream as StreamResponse

from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.model import ServiceKey
from dynamic_toolset.server import answers, examples, views
from dynamic_toolset.server.conditional import knows
from dynamic_toolset.server.configuration import reloaded, shown
from dynamic_toolset.server.problems import Refusal
from dynamic_toolset.server.source import Source, encoder
from dynamic_toolset.server.stream import Stream, TooManyReaders
from dynamic_toolset.server.validation import validate_overrides, validate_settings
from dynamic_toolset.server.views import Query
from dynamic_toolset.toolset import holmesgpt

JSON = "application/json"
YAML = "application/yaml"

MAX_LIMIT = 500

_TEXTS = (YAML, "text/yaml", "text/plain")

_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
"""A weight (RFC 9110, section 12.4.2)."""

Anything = Request[Any, Any, Any]

Name = Annotated[str, PathParameter(max_length=253, description="The name of the Service.")]
Namespace = Annotated[str, PathParameter(max_length=63, description="The namespace of the Service.")]


def _json(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    body = content if isinstance(content, bytes) else encoder.encode(content)
    return Response(body, status_code=status, media_type=JSON, headers={"cache-control": "no-store", **(headers or {})})


def _answers(model: Any, description: str, example: Any, *refusals: int, status: int = 200) -> dict[int, ResponseSpec]:
    """Return what OpenAPI says of the answers of an operation."""
    good = ResponseSpec(
        model,
        description=description,
        media_type=MediaType.JSON,
        examples=[Example(value=examples.plain(example))],
        generate_examples=False,  # random words
    )
    return {status: good} | {one: examples.refusal(one) for one in sorted({*refusals, *examples.EVERYWHERE})}


def negotiate(accept: str | None, offers: tuple[str, ...]) -> str:
    """Return which of the media types that are offered suits best (RFC 9110, section 12.5.1). Raises Refusal (406).

    Of two that suit equally the first one counts.
    """
    if not accept:
        return offers[0]
    wanted = [_range(part) for part in accept.split(",") if part.strip()]
    best, quality = "", 0.0
    for offer in offers:
        fits = [(specific, q) for pattern, q in wanted if (specific := _fits(pattern, offer)) is not None]
        q = max(fits)[1] if fits else 0.0
        if q > quality:
            best, quality = offer, q
    if not best:
        raise Refusal(406, f"this is offered as {' or '.join(offers)}")
    return best


def _range(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    return media, float(quality) if _QUALITY.fullmatch(quality) else 0.0


def _fits(pattern: str, offer: str) -> int | None:
    """Return how specific a media range is that an offer fits into; None if it does not."""
    if pattern == offer:
        return 2
    if pattern == f"{offer.partition('/')[0]}/*":
        return 1
    return 0 if pattern == "*/*" else None


def _accept(request: Anything) -> str:
    """Return what is accepted: several lines are one list (RFC 9110, section 5.3)."""
    return ",".join(request.headers.getall("accept", []))


async def accepts_json(request: Anything) -> None:
    """Refuse whoever cannot read what every operation answers with, save those that offer something else.

    A coroutine, for Litestar would run a plain function in a thread: that takes longer than the whole request.
    """
    negotiate(_accept(request), (JSON,))


# --- The toolset -----------------------------------------------------------------------------------------------------


@get(
    "/toolset",
    operation_id="getToolset",
    tags=["Toolset"],
    responses=_answers(answers.ToolsetAnswer, "The documents.", examples.TOOLSET, 406),
    response_headers=[
        ResponseHeader(name="ETag", description="Of this state of the toolset.", documentation_only=True)
    ],
    sync_to_thread=False,
)
def toolset(request: Anything, source: NamedDependency[Source]) -> Response[bytes]:
    """Return the documents that are published, or would be; as YAML, the file that HolmesGPT reads.

    With `If-None-Match` the answer is 304 as long as nothing changed.
    """
    kind = negotiate(_accept(request), (JSON, YAML, "text/yaml", "application/x-yaml"))
    snapshot = source.snapshot
    etag = snapshot.etag if kind == JSON else f'{snapshot.etag[:-1]}-yaml"'
    headers = {"etag": etag, "cache-control": "no-cache", "vary": "Accept"}
    if knows(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=304, headers=headers)
    if kind == JSON:
        return _json(snapshot.toolset_body, headers=headers)
    text = next((one.text for one in snapshot.report.documents if one.key == holmesgpt.KEY), "")
    charset = "" if kind.startswith("text/") else "; charset=utf-8"  # which Litestar adds to every text
    return Response(text.encode(), media_type=kind + charset, headers=headers)


@get(
    "/diff",
    operation_id="getDiff",
    tags=["Toolset"],
    responses=_answers(answers.DiffAnswer, "What would change.", examples.DIFF, 406),
    before_request=accepts_json,
)
async def diff(source: NamedDependency[Source]) -> Response[bytes]:
    """Return what would change in the ConfigMap if it were written now, and why it is not, if so.

    While nothing is in the way, what differs is written at once, so that there is nothing to see.
    """
    return _json(await source.diff())


@get(
    "/toolsets",
    operation_id="listToolsets",
    tags=["Toolset"],
    responses=_answers(answers.ToolsetList, "All toolsets.", examples.TOOLSETS, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def toolsets(source: NamedDependency[Source]) -> Response[bytes]:
    """Return the toolsets of the agent, by name."""
    return _json(answers.ToolsetList(source.snapshot.documents.items()))


@get(
    "/toolsets/{name:path}",
    operation_id="getToolsetByName",
    tags=["Toolset"],
    responses=_answers(answers.ToolsetDetail, "The toolset.", examples.TOOLSET_DETAIL, 400, 404, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def toolset_by_name(
    source: NamedDependency[Source],
    name: Annotated[str, PathParameter(description="The name, which may hold slashes.")],
) -> Response[bytes]:
    """Return one toolset, with what the agent reads."""
    found = source.snapshot.documents.get(name.removeprefix("/"))
    if found is None:
        raise Refusal(404, "the agent has no toolset of this name")
    return _json(found)


# --- Services --------------------------------------------------------------------------------------------------------


@get(
    "/services",
    operation_id="listServices",
    tags=["Services"],
    responses=_answers(answers.ServiceList, "A page of Services.", examples.SERVICES, 400, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def services(
    source: NamedDependency[Source],
    types: Annotated[list[str] | None, QueryParameter(name="type", description="Service types, any of them.")] = None,
    namespaces: Annotated[
        list[str] | None, QueryParameter(name="namespace", description="Namespaces, any of them.")
    ] = None,
    clusters: Annotated[
        list[str] | None, QueryParameter(name="cluster", description="Clusters, any of them; empty for our own.")
    ] = None,
    health: Annotated[
        list[Literal["healthy", "unhealthy", "unknown"]] | None,
        QueryParameter(name="health", description="Any of them."),
    ] = None,
    decisions: Annotated[
        list[Literal["candidate", "duplicate", "rejected", "ignored"]] | None,
        QueryParameter(name="decision", description="Any of them."),
    ] = None,
    listed: Annotated[
        bool | None, QueryParameter(description="Only those that are, or are not, in the toolset.")
    ] = None,
    search: Annotated[
        str, QueryParameter(max_length=200, description="Words that must all occur in name, type, endpoint or reason.")
    ] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Services on a page.")] = 50,
    after: Annotated[
        str | None,
        QueryParameter(
            name="continue",
            max_length=400,
            pattern=r"^([-a-z0-9]+:)?[-a-z0-9.]+/[-a-z0-9.]+$",
            description="What the page before gave as continue.",
        ),
    ] = None,
) -> Response[bytes]:
    """Return Services by namespace, name and cluster, a page at a time.

    Pages are stable: a Service that comes or goes meanwhile moves no other one to a page that has been read.
    """
    query = Query(
        frozenset(types or ()),
        frozenset(namespaces or ()),
        frozenset(clusters or ()),
        frozenset(health or ()),
        frozenset(decisions or ()),
        listed,
        search,
    )
    return _json(source.snapshot.page(query, _position(after), limit))


def _position(after: str | None) -> ServiceKey | None:
    if after is None:
        return None
    whose, _, name = after.partition("/")
    cluster, _, namespace = whose.rpartition(":")
    return ServiceKey(namespace, name, cluster)


@get(
    "/services/{namespace:str}/{name:str}",
    operation_id="getService",
    tags=["Services"],
    responses=_answers(answers.ServiceDetail, "The whole decision.", examples.SERVICE, 400, 404, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def service(
    source: NamedDependency[Source],
    namespace: Namespace,
    name: Name,
    cluster: Annotated[str, QueryParameter(max_length=63, description="Its cluster, if that is not our own.")] = "",
) -> Response[bytes]:
    """Return the whole decision about one Service: why it is, or is not, in the toolset."""
    found = source.detail(ServiceKey(namespace, name, cluster))
    if found is None:
        raise Refusal(404, "there is no Service of this name, or it is outside of what this program may see")
    return _json(found)


@post(
    "/discover",
    operation_id="discover",
    tags=["Services"],
    status_code=202,
    responses=_answers(answers.Accepted, "On its way.", examples.DISCOVER, 406, 413, status=202),
    before_request=accepts_json,
    sync_to_thread=False,
)
def discover(source: NamedDependency[Source]) -> Response[bytes]:
    """Look at all Services again, and check every candidate, now.

    Nothing needs this in the ordinary course of things: changes are seen when they happen.
    """
    source.supervisor.controller.look_again()
    return _json(answers.Accepted("looking again; /api/v1/events tells what changes"), status=202)


# --- The service itself ----------------------------------------------------------------------------------------------


@get(
    "/statistics",
    operation_id="getStatistics",
    tags=["Service"],
    responses=_answers(answers.StatisticsAnswer, "Figures.", examples.STATISTICS, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def statistics(source: NamedDependency[Source]) -> Response[bytes]:
    """Return how the service is, in figures."""
    return _json(source.statistics())


@get(
    "/history",
    operation_id="getHistory",
    tags=["Service"],
    responses=_answers(answers.HistoryList, "The last changes.", examples.HISTORY, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def history(source: NamedDependency[Source]) -> Response[bytes]:
    """Return the last 100 changes, the newest first: when, what, of which Service, and what led to it."""
    return _json(views.history(source.history.entries))


@get(
    "/events",
    operation_id="streamEvents",
    tags=["Service"],
    media_type="text/event-stream",
    responses={
        200: ResponseSpec(
            str,
            description="`hello`, then `change` and `report` as they happen, `reset` where something was missed for "
            "good, and `bye` when the service ends.",
            media_type="text/event-stream",
            examples=[Example(value=examples.EVENTS)],
            generate_examples=False,
        )
    }
    | {one: examples.refusal(one) for one in sorted({400, 406, *examples.EVERYWHERE})},
    sync_to_thread=False,
)
def events(
    request: Anything,
    stream: NamedDependency[Stream],
    last_event_id: Annotated[
        str | None, HeaderParameter(name="Last-Event-ID", max_length=64, description="The id that was seen last.")
    ] = None,
    last: Annotated[
        str | None,
        QueryParameter(name="lastEventId", max_length=64, description="The same, for who cannot set a header."),
    ] = None,
) -> StreamResponse:
    """Stream what changes, as server-sent events. A reader that is too slow is cut off, and may come again."""
    negotiate(_accept(request), ("text/event-stream",))
    cut = request.scope["state"]["cut"]
    try:
        chunks = stream.read(last_event_id or last, cut)
    except TooManyReaders:
        raise Refusal(503, "too many readers follow the events", headers={"Retry-After": "10"}) from None
    return StreamResponse(
        chunks,
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


@get(
    "/config",
    operation_id="getConfig",
    tags=["Service"],
    responses=_answers(answers.ConfigAnswer, "All settings.", examples.CONFIG, 406),
    before_request=accepts_json,
    sync_to_thread=False,
)
def config(configuration: NamedDependency[Configuration]) -> Response[bytes]:
    """Return the settings that are in force, and where each came from. What may be a secret is masked."""
    return _json(shown(configuration))


@post(
    "/config/reload",
    operation_id="reloadConfig",
    tags=["Service"],
    status_code=200,
    responses=_answers(answers.ReloadAnswer, "What changed.", examples.RELOAD, 400, 406, 413),
    before_request=accepts_json,
)
async def reload(configuration: NamedDependency[Configuration]) -> Response[bytes]:
    """Read the settings again, and the catalog, and let them come into force: all of them, or none.

    That happens by itself within a second of a change. What is published stays published meanwhile.
    """
    return _json(await reloaded(configuration))


@dataclass
class _TakesText(Operation):
    """An operation whose body is a text as it stands, which Litestar would describe as JSON."""

    def __post_init__(self) -> None:
        content = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING), example=examples.OVERRIDES)
        self.request_body = RequestBody(dict.fromkeys(_TEXTS, content), "The text, as YAML in UTF-8.", required=True)


@post(
    "/validate",
    operation_id="validate",
    tags=["Service"],
    status_code=200,
    responses=_answers(answers.ValidationAnswer, "What is wrong.", examples.VALIDATION, 400, 406, 413, 415),
    before_request=accepts_json,
    operation_class=_TakesText,
)
async def validate(
    request: Anything,
    configuration: NamedDependency[Configuration],
    kind: Annotated[Literal["overrides", "settings"], QueryParameter(description="What the text is meant for.")],
    body: RawBody,
) -> Response[bytes]:
    """Say everything that is wrong with overrides, or with settings, by line and field. Changes nothing."""
    media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type not in _TEXTS:
        raise Refusal(415, f"a text is expected as {', '.join(_TEXTS[:-1])} or {_TEXTS[-1]}")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "the text is not UTF-8") from None
    # Not in the event loop: a text that was made for it keeps a processor busy for a while.
    found = await asyncio.to_thread(
        partial(validate_overrides, text)
        if kind == "overrides"
        else partial(validate_settings, text, configuration.setup.catalog)
    )
    problems = tuple(answers.MistakeItem(one.line, one.field, one.message) for one in found)
    return _json(answers.ValidationAnswer(not problems, problems))


HANDLERS = [
    *(toolset, diff, toolsets, toolset_by_name),
    *(services, service, discover),
    *(statistics, config, reload, validate, history, events),
]
