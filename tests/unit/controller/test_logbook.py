"""What a pass has changed, and what led to it, in the words that go into log, history and stream."""

import difflib
import random
import time
from collections.abc import Collection

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.controller import logbook
from dynamic_toolset.controller.logbook import MAX_DIFF_CHARACTERS, MAX_DIFF_LINES, START, diff
from dynamic_toolset.model import (
    Candidate,
    Change,
    Decision,
    DiscoveredService,
    Document,
    Endpoint,
    Health,
    HealthCheck,
    HttpBinding,
    Outcome,
    Problem,
    Report,
    ServiceKey,
    Verdict,
)

A, B = ServiceKey("shop", "a"), ServiceKey("shop", "b")
HEALTHY, UNHEALTHY = Health(Verdict.HEALTHY, "answers"), Health(Verdict.UNHEALTHY, "answers 503", failures=1)
UNKNOWN = Health(Verdict.UNKNOWN, "not checked yet")


def service(key: ServiceKey, health: Health = HEALTHY, *, listed: bool | None = None) -> DiscoveredService:
    endpoint = Endpoint("http", f"{key.name}.{key.namespace}.svc", 8080)
    candidate = Candidate(key, "orders", key.name, endpoint, HealthCheck(), HttpBinding("Ask."), "Orders", "")
    return DiscoveredService(candidate, health, health is HEALTHY if listed is None else listed)


def report(*services: DiscoveredService, problems: Collection[Problem] = (), **more: object) -> Report:
    decisions = {one.candidate.key: Decision(Outcome.CANDIDATE, "asked for", one.candidate) for one in services}
    more = {"decisions": decisions, "documents": (), "published": True, **more}
    return Report(discovered=services, problems=tuple(problems), **more)  # type: ignore[arg-type]


def said(changes: Collection[Change]) -> list[tuple[str, str, str]]:
    return [(one.event, str(one.service or one.reason), one.cause) for one in changes]


@pytest.mark.parametrize(
    ("old", "new", "events", "expected"),
    [
        (report(), report(), [], []),
        (report(service(A)), report(service(A)), [A], []),  # an event that changed nothing that counts
        (report(), report(service(A)), [A], [("service_listed", "shop/a", "Service shop/a was created")]),
        (report(), report(service(A)), [B], [("service_listed", "shop/a", "what else is in namespace shop changed")]),
        (report(), report(service(A, UNKNOWN)), [A], [("service_not_listed", "shop/a", "Service shop/a was created")]),
        (
            report(service(A)),
            report(service(A, UNHEALTHY)),
            [],
            [("service_not_listed", "shop/a", "a health check of Service shop/a")],
        ),
        (
            report(service(A)),
            report(service(A, UNHEALTHY, listed=True)),
            [],
            [("service_listed", "shop/a", "a health check of Service shop/a")],
        ),
        (
            report(service(A, UNHEALTHY)),
            report(service(A)),
            [A],
            [("service_listed", "shop/a", "Service shop/a was changed")],
        ),
        (
            report(service(A, UNHEALTHY, listed=True)),
            report(service(A, UNHEALTHY)),
            [],
            [("service_not_listed", "shop/a", "how many services fail at once")],
        ),
        (report(service(A)), report(), [A], [("service_gone", "shop/a", "Service shop/a was deleted")]),
        (
            report(service(A)),
            report(decisions={A: Decision(Outcome.IGNORED, "its owner opted out")}),
            [A],
            [("service_gone", "shop/a", "Service shop/a was changed: its owner opted out")],
        ),
        (
            report(service(A)),
            report(decisions={A: Decision(Outcome.DUPLICATE, "like shop/b")}),
            [B],
            [("service_gone", "shop/a", "like shop/b")],
        ),
        (report(), report(problems=[Problem("TooLarge", "x")]), [], [("problem", "TooLarge", "")]),
        (report(problems=[Problem("TooLarge", "x")]), report(problems=[Problem("TooLarge", "x")]), [], []),
        (
            report(problems=[Problem("TooLarge", "x")]),
            report(problems=[Problem("TooLarge", "y")]),
            [],
            [("problem", "TooLarge", "")],
        ),
        (report(problems=[Problem("TooLarge", "x")]), report(), [], [("problem_solved", "TooLarge", "")]),
        (
            report(problems=[Problem("ServiceUnreadable", "x"), Problem("ServiceUnreadable", "y")]),
            report(problems=[Problem("ServiceUnreadable", "y")]),
            [],
            [],
        ),
        (
            report(problems=[Problem("ServiceUnreadable", "x"), Problem("ServiceUnreadable", "y")]),
            report(),
            [],
            [("problem_solved", "ServiceUnreadable", "")],
        ),
    ],
)
def test_what_changed_and_why(
    old: Report, new: Report, events: list[ServiceKey], expected: list[tuple[str, str, str]]
) -> None:
    assert said(logbook.changes(old, new, events)) == expected


def test_what_is_there_at_the_start_was_not_created_just_now() -> None:
    new = report(service(A), service(B, UNHEALTHY))
    for old in (None, report(problems=[Problem("WatchFailing", "x")])):
        changes = [one for one in logbook.changes(old, new, [A, B], is_first=True) if one.service]
        assert said(changes) == [("service_listed", "shop/a", START), ("service_not_listed", "shop/b", START)]


def test_a_change_of_a_service_says_what_it_is() -> None:
    [change] = logbook.changes(report(), report(service(A)), [A])
    assert (change.service, change.type, change.endpoint, change.health, change.reason) == (
        *(A, "orders", "http://a.shop.svc:8080", "healthy", "answers"),
    )


# --- Publications ----------------------------------------------------------------------------------------------------


def documents(text: str) -> tuple[Document, ...]:
    return Document("custom_toolset.yaml", text), Document("toolset.json", "{}")


@pytest.mark.parametrize(
    ("old", "new", "causes", "expected"),
    [
        (None, report(), [], START),
        (report(), report(), [], "the ConfigMap did not say what it should"),
        (report(), report(), ["x", "", "x"], "x"),
        (report(), report(), ["w", "x", "y", "z", "z"], "w; x; y, and 1 more"),
        (report(), report(overrides="{}"), [], "overrides.yaml was changed"),
        (report(overrides="{}"), report(), ["x"], "overrides.yaml was changed; x"),
    ],
)
def test_what_led_to_a_publication(old: Report | None, new: Report, causes: list[str], expected: str) -> None:
    led_by = [Change("service_listed", cause=cause) for cause in causes]
    assert logbook.publication(old, new, led_by, "written").cause == expected


def test_a_publication_shows_what_changed_in_the_file_of_holmesgpt() -> None:
    old, new = report(documents=documents("a\nb\nc\n")), report(documents=documents("a\nx\nc\n"))
    change = logbook.publication(old, new, (), "ConfigMap x/y was updated")
    assert (change.event, change.message) == ("published", "ConfigMap x/y was updated")
    assert change.diff.splitlines() == ["--- before", "+++ after", "@@ -1,3 +1,3 @@", " a", "-b", "+x", " c"]
    assert logbook.publication(new, new, (), "x").diff == ""


def test_a_diff_has_a_bounded_number_of_lines() -> None:
    text = diff("", "\n".join(f"line {number}" for number in range(1000)))
    assert len(text.splitlines()) == MAX_DIFF_LINES + 1
    assert text.endswith("lines more")


@pytest.mark.parametrize("line", ["x" * 1_000_000, "\n".join(["y" * 5000] * 300)])
def test_a_diff_has_a_bounded_length_however_long_the_lines_are(line: str) -> None:
    text = diff("a\n", line)
    assert len(text) < MAX_DIFF_CHARACTERS + 100
    assert text.endswith("characters more")


@given(*[st.lists(st.sampled_from("abcdef"), max_size=40)] * 2)
def test_a_diff_is_that_of_everybody(before: list[str], after: list[str]) -> None:
    expected = list(difflib.unified_diff(before, after, "before", "after", lineterm=""))
    assert diff("\n".join(before), "\n".join(after)).splitlines() == expected


def test_a_diff_of_lines_that_are_there_again_and_again_holds_up_nobody_for_long() -> None:
    lines = [f"line {number % 100}" for number in range(9_800)]
    began = time.process_time()
    text = diff("\n".join(lines), "\n".join(f"line {number * 7 % 100}" for number in range(9_800)))
    assert time.process_time() - began < 5
    assert text == "(from 9800 to 9800 lines, too often alike: too many to compare)"


def test_a_diff_of_large_files_holds_up_nobody_for_long() -> None:
    entry = "    - name: {}\n      url: http://{}\n      verify_ssl: true\n      headers: {{}}\n"
    names = [f"shop.service-{number}" for number in range(2400)]
    before = "".join(entry.format(name, name) for name in names)
    after = "".join(entry.format(name, name) for name in random.Random(7).sample(names, len(names)))
    began = time.process_time()
    assert diff(before, after)
    assert time.process_time() - began < 2
    assert "too many to compare" in diff(before * 3, after)


def test_a_change_is_one_event_in_the_log() -> None:
    changes = [
        Change("service_listed", A, "orders", "http://x", "healthy", "answers", cause="why"),
        Change("problem", reason="TooLarge", message="x"),
        Change("problem_solved", reason="TooLarge", message="x"),
        Change("published", message="x", diff="y"),  # that event is the publisher's
    ]
    with structlog.testing.capture_logs() as logged:
        logbook.write(changes)
    assert [(one["event"], one["log_level"]) for one in logged] == [
        ("service_listed", "info"), ("problem", "warning"), ("problem_solved", "info")
    ]  # fmt: skip
    assert (logged[0]["service"], logged[0]["cause"]) == ("shop/a", "why")
