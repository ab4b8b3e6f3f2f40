"""Which candidates are in the toolset."""

from collections.abc import Collection

from dynamic_toolset.model import Candidate, Health, ServiceKey, Verdict
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset.generic import Published
from dynamic_toolset.toolset.holmesgpt import has_credentials


def is_listed(
    candidate: Candidate,
    health: Health,
    settings: Settings,
    published: Published = frozenset(),
    held: Collection[ServiceKey] = (),
) -> bool:
    """Whether a candidate is in the toolset.

    One that answers is. One that asks for credentials is listed when the operator named the credentials that the
    agent has for it: we have none ourselves. Otherwise it counts as it was last published until its checks have
    failed too often in a row, and beyond that while its removal is held. A refused one never is.
    """
    if health.refused:
        return False
    if answers(candidate, health, settings):
        return True
    if (candidate.key, candidate.type) not in published:
        return False
    return health.failures < settings.health_check.failure_threshold or candidate.key in held


def answers(candidate: Candidate, health: Health, settings: Settings) -> bool:
    """Whether its last check found it of use for an agent."""
    return health.verdict is Verdict.HEALTHY or (
        health.needs_credentials and has_credentials(candidate, settings.toolset)
    )
