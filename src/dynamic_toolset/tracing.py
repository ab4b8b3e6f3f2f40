"""OpenTelemetry traces, where the extra ``otel`` is installed and the environment says where to send them.

Otherwise every function in here does nothing, at no cost worth measuring, and OpenTelemetry is not even imported. Where
traces are sent, that happens in a thread of its own, from a queue that is bounded: a collector that is slow or away
costs spans, never the service.

An error is named in a span by its type alone. Its words go into the log, where secrets are masked.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from dynamic_toolset import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanKind

SERVICE_NAME = "dynamic-toolset"

FLUSH = 2.0
"""Seconds that the end waits for what has not been sent yet."""

Value = str | bool | int | float


class Unavailable(Exception):
    """Traces were asked for and cannot be had. The message says why."""


class _Nothing:
    """A context in which nothing happens."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        pass


nothing: AbstractContextManager[None] = _Nothing()
"""The span that is none."""

_tracing: "_Tracing | None" = None


# --- Call sites -----------------------------------------------------------------------------------------------------


def span(name: str, *, alone: bool = False, **attributes: Value) -> AbstractContextManager[None]:
    """Return a context that is a span, a child of the one around it unless ``alone``.

    ``alone`` is for what a task does that lives longer than what started it.
    """
    return nothing if _tracing is None else _tracing.span(name, attributes, alone=alone)


def note(**attributes: Value) -> None:
    """Add attributes to the span that the caller is in, if any."""
    if _tracing is not None:
        _tracing.note(attributes)


def request(header: Callable[[bytes], str | None]) -> AbstractContextManager[None]:
    """Return a context that is the span of an HTTP request, a child of the caller's if there is a ``traceparent``."""
    return nothing if _tracing is None else _tracing.request(header)


def answered(method: str, route: str, path: str, status: int, request_id: str) -> None:
    """Say what came of the request whose span the caller is in (OpenTelemetry's semantic conventions for HTTP)."""
    if _tracing is not None:
        _tracing.answered(method, route, path, status, request_id)


def trace_id() -> str:
    """Return the id of the trace that the caller is in; empty if it is in none."""
    return "" if _tracing is None else _tracing.trace_id()


# --- Beginning and end ----------------------------------------------------------------------------------------------


def start() -> bool:
    """Send traces from now on, if OpenTelemetry's ordinary environment variables name an endpoint. Return whether so.

    Raises Unavailable.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if exporter == "none" or not _for_traces("ENDPOINT"):
        return False
    if exporter != "otlp":
        raise Unavailable("of OTEL_TRACES_EXPORTER only otlp and none are supported")
    if _for_traces("PROTOCOL") not in {"", "http/protobuf"}:
        raise Unavailable("of OTEL_EXPORTER_OTLP_PROTOCOL only http/protobuf is supported")
    try:
        provider = _provider()
    except ImportError as error:
        raise Unavailable(f"{error}: is the extra installed, as in dynamic-toolset[otel]?") from None
    except Exception as error:
        raise Unavailable(f"OpenTelemetry cannot be set up: {type(error).__name__}: {error}") from error
    use(provider)
    return True


def use(provider: "TracerProvider | None") -> None:
    """Send spans to this provider from now on; None switches traces off."""
    global _tracing
    _tracing = _Tracing(provider) if provider is not None else None


def end(within: float = FLUSH) -> None:
    """Send what has not been sent yet, for so many seconds at most, and then nothing any more."""
    if _tracing is None:
        return
    provider = _tracing.provider
    use(None)
    # The SDK's own end waits for half a minute, and as long again for a collector that does not answer.
    last = threading.Thread(target=provider.shutdown, name="last traces", daemon=True)
    last.start()
    last.join(within)


def _for_traces(setting: str) -> str:
    """Return an OTLP setting: the one for traces, else the one for all signals."""
    specific = os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{setting}", "").strip()
    return specific or os.environ.get(f"OTEL_EXPORTER_OTLP_{setting}", "").strip()


def _provider() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What the environment says of the resource counts more than what we say.
    ours = Resource({"service.name": SERVICE_NAME, "service.version": __version__})
    theirs = Resource.create()
    if not _is_named(theirs.attributes):
        theirs = Resource({name: value for name, value in theirs.attributes.items() if name != "service.name"})
    provider = TracerProvider(resource=ours.merge(theirs), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _is_named(attributes: Any) -> bool:
    """Whether somebody has named the service; the SDK names it ``unknown_service`` otherwise."""
    return not str(attributes.get("service.name", "unknown_service")).startswith("unknown_service")


# --- With OpenTelemetry ---------------------------------------------------------------------------------------------


class _Tracing:
    """Makes spans with OpenTelemetry, which is imported only here."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.provider = provider
        self._tracer = provider.get_tracer("dynamic_toolset", __version__)
        self._trace = trace
        self._nowhere = context.Context()
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str, attributes: dict[str, Value], *, alone: bool) -> AbstractContextManager[None]:
        return self._span(name, self._trace.SpanKind.INTERNAL, self._nowhere if alone else None, attributes)

    def request(self, header: Callable[[bytes], str | None]) -> AbstractContextManager[None]:
        given = {name: header(name.encode()) or "" for name in ("traceparent", "tracestate")}
        caller = self._propagator.extract(given, self._nowhere)
        return self._span("request", self._trace.SpanKind.SERVER, caller, {})

    def note(self, attributes: dict[str, Value]) -> None:
        self._trace.get_current_span().set_attributes(attributes)

    def answered(self, method: str, route: str, path: str, status: int, request_id: str) -> None:
        span = self._trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "url.path": path,
                "http.response.status_code": status,
                "request_id": request_id,
            }
        )
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def trace_id(self) -> str:
        found = self._trace.get_current_span().get_span_context()
        return self._trace.format_trace_id(found.trace_id) if found.is_valid else ""

    @contextmanager
    def _span(
        self, name: str, kind: "SpanKind", parent: "Context | None", attributes: dict[str, Value]
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(self._trace.StatusCode.ERROR)
                raise
