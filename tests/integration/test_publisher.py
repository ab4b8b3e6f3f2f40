"""The publisher against an API: it writes what must be written, and loses nothing of anybody else's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from aiohttp import web

from dynamic_toolset.kube.client import CONFIG_MAPS, Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import Conflict, Forbidden
from dynamic_toolset.kube.objects import ConfigMap
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.model import Document
from dynamic_toolset.publication.configmap import DocumentsTooLarge
from dynamic_toolset.publication.publisher import Publisher, Written
from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.resources import CONFIG_MAPS as SANDBOX_CONFIG_MAPS
from dynamic_toolset.settings import ConfigMapSettings
from tests.integration.sandboxed import TARGET, Answer, Cluster, until

WHERE = ConfigMapSettings()


class Published:
    """A publisher with its reflector, which sees nothing new except inside of ``watching``."""

    def __init__(self, client: Client) -> None:
        self.reflector = Reflector(
            client,
            CONFIG_MAPS,
            ConfigMap,
            namespace=TARGET.namespace,
            field_selector=f"metadata.name={TARGET.name}",
            transform=unchanged,
        )
        self.publisher = Publisher(client, WHERE, self.reflector)
        self.seen: list[str | None] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reflector.run())
        try:
            await self.reflector.synced.wait()
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def caught_up(self, cluster: Cluster) -> None:
        newest = str(cluster.sandbox._store.revision)
        await until(lambda: self.reflector.resource_version == newest)

    async def publish(self, text: str = "one") -> Written:
        """Publish a document made of ``text`` and of the overrides that the publisher hands in."""

        def render(present: ConfigMap | None) -> Sequence[Document]:
            overrides = ((present.data if present else None) or {}).get("overrides.yaml")
            self.seen.append(overrides)
            return [Document("custom_toolset.yaml", f"{text} {overrides}")]

        return await self.publisher.publish(render)


@pytest.fixture
async def subject(cluster: Cluster) -> AsyncIterator[Published]:
    async with Client(static(cluster.sandbox.url)) as client:
        yield Published(client)


async def test_it_creates_then_updates_and_sends_nothing_when_nothing_changed(
    cluster: Cluster, subject: Published
) -> None:
    async with subject.watching():
        assert await subject.publish() is Written.CREATED
        assert await subject.publish() is Written.NOTHING
        assert await subject.publish("two") is Written.UPDATED
        assert await subject.publish("two") is Written.NOTHING
    assert cluster.data == {"custom_toolset.yaml": "two None"}
    assert cluster.requests == {("list", "configmaps"): 1, ("patch", "configmaps"): 2}


async def test_without_documents_nothing_is_asked_for(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        assert await subject.publisher.publish(lambda _present: ()) is Written.NOTHING
    assert not cluster.writes
    assert cluster.config_map is None


async def test_until_the_watch_has_caught_up_the_answer_of_the_last_write_is_what_there_is(
    cluster: Cluster, subject: Published
) -> None:
    async with subject.watching():
        pass
    for text in ("one", "one", "two", "two"):
        await subject.publish(text)
    assert [write.data["custom_toolset.yaml"] for write in cluster.writes] == ["one None", "two None"]
    assert not subject.reflector.store
    assert not subject.publisher.is_echo()
    async with subject.watching():
        await subject.caught_up(cluster)
        assert subject.publisher.is_echo()
        assert subject.publisher.present() is subject.reflector.store[TARGET]
        assert await subject.publish("two") is Written.NOTHING
        await cluster.edit({"overrides.yaml": "theirs"})
        await subject.caught_up(cluster)
        assert not subject.publisher.is_echo()
        assert await subject.publish("two") is Written.UPDATED
    assert cluster.data == {"custom_toolset.yaml": "two theirs", "overrides.yaml": "theirs"}


async def test_what_is_deleted_after_our_write_is_made_again(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
        await cluster.sandbox.delete("ConfigMap", *TARGET)
        await subject.caught_up(cluster)
        assert subject.publisher.present() is None
        assert await subject.publish() is Written.CREATED
    assert cluster.documents


async def test_what_is_deleted_before_the_write_arrives_is_made_again(cluster: Cluster, subject: Published) -> None:
    await cluster.edit({"overrides.yaml": "theirs", "notes.txt": "theirs"})

    async def delete_first(answer: Answer) -> web.StreamResponse:
        if cluster.config_map:
            await cluster.sandbox.delete("ConfigMap", *TARGET)
        return await answer()

    cluster.around = delete_first
    async with subject.watching():
        await subject.publish()
        await subject.caught_up(cluster)
        await subject.publish()
    assert cluster.data == {"custom_toolset.yaml": "one None"}


async def test_what_is_not_ours_is_kept_and_what_is_ours_is_put_right(cluster: Cluster, subject: Published) -> None:
    metadata = {
        "namespace": TARGET.namespace,
        "name": TARGET.name,
        "labels": {"team": "sre", "kubernaut.io/managed-by": "somebody"},
        "annotations": {"note": "theirs"},
    }
    data = {"overrides.yaml": "theirs", "notes.txt": "theirs", "custom_toolset.yaml": "by hand"}
    await cluster.sandbox.put({"kind": "ConfigMap", "metadata": metadata, "data": data}, manager="kubectl")
    async with subject.watching():
        assert await subject.publish() is Written.UPDATED
    assert cluster.data == {**data, "custom_toolset.yaml": "one theirs"}
    assert cluster.config_map is not None
    now = cluster.config_map["metadata"]
    assert now["labels"] == {"team": "sre", "kubernaut.io/managed-by": "dynamic-toolset"}
    assert now["annotations"] == {"note": "theirs"}


async def test_a_conflict_is_resolved_with_the_overrides_that_caused_it(cluster: Cluster, subject: Published) -> None:
    await cluster.edit({"overrides.yaml": "old"})

    async def edit_first(answer: Answer) -> web.StreamResponse:
        if len(cluster.writes) < 3:
            await cluster.edit({"overrides.yaml": f"new {len(cluster.writes)}"})
        return await answer()

    cluster.around = edit_first
    async with subject.watching():
        assert await subject.publish() is Written.UPDATED
    assert subject.seen == ["old", "new 1", "new 2"]
    assert cluster.data == {"overrides.yaml": "new 2", "custom_toolset.yaml": "one new 2"}
    pauses = [later.at - earlier.at for earlier, later in pairwise(cluster.writes)]
    assert len(pauses) == 2
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2
    assert sum(pauses) < 1
    assert cluster.requests["get", "configmaps"] == 2


async def test_a_conflict_that_makes_the_write_needless_ends_without_one(cluster: Cluster, subject: Published) -> None:
    await cluster.edit({"notes.txt": "theirs"})

    async def write_the_same_first(answer: Answer) -> web.StreamResponse:
        await cluster.edit({"custom_toolset.yaml": "one None"})
        patch = {"metadata": {"labels": {"kubernaut.io/managed-by": "dynamic-toolset"}}}
        await cluster.sandbox.patch("ConfigMap", *TARGET, patch)
        return await answer()

    cluster.around = write_the_same_first
    async with subject.watching():
        assert await subject.publish() is Written.NOTHING
    assert len(cluster.writes) == 1


async def test_the_third_conflict_is_an_error_and_nothing_of_theirs_is_lost(
    cluster: Cluster, subject: Published
) -> None:
    await cluster.edit({"overrides.yaml": "old"})

    async def edit_first(answer: Answer) -> web.StreamResponse:
        await cluster.edit({"overrides.yaml": f"new {len(cluster.writes)}"})
        return await answer()

    cluster.around = edit_first
    async with subject.watching():
        with pytest.raises(Conflict):
            await subject.publish()
        assert len(cluster.writes) == 3
        assert cluster.data == {"overrides.yaml": "new 3"}
        cluster.around = None
        await subject.caught_up(cluster)
        assert await subject.publish() is Written.UPDATED
    assert cluster.data == {"overrides.yaml": "new 3", "custom_toolset.yaml": "one new 3"}


async def test_after_a_refusal_the_state_is_what_it_was(cluster: Cluster, subject: Published) -> None:
    async def refuse(answer: Answer) -> web.StreamResponse:
        raise status.forbidden(SANDBOX_CONFIG_MAPS, TARGET.name, "not allowed")

    async with subject.watching():
        await subject.publish()
        cluster.around = refuse
        with pytest.raises(Forbidden):
            await subject.publish("two")
        assert len(cluster.writes) == 2  # no retry here: that is for whoever knows how long to wait
        with pytest.raises(DocumentsTooLarge):
            await subject.publish("x" * 1_000_000)
        assert len(cluster.writes) == 2
        assert await subject.publish() is Written.NOTHING
