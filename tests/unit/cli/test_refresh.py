"""Who waits for a refresh is told what changed and how it is now, or why nobody can say."""

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dynamic_toolset.cli import refresh
from tests.unit.cli.conftest import Run

STATISTICS: dict[str, Any] = {
    "startedAt": "2026-01-31T09:15:02.120Z",
    "leads": True,
    "holder": "toolset-a",
    "services": {"known": 9, "candidates": 3, "listed": 2, "healthy": 2, "unhealthy": 1, "unknown": 0, "held": 0},
    "checks": {"running": 0, "waiting": 0},
    "watches": {"Services": {"lists": 1}},
    "problems": [],
}
OLD = {"id": "1", "event": "published", "service": None, "message": "long ago", "reason": ""}
NEWS = [
    {"id": "3", "event": "problem", "service": None, "message": "too many", "reason": "MassFailure"},
    {
        "id": "2",
        "event": "service_not_listed",
        "service": {"namespace": "shop", "name": "orders"},
        "message": "",
        "reason": "HTTP 503\x1b",
    },
    OLD,
]


class Service:
    """Plays the API: what ``/statistics`` says each time, and the history before and after."""

    def __init__(self, *statistics: dict[str, Any], news: list[dict[str, Any]]) -> None:
        self.asked: list[str] = []
        self._statistics = list(statistics)
        self._news = news

    async def get(self, path: str) -> Any:
        self.asked.append(path)
        if path == "/statistics":
            return self._statistics.pop(0) if len(self._statistics) > 1 else self._statistics[0]
        return {"items": self._news if "/discover" in self.asked else [OLD]}

    async def post(self, path: str) -> Any:
        self.asked.append(path)


def after(**changes: Any) -> dict[str, Any]:
    now = copy.deepcopy(STATISTICS)
    now["watches"]["Services"]["lists"] = 2
    return now | changes


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(refresh, "EVERY", 0.001)

    def play(*statistics: dict[str, Any], news: list[dict[str, Any]] = NEWS) -> Service:
        service = Service(*statistics, news=news)

        @asynccontextmanager
        async def reached(_: Any) -> AsyncIterator[Service]:
            yield service

        monkeypatch.setattr(refresh, "reached", reached)
        return service

    return play


def test_what_changed_is_said_in_its_order_and_then_how_it_is(run: Run, play: Any) -> None:
    busy = after(checks={"running": 2, "waiting": 1})
    service = play(STATISTICS, STATISTICS, busy, after(), busy, after())
    ended = run("refresh", "--wait")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "shop/orders: service not listed, HTTP 503\\x1b",
        "problem, too many",
        "9 Services, 3 candidates: 2 healthy, 1 unhealthy, 0 not known. 2 in the toolset.",
    ]
    assert service.asked.count("/discover") == 1
    assert service.asked.count("/statistics") == 7  # calm twice in a row


def test_one_that_stands_by_and_what_is_wrong_are_named(run: Run, play: Any) -> None:
    now = after(leads=False, problems=[{"reason": "WatchFailing", "message": "Services cannot be followed"}])
    play(STATISTICS, now, news=[OLD])
    ended = run("refresh", "--wait")
    assert ended.status == 0
    assert ended.err.splitlines() == [
        "warning: this replica stands by; toolset-a writes",
        "warning: WatchFailing: Services cannot be followed",
    ]
    assert len(ended.out.splitlines()) == 1


def test_where_several_replicas_answer_nobody_can_say(run: Run, play: Any) -> None:
    play(STATISTICS, after(startedAt="2026-01-31T10:00:00.000Z"))
    ended = run("refresh", "--wait")
    assert (ended.status, ended.out) == (1, "")
    assert "several replicas" in ended.err
    assert "--url" in ended.err


@pytest.mark.parametrize("now", [STATISTICS, after(checks={"running": 3, "waiting": 4})], ids=["no list", "busy"])
def test_the_wait_has_an_end(run: Run, play: Any, monkeypatch: pytest.MonkeyPatch, now: dict[str, Any]) -> None:
    monkeypatch.setattr(refresh, "PATIENCE", 0.02)
    play(STATISTICS, now)
    ended = run("refresh", "--wait")
    assert (ended.status, ended.out) == (1, "")
    assert "not come to its end" in ended.err


def test_who_does_not_wait_is_not_kept(run: Run, play: Any) -> None:
    service = play(STATISTICS)
    assert run("refresh").status == 0
    assert service.asked == ["/discover"]
