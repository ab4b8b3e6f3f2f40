"""Whether the service is alive, and ready, for the kubelet: no request to the Kubernetes API, whatever is asked."""

from collections.abc import Iterable

from litestar import MediaType, Request, Response, get
from litestar.di import NamedDependency

from dynamic_toolset.controller.statistics import Condition
from dynamic_toolset.server import examples
from dynamic_toolset.server.source import Source

GRACE = 60.0
"""Seconds by which a loop may be late: a machine that is starved, or was suspended, is no loop that hangs."""


@get(
    "/healthz",
    operation_id="healthz",
    tags=["Probes"],
    media_type=MediaType.TEXT,
    responses={
        200: examples.text("Alive.", "ok\n"),
        503: examples.text("Not alive.", examples.ALIVE_NOT),
    },
    sync_to_thread=False,
)
def healthz(request: Request, source: NamedDependency[Source]) -> Response[str]:  # type: ignore[type-arg]
    """Say whether every loop makes progress: 200, or 503 and which do not.

    That the API server is away is no reason to be restarted, nor is the end of the service.
    """
    loops = [Condition(one.name, one.late <= GRACE, f"late by {one.late:.0f} s") for one in source.supervisor.loops()]
    return _answer(loops, verbose="verbose" in request.query_params)


@get(
    "/readyz",
    operation_id="readyz",
    tags=["Probes"],
    media_type=MediaType.TEXT,
    responses={
        200: examples.text("Ready.", "ok\n", examples.VERBOSE),
        503: examples.text("Not ready.", examples.READY_NOT),
    },
    sync_to_thread=False,
)
def readyz(request: Request, source: NamedDependency[Source]) -> Response[str]:  # type: ignore[type-arg]
    """Say whether the service leads or could take over at once: 200, or 503 and what is in the way.

    ``?verbose`` lists each check, as those of Kubernetes do (kubernetes.io/docs/reference/using-api/health-checks).
    """
    return _answer(source.readiness(), verbose="verbose" in request.query_params)


def _answer(checks: Iterable[Condition], *, verbose: bool) -> Response[str]:
    checks = tuple(checks)
    holds = all(one.holds for one in checks)
    shown = checks if verbose or not holds else ()
    lines = [f"[+]{one.name} ok" if one.holds else f"[-]{one.name} failed: {one.message}" for one in shown]
    text = "\n".join([*lines, "ok" if holds else "failed"])
    return Response(
        text + "\n", status_code=200 if holds else 503, media_type=MediaType.TEXT, headers={"cache-control": "no-store"}
    )
