"""The two ports of the service: what is behind them, and how they end."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import cast

from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.kube.client import Client
from dynamic_toolset.server import app, pages
from dynamic_toolset.server.access import Access
from dynamic_toolset.server.exchange import App
from dynamic_toolset.server.exposition import Exposition, scraped
from dynamic_toolset.server.gate import OPEN, Gate
from dynamic_toolset.server.limits import Limiter
from dynamic_toolset.server.listening import Listener
from dynamic_toolset.server.ports import Ports
from dynamic_toolset.server.source import Source
from dynamic_toolset.server.telemetry import Telemetry
from dynamic_toolset.settings import ServerSettings, seconds

RESERVE = 5.0
"""Seconds before the deadline of the shutdown at which requests that are still under way are broken off."""


class Server:
    """Serves on the open ports while ``run`` runs, which ``end`` ends in order."""

    def __init__(
        self,
        client: Client,
        settings: ServerSettings,
        ports: Ports,
        source: Source,
        telemetry: Telemetry,
        configuration: Configuration,
    ) -> None:
        self._source = source
        self._stream = telemetry.stream
        self._delay = seconds(settings.shutdown_delay)
        self._access = Access(client, audience=settings.audience)
        # Scrapers have a rule for /metrics: no prefix there, which keeps our own API apart from that of Kubernetes.
        self._scrapers = Access(client, audience=settings.audience, prefix="")
        files = pages.load()
        exposition = Exposition(
            telemetry.metrics,
            telemetry.stream,
            statistics=source.supervisor.statistics,
            connections=self._connections,
            security_events=self._security_events,
        )
        needs_token = settings.auth == "token"
        # Then both ports are bound to loopback, see ServerSettings.bound.
        local_only = settings.auth == "none" and not settings.allow_anonymous
        application = app.build(
            source, telemetry.stream, configuration, [pages.handler(files)], needs_token=needs_token
        )
        api = Gate(
            cast("App", application),
            access=self._access if needs_token else None,
            limiter=Limiter(settings.rate_limit),
            open_to_all=OPEN | files.keys(),
            origins=settings.cors_origins,
            meter=telemetry.metrics,
            is_ending=self._is_ending,
            local_only=local_only,
            give_way=source.give_way,
        )
        metrics = Gate(
            scraped(exposition),
            access=self._scrapers if settings.metrics_auth == "token" else None,
            limiter=Limiter(0),
            meter=telemetry.metrics,
            is_ending=self._is_ending,
            local_only=local_only,
        )
        # Of the deadline something is left for what comes after: the last write, and the lease.
        patience = seconds(settings.shutdown_deadline) - self._delay
        patience -= min(RESERVE, patience / 2)
        self._listeners = {
            name: Listener(one, port, max_connections=settings.max_connections, patience=patience)
            for name, one, port in (("api", api, ports.api), ("metrics", metrics, ports.metrics))
        }

    async def run(self) -> None:
        """Serve until ``end``, and then until the requests under way are answered, or out of time."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for listener in self._listeners.values():
                    tasks.create_task(listener.run(), name="listener")
        finally:
            await self._access.close()
            await self._scrapers.close()

    async def end(self, *, at_once: bool = False) -> None:
        """End in the order that Kubernetes needs.

        Readiness says 503 from now on, while everything else goes on until the endpoints have learnt of it. Then the
        streams are told, no connection is taken any more, and ``run`` ends. ``at_once`` leaves out the wait.
        """
        self._source.is_ending = True
        if not at_once:
            await asyncio.sleep(self._delay)
        self._stream.end()
        for listener in self._listeners.values():
            listener.end()

    def _connections(self) -> Mapping[str, int]:
        return {name: listener.connections for name, listener in self._listeners.items()}

    def _security_events(self) -> Mapping[str, int]:
        events = Counter(self._access.events)
        events.update(self._scrapers.events)
        return events

    def break_off(self) -> None:
        """End without the requests that are under way."""
        for listener in self._listeners.values():
            listener.end(at_once=True)

    def _is_ending(self) -> bool:
        return self._source.is_ending
