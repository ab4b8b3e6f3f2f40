"""What the service writes: JSON for machines, lines for a person."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from dynamic_toolset.cli import library_logs, logs
from dynamic_toolset.model import ServiceKey, Verdict

pytestmark = pytest.mark.usefixtures("restored")


def test_json_is_one_object_per_line_with_stable_names(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    structlog.get_logger().info("published", configmap="a/b", outcome="created")
    structlog.get_logger().warning("problem", message="zwei\nZeilen")
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = map(json.loads, captured.err.splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "published", "level": "info", "configmap": "a/b", "outcome": "created"}
    assert second["message"] == "zwei\nZeilen"


def test_json_holds_the_traceback_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    try:
        {}["ours"]
    except KeyError:
        structlog.get_logger().exception("died")
    event = json.loads(capsys.readouterr().err)
    assert event["level"] == "error"
    assert "KeyError: 'ours'" in event["exception"]


@pytest.mark.parametrize(("level", "written"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_less_than_the_level_is_not_written(level: str, written: int, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", level)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert len(capsys.readouterr().err.splitlines()) == written


def test_console_is_for_a_person_and_without_colours_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("console", "info")
    structlog.get_logger().info("published", configmap="a/b")
    line = capsys.readouterr().err
    assert "published" in line
    assert "configmap=a/b" in line
    assert "\x1b" not in line


def test_auto_is_json_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("auto", "info")
    structlog.get_logger().info("published")
    assert json.loads(capsys.readouterr().err)["event"] == "published"


def test_auto_is_for_a_person_at_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure("auto", "info")
    structlog.get_logger().info("published")
    line = capsys.readouterr().err
    assert "published" in line
    assert "\x1b[" in line


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_time_level_and_name_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    structlog.get_logger().info("published", configmap="a/b", outcome="created")
    assert list(json.loads(capsys.readouterr().err)) == ["timestamp", "level", "event", "configmap", "outcome"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
@example({"a": "\ud800", "b": 2**63, "c": "\x9b31m\u202e", "d": "\x7f"})
def test_the_json_is_that_of_the_standard_library(event: dict[str, Any]) -> None:
    line = logs._render_json(None, "", event)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == json.loads(json.dumps(event))


class Awkward:
    def __repr__(self) -> str:
        raise RuntimeError("not today")


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        Awkward(),
        object(),
        b"bytes",
        {1: {2: Path("/etc")}},
        {"a": {1, 2}},
        10**10000,
        float("nan"),
        float("inf"),
        "\ud800",
        ENDLESS,
        list(range(10**6)),
        "x" * 10**6,
        ServiceKey("a", "b"),
        Verdict.HEALTHY,
        ValueError("no"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_field_holds_there_is_one_line_of_bounded_length(
    form: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form, "info")
    structlog.get_logger().info("published", value=value, rest="here")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "here" in line
    assert len(line) < 10_000
    if form == "json":
        assert json.loads(line, parse_constant=pytest.fail)["rest"] == "here"


# --- Tracebacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_shows_no_local_variable(
    form: str, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    logs.configure(form, "info")

    def fail() -> None:
        local = "".join(["hunter", "2"])
        raise OSError(len(local))

    try:
        fail()
    except OSError:
        structlog.get_logger().exception("died")
    said = capsys.readouterr().err
    assert "OSError" in said
    assert "hunter2" not in said


def test_of_a_traceback_that_has_no_end_beginning_and_end_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    structlog.get_logger().error("died", exception="first line\n" + "in the middle\n" * 10**5 + "the last line")
    exception = json.loads(capsys.readouterr().err)["exception"]
    assert exception.startswith("first line\n")
    assert exception.endswith("\nthe last line")
    assert len(exception) < 20_000


# --- What comes from elsewhere --------------------------------------------------------------------------------------


def test_what_is_bound_to_a_request_is_in_its_events(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.get_logger().info("request")
    structlog.get_logger().info("published")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["request_id"] == "abc"
    assert "request_id" not in second


@pytest.mark.parametrize("orders", ["\x1b[2J", "\x9b31m", "a\r\nlevel=error", "\u202eright to left", "\x07", "\x85"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_nobody_speaks_to_the_terminal_through_the_log(
    form: str, orders: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form, "info")
    structlog.get_logger().info("request", path=f"/{orders}")
    line = capsys.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_the_words_of_an_error_begin_no_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console", "info")
    forged = "2026-03-01T09:30:00Z [info     ] published"
    structlog.get_logger().error("died", exc_info=ValueError(f"no\n{forged}"))
    event, *lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert "died" in event
    assert lines == ["  ValueError: no", f"  {forged}"]


def test_an_event_that_cannot_be_written_is_lost_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    file = os.fdopen(write, "w")
    monkeypatch.setattr(sys, "stderr", file)
    logs.configure("json", "info")
    for _ in range(1000):
        structlog.get_logger().info("published", message="x" * 1000)
    with contextlib.suppress(OSError):
        file.close()
    structlog.get_logger().info("published")


# --- Libraries ------------------------------------------------------------------------------------------------------


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_what_a_library_says_from_warnings_upwards_comes_out_in_the_same_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("json", "debug")
    logger = logging.getLogger("aiohttp.server")
    logger.info("too small a thing")
    logger.warning("Hello %s", "world")
    logger.error("failed", exc_info=OSError("no"))
    record = logging.LogRecord("other", logging.CRITICAL + 5, "file.py", 1, "does not fit %d %d", (1,), None)
    library_logs.Handler().handle(record)
    first, second, third = written(capsys)
    assert first.pop("timestamp")
    assert first == {
        "level": "warning",
        "event": "library_message",
        "logger": "aiohttp.server",
        "message": "Hello world",
    }
    assert (second["level"], second["message"], second["exception"]) == ("error", "failed", "OSError: no")
    assert (third["level"], third["message"]) == ("critical", "does not fit %d %d")


def test_configured_twice_each_message_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logs.configure("json", "info")
    logging.getLogger("some").warning("once")
    assert len(written(capsys)) == 1


def test_what_a_client_sends_to_uvicorn_is_seen_only_by_who_debugs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("uvicorn.error").error("Cancel 3 running task(s)")
    assert [event["message"] for event in written(capsys)] == ["Cancel 3 running task(s)"]
    logs.configure("json", "debug")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert [event["level"] for event in written(capsys)] == ["debug"]


def test_a_library_that_repeats_itself_does_not_fill_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    logs.configure("json", "info")
    for number in range(1000):
        logging.getLogger("some").warning("again %d", number)
    logging.getLogger("some").warning("something else")
    *first, last = written(capsys)
    assert [event["message"] for event in first] == [f"again {number}" for number in range(10)]
    assert (last["message"], last["left_out"]) == ("something else", 990)
    now += 61
    logging.getLogger("some").warning("another minute")
    assert [event["message"] for event in written(capsys)] == ["another minute"]


def test_a_warning_of_python_comes_out_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("json", "info")
        warnings.warn("old", UserWarning, stacklevel=1)
        (event,) = written(capsys)
        logging.captureWarnings(capture=False)
    assert (event["event"], event["logger"], event["level"]) == ("library_message", "py.warnings", "warning")
    assert "UserWarning: old" in event["message"]


def test_a_task_whose_error_nobody_fetched_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")

    async def fail() -> None:
        raise KeyError("nobody looks")

    async def main() -> None:
        task = asyncio.create_task(fail(), name="lost")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(main())
    (event,) = written(capsys)
    assert (event["event"], event["logger"], event["level"]) == ("library_message", "asyncio", "error")
    assert "Task exception was never retrieved" in event["message"]
    assert "KeyError: 'nobody looks'" in event["exception"]


def test_a_thread_that_dies_and_an_error_that_cannot_be_raised_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")

    def fail() -> None:
        raise KeyError("in a thread")

    class Leaves:
        def __del__(self) -> None:
            raise KeyError("in the end")

    thread = threading.Thread(target=fail, name="lost")
    thread.start()
    thread.join()
    Leaves()
    gc.collect()
    first, second = written(capsys)
    assert (first["event"], first["logger"], first["message"]) == ("library_message", "threading", "thread lost died")
    assert "KeyError: 'in a thread'" in first["exception"]
    assert "KeyError: 'in the end'" in second["exception"]
