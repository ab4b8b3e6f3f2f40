"""The floor: the least that a process must do for the same outcome, and nothing else.

``bare.py once``: list the Services, probe those that say they are a Prometheus, apply one ConfigMap, wait.
``bare.py watch``: the same, then for each new Service one probe and one apply.
``bare.py serve``: the same, and a port whose answers are constant, of given sizes, and that streams each new Service.

No detection, no retries, no errors handled, no overrides, no store: what the real service costs on top is its work.
It reads its credentials as a Pod does.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

ROOT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    resourceVersion: str = ""  # noqa: N815
    continue_: str = msgspec.field(default="", name="continue")


class Port(msgspec.Struct):
    port: int


class Spec(msgspec.Struct):
    clusterIP: str = ""  # noqa: N815
    ports: list[Port] | None = None


class Service(msgspec.Struct):
    metadata: Metadata
    spec: Spec


class ServiceList(msgspec.Struct):
    metadata: Metadata
    items: list[Service]


class Event(msgspec.Struct):
    type: str
    object: Service


PAGE = msgspec.json.Decoder(ServiceList)
EVENT = msgspec.json.Decoder(Event)


async def main(mode: str, namespace: str, name: str, *sizes: str) -> None:
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    api = aiohttp.ClientSession(
        server,
        headers={"Authorization": f"Bearer {(ROOT / 'token').read_text()}"},
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(ROOT / "ca.crt"))),
        read_bufsize=2**22,
    )
    backends = aiohttp.ClientSession()
    found: dict[str, str] = {}

    async def probe(service: Service) -> None:
        url = f"http://{service.spec.clusterIP}:{(service.spec.ports or [])[0].port}"
        async with backends.get(url + "/-/healthy") as answer:
            await answer.read()
        async with backends.get(url + "/api/v1/status/buildinfo") as answer:
            msgspec.json.decode(await answer.read())
        found[f"{service.metadata.namespace}.{service.metadata.name}"] = url

    readers: set[asyncio.Queue[bytes]] = set()

    async def apply() -> None:
        lines = "".join(f"- {name}: {url}\n" for name, url in sorted(found.items()))
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"custom_toolset.yaml": lines},
        }
        async with api.patch(
            f"/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager=dynamic-toolset&force=true",
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/apply-patch+yaml"},
        ) as answer:
            answer.raise_for_status()
            await answer.read()

    services: list[Service] = []
    token = ""
    while True:
        async with api.get("/api/v1/services", params={"limit": "500", "continue": token}) as answer:
            answer.raise_for_status()
            page = PAGE.decode(await answer.read())
        services += page.items
        token = page.metadata.continue_
        if not token:
            break
    await asyncio.gather(*(probe(service) for service in services if is_backend(service)))
    await apply()
    if mode == "once":
        await asyncio.sleep(3600)
    serving = asyncio.create_task(serve(readers, *map(int, sizes))) if mode == "serve" else None
    params = {"watch": "1", "resourceVersion": page.metadata.resourceVersion}
    async with api.get("/api/v1/services", params=params, timeout=aiohttp.ClientTimeout(total=None)) as stream:
        async for line in stream.content:
            event = EVENT.decode(line)
            if event.type == "ADDED" and is_backend(event.object):
                await probe(event.object)
                await apply()
                told = b'{"event":"service_listed","service":{"name":"%s"}}' % event.object.metadata.name.encode()
                for reader in readers:
                    reader.put_nowait(b"event: change\ndata: " + told + b"\n\n")
    if serving is not None:
        serving.cancel()


async def serve(readers: set[asyncio.Queue[bytes]], services: int, toolset: int) -> None:
    """Serve what does not change, and the stream of what does, on a port that is free."""
    import uvicorn  # not for those who serve nothing: it is part of what they are compared with

    bodies = {"/api/v1/services": b"x" * services, "/api/v1/toolset": b"x" * toolset}

    async def app(scope: Any, _: Any, send: Any) -> None:
        body = bodies.get(scope["path"])
        if body is not None:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queue.put_nowait(b"event: hello\n\n")
        readers.add(queue)
        while True:
            await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})

    # asyncio sets TCP_NODELAY only on sockets of a protocol that is named.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    print(json.dumps({"event": "serving", "api": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    await uvicorn.Server(config).serve([listening])


def is_backend(service: Service) -> bool:
    return (service.metadata.labels or {}).get("app.kubernetes.io/name") == "prometheus"


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
