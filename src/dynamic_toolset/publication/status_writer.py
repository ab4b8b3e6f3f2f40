"""Writes the status of ToolsetConfigs: when it says something else than before, and never oftener than every 2 s."""

import asyncio
import random
from collections.abc import Callable, Iterable

import msgspec
import structlog
from msgspec import Struct

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubernetesError,
    NotFound,
    TooLarge,
)
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.publication.configmap import FIELD_MANAGER
from dynamic_toolset.publication.status import means_the_same
from dynamic_toolset.toolset_config import API_VERSION, KIND, TOOLSET_CONFIGS, Status, ToolsetConfig

log = structlog.get_logger()

PAUSE = 2.0
"""Seconds from one write to the next, at least. What changes meanwhile is in the next one."""

PATIENCE = 3
"""Writes in a row that fail until a person should know."""

_LONGEST_RETRY = 60.0

_FOR_GOOD = (Forbidden, BadRequest, Conflict, TooLarge, Invalid)
"""Refusals that the same request would meet again. Somebody may have given us leave for ours only."""


class Wanted(Struct, frozen=True):
    """What the status of one ToolsetConfig is to say: of that one (``uid``), and of none that bears its name later.

    ``stored`` is what it says now, as far as is known. ``ours``: it configures this instance.
    """

    key: ObjectKey
    uid: str
    status: Status
    stored: Status
    ours: bool = True


class StatusWriter:
    """Makes the cluster say what ``wanted`` says, asked after each ``notify``. Nothing that fails ends it.

    It is server-side apply of the status subresource, of which we own every field that we state: there is no conflict,
    and no other field is touched.

    What others write into the status stays until there is something new to say. To answer at once would be a fight
    with whoever holds another opinion, and its only end would be ours.
    """

    def __init__(self, client: Client, wanted: Callable[[], Iterable[Wanted]]) -> None:
        self.failure: str | None = None
        self.writes = 0
        self._client = client
        self._wanted = wanted
        self._changed = asyncio.Event()
        self._written: dict[str, Status] = {}
        self._refused: dict[str, Status] = {}
        self._failures = 0

    def notify(self) -> None:
        """There may be something else to say."""
        self._changed.set()

    def last(self, uid: str) -> Status | None:
        """Return what we wrote last into the status of a ToolsetConfig; None if we have not yet."""
        return self._written.get(uid)

    def forget(self) -> None:
        """Somebody else may have written: what is stored counts."""
        self._written.clear()
        self._refused.clear()

    async def run(self) -> None:
        """Write, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                wrote = await self._write_all()
            except Exception as error:  # a status that cannot be made must not end the service
                log.exception("status_failed")
                await self._fail(f"{type(error).__name__}, for a reason that the log shows")
                continue
            if wrote:
                await asyncio.sleep(PAUSE)

    async def _write_all(self) -> bool:
        wrote = False
        wanted = tuple(self._wanted())
        for memory in (self._written, self._refused):
            for uid in memory.keys() - {one.uid for one in wanted}:
                del memory[uid]
        for one in wanted:
            try:
                wrote |= await self._write(one)
            except NotFound:
                continue  # it is gone; whoever follows them will hear of it
            except KubernetesError as error:
                if not one.ours and isinstance(error, _FOR_GOOD):
                    self._refused[one.uid] = one.status  # what is wrong with that of others is not in the way of ours
                    continue
                await self._fail(str(error))
                return True
        if wanted:
            self._failures, self.failure = 0, None
        return wrote

    async def _write(self, one: Wanted) -> bool:
        known = self._written.get(one.uid) or self._refused.get(one.uid) or one.stored
        if means_the_same(known, one.status):
            self._written.setdefault(one.uid, known)
            return False
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            # The uid is a precondition: one that was made anew meanwhile knows nothing of this.
            "metadata": {"name": one.key.name, "namespace": one.key.namespace, "uid": one.uid},
            "status": msgspec.to_builtins(one.status),
        }
        await self._client.apply(
            TOOLSET_CONFIGS,
            one.key,
            body,
            ToolsetConfig,
            field_manager=FIELD_MANAGER,
            force=True,
            subresource="status",
        )
        self._written[one.uid] = one.status
        self.writes += 1
        return True

    async def _fail(self, why: str) -> None:
        """Pause for 2 s, doubling to a minute, with jitter, and try again then."""
        self._failures += 1
        if self._failures >= PATIENCE:
            self.failure = why
        pause = min(PAUSE * 2.0 ** (self._failures - 1), _LONGEST_RETRY)
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter is no secret
        self._changed.set()
