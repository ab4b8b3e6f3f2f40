"""Settings that change while the service runs: file, catalog and ToolsetConfig, as a whole or not at all."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import web
from structlog.testing import capture_logs

from dynamic_toolset.configuration import resource_status, toolset_configs
from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.configuration.resource_status import ResourceStatus
from dynamic_toolset.configuration.sources import Sources
from dynamic_toolset.controller.observer import Nobody, Several
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import BadRequest, Forbidden, Invalid, KubernetesError
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.model import Candidate, Health, Pass
from dynamic_toolset.publication import status_writer
from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.resources import CONFIG_MAPS, LEASES, TOOLSET_CONFIGS, Target
from dynamic_toolset.server import configuration
from dynamic_toolset.server.problems import Refusal, encode
from dynamic_toolset.server.source import Source
from dynamic_toolset.server.telemetry import Telemetry
from tests.integration.sandboxed import NO_HOLD, POLICY, QUICK, TARGET, Cluster, listed, until
from tests.unit.health.backends import Certificate, serving, text
from tests.waiting import Stopwatch

KIND = "ToolsetConfig"
SHARED: dict[str, Any] = {"healthCheck": QUICK, "policy": POLICY, "massFailure": NO_HOLD}
A_SECOND = 1.0
"""What a person may wait for a change to be taken up; what is granted here besides is for a machine that is busy."""


class Live(Nobody):
    """The service with settings that change: a file, and a ToolsetConfig in the cluster."""

    def __init__(self, cluster: Cluster, client: Client, file: Path) -> None:
        self.cluster = cluster
        self.file = file
        self.passes: list[Pass] = []
        self.said: set[str] = set()
        sources = Sources(file)
        basis = sources.read()
        observers = Several(self)
        self.supervisor = Supervisor(client, basis.alone.settings, basis.catalog, observer=observers)
        self.configuration = Configuration(sources, basis, self.supervisor, client)
        self.status = ResourceStatus(client, self.supervisor, self.configuration)
        observers.add(self.status)

    def passed(self, done: Pass) -> None:
        self.passes.append(done)

    def checked(self, candidate: Candidate, health: Health) -> None:
        self.said.add(health.reason)

    def verdict_of(self, name: str) -> str:
        """What the last check of a service has found."""
        found = (one for one in self.passes[-1].report.discovered if one.candidate.key.name == name)
        return next((one.health.reason for one in found), "")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(part.run()) for part in (self.configuration, self.status)]
            await self.configuration.begun.wait()
            await self.supervisor.run()
            for task in others:
                task.cancel()

    @property
    def problems(self) -> dict[str, str]:
        """The problems of the last report."""
        return {one.reason: one.message for one in self.passes[-1].report.problems} if self.passes else {}

    @property
    def told(self) -> Mapping[str, Any]:
        """The status of our ToolsetConfig, as the cluster holds it."""
        return self.of(TARGET.name).get("status") or {}

    def of(self, name: str) -> Mapping[str, Any]:
        """A ToolsetConfig, as the cluster holds it."""
        return self.cluster.sandbox._store.objects(TOOLSET_CONFIGS).get(ObjectKey(TARGET.namespace, name)) or {}

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition; empty if it is not there."""
        found = (one for one in self.told.get("conditions", ()) if one["type"] == kind)
        return next(((one["status"], one["reason"]) for one in found), ("", ""))

    @property
    def settings(self) -> Any:
        return self.configuration.setup.settings

    # --- What changes ------------------------------------------------------------------------------------------------

    def write(self, **changes: Any) -> None:
        """Write the file, as an editor does that replaces it."""
        new = self.file.with_suffix(".new")
        new.write_text(yaml.safe_dump(SHARED | changes))
        new.replace(self.file)

    async def apply(self, name: str = TARGET.name, /, **spec: Any) -> Mapping[str, Any]:
        """Create or replace a ToolsetConfig."""
        metadata = {"namespace": TARGET.namespace, "name": name}
        return await self.cluster.sandbox.put({"kind": KIND, "metadata": metadata, "spec": spec}, manager="kubectl")

    async def delete(self) -> None:
        await self.cluster.sandbox.delete(KIND, *TARGET)

    async def withheld(self) -> list[str]:
        """The reasons that ``diff`` gives for not writing what differs."""
        found = json.loads(await Source(self.supervisor, Telemetry()).diff())
        return [one["reason"] for one in found["withheld"]]


Start = Callable[..., Awaitable[Live]]


@asynccontextmanager
async def living(cluster: Cluster, file: Path, url: str | None = None) -> AsyncIterator[Live]:
    async with Client(static(url or cluster.sandbox.url)) as client:
        live = Live(cluster, client, file)
        task = asyncio.create_task(live.run())
        try:
            yield live
        finally:
            live.supervisor.stop()
            if not live.configuration.begun.is_set():
                task.cancel()
            await asyncio.wait([task], timeout=20)
        if not task.cancelled():
            task.result()


@pytest.fixture
async def start(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Start]:
    """Start the service with this file, once ``a`` and ``b`` are there to be listed."""
    for name in ("a", "b"):
        await cluster.add(name)
    async with AsyncExitStack() as cleanup:

        async def start(**file: Any) -> Live:
            path = tmp_path / "settings.yaml"
            path.write_text(yaml.safe_dump(SHARED | file))
            return await cleanup.enter_async_context(living(cluster, path))

        yield start


@pytest.fixture
async def live(start: Start, cluster: Cluster) -> Live:
    live = await start()
    await until(lambda: cluster.listed == {"a", "b"})
    return live


OUT = {"exclude": ["shop"]}


# --- The file --------------------------------------------------------------------------------------------------------


async def test_a_file_that_changes_is_taken_up_by_itself(live: Live, cluster: Cluster) -> None:
    with Stopwatch() as watch:
        live.write(namespaces=OUT)
        await until(lambda: cluster.listed == set())
    assert watch.seconds < A_SECOND + 1
    live.write()
    await until(lambda: cluster.listed == {"a", "b"})


async def test_a_mounted_configmap_is_taken_up_when_its_link_is_swapped(
    start: Start, cluster: Cluster, tmp_path: Path
) -> None:
    def version(name: str, **changes: Any) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "settings.yaml").write_text(yaml.safe_dump(SHARED | changes))
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    version("..2026_1")
    file = tmp_path / "mounted.yaml"
    file.symlink_to("..data/settings.yaml")
    async with living(cluster, file):
        await until(lambda: cluster.listed == {"a", "b"})
        version("..2026_2", namespaces=OUT)
        await until(lambda: cluster.listed == set())


async def test_a_file_that_is_touched_or_means_the_same_disturbs_nobody(live: Live) -> None:
    controller = live.supervisor.controller
    live.file.write_text("# a comment\n" + live.file.read_text())
    await until(lambda: live.configuration._sources.look() is None)  # it has been read
    await asyncio.sleep(0.5)
    assert live.supervisor.controller is controller


async def test_who_writes_a_file_in_two_halves_is_waited_for(live: Live) -> None:
    controller = live.supervisor.controller
    text = live.file.read_text()
    for _ in range(4):
        live.file.write_text("")
        await asyncio.sleep(0.05)
        live.file.write_text(text)
        await asyncio.sleep(0.3)
    await until(lambda: live.configuration._sources.look() is None)  # the whole of it has been read
    await asyncio.sleep(0.5)
    assert live.supervisor.controller is controller


async def test_a_ca_file_that_is_replaced_counts_at_once_and_one_that_is_broken_changes_nothing(
    live: Live, cluster: Cluster, tmp_path: Path
) -> None:
    theirs, ours = (tmp_path / name for name in ("theirs", "ours"))
    for folder in (theirs, ours):
        folder.mkdir()
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(Certificate(theirs).file.read_bytes())
    certificate = Certificate(ours, "DNS:secure.shop.svc.cluster.local")
    live.write(healthCheck=SHARED["healthCheck"] | {"caFile": str(trusted)})
    await until(lambda: live.settings.health_check.ca_file)
    async with serving(text("at your service"), tls=certificate.server) as port:
        await cluster.add_service("secure", SimpleNamespace(kind="custom", port=port), scheme="https")
        await until(lambda: "certificate not trusted" in live.verdict_of("secure"))
        with capture_logs() as logs:
            trusted.write_bytes(certificate.file.read_bytes())
            await until(lambda: cluster.listed == {"a", "b", "secure"})
            trusted.write_text("half a certi")
            await until(lambda: "no certificates in PEM" in live.problems.get("SettingsInvalid", ""))
            live.write(healthCheck=SHARED["healthCheck"] | {"caFile": str(trusted), "failureThreshold": 1})
            await live.apply(healthCheck={"interval": "10s"})  # a new controller: it knows what was trusted before
            await until(lambda: live.settings.health_check.interval == "10s")
            assert await until(lambda: live.verdict_of("secure")) == "answers (HTTP 200)"
            assert cluster.listed == {"a", "b", "secure"}
            trusted.write_bytes(certificate.file.read_bytes())
            await until(lambda: "SettingsInvalid" not in live.problems)
    assert ("healthCheck.caFile",) in [one["changed"] for one in logs if one["event"] == "settings_changed"]


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        ({"healthCheck": {"timeout": "soon"}}, "SettingsInvalid", "healthCheck.timeout: expected a duration"),
        ({"catalogFolder": "/nowhere"}, "CatalogInvalid", "/nowhere"),
        ({"policy": {"trustedTypes": ["grafanna"]}}, "SettingsInvalid", "grafanna"),
        ({"healthCheck": {"caFile": "/nowhere.pem"}}, "SettingsInvalid", "healthCheck.caFile /nowhere.pem: No such"),
    ],
)
async def test_a_wrong_file_changes_nothing_and_is_told_until_it_is_right(
    live: Live, cluster: Cluster, changes: dict[str, Any], reason: str, told: str
) -> None:
    controller = live.supervisor.controller
    with capture_logs() as logs:
        live.write(**{"namespaces": OUT, **changes})
        await until(lambda: told in live.problems.get(reason, ""))
        await cluster.add("c")
        await until(lambda: cluster.listed == {"a", "b", "c"})
        assert live.supervisor.controller is controller
        live.write(namespaces=OUT)
        await until(lambda: cluster.listed == set())
        await until(lambda: reason not in live.problems)
    assert [(one["event"], one["reason"]) for one in logs if one["event"].startswith("problem")] == [
        ("problem", reason),
        ("problem_solved", reason),
    ]


async def test_a_file_that_is_gone_leaves_what_was(live: Live, cluster: Cluster) -> None:
    text = live.file.read_text()
    live.file.unlink()
    await until(lambda: "SettingsInvalid" in live.problems)
    assert cluster.listed == {"a", "b"}
    live.file.write_text(text)
    await until(lambda: not live.problems)


async def test_what_needs_a_restart_says_so_for_as_long_as_it_differs(live: Live, cluster: Cluster) -> None:
    live.write(server={"port": 18080}, configMap={"name": "elsewhere"}, namespaces=OUT)
    await until(lambda: cluster.listed == set())
    told = await until(lambda: live.problems.get("RestartNeeded"))
    assert told.startswith("configMap.name, server.port:")
    assert live.settings.server.port == 8080
    assert live.settings.config_map.name == TARGET.name
    live.write()
    await until(lambda: "RestartNeeded" not in live.problems)


async def test_the_catalog_is_taken_up_by_itself(start: Start, cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "types"
    folder.mkdir()
    live = await start(catalogFolder=str(folder))
    await until(lambda: cluster.listed == {"a", "b"})
    custom = (Path(toolset_configs.__file__).parents[1] / "discovery" / "catalog" / "custom.yaml").read_text()
    (folder / "orders.yaml").write_text(custom.replace("name: custom", "name: orders", 1))
    await until(lambda: "orders" in live.configuration.setup.catalog.types)
    (folder / "orders.yaml").write_text("name: orders\n")
    await until(lambda: "orders.yaml" in live.problems.get("CatalogInvalid", ""))
    assert "orders" in live.configuration.setup.catalog.types
    (folder / "orders.yaml").unlink()
    await until(lambda: "orders" not in live.configuration.setup.catalog.types and not live.problems)


async def test_a_file_may_be_called_by_bytes_that_are_no_text(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "types"
    folder.mkdir()
    file = tmp_path / os.fsdecode(b"settings-\xff.yaml")
    file.write_text(yaml.safe_dump(SHARED | {"catalogFolder": str(folder)}))
    async with living(cluster, file) as live:
        await until(lambda: bool(live.passes))
        assert b"settings-?.yaml" in msgspec.json.encode(configuration.shown(live.configuration))
        (folder / os.fsdecode(b"\xff.yaml")).write_text("name: [")
        await until(lambda: "?.yaml" in live.problems.get("CatalogInvalid", ""))
        with pytest.raises(Refusal) as refused:
            await configuration.reloaded(live.configuration)
        assert b"?.yaml" in encode(refused.value, instance="/", request_id="1")


# --- The ToolsetConfig -----------------------------------------------------------------------------------------------


async def test_a_resource_comes_changes_and_goes(live: Live, cluster: Cluster) -> None:
    with capture_logs() as logs:
        await live.apply(namespaces=OUT)
        await until(lambda: cluster.listed == set())
        assert live.configuration.setup.sources["namespaces.exclude"].name == TARGET.name
        await live.apply(namespaces={"exclude": ["elsewhere"]})
        await until(lambda: cluster.listed == {"a", "b"})
        await live.apply(namespaces=OUT)
        await until(lambda: cluster.listed == set())
        await live.delete()
        await until(lambda: cluster.listed == {"a", "b"})
    changes = [one for one in logs if one["event"] == "settings_changed"]
    assert [(one["changed"], one["toolset_config"]) for one in changes] == [
        *[(("namespaces.exclude",), True)] * 3,
        (("namespaces.exclude",), False),
    ]


async def test_what_the_file_says_beside_the_resource_counts_too(live: Live, cluster: Cluster) -> None:
    await live.apply(requireAnnotations=True)
    await until(lambda: live.settings.require_annotations)
    live.write(namespaces=OUT)
    await until(lambda: cluster.listed == set())
    assert live.settings.require_annotations


async def test_only_the_one_that_is_named_counts(live: Live, cluster: Cluster) -> None:
    await live.apply("another", namespaces=OUT)
    await live.apply(requireAnnotations=True)
    await until(lambda: live.settings.require_annotations)
    assert cluster.listed == {"a", "b"}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"healthCheck": {"timeout": "soon"}}, "healthCheck.timeout: expected a duration"),
        ({"server": {"port": 1}}, "server"),
        ({"policy": {"trustedTypes": ["grafanna"]}}, "grafanna"),
    ],
)
async def test_a_wrong_resource_changes_nothing_and_keeps_no_other_change_out(
    live: Live, cluster: Cluster, spec: dict[str, Any], told: str
) -> None:
    await live.apply(requireAnnotations=True)
    await until(lambda: live.settings.require_annotations)
    await live.apply(**{"requireAnnotations": False, "namespaces": OUT, **spec})
    await until(lambda: told in live.problems.get("ResourceInvalid", ""))
    assert live.settings.require_annotations
    assert cluster.listed == {"a", "b"}
    live.write(discoveryInterval="7m")
    await until(lambda: live.settings.discovery_interval == "7m")
    assert live.settings.require_annotations
    await live.apply(namespaces=OUT)
    await until(lambda: cluster.listed == set())
    await until(lambda: "ResourceInvalid" not in live.problems)


async def test_a_wrong_file_does_not_keep_a_resource_out(live: Live, cluster: Cluster) -> None:
    live.write(noSuch=1)
    await until(lambda: "SettingsInvalid" in live.problems)
    await live.apply(namespaces=OUT)
    await until(lambda: cluster.listed == set())


async def test_the_configmap_moves_and_the_old_one_stays(live: Live, cluster: Cluster) -> None:
    with capture_logs() as logs:
        await live.apply(configMap={"name": "moved"})
        moved = ObjectKey(TARGET.namespace, "moved")
        await until(lambda: listed((cluster.sandbox._store.objects(CONFIG_MAPS).get(moved) or {}).get("data", {})))
        await until(lambda: live.passes[-1].report.published)
    assert cluster.listed == {"a", "b"}
    assert set(cluster.sandbox._store.objects(LEASES)) == {TARGET}
    [event] = [one for one in logs if one["event"] == "toolset_moved"]
    assert (event["old"], event["new"]) == (f"{TARGET}", f"{moved}")


# --- What is not known -----------------------------------------------------------------------------------------------


async def test_a_start_never_publishes_what_the_file_says_while_there_is_a_resource(
    start: Start, cluster: Cluster
) -> None:
    metadata = {"namespace": TARGET.namespace, "name": TARGET.name}
    await cluster.sandbox.put({"kind": KIND, "metadata": metadata, "spec": {"namespaces": OUT}})
    live = await start()
    await until(lambda: live.passes and live.passes[-1].report.published)
    assert [write.listed for write in cluster.writes] == [set()]
    assert len({id(done.report) for done in live.passes}) <= 2


async def test_a_start_with_a_wrong_resource_writes_nothing_until_it_is_right(start: Start, cluster: Cluster) -> None:
    metadata = {"namespace": TARGET.namespace, "name": TARGET.name}
    await cluster.sandbox.put({"kind": KIND, "metadata": metadata, "spec": {"noSuch": 1}})
    live = await start()
    await until(lambda: "noSuch" in live.problems.get("ResourceInvalid", ""))
    await until(lambda: live.passes[-1].outcome == "unsettled")
    await asyncio.sleep(0.5)
    assert cluster.config_map is None
    assert live.told["phase"] == "Invalid"
    assert set(live.problems) == {"ResourceInvalid"}
    assert await live.withheld() == ["ResourceInvalid"]
    await live.apply(namespaces={"exclude": ["elsewhere"]})
    await until(lambda: cluster.listed == {"a", "b"})


async def test_a_cluster_that_does_not_know_the_kind_is_asked_now_and_then(
    start: Start, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolset_configs, "ASK_AGAIN", 0.3)
    cluster.sandbox.withdraw(KIND)
    with capture_logs() as logs:
        live = await start()
        await until(lambda: cluster.listed == {"a", "b"})
        follower = live.configuration.toolset_configs
        assert follower is not None
        await asyncio.sleep(1.5)
        assert not live.problems
        assert follower._reflector.statistics.lists == 1
        cluster.sandbox.install(KIND)
        await live.apply(namespaces=OUT)
        await until(lambda: cluster.listed == set())
    absent = [one for one in logs if one["event"] == "toolset_configs_absent"]
    assert [(one["reason"], one["log_level"]) for one in absent] == [("unknown", "info")]


async def test_the_watch_on_them_is_counted_and_judged_like_the_others_where_there_is_one(
    start: Start, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolset_configs, "ASK_AGAIN", 0.3)
    cluster.sandbox.withdraw(KIND)
    supervisor = (await start()).supervisor
    await until(lambda: cluster.listed == {"a", "b"})
    assert "ToolsetConfigs" not in supervisor.statistics().watches  # its want of a list is no failure
    cluster.sandbox.install(KIND)
    await until(lambda: "ToolsetConfigs" in supervisor.statistics().watches)
    assert supervisor.statistics().watches["ToolsetConfigs"].synced
    assert "watch of ToolsetConfigs" in {one.name for one in supervisor.loops()}


async def test_who_may_not_read_any_works_without_and_takes_them_up_when_he_may(
    start: Start, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolset_configs, "ASK_AGAIN", 0.3)
    api, list_ = cluster.sandbox._api, cluster.sandbox._api._list
    forbidden = True

    async def listing(request: web.Request, wanted: Target) -> web.StreamResponse:
        if forbidden and wanted.resource == TOOLSET_CONFIGS:
            raise status.forbidden(TOOLSET_CONFIGS, "", "it may not list them")
        return await list_(request, wanted)

    monkeypatch.setattr(api, "_list", listing)
    with capture_logs() as logs:
        live = await start()
        await live.apply(namespaces=OUT)
        await until(lambda: cluster.listed == {"a", "b"})
        await asyncio.sleep(1)
        assert not live.problems
        forbidden = False
        await until(lambda: cluster.listed == set())
    assert [one["reason"] for one in logs if one["event"] == "toolset_configs_absent"] == ["forbidden"]


async def test_with_the_kind_the_resource_goes(live: Live, cluster: Cluster) -> None:
    await live.apply(namespaces=OUT)
    await until(lambda: cluster.listed == set())
    cluster.sandbox.withdraw(KIND)
    await until(lambda: cluster.listed == {"a", "b"})


async def test_while_the_api_is_away_nothing_is_decided_and_that_is_told(tmp_path: Path, cluster: Cluster) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(SHARED))
    async with living(cluster, path, "http://127.0.0.1:9") as live:
        told = await until(lambda: live.problems.get("ResourceUnknown"))
        assert str(TARGET) in told


async def test_what_is_not_known_for_a_moment_is_not_taken_for_deleted(
    live: Live, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolset_configs, "GONE_AFTER", 60.0)  # a moment, on whatever machine
    monkeypatch.setattr(toolset_configs, "ASK_AGAIN", 0.3)
    await live.apply(namespaces=OUT)
    await until(lambda: cluster.listed == set())
    api = cluster.sandbox._api
    follower = live.configuration.toolset_configs
    assert follower is not None
    with capture_logs() as logs:
        api.withdrawn.add(TOOLSET_CONFIGS)
        api.end_watches()
        await until(lambda: follower._reflector.statistics.consecutive_failures > 2)
        api.withdrawn.clear()
        await until(lambda: follower._reflector.statistics.consecutive_failures == 0)
    assert not [one for one in logs if one["event"] == "settings_changed"]
    assert cluster.listed == set()
    monkeypatch.setattr(toolset_configs, "GONE_AFTER", 1.5)
    api.withdrawn.add(TOOLSET_CONFIGS)
    api.end_watches()
    await until(lambda: cluster.listed == {"a", "b"})
    api.withdrawn.clear()
    await until(lambda: cluster.listed == set())


# --- What is under way -----------------------------------------------------------------------------------------------


async def test_a_check_that_is_under_way_does_not_count_for_the_new_settings(live: Live, cluster: Cluster) -> None:
    # The first one must not come to its end before it is replaced.
    live.write(healthCheck={**QUICK, "timeout": "6s"})
    await until(lambda: live.settings.health_check.timeout == "6s")
    backend = await cluster.add("silent", mode="hang")
    await until(lambda: backend.requests.total())
    began = time.monotonic()
    await live.apply(healthCheck={**QUICK, "timeout": "1s"})
    await until(lambda: live.verdict_of("silent") == "no answer within 1 s")
    await asyncio.sleep(began + 6.5 - time.monotonic())
    assert "no answer within 1 s" in live.said
    assert "no answer within 6 s" not in live.said


# --- Many at once ----------------------------------------------------------------------------------------------------


async def test_of_many_changes_the_last_one_wins_and_the_controller_is_not_replaced_for_each(
    live: Live, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = 0
    replace = live.supervisor.replace

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal replaced
        replaced += 1
        replace(*arguments, **options)

    monkeypatch.setattr(live.supervisor, "replace", counted)
    began = time.monotonic()
    for number in range(300):
        await live.apply(namespaces={"exclude": [f"n{number}"]})
        await asyncio.sleep(0.01)
    took = time.monotonic() - began
    await live.apply(namespaces=OUT)
    await until(lambda: cluster.listed == set())
    assert replaced <= 8 + took


# --- The status ------------------------------------------------------------------------------------------------------


async def test_the_status_says_what_has_become_of_the_spec(live: Live, cluster: Cluster) -> None:
    stored = await live.apply(healthCheck=QUICK)
    told = await until(lambda: live.told)
    assert (told["phase"], told["observedGeneration"]) == ("Ready", stored["metadata"]["generation"])
    assert (told["servicesDiscovered"], told["servicesHealthy"], told["servicesUnhealthy"]) == (2, 2, 0)
    assert [(one["name"], one["healthy"], one["condition"]) for one in told["discoveredServices"]] == [
        ("a", True, "Healthy"),
        ("b", True, "Healthy"),
    ]
    assert live.condition("Ready") == ("True", "Published")
    assert told["configMapRef"]["hash"].startswith("sha256:")
    await live.apply(healthCheck=QUICK, noSuch=1)
    await until(lambda: live.told["phase"] == "Invalid")
    assert live.condition("Accepted") == ("False", "ResourceInvalid")
    assert live.condition("Ready") == ("False", "ResourceInvalid")
    assert live.condition("Synced") == ("True", "Published")
    assert live.told["observedGeneration"] == 2
    assert any("noSuch" in error for error in live.told["errors"])


async def test_at_rest_no_status_is_written_though_checks_go_on(live: Live, cluster: Cluster) -> None:
    await live.apply(healthCheck=QUICK)
    await until(lambda: live.told)

    async def written() -> int:
        """How often the status is written while each is checked thrice, which is longer than the pause between two."""
        writes, checks = cluster.requests["patch", "toolsetconfigs/status"], live.supervisor.statistics().checks.probes
        await asyncio.sleep(2.5)
        await until(lambda: live.supervisor.statistics().checks.probes >= checks + 6)
        return cluster.requests["patch", "toolsetconfigs/status"] - writes

    # What was left to be told of the beginning may come yet.
    assert 0 in [await written() for _ in range(2)]


async def test_a_full_look_is_a_reason_to_write_and_so_is_a_hold(live: Live, cluster: Cluster) -> None:
    await live.apply(healthCheck=QUICK)
    told = await until(lambda: live.told)
    assert told["nextDiscoveryTime"] > told["lastDiscoveryTime"]
    live.supervisor.controller.look_again()
    await until(lambda: live.told["discoveryCount"] == told["discoveryCount"] + 1)
    await live.apply(healthCheck=QUICK, paused=True)
    await until(lambda: live.told["phase"] == "Paused")
    assert live.condition("Paused") == ("True", "Paused")
    assert live.told["wouldChange"] is False
    await cluster.delete("b")
    await until(lambda: live.told["wouldChange"])
    assert live.condition("Ready") == ("False", "Paused")
    assert cluster.listed == {"a", "b"}
    await live.apply(healthCheck=QUICK, dryRun=True)
    await until(lambda: live.told["phase"] == "DryRun")
    assert live.condition("DryRun") == ("True", "DryRun")
    assert any(line.startswith("-") and "b.shop.svc" in line for line in live.told["diff"].splitlines())
    assert cluster.listed == {"a", "b"}
    await live.apply(healthCheck=QUICK)
    await until(lambda: cluster.listed == {"a"})
    await until(lambda: live.told["phase"] == "Ready")
    assert not {"wouldChange", "diff"} & live.told.keys()


async def test_the_status_is_written_every_few_seconds_at_most(live: Live, cluster: Cluster) -> None:
    await live.apply(healthCheck=QUICK)
    await until(lambda: live.told)
    began, before = time.monotonic(), cluster.requests["patch", "toolsetconfigs/status"]
    for number in range(30):
        await cluster.add(f"more-{number}")
        await asyncio.sleep(0.1)
    await until(lambda: live.told.get("servicesHealthy") == 32)
    took = time.monotonic() - began
    assert cluster.requests["patch", "toolsetconfigs/status"] - before <= took / 2 + 1


async def test_a_strangers_edit_is_put_right_at_the_next_change(live: Live, cluster: Cluster) -> None:
    await live.apply(healthCheck=QUICK)
    await until(lambda: live.told)
    target = Target(TOOLSET_CONFIGS, *TARGET, status=True)
    cluster.sandbox._writer.patch(target, {"status": {"phase": "Lost", "servicesHealthy": 99}}, "somebody")
    await cluster.add("c")
    await until(lambda: (live.told["phase"], live.told["servicesHealthy"]) == ("Ready", 3))


async def test_a_status_that_nobody_can_read_keeps_no_spec_out(live: Live, cluster: Cluster) -> None:
    await live.apply(requireAnnotations=True)
    await until(lambda: live.told)
    target = Target(TOOLSET_CONFIGS, *TARGET, status=True)
    cluster.sandbox._writer.patch(target, {"status": {"conditions": "none", "phase": 3}}, "somebody")
    await live.apply(namespaces=OUT)
    await until(lambda: cluster.listed == set())
    await until(lambda: live.told["phase"] == "Ready")


async def test_one_that_nobody_uses_is_told_so_and_that_of_another_instance_is_left_alone(
    live: Live, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_status, "UNCLAIMED_FOR", 0.5)
    await live.apply("taken")
    theirs = {"phase": "Ready", "observedGeneration": 1}
    cluster.sandbox._writer.patch(
        Target(TOOLSET_CONFIGS, TARGET.namespace, "taken", status=True), {"status": theirs}, "x"
    )
    await live.apply("idle")
    await live.apply(healthCheck=QUICK)
    found = await until(lambda: live.of("idle").get("status"))
    assert found["phase"] == "Ignored"
    [ready] = found["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "NotInUse")
    assert TARGET.name in ready["message"]
    await live.apply("taken", requireAnnotations=True)
    await asyncio.sleep(1)
    assert live.of("taken")["status"] == theirs


@pytest.mark.parametrize(
    "error", [Forbidden(403, "Forbidden", "no"), Invalid(422, "Invalid", "no"), BadRequest(400, "BadRequest", "no")]
)
async def test_that_of_another_that_nobody_may_write_is_not_in_the_way_of_ours(
    live: Live, monkeypatch: pytest.MonkeyPatch, error: KubernetesError
) -> None:
    monkeypatch.setattr(resource_status, "UNCLAIMED_FOR", 0.1)
    monkeypatch.setattr(status_writer, "PAUSE", 0.05)
    client = live.status._writer._client
    apply, tried = client.apply, list[str]()

    async def refused(resource: Any, key: ObjectKey, *arguments: Any, **options: Any) -> Any:
        if key.name == "idle":
            tried.append(key.name)
            raise error
        return await apply(resource, key, *arguments, **options)

    monkeypatch.setattr(client, "apply", refused)
    await live.apply("idle")
    await until(lambda: bool(tried))
    for number in range(3):
        await live.apply(clusterDomain=f"c{number}.example")
        await until(lambda number=number: live.told.get("observedGeneration") == number + 1)
    assert not live.problems
    assert len(tried) == 1


async def test_a_status_that_cannot_be_written_harms_nothing_and_is_told(
    live: Live, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_writer, "PAUSE", 0.05)

    async def refused(*_: Any, **__: Any) -> Any:
        raise Forbidden(403, "Forbidden", "may not patch toolsetconfigs/status")

    with monkeypatch.context() as during:
        during.setattr(live.status._writer._client, "apply", refused)
        await live.apply(requireAnnotations=True)
        await until(lambda: "may not patch" in live.problems.get("StatusNotWritten", ""))
    await cluster.add("c")
    await until(lambda: cluster.listed == {"a", "b", "c"})
    await until(lambda: live.told.get("phase") == "Ready")
    await until(lambda: "StatusNotWritten" not in live.problems)
