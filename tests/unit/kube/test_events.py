# ruff: noqa: A001, A002 - `type` is the word of the client and of the API
"""The recorder of Events, in virtual time: an hour of flapping takes milliseconds."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.kube import events
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import ConnectionFailed, api_error
from dynamic_toolset.kube.events import ATTEMPTS, FOR_WARNINGS, MAX_QUEUED, Limit, Recorder, one_line
from dynamic_toolset.kube.objects import Event, ObjectKey, ObjectReference
from dynamic_toolset.kube.resources import EVENTS
from tests.unit.kube.fault_server import FaultServer, answer, status
from tests.virtual_time import virtual_time

START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
LOKI = ObjectReference("v1", "Service", "loki", "shop", "uid-1", "7")
TEMPO = ObjectReference("v1", "Service", "tempo", "shop", "uid-2", "8")


class Api:
    """The API as the recorder sees it: what arrived when, and the Events that are there. ``fails`` may raise."""

    def __init__(self) -> None:
        self.requests: list[tuple[float, str]] = []
        self.events: dict[ObjectKey, dict[str, Any]] = {}
        self.fails: Callable[[str, str], None] = lambda _verb, _namespace: None
        self.lost = 0
        """So many answers get lost though the request was carried out."""
        self.takes = 0.0

    async def create(self, resource: Any, namespace: str, body: dict[str, Any], type: Any) -> None:
        assert resource == EVENTS
        await self._ask("create", namespace)
        event = msgspec.convert(body, Event)
        assert event.metadata.namespace == namespace
        if event.metadata.key in self.events:
            raise api_error(409, "AlreadyExists", "it exists")
        self.events[event.metadata.key] = json.loads(json.dumps(body))
        self._lose()

    async def patch(self, resource: Any, key: ObjectKey, body: dict[str, Any], type: Any) -> None:
        assert resource == EVENTS
        await self._ask("patch", key.namespace)
        if key not in self.events:
            raise api_error(404, "NotFound", "it is not there")
        self.events[key] |= body
        self._lose()

    async def _ask(self, verb: str, namespace: str) -> None:
        self.requests.append((asyncio.get_running_loop().time(), verb))
        await asyncio.sleep(self.takes)
        self.fails(verb, namespace)

    def _lose(self) -> None:
        if self.lost:
            self.lost -= 1
            raise ConnectionFailed("the answer was lost")

    @property
    def verbs(self) -> list[str]:
        return [verb for _, verb in self.requests]

    @property
    def counts(self) -> dict[str, int]:
        """How often each note was seen, as the API knows."""
        return {one["note"]: one.get("series", {"count": 1})["count"] for one in self.events.values()}


class Subject:
    """A recorder at work."""

    def __init__(self, api: Api, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.outcomes: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.recorder = Recorder(
            api,  # type: ignore[arg-type]
            "example.com/watcher",
            "watcher-0",
            on_outcome=self._note,
            clock=loop.time,
            now=lambda: START + timedelta(seconds=loop.time()),
            random=lambda: 0.0,
            **options,
        )
        self.task = asyncio.create_task(self.recorder.run())

    def _note(self, reason: str, outcome: str, error: str) -> None:
        self.outcomes.append((reason, outcome))
        self.errors += [error] if error else []

    def tell(
        self, note: str = "so it is", *, about: ObjectReference = LOKI, reason: str = "Moved", type: str = "Normal"
    ) -> None:
        self.recorder.record(about, type, reason, "Move", note)  # type: ignore[arg-type]

    def count(self, outcome: str) -> int:
        return sum(one == outcome for _, one in self.outcomes)


@asynccontextmanager
async def recording(api: Api, **options: Any) -> AsyncIterator[Subject]:
    subject = Subject(api, **options)
    yield subject
    subject.recorder.stop()
    await subject.task


@virtual_time
async def test_what_is_written() -> None:
    api = Api()
    async with recording(api) as subject:
        await asyncio.sleep(2.5)
        subject.recorder.record(LOKI, "Warning", "Moved", "Move", "from a\nto b", TEMPO)
        await asyncio.sleep(1)
    (event,) = api.events.values()
    name = event["metadata"].pop("name")
    assert name == f"loki.{int((START + timedelta(seconds=2.5)).timestamp() * 1e9):x}"
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "shop"},
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "shop",
            "name": "loki",
            "uid": "uid-1",
            "resourceVersion": "7",
        },
        "related": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "shop",
            "name": "tempo",
            "uid": "uid-2",
            "resourceVersion": "8",
        },
        "type": "Warning",
        "reason": "Moved",
        "action": "Move",
        "note": "from a to b",
        "eventTime": "2026-03-01T09:30:02.500000Z",
        "reportingController": "example.com/watcher",
        "reportingInstance": "watcher-0",
    }


@virtual_time
async def test_an_event_on_what_has_no_namespace_is_in_default() -> None:
    api = Api()
    async with recording(api) as subject:
        subject.tell(about=ObjectReference("v1", "Node", "n1"))
        await asyncio.sleep(1)
    assert [key.namespace for key in api.events] == ["default"]


@virtual_time
@pytest.mark.parametrize("name", ["system:node", "a" * 253, "Upper", "-x", ""])
async def test_whatever_it_is_about_its_event_has_a_name_that_can_be(name: str) -> None:
    api = Api()
    async with recording(api) as subject:
        for note in "ab":  # in the same microsecond
            subject.tell(note, about=ObjectReference("v1", "Role", name, "shop"))
        await asyncio.sleep(1)
    assert len(api.events) == 2
    for key in api.events:
        assert len(key.name) <= 253
        assert set(key.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


# --- Series -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_what_happens_again_is_counted_in_the_event_that_is_there() -> None:
    api = Api()
    async with recording(api) as subject:
        subject.tell()
        await asyncio.sleep(60)
        subject.tell(about=msgspec.structs.replace(LOKI, resource_version="9"))
        await asyncio.sleep(1)
        assert api.verbs == ["create", "patch"]
        (event,) = api.events.values()
        assert event["series"] == {"count": 2, "lastObservedTime": "2026-03-01T09:31:00.000000Z"}
        assert event["eventTime"] == "2026-03-01T09:30:00.000000Z"
    assert subject.outcomes == [("Moved", "created"), ("Moved", "counted")]


@virtual_time
async def test_what_happens_at_once_several_times_is_one_request() -> None:
    api = Api()
    async with recording(api) as subject:
        for _ in range(5):
            subject.tell()
        await asyncio.sleep(1)
    assert api.verbs == ["create"]
    assert api.counts == {"so it is": 5}


@virtual_time
async def test_counts_are_written_after_pauses_that_double_to_five_minutes() -> None:
    api = Api()
    async with recording(api) as subject:
        for _ in range(3600):
            subject.tell()
            await asyncio.sleep(1)
        times = [time for time, verb in api.requests if verb == "patch"]
        assert [round(b - a) for a, b in pairwise(times)] == [5, 10, 20, 40, 80, 160, *[300] * 10]
    assert api.counts == {"so it is": 3600}  # the last word is written at the end
    assert subject.count("counted") == 3599


@virtual_time
@pytest.mark.parametrize(("pause", "found"), [(359, 1), (361, 2)])
async def test_a_series_is_over_after_six_minutes_without(pause: float, found: int) -> None:
    api = Api()
    async with recording(api) as subject:
        subject.tell()
        await asyncio.sleep(pause)
        subject.tell()
        await asyncio.sleep(1)
    assert len(api.events) == found


@virtual_time
@pytest.mark.parametrize(
    "other",
    [
        {"note": "another"},
        {"about": TEMPO},
        {"about": msgspec.structs.replace(LOKI, uid="uid-of-the-next")},
        {"reason": "Gone"},
        {"type": "Warning"},
    ],
)
async def test_what_differs_is_another_event(other: dict[str, Any]) -> None:
    api = Api()
    async with recording(api) as subject:
        subject.tell()
        subject.tell(**other)
        await asyncio.sleep(1)
    assert api.verbs == ["create", "create"]


@virtual_time
async def test_a_count_that_is_still_owed_when_it_happens_again_is_not_lost() -> None:
    """Its object has no more to spend: the series goes on though it would be over."""
    api = Api()
    async with recording(api, per_object=Limit(FOR_WARNINGS + 1, 1000.0)) as subject:
        subject.tell()
        subject.tell(about=TEMPO)
        await asyncio.sleep(1)
        subject.tell()
        await asyncio.sleep(500)
        assert api.counts == {"so it is": 1}
        subject.tell()
        await asyncio.sleep(600)
        assert sorted(one.get("series", {}).get("count", 1) for one in api.events.values()) == [1, 3]


@virtual_time
async def test_an_event_that_was_deleted_is_created_anew_with_its_count() -> None:
    api = Api()
    async with recording(api) as subject:
        subject.tell()
        await asyncio.sleep(1)
        api.events.clear()
        subject.tell()
        await asyncio.sleep(1)
        assert api.verbs == ["create", "patch", "create"]
        subject.tell()
        await asyncio.sleep(10)
    assert api.counts == {"so it is": 3}


# --- Limits -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_of_one_object_there_are_so_many_events_and_then_one_in_five_minutes() -> None:
    api = Api()
    async with recording(api) as subject:
        for number in range(100):
            subject.tell(f"note {number}", type="Warning")
        subject.tell(about=TEMPO)
        await asyncio.sleep(10)
        assert subject.count("limited") == 75
        assert len(api.events) == 26  # the other object has its own
        for number in range(3600):
            subject.tell(f"later {number}", type="Warning")
            await asyncio.sleep(1)
    assert 26 + 11 <= len(api.events) <= 26 + 12


@virtual_time
async def test_the_last_few_of_an_object_are_for_new_warnings() -> None:
    api = Api()
    async with recording(api) as subject:
        for number in range(100):
            subject.tell(f"note {number}")
            await asyncio.sleep(0.1)
        assert len(api.events) == 25 - FOR_WARNINGS
        subject.tell("note 0")
        await asyncio.sleep(60)
        assert "patch" not in api.verbs
        subject.tell("it burns", type="Warning")
        await asyncio.sleep(1)
        assert "it burns" in api.counts
        await asyncio.sleep(600)
        assert api.counts["note 0"] == 2  # when there is something to spend again


@virtual_time
async def test_in_all_there_are_so_many_at_once_and_then_ten_a_second() -> None:
    api = Api()
    async with recording(api) as subject:
        for number in range(500):
            subject.tell(about=ObjectReference("v1", "Service", f"s{number}", "shop"))
        await asyncio.sleep(1)
        assert len(api.events) == pytest.approx(110, abs=1)
        await asyncio.sleep(39.5)
        assert len(api.events) == 500


@virtual_time
async def test_more_than_the_queue_holds_is_dropped_and_said() -> None:
    api = Api()
    async with recording(api) as subject:
        for number in range(MAX_QUEUED + 50):
            subject.tell(about=ObjectReference("v1", "Service", f"s{number}", "shop"))
        assert subject.count("overflow") == 50
        await asyncio.sleep(200)
        assert len(api.events) == MAX_QUEUED
        subject.tell(about=TEMPO)
        await asyncio.sleep(1)
        assert len(api.events) == MAX_QUEUED + 1


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # the object
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(["Normal", "Warning"]),
        st.sampled_from([0.0, 0.0, 0.01, 1.0, 7.0, 200.0, 400.0]),  # the pause afterwards
        st.sampled_from([None, None, None, 403, 404, 409, 422, 429, 503]),  # what the API says from now on
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, at_once=st.integers(1, 8), every=st.sampled_from([1.0, 20.0]))
def test_whatever_is_recorded_there_are_no_more_requests_than_the_limits_allow(
    steps: list[tuple[int, str, str, float, int | None]], at_once: int, every: float
) -> None:
    per_object, in_all = Limit(FOR_WARNINGS + 2, 50.0), Limit(at_once, every)

    @virtual_time
    async def run() -> None:
        api, loop = Api(), asyncio.get_running_loop()
        async with recording(api, per_object=per_object, in_all=in_all) as subject:
            for number, note, type, pause, code in steps:

                def fail(_verb: str, _namespace: str, code: int | None = code) -> None:
                    if code is not None:
                        raise api_error(code, "No", "no")

                api.fails = fail
                about = ObjectReference("v1", "Service", f"s{number}", "shop")
                subject.recorder.record(about, type, "Moved", "Move", note)  # type: ignore[arg-type]
                await asyncio.sleep(pause)
            api.fails = lambda _verb, _namespace: None
        assert len(subject.recorder._waiting) <= len(subject.recorder._series) <= len(steps)
        times = [time for time, _ in api.requests]
        for i, begin in enumerate(times):
            for j in range(i, len(times)):
                assert j - i + 1 <= at_once + (times[j] - begin) / every + 1e-3
        objects = {number for number, *_ in steps}
        writes = len(objects) * (per_object.at_once + loop.time() / per_object.every)
        assert len(times) <= ATTEMPTS * writes
        known = {"created", "counted", "limited", "overflow", "forbidden", "failed"}
        assert {outcome for _, outcome in subject.outcomes} <= known

    run()


# --- Failures ---------------------------------------------------------------------------------------------------------


def refuse(code: int, reason: str = "No", *, times: int = 10**9, causes: tuple[str, ...] = ()) -> Callable[..., None]:
    left = times

    def fail(*_: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise api_error(code, reason, "no", None, causes)

    return fail


@virtual_time
@pytest.mark.parametrize("code", [401, 429, 500, 503])
async def test_what_may_pass_is_tried_three_times(code: int) -> None:
    api = Api()
    async with recording(api) as subject:
        api.fails = refuse(code, times=2)
        subject.tell()
        await asyncio.sleep(10)
        assert api.counts == {"so it is": 1}
        assert [time for time, _ in api.requests] == [0, 1, 3]
        api.fails = refuse(code)
        subject.tell("another")
        await asyncio.sleep(10)
        assert api.verbs == ["create"] * 6
        assert subject.outcomes[-1] == ("Moved", "failed")
        api.fails = refuse(code, times=0)
        subject.tell("another")  # what was dropped is new when it happens again
        await asyncio.sleep(10)
    assert api.counts == {"so it is": 1, "another": 1}


@virtual_time
async def test_when_the_api_asks_for_patience_it_gets_it() -> None:
    api = Api()

    def fail(*_: object) -> None:
        if len(api.requests) == 1:
            raise api_error(429, "TooManyRequests", "later", 12.0)

    async with recording(api) as subject:
        api.fails = fail
        subject.tell()
        await asyncio.sleep(20)
    assert [time for time, _ in api.requests] == [0, 12]


@virtual_time
@pytest.mark.parametrize("code", [400, 404, 413, 422])
async def test_what_cannot_pass_is_tried_once(code: int) -> None:
    api = Api()
    async with recording(api) as subject:
        api.fails = refuse(code)
        subject.tell()
        await asyncio.sleep(10)
    assert api.verbs == ["create"]
    assert subject.outcomes == [("Moved", "failed")]


@virtual_time
async def test_an_answer_that_was_lost_makes_no_second_event() -> None:
    api = Api()
    async with recording(api) as subject:
        api.lost = 1
        subject.tell()
        await asyncio.sleep(0.5)
        subject.tell()  # while the first attempt is being repeated
        await asyncio.sleep(10)
    assert api.verbs == ["create", "create", "patch"]
    assert api.counts == {"so it is": 2}
    assert subject.outcomes == [("Moved", "counted"), ("Moved", "created")]


@virtual_time
async def test_where_it_may_not_write_it_asks_again_after_five_minutes() -> None:
    api = Api()

    def fail(_verb: str, namespace: str) -> None:
        if namespace == "shop" and asyncio.get_running_loop().time() < 200:
            raise api_error(403, "Forbidden", "events.events.k8s.io is forbidden")

    async with recording(api) as subject:
        api.fails = fail
        for number in range(290):
            subject.tell(f"note {number}", about=msgspec.structs.replace(LOKI, uid=f"uid-{number}"))
            await asyncio.sleep(1)
        assert api.verbs == ["create"]
        assert subject.count("forbidden") == 290
        assert len(subject.errors) == 1
        subject.tell(about=ObjectReference("v1", "Service", "loki", "elsewhere"))  # there it may
        await asyncio.sleep(20)
        assert len(api.events) == 1
        subject.tell("at last")
        await asyncio.sleep(1)
    assert "at last" in api.counts


@virtual_time
async def test_a_namespace_that_is_being_deleted_is_no_missing_right() -> None:
    api = Api()
    async with recording(api) as subject:
        api.fails = refuse(403, "Forbidden", times=1, causes=("NamespaceTerminating",))
        subject.tell()
        await asyncio.sleep(1)
        assert subject.outcomes == [("Moved", "failed")]
        subject.tell()
        await asyncio.sleep(1)
    assert api.counts == {"so it is": 1}


@virtual_time
async def test_a_count_that_could_not_be_written_is_written_with_the_next() -> None:
    api = Api()
    async with recording(api) as subject:
        subject.tell()
        await asyncio.sleep(1)
        api.fails = refuse(422, times=1)
        subject.tell()
        await asyncio.sleep(60)
        assert subject.outcomes[-1] == ("Moved", "failed")
        subject.tell()
        await asyncio.sleep(1)
        assert api.counts == {"so it is": 3}


@virtual_time
async def test_nothing_that_is_recorded_raises_or_waits() -> None:
    api = Api()
    async with recording(api) as subject:
        api.fails = refuse(422)
        for text in ("", "\x00\ud800", "a" * 10**6, "{{ env.X }}"):
            subject.recorder.record(ObjectReference(text, text, text, text), "Normal", text, text, text)
        await asyncio.sleep(10)
        assert not subject.task.done()


# --- The end ----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_at_the_end_what_is_left_is_written() -> None:
    api = Api()
    subject = Subject(api)
    for _ in range(3):
        subject.tell()
        await asyncio.sleep(1)
    subject.tell("the last")
    subject.recorder.stop()
    await subject.task
    assert api.counts == {"so it is": 3, "the last": 1}
    assert asyncio.get_running_loop().time() == 3


@virtual_time
@pytest.mark.parametrize("busy", [True, False])
async def test_the_end_takes_a_second_at_most(busy: bool) -> None:
    api = Api()
    api.takes = 8.0
    subject = Subject(api)
    for number in range(30):
        subject.tell(about=ObjectReference("v1", "Service", f"s{number}", "shop"))
    await asyncio.sleep(1 if busy else 0)
    began = asyncio.get_running_loop().time()
    subject.recorder.stop()
    subject.recorder.stop()
    await subject.task
    assert asyncio.get_running_loop().time() - began == events.LAST_SECONDS
    subject.recorder.stop()
    subject.tell("too late")


# --- Texts ------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=3000) | st.text(alphabet="ä€𝄞 \n", max_size=3000))
def test_a_note_is_one_printable_line_that_the_api_takes(text: str) -> None:
    line = one_line(text)
    assert len(line.encode()) <= 1024
    assert line.isprintable()


def test_what_is_cut_off_is_shown_to_be() -> None:
    assert one_line("a" * 1024) == "a" * 1024
    assert one_line("a" * 1025) == "a" * 1021 + "..."
    assert one_line("€" * 400).endswith("€...")
    assert one_line(" a \n b\x1b[31m\u2028c ") == "a b?[31m c"


# --- Over HTTP --------------------------------------------------------------------------------------------------------


async def test_the_requests_are_those_of_the_api() -> None:
    done: list[str] = []
    async with FaultServer() as server, Client(static(server.url)) as client:
        recorder = Recorder(client, "watcher", "w-0", on_outcome=lambda _reason, outcome, _error: done.append(outcome))
        server.others.append(answer({}, code=201))
        server.others.append(answer({}))
        details = {"causes": [{"reason": "NamespaceTerminating", "message": "it is being terminated"}]}
        server.others.append(answer(status(403, "Forbidden", "no", details=details), code=403))
        task = asyncio.create_task(recorder.run())
        for note in ("a", "a", "b"):
            recorder.record(LOKI, "Normal", "Moved", "Move", note)
            await asyncio.sleep(0.1)
        recorder.stop()
        await task
    assert done == ["created", "counted", "failed"]
    (post, first), (patch, second), _ = server.requests
    assert (post, first.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/shop/events")
    name = json.loads(server.bodies[0])["metadata"]["name"]
    assert (patch, second.path) == ("PATCH", f"/apis/events.k8s.io/v1/namespaces/shop/events/{name}")
    assert second.content_type == "application/merge-patch+json"
    assert json.loads(server.bodies[1]).keys() == {"series"}
