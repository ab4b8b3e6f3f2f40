"""The publisher against an API: it writes what must be written, and loses nothing of anybody else's."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import Conflict, ConnectionFailed, Forbidden, ServerError
from dynamic_toolset.kube.objects import ConfigMap
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.kube.resources import CONFIG_MAPS
from dynamic_toolset.model import Document
from dynamic_toolset.publication.configmap import LABELS, TAKEN_OVER_BY, DocumentsTooLarge
from dynamic_toolset.publication.contest import QUIET
from dynamic_toolset.publication.publisher import TRUST, NotLeading, Publisher, Withheld, Written
from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.resources import CONFIG_MAPS as SANDBOX_CONFIG_MAPS
from dynamic_toolset.settings import ConfigMapSettings
from tests.integration.sandboxed import TARGET, Answer, Cluster, until

WHERE = ConfigMapSettings()


class Published:
    """A publisher with its reflector, which sees nothing new except inside of ``watching``.

    ``permitted`` is what it is permitted, and ``now`` its clock.
    """

    def __init__(self, client: Client) -> None:
        self.permitted: Callable[[], float] = lambda: math.inf
        self.now = 0.0
        self.reflector = Reflector(
            client,
            CONFIG_MAPS,
            ConfigMap,
            namespace=TARGET.namespace,
            field_selector=f"metadata.name={TARGET.name}",
            transform=unchanged,
        )
        self.publisher = Publisher(
            client, WHERE, self.reflector, permit=lambda: self.permitted(), clock=lambda: self.now
        )
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

    async def publish(self, text: str = "one", **options: Any) -> Written:
        """Publish a document made of ``text`` and of the overrides that the publisher hands in."""

        def render(present: ConfigMap | None) -> Sequence[Document]:
            overrides = ((present.data if present else None) or {}).get("overrides.yaml")
            self.seen.append(overrides)
            return [Document("custom_toolset.yaml", f"{text} {overrides}")]

        return await self.publisher.publish(render, **options)

    async def withheld(self, text: str = "one") -> Withheld:
        with pytest.raises(Withheld) as withheld:
            await self.publish(text)
        return withheld.value


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
    """What was made of overrides that are gone must not outlive them."""
    await cluster.edit({"overrides.yaml": "theirs", "notes.txt": "theirs"})

    async def delete_first(answer: Answer) -> web.StreamResponse:
        if cluster.config_map:
            await cluster.sandbox.delete("ConfigMap", *TARGET)
        return await answer()

    cluster.around = delete_first
    async with subject.watching():
        assert await subject.publish() is Written.CREATED
    assert subject.seen == ["theirs", None]
    assert cluster.data == {"custom_toolset.yaml": "one None"}


async def test_what_is_created_before_the_creation_arrives_is_taken_in(cluster: Cluster, subject: Published) -> None:
    async def create_first(answer: Answer) -> web.StreamResponse:
        if not cluster.config_map:
            await cluster.edit({"overrides.yaml": "theirs"})
        return await answer()

    cluster.around = create_first
    async with subject.watching():
        assert await subject.publish() is Written.UPDATED
    assert subject.seen == [None, "theirs"]
    assert cluster.data == {"overrides.yaml": "theirs", "custom_toolset.yaml": "one theirs"}


async def test_what_is_not_ours_is_kept_and_what_is_ours_is_put_right(cluster: Cluster, subject: Published) -> None:
    metadata = {"labels": {"team": "sre", "kubernaut.io/managed-by": "somebody"}, "annotations": {"note": "theirs"}}
    data = {"overrides.yaml": "theirs", "notes.txt": "theirs", "custom_toolset.yaml": "by hand"}
    async with subject.watching():
        await subject.publish()
        await cluster.sandbox.patch("ConfigMap", *TARGET, {"metadata": metadata, "data": data}, manager="kubectl")
        await subject.caught_up(cluster)
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


# --- Permission ------------------------------------------------------------------------------------------------------


async def test_without_permission_nothing_is_written(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        for nothing in (0.0, -1.0, math.nan):
            subject.permitted = lambda nothing=nothing: nothing
            with pytest.raises(NotLeading, match="nothing was written"):
                await subject.publish()
        subject.permitted = lambda: 5
        assert await subject.publish() is Written.CREATED
        subject.permitted = lambda: 0
        assert await subject.publish() is Written.NOTHING  # nobody need be asked for it
        with pytest.raises(NotLeading):
            await subject.publish("two")
        with pytest.raises(NotLeading):
            await subject.publish(fence="me")
    assert len(cluster.writes) == 1


async def test_a_write_that_outlasts_the_permission_is_broken_off(cluster: Cluster, subject: Published) -> None:
    hanging, broken_off = asyncio.Event(), asyncio.Event()

    async def hang(answer: Answer) -> web.StreamResponse:
        hanging.set()
        try:
            await asyncio.sleep(60)
        finally:
            broken_off.set()
        return await answer()

    cluster.around = hang
    subject.permitted = lambda: 2.0  # time enough for the request to arrive
    async with subject.watching():
        begin = asyncio.get_running_loop().time()
        with pytest.raises(NotLeading, match="ran out during a write"):
            await subject.publish()
        assert 2.0 <= asyncio.get_running_loop().time() - begin < 30  # the API would take a minute
        assert hanging.is_set()
        assert cluster.config_map is None
        cluster.around = None
        assert await subject.publish() is Written.CREATED


async def test_permission_is_asked_for_anew_after_a_conflict(cluster: Cluster, subject: Published) -> None:
    asked = 0

    async def edit_first(answer: Answer) -> web.StreamResponse:
        await cluster.edit({"overrides.yaml": f"new {len(cluster.writes)}"})
        return await answer()

    def permitted() -> float:
        nonlocal asked
        asked += 1
        return 5 if asked == 1 else 0

    cluster.around = edit_first
    subject.permitted = permitted
    async with subject.watching():
        with pytest.raises(NotLeading):
            await subject.publish()
    assert asked == 2
    assert len(cluster.writes) == 1
    assert cluster.documents == {}


async def test_an_api_that_is_slower_than_its_own_deadline_is_no_loss_of_the_lease(cluster: Cluster) -> None:
    async def hang(answer: Answer) -> web.StreamResponse:
        await asyncio.sleep(60)
        return await answer()

    async with Client(static(cluster.sandbox.url), timeout=0.2) as client:
        subject = Published(client)
        subject.permitted = lambda: 5
        async with subject.watching():
            cluster.around = hang
            with pytest.raises(ConnectionFailed):
                await subject.publish()


# --- Fencing ---------------------------------------------------------------------------------------------------------


async def test_a_fence_is_written_though_nothing_changed_and_later_writes_need_none(
    cluster: Cluster, subject: Published
) -> None:
    async with subject.watching():
        await subject.publish()
        for leader in ("a", "b", "b"):
            before = _version(cluster)
            assert await subject.publish(fence=leader) is Written.UPDATED
            assert _version(cluster) > before
            assert await subject.publish() is Written.NOTHING
        assert await subject.publish(fence="c") is Written.UPDATED
        assert _annotations(cluster) == {TAKEN_OVER_BY: "c"}
        assert await subject.publish("two") is Written.UPDATED
    assert _annotations(cluster) == {}
    assert len(cluster.writes) == 6


@pytest.mark.parametrize("there", [True, False], ids=["update", "creation"])
async def test_a_write_of_a_former_leader_fails_when_it_arrives_after_the_fence(
    cluster: Cluster, subject: Published, there: bool
) -> None:
    arrived, resumed = asyncio.Event(), asyncio.Event()

    async def hold_the_first(answer: Answer) -> web.StreamResponse:
        if len(cluster.writes) == 1:
            arrived.set()
            await resumed.wait()
        return await answer()

    if there:
        await cluster.edit({"notes.txt": "theirs"})
    async with Client(static(cluster.sandbox.url)) as client, subject.watching():
        successor = Published(client)
        async with successor.watching():
            cluster.around = hold_the_first
            late = asyncio.create_task(subject.publish("late"))
            await arrived.wait()
            assert await successor.publish("new", fence="me") is (Written.UPDATED if there else Written.CREATED)
            subject.permitted = lambda: 0
            resumed.set()
            with pytest.raises(NotLeading):  # refused, and not permitted to try again
                await late
    assert cluster.data["custom_toolset.yaml"] == "new None"


async def test_without_documents_there_is_no_fence(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        assert await subject.publisher.publish(lambda _present: (), fence="me") is Written.NOTHING
    assert cluster.config_map is None


# --- Withheld --------------------------------------------------------------------------------------------------------


async def test_an_immutable_one_is_left_alone_until_it_is_gone(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
        await cluster.edit({"overrides.yaml": "theirs"})
        await cluster.sandbox.patch("ConfigMap", *TARGET, {"immutable": True})
        await subject.caught_up(cluster)
        requests = cluster.requests
        withheld = await subject.withheld()
        assert (withheld.reason, withheld.retry_in) == ("ConfigMapImmutable", None)
        for said in (str(TARGET), "immutable", "a copy of its overrides.yaml", "delete it", "configMap.name"):
            assert said in str(withheld)
        assert cluster.requests == requests
        await cluster.sandbox.delete("ConfigMap", *TARGET)
        await subject.caught_up(cluster)
        assert await subject.publish() is Written.CREATED


async def test_an_immutable_one_that_says_it_already_is_no_matter(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
        await cluster.sandbox.patch("ConfigMap", *TARGET, {"immutable": True})
        await subject.caught_up(cluster)
        assert await subject.publish() is Written.NOTHING


async def test_a_toolset_of_somebody_else_is_not_destroyed_until_it_is_handed_over(
    cluster: Cluster, subject: Published
) -> None:
    await cluster.edit({"custom_toolset.yaml": "toolsets: {by: hand}"})
    async with subject.watching():
        requests = cluster.requests
        withheld = await subject.withheld()
        assert (withheld.reason, withheld.retry_in) == ("ConfigMapForeign", None)
        command = (
            "kubectl label --overwrite configmap --namespace kubernaut-system kubernaut-toolset-config "
            "kubernaut.io/managed-by=dynamic-toolset"
        )
        for said in (str(TARGET), "custom_toolset.yaml", "written by kubectl", command, "configMap.name"):
            assert said in str(withheld)
        assert cluster.requests == requests
        await cluster.sandbox.patch("ConfigMap", *TARGET, {"metadata": {"labels": dict(LABELS)}}, manager="kubectl")
        await subject.caught_up(cluster)
        assert await subject.publish() is Written.UPDATED
    assert cluster.documents == {"custom_toolset.yaml": "one None"}


async def test_a_toolset_of_somebody_else_that_appears_during_the_creation_is_not_destroyed_either(
    cluster: Cluster, subject: Published
) -> None:
    async def create_first(answer: Answer) -> web.StreamResponse:
        await cluster.edit({"custom_toolset.yaml": "theirs"})
        return await answer()

    cluster.around = create_first
    async with subject.watching():
        assert (await subject.withheld()).reason == "ConfigMapForeign"
    assert cluster.data == {"custom_toolset.yaml": "theirs"}


async def test_what_has_been_ours_once_stays_ours(cluster: Cluster, subject: Published) -> None:
    await cluster.edit({"custom_toolset.yaml": "one None"})
    await cluster.sandbox.patch("ConfigMap", *TARGET, {"metadata": {"labels": dict(LABELS)}}, manager="kubectl")
    async with subject.watching():
        assert await subject.publish() is Written.NOTHING
        gone = {"metadata": {"labels": None}, "data": {"custom_toolset.yaml": "by hand"}}
        await cluster.sandbox.patch("ConfigMap", *TARGET, gone, manager="kubectl")
        await subject.caught_up(cluster)
        assert await subject.publish() is Written.UPDATED


async def test_a_restart_finds_what_it_wrote_before(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
    await cluster.edit({"custom_toolset.yaml": "by hand"})
    async with Client(static(cluster.sandbox.url)) as client:
        successor = Published(client)
        async with successor.watching():
            assert await successor.publish() is Written.UPDATED


# --- A contest -------------------------------------------------------------------------------------------------------


async def test_who_keeps_changing_it_is_named_and_put_right_after_a_pause(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
        for _ in range(2):
            await cluster.edit({"custom_toolset.yaml": "theirs"})
            await subject.caught_up(cluster)
            assert subject.publisher.contest is None
            assert await subject.publish() is Written.UPDATED
        await cluster.edit({"custom_toolset.yaml": "theirs"})
        await subject.caught_up(cluster)
        writes = len(cluster.writes)
        withheld = await subject.withheld()
        assert withheld.reason == "ConfigMapContested"
        assert f"{TARGET}: what is published was changed 3 times in a row by kubectl" in str(withheld)
        assert withheld.retry_in is not None
        assert 0.8 <= withheld.retry_in <= 1.2
        subject.now += withheld.retry_in / 2
        assert (await subject.withheld("two")).retry_in == pytest.approx(withheld.retry_in / 2)
        assert len(cluster.writes) == writes
        subject.now += withheld.retry_in / 2
        assert await subject.publish("two") is Written.UPDATED
        assert "3 times in a row by kubectl" in str(subject.publisher.contest)
        assert subject.publisher.contest_ends_in == QUIET
        assert await subject.publish("three") is Written.UPDATED  # ours stands, so our own change is no part of it
        await cluster.edit({"custom_toolset.yaml": "theirs"})
        await subject.caught_up(cluster)
        assert 1.6 <= ((await subject.withheld("four")).retry_in or 0) <= 2.4
        subject.now += 3
        assert await subject.publish("four") is Written.UPDATED
        subject.now += QUIET
        assert subject.publisher.contest is None
        await cluster.edit({"custom_toolset.yaml": "theirs"})
        await subject.caught_up(cluster)
        assert await subject.publish("four") is Written.UPDATED


async def test_who_keeps_deleting_it_is_withheld_as_well(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
        for _ in range(3):
            await cluster.sandbox.delete("ConfigMap", *TARGET)
            await subject.caught_up(cluster)
            if cluster.requests["patch", "configmaps"] < 3:
                assert await subject.publish() is Written.CREATED
        assert "by somebody who deletes it" in str(await subject.withheld())
        assert cluster.config_map is None


async def test_a_conflict_with_a_fighter_counts_as_a_drift(cluster: Cluster, subject: Published) -> None:
    async def fight(answer: Answer) -> web.StreamResponse:
        await cluster.edit({"custom_toolset.yaml": f"theirs {len(cluster.writes)}"})
        return await answer()

    async with subject.watching():
        await subject.publish()
        for text in ("two", "three"):
            await cluster.edit({"custom_toolset.yaml": "theirs"})
            await subject.caught_up(cluster)
            await subject.publish(text)
        cluster.around = fight
        assert (await subject.withheld("four")).reason == "ConfigMapContested"
    assert len(cluster.writes) == 4


async def test_who_is_always_faster_is_named_though_nothing_of_ours_ever_lands(
    cluster: Cluster, subject: Published
) -> None:
    async def be_faster(answer: Answer) -> web.StreamResponse:
        await cluster.edit({"custom_toolset.yaml": f"theirs {len(cluster.writes)}"})
        return await answer()

    async with subject.watching():
        await subject.publish()
        await cluster.edit({"custom_toolset.yaml": "theirs"})
        await subject.caught_up(cluster)
        cluster.around = be_faster
        withheld = await subject.withheld()
    assert "3 times in a row by kubectl" in str(withheld)
    assert len(cluster.writes) == 3


@pytest.mark.parametrize("told", [True, False], ids=["told", "refused"])
async def test_the_writes_of_another_leader_are_no_contest(cluster: Cluster, subject: Published, told: bool) -> None:
    async with Client(static(cluster.sandbox.url)) as client, subject.watching():
        other = Published(client)
        async with other.watching():
            for number in range(5):
                for one, text in ((subject, f"a {number}"), (other, f"b {number}")):
                    await one.caught_up(cluster)
                    assert await one.publish(text) in (Written.CREATED, Written.UPDATED)
                    if told:
                        one.publisher.stand_down()
                    else:
                        one.permitted = lambda: 0
                        with pytest.raises(NotLeading):
                            await one.publish("while the other leads")
                        one.permitted = lambda: 5
            assert subject.publisher.contest is None


async def test_two_installations_without_a_common_lease_notice_each_other(cluster: Cluster, subject: Published) -> None:
    async with Client(static(cluster.sandbox.url)) as client, subject.watching():
        other = Published(client)
        async with other.watching():
            for one, text in 3 * ((subject, "a"), (other, "b")):
                await one.caught_up(cluster)
                await one.publish(text)
            await subject.caught_up(cluster)
            assert "in a row by another instance of this program" in str(await subject.withheld("a"))


async def test_our_own_writes_whose_answers_are_lost_are_no_contest(cluster: Cluster, subject: Published) -> None:
    async def lose(answer: Answer) -> web.StreamResponse:
        await answer()
        raise status.StatusError(504, "Timeout", "the answer is lost")

    async with subject.watching():
        await subject.publish()
        for number in range(5):
            cluster.around = lose
            with pytest.raises(ServerError):
                await subject.publish(f"lost {number}")
            await subject.caught_up(cluster)
            cluster.around = None
            assert await subject.publish(f"next {number}") is Written.UPDATED
            await subject.caught_up(cluster)
    assert subject.publisher.contest is None


async def test_a_creation_that_fails_again_and_again_is_no_contest(cluster: Cluster, subject: Published) -> None:
    async def refuse(answer: Answer) -> web.StreamResponse:
        raise status.forbidden(SANDBOX_CONFIG_MAPS, TARGET.name, "exceeded quota")

    cluster.around = refuse
    async with subject.watching():
        for _ in range(5):
            with pytest.raises(Forbidden, match="exceeded quota"):
                await subject.publish()


async def test_after_a_takeover_there_is_no_pause(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        await subject.publish()
        for _ in range(2):
            await cluster.edit({"custom_toolset.yaml": "theirs"})
            await subject.caught_up(cluster)
            await subject.publish()
        await cluster.edit({"custom_toolset.yaml": "theirs"})
        await subject.caught_up(cluster)
        await subject.withheld()
        assert await subject.publish(fence="me") is Written.UPDATED


# --- When the watch is behind, or resourceVersions go back -----------------------------------------------------------


async def test_a_watch_that_is_late_is_asked_about_at_most_every_few_seconds(
    cluster: Cluster, subject: Published
) -> None:
    async with subject.watching():
        pass
    await subject.publish()
    subject.now += TRUST / 2
    assert await subject.publish() is Written.NOTHING
    assert ("get", "configmaps") not in cluster.requests
    subject.now += TRUST / 2
    for _ in range(5):
        assert await subject.publish() is Written.NOTHING
    assert cluster.requests["get", "configmaps"] == 1
    assert len(cluster.writes) == 1
    assert subject.publisher.contest is None


async def test_what_happened_while_the_watch_was_late_is_seen(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        pass
    await subject.publish()
    await cluster.edit({"overrides.yaml": "theirs"})
    assert await subject.publish() is Written.NOTHING
    subject.now += TRUST
    assert await subject.publish() is Written.UPDATED
    assert cluster.documents == {"custom_toolset.yaml": "one theirs"}
    await cluster.sandbox.delete("ConfigMap", *TARGET)
    subject.now += TRUST
    assert await subject.publish() is Written.CREATED
    assert cluster.documents == {"custom_toolset.yaml": "one None"}


async def test_while_the_api_cannot_be_asked_nothing_is_written(cluster: Cluster, subject: Published) -> None:
    async with subject.watching():
        pass
    await subject.publish()
    subject.now += TRUST

    async def fail(*_request: Any) -> web.StreamResponse:
        raise status.StatusError(503, "ServiceUnavailable", "etcd is away")

    cluster.sandbox._api._get = fail
    with pytest.raises(ServerError):
        await subject.publish("two")
    assert len(cluster.writes) == 1


@pytest.mark.parametrize("how", ["edited", "deleted"])
async def test_after_etcd_was_restored_the_old_answer_is_not_believed(
    cluster: Cluster, subject: Published, how: str
) -> None:
    """What was listed since counts, though its resourceVersion is older than that of our last write."""
    await cluster.edit({"overrides.yaml": "old"})
    _advance(cluster, 1000)
    async with subject.watching():
        await subject.publish()
        # The event of the write has not been seen yet when etcd goes back.
        subject.reflector.resource_version = "900"
    _advance(cluster, -500)
    if how == "edited":
        await cluster.edit({"overrides.yaml": "restored"})
    else:
        await cluster.sandbox.delete("ConfigMap", *TARGET)
    subject.reflector._must_list = True
    async with subject.watching():
        await until(lambda: subject.reflector.statistics.lists == 2)
        await until(lambda: subject.reflector.resource_version == str(cluster.sandbox._store.revision))
        assert not subject.publisher.is_echo()
        assert subject.publisher.present() is subject.reflector.store.get(TARGET)
        expected = {"edited": (Written.UPDATED, "one restored"), "deleted": (Written.CREATED, "one None")}[how]
        assert await subject.publish() is expected[0]
        assert cluster.documents == {"custom_toolset.yaml": expected[1]}
        assert await subject.publish() is Written.NOTHING
        await cluster.edit({"overrides.yaml": "later"})
        await subject.caught_up(cluster)
        assert await subject.publish() is Written.UPDATED
    assert cluster.requests["get", "configmaps"] <= 1


async def test_a_list_that_is_under_way_is_not_taken_for_news(cluster: Cluster, subject: Published) -> None:
    """It has begun, so the answer is in doubt, but the store is still the old one: the API is asked."""
    async with subject.watching():
        pass
    await subject.publish()
    subject.reflector._lists += 1
    assert await subject.publish() is Written.NOTHING
    assert await subject.publish() is Written.NOTHING
    assert cluster.requests["get", "configmaps"] == 1
    assert len(cluster.writes) == 1


async def test_a_list_that_began_before_the_write_and_ends_after_it_is_older(
    cluster: Cluster, subject: Published
) -> None:
    """The API had read before we wrote, and is slow to say so."""
    ended = asyncio.Event()
    ask = cluster.sandbox._api._list

    async def slow(*request: Any) -> web.StreamResponse:
        answer = await ask(*request)
        listing.set()
        await ended.wait()
        return answer

    listing = asyncio.Event()
    cluster.sandbox._api._list = slow
    task = asyncio.create_task(subject.reflector.run())
    try:
        await listing.wait()
        await subject.publish()
        ended.set()
        await subject.reflector.synced.wait()
        assert await subject.publish() is Written.NOTHING
        await subject.caught_up(cluster)
        assert subject.publisher.is_echo()
        assert await subject.publish() is Written.NOTHING
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert len(cluster.writes) == 1
    assert ("get", "configmaps") not in cluster.requests


def _version(cluster: Cluster) -> int:
    return int((cluster.config_map or {})["metadata"]["resourceVersion"])


def _annotations(cluster: Cluster) -> dict[str, str]:
    return (cluster.config_map or {})["metadata"].get("annotations") or {}


def _advance(cluster: Cluster, by: int) -> None:
    """Let the resourceVersions go on from another number, as those of a restored etcd do."""
    cluster.sandbox._store.revision += by
