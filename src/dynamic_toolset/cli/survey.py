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
from dynamic_toolset.kube.client import SERVICES, Client, Skipped
from dynamic_toolset.kube.connection import Connection
from dynamic_toolset.kube.objects import Service
from dynamic_toolset.model import UNCHECKED, Candidate, Decision, Health, Outcome, ServiceKey
from dynamic_toolset.settings import Settings, ToolsetSettings, seconds
from dynamic_toolset.toolset.listing import is_listed


class Survey(Struct, frozen=True):
    """What one look found: a decision for every Service, the health of the candidates, what could not be read."""

    decisions: Mapping[ServiceKey, Decision]
    health: Mapping[ServiceKey, Health]
    skipped: tuple[Skipped, ...]

    def health_of(self, key: ServiceKey) -> Health:
        """Return the health of a Service, which is unknown for one that was not checked."""
        return self.health.get(key, UNCHECKED)

    def is_listed(self, key: ServiceKey, settings: ToolsetSettings) -> bool:
        """Whether a Service belongs into the toolset, by this look alone: nothing counts as published before."""
        decision = self.decisions[key]
        return (
            decision.outcome is Outcome.CANDIDATE
            and decision.candidate is not None
            and is_listed(decision.candidate, self.health_of(key), frozenset(), settings)
        )


async def survey(
    connection: Connection, setup: Setup, *, namespace: str = "", only: ServiceKey | None = None
) -> Survey:
    """Look at all Services, or those of one namespace, and check the candidates, or only one of them.

    Raises KubernetesError.
    """
    async with Client(connection) as client:
        found = await client.list(SERVICES, Service, namespace=namespace)
    decisions = Detector(setup.catalog, setup.settings).discover(found.items)
    candidates = {
        key: decision.candidate
        for key, decision in decisions.items()
        if decision.candidate and (decision.outcome is Outcome.CANDIDATE if only is None else key == only)
    }
    return Survey(decisions, await _checked(candidates, setup.settings), found.skipped)


async def _checked(candidates: Mapping[ServiceKey, Candidate], settings: Settings) -> dict[ServiceKey, Health]:
    how = settings.health_check
    async with Probe(how, Guard(how.allowed_ranges)) as probe:
        checker = Checker(probe, how)
        checker.update(candidates)
        checking = asyncio.create_task(checker.run())
        # Long enough for every attempt of a check, were all slots taken by silent backends.
        rounds = 1 + len(candidates) // how.concurrency
        await checker.settled(rounds * how.attempts * (seconds(how.timeout) + seconds(how.pause)))
        checking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await checking
        return {key: checker.health(key) for key in candidates}
