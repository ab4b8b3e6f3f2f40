"""The real HolmesGPT loads what is published, and can use it."""

from collections.abc import Callable

import pytest

from tests.cluster.backends import alertmanager, prometheus, victoriametrics
from tests.cluster.cluster import Cluster
from tests.cluster.holmesgpt import Loaded
from tests.e2e.program import Program
from tests.e2e.test_lifecycle import instances, toolsets
from tests.waiting import eventually

pytestmark = pytest.mark.e2e


def test_holmesgpt_takes_the_toolset_and_queries_prometheus(
    cluster: Cluster, namespace: str, program: Callable[..., Program], holmesgpt: Callable[..., Loaded]
) -> None:
    with prometheus(cluster, namespace, "metrics") as backend:
        subject = program()
        eventually(lambda: instances(subject))
        backend.wait_for_samples()
        loaded = holmesgpt(
            subject.published(),
            expect={"prometheus/metrics": "enabled"},
            tool="execute_prometheus_instant_query",
            parameters={"query": "up", "description": "what is up"},
        )
        assert "status=success" in loaded.answer
        assert '"1"' in loaded.answer


def test_holmesgpt_takes_several_instances_and_an_http_toolset(
    cluster: Cluster, namespace: str, program: Callable[..., Program], holmesgpt: Callable[..., Loaded]
) -> None:
    with (
        prometheus(cluster, namespace, "metrics"),
        victoriametrics(cluster, namespace, "victoria"),
        alertmanager(cluster, namespace, "alerts"),
    ):
        subject = program()
        alerts = f"alertmanager-{namespace}-alerts"
        eventually(lambda: len(instances(subject)) == 2 and alerts in toolsets(subject))
        marker = next(name for name in toolsets(subject) if name.startswith("dynamic-toolset-rev-"))
        loaded = holmesgpt(
            subject.published(), expect={"prometheus/metrics": "enabled", alerts: "enabled", marker: "enabled"}
        )
        assert "prometheus_metrics_list_instances" in loaded.toolsets["prometheus/metrics"].tools
