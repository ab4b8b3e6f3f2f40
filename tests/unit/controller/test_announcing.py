"""What is told in Events, on what, by whom, and what is not."""

import time
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from dynamic_toolset.controller.announcing import Announcer, Outcomes
from dynamic_toolset.kube.objects import ObjectReference
from dynamic_toolset.model import (
    Change,
    Decision,
    Outcome,
    Pass,
    Problem,
    PublishOutcome,
    Rejection,
    Report,
    ServiceKey,
)
from tests.unit.controller.test_logbook import UNHEALTHY, UNKNOWN, A, B, report, service

REFUSED = replace(UNHEALTHY, reason="leads to a link-local address", refused=True)
URL_A = "orders, http://a.shop.svc:8080"
CONFIG_MAP = ObjectReference("v1", "ConfigMap", "toolset", "holmes", "uid-cm")
CONFIGURATION = ObjectReference("toolset.kubernaut.io/v1alpha1", "ToolsetConfig", "toolset", "holmes", "uid-tc")


class Objects:
    """Every Service is there, unless it is said to be gone."""

    def __init__(self) -> None:
        self.gone: set[ServiceKey] = set()

    def service(self, key: ServiceKey) -> ObjectReference | None:
        return None if key in self.gone else ObjectReference("v1", "Service", key.name, key.namespace, f"uid-{key}")

    def config_map(self) -> ObjectReference:
        return CONFIG_MAP


class World:
    """An announcer, what it has recorded, and what is published, as the passes lead to it."""

    def __init__(self, *published: ServiceKey, configuration: ObjectReference | None = None) -> None:
        self.objects = Objects()
        self.published = frozenset((key, "orders") for key in published)
        self.told: list[tuple[str, str]] = []
        self.records: list[tuple[Any, ...]] = []
        self._announcer = Announcer(self._record, lambda: self.objects, lambda: configuration)

    def _record(self, regarding: ObjectReference, *more: Any) -> None:
        self.records.append((regarding, *more))
        kind, reason, _action, note, _related = more
        self.told.append((regarding.name if regarding.kind == "Service" else regarding.kind, reason))
        assert kind in {"Normal", "Warning"}
        assert note

    def passes(
        self,
        now: Report,
        *,
        outcome: PublishOutcome = "unchanged",
        leads: bool = True,
        writes: bool = True,
        seconds: float = 0.01,
    ) -> list[tuple[str, str]]:
        """Let a pass come to this, and return what it told: on what, and the reason."""
        self.told = []
        changes = ()
        if outcome in {"created", "updated"}:
            changes = (Change("published", message=f"ConfigMap holmes/toolset was {outcome}"),)
        now = replace(now, leads=leads)
        before = self.published
        if leads and writes:
            self.published = frozenset((one.candidate.key, one.candidate.type) for one in now.discovered if one.listed)
        self._announcer.passed(Pass(now, 1e9, seconds, outcome, changes, before=before, after=self.published))
        return self.told

    @property
    def notes(self) -> list[tuple[str, str]]:
        return [(kind, note) for _, kind, _reason, _action, note, _ in self.records]


def rejected(key: ServiceKey, reason: str, rejection: Rejection = Rejection.POLICY, **more: Any) -> Report:
    whole = report(**more)
    return replace(whole, decisions={key: Decision(Outcome.REJECTED, reason, rejection=rejection)})


OUT = [("a", "Unhealthy")]
IN = [("a", "Discovered")]
BACK = [("a", "Recovered")]
NO = [("a", "Refused")]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # What comes and goes while somebody looks.
        ([report(), report(service(A))], [[], IN]),
        ([report(), report(service(A, UNKNOWN)), report(service(A))], [[], [], IN]),
        ([report(), report(service(A, UNHEALTHY)), report(service(A))], [[], OUT, IN]),
        ([report(service(A)), report(service(A, UNHEALTHY)), report(service(A))], [[], OUT, BACK]),
        ([report(service(A)), report()], [[], []]),
        ([report(service(A)), report(), report(service(A))], [[], [], IN]),
        # A failed check or two are none of anybody's business, nor is what is held.
        ([report(service(A)), report(service(A, UNHEALTHY, listed=True)), report(service(A))], [[], [], []]),
        # Another reason is the same failure.
        ([report(service(A, UNHEALTHY)), report(service(A, replace(UNHEALTHY, reason="HTTP 404")))], [[], []]),
        (
            [
                report(service(A)),
                *(report(service(A, replace(UNHEALTHY, reason=why))) for why in "xy"),
                report(service(A)),
            ],
            [[], OUT, [], BACK],
        ),
        # What leads astray.
        ([report(service(A)), report(service(A, REFUSED)), report(service(A))], [[], NO, IN]),
        ([report(), report(service(A, REFUSED)), report(service(A, REFUSED))], [[], NO, []]),
        # What is rejected, newly or for another reason.
        ([report(service(A)), rejected(A, "no")], [[], NO]),
        ([report(), rejected(A, "no"), rejected(A, "no"), rejected(A, "never")], [[], NO, [], NO]),
        ([rejected(A, "no"), report(), rejected(A, "no")], [[], [], NO]),
        ([report(), rejected(A, "port 8081 is none"), rejected(A, "port 8082 is none")], [[], NO, NO]),
        (
            [report(), rejected(A, "60 of 50", Rejection.LIMIT), rejected(A, "61 of 50", Rejection.LIMIT)],
            [[], NO, []],
        ),
        # Opting out is no refusal.
        ([report(service(A)), replace(report(), decisions={A: Decision(Outcome.IGNORED, "opted out")})], [[], []]),
        ([report(service(A)), replace(report(), decisions={A: Decision(Outcome.DUPLICATE, "as b")})], [[], []]),
    ],
)
def test_what_is_told_of_a_service(steps: list[Report], expected: list[list[tuple[str, str]]]) -> None:
    world = World(*(one.candidate.key for one in steps[0].discovered if one.listed))
    assert [world.passes(step) for step in steps] == expected


def test_it_is_told_in_the_words_of_the_report() -> None:
    world = World()
    world.passes(report())
    world.passes(report(service(A)), outcome="updated")
    world.passes(report(service(A, UNHEALTHY)))
    world.passes(report(service(A)))
    world.passes(rejected(A, "its annotation is wrong"))
    assert world.notes == [
        ("Normal", f"in the toolset ({URL_A}): answers"),
        ("Normal", "ConfigMap holmes/toolset was updated"),
        ("Warning", f"not in the toolset ({URL_A}): answers 503"),
        ("Normal", f"back in the toolset ({URL_A}): answers"),
        ("Warning", "its annotation is wrong"),
    ]
    assert world.records[0][0] == ObjectReference("v1", "Service", "a", "shop", "uid-shop/a")


def test_nothing_is_told_of_a_service_that_is_gone() -> None:
    world = World()
    world.passes(report())
    world.objects.gone.add(A)
    assert world.passes(report(service(A), service(B))) == [("b", "Discovered")]


def test_what_could_not_be_written_is_not_so_yet() -> None:
    c = ServiceKey("shop", "c")
    found = report(service(A, UNHEALTHY), service(B), service(c, UNHEALTHY))
    world = World(A)
    world.passes(report(service(A)))
    failed = replace(found, problems=(Problem("PublicationFailed", "so"),))
    assert world.passes(failed, outcome="failed", writes=False) == [
        ("c", "Unhealthy"),
        ("ConfigMap", "PublicationFailed"),
    ]
    assert world.passes(found, outcome="updated") == [
        ("a", "Unhealthy"),
        ("b", "Discovered"),
        ("ConfigMap", "Published"),
    ]


# --- After a start ----------------------------------------------------------------------------------------------------


def test_for_the_very_first_publication_everything_is_news() -> None:
    found = replace(
        report(service(A), service(B, UNHEALTHY), problems=[Problem("BaseInvalid", "so")]),
        decisions={ServiceKey("shop", "c"): Decision(Outcome.REJECTED, "no")},
    )
    assert World().passes(found, outcome="created") == [
        ("a", "Discovered"),
        ("b", "Unhealthy"),
        ("c", "Refused"),
        ("ConfigMap", "BaseInvalid"),
        ("ConfigMap", "Published"),
    ]


@pytest.mark.parametrize("stood_by", [True, False])
def test_a_restart_tells_nothing_that_is_as_it_was(stood_by: bool) -> None:
    keys = [ServiceKey("shop", f"s{number}") for number in range(500)]
    good, bad = keys[:400], keys[400:]
    whole = replace(
        report(*map(service, good), *(service(key, UNHEALTHY) for key in bad), problems=[Problem("TooLarge", "so")]),
        decisions={A: Decision(Outcome.REJECTED, "no")},
    )
    unchecked = [service(key, UNKNOWN, listed=key in good) for key in keys]
    world = World(*good)
    if stood_by:
        assert world.passes(replace(whole, discovered=tuple(unchecked)), leads=False, outcome="standby") == []
    for discovered in (unchecked, [*unchecked[:250], *whole.discovered[250:]], whole.discovered, whole.discovered):
        assert world.passes(replace(whole, discovered=tuple(discovered))) == []


def test_a_restart_tells_what_has_changed_meanwhile() -> None:
    world = World(A)
    assert world.passes(report(service(A, UNHEALTHY), service(B))) == [("a", "Unhealthy"), ("b", "Discovered")]


def test_what_was_not_known_at_the_start_is_told_when_it_comes_into_the_toolset() -> None:
    world = World()
    assert world.passes(report(service(A, UNKNOWN))) == []
    assert world.passes(report(service(A, UNHEALTHY))) == []  # it may have been so for weeks
    assert world.passes(report(service(A))) == IN


def test_word_of_why_there_can_be_no_pass_is_no_pass() -> None:
    world = World(A)
    assert world.passes(report(problems=[Problem("WatchFailing", "so")]), leads=False, seconds=0.0) == []
    assert world.passes(report(service(A))) == []


# --- Several instances ------------------------------------------------------------------------------------------------


def test_who_stands_by_is_silent_and_who_comes_to_lead_tells_only_what_the_last_leader_did_not() -> None:
    world = World(A)
    told = [
        world.passes(report(service(A)), leads=False, outcome="standby"),
        world.passes(report(service(A), service(B)), leads=False, outcome="standby"),
    ]
    world.published = frozenset({(A, "orders"), (B, "orders")})  # the leader has seen to it
    told.append(world.passes(report(service(A), service(B)), leads=False, outcome="standby"))
    assert told == [[], [], []]
    c = ServiceKey("shop", "c")  # came when nobody led
    told = world.passes(report(service(A, UNHEALTHY), service(B), service(c)), leads=False, outcome="standby")
    assert told == []
    told = world.passes(report(service(A, UNHEALTHY), service(B), service(c)), outcome="updated")
    assert told == [("a", "Unhealthy"), ("c", "Discovered"), ("ConfigMap", "Published")]


def test_who_has_led_and_does_not_any_more_is_silent() -> None:
    world = World()
    world.passes(report(), outcome="created")
    assert world.passes(report(service(A)), leads=False, outcome="standby") == []


def test_a_config_map_that_is_made_anew_makes_nothing_else_news() -> None:
    world = World()
    world.passes(report(service(A), service(B, UNHEALTHY)), outcome="created")
    now = report(service(A), service(B, UNHEALTHY), problems=[Problem("TooLarge", "so")])
    assert world.passes(now, outcome="created") == [("ConfigMap", "TooLarge"), ("ConfigMap", "Published")]


# --- Problems and publications ----------------------------------------------------------------------------------------


def problems(*found: tuple[str, str]) -> Report:
    return report(problems=[Problem(reason, message) for reason, message in found])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([problems(), problems(("OverridesInvalid", "line 3: x"))], [("ConfigMap", "OverridesInvalid")]),
        ([problems(), problems(("MassFailure", "3 of 10")), problems(("MassFailure", "4 of 10"))], []),
        (
            [problems(("OverridesInvalid", "line 3: x")), problems(("OverridesInvalid", "line 3: y"))],
            [("ConfigMap", "OverridesInvalid")],
        ),
        ([problems(("Contested", "kubectl 3 times")), problems(("Contested", "kubectl 4 times"))], []),
        ([problems(("TooLarge", "x")), problems()], []),
        ([problems(("TooLarge", "x")), problems(), problems(("TooLarge", "x"))], [("ConfigMap", "TooLarge")]),
        ([problems(("A", "x")), problems(("A", "x"), ("B", "y"))], [("ConfigMap", "B")]),
    ],
)
def test_a_problem_is_told_when_it_is_new_or_its_words_are(
    steps: list[Report], expected: list[tuple[str, str]]
) -> None:
    world = World()
    for step in steps:
        told = world.passes(step)
    assert told == expected


def test_what_is_intended_is_no_warning() -> None:
    world = World()
    world.passes(problems())
    world.passes(problems(("Paused", "nothing is written"), ("TooLarge", "too much")))
    assert [kind for kind, _ in world.notes] == ["Normal", "Warning"]


def test_with_a_toolset_config_it_is_on_that_and_names_the_config_map() -> None:
    world = World(configuration=CONFIGURATION)
    world.passes(report(), outcome="created")
    (regarding, kind, reason, action, note, related) = world.records[0]
    assert (regarding, related) == (CONFIGURATION, CONFIG_MAP)
    assert (kind, reason, action, note) == ("Normal", "Published", "Publish", "ConfigMap holmes/toolset was created")
    world.passes(report(service(A)))
    assert world.records[1][-1] is None  # it has nothing to do with what happened to a Service


def test_without_one_it_is_on_the_config_map() -> None:
    world = World()
    world.passes(report(), outcome="created")
    assert (world.records[0][0], world.records[0][-1]) == (CONFIG_MAP, None)


# --- Cost -------------------------------------------------------------------------------------------------------------


def test_ten_thousand_services_cost_a_few_milliseconds() -> None:
    decisions: dict[ServiceKey, Decision] = {
        ServiceKey("shop", f"s{number}"): Decision(Outcome.IGNORED, "no backend") for number in range(10_000)
    }
    world = World()
    world.passes(replace(report(), decisions=decisions))
    whole = replace(report(*(service(ServiceKey("x", f"c{number}")) for number in range(100))), decisions=decisions)
    took = []
    for number in range(5):
        began = time.perf_counter()
        world.passes(replace(whole, overrides=str(number)))
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05


# --- What became of it ------------------------------------------------------------------------------------------------


def test_every_outcome_is_counted_and_what_is_lost_is_said_once_aloud() -> None:
    counted: list[tuple[str, str]] = []
    hear = Outcomes(lambda reason, outcome: counted.append((reason, outcome)))
    with structlog.testing.capture_logs() as logs:
        hear("Published", "created", "")
        hear("Published", "forbidden", "403 Forbidden: may not")
        hear("Published", "forbidden", "")
        hear("Unhealthy", "forbidden", "403 Forbidden: may not")
        hear("Unhealthy", "failed", "503")
    assert len(counted) == 5
    assert [(one["log_level"], one["event"]) for one in logs] == [
        ("warning", "events_forbidden"),
        ("debug", "event_lost"),
        ("debug", "event_lost"),
    ]
