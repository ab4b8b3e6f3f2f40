"""``dynamic-toolset run``: the service."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from dynamic_toolset.cli.logs import configure  # isort: skip - the first to import structlog, see there

import structlog

from dynamic_toolset import __version__
from dynamic_toolset.cli.setup import Setup, prepare
from dynamic_toolset.controller import Controller
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import Connection, discover

log = structlog.get_logger()


def run(
    config: Path | None,
    assignments: Sequence[str],
    kubeconfig: str | None,
    context: str | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run until SIGTERM or SIGINT, then end with status 0."""
    configure(log_format, log_level)
    setup = prepare(config, assignments)
    connection = discover(kubeconfig, context)
    asyncio.run(_serve(setup, connection))


async def _serve(setup: Setup, connection: Connection) -> None:
    target = setup.settings.config_map
    log.info("starting", version=__version__, server=connection.server, configmap=f"{target.namespace}/{target.name}")
    async with Client(connection) as client:
        controller = asyncio.create_task(Controller(client, setup.settings, setup.catalog).run(), name="controller")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, controller.cancel)
        # A cancelled task is the ordinary end; any other end is an error that await raises.
        await asyncio.wait([controller])
        if not controller.cancelled():
            controller.result()
    log.info("stopped")
