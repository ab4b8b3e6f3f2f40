"""The names under which the agent knows instances and toolsets: unique, and the same whatever the order of things."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from dynamic_toolset.model import Candidate, HttpBinding, McpBinding, ServiceKey

MAX_LENGTH = 56
"""HolmesGPT makes the tool ``<name>_request`` of an HTTP toolset, and LLM APIs take tool names of 64 characters."""

BUILT_IN = frozenset(
    {
        "MongoDBAtlas",
        "aks/core",
        "aks/node-health",
        "argocd/core",
        "bash",
        "cilium/core",
        "confluence",
        "connectivity_check",
        "coralogix",
        "core_investigation",
        "crossplane/core",
        "database/sql",
        "datadog/general",
        "datadog/logs",
        "datadog/metrics",
        "datadog/traces",
        "docker/core",
        "elasticsearch/cluster",
        "elasticsearch/data",
        "grafana/dashboards",
        "grafana/loki",
        "grafana/tempo",
        "helm/core",
        "hubble/observability",
        "inspektor-gadget/node",
        "inspektor-gadget/tcpdump",
        "internet",
        "kafka/admin",
        "kubernetes/core",
        "kubernetes/kube-prometheus-stack",
        "kubernetes/live-metrics",
        "kubernetes/logs",
        "kubevela/core",
        "newrelic",
        "notion",
        "opensearch/query_assist",
        "openshift/core",
        "openshift/live-metrics",
        "openshift/logs",
        "openshift/security",
        "prometheus/metrics",
        "prometheus/multi-tenant-metrics",
        "rabbitmq/core",
        "robusta",
        "servicenow/tables",
        "skills",
        "slab",
        "victorialogs",
    }
)
"""The toolsets that HolmesGPT 0.45.0 brings along (``load_builtin_toolsets``). A Service must not take such a name:
it would configure that toolset, or switch it off."""


def fold(name: str) -> str:
    """Return the name with ``[a-z0-9-]`` only. HolmesGPT gives names that fold alike the same tool names."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def unique(wishes: Mapping[ServiceKey, tuple[str, ...]], reserved: Iterable[str] = ()) -> dict[ServiceKey, str]:
    """Give each key the first of its wishes that nobody else has, and that is not reserved.

    All who share a name move on to their next wish together, so the order does not matter. Last wishes must be
    unique by themselves.
    """
    turn = dict.fromkeys(wishes, 0)
    taken = Counter(reserved)
    while True:
        chosen = {key: wishes[key][turn[key]] for key in wishes}
        count = taken + Counter(chosen.values())
        shared = [key for key, name in chosen.items() if count[name] > 1 and turn[key] + 1 < len(wishes[key])]
        if not shared:
            return chosen
        for key in shared:
            turn[key] += 1


def instance_names(candidates: Iterable[Candidate]) -> dict[ServiceKey, str]:
    """Return ``<namespace>.<name>`` for each, ``<namespace>.<cluster>-<name>`` for one of another cluster.

    Where two chose the same, it is with the Service's own name; and ``<namespace>.<cluster>.<name>`` where somebody
    made that the name of a Service of his own: no name holds a dot.
    """
    return unique({one.key: _instance_wishes(one) for one in candidates})


def _instance_wishes(candidate: Candidate) -> tuple[str, ...]:
    namespace, service, cluster = candidate.key
    wishes = (f"{namespace}.{_called(candidate)}", f"{namespace}.{_named(service, cluster)}")
    return (*wishes, f"{namespace}.{cluster}.{service}") if cluster else wishes


def _called(candidate: Candidate) -> str:
    return _named(candidate.name, candidate.key.cluster)


def _named(name: str, cluster: str) -> str:
    """Return a name with its cluster, as the agent knows it."""
    return f"{cluster}-{name}" if cluster else name


def toolset_names(candidates: Iterable[Candidate], reserved: Iterable[str] = ()) -> dict[ServiceKey, str]:
    """Return the toolset name of each candidate that is a toolset, or an MCP server, of its own.

    ``<type>-<namespace>-<name>``, and ``mcp-<namespace>-<name>`` for an MCP server, with ``<cluster>-`` before the name
    of one of another cluster; with a hash of the Service's identity where that is longer than MAX_LENGTH, or somebody
    else's, a built-in's or a ``reserved`` name.
    """
    wishes = {one.key: _toolset_wishes(one) for one in candidates if isinstance(one.agent, HttpBinding | McpBinding)}
    return unique(wishes, {fold(name) for name in (*BUILT_IN, *reserved)})


def _toolset_wishes(candidate: Candidate) -> tuple[str, ...]:
    kind = "mcp" if isinstance(candidate.agent, McpBinding) else candidate.type
    namespace, service, cluster = candidate.key
    plain = [fold(f"{kind}-{namespace}-{name}") for name in (_called(candidate), _named(service, cluster))]
    digest = hashlib.sha256(f"{kind}/{candidate.key}".encode()).hexdigest()
    hashed = [f"{plain[0][: MAX_LENGTH - 1 - length].rstrip('-')}-{digest[:length]}" for length in (8, 40)]
    return (*(name for name in plain if len(name) <= MAX_LENGTH), *hashed)
