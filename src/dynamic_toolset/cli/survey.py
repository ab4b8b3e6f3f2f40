"""One look at a cluster, for the commands that end: list, detect, check."""

import asyncio
import contextlib
from collections.abc import Mapping

from msgspec import Struct

from dynamic_toolset.cli.setup import Setup
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.health.checker import Checker
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.health.readiness import Readiness, dialled
from dynamic_toolset.kube.client import Client, ObjectList, Skipped
from dynamic_toolset.kube.connection import Connection
from dynamic_toolset.kube.errors import Forbidden
from dynamic_toolset.kube.objects import Namespace, Service
from dynamic_toolset.kube.resources import NAMESPACES, SERVICES
from dynamic_toolset.model import UNCHECKED, Candidate, Decision, Health, Outcome, ServiceKey, Verdict
from dynamic_toolset.settings import Settings, seconds
from dynamic_toolset.toolset.listing import is_listed

_SLICES_WAIT = 10.0
"""Seconds that the checks wait for the EndpointSlices, unless these turn out to be unreadable before."""


class Survey(Struct, frozen=True):
    """What one look found: a decision for every Service, the health of the candidates, what could not be read.

    ``problem`` says what was in the way of reading the EndpointSlices: candidates without them are not checked.
    """

    decisions: Mapping[ServiceKey, Decision]
    health: Mapping[ServiceKey, Health]
    skipped: tuple[Skipped, ...]
    problem: str | None

    def health_of(self, key: ServiceKey) -> Health:
        """Return the health of a Service, which is unknown for one that was not checked."""
        return self.health.get(key, UNCHECKED)

    def is_listed(self, key: ServiceKey, settings: Settings) -> bool:
        """Whether a Service belongs into the toolset, by this look alone: nothing counts as published before."""
        decision = self.decisions[key]
        return (
            decision.outcome is Outcome.CANDIDATE
            and decision.candidate is not None
            and is_listed(decision.candidate, self.health_of(key), settings)
        )


async def survey(connection: Connection, setup: Setup, *, only: ServiceKey | None = None) -> Survey:
    """Look at all Services, and check the candidates, or only one of them.

    Who asks for one, and may not list those of other namespaces, hears what follows from its own. Raises
    KubernetesError.
    """
    async with Client(connection) as client:
        found = await _services(client, only)
        labels = await _namespace_labels(client) if setup.settings.namespaces.selector else {}
        decisions = Detector(setup.catalog, setup.settings, labels).discover(found.items)
        candidates = {
            key: decision.candidate
            for key, decision in decisions.items()
            if decision.candidate and (decision.outcome is Outcome.CANDIDATE if only is None else key == only)
        }
        health, problem = await _checked(client, candidates, setup)
        return Survey(decisions, health, found.skipped, problem)


async def _services(client: Client, only: ServiceKey | None) -> ObjectList[Service]:
    try:
        return await client.list(SERVICES, Service)
    except Forbidden:
        if only is None:
            raise
        return await client.list(SERVICES, Service, namespace=only.namespace)


async def _namespace_labels(client: Client) -> dict[str, Mapping[str, str]]:
    found = await client.list(NAMESPACES, Namespace)
    return {one.metadata.name: one.metadata.labels or {} for one in found.items}


async def _checked(
    client: Client, candidates: Mapping[ServiceKey, Candidate], setup: Setup
) -> tuple[dict[ServiceKey, Health], str | None]:
    how, policy = setup.settings.health_check, setup.settings.policy
    guard = Guard(policy.allowed_ranges, policy.refused_ranges)
    async with Probe(how, guard, setup.authorities) as probe:
        readiness = Readiness(client, guard, api_server=dialled(client.server))
        checker = Checker(probe, how, known=readiness.known)
        readiness.update(candidates)
        tasks = [asyncio.create_task(part.run()) for part in (readiness, checker)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SLICES_WAIT):
                while readiness.problem is None and not await readiness.settled(0.1):
                    pass
        known = {key: readiness.known(candidate) for key, candidate in candidates.items()}
        unread = {key: health for key, health in known.items() if health and health.verdict is Verdict.UNKNOWN}
        checker.update({key: candidate for key, candidate in candidates.items() if key not in unread})
        # Long enough for every check, were all slots taken by silent backends.
        rounds = 1 + len(candidates) // how.concurrency
        await checker.settled(rounds * (seconds(how.timeout) + 1))
        problem = readiness.problem
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        return {key: unread.get(key) or checker.health(key) for key in candidates}, problem
