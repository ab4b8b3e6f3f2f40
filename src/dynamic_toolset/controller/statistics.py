"""How the controller is, in figures: frozen, taken at one moment. All times are seconds."""

import time
from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dynamic_toolset.health.checker import Statistics as Checks
from dynamic_toolset.kube.election import Statistics as Election
from dynamic_toolset.kube.reflector import Reflector


class Watch(Struct, frozen=True):
    """A reflector: requests made so far, and how long ago it last heard anything, or a bookmark; None before."""

    synced: bool
    objects: int
    skipped: int
    lists: int
    watches: int
    events: int
    bookmarks: int
    failures: int
    last_error: str | None
    since_heard: float | None
    since_bookmark: float | None


def watch_of(reflector: Reflector[Any, Any]) -> Watch:
    """Return how a reflector is, now."""
    done, now = reflector.statistics, time.monotonic()
    return Watch(
        synced=reflector.synced.is_set(),
        objects=len(reflector.store),
        skipped=len(reflector.skipped),
        lists=done.lists,
        watches=done.watches,
        events=done.events,
        bookmarks=done.bookmarks,
        failures=done.consecutive_failures,
        last_error=done.last_error,
        since_heard=None if done.last_heard is None else now - done.last_heard,
        since_bookmark=None if done.last_bookmark is None else now - done.last_bookmark,
    )


class FullLooks(Struct, frozen=True):
    """Looks at everything anew, though nothing need have changed: how many, when the last was, when the next is to be.

    Both in seconds since the epoch, None before the first.
    """

    count: int
    last_at: float | None
    next_at: float | None


class Publications(Struct, frozen=True):
    """Writes of the ConfigMap that succeeded so far, and conflicts that were met."""

    writes: int
    conflicts: int


class Loop(Struct, frozen=True):
    """A loop, and by how many seconds it is late with what it promised; 0 for one that makes progress."""

    name: str
    late: float


def loop_of(followed: tuple[str, Reflector[Any, Any]]) -> Loop:
    """Return whether a reflector makes progress; ``followed`` is what it follows, and the reflector."""
    name, reflector = followed
    return Loop(f"watch of {name}", reflector.pulse.late)


class Condition(Struct, frozen=True):
    """One thing that must hold for the service to be ready, and in words why it does not."""

    name: str
    holds: bool
    message: str = ""


class Statistics(Struct, frozen=True):
    """Everything at once. ``watches`` by what they follow; ``election`` is None where there is none."""

    leads: bool
    holder: str | None
    passes: int
    full_looks: FullLooks
    watches: Mapping[str, Watch]
    checks: Checks
    publications: Publications
    election: Election | None


def continued(before: Statistics, now: Statistics) -> Statistics:
    """Return ``now`` with everything that is counted going on from where ``before`` had come to.

    What is no longer there, such as a watch that is not needed any more, is as in ``now``: not there.
    """
    return Statistics(
        leads=now.leads,
        holder=now.holder,
        passes=before.passes + now.passes,
        full_looks=_looks(before.full_looks, now.full_looks),
        watches={
            name: _added(before.watches.get(name), one, "lists", "watches", "events", "bookmarks")
            for name, one in now.watches.items()
        },
        checks=_added(before.checks, now.checks, "healthy", "unhealthy", "needs_credentials", "probes"),
        publications=_added(before.publications, now.publications, "writes", "conflicts"),
        election=now.election and _added(before.election, now.election, "terms", "renewals", "failures"),
    )


def kept(before: Statistics | None, now: Statistics) -> Statistics:
    """Return what a successor is to count on from: ``now``, and what was in ``before`` and may yet come back."""
    if before is None:
        return now
    whole = continued(before, now)
    return replace(whole, watches={**before.watches, **whole.watches}, election=whole.election or before.election)


def _looks(before: FullLooks, now: FullLooks) -> FullLooks:
    """Until a successor has looked for the first time, the last look is that of its predecessor."""
    last = now if now.count else before
    return replace(last, count=before.count + now.count)


T = TypeVar("T", bound=Struct)


def _added(before: T | None, now: T, *names: str) -> T:
    if before is None:
        return now
    return replace(now, **{name: getattr(before, name) + getattr(now, name) for name in names})
