"""Settings that come into force while it is at work: what is written meanwhile, by whom, and what is not."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from dynamic_toolset.controller.controller import asks_alike
from dynamic_toolset.controller.leadership import lease_of
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.model import Verdict
from dynamic_toolset.publication.contest import ROUNDS
from dynamic_toolset.publication.publisher import CONTESTED
from dynamic_toolset.sandbox.resources import CONFIG_MAPS, LEASES
from dynamic_toolset.server import answers
from dynamic_toolset.settings import ConfigMapSettings, Settings, ToolsetConfigSettings
from tests.integration.sandboxed import CATALOG, NAMESPACE, TARGET, Cluster, listed, until
from tests.integration.serving import Served

Serve = Callable[..., Awaitable[Served]]

THEIRS = '{"tools": []}'

HOLDS = [("paused", "Paused", "paused"), ("dryRun", "DryRun", "dry_run")]


def change(served: Served, **settings: Any) -> None:
    """Let other settings come into force."""
    served.supervisor.replace(msgspec.structs.replace(served.supervisor.settings, **settings), CATALOG)


def problems(served: Served) -> dict[str, str]:
    report = served.supervisor.controller.report
    return {problem.reason: problem.message for problem in report.problems} if report else {}


def would_list(served: Served) -> set[str]:
    """What the documents of the last report list."""
    report = served.supervisor.controller.report
    return listed({one.key: one.text for one in report.documents}) if report else set()


def outcome(served: Served) -> str | None:
    last = served.telemetry.last
    return last.outcome if last else None


def lease(cluster: Cluster, name: str = TARGET.name) -> str | None:
    found = cluster.sandbox._store.objects(LEASES).get(ObjectKey(TARGET.namespace, name))
    return found["spec"].get("holderIdentity") if found else None


def published_in(cluster: Cluster, name: str) -> set[str]:
    found = cluster.sandbox._store.objects(CONFIG_MAPS).get(ObjectKey(TARGET.namespace, name))
    return listed((found or {}).get("data") or {})


# --- Nothing is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "reason", "word"), HOLDS)
async def test_nothing_is_written_while_a_setting_says_so_and_at_once_when_it_does_not(
    cluster: Cluster, serve: Serve, setting: str, reason: str, word: str
) -> None:
    await cluster.add("a")
    served = await serve(**{setting: True}, health={"interval": "1h"})
    await until(lambda: would_list(served) == {"a"})
    assert lease(cluster)
    assert (cluster.writes, cluster.config_map, outcome(served)) == ([], None, word)
    report = served.supervisor.controller.report
    assert report
    assert (report.leads, report.published) == (True, False)
    assert problems(served).keys() == {reason}
    assert "it does not say what it should" in problems(served)[reason]
    toolset = msgspec.json.decode((await served.get("/api/v1/toolset")).body, type=answers.ToolsetAnswer)
    assert (toolset.published, [problem.reason for problem in toolset.problems]) == (False, [reason])

    controller, checks = served.supervisor.controller, served.supervisor.statistics().checks.probes
    change(served, **{"dry_run" if setting == "dryRun" else setting: False})
    await until(lambda: cluster.listed == {"a"})
    await until(lambda: not problems(served))
    assert served.supervisor.controller is controller  # nothing that it knows was lost on the way
    assert served.supervisor.statistics().checks.probes == checks
    assert len(cluster.writes) == 1


@pytest.mark.parametrize(("setting", "reason", "word"), HOLDS)
async def test_what_others_write_meanwhile_stays_until_it_goes_on(
    cluster: Cluster, serve: Serve, setting: str, reason: str, word: str
) -> None:
    name = "dry_run" if setting == "dryRun" else setting
    for one in ("a", "b"):
        await cluster.add(one)
    served = await serve()
    await until(lambda: cluster.listed == {"a", "b"})
    change(served, **{name: True})
    await until(lambda: reason in problems(served))
    assert "it says what it should" in problems(served)[reason]
    assert outcome(served) == "unchanged"
    writes = len(cluster.writes)
    await cluster.delete("b")
    await until(lambda: would_list(served) == {"a"})
    await cluster.edit({"toolset.json": THEIRS})
    await until(lambda: served.supervisor.controller.report and not served.supervisor.controller.report.published)
    await asyncio.sleep(0.5)
    assert cluster.data["toolset.json"] == THEIRS
    assert (len(cluster.writes), outcome(served)) == (writes, word)
    change(served, **{name: False})
    await until(lambda: cluster.listed == {"a"})
    await until(lambda: not problems(served))


async def test_what_was_written_meanwhile_is_no_fight_over_the_config_map(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("a")
    served = await serve()
    seen: set[str] = set()
    for _ in range(ROUNDS + 1):
        await until(lambda: (seen.update(problems(served)), cluster.listed == {"a"})[1])
        change(served, paused=True)
        await until(lambda: "Paused" in problems(served))
        await cluster.edit({"toolset.json": THEIRS})
        await until(lambda: served.supervisor.controller.report and not served.supervisor.controller.report.published)
        change(served, paused=False)
    await until(lambda: (seen.update(problems(served)), cluster.listed == {"a"})[1])
    await until(lambda: not problems(served))
    assert CONTESTED not in seen  # what it would take for a fight is left as it is for a while, and named


async def test_a_hold_that_comes_with_other_settings_holds_from_the_first_pass_on(
    cluster: Cluster, serve: Serve
) -> None:
    for name in ("a", "b"):
        await cluster.add(name)
    served = await serve()
    await until(lambda: cluster.listed == {"a", "b"})
    controller, writes = served.supervisor.controller, len(cluster.writes)
    change(served, paused=True, selector="none=such")
    await until(lambda: served.supervisor.controller is not controller and would_list(served) == set())
    assert cluster.listed == {"a", "b"}
    assert len(cluster.writes) == writes


async def test_a_dry_run_says_why_nothing_could_be_written(cluster: Cluster, serve: Serve) -> None:
    await cluster.edit({"custom_toolset.yaml": "toolsets: {theirs: {type: http}}\n"})
    served = await serve(dryRun=True)
    await until(lambda: {"DryRun", "ConfigMapForeign"} <= problems(served).keys())
    assert outcome(served) == "withheld"
    assert cluster.writes == []


async def test_what_is_known_of_the_cluster_goes_on_while_nothing_is_written(cluster: Cluster, serve: Serve) -> None:
    backend = await cluster.add("a")
    served = await serve(paused=True)
    await until(lambda: would_list(served) == {"a"})
    backend.healthy = False
    await until(lambda: would_list(served) == set())
    backend.healthy = True
    await until(lambda: would_list(served) == {"a"})
    assert cluster.writes == []


# --- Full looks ------------------------------------------------------------------------------------------------------


async def test_a_full_look_asks_every_candidate_and_lists_nothing(cluster: Cluster, serve: Serve) -> None:
    backends = [await cluster.add(name) for name in ("a", "b")]
    served = await serve(health={"interval": "1h"}, leaderElection={"enabled": False})
    await until(lambda: cluster.listed == {"a", "b"})
    before = served.supervisor.statistics()
    assert before.full_looks.count == 1
    assert before.full_looks.last_at
    assert before.full_looks.next_at == before.full_looks.last_at + 300
    asked, requests = [backend.requests.total() for backend in backends], cluster.requests
    last, writes = served.telemetry.history.last_id, len(cluster.writes)
    served.supervisor.controller._rounds.every(0.6)
    await until(lambda: served.supervisor.statistics().full_looks.count >= 3)
    await until(lambda: all(one.requests.total() >= n + 2 for one, n in zip(backends, asked, strict=True)))
    await until(lambda: served.supervisor.statistics().passes >= before.passes + 2)
    assert cluster.requests == requests
    assert served.telemetry.history.last_id == last
    assert len(cluster.writes) == writes


async def test_a_look_that_is_asked_for_counts_and_successors_count_on(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("a")
    served = await serve()
    await until(lambda: served.supervisor.statistics().full_looks.count == 1)
    assert (await served.ask("POST", "/api/v1/discover")).status == 202
    shown = msgspec.json.decode((await served.get("/api/v1/statistics")).body, type=answers.StatisticsAnswer)
    assert shown.full_looks.total == 2
    assert shown.full_looks.last_at
    assert shown.full_looks.next_at
    assert shown.full_looks.last_at < shown.full_looks.next_at
    controller = served.supervisor.controller
    change(served, cluster_domain="other.local")
    await until(lambda: served.supervisor.statistics().full_looks.count == 3)
    assert served.supervisor.controller is not controller


# --- A successor -----------------------------------------------------------------------------------------------------


async def test_a_successor_does_not_wait_for_a_backend_that_hangs(cluster: Cluster, serve: Serve) -> None:
    for name in ("a", "b"):
        await cluster.add(name)
    served = await serve(health={"timeout": "60s"})
    await until(lambda: cluster.listed == {"a", "b"})
    await cluster.add("hangs", mode="hang")
    await until(lambda: len(served.supervisor.controller.report.discovered) == 3)  # type: ignore[union-attr]
    news = served.telemetry.history.last_id
    change(served, policy=msgspec.structs.replace(served.settings.policy, max_per_namespace=1))
    await until(lambda: len(cluster.listed) == 1)  # a check of the one that hangs takes a minute
    later = [one.change.event for one in served.telemetry.history.since(news) or () if one.change.service]
    assert later == ["service_gone"] * 2  # and nobody else was heard of


async def test_what_was_found_out_by_other_settings_does_not_count(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("good")
    await cluster.add("hangs", mode="hang")
    served = await serve(health={"timeout": "60s", "interval": "1h"})
    await until(lambda: cluster.listed == {"good"})
    checks: list[str] = []
    checked = served.telemetry.checked
    served.telemetry.checked = lambda candidate, health: (checks.append(health.reason), checked(candidate, health))  # type: ignore[method-assign, assignment]
    change(served, health_check=msgspec.structs.replace(served.settings.health_check, timeout="4s", interval="1h"))
    await until(lambda: verdict(served, "hangs") is Verdict.UNHEALTHY)
    await until(lambda: verdict(served, "good") is Verdict.HEALTHY)
    assert sorted(checks) == ["answers (HTTP 200)", "no answer within 4 s"]  # also what was known is asked anew
    assert cluster.listed == {"good"}
    assert all(write.listed == {"good"} for write in cluster.writes)


def verdict(served: Served, name: str) -> Verdict | None:
    report = served.supervisor.controller.report
    found = report.discovered if report else ()
    return next((one.health.verdict for one in found if one.candidate.key.name == name), None)


async def test_while_one_follows_the_other_everything_is_shown(cluster: Cluster, serve: Serve) -> None:
    for name in ("a", "b"):
        await cluster.add(name)
    served = await serve()
    await until(lambda: cluster.listed == {"a", "b"})
    over = False

    async def watch() -> set[tuple[int, int]]:
        seen = set()
        while not over:
            shown = msgspec.json.decode((await served.get("/api/v1/services?listed=true")).body)
            seen.add((shown["total"], len(listed({one.key: one.text for one in _documents(served)}))))
            await asyncio.sleep(0.01)
        return seen

    watching = asyncio.create_task(watch())
    for n in range(5):
        before = served.supervisor.controller
        change(served, mass_failure=msgspec.structs.replace(served.settings.mass_failure, window=f"{n + 1}m"))
        await until(lambda before=before: served.supervisor.controller is not before)
        await until(lambda: served.supervisor.controller.statistics().passes)
    over = True
    assert await watching == {(2, 2)}
    assert {write.listed == {"a", "b"} for write in cluster.writes[1:]} <= {True}


def _documents(served: Served) -> Any:
    report = served.supervisor.controller.report
    return report.documents if report else ()


async def test_nothing_of_those_that_ended_is_kept_in_memory(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("a")
    served = await serve()
    await until(lambda: cluster.listed == {"a"})
    ended = []
    for n in range(3):
        ended.append(weakref.ref(served.supervisor.controller))
        change(served, mass_failure=msgspec.structs.replace(served.settings.mass_failure, window=f"{n + 1}m"))
        await until(lambda: served.supervisor.controller is not ended[-1]())
        await until(lambda: served.supervisor.controller.statistics().passes)
    await until(lambda: (gc.collect(), [one() for one in ended] == [None] * 3)[1])


@pytest.mark.parametrize(
    ("settings", "alike"),
    [
        ({}, True),
        ({"selector": "a=b", "massFailure": {"hold": "0s"}, "policy": {"maxInAll": 1}}, True),
        ({"healthCheck": {"enabled": False}}, False),
        ({"healthCheck": {"timeout": "1s"}}, False),
        ({"healthCheck": {"verifyTls": False}}, False),
        ({"policy": {"allowedRanges": ["10.0.0.0/8"]}}, False),
        ({"policy": {"refusedRanges": ["10.0.0.0/8"]}}, False),
    ],
)
def test_a_verdict_counts_for_other_settings_only_if_they_ask_alike(settings: dict[str, Any], alike: bool) -> None:
    assert asks_alike(Settings(), msgspec.convert(settings, Settings)) is alike
    assert asks_alike(msgspec.convert(settings, Settings), Settings()) is alike


# --- The lease and the ConfigMap --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), ("kubernaut-system", "kubernaut-toolset-config")),
        (Settings(config_map=ConfigMapSettings("x", "y")), ("y", "x")),
        (Settings(config_map=ConfigMapSettings("x", "y"), toolset_config=ToolsetConfigSettings(name="z")), ("y", "z")),
        (msgspec.convert({"leaderElection": {"leaseName": "l"}, "toolsetConfig": {"name": "z"}}, Settings),
         ("kubernaut-system", "l")),
    ],
)  # fmt: skip
def test_the_lease_is_called_as_the_instance_unless_it_has_a_name_of_its_own(
    settings: Settings, expected: tuple[str, str]
) -> None:
    assert lease_of(settings) == expected


async def test_the_config_map_moves_and_the_lease_does_not(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("stays")
    fails = await cluster.add("fails")
    served = await serve(health={"failureThreshold": 20})
    await until(lambda: cluster.listed == {"stays", "fails"})
    fails.healthy = False
    await until(lambda: verdict(served, "fails") is Verdict.UNHEALTHY)
    before = cluster.config_map
    await until(lambda: (report := served.supervisor.controller.report) and report.published)
    known = await served.get("/api/v1/toolset")
    change(served, config_map=ConfigMapSettings("elsewhere", TARGET.namespace))
    await until(lambda: published_in(cluster, "elsewhere"))
    assert published_in(cluster, "elsewhere") == {"stays", "fails"}  # one failed check takes nobody out
    assert cluster.config_map == before
    assert lease(cluster)
    assert lease(cluster, "elsewhere") is None
    await until(lambda: (report := served.supervisor.controller.report) and report.published)
    # The documents are the same, and so is all else that is said of them.
    answer = await served.get("/api/v1/toolset", headers={"If-None-Match": known.headers["etag"]})
    toolset = msgspec.json.decode(answer.body, type=answers.ToolsetAnswer)
    assert toolset.config_map == answers.ServiceRef(TARGET.namespace, "elsewhere")
    await cluster.delete("fails")
    await until(lambda: published_in(cluster, "elsewhere") == {"stays"})
    assert cluster.config_map == before


async def test_where_it_moves_to_people_have_the_last_word_too(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("a")
    served = await serve()
    await until(lambda: cluster.listed == {"a"})
    metadata = {"namespace": TARGET.namespace, "name": "elsewhere"}
    text = "internet: {enabled: true}\n"
    await cluster.sandbox.put(
        {"kind": "ConfigMap", "metadata": metadata, "data": {"overrides.yaml": text}}, manager="me"
    )
    change(served, config_map=ConfigMapSettings("elsewhere", TARGET.namespace))
    await until(lambda: published_in(cluster, "elsewhere") == {"a"})
    data = cluster.sandbox._store.objects(CONFIG_MAPS)[ObjectKey(TARGET.namespace, "elsewhere")]["data"]
    assert data["overrides.yaml"] == text
    assert "internet" in data["custom_toolset.yaml"]
    assert NAMESPACE in data["toolset.json"]


async def test_overrides_that_are_not_applied_stay_where_they_are(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("a")
    served = await serve()
    await until(lambda: cluster.listed == {"a"})
    text = "internet: {enabled: true}\n"
    await cluster.edit({"overrides.yaml": text})
    await until(lambda: "internet" in cluster.data["custom_toolset.yaml"])
    change(served, config_map=msgspec.structs.replace(served.settings.config_map, preserve_overrides=False))
    await until(lambda: "internet" not in cluster.data["custom_toolset.yaml"])
    await until(lambda: "OverridesIgnored" in problems(served))
    assert cluster.data["overrides.yaml"] == text
    change(served, config_map=served.settings.config_map)
    await until(lambda: "internet" in cluster.data["custom_toolset.yaml"])
