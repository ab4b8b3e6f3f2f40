"""The applications behind the two ports: what answers which path."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Litestar, Request, Response, get
from litestar.di import Provide
from litestar.enums import OpenAPIMediaType
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityRequirement, SecurityScheme, Tag
from litestar.params import ParameterKwarg
from litestar.router import Router
from litestar.types import ControllerRouterHandler

from dynamic_toolset import __version__
from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.server import api, problems
from dynamic_toolset.server.conditional import entity_tag, knows
from dynamic_toolset.server.exchange import STREAM, Exchange
from dynamic_toolset.server.gate import LOGGED_PATH
from dynamic_toolset.server.probes import healthz, readyz
from dynamic_toolset.server.problems import Refusal
from dynamic_toolset.server.source import Source
from dynamic_toolset.server.stream import Stream

log = structlog.get_logger()

_ABOUT = """\
What Dynamic Toolset knows of the Services of a cluster, and what it publishes for the agent.

With `server.auth: token` every path under /api wants the bearer token of a Kubernetes user or ServiceAccount, made for
the audience `dynamic-toolset`, who may use the path (a non-resource URL, in RBAC). A proxy may keep Authorization to
itself, as the Service proxy of the API server does: the token may go into the header `X-Dynamic-Toolset-Token` instead.
"""

_TAGS = [
    Tag("Toolset", "What the agent reads."),
    Tag("Services", "What was found, and why it is, or is not, in the toolset."),
    Tag("Service", "How this program is."),
    Tag("Probes", "For the kubelet."),
]


def build(
    source: Source,
    stream: Stream,
    configuration: Configuration,
    handlers: Sequence[HTTPRouteHandler] = (),
    *,
    needs_token: bool = False,
) -> Litestar:
    """Return the application of the API; ``handlers`` are others that go with it, such as the page's.

    ``needs_token`` is what its description says; who sees to it is the gate.
    """
    return Litestar(
        [*_operations(), _description_handler(needs_token=needs_token), *handlers],
        dependencies={
            "source": Provide(lambda: source, sync_to_thread=False),
            "stream": Provide(lambda: stream, sync_to_thread=False),
            "configuration": Provide(lambda: configuration, sync_to_thread=False),
        },
        exception_handlers={Refusal: _refused, HTTPException: _failed, Exception: _crashed},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def _operations(*, needs_token: bool = False) -> list[ControllerRouterHandler]:
    security: list[SecurityRequirement] | None = [{"bearer": []}] if needs_token else None
    return [Router("/api/v1", route_handlers=api.HANDLERS, security=security), healthz, readyz]


def describe(*, needs_token: bool) -> bytes:
    """Return the OpenAPI document.

    It is made by an application of its own, which is forgotten then: what it is made of takes a hundred times as much
    memory as its text, and Litestar would answer below its path in HTML.
    """
    nowhere = {name: Provide(lambda: None, sync_to_thread=False) for name in ("source", "stream", "configuration")}
    described = Litestar(
        _operations(needs_token=needs_token),
        dependencies=nowhere,
        openapi_config=OpenAPIConfig(
            title="Dynamic Toolset",
            version=__version__,
            description=_ABOUT,
            tags=_TAGS,
            use_handler_docstrings=True,
            components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
            render_plugins=[JsonRenderPlugin()],
        ),
        logging_config=None,
    )
    return msgspec.json.encode(described.openapi_schema.to_schema())


def _description_handler(*, needs_token: bool) -> HTTPRouteHandler:
    text, etag = b"", ""

    # In a thread: the first time it takes a tenth of a second, for which nobody else is to wait.
    @get("/openapi.json", include_in_schema=False, sync_to_thread=True)
    def description(request: Request) -> Response[bytes]:  # type: ignore[type-arg]
        nonlocal text, etag
        if not etag:
            text = describe(needs_token=needs_token)
            etag = entity_tag(text)
        headers = {"etag": etag, "cache-control": "no-cache"}
        if knows(request.headers.get("if-none-match"), etag):
            return Response(b"", status_code=304, headers=headers)
        return Response(text, media_type=OpenAPIMediaType.OPENAPI_JSON, headers=headers)

    return description


def _refused(request: Request[Any, Any, Any], refusal: Refusal) -> Response[bytes]:
    one: Exchange = request.scope["state"]["exchange"]
    body = problems.encode(refusal, instance=one.target, request_id=one.id)
    headers = {name.decode(): value.decode("latin-1") for name, value in problems.headers(refusal, body)}
    headers.pop("content-length")
    return Response(body, status_code=refusal.status, headers=headers, media_type=problems.MEDIA_TYPE)


def _failed(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what Litestar refuses, in our words."""
    if isinstance(error, ValidationException):
        errors = problems.from_validation(error.extra, names=_names(request))
        refusal = Refusal(400, "this request does not fit", errors=errors)
    elif isinstance(error, NotFoundException):
        refusal = Refusal(404, "there is nothing here; /openapi.json lists what there is")
    elif isinstance(error, MethodNotAllowedException):
        refusal = _not_allowed(request, error)
    elif error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _crashed(request, error)
    else:
        refusal = Refusal(error.status_code, str(error.detail))
    return _refused(request, refusal)


def _names(request: Request[Any, Any, Any]) -> Mapping[str, str]:
    """Return what the parameters of an operation are called outside, by what they are called in our code."""
    handler = request.scope.get("route_handler")
    if not isinstance(handler, HTTPRouteHandler):
        return {}
    parameters = handler.parsed_fn_signature.parameters
    return {
        key: one.kwarg_definition.name
        for key, one in parameters.items()
        if isinstance(one.kwarg_definition, ParameterKwarg) and one.kwarg_definition.name
    }


def _not_allowed(request: Request[Any, Any, Any], error: HTTPException) -> Refusal:
    one: Exchange = request.scope["state"]["exchange"]
    allowed = {method.strip() for method in _header(error.headers, "allow").split(",")} - {"OPTIONS"}
    also = {"OPTIONS", "HEAD"} if "GET" in allowed and one.path != STREAM else {"OPTIONS"}
    return Refusal(
        405,
        f"this can be had with {' or '.join(sorted(allowed))}",
        headers={"Allow": ", ".join(sorted(allowed | also))},
    )


def _crashed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what is a mistake of ours, and keep what it is for the log."""
    one: Exchange = request.scope["state"]["exchange"]
    if not one.is_broken_off:  # that Litestar takes for one of ours; it is the caller who went, or was refused before
        log.error("request_failed", method=one.method, path=one.path[:LOGGED_PATH], exc_info=error)
    return _refused(request, Refusal(500, problems.INTERNAL))


def _header(headers: Mapping[str, str] | None, name: str) -> str:
    return next((value for key, value in (headers or {}).items() if key.lower() == name), "")
