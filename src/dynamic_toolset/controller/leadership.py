"""Whether this instance may write."""

import asyncio
import math
import socket
import uuid
from collections.abc import Callable

import structlog

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.election import Elector, Statistics
from dynamic_toolset.kube.objects import Lease, ObjectKey
from dynamic_toolset.kube.reflector import Reflector
from dynamic_toolset.settings import LeaderElection, Settings, seconds

log = structlog.get_logger()

_PATIENCE = 3
"""Failed requests in a row after which the lease is called out of reach."""


def lease_of(settings: Settings) -> ObjectKey:
    """Return the lease of an instance with these settings: those of its process, whatever a ToolsetConfig says."""
    return ObjectKey(settings.config_map.namespace, settings.leader_election.lease_name or settings.instance)


class Leadership:
    """Of several instances that stand for the same lease the one that writes. Without election every one does.

    ``on_change`` is called when this instance begins or ceases to lead.
    """

    def __init__(self, client: Client, how: LeaderElection, lease: ObjectKey, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._fenced = False
        self._leads = False
        self._elector: Elector | None = None
        if how.enabled:
            self._elector = Elector(
                client,
                lease,
                f"{socket.gethostname()}_{uuid.uuid4()}",
                lease_duration=seconds(how.lease_duration),
                renew_deadline=seconds(how.renew_deadline),
                retry_period=seconds(how.retry_period),
                on_change=self._changed,
            )

    def remaining(self) -> float:
        """Return the seconds within which a write must have ended; 0 for an instance that does not lead."""
        return math.inf if self._elector is None else self._elector.remaining()

    @property
    def fence(self) -> str | None:
        """What the next write must leave in the ConfigMap, so that none of a former leader can land after it.

        That is needed where the lease ran out instead of being given back: its holder may only have been paused, with
        a write on its way.
        """
        elector = self._elector
        return elector.identity if elector is not None and elector.unclean and not self._fenced else None

    def has_fenced(self) -> None:
        """Note that the fence is in the ConfigMap: no further write needs it while this instance leads."""
        self._fenced = True

    @property
    def holder(self) -> str | None:
        """Whom the Lease names, as far as is known; None without election."""
        return self._elector.holder if self._elector is not None else None

    @property
    def reflector(self) -> Reflector[Lease, Lease] | None:
        """The one that follows the Lease, for who wants to know how it is; None without election."""
        return self._elector.reflector if self._elector is not None else None

    @property
    def late(self) -> float:
        """By how many seconds the election is late with its next step; 0 if it is not."""
        return self._elector.pulse.late if self._elector is not None else 0.0

    @property
    def statistics(self) -> Statistics | None:
        """What the election has counted; None where there is none."""
        return self._elector.statistics if self._elector is not None else None

    @property
    def problem(self) -> str | None:
        """What is in the way of holding or watching the lease. One request that fails now and then is not."""
        elector = self._elector
        if elector is None:
            return None
        failing = max(elector.statistics.consecutive_failures, elector.reflector.statistics.consecutive_failures)
        return elector.last_error if failing >= _PATIENCE else None

    async def run(self) -> None:
        """Stand for election, for ever."""
        if self._elector is None:
            await asyncio.Event().wait()
        else:
            await self._elector.run()

    async def release(self) -> None:
        """Give the lease back, once ``run`` has been cancelled, so that another instance can go on at once."""
        if self._elector is not None:
            await self._elector.release()

    def _changed(self) -> None:
        leads = self.remaining() > 0
        if leads != self._leads:
            self._leads = leads
            self._fenced = False
            log.info("leading" if leads else "standing_by", holder=self._elector and self._elector.holder)
            self._on_change()
