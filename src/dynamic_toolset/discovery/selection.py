"""Which of the possible candidates are taken: one for each workload, and no more than the caps allow. Pure.

A cap is there so that one tenant cannot crowd out the others, nor a newcomer those that are there: within a namespace
the oldest are taken, and what all namespaces may have together is shared among them, the same for each that wants it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.twins import Entrance, duplicates
from dynamic_toolset.model import Decision, Outcome, Rejection, ServiceKey

Possible = Mapping[ServiceKey, tuple[Entrance, Decision]]
"""Services that would be candidates if each were the only one."""

Tenant = tuple[str, str]
"""Whose candidates are counted together: those of a cluster's namespace."""

_NEWEST = "~"
"""Sorts behind every time: what says nothing of its age is taken last."""


class Rank(NamedTuple):
    """The place of a candidate in the order in which they are taken."""

    created: str
    key: ServiceKey


class Selection(Struct, frozen=True):
    """What was decided within one namespace, and the candidates that are taken of it, oldest first."""

    decisions: Mapping[ServiceKey, Decision]
    taken: tuple[Rank, ...]


def within_namespace(possible: Possible, catalog: Catalog, most: int) -> Selection:
    """Decide which Services of one namespace are duplicates of another, and take the ``most`` oldest of the others."""
    decisions = {key: decision for key, (_, decision) in possible.items()}
    found = duplicates({key: one for key, (one, _) in possible.items()}, catalog)
    for key, kept in found.items():
        decision = decisions[key]
        reason = f"it leads to the same workload as Service {kept.name}, which stands for both"
        decisions[key] = Decision(Outcome.DUPLICATE, reason, decision.candidate, decision.evidence, decision.ports)
    ranked = sorted(Rank(one.created or _NEWEST, key) for key, (one, _) in possible.items() if key not in found)
    if len(ranked) > most:
        reason = (
            f"its namespace has {len(ranked)} candidates, of which {most} are taken, the oldest first, "
            "by the setting policy.maxPerNamespace"
        )
        decisions |= _too_many((rank.key for rank in ranked[most:]), reason, decisions)
    return Selection(decisions, tuple(ranked[:most]))


def beyond_all(
    taken: Mapping[Tenant, tuple[Rank, ...]], decided: Mapping[ServiceKey, Decision], most: int
) -> dict[ServiceKey, Decision]:
    """Reject what is more than the ``most`` that all namespaces, of which ``taken`` is given, may have together.

    ``decided`` is what was decided about them before.
    """
    total = sum(map(len, taken.values()))
    if total <= most:
        return {}
    decisions: dict[ServiceKey, Decision] = {}
    for tenant, share in fair_shares(taken, most).items():
        reason = (
            f"there are {total} candidates in all, of which {most} are taken, by the setting policy.maxInAll; "
            f"the share of its namespace is {share} of its {len(taken[tenant])}, the oldest first"
        )
        decisions |= _too_many((rank.key for rank in taken[tenant][share:]), reason, decided)
    return decisions


def _too_many(
    keys: Iterable[ServiceKey], reason: str, decided: Mapping[ServiceKey, Decision]
) -> dict[ServiceKey, Decision]:
    return {
        key: Decision(Outcome.REJECTED, reason, ports=decided[key].ports, rejection=Rejection.LIMIT) for key in keys
    }


def fair_shares(taken: Mapping[Tenant, tuple[Rank, ...]], most: int) -> dict[Tenant, int]:
    """Return how many of each namespace of each cluster are taken so that it is ``most`` in all, if there are as many.

    Max-min fair: a namespace with few keeps them all, and the others share what is left, the same for each; what
    cannot be shared evenly goes to those whose next candidate is the oldest.
    """
    shares: dict[Tenant, int] = {}
    left = most
    tenants = sorted(taken, key=lambda tenant: (len(taken[tenant]), tenant))
    for number, tenant in enumerate(tenants):
        even, over = divmod(left, len(tenants) - number)
        if len(taken[tenant]) > even:
            others = tenants[number:]
            oldest = sorted(others, key=lambda other: taken[other][even])[:over]
            return shares | dict.fromkeys(others, even) | dict.fromkeys(oldest, even + 1)
        shares[tenant] = len(taken[tenant])
        left -= len(taken[tenant])
    return shares
