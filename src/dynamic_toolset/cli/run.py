"""``dynamic-toolset run``: the service."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dynamic_toolset.cli.logs import configure  # isort: skip - the first to import structlog, see there

import structlog

from dynamic_toolset import __version__, tracing
from dynamic_toolset.cli.setup import environment
from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.configuration.resource_status import ResourceStatus
from dynamic_toolset.configuration.sources import Basis, Sources
from dynamic_toolset.controller.announcing import Announcer, Outcomes
from dynamic_toolset.controller.observer import Several
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import Connection, discover
from dynamic_toolset.kube.events import Recorder
from dynamic_toolset.publication import configmap
from dynamic_toolset.server.ports import Ports
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.settings import seconds
from dynamic_toolset.toolset_config import reference

log = structlog.get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT)

END_WITHIN = 8.0
"""Seconds for the end once no request is under way any more, whatever happens. People expect 10."""

DIE_WITHIN = 2.0
"""Seconds from the message of a death inside to the end: the sooner it is gone, the sooner it is started anew."""

SERVER_WAIT = 2.0
"""Seconds after which the ports are served though nothing has been published yet. Until then what serves them, which
takes a while to load, would only be in the way of the first publication."""


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
    sources = Sources(config, environment(), assignments)
    basis = sources.read()
    connection = discover(kubeconfig, context)
    server = basis.alone.settings.server
    ports = Ports(server) if server.enabled else None
    try:
        asyncio.run(_Service(sources, basis, ports).run(connection))
    finally:
        # It ends by itself now. Python, while it ends, would put back that a signal is the end with another status.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        tracing.end()


class _Service:
    """The parts of the service, from their start to their end."""

    def __init__(self, sources: Sources, basis: Basis, ports: Ports | None) -> None:
        self._sources = sources
        self._basis = basis
        self._settings = basis.alone.settings
        self._ports = ports
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

    async def run(self, connection: Connection) -> None:
        """Work until told to end. If a part dies no other part goes on without it."""
        target = self._settings.config_map
        server, name = connection.server, f"{target.namespace}/{target.name}"
        log.info("starting", version=__version__, server=server, configmap=name)
        self._listen_to_signals()
        _begin_traces()
        async with Client(connection) as client:
            telemetry = Telemetry()
            observers = Several(telemetry)
            basis = self._basis
            supervisor = Supervisor(
                client, self._settings, basis.catalog, observer=observers, authorities=basis.authorities
            )
            configuration = Configuration(self._sources, basis, supervisor, client)
            status = ResourceStatus(client, supervisor, configuration)
            outcomes = Outcomes(telemetry.metrics.recorded)
            recorder = Recorder(client, configmap.FIELD_MANAGER, socket.gethostname(), on_outcome=outcomes)
            announcer = Announcer(
                recorder.record, lambda: supervisor.controller, configuration=lambda: reference(configuration.observed)
            )
            observers.add(announcer)
            observers.add(status)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(recorder.run(), name="events")
                    deciding = tasks.create_task(configuration.run(), name="configuration")
                    telling = tasks.create_task(status.run(), name="status")
                    working = tasks.create_task(_work(configuration, supervisor), name="supervisor")
                    serving = self._serve(client, supervisor, telemetry, configuration)
                    await tasks.create_task(serving, name="ports")
                    _leave_in(END_WITHIN)
                    deciding.cancel()
                    telling.cancel()
                    if configuration.begun.is_set():
                        supervisor.stop()
                    else:
                        working.cancel()
                    await asyncio.wait([working])
                    recorder.stop()
            except Exception:
                log.exception("died")
                _leave_in(DIE_WITHIN, status=1)
                sys.exit(1)
        log.info("stopped")

    def _listen_to_signals(self) -> None:
        # They take over from what cli.main has put there. Not by add_signal_handler: that one is gone before the
        # process is, and a second signal would be its end.
        loop = asyncio.get_running_loop()

        def note(number: int, _frame: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._signals.put_nowait, signal.Signals(number))

        for number in SIGNALS:
            signal.signal(number, note)

    async def _serve(
        self, client: Client, supervisor: Supervisor, telemetry: Telemetry, configuration: Configuration
    ) -> None:
        """Serve the ports until the service is told to end, and the requests that were under way then are answered."""
        told = asyncio.create_task(self._signals.get(), name="signals")
        if self._ports is None:
            await told
            log.info("stopping")
            return
        first = asyncio.create_task(telemetry.first_pass.wait(), name="first pass")
        await asyncio.wait([told, first], timeout=SERVER_WAIT, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()

        from dynamic_toolset.server.server import Server
        from dynamic_toolset.server.source import Source

        source, settings = Source(supervisor, telemetry), self._settings.server
        server = Server(client, settings, self._ports, source, telemetry, configuration)
        # As the controller does with what it has loaded: to walk all this takes longer than many requests.
        gc.freeze()
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.run(), name="server")
            log.info("serving", api=self._ports.api.url, metrics=self._ports.metrics.url)
            number = await told
            log.info("stopping")
            _leave_in(seconds(settings.shutdown_deadline))
            # A person at a terminal does not wait for endpoints, and who asks twice means now.
            ending = tasks.create_task(server.end(at_once=number is signal.SIGINT))
            again = tasks.create_task(self._signals.get())
            await asyncio.wait([serving, again], return_when=asyncio.FIRST_COMPLETED)
            again.cancel()
            if not serving.done():
                ending.cancel()
                await server.end(at_once=True)
                server.break_off()


async def _work(configuration: Configuration, supervisor: Supervisor) -> None:
    """Let the controller work from when it is known with which settings."""
    await configuration.begun.wait()
    await supervisor.run()


def _begin_traces() -> None:
    try:
        if tracing.start():
            log.info("tracing")
    except tracing.Unavailable as error:
        log.warning("tracing_unavailable", reason=str(error))


def _leave_in(delay: float, *, status: int = 0) -> None:
    """End after so many seconds, whatever happens."""
    last_resort = threading.Timer(delay, _leave_behind, [status])
    last_resort.daemon = True
    last_resort.start()


def _leave_behind(status: int) -> None:
    """End though something cannot be cancelled: a thread in a name lookup that no server answers, say."""
    log.warning("stopped", left_behind=[thread.name for thread in threading.enumerate()])
    os._exit(status)
