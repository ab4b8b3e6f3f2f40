"""The stream of events: who is told what, what somebody has missed, and that a slow reader is no brake."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dynamic_toolset.model import Change, Entry, Report
from dynamic_toolset.server.history import SIZE, History
from dynamic_toolset.server.stream import BEAT, MAX_READERS, QUEUE, TOGETHER, Stream, TooManyReaders, event
from tests.virtual_time import virtual_time

REPORT = Report({}, (), (), (), published=True)


class Served:
    """A stream with its history, and a way to change something."""

    def __init__(self) -> None:
        self.history = History()
        self.stream = Stream(self.history, "1.2.3")
        self.cuts = 0

    def change(self, message: str = "x") -> Entry:
        [entry] = self.history.add([Change("problem", message=message)], 1.0)
        self.stream.tell([entry], None)
        return entry

    def cut(self) -> None:
        self.cuts += 1

    def read(self, last_id: str | None = None) -> AsyncIterator[bytes]:
        return self.stream.read(last_id, self.cut)


async def parsed(chunk: bytes) -> tuple[str | None, str, Any]:
    """Return the id, the name and the data of an event."""
    fields = dict(line.split(": ", 1) for line in chunk.decode().removesuffix("\n\n").split("\n"))
    return fields.get("id"), fields["event"], json.loads(fields["data"])


async def some(events: AsyncIterator[bytes], count: int) -> list[tuple[str | None, str, Any]]:
    found: list[tuple[str | None, str, Any]] = []
    while len(found) < count:
        found += [await parsed(one) for one in (await anext(events)).removesuffix(b"\n\n").split(b"\n\n")]
    assert len(found) == count
    return found


async def names(events: AsyncIterator[bytes]) -> list[str]:
    """Return the names of all events to the end."""
    return [(await parsed(chunk))[1] async for chunk in events if not chunk.startswith(b":")]


@virtual_time
async def test_a_new_reader_is_greeted_and_then_told_what_changes() -> None:
    served = Served()
    served.change("before")
    events = served.read()
    [hello] = await some(events, 1)
    newest = served.history.last_id
    assert hello == (newest, "hello", {"version": "1.2.3", "lastEventId": newest})
    entry = served.change("later")
    served.stream.tell([], REPORT)
    [change, report] = await some(events, 2)
    assert (change[0], change[1], change[2]["message"]) == (entry.id, "change", "later")
    assert report == (None, "report", {"published": True})


@virtual_time
async def test_whoever_was_greeted_misses_nothing_though_nothing_had_changed_until_it_went() -> None:
    """A browser's EventSource comes back with the last id that it was given, and knows no other."""
    served = Served()
    served.change("before")
    for last_id in (None, "unknown"):
        given = [one[0] for one in await some(served.read(last_id), 2 if last_id else 1)][-1]
        entry = served.change("meanwhile")
        again = await some(served.read(given), 2)
        assert [(one[0], one[1]) for one in again] == [(None, "hello"), (entry.id, "change")]


@virtual_time
async def test_what_happens_at_about_the_same_time_is_told_together_and_soon() -> None:
    served = Served()
    events = served.read()
    await anext(events)
    began = asyncio.get_running_loop().time()
    ids = [served.change("one").id, served.change("two").id]
    chunk = await anext(events)
    assert asyncio.get_running_loop().time() - began == pytest.approx(TOGETHER)
    assert [line.removeprefix("id: ") for line in chunk.decode().splitlines() if line.startswith("id: ")] == ids


@virtual_time
async def test_who_comes_back_is_told_what_it_missed_and_nothing_twice() -> None:
    served = Served()
    seen = served.change("seen").id
    missed = [served.change(f"missed {number}").id for number in range(3)]
    events = served.read(seen)
    assert [one[1] for one in await some(events, 1)] == ["hello"]
    assert [one[0] for one in await some(events, 3)] == missed
    later = served.change("later").id
    assert [one[0] for one in await some(events, 1)] == [later]


@virtual_time
async def test_what_changes_between_the_arrival_of_a_reader_and_its_first_event_comes_once() -> None:
    served = Served()
    seen = served.history.last_id
    events = served.read(seen)
    early = served.change("early").id  # it has not been asked for anything yet
    [_, replayed] = await some(events, 2)
    assert replayed[0] == early
    later = served.change("later").id
    assert [one[0] for one in await some(events, 1)] == [later]


@virtual_time
async def test_what_changes_while_a_reader_is_greeted_comes_once() -> None:
    served = Served()
    events = served.read(served.change("seen").id)
    await anext(events)
    changed = [served.change("one").id, served.change("two").id]
    assert [one[0] for one in await some(events, 2)] == changed
    assert (await anext(events)).startswith(b":")


@pytest.mark.parametrize("last_id", ["gone-1", "nonsense", "-1", "\n\nevent: x"])
def test_who_saw_what_is_not_known_any_more_is_to_begin_anew(last_id: str) -> None:
    @virtual_time
    async def run() -> None:
        served = Served()
        served.change()
        assert [one[1] for one in await some(served.read(last_id), 2)] == ["hello", "reset"]

    run()


@virtual_time
async def test_who_missed_more_than_is_remembered_is_to_begin_anew() -> None:
    served = Served()
    seen = served.history.last_id
    for _ in range(SIZE):
        served.change()
    assert len(await some(served.read(seen), SIZE + 1)) == SIZE + 1
    served.change()
    assert [one[1] for one in await some(served.read(seen), 2)] == ["hello", "reset"]


@virtual_time
async def test_a_silence_is_bridged_by_a_comment() -> None:
    events = Served().read()
    await anext(events)
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        assert (await anext(events)).startswith(b":")
    assert asyncio.get_running_loop().time() - began == pytest.approx(3 * BEAT)


@virtual_time
async def test_a_reader_that_lets_its_queue_run_over_is_cut_and_the_others_hear_all() -> None:
    served = Served()
    slow, quick = served.read(), served.read()
    await anext(slow)
    await anext(quick)
    heard = 0
    for _ in range(QUEUE + 50):
        served.change()
        heard += len(await some(quick, 1))
    assert served.cuts == served.stream.dropped == 1
    assert heard == QUEUE + 50
    assert served.stream.readers == 1


@virtual_time
async def test_when_the_service_ends_everybody_is_told_and_every_stream_ends() -> None:
    served = Served()
    readers = [served.read() for _ in range(3)]
    for one in readers:
        await anext(one)
    late = served.read()  # has come, but not been answered yet
    served.change()
    served.stream.end()
    assert [await names(one) for one in readers] == [["change", "bye"]] * 3
    assert await names(late) == ["hello", "bye"]
    assert await names(served.read()) == ["hello", "bye"]
    assert served.stream.readers == 0


@virtual_time
async def test_the_end_reaches_no_reader_that_does_not_read_and_waits_for_none() -> None:
    served = Served()
    slow = served.read()
    await anext(slow)
    for _ in range(QUEUE):
        served.change()
        served.stream.flush()
    served.stream.end()
    assert served.cuts == 1
    assert served.stream.readers == 0


@virtual_time
async def test_there_are_no_more_readers_than_may_be() -> None:
    served = Served()
    readers = [served.read() for _ in range(MAX_READERS)]
    for one in readers:
        await anext(one)
    with pytest.raises(TooManyReaders):
        served.read()
    await readers.pop().aclose()  # type: ignore[attr-defined]
    served.read()


@virtual_time
async def test_a_reader_that_goes_away_is_forgotten() -> None:
    served = Served()

    async def follow() -> None:
        async for _ in served.read():
            pass

    reading = asyncio.create_task(follow())
    await asyncio.sleep(1)
    assert served.stream.readers == 1
    reading.cancel()
    await asyncio.wait([reading])
    await asyncio.sleep(1)
    assert served.stream.readers == 0


@pytest.mark.parametrize("text", ["\n\nevent: bye\ndata: {}", "\r\n", "\r", "\u2028", "id: 7\n", "\x00"])
def test_no_text_can_end_an_event_or_begin_another(text: str) -> None:
    whole = event("change", {"message": text}, "a-1")
    assert whole.count(b"\n") == 4  # id, event, data, the end
    assert b"\r" not in whole
    assert json.loads(whole.split(b"data: ", 1)[1]) == {"message": text}
