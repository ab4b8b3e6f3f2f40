"""``dynamic-toolset discover``: one look at the cluster."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from dynamic_toolset.cli.describe import facts
from dynamic_toolset.cli.failures import printable
from dynamic_toolset.cli.setup import prepare
from dynamic_toolset.cli.survey import Survey, survey
from dynamic_toolset.cli.tables import draw_services
from dynamic_toolset.kube.connection import discover
from dynamic_toolset.model import Decision, Outcome, ServiceKey
from dynamic_toolset.settings import Settings

Row = dict[str, str | bool | None]


def run(
    output: str, config: Path | None, assignments: Sequence[str], kubeconfig: str | None, context: str | None
) -> None:
    """Show every Service that is, or wants to be, a backend."""
    setup = prepare(config, assignments, checks=True)
    connection = discover(kubeconfig, context)
    if sys.stderr.isatty():
        print(f"Looking at the Services of {connection.server} and checking the candidates ...", file=sys.stderr)
    found = asyncio.run(survey(connection, setup))
    for skipped in found.skipped:
        print(f"warning: Service {skipped.key or '(unnamed)'} cannot be read: {skipped.error}", file=sys.stderr)
    if setup.settings.clusters:
        others = ", ".join(cluster.name for cluster in setup.settings.clusters)
        told = "dynamic-toolset get services shows what the running service sees of it"
        print(f"warning: only this cluster is looked at, and not {others}: {told}", file=sys.stderr)
    if found.problem:
        print(f"warning: {printable(found.problem)}", file=sys.stderr)
    rows = [
        _row(key, decision, found, setup.settings)
        for key, decision in sorted(found.decisions.items())
        if decision.outcome is not Outcome.IGNORED
    ]
    if output == "json":
        print(json.dumps({"services": rows}, indent=2))
    elif output == "yaml":
        print(yaml.safe_dump({"services": rows}, sort_keys=False), end="")
    else:
        listed = sum(bool(row["listed"]) for row in rows)
        draw_services(rows, end=f"{listed} in the toolset, of {len(found.decisions)} Services.")


def _row(key: ServiceKey, decision: Decision, found: Survey, settings: Settings) -> Row:
    health = found.health_of(key) if decision.outcome is Outcome.CANDIDATE else None
    row = facts(key, decision)
    reason = row.pop("reason")
    return row | {
        "health": health.verdict.value if health else None,
        "listed": found.is_listed(key, settings),
        "reason": health.reason if health else reason,
    }
