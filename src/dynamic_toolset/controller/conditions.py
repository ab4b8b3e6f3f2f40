"""What is in the way, in sentences: pure."""

from collections.abc import Iterator
from typing import Any

from dynamic_toolset.health.outage import Held
from dynamic_toolset.kube.reflector import Reflector
from dynamic_toolset.model import Problem
from dynamic_toolset.settings import Settings

RELEASE = "kubernaut.io/release-removals"
"""Annotation of the ConfigMap: a new value releases the removals that are held because many services failed at once."""

_PATIENCE = 3
"""Failures in a row after which a watch is called failing: an API server that restarts is no news."""


def watch_failing(what: str, reflector: Reflector[Any, Any]) -> Iterator[Problem]:
    """Yield the condition of a watch that cannot be had."""
    now = reflector.statistics
    if now.consecutive_failures >= _PATIENCE:
        message = f"{what} cannot be followed: {now.last_error}; what was seen last stays in force"
        yield Problem("WatchFailing", message)


def on_hold(settings: Settings, *, holds: bool) -> Iterator[Problem]:
    """Yield the conditions of an instance that is told not to write. ``holds``: the ConfigMap says what it should."""
    target = f"ConfigMap {settings.config_map.namespace}/{settings.config_map.name}"
    state = "it says what it should" if holds else "it does not say what it should"
    if settings.paused:
        yield Problem("Paused", f"the setting paused is true, so nothing is written: {target} stays as it is; {state}")
    if settings.dry_run:
        shown = "the documents that are shown are those that would be written"
        yield Problem("DryRun", f"the setting dryRun is true, so nothing is written: {shown} to {target}; {state}")


def mass_failure(held: Held, settings: Settings) -> Iterator[Problem]:
    """Yield the condition of a mass failure."""
    outage = held.outage
    if outage is None:
        return
    target = settings.config_map
    yield Problem(
        "MassFailure",
        f"{len(outage.services)} of {outage.published} published services turned unhealthy at about the same time, so "
        "our own network is the likeliest cause: they stay listed until they recover, for at most "
        f"{settings.mass_failure.hold}, or until somebody releases them: kubectl annotate --overwrite configmap "
        f"--namespace {target.namespace} {target.name} {RELEASE}=$(date +%s)",
    )
