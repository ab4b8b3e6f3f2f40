"""The story of the demo: a cluster with observability services, and what happens to it.

::

    async with Sandbox() as sandbox, Scenario(sandbox) as scenario:
        for step in scenario.steps:
            print(step.title)
            await step.change()
            # wait, with a deadline, until await scenario.reached(step)
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox.backends import Backend
from dynamic_toolset.sandbox.resources import Object
from dynamic_toolset.sandbox.server import HOST, Sandbox
from dynamic_toolset.settings import ConfigMapSettings

_TOOLSET = "kubernaut.io/toolset"
_INSTRUCTION = "Ask for rates over five minutes, never for raw counters."
OVERRIDES = f"""\
toolsets:
  prometheus/metrics:
    llm_instructions: {_INSTRUCTION}
  grafana/dashboards:
    enabled: false
"""
"""What the person of the story writes into ``overrides.yaml``."""


class Sample(Struct, frozen=True):
    """A Service of the story. ``backend`` is what answers behind it; ``about`` says why it is in the story."""

    namespace: str
    name: str
    about: str
    port: int
    port_name: str = "http"
    backend: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    headless: bool = False

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.namespace, self.name)


def _recommended(name: str, **more: str) -> dict[str, str]:
    return {f"app.kubernetes.io/{key}": value for key, value in {"name": name, **more}.items()}


_PROMETHEUS = _recommended("prometheus", component="server")

SAMPLES = (
    Sample("monitoring", "prometheus", "Prometheus, of its Helm chart", 9090, "web", "prometheus", _PROMETHEUS),
    Sample(
        "monitoring",
        "prometheus-headless",
        "the same Pods once more, for the StatefulSet",
        9090,
        "web",
        labels=_PROMETHEUS,
        headless=True,
    ),
    Sample("monitoring", "grafana", "Grafana", 3000, "service", "grafana", _recommended("grafana")),
    Sample("monitoring", "alertmanager", "Alertmanager", 9093, "web", "alertmanager", _recommended("alertmanager")),
    Sample(
        "monitoring",
        "node-exporter",
        "an exporter, which has metrics and answers no questions",
        9100,
        "metrics",
        labels=_recommended("prometheus-node-exporter", component="metrics"),
    ),
    Sample(
        "tracing",
        "jaeger-query",
        "Jaeger",
        16686,
        "http-query",
        "jaeger",
        _recommended("jaeger", component="query"),
    ),
    Sample(
        "shop",
        "orders",
        "an API of a team, which annotated it for the agent",
        8080,
        backend="custom",
        labels=_recommended("orders"),
        annotations={
            _TOOLSET: "enabled",
            f"{_TOOLSET}-type": "orders-api",
            f"{_TOOLSET}-health-path": "/healthz",
        },
    ),
    Sample(
        "shop",
        "grafana",
        "a Grafana whose owner opted out",
        3000,
        "service",
        labels=_recommended("grafana"),
        annotations={_TOOLSET: "disabled"},
    ),
    Sample(
        "platform",
        "runbooks",
        "an MCP server",
        8000,
        "mcp",
        "mcp",
        _recommended("runbooks"),
        {_TOOLSET: "enabled", f"{_TOOLSET}-type": "mcp"},
    ),
    Sample(
        "playground",
        "prometheus",
        "a web page that says it is Prometheus, and answers 200 to everything",
        9090,
        "web",
        "welcome",
        _PROMETHEUS,
    ),
    Sample(
        "logging",
        "loki",
        "Loki",
        3100,
        "http-metrics",
        "loki",
        _recommended("loki", component="single-binary"),
    ),
)

_KEYS = {sample.key: sample for sample in SAMPLES}
_LOKI = ObjectKey("logging", "loki")
_JAEGER = ObjectKey("tracing", "jaeger-query")
_RUNBOOKS = ObjectKey("platform", "runbooks")

FIRST_LISTED = frozenset(
    {
        ObjectKey("monitoring", "alertmanager"),
        ObjectKey("monitoring", "grafana"),
        ObjectKey("monitoring", "prometheus"),
        ObjectKey("platform", "runbooks"),
        ObjectKey("shop", "orders"),
        ObjectKey("tracing", "jaeger-query"),
    }
)
"""The Services that belong into the toolset when the story begins."""


class Step(Struct, frozen=True):
    """One thing that happens. ``change`` makes it happen.

    After it the toolset must list exactly ``listed``, and ``text`` must stand in one of the documents.
    """

    title: str
    change: Callable[[], Awaitable[None]]
    listed: frozenset[ObjectKey]
    text: str = ""


class Scenario:
    """The backends of the story, as long as the ``async with`` block, and its steps. ``config_map``: where to look.

    All backends listen on 127.0.0.1, because only that address is local on every system, each on a port of its own;
    so the sandbox must give its Services this address, as it does by default. A Service says the port that its
    product is known by as ``targetPort``.
    """

    def __init__(self, sandbox: Sandbox, config_map: ConfigMapSettings | None = None) -> None:
        self._sandbox = sandbox
        self._config_map = config_map or ConfigMapSettings()
        self._backends: dict[ObjectKey, Backend] = {}
        self._exit = AsyncExitStack()
        without_jaeger = (FIRST_LISTED | {_LOKI}) - {_JAEGER}
        self.steps = (
            Step("A cluster with some observability services", self._install, FIRST_LISTED),
            Step("Somebody installs Loki", self._install_loki, FIRST_LISTED | {_LOKI}),
            Step("Jaeger turns unhealthy: it answers 503", self._break_jaeger, without_jaeger),
            Step("The MCP server is deleted", self._delete_runbooks, without_jaeger - {_RUNBOOKS}),
            Step(
                "A person adds an override: an instruction for Prometheus, and no Grafana",
                self._override,
                without_jaeger - {_RUNBOOKS},
                _INSTRUCTION,
            ),
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for sample in SAMPLES:
                if sample.backend:
                    self._backends[sample.key] = await stack.enter_async_context(Backend(sample.backend))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    @property
    def backends(self) -> Mapping[ObjectKey, Backend]:
        """What answers behind the Services; those that nobody may ask have none."""
        return self._backends

    def manifest(self, sample: Sample) -> Object:
        """Return the Service of a sample, with the port at which its backend listens now."""
        backend = self._backends.get(sample.key)
        metadata = {"name": sample.name, "namespace": sample.namespace}
        port = {"name": sample.port_name, "port": backend.port if backend else sample.port, "targetPort": sample.port}
        spec: Object = {"selector": sample.labels, "ports": [port]}
        spec["clusterIP"] = "None" if sample.headless else HOST
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "labels": sample.labels, "annotations": sample.annotations},
            "spec": spec,
        }

    async def reached(self, step: Step) -> bool:
        """Return whether the published documents say what they must after ``step``."""
        data = await self.published()
        documents = [text for key, text in data.items() if key != "overrides.yaml"]
        return self.listed(data) == step.listed and any(step.text in text for text in documents)

    async def published(self) -> Mapping[str, str]:
        """Return what the ConfigMap holds, nothing if there is none."""
        found = await self._sandbox.get("ConfigMap", self._config_map.namespace, self._config_map.name)
        return (found or {}).get("data") or {}

    def listed(self, data: Mapping[str, str]) -> frozenset[ObjectKey]:
        """Return the Services that ``toolset.json`` lists, known by their ports."""
        document = msgspec.json.decode(data.get("toolset.json", '{"tools": []}'), type=_Document)
        keys = {backend.port: key for key, backend in self._backends.items()}
        ports = {urlsplit(tool.endpoint).port or 0 for tool in document.tools}
        return frozenset(keys[port] for port in ports if port in keys)

    # --- What happens ------------------------------------------------------------------------------------------------

    async def _install(self) -> None:
        for name in sorted({self._config_map.namespace, *(sample.namespace for sample in SAMPLES)}):
            await self._sandbox.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for sample in SAMPLES:
            if sample.key != _LOKI:
                await self._sandbox.put(self.manifest(sample))

    async def _install_loki(self) -> None:
        await self._sandbox.put(self.manifest(_KEYS[_LOKI]))

    async def _break_jaeger(self) -> None:
        self._backends[_JAEGER].healthy = False

    async def _delete_runbooks(self) -> None:
        await self._sandbox.delete("Service", *_RUNBOOKS)

    async def _override(self) -> None:
        settings = self._config_map
        patch = {"data": {"overrides.yaml": OVERRIDES}}
        await self._sandbox.patch("ConfigMap", settings.namespace, settings.name, patch, manager="kubectl-edit")


class _Tool(Struct):
    endpoint: str


class _Document(Struct):
    tools: list[_Tool]
