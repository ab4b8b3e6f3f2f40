"""``dynamic-toolset diff``: what the running service would change in the ConfigMap now."""

import asyncio
import json
import sys
from collections.abc import Iterable
from typing import Any

from dynamic_toolset.cli.failures import EXPECTED, complain, printable
from dynamic_toolset.cli.remote import Where, reached

DIFFERS = 1
FAILED = 2

_STYLES = (("---", "bold"), ("+++", "bold"), ("@@", "cyan"), ("-", "red"), ("+", "green"))


def run(output: str, where: Where) -> None:
    """Show the difference. Exit status as that of diff(1): 0 there is none, 1 there is one, 2 it did not work."""
    try:
        found = asyncio.run(_asked(where))
    except EXPECTED as error:
        complain(error)
        sys.exit(FAILED)
    if output == "json":
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    if found["changes"]:
        sys.exit(DIFFERS)


async def _asked(where: Where) -> Any:
    async with reached(where) as remote:
        return await remote.get("/diff")


def _show(found: Any) -> None:
    """Print the difference to stdout, and what is to be said of it to stderr, so that a file holds nothing else."""
    target = f"{found['configMap']['namespace']}/{found['configMap']['name']}"
    _print_lines(line for change in found["changes"] for line in change["diff"].split("\n"))
    if not found["changes"]:
        print(f"ConfigMap {target} says what it should.", file=sys.stderr)
    elif not found["exists"]:
        print(f"ConfigMap {target} does not exist.", file=sys.stderr)
    for one in found["withheld"]:
        print(f"{one['reason']}: {printable(one['message'])}", file=sys.stderr)


def _print_lines(lines: Iterable[str]) -> None:
    if not sys.stdout.isatty():
        for line in lines:
            print(printable(line))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    for line in lines:
        style = next((style for beginning, style in _STYLES if line.startswith(beginning)), "")
        console.print(Text(printable(line), style), soft_wrap=True)
