"""Makes the ConfigMap say what the documents say, without ever overwriting what somebody else wrote meanwhile."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from dynamic_toolset import tracing
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import Conflict, NotFound
from dynamic_toolset.kube.objects import ConfigMap, ObjectKey
from dynamic_toolset.kube.reflector import Reflector, is_older
from dynamic_toolset.kube.resources import CONFIG_MAPS
from dynamic_toolset.model import Document
from dynamic_toolset.publication import configmap
from dynamic_toolset.publication.contest import Contest
from dynamic_toolset.settings import ConfigMapSettings

ATTEMPTS = 3
FIRST_PAUSE = 0.1

TRUST = 10.0
"""Seconds for which an answer of the API counts as newer than the watch that has not told of it yet."""

CONTESTED = "ConfigMapContested"
"""The reason for holding a write back, and of the condition, while somebody keeps undoing what we write."""

Render = Callable[[ConfigMap | None], Sequence[Document]]
"""Makes the documents for the ConfigMap as it is, which holds the overrides, or for None where there is none."""

Permit = Callable[[], float]
"""Returns the seconds within which a write must have ended: 0 if none is permitted, ``math.inf`` without a limit."""


class Written(StrEnum):
    """What a publication did."""

    NOTHING = "unchanged"
    """The ConfigMap said it already, or there is nothing to say yet: nothing was written."""
    CREATED = "created"
    UPDATED = "updated"


class NotLeading(Exception):
    """Writing is not permitted, or not any more: nothing was sent, or what was sent was broken off.

    Whether a write that was broken off has arrived is not known. Whoever leads next finds out, or fences it off.
    """


class Withheld(Exception):
    """The ConfigMap is left as it is, for a reason that a person must judge.

    ``reason`` is a CamelCase word for a condition; the message says what is wrong, where, and what to do.
    ``retry_in`` is after how many seconds to publish again; None if an event of the ConfigMap is to be waited for.
    """

    def __init__(self, reason: str, message: str, retry_in: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_in = retry_in


class _Answer(Struct, frozen=True):
    """What the API answered, when (on the publisher's clock), and how many lists the reflector had begun by then."""

    config_map: ConfigMap
    at: float
    lists: int


class Publisher:
    """The one owner of the ConfigMap's documents.

    Reads come from the reflector's store; a request is made only to write, or to read again after a conflict or when
    the watch falls behind. ``permit`` is asked immediately before each request that writes. One ``publish`` at a time.
    """

    def __init__(
        self,
        client: Client,
        settings: ConfigMapSettings,
        reflector: Reflector[ConfigMap, ConfigMap],
        *,
        permit: Permit = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._settings = settings
        self._reflector = reflector
        self._permit = permit
        self._clock = clock
        self._key = ObjectKey(settings.namespace, settings.name)
        self._answer: _Answer | None = None
        self._echo: ConfigMap | None = None
        self._published: tuple[Document, ...] = ()
        self._attempted: tuple[Document, ...] = ()
        self._ours = False
        self._contest = Contest()
        self.writes = 0
        """Requests that wrote, and succeeded."""
        self.conflicts = 0
        """Requests that were refused because somebody had written since we read."""

    # --- What is there -------------------------------------------------------------------------------------------

    def present(self) -> ConfigMap | None:
        """Return the newest state that we know of: the watch's, or the answer of our last request if that is newer.

        Between a write and its watch event the store still holds the old object. Judging by it would write again.
        """
        answer = self._unconfirmed()
        if answer is not None and self._is_trusted(answer):
            return answer.config_map
        return self._reflector.store.get(self._key)

    def is_echo(self) -> bool:
        """Whether the store holds what our last request left or found, so that its event tells us nothing new."""
        return self._echo is not None and self._echo == self._reflector.store.get(self._key)

    def _unconfirmed(self) -> _Answer | None:
        """Return the last answer unless the watch has caught up with it, after which it is forgotten."""
        answer = self._answer
        if answer is not None and not is_older(
            self._reflector.resource_version, answer.config_map.metadata.resource_version
        ):
            answer = self._answer = None
        return answer

    def _is_trusted(self, answer: _Answer) -> bool:
        """Whether an answer that the watch has not confirmed is surely newer than the store.

        Mostly the watch is late by milliseconds, and then it is. But resourceVersions go back when etcd is restored
        from a backup. Then the store is the newer one, and no event ever has a version that confirms the answer. Two
        signs tell it apart:

        - The reflector has begun a list since the answer came. A list is consistent, so when it ends the store is at
          least as new as the answer, whatever the versions say. One that had begun before may be older; it does not
          count. That this one need not have ended yet does no harm, as a doubt leads to a question (``_newest``).
        - The answer is old. A watch that is late by more than that needs the question as well.
        """
        return answer.lists == self._reflector.statistics.lists and self._clock() - answer.at < TRUST

    async def _newest(self) -> ConfigMap | None:
        """Return ``present``, or what the API says if neither the watch nor our last answer can be relied on."""
        answer = self._unconfirmed()
        return await self._read() if answer is not None and not self._is_trusted(answer) else self.present()

    async def _read(self) -> ConfigMap | None:
        try:
            found = await self._client.get(CONFIG_MAPS, self._key, ConfigMap)
        except NotFound:
            return None
        self._remember(found)
        return found

    def _remember(self, config_map: ConfigMap) -> None:
        self._answer = _Answer(config_map, self._clock(), self._reflector.statistics.lists)
        self._echo = config_map

    # --- What it should be ---------------------------------------------------------------------------------------

    async def publish(self, render: Render, *, fence: str | None = None) -> Written:
        """Write what ``render`` makes of the present ConfigMap (its overrides), unless it is there already.

        A conflict means that somebody wrote since we read: read again, render again with *their* overrides, try
        again, three times in all. No documents means that there is nothing to say yet.

        ``fence`` names this instance where it leads because another one lost the lease without giving it back. Then
        there is a write even if the documents are there already, so that a write of the former leader which is still
        under way (a process that was paused, a slow network) is refused when it arrives.

        Raises what ``render`` raises, NotLeading, Withheld, DocumentsTooLarge, and KubernetesError.
        """
        if fence is not None:
            self.stand_down()
        present = await self._newest()
        for attempt in range(1, ATTEMPTS + 1):
            documents = tuple(render(present))
            if not documents:
                return Written.NOTHING
            if configmap.says(present, documents) and fence is None:
                self._has_published(documents)
                return Written.NOTHING
            self._check(present, documents)
            body = configmap.application(self._settings, documents, present, fence=fence)
            self._attempted = documents
            try:
                self._remember(await self._write(body))
            except Conflict:
                self.conflicts += 1
                if attempt == ATTEMPTS:
                    raise
                self._contest.overtaken(self._clock())
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
                present = await self._read()
            else:
                self.writes += 1
                self._has_published(documents)
                return Written.CREATED if present is None else Written.UPDATED
        raise AssertionError("unreachable")

    def rehearse(self, render: Render) -> bool:
        """Return whether ``publish`` would write something, as far as that is known without a request.

        Raises what ``render`` raises, Withheld, and DocumentsTooLarge.
        """
        present = self.present()
        documents = tuple(render(present))
        if not documents or configmap.says(present, documents):
            return False
        if present is not None:
            self._check_immutable(present)
            self._check_foreign(present, documents)
        configmap.application(self._settings, documents, present)
        return True

    def stand_down(self) -> None:
        """Another instance writes from here on, or did until now: what it writes is no drift from what we wrote."""
        self._published = ()

    @property
    def contest(self) -> str | None:
        """Who keeps undoing what we write, in a sentence, while that goes on; also while our last write stands."""
        description = self._contest.describe(self._clock())
        return description and f"ConfigMap {self._key}: {description}"

    @property
    def contest_ends_in(self) -> float | None:
        """Seconds after which ``contest`` will be None if nothing happens: no event tells of it."""
        return self._contest.ends_in(self._clock())

    async def _write(self, body: dict[str, Any]) -> ConfigMap:
        """Apply, if that is permitted and for as long as it is.

        Forced: a hand edit of our own keys is drift and is put right. What others wrote into other keys is not in the
        body, and what they wrote since we read is refused by the precondition.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()  # before: what passes between the question and the request counts, too
        permitted = self._permit()
        if not permitted > 0:
            self.stand_down()
            raise NotLeading("another instance leads, or none does: nothing was written")
        try:
            async with asyncio.timeout_at(None if permitted == math.inf else asked + permitted):
                with tracing.span("apply"):
                    return await self._client.apply(
                        CONFIG_MAPS, self._key, body, ConfigMap, field_manager=configmap.FIELD_MANAGER, force=True
                    )
        except TimeoutError:  # ours: the client's own deadline is another error
            self.stand_down()
            raise NotLeading("the lease ran out during a write, which was broken off") from None

    def _has_published(self, documents: tuple[Document, ...]) -> None:
        self._published = documents
        self._ours = True
        self._contest.stands(self._clock())

    def _check(self, present: ConfigMap | None, documents: Sequence[Document]) -> None:
        """Raise Withheld if the ConfigMap must not, or not yet, be written."""
        if present is not None:
            self._check_immutable(present)
            self._check_foreign(present, documents)
        self._check_contest(present)

    def _check_immutable(self, present: ConfigMap) -> None:
        if present.immutable:
            kept = "keep a copy of its overrides.yaml, " if "overrides.yaml" in (present.data or {}) else ""
            raise Withheld(
                "ConfigMapImmutable",
                f"ConfigMap {self._key} is marked immutable, so it cannot be kept right: {kept}delete it, and it is "
                "made anew at once, or have this program publish elsewhere (setting configMap.name)",
            )

    def _check_foreign(self, present: ConfigMap, documents: Sequence[Document]) -> None:
        if self._ours:
            return
        keys = configmap.foreign_keys(present, documents)
        if not keys:
            return
        owners = configmap.owners(present, keys)
        by = f", written by {' and '.join(owners)}," if owners else ""
        label = " ".join(f"{name}={value}" for name, value in configmap.LABELS.items())
        raise Withheld(
            "ConfigMapForeign",
            f"ConfigMap {self._key} was there before this program, and holds {' and '.join(keys)}{by} with a text that "
            "is not this program's, so it is left as it is: hand it over (kubectl label --overwrite configmap "
            f"--namespace {self._key.namespace} {self._key.name} {label}), which replaces that text, or have this "
            "program publish elsewhere (setting configMap.name)",
        )

    def _check_contest(self, present: ConfigMap | None) -> None:
        """Note a drift from what we wrote, and see that one in a row of many is not put right too soon.

        A write that ended with an error may have arrived all the same.
        """
        if not self._published or any(configmap.says(present, one) for one in (self._published, self._attempted)):
            return
        now = self._clock()
        self._contest.drifted(now, configmap.changers(present, self._published))
        remaining = self._contest.remaining(now)
        if remaining:
            raise Withheld(CONTESTED, self.contest or "", remaining)
