"""What the service writes: JSON for machines, lines for a person."""

import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from dynamic_toolset.cli import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


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
