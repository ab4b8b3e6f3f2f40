"""What the sandbox does beyond the contract: its bounds, its counters and its Python methods."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.reading import QUEUE_LENGTH
from dynamic_toolset.sandbox.status import StatusError

MAPS = "/api/v1/namespaces/default/configmaps"
DEADLINE = 10.0


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def service(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}], **spec}}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
        yield session


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


async def get(http: aiohttp.ClientSession, sandbox: Sandbox, path: str, **query: Any) -> tuple[int, Any]:
    async with http.get(sandbox.url + path, params=query) as response:
        return response.status, await response.json()


async def event(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    async with asyncio.timeout(DEADLINE):
        line = json.loads(await response.content.readline())
    return line["type"], line["object"]


# --- Bounds ----------------------------------------------------------------------------------------------------------


async def test_a_watch_from_before_the_history_is_told_so_in_the_stream(http: aiohttp.ClientSession) -> None:
    async with Sandbox(history=2) as sandbox:
        first = await sandbox.put(config_map("a"))
        for name in "bcd":
            last = await sandbox.put(config_map(name))
        version = first["metadata"]["resourceVersion"]
        async with http.get(sandbox.url + MAPS, params={"watch": "1", "resourceVersion": version}) as response:
            assert response.status == 200
            kind, status = await event(response)
            assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
            assert await response.content.read() == b""
        known = str(int(last["metadata"]["resourceVersion"]) - 2)
        async with http.get(sandbox.url + MAPS, params={"watch": "1", "resourceVersion": known}) as response:
            assert [(await event(response))[1]["metadata"]["name"] for _ in range(2)] == ["c", "d"]


async def test_a_page_of_a_forgotten_state_is_gone(http: aiohttp.ClientSession) -> None:
    async with Sandbox(history=2) as sandbox:
        for name in "abc":
            await sandbox.put(config_map(name))
        _, page = await get(http, sandbox, MAPS, limit=1)
        token = page["metadata"]["continue"]
        await sandbox.put(config_map("d"))
        await sandbox.put(config_map("e"))
        assert (await get(http, sandbox, MAPS, limit=1, **{"continue": token}))[0] == 200
        await sandbox.put(config_map("f"))
        status, body = await get(http, sandbox, MAPS, limit=1, **{"continue": token})
        assert (status, body["reason"]) == (410, "Expired")


async def test_a_watcher_that_does_not_read_is_dropped(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    async with (
        http.get(sandbox.url + MAPS, params={"watch": "1"}) as slow,
        http.get(sandbox.url + MAPS, params={"watch": "1"}) as quick,
    ):
        reader = asyncio.create_task(_names(quick, QUEUE_LENGTH * 2))
        text = "x" * 10_000  # enough for the socket's buffers to fill up
        for number in range(QUEUE_LENGTH * 2):
            await sandbox.put(config_map(f"a{number}", key=text))
        async with asyncio.timeout(DEADLINE):
            assert len(await reader) == QUEUE_LENGTH * 2
            with pytest.raises(aiohttp.ClientError):
                await slow.read()


async def _names(response: aiohttp.ClientResponse, count: int) -> list[str]:
    return [(await event(response))[1]["metadata"]["name"] for _ in range(count)]


async def test_a_quiet_watch_gets_bookmarks_if_it_asks(http: aiohttp.ClientSession) -> None:
    async with Sandbox(bookmark_interval=0.02) as sandbox:
        params = {"watch": "1", "resourceVersion": "4", "allowWatchBookmarks": "true"}
        async with http.get(sandbox.url + MAPS, params=params) as response:
            assert (await event(response))[0] == "BOOKMARK"
            other = await sandbox.put(service("a"))
            version = other["metadata"]["resourceVersion"]
            while (told := await event(response))[1]["metadata"]["resourceVersion"] != version:
                assert told[0] == "BOOKMARK"
            assert told == (
                "BOOKMARK",
                {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": version}},
            )
        params = {"watch": "1", "resourceVersion": "4", "timeoutSeconds": "1"}
        async with http.get(sandbox.url + MAPS, params=params) as response:
            assert await response.read() == b""


async def test_it_stops_at_once_and_ends_its_watches_in_good_order(http: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        response = await http.get(sandbox.url + MAPS, params={"watch": "1"})
        await sandbox.put(config_map("a"))
        started = time.monotonic()
    assert time.monotonic() - started < 5
    lines = (await response.read()).splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["ADDED"]


async def test_a_range_of_addresses_can_be_used_up() -> None:
    async with Sandbox(cluster_ip="127.96.0.0/30") as sandbox:
        given = {(await sandbox.put(service(name)))["spec"]["clusterIP"] for name in "abc"}
        assert given == {"127.96.0.1", "127.96.0.2", "127.96.0.3"}
        with pytest.raises(StatusError, match="range is full"):
            await sandbox.put(service("d"))
        await sandbox.delete("Service", "default", "b")
        assert (await sandbox.put(service("d")))["spec"]["clusterIP"] in given


# --- Settings --------------------------------------------------------------------------------------------------------


async def test_by_default_all_services_share_the_loopback_address(sandbox: Sandbox) -> None:
    for name, spec in (("a", {}), ("b", {"clusterIP": "127.0.0.1"})):
        assert (await sandbox.put(service(name, **spec)))["spec"]["clusterIP"] == "127.0.0.1"
    with pytest.raises(StatusError, match="does not match the current range"):
        await sandbox.put(service("c", clusterIP="127.0.0.2"))


async def test_without_a_token_nobody_is_asked_for_one(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    assert (await get(http, sandbox, MAPS))[0] == 200


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic secret", "secret"])
async def test_with_a_token_everybody_is(http: aiohttp.ClientSession, header: str) -> None:
    async with Sandbox(token="secret") as sandbox:
        for path in (MAPS, "/version", "/nowhere"):
            async with http.get(sandbox.url + path, headers={"Authorization": header}) as response:
                assert response.status == 401
                assert (await response.json())["reason"] == "Unauthorized"


async def test_requests_are_counted_by_verb_and_resource(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    await sandbox.put(config_map("a"))
    await get(http, sandbox, MAPS)
    await get(http, sandbox, f"{MAPS}/a")
    await get(http, sandbox, f"{MAPS}/none")
    await get(http, sandbox, "/api/v1/services", watch="true", timeoutSeconds="1", resourceVersion="abc")
    async with http.patch(
        f"{sandbox.url}{MAPS}/a",
        params={"fieldManager": "me"},
        json={"apiVersion": "v1", **config_map("a")},
        headers={"Content-Type": "application/apply-patch+yaml"},
    ) as response:
        assert response.status == 200
    await get(http, sandbox, "/version")
    assert sandbox.requests == {
        ("list", "configmaps"): 1,
        ("get", "configmaps"): 2,
        ("watch", "services"): 1,
        ("patch", "configmaps"): 1,
    }


async def test_what_it_does_not_know_is_refused_not_ignored(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    await sandbox.put(config_map("a", key="1"))
    async with http.delete(f"{sandbox.url}{MAPS}/a", params={"dryRun": "All"}) as response:
        assert response.status == 400
    json_patch = [{"op": "remove", "path": "/data/key"}]
    async with http.patch(
        f"{sandbox.url}{MAPS}/a", json=json_patch, headers={"Content-Type": "application/json-patch+json"}
    ) as response:
        assert response.status == 415
    assert (await sandbox.get("ConfigMap", "default", "a") or {})["data"] == {"key": "1"}
    async with http.post(f"{sandbox.url}/version", json={}) as response:
        assert response.status == 405


async def test_health_is_told_in_text(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    async with http.get(f"{sandbox.url}/readyz") as response:
        assert (response.status, await response.text()) == (200, "ok")


# --- Python methods --------------------------------------------------------------------------------------------------


async def test_put_creates_then_replaces(sandbox: Sandbox) -> None:
    first = await sandbox.put(config_map("a", key="1"))
    second = await sandbox.put(config_map("a", key="2"))
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert await sandbox.get("ConfigMap", "default", "a") == second
    assert second["data"] == {"key": "2"}
    assert sandbox.requests == {}


async def test_patch_names_its_manager(sandbox: Sandbox) -> None:
    await sandbox.put(config_map("a", key="0"))
    after = await sandbox.patch("ConfigMap", "default", "a", {"data": {"key": "1"}}, manager="kubectl-edit")
    assert {entry["manager"] for entry in after["metadata"]["managedFields"]} == {"kubectl-edit", "sandbox"}


async def test_delete(sandbox: Sandbox) -> None:
    await sandbox.put(config_map("a"))
    await sandbox.delete("ConfigMap", "default", "a")
    assert await sandbox.get("ConfigMap", "default", "a") is None
    with pytest.raises(StatusError) as refused:
        await sandbox.delete("ConfigMap", "default", "a")
    assert refused.value.code == 404


async def test_what_is_stored_does_not_change_with_what_was_given(sandbox: Sandbox) -> None:
    given = config_map("a", key="1")
    await sandbox.put(given)
    given["data"]["key"] = "2"
    assert (await sandbox.get("ConfigMap", "default", "a") or {})["data"] == {"key": "1"}


async def test_there_are_no_shortcuts_around_the_rules(sandbox: Sandbox) -> None:
    with pytest.raises(StatusError, match="is invalid"):
        await sandbox.put(config_map("Upper"))
    with pytest.raises(StatusError, match=r'namespaces "none" not found'):
        await sandbox.put({"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "none"}})
    with pytest.raises(ValueError, match="'Pod'"):
        await sandbox.get("Pod", "default", "a")


async def test_a_namespace_takes_its_objects_along(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    await sandbox.put({"kind": "Namespace", "metadata": {"name": "shop"}})
    moved = {"name": "a", "namespace": "shop"}
    await sandbox.put({"kind": "ConfigMap", "metadata": moved})
    await sandbox.put(config_map("a"))
    async with http.get(sandbox.url + "/api/v1/configmaps", params={"watch": "1"}) as response:
        assert [(await event(response))[1]["metadata"]["namespace"] for _ in range(2)] == ["default", "shop"]
        await sandbox.delete("Namespace", "", "shop")
        kind, obj = await event(response)
        assert (kind, obj["metadata"]["namespace"]) == ("DELETED", "shop")
    assert await sandbox.get("Namespace", "", "shop") is None
    assert await sandbox.get("ConfigMap", "default", "a") is not None
