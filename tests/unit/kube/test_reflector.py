"""Every row of the fault table, and the gotchas: a reflector against a server that does all of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.kube.answers import WatchEvent
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.objects import ObjectKey, Service
from dynamic_toolset.kube.reflector import (
    BACKOFF_CAP,
    RETRY_AFTER_CAP,
    STALE_AFTER,
    Reflector,
    backoff,
    is_older,
    unchanged,
)
from dynamic_toolset.kube.resources import SERVICES
from tests.unit.kube.fault_server import (
    Answer,
    FaultServer,
    bookmark,
    broken,
    event,
    hanging,
    key,
    listing,
    refusal,
    service,
    status,
    undecodable,
    until,
    watching,
)


class Time:
    """A clock that only the reflector's own waiting moves, so that what it waits can be seen and need not be waited."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delays: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


@asynccontextmanager
async def running(client: Client, time: Time, **options: Any) -> AsyncIterator[Reflector[Service, Service]]:
    options.setdefault("transform", unchanged)
    reflector = Reflector(client, SERVICES, Service, clock=time.clock, sleep=time.sleep, random=lambda: 0.0, **options)
    task = asyncio.create_task(reflector.run())
    try:
        yield reflector
    finally:
        assert not task.done(), "a reflector ends by cancellation only"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def reflector(api: FaultServer, client: Client, time: Time) -> AsyncIterator[Reflector[Service, Service]]:
    """A reflector that has not begun yet when the test scripts the server before its first await."""
    async with running(client, time) as started:
        yield started


def names(reflector: Reflector[Service, Service]) -> set[str]:
    return {known.name for known in reflector.store}


def versions(reflector: Reflector[Service, Service]) -> dict[str, str]:
    return {known.name: item.metadata.resource_version for known, item in reflector.store.items()}


async def synced(reflector: Reflector[Service, Service]) -> None:
    async with asyncio.timeout(10):
        await reflector.synced.wait()


# --- The ordinary course --------------------------------------------------------------------------------------------


async def test_the_store_is_what_the_cluster_holds(api, reflector):
    api.objects = [service("a", 10), service("b", 11)]
    await synced(reflector)
    assert versions(reflector) == {"a": "10", "b": "11"}
    assert reflector.resource_version == "100"
    assert reflector.take_changed() == {key("a"), key("b")}

    watch = await api.watch()
    await watch.send(
        event("ADDED", service("c", 101)), event("MODIFIED", service("a", 102)), event("DELETED", service("b", 103))
    )
    await until(lambda: reflector.resource_version == "103")
    assert versions(reflector) == {"a": "102", "c": "101"}
    assert reflector.take_changed() == {key("a"), key("b"), key("c")}
    assert reflector.take_changed() == set()


async def test_what_it_asks_for(api, client, time):
    api.version = 77
    selected = {"label_selector": "a=b", "field_selector": "metadata.name=c"}
    async with running(client, time, namespace="apps", **selected):
        watch = await api.watch()
    selectors = {"labelSelector": "a=b", "fieldSelector": "metadata.name=c"}
    assert api.queries("LIST") == [{"limit": "500"} | selectors]
    assert 240 <= int(watch.query.pop("timeoutSeconds")) <= 480
    assert watch.query == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "77"} | selectors
    assert {request.path for _, request in api.requests} == {"/api/v1/namespaces/apps/services"}


async def test_the_ends_of_the_watches_are_spread(api, client):
    async def asked(chance: float) -> str:
        reflector = Reflector(client, SERVICES, Service, transform=unchanged, random=lambda: chance)
        task = asyncio.create_task(reflector.run())
        watch = await api.watch()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return watch.query["timeoutSeconds"]

    assert [await asked(chance) for chance in (0.0, 0.5, 0.999)] == ["240", "360", "480"]


async def test_the_first_list_must_be_complete(api, client, time):
    release = asyncio.Event()

    async def later(request):
        await release.wait()
        return await listing([service("b", 2)], 9)(request)

    api.lists += [listing([service("a", 1)], 9, token="more"), later]
    async with running(client, time) as reflector:
        await until(lambda: api.count("LIST") == 2)
        assert not reflector.synced.is_set()
        assert not reflector.store
        release.set()
        await synced(reflector)
        assert names(reflector) == {"a", "b"}


async def test_a_change_is_told_once_it_is_in_the_store(api, client, time):
    told: list[set[ObjectKey]] = []
    api.objects = [service("a", 10)]
    async with running(client, time, on_change=lambda: told.append(set(reflector.store))) as reflector:
        watch = await api.watch()
        await watch.send(event("ADDED", service("b", 101)), bookmark(102), event("DELETED", service("a", 103)))
        await until(lambda: reflector.resource_version == "103")
    assert told == [{key("a")}, {key("a"), key("b")}, {key("b")}]


async def test_objects_are_transformed_before_they_are_stored(api, client, time):
    def without_annotations(item: Service) -> Service:
        return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, annotations=None))

    api.objects = [service("a", 10, big="x")]
    async with running(client, time, transform=without_annotations) as reflector:
        watch = await api.watch()
        await watch.send(event("ADDED", service("b", 101, big="x")))
        await until(lambda: len(reflector.store) == 2)
        assert {item.metadata.annotations for item in reflector.store.values()} == {None}


@pytest.mark.parametrize("when", ["during a watch", "during a list", "during a pause", "twice at once"])
async def test_what_is_transformed_otherwise_now_is_listed_again(api, client, time, when):
    api.objects = [service("a", 10), service("b", 11)]
    accepted = {"a"}

    def marked(item: Service) -> Service:
        labels = {"accepted": str(item.metadata.name in accepted)}
        return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, labels=labels))

    def shown() -> set[str]:
        return {known.name for known, item in reflector.store.items() if item.metadata.labels == {"accepted": "True"}}

    async with running(client, time, transform=marked) as reflector:
        if when == "during a list":
            began, going_on = asyncio.Event(), asyncio.Event()

            async def slow(request: web.Request) -> web.StreamResponse:
                began.set()
                await going_on.wait()
                return await listing(api.objects, 100)(request)

            api.lists.append(slow)
            await began.wait()
        elif when == "during a pause":
            pausing = asyncio.Event()

            async def for_ever(_seconds: float) -> None:
                pausing.set()
                await asyncio.Event().wait()

            reflector._sleep = for_ever
            api.watches.append(refusal(500, "InternalError"))
            await pausing.wait()
        else:
            await synced(reflector)
            await api.watch()
        accepted.add("b")
        reflector.relist()
        if when == "twice at once":
            reflector.relist()
        await until(lambda: shown() == {"a", "b"})
        await api.watch()
        if when == "during a list":
            going_on.set()


def after(time: Time, seconds: float, then: Answer) -> Answer:
    """An answer that takes so long."""

    async def respond(request: web.Request) -> web.StreamResponse:
        time.now += seconds
        return await then(request)

    return respond


async def test_a_list_that_makes_progress_is_not_late_however_slow_it_is(api, client, time):
    last = asyncio.Event()

    async def end(request: web.Request) -> web.StreamResponse:
        await last.wait()
        return await listing([], 9)(request)

    pages = [after(time, 100, listing([service(name, 1)], 9, token=name)) for name in "abcd"]
    api.lists += [*pages, end]
    async with running(client, time) as reflector:
        await until(lambda: len(api.requests) == 5)
        assert (time.now, reflector.pulse.late) == (400, 0)
        last.set()
        await synced(reflector)
        assert names(reflector) == set("abcd")


async def test_a_list_without_an_end_is_given_up_and_what_was_known_stays(api, client, time):
    api.objects = [service("a", 10)]
    async with running(client, time) as reflector:
        await synced(reflector)
        api.lists += [after(time, 100, listing([service("b", 1)], 9, token="more"))] * 20
        reflector.relist()
        assert "no end after 900 s" in await until(lambda: reflector.statistics.last_error)
        assert names(reflector) == {"a"}


async def test_one_that_has_ended_can_be_told_to_list_again(api, client, time):
    """Whoever wants a full look need not know that the service is about to end, or that another one takes over."""
    async with running(client, time) as reflector:
        await api.watch()
    reflector.relist()


def test_the_store_is_read_only():
    reflector = Reflector(Client(static("http://127.0.0.1")), SERVICES, Service, transform=unchanged)
    with pytest.raises(TypeError):
        reflector.store[key("a")] = None


# --- The fault table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_watch_that_ends_is_resumed(api, reflector, how):
    first = await api.watch()
    await first.send(event("ADDED", service("a", 101)))
    await until(lambda: reflector.store)
    getattr(first, how)()
    second = await api.watch()
    assert second.query["resourceVersion"] == "101"
    await second.send(event("ADDED", service("b", 102)))
    await until(lambda: names(reflector) == {"a", "b"})
    assert api.count("LIST") == 1


async def test_an_orderly_end_is_no_failure(api, reflector, time):
    for version in (101, 102, 103):
        watch = await api.watch()
        await watch.send(bookmark(version))
        await until(lambda version=version: reflector.resource_version == str(version))
        time.now += STALE_AFTER - 1
        watch.end()
    await api.watch()
    assert time.delays == []
    assert reflector.statistics.last_error is None
    assert api.count("LIST") == 1


async def test_a_server_that_was_down_is_found_again(api, reflector, time):
    api.objects = [service("a", 10)]
    await api.watch()
    await api.stop()
    await until(lambda: len(time.delays) > 5)
    assert names(reflector) == {"a"}
    assert reflector.statistics.consecutive_failures > 3
    assert "/api/v1/services" in (reflector.statistics.last_error or "")
    await api.start()
    watch = await api.watch()
    await watch.send(event("ADDED", service("b", 101)))
    await until(lambda: names(reflector) == {"a", "b"})


@pytest.mark.parametrize(
    "gone",
    [
        refusal(410, "Expired", "too old resource version"),
        watching(event("ERROR", status(410, "Expired", "too old resource version"))),
    ],
)
async def test_an_expired_version_leads_to_a_list(api, client, time, gone):
    api.objects = [service("kept", 10), service("deleted", 11), service("changed", 12)]
    api.watches.append(gone)

    async def fresh(request):
        api.objects = [service("kept", 10), service("changed", 150), service("new", 151)]
        return await listing(api.objects, 200)(request)

    api.lists += [listing(api.objects, 100), fresh]
    async with running(client, time) as reflector:
        await synced(reflector)
        reflector.take_changed()
        watch = await api.watch()
        assert watch.query["resourceVersion"] == "200"
        assert versions(reflector) == {"kept": "10", "changed": "150", "new": "151"}
        assert reflector.take_changed() == {key("deleted"), key("changed"), key("new")}
        assert api.count("LIST") == 2


async def test_a_list_of_what_is_known_changes_nothing(api, client, time):
    told = []
    api.objects = [service("a", 10), undecodable("b", 11)]
    api.watches.append(refusal(410, "Expired"))
    async with running(client, time, on_change=lambda: told.append(1)) as reflector:
        await synced(reflector)
        stored = reflector.store[key("a")]
        await api.watch()
        assert reflector.store[key("a")] is stored
        assert (api.count("LIST"), len(told)) == (2, 1)


async def test_a_version_that_is_always_expired_is_no_hot_loop(api, client, time):
    api.watches += [refusal(410, "Expired")] * 20
    async with running(client, time):
        await until(lambda: len(time.delays) >= 15)
    assert slows_down(time.delays[:15])
    assert all(query["resourceVersion"] for query in api.queries("WATCH"))


@pytest.mark.parametrize(
    "failing",
    [
        refusal(500, "InternalError"),
        refusal(401, "Unauthorized"),
        refusal(503, "ServiceUnavailable"),
        broken,
        watching(event("ERROR", status(500, "InternalError"))),
    ],
)
async def test_a_failing_watch_is_tried_again_from_where_it_was(api, client, time, failing):
    api.objects = [service("a", 10)]
    api.watches += [failing, failing]
    async with running(client, time) as reflector:
        watch = await api.watch()
        await watch.send(event("ADDED", service("b", 101)))
        await until(lambda: names(reflector) == {"a", "b"})
    assert {query["resourceVersion"] for query in api.queries("WATCH")} == {"100"}
    assert api.count("LIST") == 1


@pytest.mark.parametrize(
    "refused",
    [
        refusal(400, "BadRequest", "invalid resource version"),
        watching(event("ADDED", service("b", 101)), b'{"type": garbage}\n'),
    ],
)
async def test_a_watch_that_cannot_go_on_begins_anew(api, client, time, refused):
    api.watches.append(refused)
    async with running(client, time):
        await api.watch()
    assert api.count("LIST") == 2


async def silent(request):
    """A watch that is accepted and never says anything: what a real API makes of a version from the future."""
    response = web.StreamResponse()
    await response.prepare(request)
    return await hanging(request)


@pytest.mark.parametrize(
    "ignorant", [refusal(504, "Timeout", "Too large resource version: 900, current: 60"), hanging, silent]
)
async def test_a_version_from_the_future_is_given_up(api, time, ignorant):
    """An etcd restored from a backup: its versions may not catch up for months."""
    api.lists += [listing([service("a", 900)], 900), listing([service("a", 50)], 60)]
    api.watches += [ignorant] * 9  # what there is time for until the store counts as stale
    # No shorter than needed: the lists, and the watch that comes of them, have no more time either.
    patience = {hanging: {"timeout": 0.5}, silent: {"silence": 0.5}}.get(ignorant, {})
    async with Client(static(api.url), **patience) as client, running(client, time) as reflector:
        watch = await api.watch()
        assert watch.query["resourceVersion"] == "60"
        assert reflector.resource_version == "60"
        await watch.send(event("MODIFIED", service("a", 61)))
        await until(lambda: versions(reflector) == {"a": "61"})


async def test_where_watching_is_impossible_lists_keep_the_store_true(api, client, time):
    api.watches += [refusal(403, "Forbidden")] * 1000
    async with running(client, time) as reflector:
        await synced(reflector)
        api.objects = [service("a", 101)]
        await until(lambda: names(reflector) == {"a"})
        assert api.count("LIST") <= time.now / STALE_AFTER + 1


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0", 0.2), ("99999999", RETRY_AFTER_CAP)])
@pytest.mark.parametrize("which", ["lists", "watches"])
async def test_retry_after_is_honoured(api, client, time, asked, waited, which):
    getattr(api, which).append(refusal(429, "TooManyRequests", headers={"Retry-After": asked}))
    async with running(client, time):
        await api.watch()
    assert time.delays == [waited]


async def test_a_bookmark_moves_the_place_to_resume_from(api, reflector):
    first = await api.watch()
    await first.send(bookmark(500))
    await until(lambda: reflector.resource_version == "500")
    first.reset()
    assert (await api.watch()).query["resourceVersion"] == "500"
    assert reflector.take_changed() == set()
    assert reflector.statistics.bookmarks == 1


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029", "\x1c"])
async def test_separators_inside_of_a_string_are_text(api, reflector, separator):
    watch = await api.watch()
    await watch.send(event("ADDED", service("a", 101, note=f"one{separator}two")))
    await until(lambda: reflector.store)
    assert reflector.store[key("a")].metadata.annotations == {"note": f"one{separator}two"}


async def test_an_event_may_be_of_any_length(api, reflector):
    watch = await api.watch()
    await watch.send(event("ADDED", service("a", 101, note="x" * 5_000_000)), event("ADDED", service("b", 102)))
    await until(lambda: names(reflector) == {"a", "b"})
    assert len(reflector.store[key("a")].metadata.annotations["note"]) == 5_000_000


async def test_a_line_that_was_cut_is_asked_for_again(api, reflector):
    line = event("MODIFIED", service("a", 102))
    for how in ("end", "reset"):
        watch = await api.watch()
        await watch.send(event("ADDED", service("a", 101)), line[:60])
        await until(lambda: reflector.store)
        getattr(watch, how)()
    watch = await api.watch()
    assert watch.query["resourceVersion"] == "101"
    assert versions(reflector) == {"a": "101"}
    await watch.send(line)
    await until(lambda: versions(reflector) == {"a": "102"})
    assert api.count("LIST") == 1


@pytest.mark.parametrize("useless", [watching(), refusal(403, "Forbidden"), refusal(500, "InternalError"), broken])
async def test_a_watch_that_never_works_is_no_hot_loop(api, client, time, useless):
    api.objects = [service("a", 10)]
    api.watches += [useless] * 100
    async with running(client, time) as reflector:
        await until(lambda: len(time.delays) >= 12)
        assert names(reflector) == {"a"}
        assert reflector.statistics.last_error
    assert slows_down(time.delays[:12])


async def test_a_watch_that_ends_after_each_event_is_slowed_down(api, client, time):
    api.watches += [watching(event("MODIFIED", service("a", 101 + number))) for number in range(5)]
    async with running(client, time) as reflector:
        await until(lambda: versions(reflector) == {"a": "105"} and len(time.delays) == 5)
    assert min(time.delays) >= 0.1
    assert max(time.delays) <= 0.2


@pytest.mark.parametrize("useless", [refusal(403, "Forbidden", "may not list"), broken])
async def test_a_list_that_never_works_is_no_hot_loop(api, client, time, useless):
    api.lists += [useless] * 100
    async with running(client, time) as reflector:
        await until(lambda: len(time.delays) >= 12)
        assert not reflector.synced.is_set()
        assert reflector.statistics.watches == 0
        assert reflector.statistics.consecutive_failures >= 12
    assert slows_down(time.delays[:12])


async def test_a_stream_that_went_silent_is_noticed(api, time):
    async with Client(static(api.url), silence=1.0) as client, running(client, time) as reflector:
        await api.watch()
        watch = await api.watch()
        await watch.send(event("ADDED", service("a", 101)))
        await until(lambda: reflector.store)


async def test_a_silent_list_is_noticed(api, time):
    api.lists.append(hanging)
    async with Client(static(api.url), timeout=0.2) as client, running(client, time) as reflector:
        await synced(reflector)


def slows_down(delays: list[float]) -> bool:
    return all(b >= a for a, b in pairwise(delays)) and delays[0] >= 0.1 and delays[-1] == BACKOFF_CAP


# --- Stale beats partial --------------------------------------------------------------------------------------------


async def test_a_list_that_breaks_off_takes_nothing_away(api, client, time):
    api.objects = [service("a", 10), service("b", 11)]
    api.watches.append(refusal(410, "Expired"))
    not_lists = [refusal(500, "InternalError"), broken, refusal(403, "Forbidden"), watching(b"{}")]
    api.lists += [listing(api.objects, 100), listing([], 200, token="more"), *not_lists]
    seen: list[set[str]] = []
    async with running(client, time, on_change=lambda: seen.append(names(reflector))) as reflector:
        await api.watch()
        assert not api.lists, "every one of them was met"
        assert seen == [{"a", "b"}]
        assert names(reflector) == {"a", "b"}


async def test_a_list_that_expires_half_way_begins_again(api, client, time):
    api.lists += [
        listing([service("gone", 1), undecodable("gone-too", 2)], 9, token="old"),
        refusal(410, "Expired"),
        listing([service("a", 3)], 12),
    ]
    async with running(client, time) as reflector:
        watch = await api.watch()
        assert watch.query["resourceVersion"] == "12"
        assert (names(reflector), dict(reflector.skipped)) == ({"a"}, {})
    assert "limit" not in api.queries("LIST")[-1]


# --- Objects that cannot be decoded ---------------------------------------------------------------------------------


async def test_an_undecodable_object_harms_only_itself(api, reflector):
    api.objects = [service("a", 10), undecodable("b", 11)]
    watch = await api.watch()
    assert names(reflector) == {"a"}
    assert "port" in reflector.skipped[key("b")]
    assert reflector.take_changed() == {key("a"), key("b")}

    await watch.send(event("MODIFIED", service("b", 101)), event("MODIFIED", undecodable("a", 102)))
    await until(lambda: reflector.resource_version == "102")
    assert versions(reflector) == {"a": "10", "b": "101"}
    assert set(reflector.skipped) == {key("a")}
    assert reflector.take_changed() == {key("a"), key("b")}

    await watch.send(event("DELETED", undecodable("a", 103)), event("ADDED", undecodable("c", 104)))
    await until(lambda: reflector.resource_version == "104")
    assert names(reflector) == {"b"}
    await watch.send(event("DELETED", undecodable("c", 105)))
    await until(lambda: reflector.resource_version == "105")
    assert not reflector.skipped
    assert reflector.take_changed() == {key("a"), key("c")}


async def test_a_list_keeps_the_last_good_version_and_forgets_what_is_over(api, client, time):
    api.watches.append(refusal(410, "Expired"))
    api.lists += [
        listing([service("a", 10), undecodable("b", 11), undecodable("c", 12)], 100),
        listing([undecodable("a", 101), service("b", 102)], 200),
        listing([service("a", 201)], 300),
    ]
    async with running(client, time) as reflector:
        watch = await api.watch()
        assert versions(reflector) == {"a": "10", "b": "102"}
        assert set(reflector.skipped) == {key("a")}
        await watch.send(event("ERROR", status(410, "Expired")))
        await until(lambda: reflector.resource_version == "300")
        assert versions(reflector) == {"a": "201"}
        assert not reflector.skipped


async def test_an_object_without_a_name_is_told_too(api, reflector):
    api.objects = [{"spec": {}}]
    watch = await api.watch()
    assert set(reflector.skipped) == {ObjectKey("", "")}
    await watch.send(event("DELETED", {"spec": {}}), event("ADDED", service("a", 101)))
    await until(lambda: names(reflector) == {"a"})


# --- Order ----------------------------------------------------------------------------------------------------------


async def test_events_from_before_the_list_raise_no_dead(api, reflector):
    api.objects = [service("a", 90)]
    watch = await api.watch()
    reflector.take_changed()
    await watch.send(
        event("ADDED", service("dead", 50)),
        event("MODIFIED", service("a", 80)),
        event("DELETED", service("a", 85)),
        event("MODIFIED", service("a", 90)),
        event("ADDED", undecodable("dead", 51)),
        event("ADDED", service("b", 101)),
    )
    await until(lambda: "b" in names(reflector))
    assert versions(reflector) == {"a": "90", "b": "101"}
    assert reflector.take_changed() == {key("b")}
    assert not reflector.skipped
    assert reflector.statistics.events == 6


async def test_events_from_before_a_resumption_raise_no_dead(api, reflector):
    first = await api.watch()
    await first.send(event("ADDED", service("a", 101)), event("DELETED", service("a", 105)))
    await until(lambda: reflector.resource_version == "105")
    first.end()
    second = await api.watch()
    await second.send(
        event("MODIFIED", service("a", 104)), event("ADDED", service("b", 103)), event("ADDED", service("c", 106))
    )
    await until(lambda: reflector.resource_version == "106")
    assert names(reflector) == {"c"}


async def test_deletions_out_of_order_raise_no_dead(api, reflector):
    watch = await api.watch()
    await watch.send(
        event("DELETED", service("a", 104)),
        event("DELETED", service("a", 102)),
        event("ADDED", service("a", 103)),
        event("ADDED", service("b", 105)),
    )
    await until(lambda: reflector.resource_version == "105")
    assert names(reflector) == {"b"}


async def test_a_kind_of_event_that_is_not_known_is_left_alone(api, reflector):
    api.objects = [service("a", 90)]
    watch = await api.watch()
    await watch.send(event("SOMETHING", {"metadata": {"resourceVersion": "101"}}), event("ADDED", service("b", 102)))
    await until(lambda: "b" in names(reflector))
    assert names(reflector) == {"a", "b"}
    assert not reflector.skipped


async def test_versions_that_are_no_numbers_are_taken_as_they_come(api, reflector):
    api.objects = [service("a", "z9")]
    watch = await api.watch()
    await watch.send(event("MODIFIED", service("a", "b1")), event("DELETED", service("c", "a0")))
    await until(lambda: reflector.resource_version == "a0")
    assert versions(reflector) == {"a": "b1"}


@st.composite
def histories(draw: Callable[..., Any]) -> tuple[list[bytes], dict[str, str]]:
    """What happened to a few objects, delivered in any order with any repetition, and what is left of them."""
    events: list[bytes] = []
    left: dict[str, str] = {}
    for version in range(101, 101 + draw(st.integers(0, 12))):
        name = draw(st.sampled_from("abc"))
        if name in left and draw(st.booleans()):
            events.append(event("DELETED", service(name, version)))
            del left[name]
        else:
            events.append(event("MODIFIED" if name in left else "ADDED", service(name, version)))
            left[name] = str(version)
    repeated = draw(st.lists(st.sampled_from(events))) if events else []
    return draw(st.permutations(events + repeated)), left


@given(histories())
def test_duplicates_and_disorder_do_no_harm(history):
    delivered, left = history
    reflector = Reflector(Client(static("http://127.0.0.1")), SERVICES, Service, transform=unchanged)
    reflector._floor = "100"
    for line in delivered:
        reflector._take(msgspec.json.decode(line, type=WatchEvent))
    assert versions(reflector) == left


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_numbers_compare_as_numbers(a, b):
    assert is_older(str(a), str(b)) == (a < b)


@pytest.mark.parametrize(("version", "than"), [("", "5"), ("5", ""), ("5", "abc"), ("abc", "abd"), ("-5", "5")])
def test_of_anything_else_nothing_is_said(version, than):
    assert not is_older(version, than)


# --- What it tells of itself ----------------------------------------------------------------------------------------


async def test_statistics(api, reflector, time):
    api.watches.append(refusal(500, "InternalError", "etcd is away"))
    watch = await api.watch()
    before = reflector.statistics
    assert (before.lists, before.watches, before.events, before.bookmarks) == (1, 2, 0, 0)
    assert (before.consecutive_failures, before.last_error) == (1, "500 InternalError: etcd is away")
    await watch.send(bookmark(101), event("ADDED", service("a", 102)))
    await until(lambda: reflector.store)
    assert reflector.statistics.last_error is not None
    heard = time.now
    time.now += 2
    after = reflector.statistics
    assert (after.consecutive_failures, after.last_error) == (0, None)
    assert (after.events, after.bookmarks, after.last_heard) == (1, 1, heard)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_to_its_cap(failures, chance):
    assert 0.1 <= backoff(failures, chance) <= BACKOFF_CAP
    assert backoff(failures, chance) <= backoff(failures + 1, chance)


def test_backoff_is_jittered():
    assert backoff(3, 0.0) == 0.8
    assert backoff(3, 0.5) == pytest.approx(0.6)


async def test_ten_thousand_events_arrive(api, reflector):
    watch = await api.watch()
    await watch.send(*(event("MODIFIED", service(f"s{number % 100}", 101 + number)) for number in range(10_000)))
    await until(lambda: reflector.statistics.events == 10_000)
    assert len(reflector.store) == 100
    assert reflector.resource_version == "10100"
