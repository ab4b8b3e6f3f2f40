"""What a status says of what was decided."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dynamic_toolset.model import DiscoveredService, Document, Health, Problem, Report, ServiceKey, Verdict
from dynamic_toolset.publication.status import Facts, hash_of, ignored, means_the_same, status
from dynamic_toolset.settings import ConfigMapSettings, Settings
from dynamic_toolset.toolset_config import MAX_DIFF, MAX_ERRORS, MAX_MESSAGE, MAX_SERVICES, Condition, Status
from tests.unit.toolset.samples import candidate

NOW = 1_800_000_000.0
AT = "2027-01-15T08:00:00Z"
NONE = Status()
DOCUMENTS = (Document("toolset.json", "{}"), Document("custom_toolset.yaml", "toolsets: {}\n"))


class Looks(NamedTuple):
    count: int = 0
    last_at: float | None = None
    next_at: float | None = None


def service(name: str, verdict: Verdict = Verdict.HEALTHY, **health: Any) -> DiscoveredService:
    return DiscoveredService(candidate("prometheus", "shop", name), Health(verdict, "as it is", **health), listed=True)


def facts(*services: DiscoveredService, published: bool = True, problems: tuple[str, ...] = (), **given: Any) -> Facts:
    return Facts(
        report=Report({}, services, DOCUMENTS, (), published=published),
        settings=given.pop("settings", Settings()),
        problems=tuple(Problem(reason, f"{reason}, in words") for reason in problems),
        looks=given.pop("looks", Looks()),
        checked=given.pop("checked", {}),
        generation=given.pop("generation", 7),
        diff=given.pop("diff", ""),
    )


def made(*services: DiscoveredService, before: Status = NONE, now: float = NOW, **given: Any) -> Status:
    return status(facts(*services, **given), before, now)


def conditions(found: Status) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in found.conditions}


# --- In one word, and in several -------------------------------------------------------------------------------------

CALM = {
    "Ready": ("True", "Published"),
    "Synced": ("True", "Published"),
    "Accepted": ("True", "InForce"),
    "OverridesValid": ("True", "Valid"),
    "Degraded": ("False", "AsExpected"),
    "MassFailure": ("False", "AsExpected"),
    "Paused": ("False", "AsExpected"),
    "DryRun": ("False", "AsExpected"),
    "RestartNeeded": ("False", "AsExpected"),
}


@pytest.mark.parametrize(
    ("given_", "phase", "differs"),
    [
        ({}, "Ready", {}),
        ({"published": False}, "Pending", {"Ready": ("False", "Pending"), "Synced": ("False", "Pending")}),
        (
            {"published": False, "problems": ("PublicationFailed",)},
            "Degraded",
            {
                "Ready": ("False", "PublicationFailed"),
                "Synced": ("False", "PublicationFailed"),
                "Degraded": ("True", "PublicationFailed"),
            },
        ),
        ({"problems": ("WatchFailing",)}, "Degraded", {"Degraded": ("True", "WatchFailing")}),
        (
            {"problems": ("WatchFailing", "ServiceUnreadable")},
            "Degraded",
            {"Degraded": ("True", "SeveralProblems")},
        ),
        (
            {"problems": ("MassFailure",)},
            "Degraded",
            {"MassFailure": ("True", "MassFailure"), "Degraded": ("True", "MassFailure")},
        ),
        (
            {"problems": ("OverridesInvalid",)},
            "Degraded",
            {"OverridesValid": ("False", "OverridesInvalid"), "Degraded": ("True", "OverridesInvalid")},
        ),
        (
            {"problems": ("ResourceInvalid",)},
            "Invalid",
            {
                "Ready": ("False", "ResourceInvalid"),
                "Accepted": ("False", "ResourceInvalid"),
                "Degraded": ("True", "ResourceInvalid"),
            },
        ),
        ({"problems": ("RestartNeeded",)}, "Ready", {"RestartNeeded": ("True", "RestartNeeded")}),
        (
            {"published": False, "settings": Settings(paused=True), "problems": ("Paused",)},
            "Paused",
            {"Ready": ("False", "Paused"), "Synced": ("False", "Paused"), "Paused": ("True", "Paused")},
        ),
        ({"settings": Settings(paused=True)}, "Paused", {"Paused": ("True", "Paused")}),
        (
            {"published": False, "settings": Settings(dry_run=True), "problems": ("DryRun",)},
            "DryRun",
            {"Ready": ("False", "DryRun"), "Synced": ("False", "DryRun"), "DryRun": ("True", "DryRun")},
        ),
    ],
)
def test_the_phase_and_the_conditions(given_: dict[str, Any], phase: str, differs: dict[str, Any]) -> None:
    found = made(**given_)
    assert found.phase == phase
    assert conditions(found) == CALM | differs


def test_whoever_holds_back_the_writing_is_told_whether_there_is_something_to_write() -> None:
    assert made().would_change is None
    for how in (Settings(paused=True), Settings(dry_run=True)):
        assert made(settings=how, published=False).would_change is True
        assert made(settings=how).would_change is False


@pytest.mark.parametrize("length", [1, MAX_DIFF - 1, MAX_DIFF, MAX_DIFF + 1, 10 * MAX_DIFF])
def test_a_diff_is_cut_after_a_line(length: int) -> None:
    text = ("-" + "x" * 37 + "\n") * (length // 39) + "+" * (length % 39)
    found = made(diff=text).diff
    assert len(found) <= MAX_DIFF
    assert found == text or (found.endswith("x\n...") and text.startswith(found[:-4]))
    assert (found == text) is (length <= MAX_DIFF)


def test_a_condition_keeps_the_time_since_when_it_is_as_it_is() -> None:
    first = made()
    assert {one.last_transition_time for one in first.conditions} == {AT}
    second = made(before=first, now=NOW + 60, problems=("WatchFailing",), generation=8)
    changed = {one.type for one in second.conditions if one.last_transition_time != AT}
    assert changed == {"Degraded"}
    assert {one.observed_generation for one in second.conditions} == {8}
    third = made(before=second, now=NOW + 120, problems=("WatchFailing", "MassFailure"))
    times = {one.type: one.last_transition_time for one in third.conditions}
    assert times["Degraded"] == "2027-01-15T08:01:00Z"
    assert times["MassFailure"] == "2027-01-15T08:02:00Z"


# --- The services, the looks, what is published ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (service("a"), (True, "Healthy", "Answers")),
        (service("a", Verdict.UNHEALTHY, failures=2), (False, "Unhealthy", "CheckFailed")),
        (service("a", Verdict.UNHEALTHY, refused=True), (False, "Unhealthy", "AddressRefused")),
        (service("a", Verdict.HEALTHY, needs_credentials=True), (True, "Healthy", "CredentialsNeeded")),
        (service("a", Verdict.UNKNOWN), (False, "Unknown", "NotChecked")),
    ],
)
def test_a_service_is_told_with_its_health(one: DiscoveredService, expected: tuple[bool, str, str]) -> None:
    [found] = made(one, checked={one.candidate.key: NOW}).discovered_services
    assert (found.healthy, found.condition, found.reason) == expected
    assert (found.namespace, found.name, found.type) == ("shop", "a", "prometheus")
    assert (found.endpoint, found.message, found.last_checked) == (one.candidate.endpoint.url, "as it is", AT)


def test_services_of_one_name_in_two_clusters_are_told_apart() -> None:
    here = service("a")
    there = replace(here, candidate=replace(here.candidate, key=ServiceKey("shop", "a", "west")))
    assert [(one.name, one.cluster) for one in made(here, there).discovered_services] == [("a", ""), ("a", "west")]


def test_the_first_five_hundred_are_listed_and_all_are_counted() -> None:
    unhealthy = [service(f"s{number:04}", Verdict.UNHEALTHY) for number in range(520)]
    found = made(*unhealthy, service("t"), service("u", Verdict.UNKNOWN))
    assert [one.name for one in found.discovered_services] == [f"s{number:04}" for number in range(MAX_SERVICES)]
    assert found.omitted_services == 22
    assert (found.services_discovered, found.services_healthy, found.services_unhealthy) == (522, 1, 520)


def test_full_looks_are_told() -> None:
    found = made(looks=Looks(3, NOW - 60, NOW + 240))
    assert found.discovery_count == 3
    assert (found.last_discovery_time, found.next_discovery_time) == ("2027-01-15T07:59:00Z", "2027-01-15T08:04:00Z")


def test_the_hash_is_that_of_what_the_cluster_holds() -> None:
    first = made()
    assert first.config_map_ref is not None
    assert first.config_map_ref.hash == hash_of(reversed(DOCUMENTS))
    held = made(before=first, published=False).config_map_ref
    assert held == first.config_map_ref
    elsewhere = Settings(config_map=ConfigMapSettings(name="elsewhere"))
    moved = made(before=first, published=False, settings=elsewhere).config_map_ref
    assert moved is not None
    assert (moved.name, moved.hash) == ("elsewhere", "")


def test_the_hash_tells_where_one_document_ends() -> None:
    assert hash_of([Document("a", "bc"), Document("d", "")]) != hash_of([Document("a", "b"), Document("cd", "")])


# --- Bounds, and what is no news -------------------------------------------------------------------------------------


@given(st.lists(st.text(), max_size=120), st.text(max_size=3000))
def test_whatever_is_wrong_a_status_is_one_that_the_cluster_takes(messages: list[str], reason: str) -> None:
    odd = DiscoveredService(candidate("x", "shop", "a"), Health(Verdict.UNHEALTHY, reason), listed=False)
    problems = tuple(Problem(f"Reason{number}", message * 400) for number, message in enumerate(messages))
    said = status(replace(facts(odd), problems=problems), Status(), NOW)
    assert len(said.errors) <= MAX_ERRORS
    assert all(len(one) <= MAX_MESSAGE for one in said.errors)
    assert msgspec.convert(msgspec.to_builtins(said), Status) == said  # the bounds are in the type
    assert len(msgspec.json.encode(said)) < 600_000


def test_the_largest_status_fits_into_an_object() -> None:
    services = [
        DiscoveredService(
            candidate("x" * 40, "n" * 63, f"{number:063}", path="/" + "p" * 199),
            Health(Verdict.UNHEALTHY, "r" * 1000),
            listed=True,
        )
        for number in range(600)
    ]
    said = status(replace(facts(*services), problems=(Problem("X", "m" * 9000),) * 200), Status(), NOW)
    assert len(msgspec.json.encode(said)) < 700_000


def test_a_check_and_the_time_of_a_transition_are_no_news() -> None:
    one = service("a")
    first = made(one, checked={one.candidate.key: NOW})
    assert means_the_same(first, made(one, checked={one.candidate.key: NOW + 30}, now=NOW + 30))
    turned = replace(first, conditions=first.conditions[::-1])
    assert means_the_same(first, turned)


@pytest.mark.parametrize(
    "other",
    [
        made(service("a", Verdict.UNHEALTHY)),
        made(service("a"), service("b")),
        made(service("a"), problems=("RestartNeeded",)),
        made(service("a"), generation=8),
        made(service("a"), looks=Looks(1, NOW, NOW + 300)),
    ],
)
def test_everything_else_is_news(other: Status) -> None:
    assert not means_the_same(made(service("a")), other)


def test_one_that_nobody_uses_is_told_which_one_counts() -> None:
    found = ignored(4, "the-one", Status(), NOW)
    assert (found.phase, found.observed_generation) == ("Ignored", 4)
    [ready] = found.conditions
    assert replace(ready, message="") == Condition("Ready", "False", "NotInUse", "", AT, 4)
    assert "the-one" in ready.message
