"""``toolset.json``: what was found, for any agent or script, without HolmesGPT's vocabulary.

It is also our own memory: after a restart it says what was published before.
"""

import json
from collections.abc import Sequence

from msgspec import Struct

from dynamic_toolset.model import Candidate, DiscoveredService, InstancesBinding, ServiceKey
from dynamic_toolset.settings import ToolsetSettings
from dynamic_toolset.toolset.names import instance_names, toolset_names
from dynamic_toolset.toolset.safety import listed

KEY = "toolset.json"

Published = frozenset[tuple[ServiceKey, str]]
"""The Services that were last published, each with its type."""


class Tool(Struct, frozen=True):
    """An entry of the document, read back: whose it is, and under which names the agent has it.

    ``instance`` is its name among the instances of the ``toolsets``, ``name`` what its owner calls it.
    """

    service: ServiceKey
    type: str
    instance: str
    toolsets: tuple[str, ...]
    endpoint: str = ""
    name: str = ""


_NO_SETTINGS = ToolsetSettings(base={})


def render(services: Sequence[DiscoveredService], settings: ToolsetSettings = _NO_SETTINGS) -> str:
    """Return ``{"tools": [...]}`` for the services that are listed, sorted by namespace and Service.

    ``name`` is unique within its namespace. ``metadata`` holds texts only: the product's ``title``, the ``service``,
    and the ``toolsets`` (names, separated by commas) through which HolmesGPT uses it; of a Service of another cluster
    also the ``cluster``, and the ``name`` that its owner gave it if that is not the Service's. Nothing in it changes
    while nothing happens: no times, no verdicts. Equal services give the same bytes.
    """
    candidates = listed(services)
    names = instance_names(candidates)
    toolsets = toolset_names(candidates, settings.base)
    tools = [
        {
            "name": names[one.key].removeprefix(f"{one.key.namespace}."),
            "type": one.type,
            "endpoint": one.endpoint.url,
            "description": one.description,
            "namespace": one.key.namespace,
            "metadata": {
                "service": one.key.name,
                **_whereabouts(one),
                "title": one.title,
                "toolsets": ",".join(_toolsets(one, toolsets)),
            },
        }
        for one in candidates
    ]
    return json.dumps({"tools": tools}, indent=2, ensure_ascii=False) + "\n"


def published(text: str) -> Published:
    """Return the Services, with their types, that a document lists; what cannot be read in it is passed over."""
    return frozenset((tool.service, tool.type) for tool in tools(text))


def tools(text: str) -> tuple[Tool, ...]:
    """Return the tools that a document lists; what cannot be read in it is passed over."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    found: list[Tool] = []
    match content:
        case {"tools": [*entries]}:
            for entry in entries:
                match entry:
                    case {"namespace": str(namespace), "type": str(kind), "metadata": {"service": str(name), **rest}}:
                        toolsets = rest.get("toolsets", "")
                        found.append(
                            Tool(
                                ServiceKey(namespace, name, _text(rest.get("cluster"))),
                                kind,
                                f"{namespace}.{entry.get('name', '')}",
                                tuple(filter(None, toolsets.split(","))) if isinstance(toolsets, str) else (),
                                _text(entry.get("endpoint")),
                                _text(rest.get("name")) or name,
                            )
                        )
    return tuple(found)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whereabouts(candidate: Candidate) -> dict[str, str]:
    """Return what else it takes to find a candidate of another cluster again while that is away."""
    key = candidate.key
    if not key.cluster:
        return {}
    return {"cluster": key.cluster} | ({} if candidate.name == key.name else {"name": candidate.name})


def _toolsets(candidate: Candidate, names: dict[ServiceKey, str]) -> tuple[str, ...]:
    agent = candidate.agent
    return agent.toolsets if isinstance(agent, InstancesBinding) else (names[candidate.key],)
