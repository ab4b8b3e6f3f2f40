"""The proxy for Services (kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/).

The real one dials a ready Pod of the Service. No Pods are here: the target port is dialled, at the Service's address.
"""

from typing import NamedTuple

import aiohttp
from aiohttp import web
from yarl import URL

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.resources import SERVICES, Object
from dynamic_toolset.sandbox.status import StatusError
from dynamic_toolset.sandbox.store import Store

_KEPT = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding"})
"""Headers that end here: what tells the API server who calls is not for the Service."""


class Route(NamedTuple):
    """What a request for the proxy is to reach: a Service, how its segment of the path names it, and the rest."""

    key: ObjectKey
    segment: str
    path: str


def route(path: str) -> Route | None:
    """Return what a path leads to; None for one that is not the proxy's."""
    match path.split("/", maxsplit=8):
        case ["", "api", "v1", "namespaces", namespace, "services", segment, "proxy", *rest]:
            name = segment.split(":")[1] if segment.count(":") == 2 else segment.partition(":")[0]
            return Route(ObjectKey(namespace, name), segment, "/" + "/".join(rest))
    return None


async def answer(store: Store, request: web.Request, to: Route) -> web.StreamResponse:
    """Pass a request on, and its answer back, as it comes. Raises StatusError."""
    service = store.objects(SERVICES).get(to.key)
    if service is None:
        raise status.not_found(SERVICES, to.key.name)
    scheme, port = to.segment.split(":")[::2] if to.segment.count(":") == 2 else ("http", to.segment.partition(":")[2])
    address = f"{service['spec']['clusterIP']}:{_port(service, port, to)}"
    url = URL(f"{scheme}://{address}{to.path}", encoded=True).with_query(request.query)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _KEPT}
    headers["X-Forwarded-For"] = request.remote or ""
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, url, headers=headers, data=await request.read(), allow_redirects=False, ssl=False
            ) as found,
        ):
            passed = {name: value for name, value in found.headers.items() if name.lower() not in _KEPT}
            stream = web.StreamResponse(status=found.status, reason=found.reason, headers=passed)
            await stream.prepare(request)
            async for chunk in found.content.iter_any():
                await stream.write(chunk)
            return stream
    except aiohttp.ClientError as error:
        raise _unavailable(f"error trying to reach service: {error}") from None


def _port(service: Object, wanted: str, to: Route) -> int:
    ports = service["spec"].get("ports") or []
    for port in ports:
        if wanted in {str(port["port"]), port.get("name", "")}:
            target = port.get("targetPort")
            return int(target if isinstance(target, int) else port["port"])
    if wanted.isdecimal():
        raise _unavailable(f'no service port {wanted} found for service "{to.key.name}"')
    raise _unavailable(f'no endpoints available for service "{to.segment}"')


def _unavailable(message: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", message)
