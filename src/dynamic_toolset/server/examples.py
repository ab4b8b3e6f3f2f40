"""An example of each answer, for the OpenAPI document."""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar import MediaType
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from dynamic_toolset.server import answers, problems
from dynamic_toolset.server.problems import ProblemDetails

EVERYWHERE = (400, 401, 403, 429, 500, 503)
"""What every operation may answer with, besides."""

_SERVICE = answers.ServiceRef("monitoring", "prometheus")
_URL = "http://prometheus.monitoring.svc.cluster.local:9090"
_AT = "2026-01-31T09:15:02.120Z"
_LATER = "2026-01-31T09:20:02.120Z"
_INSTANCES = {"instances": [{"name": "monitoring.prometheus", "prometheus_url": _URL}]}
_CONTENT = {"enabled": True, "config": _INSTANCES}

_ITEM = answers.ServiceItem(
    "monitoring",
    "prometheus",
    "",
    "candidate",
    "prometheus",
    _URL,
    "healthy",
    listed=True,
    held=False,
    reason="answers as Prometheus",
)

SERVICES = answers.ServiceList((_ITEM,), 12, "monitoring/prometheus")

SERVICE = answers.ServiceDetail(
    **msgspec.structs.asdict(_ITEM),
    evidence=("label app.kubernetes.io/name=prometheus", "port web 9090"),
    ports=(answers.PortItem(9090, "web", chosen=True, note="a port of Prometheus"),),
    failures=0,
    checks=(answers.CheckItem(_AT, "healthy", "answers as Prometheus", 0.0041),),
    toolsets=("prometheus/metrics",),
    agent={"toolsets": {"prometheus/metrics": _CONTENT}},
)

TOOLSET = answers.ToolsetAnswer(
    answers.ServiceRef("kubernaut-system", "kubernaut-toolset-config"),
    published=True,
    documents=(answers.DocumentItem("custom_toolset.yaml", '"toolsets":\n  "prometheus/metrics": ...\n'),),
    overrides=answers.OverridesAnswer(
        "internet: {enabled: false}\n",
        (answers.EffectItem("internet", "toolsets", "added", "internet was added"),),
    ),
    problems=(),
)

_TOOLSET = answers.ToolsetItem(
    "prometheus/metrics",
    "toolsets",
    enabled=True,
    source="services",
    services=(_SERVICE,),
    overridden=False,
    description="",
)

TOOLSETS = answers.ToolsetList((_TOOLSET,))
TOOLSET_DETAIL = answers.ToolsetDetail(**msgspec.structs.asdict(_TOOLSET), content=_CONTENT)

DIFF = answers.DiffAnswer(
    answers.ServiceRef("kubernaut-system", "kubernaut-toolset-config"),
    exists=True,
    changes=(
        answers.DiffItem(
            "custom_toolset.yaml",
            "--- custom_toolset.yaml as it is\n+++ custom_toolset.yaml as it would be\n@@ -1,2 +1,3 @@\n"
            ' "toolsets":\n+  "grafana/dashboards": ...\n   "prometheus/metrics": ...',
        ),
    ),
    withheld=(answers.ProblemItem("Paused", "the setting paused is true, so nothing is written"),),
)
DISCOVER = answers.Accepted("looking again; /api/v1/events tells what changes")

STATISTICS = answers.StatisticsAnswer(
    version="0.1.0",
    started_at=_AT,
    leads=True,
    holder="dynamic-toolset-7d4b9c-x2x7p_0b1e",
    ready=True,
    services=answers.ServiceCounts(known=412, candidates=9, listed=8, healthy=8, unhealthy=1, unknown=0, held=0),
    passes=answers.PassCounts(57, _AT, "unchanged", 0.0021),
    full_looks=answers.FullLookCounts(13, _AT, _LATER),
    checks=answers.CheckCounts(healthy=1740, unhealthy=31, needs_credentials=0, running=1, waiting=0),
    watches={
        "Services": answers.WatchCounts(
            synced=True,
            objects=412,
            skipped=0,
            lists=1,
            watches=3,
            events=88,
            bookmarks=21,
            failures=1,
            last_error="Service: the connection was refused",  # no null here: Litestar leaves it out
            since_heard=12.4,
            since_bookmark=31.0,
        )
    },
    publications=answers.PublicationCounts(writes=6, conflicts=0),
    problems=(),
)

CONFIG = answers.ConfigAnswer(
    "/etc/dynamic-toolset/settings.yaml",
    (
        answers.SettingItem("healthCheck.interval", "30s", "default"),
        answers.SettingItem("healthCheck.timeout", "3s", "resource", "kubernaut-toolset-config"),
        answers.SettingItem("configMap.namespace", "holmes", "environment", "DYNAMIC_TOOLSET_CONFIG_MAP_NAMESPACE"),
    ),
)

RELOAD = answers.ReloadAnswer(("healthCheck.interval", "server.port"), ("server.port",))

VALIDATION = answers.ValidationAnswer(
    valid=False,
    problems=(answers.MistakeItem(3, "toolsets.internet.enabled", "this is the text 'no'; true or false is allowed"),),
)

OVERRIDES = "toolsets:\n  internet: {enabled: false}\n"

HISTORY = answers.HistoryList(
    (
        answers.HistoryItem(
            "19be0c2f1a3-12",
            _AT,
            "service_listed",
            _SERVICE,
            "prometheus",
            _URL,
            "healthy",
            "answers as Prometheus",
            "",
            "Service monitoring/prometheus was created",
            "",
        ),
    )
)

VERBOSE = "[+]Services synced ok\n[+]ConfigMap synced ok\nok\n"
ALIVE_NOT = "[+]watch of Services ok\n[-]health checks failed: late by 75 s\nfailed\n"
READY_NOT = "[+]Services synced ok\n[-]API reached lately failed: it has not been heard of lately\nfailed\n"

EVENTS = (
    'id: 19be0c2f1a3-12\nevent: hello\ndata: {"version":"0.1.0","lastEventId":"19be0c2f1a3-12"}\n\n'
    'event: report\ndata: {"published":true}\n\n'
)

_DETAILS = {
    400: "continue must be what the page before gave",
    401: "a bearer token is needed",
    403: "user 'system:serviceaccount:shop:default' cannot get path '/api/v1/services'",
    404: "there is no Service of this name, or it is outside of what this program may see",
    405: "this can be had with GET",
    406: "this is offered as application/json",
    413: "the body may have 1048576 bytes",
    415: "a text is expected as application/yaml, text/yaml or text/plain",
    429: "100 requests a minute are allowed; try again in 12 s",
    500: problems.INTERNAL,
    503: "whose token this is cannot be found out at present",
}


def plain(example: Any) -> Any:
    """Return an example as plain data."""
    return msgspec.to_builtins(example)


def text(description: str, *values: str) -> ResponseSpec:
    """Return what OpenAPI says of an answer in plain text."""
    return ResponseSpec(
        str,
        description=description,
        generate_examples=False,
        media_type=MediaType.TEXT,
        examples=[Example(value=value) for value in values],
    )


def refusal(status: int) -> ResponseSpec:
    """Return what OpenAPI says of a refusal."""
    phrase = HTTPStatus(status).phrase
    details = ProblemDetails(phrase, status, _DETAILS[status], "/api/v1/services", "b7c1d02fa3e94c11")
    return ResponseSpec(
        ProblemDetails,
        description=phrase,
        generate_examples=False,
        media_type=problems.MEDIA_TYPE,
        examples=[Example(value=plain(details))],
    )
