"""``dynamic-toolset refresh``: let the running service look at everything again."""

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any

from dynamic_toolset.cli.failures import RemoteError, printable
from dynamic_toolset.cli.remote import Remote, Where, reached

EVERY = 0.5
"""Seconds between two questions whether it is done. Callers have 100 requests a minute, unless a setting says more."""

PATIENCE = 45.0
"""Seconds to wait. A check takes 5, and those of many silent backends follow each other."""


def run(where: Where, *, wait: bool) -> None:
    """Ask for it, and, if told to, wait and say what came of it."""
    asyncio.run(_refresh(where, wait=wait))


async def _refresh(where: Where, *, wait: bool) -> None:
    async with reached(where) as remote:
        if not wait:
            await remote.post("/discover")
            print("All Services are looked at again, and every candidate is checked.")
            return
        before = await remote.get("/statistics")
        seen = {one["id"] for one in (await remote.get("/history"))["items"]}
        await remote.post("/discover")
        after = await _done(remote, before)
        news = [one for one in (await remote.get("/history"))["items"] if one["id"] not in seen]
        for one in reversed(news):
            print(printable(_told(one)))
        _summary(after)


async def _done(remote: Remote, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Wait until the Services have been listed and no check is under way, twice in a row: a pass follows a check."""
    deadline, calm = time.monotonic() + PATIENCE, 0
    while calm < 2:
        await asyncio.sleep(EVERY)
        now: Mapping[str, Any] = await remote.get("/statistics")
        if now["startedAt"] != before["startedAt"]:
            raise RemoteError(
                "several replicas answer, and only the one that was asked looks again: leave out --wait, or give the "
                "--url of one of them"
            )
        busy = now["checks"]["running"] + now["checks"]["waiting"]
        listed = now["watches"]["Services"]["lists"] > before["watches"]["Services"]["lists"]
        calm = calm + 1 if listed and not busy else 0
        if time.monotonic() > deadline:
            what = f"{busy} checks are still to come" if listed else "the Services have not been listed again"
            raise RemoteError(f"it has not come to its end within {PATIENCE:.0f} s: {what}")
    return now


def _told(one: Mapping[str, Any]) -> str:
    """Say in a line what changed."""
    subject = f"{one['service']['namespace']}/{one['service']['name']}: " if one["service"] else ""
    what = one["event"].replace("_", " ")
    why = one["message"] or one["reason"]
    return f"{subject}{what}" + (f", {why}" if why else "")


def _summary(now: Mapping[str, Any]) -> None:
    counts = now["services"]
    print(
        f"{counts['known']} Services, {counts['candidates']} candidates: {counts['healthy']} healthy, "
        f"{counts['unhealthy']} unhealthy, {counts['unknown']} not known. {counts['listed']} in the toolset."
    )
    if not now["leads"]:
        writer = now["holder"] or "nobody"
        print(f"warning: this replica stands by; {printable(writer)} writes", file=sys.stderr)
    for one in now["problems"]:
        print(f"warning: {one['reason']}: {printable(one['message'])}", file=sys.stderr)
