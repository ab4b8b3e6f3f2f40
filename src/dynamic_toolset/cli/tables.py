"""What every command shows in rows: tables for a person, and for grep."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynamic_toolset.cli.failures import printable
from dynamic_toolset.model import ServiceKey

_COLOURS = {"healthy": "green", "unhealthy": "red", "unknown": "yellow"}


def draw(titles: Sequence[str], rows: Iterable[tuple[Sequence[str], str]], *, end: str = "") -> None:
    """Print rows, each with its style, and a sentence at the end."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for cells, style in rows:
        table.add_row(*map(printable, cells), style=style)
    # A pipe has no width: there, a row stays on one line, for grep and cut.
    console = Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False)
    console.print(table)
    if end:
        console.print(f"\n{end}")


def name_of(service: Mapping[str, Any]) -> str:
    """Return what a Service is called: with its cluster, if that is not our own."""
    return str(ServiceKey(service["namespace"], service["name"], service.get("cluster") or ""))


def draw_services(rows: Sequence[Mapping[str, Any]], *, end: str) -> None:
    """Print what was decided about Services, with the fields of ``describe.facts`` and their health.

    Their clusters are shown if any of them is of another one.
    """
    elsewhere = any(row.get("cluster") for row in rows)
    draw(
        (*(["CLUSTER"] if elsewhere else []), "NAMESPACE", "NAME", "TYPE", "ENDPOINT", "HEALTH", "LISTED", "WHY"),
        (
            (
                (
                    *([str(row.get("cluster") or "-")] if elsewhere else []),
                    str(row["namespace"]),
                    str(row["name"]),
                    str(row["type"] or "-"),
                    str(row["endpoint"] or "-"),
                    health := str(row["health"] or row["decision"]),
                    "yes" if row["listed"] else "no",
                    str(row["reason"]),
                ),
                _COLOURS.get(health, "dim"),
            )
            for row in rows
        ),
        end=end,
    )
