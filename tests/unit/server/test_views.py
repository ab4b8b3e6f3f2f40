"""From reports to answers: what is shown of a Service, which are found, and that pages miss and repeat nothing."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.kube.objects import ConfigMap, OwnedMeta
from dynamic_toolset.model import (
    Candidate,
    Change,
    Check,
    Decision,
    DiscoveredService,
    Document,
    Effect,
    Endpoint,
    Entry,
    Health,
    HealthCheck,
    HttpBinding,
    Outcome,
    PortNote,
    Problem,
    Report,
    ServiceKey,
    Verdict,
)
from dynamic_toolset.publication import configmap
from dynamic_toolset.server import views
from dynamic_toolset.server.answers import ServiceItem
from dynamic_toolset.server.api import _position
from dynamic_toolset.server.views import Documents, Query, Services
from dynamic_toolset.settings import ConfigMapSettings, Settings
from dynamic_toolset.toolset.documents import render

HEALTHY = Health(Verdict.HEALTHY, "answers as Orders", seconds=0.01234567)
UNHEALTHY = Health(Verdict.UNHEALTHY, "answers 503", failures=4)


def candidate(key: ServiceKey, kind: str = "orders") -> Candidate:
    endpoint = Endpoint("http", f"{key.name}.{key.namespace}.svc.cluster.local", 8080)
    return Candidate(key, kind, key.name, endpoint, HealthCheck(), HttpBinding("Ask."), "Orders", "Knows orders.")


def taken(key: ServiceKey, kind: str = "orders") -> Decision:
    ports = (PortNote(8080, "http", chosen=True, note="the only one"),)
    return Decision(Outcome.CANDIDATE, "asked for", candidate(key, kind), ("its annotation",), ports)


IGNORED = Decision(Outcome.IGNORED, "no backend that we know")
REJECTED = Decision(Outcome.REJECTED, "it leads out of the cluster")


def report(
    decisions: dict[ServiceKey, Decision],
    health: dict[ServiceKey, Health] | None = None,
    held: Iterable[ServiceKey] = (),
    **more: Any,
) -> Report:
    discovered = tuple(
        DiscoveredService(one.candidate, (health or {}).get(key, HEALTHY), (health or {}).get(key, HEALTHY) == HEALTHY)
        for key, one in sorted(decisions.items())
        if one.outcome is Outcome.CANDIDATE and one.candidate
    )
    more = {"documents": (), "problems": (), "published": True, **more}
    return Report(decisions, discovered, held=frozenset(held), **more)


A, B, C, D = (ServiceKey("shop", name) for name in "abcd")


# --- One Service -----------------------------------------------------------------------------------------------------


def test_what_is_shown_of_a_service() -> None:
    decisions = {A: taken(A), B: IGNORED, C: REJECTED, D: Decision(Outcome.DUPLICATE, "like shop/a", candidate(D))}
    shown = Services(report(decisions)).items
    url = "http://{}.shop.svc.cluster.local:8080"
    assert shown == (
        ServiceItem(
            *("shop", "a", "", "candidate", "orders", url.format("a"), "healthy"),
            listed=True, held=False, reason="answers as Orders",
        ),
        ServiceItem("shop", "b", "", "ignored", None, None, None, listed=False, held=False, reason=IGNORED.reason),
        ServiceItem("shop", "c", "", "rejected", None, None, None, listed=False, held=False, reason=REJECTED.reason),
        ServiceItem(
            *("shop", "d", "", "duplicate", "orders", url.format("d"), None),
            listed=False, held=False, reason="like shop/a",
        ),
    )  # fmt: skip


def test_a_candidate_of_which_nothing_is_known_yet_is_unknown() -> None:
    [item] = Services(Report({A: taken(A)}, (), (), (), published=False)).items
    assert (item.health, item.listed, item.reason) == ("unknown", False, "not checked yet")


def test_the_detail_of_a_service_that_is_listed() -> None:
    whole = report({A: taken(A), B: taken(B)}, documents=DOCUMENTS)
    found = Services(whole).get(A)
    assert found
    checks = (Check(2.0, HEALTHY), Check(1.0, UNHEALTHY))
    detail = views.detail(*found, checks, Documents(whole))
    assert (detail.evidence, detail.failures, detail.toolsets) == (("its annotation",), 0, ("orders/shop.a", "shared"))
    assert [(one.port, one.chosen, one.note) for one in detail.ports] == [(8080, True, "the only one")]
    assert [(one.at, one.health, one.seconds) for one in detail.checks] == [
        ("1970-01-01T00:00:02.000Z", "healthy", 0.0123),
        ("1970-01-01T00:00:01.000Z", "unhealthy", 0.0),
    ]
    assert detail.agent == {
        "toolsets": {
            "orders/shop.a": {"enabled": True, "description": "Orders of a"},
            "shared": {"config": {"instances": [{"name": "shop.a"}], "timeout": 5}},  # and nothing of b
        }
    }


def test_of_a_service_that_is_not_listed_the_agent_reads_nothing() -> None:
    whole = report({A: taken(A)}, {A: UNHEALTHY}, documents=DOCUMENTS)
    found = Services(whole).get(A)
    assert found
    detail = views.detail(*found, (Check(1.0, UNHEALTHY),), Documents(whole))
    assert (detail.toolsets, detail.agent, detail.failures) == ((), None, 4)


def test_a_service_that_is_not_there_is_none() -> None:
    assert Services(report({A: taken(A)})).get(B) is None


# --- Which are found -------------------------------------------------------------------------------------------------

SEVERAL = Services(
    report(
        {
            A: taken(A, "prometheus"),
            B: taken(B, "grafana"),
            C: IGNORED,
            ServiceKey("infra", "Straße"): taken(ServiceKey("infra", "Straße"), "loki"),
        },
        {B: UNHEALTHY},
    )
).items


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), "Straße a b c"),
        (Query(types=frozenset({"prometheus"})), "a"),
        (Query(types=frozenset({"prometheus", "loki"})), "Straße a"),
        (Query(types=frozenset({"nothing"})), ""),
        (Query(namespaces=frozenset({"shop"})), "a b c"),
        (Query(health=frozenset({"unhealthy"})), "b"),
        (Query(health=frozenset({"unhealthy", "healthy"})), "Straße a b"),
        (Query(decisions=frozenset({"ignored"})), "c"),
        (Query(listed=True), "Straße a"),
        (Query(listed=False), "b c"),
        (Query(search="503"), "b"),
        (Query(search="shop/"), "a b c"),
        (Query(search="SHOP/ prom"), "a"),
        (Query(search="  "), "Straße a b c"),
        (Query(search="STRASSE"), "Straße"),
        (Query(search="shop/ loki"), ""),
        (Query(namespaces=frozenset({"shop"}), health=frozenset({"healthy"}), listed=True, search="a"), "a"),
    ],
)
def test_which_services_are_found(query: Query, expected: str) -> None:
    assert " ".join(item.name for item in SEVERAL if query.matches(item)) == expected


# --- Pages -----------------------------------------------------------------------------------------------------------

keys = st.builds(
    ServiceKey,
    st.sampled_from(["a", "a-b", "b", ""]),
    st.text("ab-.", min_size=1, max_size=3),
    st.sampled_from(["", "a", "b"]),
)


def after(token: str | None) -> ServiceKey | None:
    if token is None:
        return None
    return _position(token)


@given(keep=st.sets(keys, max_size=30), others=st.lists(st.sets(keys, max_size=6), min_size=1), limit=st.integers(1, 7))
def test_pages_show_whatever_stays_exactly_once_though_others_come_and_go(
    keep: set[ServiceKey], others: list[set[ServiceKey]], limit: int
) -> None:
    seen: list[ServiceKey] = []
    token = None
    for number in range(1000):
        present = keep | others[number % len(others)]
        page = views.page(Services(report(dict.fromkeys(present, IGNORED))).items, after(token), limit)
        assert page.total == len(present)
        assert len(page.items) <= limit
        seen += [ServiceKey(item.namespace, item.name, item.cluster) for item in page.items]
        token = page.next
        if token is None:
            break
    assert seen == sorted(set(seen))
    assert keep <= set(seen)


@given(present=st.sets(keys, max_size=30), limit=st.integers(1, 40))
def test_pages_of_what_stays_together_are_the_whole(present: set[ServiceKey], limit: int) -> None:
    items = Services(report(dict.fromkeys(present, IGNORED))).items
    seen: list[ServiceItem] = []
    page = views.page(items, None, limit)
    seen += page.items
    while page.next is not None:
        assert len(page.items) == limit
        page = views.page(items, after(page.next), limit)
        assert page.items
        seen += page.items
    assert tuple(seen) == items


# --- From one report to the next -------------------------------------------------------------------------------------

decisions = st.sampled_from([IGNORED, REJECTED, *(taken(key, kind) for key in (A, B) for kind in ("loki", "tempo"))])
states = st.builds(
    lambda chosen, sick, held: report(
        {key: taken(key, one.type or "") if one.candidate else one for key, one in chosen.items()},
        dict.fromkeys(sick, UNHEALTHY),
        held,
    ),
    st.dictionaries(st.sampled_from([A, B, C, D]), decisions),
    st.sets(st.sampled_from([A, B, C, D])),
    st.sets(st.sampled_from([A, B, C, D])),
)


@given(st.lists(states, min_size=1, max_size=6))
def test_what_is_taken_over_from_the_report_before_changes_nothing(reports: list[Report]) -> None:
    services = None
    for one in reports:
        services = Services(one, services)
        assert services.items == Services(one).items


def test_what_did_not_change_is_taken_over() -> None:
    decisions = {A: taken(A), B: IGNORED}
    first = Services(report(decisions))
    assert Services(report(dict(decisions)), first).items[1] is first.items[1]


# --- Documents -------------------------------------------------------------------------------------------------------

HOLMESGPT = """\
toolsets:
  kubernetes/core: {enabled: true}
  internet: {enabled: false, description: People said no.}
  odd: null
  orders/shop.a: {enabled: true, description: Orders of a}
  shared:
    config:
      timeout: 5
      instances: [{name: shop.a}, {name: shop.b}]
mcp_servers:
  tools: {description: An MCP server}
"""
GENERIC = """{"tools": [
  {"name": "a", "type": "orders", "namespace": "shop",
   "metadata": {"service": "a", "toolsets": "orders/shop.a,shared"}},
  {"name": "b", "type": "orders", "namespace": "shop", "metadata": {"service": "b", "toolsets": "shared"}}
]}"""
DOCUMENTS = (Document("custom_toolset.yaml", HOLMESGPT), Document("toolset.json", GENERIC))


def test_the_toolsets_by_name_with_who_put_them_there() -> None:
    effects = (Effect("internet", "toolsets", "changed", "x"), Effect("tools", "mcp_servers", "added", "x"))
    items = Documents(Report({}, (), DOCUMENTS, (), published=True, effects=effects)).items()
    assert [(item.name, item.section, item.enabled, item.source, item.overridden) for item in items] == [
        ("internet", "toolsets", False, "base", True),
        ("kubernetes/core", "toolsets", True, "base", False),
        ("odd", "toolsets", True, "base", False),
        ("orders/shop.a", "toolsets", True, "services", False),
        ("shared", "toolsets", True, "services", False),
        ("tools", "mcp_servers", True, "overrides", True),
    ]
    assert [one.name for one in items[4].services] == ["a", "b"]


def test_a_type_that_is_called_like_the_revision_marker_hides_no_toolset() -> None:
    kind = "dynamic-toolset-rev"
    one = DiscoveredService(candidate(A, kind), HEALTHY, listed=True)
    documents = render([one], Settings(), None).documents
    items = Documents(Report({}, (one,), documents, (), published=True)).items()
    assert [item.name for item in items if item.name.startswith(kind)] == [f"{kind}-shop-a"]


def test_a_toolset_with_what_the_agent_reads() -> None:
    documents = Documents(Report({}, (), DOCUMENTS, (), published=True))
    found = documents.get("orders/shop.a")
    assert found
    assert found.content == {"enabled": True, "description": "Orders of a"}
    assert found.description == "Orders of a"
    assert documents.get("tools") is not None
    assert documents.get("nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "toolsets: 3",
        "toolsets: {a: 1, b: [x], c: null}",
        "toolsets: {1: {}, a: {}}",
        "just text",
        "{",
        "[" * 9999,
    ],
)
def test_documents_that_are_not_as_they_should_be_break_nothing(text: str) -> None:
    whole = (Document("custom_toolset.yaml", text), Document("toolset.json", "{"))
    documents = Documents(Report({}, (), whole, (), published=True))
    for item in documents.items():
        documents.get(item.name)
    documents.excerpt(A, ["a", "b", "c", "1"])
    assert documents.toolsets_of(A) == ()


# --- The rest --------------------------------------------------------------------------------------------------------


def test_the_toolset_with_its_overrides_and_problems() -> None:
    answer = views.toolset(
        Report({}, (), DOCUMENTS, (Problem("TooLarge", "too large"),), published=False, overrides="{}"),
        ConfigMapSettings(),
    )
    assert (answer.published, answer.overrides.text, answer.problems[0].reason) == (False, "{}", "TooLarge")
    assert [one.key for one in answer.documents] == ["custom_toolset.yaml", "toolset.json"]


# --- What would change -----------------------------------------------------------------------------------------------

TARGET = ConfigMapSettings()
OURS = {"kubernaut.io/managed-by": "dynamic-toolset"}
WANTED = (Document("custom_toolset.yaml", "a: 1\nb: 2\n"), Document("toolset.json", "{}\n"))


def holding(data: dict[str, str] | None, labels: dict[str, str] | None = None) -> ConfigMap:
    return ConfigMap(OwnedMeta(TARGET.name, TARGET.namespace, labels=labels), data)


def compared(present: ConfigMap | None, documents: tuple[Document, ...] = WANTED) -> dict[str, str]:
    found = views.diff(Report({}, (), documents, (), published=False), present, TARGET, ())
    assert (found.config_map.namespace, found.config_map.name) == (TARGET.namespace, TARGET.name)
    assert found.exists is (present is not None)
    return {one.key: one.diff for one in found.changes}


SAID = {one.key: one.text for one in WANTED}


def test_what_a_write_would_change_is_shown_key_by_key() -> None:
    found = compared(holding({**SAID, "custom_toolset.yaml": "a: 1\nb: 3\n", "overrides.yaml": "theirs"}, OURS))
    assert found == {
        "custom_toolset.yaml": "--- custom_toolset.yaml as it is\n+++ custom_toolset.yaml as it would be\n"
        "@@ -1,2 +1,2 @@\n a: 1\n-b: 3\n+b: 2"
    }


def test_of_a_config_map_that_is_not_there_everything_would_be_new() -> None:
    found = compared(None)
    assert list(found) == ["custom_toolset.yaml", "toolset.json", "metadata.labels"]
    assert found["toolset.json"].endswith("\n+{}")
    assert found["metadata.labels"].endswith("\n+kubernaut.io/managed-by: dynamic-toolset")


@pytest.mark.parametrize(
    ("present", "documents", "changed"),
    [
        (holding(SAID, OURS | {"theirs": "x"}), WANTED, []),
        (holding(SAID | {"foreign": "x"}, OURS), WANTED, []),
        (holding(SAID), WANTED, ["metadata.labels"]),
        (holding(SAID, dict.fromkeys(OURS, "helm")), WANTED, ["metadata.labels"]),
        (holding(None, OURS), WANTED, ["custom_toolset.yaml", "toolset.json"]),
        (holding({}), (), []),  # nothing to write yet
        (None, (), []),
    ],
)
def test_what_differs_is_what_would_be_written(
    present: ConfigMap | None, documents: tuple[Document, ...], changed: list[str]
) -> None:
    assert list(compared(present, documents)) == changed
    if documents:
        assert configmap.says(present, documents) is (changed == [])


@pytest.mark.parametrize("text", ["a: 1\nb: 2", "a: 1\r\nb: 2\r\n"])
def test_a_difference_that_no_line_shows_is_said(text: str) -> None:
    assert "ends" in compared(holding({**SAID, "custom_toolset.yaml": text}, OURS))["custom_toolset.yaml"]


def test_the_difference_is_of_bounded_length() -> None:
    long = (Document("custom_toolset.yaml", "".join(f"line: {n}\n" for n in range(9000))),)
    assert len(compared(holding(None, OURS), long)["custom_toolset.yaml"]) < 41_000


@pytest.mark.parametrize(
    ("settings", "problems", "leads", "holder", "reasons"),
    [
        (Settings(), (), True, "me", []),
        (Settings(paused=True), (), True, "me", ["Paused"]),
        (Settings(dry_run=True), (), True, "me", ["DryRun"]),
        (Settings(paused=True, dry_run=True), (), False, "you", ["Standby", "Paused", "DryRun"]),
        (Settings(), (), False, None, ["Standby"]),
        (Settings(), ("OverridesInvalid", "MassFailure", "WatchFailing"), True, "me", ["OverridesInvalid"]),
        (Settings(), ("ConfigMapForeign", "LeaseUnavailable"), True, "me", ["ConfigMapForeign", "LeaseUnavailable"]),
        (Settings(paused=True), ("Paused", "TooLarge"), True, "me", ["Paused", "TooLarge"]),
    ],
)
def test_why_nothing_is_written(
    settings: Settings, problems: tuple[str, ...], leads: bool, holder: str | None, reasons: list[str]
) -> None:
    wrong = tuple(Problem(reason, f"{reason}, in words") for reason in problems)
    found = views.withheld(Report({}, (), (), wrong, published=False), settings, leads=leads, holder=holder)
    assert [one.reason for one in found] == reasons
    assert all(one.message for one in found)


@pytest.mark.parametrize(
    ("problems", "unsettled", "reasons"),
    [
        (("ResourceInvalid",), True, ["ResourceInvalid"]),
        (("ResourceInvalid",), False, []),  # what it said before stays in force, and is written
        (("ResourceUnknown", "WatchFailing"), True, ["ResourceUnknown"]),
        ((), True, ["ResourceUnknown"]),
    ],
)
def test_nothing_is_written_while_it_is_not_known_which_settings_are_to_be_in_force(
    problems: tuple[str, ...], unsettled: bool, reasons: list[str]
) -> None:
    wrong = Report({}, (), (), tuple(Problem(reason, f"{reason}, in words") for reason in problems), published=False)
    found = views.withheld(wrong, Settings(), leads=True, holder="me", unsettled=unsettled)
    assert [one.reason for one in found] == reasons
    assert all(one.message for one in found)


def test_how_many_services_there_are_of_which_kind() -> None:
    decisions = {A: taken(A), B: taken(B), C: IGNORED}
    counts = views.counts(report(decisions, {B: UNHEALTHY}, held=[B]))
    assert (counts.known, counts.candidates, counts.listed, counts.healthy, counts.unhealthy, counts.held) == (
        *(3, 2, 1, 1, 1, 1),
    )


def test_the_history_is_shown_newest_first() -> None:
    entries = [Entry(f"x-{number}", number, Change("problem", reason="TooLarge")) for number in (1, 2, 3)]
    shown = views.history(entries)
    assert [one.id for one in shown.items] == ["x-3", "x-2", "x-1"]
    assert shown.items[0].service is None


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1769850902.1204, "2026-01-31T09:15:02.120Z"),
        (1769850902, "2026-01-31T09:15:02.000Z"),
    ],
)
def test_times_are_written_alike(at: float, expected: str) -> None:
    assert views.time(at) == expected
