"""The service at work on the sandbox, in this process: what a test sets up, and what it looks at."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from dynamic_toolset.controller import Controller
from dynamic_toolset.controller.observer import Nobody
from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.model import DiscoveredService, Pass, Report, Verdict
from dynamic_toolset.sandbox import Backend, Sandbox
from dynamic_toolset.sandbox.backends import Mode
from dynamic_toolset.sandbox.resources import CONFIG_MAPS, SERVICES, Object, Target
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset import generic
from tests.waiting import PATIENCE

CATALOG = load_catalog()
TARGET = ObjectKey("kubernaut-system", "kubernaut-toolset-config")
NAMESPACE = "shop"
TOOLSET = "kubernaut.io/toolset"

# Everything listens on loopback here, and a test is not to wait for half a minute. A check may last, as one that the
# machine holds up for some seconds is no backend that hangs; whoever has one of those says how long it may.
QUICK = {"interval": "300ms", "timeout": "10s", "failureThreshold": 1}
POLICY = {"allowedRanges": ["127.0.0.0/8"]}
NO_HOLD = {"hold": "0s"}
"""What fails is taken out at once: otherwise it is held for as long as a check of the others may last."""

T = TypeVar("T")
Answer = Callable[[], Awaitable[web.StreamResponse]]


async def until(condition: Callable[[], T], within: float = PATIENCE) -> T:
    """Return the first true value of ``condition``; the event loop runs on meanwhile."""
    async with asyncio.timeout(within):
        while not (value := condition()):
            await asyncio.sleep(0.005)
        return value


class Write(Struct, frozen=True):
    """A write of the ConfigMap as it arrived at the API: when (seconds of the loop), and what it would say."""

    at: float
    data: dict[str, str]

    @property
    def listed(self) -> set[str]:
        return listed(self.data)


class Cluster:
    """The sandbox with its namespaces, Services with backends behind them, and an eye on every apply.

    A test may put something in the way of the writes: ``around`` is called for each with what answers it, and may
    do something before or afterwards, or raise StatusError.
    """

    def __init__(self, sandbox: Sandbox, backends: AsyncExitStack) -> None:
        self.sandbox = sandbox
        self.writes: list[Write] = []
        self.around: Callable[[Answer], Awaitable[web.StreamResponse]] | None = None
        self._backends = backends
        self._patch = sandbox._api._patch
        sandbox._api._patch = self._watched_patch

    async def add_namespace(self, name: str) -> None:
        await self.sandbox.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def add(self, name: str, *, kind: str = "custom", mode: Mode = "serve", **annotations: str) -> Backend:
        """Create a Service that asks to be listed, with a backend; ``path="/x"`` is ``toolset-path: /x``."""
        backend = await self._backends.enter_async_context(Backend(kind, mode=mode))
        await self.add_service(name, backend, **annotations)
        return backend

    async def add_service(self, name: str, backend: Backend, **annotations: str) -> None:
        wanted = {"type": "orders" if backend.kind == "custom" else backend.kind, **annotations}
        named = {f"{TOOLSET}-{key.replace('_', '-')}": value for key, value in wanted.items()}
        await self.sandbox.put(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {TOOLSET: "enabled", **named}},
                "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": backend.port}]},
            }
        )

    async def annotate(self, name: str, annotations: Mapping[str, str | None]) -> None:
        await self.sandbox.patch("Service", NAMESPACE, name, {"metadata": {"annotations": dict(annotations)}})

    async def delete(self, name: str) -> None:
        await self.sandbox.delete("Service", NAMESPACE, name)

    def break_service(self, name: str) -> None:
        """Make a Service one that cannot be decoded, past all validation."""
        store, key = self.sandbox._store, ObjectKey(NAMESPACE, name)
        whole = store.objects(SERVICES)[key]
        store.put(SERVICES, key, {**whole, "spec": {**whole["spec"], "ports": [{"port": "eighty"}]}})

    async def edit(self, data: Mapping[str, str | None]) -> None:
        """Change keys of the ConfigMap as a person would; None removes."""
        if self.config_map is None:
            metadata = {"namespace": TARGET.namespace, "name": TARGET.name}
            await self.sandbox.put({"kind": "ConfigMap", "metadata": metadata, "data": dict(data)}, manager="kubectl")
        else:
            await self.sandbox.patch("ConfigMap", *TARGET, {"data": dict(data)}, manager="kubectl")

    @property
    def config_map(self) -> Object | None:
        return self.sandbox._store.objects(CONFIG_MAPS).get(TARGET)

    @property
    def data(self) -> dict[str, str]:
        return (self.config_map or {}).get("data") or {}

    @property
    def documents(self) -> dict[str, str]:
        """What the program keeps, and nobody else."""
        return {key: text for key, text in self.data.items() if key in {"custom_toolset.yaml", "toolset.json"}}

    @property
    def listed(self) -> set[str]:
        """The names of the Services that are published."""
        return listed(self.data)

    @property
    def known(self) -> set[str]:
        """The Services that are published, each with its cluster: ``eu:shop/orders``."""
        return {str(tool.service) for tool in generic.tools(self.data.get("toolset.json", ""))}

    @property
    def endpoints(self) -> dict[str, str]:
        return {tool["metadata"]["service"]: tool["endpoint"] for tool in _tools(self.data)}

    @property
    def requests(self) -> dict[tuple[str, str], int]:
        """How often each verb was used on each resource, watches aside."""
        return {key: count for key, count in self.sandbox.requests.items() if key[0] != "watch"}

    async def _watched_patch(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        if wanted.resource is not CONFIG_MAPS:
            return await self._patch(request, wanted)
        body = msgspec.json.decode(await request.read())
        if "data" not in body:  # an empty one is made before it is filled
            return await self._patch(request, wanted)
        self.writes.append(Write(asyncio.get_running_loop().time(), body["data"]))
        if self.around is None:
            return await self._patch(request, wanted)
        return await self.around(lambda: self._patch(request, wanted))


class Elsewhere:
    """Another cluster: a sandbox of its own, whose Services are balanced, and a kubeconfig of it in a Secret of ours.

    ``away`` and ``back`` stop its API and start it anew, as it was.
    """

    def __init__(self, cluster: Cluster, sandbox: Sandbox, name: str = "eu") -> None:
        self.name = name
        self.sandbox = sandbox
        self.cluster = Cluster(sandbox, cluster._backends)
        self._home = cluster.sandbox

    @property
    def setting(self) -> dict[str, str]:
        return {"name": self.name, "secret": f"cluster-{self.name}"}

    def kubeconfig(self, **user: Any) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "there",
            "contexts": [{"name": "there", "context": {"cluster": "there", "user": "us"}}],
            "clusters": [{"name": "there", "cluster": {"server": self.sandbox.url}}],
            "users": [{"name": "us", "user": user or {"token": "sesame"}}],
        }

    async def hand_over(self, kubeconfig: Any = None, *, key: str = "kubeconfig") -> None:
        """Put a kubeconfig into the Secret, that of this cluster if none is given."""
        text = json.dumps(self.kubeconfig() if kubeconfig is None else kubeconfig)
        data = {key: base64.b64encode(text.encode()).decode()}
        metadata = {"namespace": TARGET.namespace, "name": self.setting["secret"]}
        await self._home.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    async def add(self, name: str, *, balanced: bool = True, **options: Any) -> Backend:
        backend = await self.cluster.add(name, **options)
        await self.sandbox.patch("Service", NAMESPACE, name, {"spec": {"type": "LoadBalancer"}})
        if balanced:
            await self.sandbox.balance(NAMESPACE, name, "127.0.0.1")
        return backend

    async def away(self) -> None:
        await self.sandbox.__aexit__(None, None, None)

    async def back(self) -> None:
        await self.sandbox.__aenter__()


class Subject(Nobody):
    """A controller at work, from ``start`` to ``stop``, with the reports that it made."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.reports: list[Report] = []
        self.passes: list[Pass] = []
        self._client = Client(static(cluster.sandbox.url))
        self._stopped = False
        self.controller = Controller(self._client, settings, CATALOG, observer=self)

    def passed(self, done: Pass) -> None:
        self.passes.append(done)
        if not self.reports or done.report is not self.reports[-1]:
            self.reports.append(done.report)

    async def start(self) -> None:
        await self._client.__aenter__()
        self.task = asyncio.create_task(self.controller.run(), name="subject")

    async def stop(self) -> None:
        """End it as the command does; what it died of before, if anything, is raised. Once is enough."""
        self.controller.stop()
        await self._end()

    async def vanish(self) -> None:
        """End it as a lost node does: nothing is finished, nothing given back."""
        self.task.cancel()
        await self._end()

    async def _end(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await asyncio.wait([self.task])
        await self._client.__aexit__(None, None, None)
        if not self.task.cancelled():
            self.task.result()

    @property
    def problems(self) -> dict[str, str]:
        """The problems of the last report: reason -> message."""
        return {problem.reason: problem.message for problem in self.reports[-1].problems} if self.reports else {}

    def found(self, name: str) -> DiscoveredService | None:
        """What the last report says of a candidate."""
        discovered = self.reports[-1].discovered if self.reports else ()
        return next((one for one in discovered if one.candidate.key.name == name), None)

    def verdict(self, name: str) -> Verdict | None:
        """What the last report says of its health; None if it is no candidate."""
        found = self.found(name)
        return found.health.verdict if found else None


def settings(
    *, health: Mapping[str, Any] | None = None, policy: Mapping[str, Any] | None = None, **changes: Any
) -> Settings:
    whole = {"healthCheck": {**QUICK, **(health or {})}, "policy": {**POLICY, **(policy or {})}, "massFailure": NO_HOLD}
    return msgspec.convert(whole | changes, Settings)


def listed(data: Mapping[str, str]) -> set[str]:
    return {tool["metadata"]["service"] for tool in _tools(data)}


def _tools(data: Mapping[str, str]) -> list[dict[str, Any]]:
    return json.loads(data.get("toolset.json", '{"tools": []}'))["tools"]
