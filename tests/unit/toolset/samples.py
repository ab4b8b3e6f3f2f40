"""Candidates of every kind, and Hypothesis strategies for many of them."""

from typing import Any

import yaml
from hypothesis import strategies as st

from dynamic_toolset.model import (
    AgentBinding,
    Candidate,
    DiscoveredService,
    Endpoint,
    Health,
    HealthCheck,
    HttpBinding,
    InstancesBinding,
    McpBinding,
    Scheme,
    ServiceKey,
    Verdict,
)
from dynamic_toolset.settings import Credential, ToolsetSettings

_PROMETHEUS = InstancesBinding(("prometheus/metrics",), "prometheus_url", headers="additional_headers")
_ELASTICSEARCH = InstancesBinding(
    ("elasticsearch/data", "elasticsearch/cluster"),
    "api_url",
    credentials={"apiKey": "api_key", "username": "username", "password": "password"},
)
_GRAFANA_OPTIONS: dict[str, str | int | bool] = {"timeout_seconds": 5, "max_retries": 1}

BINDINGS: dict[str, AgentBinding] = {
    "prometheus": _PROMETHEUS,
    "victoriametrics": _PROMETHEUS,
    "grafana": InstancesBinding(
        ("grafana/dashboards",),
        "api_url",
        options=_GRAFANA_OPTIONS,
        credentials={"apiKey": "api_key", "username": "username", "password": "password"},
    ),
    "loki": InstancesBinding(("grafana/loki",), "api_url", options=_GRAFANA_OPTIONS),
    "elasticsearch": _ELASTICSEARCH,
    "opensearch": _ELASTICSEARCH,
    "victorialogs": InstancesBinding(("victorialogs",), "api_url", credentials={"bearerToken": "bearer_token"}),
    "rabbitmq": InstancesBinding(
        ("rabbitmq/core",),
        "api_url",
        list="clusters",
        name="id",
        trailing_slash=True,
        credentials={"username": "username", "password": "password"},
    ),
    "jaeger": HttpBinding(
        "Jaeger query API. Base URL: {base}\n- GET {base}/api/services lists the names of services.\n",
        paths=("/api/*",),
        health_path="/api/services",
    ),
    "custom": HttpBinding("HTTP API of a service in the cluster. Base URL: {base}\n"),
    "mcp": McpBinding(),
}


def candidate(
    type_: str,
    namespace: str,
    service: str,
    *,
    port: int = 8080,
    path: str = "",
    scheme: Scheme = "http",
    name: str | None = None,
    agent: AgentBinding | None = None,
    host: str | None = None,
    cluster: str = "",
) -> Candidate:
    return Candidate(
        key=ServiceKey(namespace, service, cluster),
        type=type_,
        name=name or service,
        endpoint=Endpoint(scheme, host or f"{service}.{namespace}.svc.cluster.local", port, path),
        check=HealthCheck(),
        agent=agent or BINDINGS.get(type_) or BINDINGS["custom"],
        title=type_.capitalize(),
        description=f"What {type_} knows",
    )


def listed(*candidates: Candidate) -> list[DiscoveredService]:
    return [DiscoveredService(one, Health(Verdict.HEALTHY, "200"), listed=True) for one in candidates]


RICH = (
    candidate("prometheus", "monitoring", "prometheus-k8s", port=9090),
    candidate("victoriametrics", "metrics", "vmselect", port=8481, path="/select/0/prometheus"),
    candidate("grafana", "monitoring", "grafana", port=3000, path="/grafana"),
    candidate("loki", "logging", "loki", port=3100),
    candidate("elasticsearch", "logging", "es", port=9200, scheme="https"),
    candidate("opensearch", "search", "os", port=9200),
    candidate("victorialogs", "logging", "vlogs", port=9428),
    candidate("rabbitmq", "mq", "rabbit", port=15672),
    candidate("jaeger", "tracing", "jaeger-query", port=16686, path="/jaeger"),
    candidate("shop-api", "shop", "orders", port=80),
    candidate("mcp", "shop", "orders-mcp", port=8000, path="/mcp"),
)
"""One of each kind."""

RICH_SETTINGS = ToolsetSettings(
    credentials=(
        Credential("monitoring", "grafana", api_key="GRAFANA_API_KEY"),
        Credential("logging", "es", username="ES_USER", password="ES_PASSWORD"),
        Credential("logging", "vlogs", bearer_token="VLOGS_TOKEN"),
        Credential("mq", "rabbit", username="RMQ_USER", password="RMQ_PASSWORD"),
        Credential("shop", "orders", bearer_token="ORDERS_TOKEN"),
        Credential("shop", "orders-mcp", bearer_token="MCP_TOKEN"),
    )
)

_words = st.sampled_from(["a", "b", "a-b", "x", "x-y", "kubernetes-core", "prometheus", "z" * 40])

candidates = st.builds(
    candidate,
    st.sampled_from([*BINDINGS, "shop-api", "a", "a-x", "robusta"]),
    _words,
    _words,
    name=st.none() | _words,
    path=st.sampled_from(["", "/base"]),
    scheme=st.sampled_from(["http", "https"]),
    cluster=st.sampled_from(["", "", "a", "x-y", "x"]),
)

candidate_sets = st.lists(candidates, max_size=12, unique_by=lambda one: one.key)
"""Sets of candidates that clash: few words for namespaces, Services and names, some of them very long."""


def load(text: str) -> dict[str, Any]:
    """Read a file as HolmesGPT does, and fail on whatever makes it refuse the whole file (see the killers' table)."""
    content = yaml.safe_load(text)
    assert isinstance(content, dict)
    assert content["toolsets"]
    for section in ("toolsets", "mcp_servers"):
        entries = content.get(section, {})
        assert isinstance(entries, dict)
        assert all(isinstance(name, str) and isinstance(entry, dict) for name, entry in entries.items())
    assert not [key for key in keys(content) if not isinstance(key, str) or "." in key]
    return content


def keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *(key for member in value.values() for key in keys(member))]
    return [key for member in value for key in keys(member)] if isinstance(value, list) else []


_names = st.sampled_from(["a", "b", "c"])
_scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
plain = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_names, inner, max_size=3)
        | st.lists(
            st.tuples(_names, st.dictionaries(_names, inner, max_size=2)), max_size=3, unique_by=lambda pair: pair[0]
        ).map(lambda pairs: [{**rest, "name": name} for name, rest in pairs])
    ),
    max_leaves=12,
)
"""Plain data as in an overrides file, with lists of named entries among it."""
