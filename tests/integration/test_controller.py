"""The controller at work: Services with backends on one side, the ConfigMap on the other, and what happens between."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from dynamic_toolset.controller import rendering
from dynamic_toolset.controller.controller import FIRST_PUBLICATION_WAIT
from dynamic_toolset.controller.pacer import Alarm, Pacer
from dynamic_toolset.health.probe import Probe
from dynamic_toolset.model import Verdict
from dynamic_toolset.publication.configmap import MAX_BYTES
from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.reading import Watch
from dynamic_toolset.sandbox.resources import CONFIG_MAPS
from dynamic_toolset.toolset import overrides
from tests.integration.sandboxed import (
    NAMESPACE,
    TARGET,
    TOOLSET,
    Answer,
    Cluster,
    Subject,
    until,
)
from tests.waiting import PATIENCE

Start = Callable[..., Awaitable[Subject]]

BROKEN = "toolsets: [not, a, mapping"
SLOW = {"timeout": "1s"}  # long enough to see that a verdict is not known yet, and short enough to wait for it


# --- The first publication ------------------------------------------------------------------------------------------


async def test_the_first_publication_waits_for_the_verdicts(cluster: Cluster, start: Start) -> None:
    for name in ("a", "b", "c"):
        await cluster.add(name)
    began = asyncio.get_running_loop().time()
    subject = await start()
    await until(lambda: cluster.writes)
    assert cluster.writes[0].at - began < 5
    await until(lambda: subject.reports)
    assert cluster.listed == {"a", "b", "c"}
    assert len(cluster.writes) == 1


async def test_the_first_publication_waits_one_second_for_a_backend_that_hangs(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_toolset.controller.controller.FIRST_PUBLICATION_WAIT", FIRST_PUBLICATION_WAIT)
    await cluster.add("good")
    await cluster.add("hangs", mode="hang")
    began = asyncio.get_running_loop().time()
    await start(health={"timeout": "60s"})
    await until(lambda: cluster.listed == {"good"})
    # The check itself would take a minute. On a busy machine the good one, too, may have come too late for the first.
    assert cluster.writes[0].listed <= {"good"}
    assert 0.9 < cluster.writes[0].at - began < 15


async def test_without_any_service_the_base_is_published_at_once(cluster: Cluster, start: Start) -> None:
    began = asyncio.get_running_loop().time()
    await start()
    await until(lambda: cluster.writes)
    assert cluster.writes[0].at - began < 5
    assert "kubernetes/core" in cluster.writes[0].data["custom_toolset.yaml"]


# --- Health ---------------------------------------------------------------------------------------------------------


async def test_a_new_service_is_listed_when_it_has_answered_and_not_before(cluster: Cluster, start: Start) -> None:
    await cluster.add("old")
    subject = await start(health={**SLOW, "failureThreshold": 3})  # one check that is held up takes nobody out
    await until(lambda: cluster.listed == {"old"})
    new = await cluster.add("new", mode="hang")
    found = await until(lambda: subject.found("new"))
    assert (found.health.verdict, found.listed) == (Verdict.UNKNOWN, False)
    await until(lambda: subject.verdict("new") is Verdict.UNHEALTHY)
    assert cluster.listed == {"old"}
    new.healthy = True
    await until(lambda: cluster.listed == {"old", "new"})
    assert len(cluster.writes) == 2


async def test_a_service_that_stops_answering_leaves_and_comes_back(cluster: Cluster, start: Start) -> None:
    await cluster.add("stays")
    backend = await cluster.add("goes")
    subject = await start()
    await until(lambda: cluster.listed == {"stays", "goes"})
    backend.healthy = False
    await until(lambda: subject.verdict("goes") is Verdict.UNHEALTHY)
    assert "503" in subject.found("goes").health.reason
    await until(lambda: cluster.listed == {"stays"})
    backend.healthy = True
    await until(lambda: cluster.listed == {"stays", "goes"})


@pytest.mark.parametrize("named", ["grafana", "another"])
async def test_what_wants_credentials_is_listed_only_if_the_operator_named_them(
    cluster: Cluster, start: Start, named: str
) -> None:
    await cluster.add("grafana", kind="grafana", mode="unauthorized")
    credential = {"namespace": NAMESPACE, "service": named, "apiKey": "GRAFANA_KEY"}
    subject = await start(toolset={"credentials": [credential]})
    found = await until(lambda: subject.found("grafana"))
    assert (found.health.needs_credentials, found.listed) == (True, named == "grafana")
    assert cluster.listed == ({"grafana"} if named == "grafana" else set())
    assert ("{{ env.GRAFANA_KEY }}" in cluster.data["custom_toolset.yaml"]) == (named == "grafana")


# --- Restart --------------------------------------------------------------------------------------------------------


async def test_after_a_restart_what_is_not_known_yet_counts_as_it_was_published(cluster: Cluster, start: Start) -> None:
    was_listed = await cluster.add("was-listed")
    was_not = await cluster.add("was-not", mode="fail")
    first = await start()
    await until(lambda: cluster.listed == {"was-listed"})
    await first.stop()
    was_listed.mode = was_not.mode = "hang"
    writes = len(cluster.writes)
    second = await start(health=SLOW)
    await until(lambda: second.reports)
    assert second.verdict("was-listed") is Verdict.UNKNOWN
    assert second.found("was-listed").listed
    assert not second.found("was-not").listed
    assert len(cluster.writes) == writes
    await until(lambda: cluster.listed == set())  # the verdicts have come
    assert len(cluster.writes) == writes + 1


async def test_a_restart_writes_nothing(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    await (await first_published(start, cluster, {"a"})).stop()
    version = cluster.config_map["metadata"]["resourceVersion"]
    second = await start()
    await until(lambda: second.verdict("a") is Verdict.HEALTHY)
    assert cluster.config_map["metadata"]["resourceVersion"] == version
    assert len(cluster.writes) == 1


async def test_a_document_that_was_damaged_while_nobody_looked_drops_no_healthy_service(
    cluster: Cluster, start: Start
) -> None:
    await cluster.add("a")
    await (await first_published(start, cluster, {"a"})).stop()
    good = cluster.documents
    await cluster.edit({"toolset.json": "damaged"})
    await start()
    await until(lambda: cluster.documents == good)
    assert [write.listed for write in cluster.writes] == [{"a"}, {"a"}]


async def test_a_moved_endpoint_stays_listed_and_another_type_must_answer_first(cluster: Cluster, start: Start) -> None:
    backend = await cluster.add("a")
    subject = await first_published(start, cluster, {"a"}, health=SLOW)
    backend.mode = "hang"
    await cluster.annotate("a", {f"{TOOLSET}-path": "/moved"})
    moved = await until(lambda: (one := subject.found("a")).candidate.endpoint.path == "/moved" and one)
    assert (moved.health.verdict, moved.listed) == (Verdict.UNKNOWN, True)
    assert cluster.endpoints["a"].endswith("/moved")
    await cluster.annotate("a", {f"{TOOLSET}-type": "another"})
    other = await until(lambda: (one := subject.found("a")).candidate.type == "another" and one)
    assert (other.health.verdict, other.listed) == (Verdict.UNKNOWN, False)
    assert cluster.listed == set()


# --- Overrides ------------------------------------------------------------------------------------------------------


async def test_with_broken_overrides_everything_stays_until_they_are_mended(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})
    good = cluster.documents
    await cluster.edit({"overrides.yaml": BROKEN})
    await until(lambda: "OverridesInvalid" in subject.problems)
    assert "overrides.yaml" in subject.problems["OverridesInvalid"]
    await cluster.add("b")
    await cluster.delete("a")
    await until(lambda: subject.found("b") and not subject.found("a"))
    assert cluster.documents == good
    assert cluster.data["overrides.yaml"] == BROKEN
    await cluster.edit({"overrides.yaml": "internet: {enabled: true}\n"})
    await until(lambda: cluster.listed == {"b"})
    assert "internet" in cluster.data["custom_toolset.yaml"]
    await until(lambda: not subject.problems)


async def test_a_number_that_overflows_in_the_overrides_is_named(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})
    await cluster.edit({"overrides.yaml": f"internet: {{x: {':'.join(['1'] * 180)}.5}}\n"})
    await until(lambda: "base 60" in subject.problems.get("OverridesInvalid", ""))
    await cluster.add("b")
    await until(lambda: subject.found("b"))
    assert not subject.task.done()


async def test_an_error_of_ours_that_only_the_overrides_bring_about_is_a_problem_and_not_the_end(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})
    good, apply, logged = cluster.documents, overrides.apply, []

    def broken(generated: dict[str, Any], changes: overrides.Overrides) -> dict[str, Any]:
        if changes.entries:
            raise OverflowError("int too large")
        return apply(generated, changes)

    monkeypatch.setattr(overrides, "apply", broken)
    monkeypatch.setattr(rendering.log, "exception", logged.append)
    await cluster.edit({"overrides.yaml": "internet: {enabled: true}\n"})
    await until(lambda: "(OverflowError)" in subject.problems.get("OverridesInvalid", ""))
    await cluster.add("b")
    await until(lambda: subject.found("b"))
    assert cluster.documents == good
    assert logged == ["overrides_unusable"]
    await cluster.edit({"overrides.yaml": None})
    await until(lambda: cluster.listed == {"a", "b"} and not subject.problems)


async def test_an_error_of_ours_that_the_overrides_do_not_bring_about_ends_the_service(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise OverflowError("int too large")

    await cluster.add("a")
    await cluster.edit({"overrides.yaml": "internet: {enabled: true}\n"})
    monkeypatch.setattr(overrides, "apply", broken)
    subject = await start()
    await asyncio.wait([subject.task], timeout=PATIENCE)
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await subject.stop()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("damage", [None, "by hand"])
async def test_with_broken_overrides_the_last_good_documents_are_put_back(
    cluster: Cluster, start: Start, restarted: bool, damage: str | None
) -> None:
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})
    good = cluster.documents
    await cluster.edit({"overrides.yaml": BROKEN})
    await until(lambda: "OverridesInvalid" in subject.problems)
    if restarted:
        await subject.stop()
        subject = await start()
        await until(lambda: "OverridesInvalid" in subject.problems)
    await cluster.edit({"custom_toolset.yaml": damage, "toolset.json": damage})
    await until(lambda: cluster.documents == good)
    assert cluster.data["overrides.yaml"] == BROKEN


async def test_overrides_that_are_broken_from_the_start_let_nothing_be_published(
    cluster: Cluster, start: Start
) -> None:
    await cluster.add("a")
    await cluster.edit({"overrides.yaml": BROKEN})
    subject = await start()
    await until(lambda: "OverridesInvalid" in subject.problems and subject.found("a"))
    assert cluster.data == {"overrides.yaml": BROKEN}
    assert not cluster.writes
    await cluster.edit({"overrides.yaml": None})
    await until(lambda: cluster.listed == {"a"})


# --- What the API refuses -------------------------------------------------------------------------------------------


async def test_what_is_too_large_is_refused_and_the_last_good_documents_stay(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})
    good = cluster.documents
    used = sum(len(key) + len(text) for key, text in good.items())
    await cluster.edit({"notes.txt": "x" * (MAX_BYTES - used - len("notes.txt"))})
    await cluster.add("b")
    await until(lambda: "TooLarge" in subject.problems)
    assert "900 KiB" in subject.problems["TooLarge"]
    assert not subject.reports[-1].published
    assert cluster.documents == good
    assert len(cluster.writes) == 1
    await cluster.edit({"notes.txt": None})
    await until(lambda: cluster.listed == {"a", "b"})
    await until(lambda: not subject.problems)


@pytest.fixture
async def retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before each retry, in seconds. A hundredth of them really passes."""
    pauses: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def quick(delay: float, callback: Callable[..., object], *args: Any, **more: Any) -> asyncio.TimerHandle:
        if getattr(callback, "__func__", None) is Alarm._ring:
            pauses.append(delay)
            delay /= 100
        return call_later(delay, callback, *args, **more)

    monkeypatch.setattr(loop, "call_later", quick)
    return pauses


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(status.forbidden(CONFIG_MAPS, TARGET.name, "not allowed"), id="no right to write"),
        pytest.param(status.StatusError(500, "InternalError", "etcdserver: request timed out"), id="etcd is gone"),
        pytest.param(status.modified(CONFIG_MAPS, TARGET.name), id="endless conflicts"),
    ],
)
async def test_a_refused_write_is_reported_and_tried_again_later_and_later(
    cluster: Cluster, start: Start, retries: list[float], refusal: status.StatusError
) -> None:
    async def refuse(answer: Answer) -> web.StreamResponse:
        raise refusal

    cluster.around = refuse
    await cluster.add("a")
    subject = await start()
    await until(lambda: len(retries) >= 4)
    assert str(refusal.code) in subject.problems["PublicationFailed"]
    assert not subject.reports[-1].published
    assert all(later > earlier for earlier, later in pairwise(retries[:4]))
    assert 0.8 <= retries[0] <= 1.2
    cluster.around = None
    await until(lambda: cluster.listed == {"a"})
    await until(lambda: not subject.problems and subject.reports[-1].published)
    cluster.around, before = refuse, len(retries)
    await cluster.add("b")
    await until(lambda: len(retries) > before)
    assert retries[before] <= 1.2  # the pauses begin anew


@pytest.mark.parametrize(("election", "condition"), [(True, "LeaseUnavailable"), (False, "PublicationFailed")])
async def test_a_namespace_that_is_made_later_gets_its_configmap(
    cluster: Cluster, start: Start, retries: list[float], election: bool, condition: str
) -> None:
    await cluster.sandbox.delete("Namespace", "", TARGET.namespace)
    await cluster.add("a")
    subject = await start(leaderElection={"enabled": election})
    await until(lambda: condition in subject.problems)
    assert "404" in subject.problems[condition]
    await cluster.add_namespace(TARGET.namespace)
    await until(lambda: cluster.listed == {"a"})
    await until(lambda: not subject.problems)


@pytest.mark.parametrize("obstacle", ["broken overrides", "a refusal"])
async def test_what_could_not_be_published_does_not_count_as_published(
    cluster: Cluster, start: Start, obstacle: str
) -> None:
    async def refuse(answer: Answer) -> web.StreamResponse:
        raise status.forbidden(CONFIG_MAPS, TARGET.name, "not allowed")

    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})
    good = cluster.documents
    if obstacle == "a refusal":
        cluster.around = refuse
    else:
        await cluster.edit({"overrides.yaml": BROKEN})
    backend = await cluster.add("b")
    await until(lambda: subject.problems and subject.verdict("b") is Verdict.HEALTHY)
    backend.mode = "hang"
    await cluster.annotate("b", {f"{TOOLSET}-path": "/moved"})
    moved = await until(lambda: (one := subject.found("b")).candidate.endpoint.path == "/moved" and one)
    assert (moved.health.verdict, moved.listed) == (Verdict.UNKNOWN, False)
    if obstacle == "a refusal":
        cluster.around = None
        await cluster.edit({"overrides.yaml": BROKEN, "toolset.json": None})
        await until(lambda: cluster.documents == good)


async def test_a_conflict_with_an_editor_loses_nothing_of_either(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    await first_published(start, cluster, {"a"})

    async def edit_first(answer: Answer) -> web.StreamResponse:
        cluster.around = None
        await cluster.edit({"overrides.yaml": "internet: {enabled: true}\n"})
        return await answer()

    cluster.around = edit_first
    await cluster.add("b")
    await until(lambda: cluster.listed == {"a", "b"})
    assert cluster.data["overrides.yaml"] == "internet: {enabled: true}\n"
    assert "internet" in cluster.data["custom_toolset.yaml"]
    assert len(cluster.writes) == 3  # the first publication, the conflict, and one with both changes


# --- One bad thing harms only itself --------------------------------------------------------------------------------


async def test_a_service_that_cannot_be_read_is_reported_and_the_others_go_on(cluster: Cluster, start: Start) -> None:
    backend = await cluster.add("bad")
    cluster.break_service("bad")
    subject = await start()
    await until(lambda: "ServiceUnreadable" in subject.problems)
    assert f"Service {NAMESPACE}/bad: " in subject.problems["ServiceUnreadable"]
    await cluster.add("good")
    await until(lambda: cluster.listed == {"good"})
    await cluster.add_service("bad", backend)
    await until(lambda: cluster.listed == {"bad", "good"})
    await until(lambda: not subject.problems)


async def test_a_service_that_can_no_longer_be_read_stays_as_it_was(cluster: Cluster, start: Start) -> None:
    await cluster.add("bad")
    subject = await first_published(start, cluster, {"bad"})
    cluster.break_service("bad")
    await until(lambda: "ServiceUnreadable" in subject.problems)
    await cluster.add("good")
    await until(lambda: cluster.listed == {"bad", "good"})
    await cluster.delete("bad")
    await until(lambda: not subject.problems)
    assert cluster.listed == {"good"}


async def test_an_error_in_a_part_ends_the_whole_with_that_error(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"})

    async def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Probe, "__call__", bug)
    await asyncio.wait([subject.task], timeout=PATIENCE)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await subject.stop()
    assert cluster.listed == {"a"}


@pytest.mark.parametrize("moment", ["at once", "while it waits for a first verdict", "at rest"])
async def test_when_it_is_cancelled_nothing_of_it_runs_on(cluster: Cluster, start: Start, moment: str) -> None:
    await cluster.add("good")
    await cluster.add("hangs", mode="hang" if moment != "at rest" else "serve")
    before = asyncio.all_tasks()
    subject = await start()
    if moment == "while it waits for a first verdict":
        await until(lambda: [task for task in asyncio.all_tasks() if task.get_name() == "health shop/hangs"])
    elif moment == "at rest":
        await until(lambda: cluster.listed == {"good", "hangs"})
    await subject.vanish()
    assert subject.task.cancelled()
    await until(lambda: not running(asyncio.all_tasks() - before))


def running(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """The tasks that are ours: those of the servers in this process go when they notice."""
    return [repr(task) for task in tasks if "aiohttp/web_" not in repr(task)]


# --- At rest --------------------------------------------------------------------------------------------------------


async def test_at_rest_it_asks_for_nothing_and_reports_nothing(cluster: Cluster, start: Start) -> None:
    backends = [await cluster.add("good"), await cluster.add("bad", mode="fail")]
    changes = {"health": {"interval": "100ms"}, "leaderElection": {"enabled": False}}  # a lease is renewed at rest, too
    subject = await first_published(start, cluster, {"good"}, **changes)
    await until(lambda: subject.verdict("bad") is Verdict.UNHEALTHY)
    requests, reports = cluster.requests, len(subject.reports)
    checks = [backend.requests.total() for backend in backends]
    await asyncio.sleep(1)
    await until(lambda: all(one.requests.total() > n for one, n in zip(backends, checks, strict=True)))
    assert cluster.requests == requests
    # Services and those of the API server; the slices of the API server, and those of the candidates.
    asked_for = {("list", "services"): 2, ("list", "configmaps"): 1, ("list", "endpointslices"): 2}
    assert requests == asked_for | {("patch", "configmaps"): 1}
    assert len(subject.reports) == reports


async def test_a_change_that_means_nothing_is_neither_reported_nor_written(cluster: Cluster, start: Start) -> None:
    backend = await cluster.add("a")
    await cluster.add_service("plain", backend)
    await cluster.annotate("plain", {TOOLSET: "disabled"})
    subject = await first_published(start, cluster, {"a"}, health={"interval": "1h"})
    await until(lambda: subject.verdict("a") is Verdict.HEALTHY)
    reports = list(subject.reports)
    looks = passes(subject)
    for name in ("plain", "a"):
        seen = len(looks)
        await cluster.sandbox.patch("Service", NAMESPACE, name, {"metadata": {"labels": {"x": "y"}}})
        await until(lambda seen=seen: len(looks) > seen)
    await cluster.edit({"notes.txt": "theirs"})
    seen = len(looks)
    await until(lambda: len(looks) > seen)
    assert subject.reports == reports
    assert len(cluster.writes) == 1
    await cluster.delete("plain")
    await until(lambda: len(subject.reports) == len(reports) + 1)


@pytest.mark.parametrize("order", ["the answer first", "the event first"])
async def test_the_echo_of_its_own_write_causes_no_further_write(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    next_event = Watch.next

    async def event_late(watch: Watch) -> object:
        event = await next_event(watch)
        if order == "the answer first":
            await asyncio.sleep(0.05)
        return event

    monkeypatch.setattr(Watch, "next", event_late)
    monkeypatch.setattr(Pacer, "LONGEST", 0.05)
    await cluster.add("a")
    subject = await first_published(start, cluster, {"a"}, health={"interval": "1h"})
    looks = passes(subject)
    looks_before_write: list[int] = []

    async def answer_late(answer: Answer) -> web.StreamResponse:
        looks_before_write.append(len(looks))
        response = await answer()
        if order == "the event first":
            await asyncio.sleep(0.05)
        return response

    cluster.around = answer_late
    for name in ("b", "c"):
        await cluster.add(name)
        await until(lambda name=name: name in cluster.listed)
    reflector = subject.controller._config_maps
    await until(lambda: reflector.resource_version == cluster.config_map["metadata"]["resourceVersion"])
    await asyncio.sleep(0.3)
    assert [sorted(write.listed) for write in cluster.writes] == [["a"], ["a", "b"], ["a", "b", "c"]]
    if order == "the answer first":
        assert len(looks) == looks_before_write[-1] + 1  # the one that wrote was the last


async def test_the_order_of_events_does_not_show_in_the_bytes(cluster: Cluster, start: Start) -> None:
    kinds = {"a": "custom", "b": "prometheus", "c": "mcp", "d": "grafana", "e": "custom", "f": "prometheus"}
    backends = {name: await cluster.add(name, kind=kind) for name, kind in kinds.items()}
    subject = await first_published(start, cluster, set(kinds))
    first = cluster.documents
    await subject.stop()
    for name in kinds:
        await cluster.delete(name)
    await cluster.sandbox.delete("ConfigMap", *TARGET)
    subject = await first_published(start, cluster, set())
    for name, backend in reversed(backends.items()):
        await cluster.add_service(name, backend)
    await until(lambda: cluster.listed == set(kinds))
    assert cluster.documents == first


async def test_what_somebody_deletes_is_put_back(cluster: Cluster, start: Start) -> None:
    await cluster.add("a")
    await first_published(start, cluster, {"a"})
    good = cluster.documents
    await cluster.edit({"toolset.json": None, "custom_toolset.yaml": "by hand"})
    await until(lambda: cluster.documents == good)
    await cluster.sandbox.delete("ConfigMap", *TARGET)
    await until(lambda: cluster.documents == good)


# --- Helpers --------------------------------------------------------------------------------------------------------


async def first_published(start: Start, cluster: Cluster, names: set[str], **changes: Any) -> Subject:
    """Start the service and wait until it has published exactly these Services, and reported it."""
    subject = await start(**changes)
    await until(lambda: cluster.listed == names and subject.reports and subject.reports[-1].published)
    return subject


def passes(subject: Subject) -> list[None]:
    """Return a list that gets longer with each pass from now on."""
    done: list[None] = []
    controller = subject.controller
    run_pass = controller._pass

    async def counted() -> None:
        await run_pass()
        done.append(None)

    controller._pass = counted
    return done


# --- Right of way ---------------------------------------------------------------------------------------------------


async def test_who_only_wants_to_read_gives_way_to_a_change_until_it_has_come_through(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_toolset.controller.precedence.HOLD", 60)
    subject = await start(health={"timeout": "3s"})
    await until(lambda: cluster.writes)
    await asyncio.wait_for(subject.controller.give_way(), PATIENCE)
    await cluster.add("hangs", mode="hang")
    await until(lambda: subject.verdict("hangs") is Verdict.UNKNOWN)
    reader = asyncio.create_task(subject.controller.give_way())
    await asyncio.sleep(0)
    assert not reader.done()
    await until(lambda: subject.verdict("hangs") is Verdict.UNHEALTHY)
    await asyncio.wait_for(reader, PATIENCE)
