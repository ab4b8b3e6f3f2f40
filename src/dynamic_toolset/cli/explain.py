"""``dynamic-toolset explain``: why a Service is, or is not, in the toolset."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from dynamic_toolset.cli.describe import facts
from dynamic_toolset.cli.failures import printable, tell
from dynamic_toolset.cli.manifests import read
from dynamic_toolset.cli.setup import prepare
from dynamic_toolset.cli.survey import survey
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.kube.connection import discover
from dynamic_toolset.model import Decision, Health, ServiceKey


def run_files(files: Sequence[str], output: str, config: Path | None, assignments: Sequence[str]) -> None:
    """Explain every Service of the manifests, in input order. Exit status 1 if an object could not be used."""
    setup = prepare(config, assignments)
    manifests = read(files)
    decisions = Detector(setup.catalog, setup.settings, manifests.namespaces).discover(manifests.services)
    keys = [ServiceKey.of(service.metadata.key) for service in manifests.services]
    if output == "json":
        print(json.dumps({"services": [_facts(key, decisions[key]) for key in keys]}, indent=2))
    elif keys:
        print("\n\n".join(_text(key, decisions[key]) for key in keys))
    tell(manifests.warnings, manifests.problems)


def run_live(
    service: tuple[str, str],
    output: str,
    config: Path | None,
    assignments: Sequence[str],
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Explain one Service of the cluster, with a check of its health. Exit status 1 if there is none of that name."""
    setup = prepare(config, assignments, checks=True)
    key = ServiceKey(*service)
    connection = discover(kubeconfig, context)
    # All Services, because one may be left out in favour of others, of other namespaces too.
    found = asyncio.run(survey(connection, setup, only=key))
    decision = found.decisions.get(key)
    if decision is None:
        unreadable = next((skipped.error for skipped in found.skipped if skipped.key == service), None)
        why = f"cannot be read: {unreadable}" if unreadable else f"does not exist in {connection.server}"
        print(f"error: Service {key} {why}", file=sys.stderr)
        sys.exit(1)
    if found.problem and decision.candidate:
        print(f"warning: {printable(found.problem)}", file=sys.stderr)
    health = found.health_of(key) if decision.candidate else None
    listed = found.is_listed(key, setup.settings)
    if output == "json":
        extra = {"health": health.verdict.value, "healthReason": health.reason} if health else {}
        print(json.dumps({"services": [{**_facts(key, decision), **extra, "listed": listed}]}, indent=2))
    else:
        print(_text(key, decision, health))
        print(f"  listed    {'yes' if listed else 'no'}")


def _facts(key: ServiceKey, decision: Decision) -> dict[str, Any]:
    return {**facts(key, decision), "ports": [to_builtins(port) for port in decision.ports]}


def _text(key: ServiceKey, decision: Decision, health: Health | None = None) -> str:
    lines = [f"{printable(str(key))}: {decision.outcome.value}"]
    if decision.candidate:
        lines += [f"  type      {decision.type}", f"  endpoint  {decision.endpoint}"]
    lines.append(f"  why       {decision.reason}")
    lines += [f"            - {rule}" for rule in decision.evidence if rule not in decision.reason]
    for number, port in enumerate(decision.ports):
        label = "ports" if number == 0 else ""
        place = " ".join([*([str(port.port)] if port.port else []), *([port.name] if port.name else [])])
        lines.append(f"  {label:<9} {place}: {port.note}" if place else f"  {label:<9} {port.note}")
    if health:
        lines.append(f"  health    {health.verdict.value}: {health.reason}")
    return "\n".join(lines)
