"""``dynamic-toolset get``: what the running service knows."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import yaml

from dynamic_toolset.cli.remote import Remote, Where, reached
from dynamic_toolset.cli.tables import draw, draw_services, name_of

PAGE = 500
"""Services asked for at once: the most that the API gives."""

CONSIDERED = ("candidate", "duplicate", "rejected")
"""The decisions that are shown unless somebody says which: most Services of a cluster are ignored."""


def services(output: str, query: Sequence[tuple[str, str]], where: Where) -> None:
    """Show the Services that match a query of the API."""
    rows = _asked(where, lambda remote: _pages(remote, query))
    if output == "json":
        print(json.dumps({"services": rows}, indent=2))
    elif output == "yaml":
        print(yaml.safe_dump({"services": rows}, sort_keys=False), end="")
    elif output == "name":
        for row in rows:
            print(name_of(row))
    else:
        listed = sum(bool(row["listed"]) for row in rows)
        draw_services(rows, end=f"{listed} in the toolset, of {len(rows)} shown.")


def toolset(output: str, where: Where) -> None:
    """Show what the agent reads."""
    if output == "yaml":
        print(_asked(where, lambda remote: remote.text("/toolset", "application/yaml")), end="")
    elif output == "json":
        print(json.dumps(_asked(where, lambda remote: remote.get("/toolset")), indent=2))
    else:
        found = _asked(where, lambda remote: remote.get("/toolsets"))["items"]
        draw(
            ("NAME", "SECTION", "ENABLED", "FROM", "OVERRIDDEN", "SERVICES"),
            (
                (
                    (
                        one["name"],
                        one["section"],
                        "yes" if one["enabled"] else "no",
                        one["source"],
                        "yes" if one["overridden"] else "no",
                        ", ".join(map(name_of, one["services"])) or "-",
                    ),
                    "" if one["enabled"] else "dim",
                )
                for one in found
            ),
        )


def config(output: str, where: Where) -> None:
    """Show the settings that are in force."""
    found = _asked(where, lambda remote: remote.get("/config"))
    if output == "json":
        print(json.dumps(found, indent=2))
    elif output == "yaml":
        print(yaml.safe_dump(found, sort_keys=False), end="")
    else:
        draw(
            ("SETTING", "VALUE", "FROM"),
            (
                ((one["name"], _value(one["value"]), one["source"]), "dim" if one["source"] == "default" else "")
                for one in found["settings"]
            ),
            end=f"Its file is {found['file']}." if found["file"] else "",
        )


def _value(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


async def _pages(remote: Remote, query: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return all Services that match. Pages are stable: one that comes or goes meanwhile moves no other one."""
    rows: list[dict[str, Any]] = []
    place: list[tuple[str, str]] = []
    while True:
        page = await remote.get("/services", [*query, ("limit", str(PAGE)), *place])
        rows += page["items"]
        if not page["continue"]:
            return rows
        place = [("continue", page["continue"])]


def _asked(where: Where, ask: Callable[[Remote], Coroutine[Any, Any, Any]]) -> Any:
    async def asked() -> Any:
        async with reached(where) as remote:
            return await ask(remote)

    return asyncio.run(asked())
