"""Makes the ConfigMap say what the documents say, without ever overwriting what somebody else wrote meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum

from dynamic_toolset.kube.client import CONFIG_MAPS, Client
from dynamic_toolset.kube.errors import Conflict, NotFound
from dynamic_toolset.kube.objects import ConfigMap, ObjectKey
from dynamic_toolset.kube.reflector import Reflector
from dynamic_toolset.model import Document
from dynamic_toolset.publication import configmap
from dynamic_toolset.settings import ConfigMapSettings

ATTEMPTS = 3
FIRST_PAUSE = 0.1

Render = Callable[[ConfigMap | None], Sequence[Document]]
"""Makes the documents for the ConfigMap as it is, which holds the overrides, or for None where there is none."""


class Written(StrEnum):
    """What a publication did."""

    NOTHING = "unchanged"
    """The ConfigMap said it already: no request was made."""
    CREATED = "created"
    UPDATED = "updated"


class Publisher:
    """The one owner of the ConfigMap's documents.

    Reads come from the reflector's store; a request is made only to write, or to read again after a conflict.
    """

    def __init__(self, client: Client, settings: ConfigMapSettings, reflector: Reflector[ConfigMap, ConfigMap]) -> None:
        self._client = client
        self._settings = settings
        self._reflector = reflector
        self._key = ObjectKey(settings.namespace, settings.name)
        self._answer: ConfigMap | None = None

    def present(self) -> ConfigMap | None:
        """Return the newest state that we know of: the watch's, or the answer of our last write if that is newer.

        Between a write and its watch event the store still holds the old object. Judging by it would write again.
        """
        answer = self._answer
        if answer is not None:
            if _revision(self._reflector.resource_version) < _revision(answer.metadata.resource_version):
                return answer
            self._answer = None
        return self._reflector.store.get(self._key)

    def is_echo(self) -> bool:
        """Whether the store holds what our last write left, so that its event tells us nothing new."""
        stored = self._reflector.store.get(self._key)
        answer = self._answer
        return (
            stored is not None
            and answer is not None
            and stored.metadata.resource_version == answer.metadata.resource_version
        )

    async def publish(self, render: Render) -> Written:
        """Write what ``render`` makes of the present ConfigMap (its overrides), unless it is there already.

        A conflict means that somebody wrote since we read: read again, render again with *their* overrides, try
        again, three times in all. No documents means that there is nothing to say yet. Raises what ``render``
        raises, DocumentsTooLarge, and KubernetesError.
        """
        present = self.present()
        for attempt in range(1, ATTEMPTS + 1):
            documents = render(present)
            if not documents or configmap.says(present, documents):
                return Written.NOTHING
            body = configmap.manifest(self._settings, documents, present)
            try:
                # Forced: a hand edit of our own keys is drift and is put right. What others wrote into other keys
                # is not in the body, and what they wrote since we read is caught by the resourceVersion.
                self._answer = await self._client.apply(
                    CONFIG_MAPS, self._key, body, ConfigMap, field_manager=configmap.FIELD_MANAGER, force=True
                )
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
                present = await self._read()
            else:
                return Written.CREATED if present is None else Written.UPDATED
        raise AssertionError("unreachable")

    async def _read(self) -> ConfigMap | None:
        try:
            return await self._client.get(CONFIG_MAPS, self._key, ConfigMap)
        except NotFound:
            return None


def _revision(resource_version: str) -> int:
    """Return a resourceVersion as the number that it is (KEP-5504: those of one resource compare as integers)."""
    return int(resource_version) if resource_version.isdigit() else 0
