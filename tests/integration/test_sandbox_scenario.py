"""The story of the demo can be told: its Services are what they are said to be, and its steps can be reached."""

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.kube.objects import Service
from dynamic_toolset.model import Candidate, Outcome, ServiceKey, Verdict
from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.scenario import OVERRIDES, SAMPLES, Scenario
from dynamic_toolset.settings import ConfigMapSettings, HealthCheckSettings, Settings

WHERE = ConfigMapSettings()


@pytest.fixture
async def scenario(sandbox: Sandbox) -> AsyncIterator[Scenario]:
    async with Scenario(sandbox) as scenario:
        yield scenario


async def what_our_service_would_list(sandbox: Sandbox) -> dict[ServiceKey, Candidate]:
    found = [await sandbox.get("Service", *sample.key) for sample in SAMPLES]
    services = [msgspec.convert(service, Service) for service in found if service]
    decisions = Detector(load_catalog(), Settings()).discover(services)
    candidates = {
        key: decision.candidate
        for key, decision in decisions.items()
        if decision.outcome is Outcome.CANDIDATE and decision.candidate
    }
    async with Probe(HealthCheckSettings(timeout="10s"), Guard(["127.0.0.0/8"])) as probe:
        return {
            key: candidate
            for key, candidate in candidates.items()
            if (await probe(candidate)).verdict is Verdict.HEALTHY
        }


async def publish(sandbox: Sandbox, listed: dict[ServiceKey, Candidate], *, also: str = "") -> None:
    """Stand in for the service: write what it would."""
    tools = [{"name": key.name, "endpoint": candidate.endpoint.url} for key, candidate in listed.items()]
    data = {"toolset.json": json.dumps({"tools": tools}), "custom_toolset.yaml": also}
    present = await sandbox.get("ConfigMap", WHERE.namespace, WHERE.name)
    if present is None:
        metadata = {"name": WHERE.name, "namespace": WHERE.namespace}
        await sandbox.put({"kind": "ConfigMap", "metadata": metadata, "data": data})
    else:
        await sandbox.patch("ConfigMap", WHERE.namespace, WHERE.name, {"data": data})


async def test_every_step_can_be_reached_and_is_not_before_the_service_reacts(
    sandbox: Sandbox, scenario: Scenario
) -> None:
    for step in scenario.steps:
        assert not await scenario.reached(step), step.title
        await step.change()
        assert not await scenario.reached(step), step.title
        listed = await what_our_service_would_list(sandbox)
        assert {key[:2] for key in listed} == step.listed, step.title
        await publish(sandbox, listed, also=step.text)
        assert await scenario.reached(step), step.title


async def test_the_story_has_one_of_each_kind(sandbox: Sandbox, scenario: Scenario) -> None:
    await scenario.steps[0].change()
    found = [await sandbox.get("Service", *sample.key) for sample in SAMPLES]
    services = [msgspec.convert(service, Service) for service in found if service]
    decisions = Detector(load_catalog(), Settings()).discover(services)
    assert decisions[ServiceKey("monitoring", "prometheus-headless")].outcome is Outcome.DUPLICATE
    assert decisions[ServiceKey("monitoring", "node-exporter")].outcome is Outcome.IGNORED
    assert "opted out" in decisions[ServiceKey("shop", "grafana")].reason
    assert decisions[ServiceKey("playground", "prometheus")].type == "prometheus"  # only its health check gives it away
    assert decisions[ServiceKey("shop", "orders")].type == "orders-api"


async def test_the_override_is_written_as_a_person_would(sandbox: Sandbox, scenario: Scenario) -> None:
    await scenario.steps[0].change()
    await publish(sandbox, {})
    await scenario.steps[-1].change()
    stored = await sandbox.get("ConfigMap", WHERE.namespace, WHERE.name) or {}
    assert stored["data"]["overrides.yaml"] == OVERRIDES
    assert "toolset.json" in stored["data"]
    assert "kubectl-edit" in {entry["manager"] for entry in stored["metadata"]["managedFields"]}
