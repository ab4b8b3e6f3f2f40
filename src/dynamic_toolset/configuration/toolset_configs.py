"""The ToolsetConfigs of one namespace, of which one configures this instance; where the cluster knows such a kind."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import structlog

from dynamic_toolset.controller import conditions
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import Forbidden, KubernetesError, NotFound
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.kube.reflector import AT_MOST, Reflector, unchanged
from dynamic_toolset.model import Problem
from dynamic_toolset.toolset_config import TOOLSET_CONFIGS, ToolsetConfig

log = structlog.get_logger()

ASK_AGAIN = 10.0
"""Seconds at most between two questions whether there are ToolsetConfigs by now, or leave to read them."""

GONE_AFTER = 10.0
"""Seconds for which the cluster must not know ToolsetConfigs any more until ours counts as deleted, if nobody has said
that it is. An API server that has just begun, or one of several, may not know them yet."""

Absence = Literal["unknown", "forbidden"]
"""Why there is no ToolsetConfig: the cluster knows no such kind, or we may not read any."""

_Follower = Reflector[ToolsetConfig, ToolsetConfig]


class ToolsetConfigs:
    """Follows the ToolsetConfigs of a namespace. ``on_change`` is called, often, when there may be something new.

    ``known`` is set once it is certain what there is: by a list, or because there can be none. Nothing is decided
    before. What fails later takes nothing away: the one that was seen last stays.
    """

    def __init__(self, client: Client, key: ObjectKey, on_change: Callable[[], None]) -> None:
        self.key = key
        self.known = asyncio.Event()
        self._client = client
        self._on_change = on_change
        self._absence: Absence | None = None
        self._absent_since: float | None = None
        self._gone = asyncio.Event()
        self._reflector = self._follower(None)

    @property
    def own(self) -> ToolsetConfig | None:
        """The one that configures this instance."""
        return self.all.get(self.key)

    @property
    def unreadable(self) -> str | None:
        """Why our own cannot even be decoded; None if it can, or is not there."""
        return self._reflector.skipped.get(self.key)

    @property
    def all(self) -> Mapping[ObjectKey, ToolsetConfig]:
        """All of the namespace."""
        return self._reflector.store

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to list or to watch them has failed."""
        return self._reflector.failure is not None

    def problems(self) -> Iterator[Problem]:
        """Yield what is in the way of following them. That there are none is not."""
        if self._absence is None or self.all:
            yield from conditions.watch_failing("ToolsetConfigs", self._reflector)

    @property
    def reflector(self) -> _Follower | None:
        """The one that follows them, for who wants to know how it is; None where there are none to follow."""
        return self._reflector if self._absence is None else None

    async def run(self) -> None:
        """Follow them, for ever."""
        while True:
            await self._follow()
            self._gone.clear()
            self._absence = self._absent_since = None
            self._reflector = self._follower(self._reflector)
            self._on_change()

    def _follower(self, before: _Follower | None) -> _Follower:
        return Reflector(
            self._client,
            TOOLSET_CONFIGS,
            ToolsetConfig,
            namespace=self.key.namespace,
            transform=unchanged,
            on_change=self._changed,
            sleep=self._pause,
            successor_of=before,
        )

    async def _follow(self) -> None:
        """Follow them until they are gone, kind and all."""
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._reflector.run())
            listed = tasks.create_task(self._note_list())
            await self._gone.wait()
            following.cancel()
            listed.cancel()

    async def _note_list(self) -> None:
        await self._reflector.synced.wait()  # also of an empty list, which changes nothing
        self._is_there()
        self._on_change()

    def _changed(self) -> None:
        self._reflector.take_changed()
        self._is_there()
        self._on_change()

    def _is_there(self) -> None:
        self._absence = self._absent_since = None
        self.known.set()

    async def _pause(self, delay: float) -> None:
        """Wait as the reflector does after a failure; where there is nothing to be had, find out whether that lasts."""
        failure, now = self._reflector.failure, asyncio.get_running_loop().time()
        if not self.known.is_set():
            self._on_change()  # that nothing is known yet has a reason now
        if isinstance(failure, (NotFound, Forbidden)):
            delay = min(delay, ASK_AGAIN)
            self._is_absent("unknown" if isinstance(failure, NotFound) else "forbidden")
        if not isinstance(failure, NotFound):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif self.all and now - self._absent_since >= GONE_AFTER:
            self._gone.set()
        if isinstance(failure, NotFound) and not self.all:
            await self._wait_for_the_kind()
        else:
            await asyncio.sleep(delay)

    async def _wait_for_the_kind(self) -> None:
        """Ask now and then what the cluster serves: that is no list, and any account may ask it."""
        served = False
        while not served:
            self._reflector.pulse.promise(AT_MOST)
            await asyncio.sleep(ASK_AGAIN)
            try:
                served = await self._client.serves(TOOLSET_CONFIGS)
            except KubernetesError:
                return  # what is wrong shows when they are listed

    def _is_absent(self, why: Absence) -> None:
        if why != self._absence and not self.all:
            log.info("toolset_configs_absent", namespace=self.key.namespace, reason=why)
        self._absence = why
        if not self.known.is_set():
            self.known.set()
            self._on_change()
