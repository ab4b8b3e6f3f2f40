"""``dynamic-toolset run``: the service."""

import asyncio
import os
import signal
import sys
import threading
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

SIGNALS = (signal.SIGTERM, signal.SIGINT)

END_WITHIN = 8.0
"""Seconds from the signal to the end, whatever happens. Kubernetes kills after 30, people expect 10."""

DIE_WITHIN = 2.0
"""Seconds from the message of a death inside to the end: the sooner it is gone, the sooner it is started anew."""


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
    try:
        asyncio.run(_serve(setup, connection))
    finally:
        # It ends by itself now. Python, while it ends, would put back that a signal is the end with another status.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _serve(setup: Setup, connection: Connection) -> None:
    status = 0
    stopping = False

    def end_within(limit: float) -> None:
        last_resort = threading.Timer(limit, lambda: _leave_behind(status))
        last_resort.daemon = True
        last_resort.start()

    target = setup.settings.config_map
    log.info("starting", version=__version__, server=connection.server, configmap=f"{target.namespace}/{target.name}")
    async with Client(connection) as client:
        controller = Controller(client, setup.settings, setup.catalog)

        def stop() -> None:
            nonlocal stopping
            if stopping:
                return
            stopping = True
            log.info("stopping")
            end_within(END_WITHIN)
            controller.stop()

        # They take over from what cli.main has put there. Not by add_signal_handler: that one is gone before the
        # process is, and a second signal would be its end.
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            signal.signal(number, lambda *_: None if loop.is_closed() else loop.call_soon_threadsafe(stop))
        try:
            await controller.run()
        except Exception:
            log.exception("died")  # a part of it did, and no other part goes on without it
            status = 1
            end_within(DIE_WITHIN)
            sys.exit(status)
    log.info("stopped")


def _leave_behind(status: int) -> None:
    """End though something cannot be cancelled: a thread in a name lookup that no server answers, say."""
    log.warning("stopped", left_behind=[thread.name for thread in threading.enumerate()])
    os._exit(status)
