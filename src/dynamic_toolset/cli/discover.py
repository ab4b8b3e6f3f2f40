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
from dynamic_toolset.kube.connection import discover
from dynamic_toolset.model import Decision, Outcome, ServiceKey
from dynamic_toolset.settings import Settings

Row = dict[str, str | bool | None]


def run(
    output: str, config: Path | None, assignments: Sequence[str], kubeconfig: str | None, context: str | None
) -> None:
    """Show every Service that is, or wants to be, a backend."""
    setup = prepare(config, assignments)
    connection = discover(kubeconfig, context)
    if sys.stderr.isatty():
        print(f"Looking at the Services of {connection.server} and checking the candidates ...", file=sys.stderr)
    found = asyncio.run(survey(connection, setup))
    for skipped in found.skipped:
        print(f"warning: Service {skipped.key or '(unnamed)'} cannot be read: {skipped.error}", file=sys.stderr)
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
        _table(rows, len(found.decisions))


def _row(key: ServiceKey, decision: Decision, found: Survey, settings: Settings) -> Row:
    health = found.health_of(key) if decision.outcome is Outcome.CANDIDATE else None
    row = facts(key, decision)
    reason = row.pop("reason")
    return row | {
        "health": health.verdict.value if health else None,
        "listed": found.is_listed(key, settings),
        "reason": health.reason if health else reason,
    }


def _table(rows: list[Row], services: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAMESPACE", "NAME", "TYPE", "ENDPOINT", "HEALTH", "LISTED", "WHY"):
        table.add_column(title, overflow="fold")
    colours = {"healthy": "green", "unhealthy": "red", "unknown": "yellow"}
    for row in rows:
        health = str(row["health"] or row["decision"])
        table.add_row(
            str(row["namespace"]),
            str(row["name"]),
            str(row["type"] or "-"),
            str(row["endpoint"] or "-"),
            health,
            "yes" if row["listed"] else "no",
            str(row["reason"]),
            style=colours.get(health, "dim"),
        )
    # A pipe has no width: there, a row stays on one line, for grep and cut.
    console = Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False)
    console.print(table)
    listed = sum(bool(row["listed"]) for row in rows)
    console.print(f"\n{listed} in the toolset, of {services} Services.")
