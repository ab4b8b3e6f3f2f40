"""The contract: what our code relies on in a Kubernetes API, as tests that run against the real one and the sandbox.

A test module takes them in with ``from tests.contract.suite import *`` and defines two fixtures: ``kubernetes_api``,
whose value is an ``ApiAddress``, and ``account``, whose value is an ``Account``. The identity behind the token of the
first must be allowed everything. Each test works in a namespace of its own. Spoken is plain HTTP through aiohttp, not
the client of the project, so that both can be wrong on their own.
"""

import asyncio
import io
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

DEADLINE = 10.0
JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiAddress(NamedTuple):
    """Where an API is, and how to get in. ``ca_file`` is None for plain HTTP, ``token`` where none is asked for."""

    url: str
    token: str | None = None
    ca_file: str | None = None


class Account(NamedTuple):
    """Somebody who may ``get`` the paths /contract/one and /contract/tree/*, and use no other that begins so.

    ``token`` is one of hers for the audience ``contract``, ``other_token`` for another.
    """

    username: str
    groups: set[str]
    token: str
    other_token: str


# --- A small client --------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    body: Any

    @property
    def reason(self) -> str | None:
        return self.body.get("reason") if self.body["kind"] == "Status" else None

    @property
    def version(self) -> str:
        return self.body["metadata"]["resourceVersion"]

    @property
    def fields_wrong(self) -> list[str]:
        return [cause["field"] for cause in self.body["details"]["causes"]]


class Stream:
    """A watch that is open."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._lines = response.content

    async def event(self) -> tuple[str, dict[str, Any]]:
        """Return type and object of the next event; fails if there is none in time."""
        async with asyncio.timeout(DEADLINE):
            line = await self._lines.readline()
        assert line, "the watch ended"
        event = json.loads(line)
        return event["type"], event["object"]

    async def events(self, count: int) -> list[tuple[str, str]]:
        """Return type and name of the next events."""
        return [(kind, obj["metadata"]["name"]) for kind, obj in [await self.event() for _ in range(count)]]

    async def rest(self) -> list[tuple[str, str]]:
        """Return type and name of all events up to the end of the watch."""
        async with asyncio.timeout(DEADLINE):
            lines = (await self._lines.read()).splitlines()
        events = map(json.loads, lines)
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


class Client:
    def __init__(self, session: aiohttp.ClientSession, address: ApiAddress) -> None:
        self._session = session
        self._url = address.url
        self._ssl = ssl.create_default_context(cafile=address.ca_file) if address.ca_file else True

    async def send(
        self, method: str, path: str, body: Any = None, content_type: str = JSON, token: str = "", **query: str | int
    ) -> Answer:
        text = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        data = None if text is None else io.BytesIO(text)  # of large bytes aiohttp warns
        headers = {"Content-Type": content_type} if data else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.request(
            method, self._url + path, data=data, headers=headers, params=query, ssl=self._ssl
        ) as response:
            return Answer(response.status, await response.json())

    async def get(self, path: str, **query: str | int) -> Answer:
        return await self.send("GET", path, **query)

    async def post(self, path: str, body: Any, **query: str | int) -> Answer:
        return await self.send("POST", path, body, **query)

    async def put(self, path: str, body: Any, **query: str | int) -> Answer:
        return await self.send("PUT", path, body, **query)

    async def merge(self, path: str, body: Any, **query: str | int) -> Answer:
        return await self.send("PATCH", path, body, MERGE, **query)

    async def apply(self, path: str, body: Any, manager: str, **query: str | int) -> Answer:
        return await self.send("PATCH", path, body, APPLY, fieldManager=manager, **query)

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.send("DELETE", path, body)

    @asynccontextmanager
    async def watch(self, path: str, **query: str | int) -> AsyncIterator[Stream]:
        params = {"watch": "true", **query}
        async with self._session.get(self._url + path, params=params, ssl=self._ssl) as response:
            yield Stream(response)


@pytest.fixture
async def client(kubernetes_api: ApiAddress) -> AsyncIterator[Client]:
    headers = {"User-Agent": "contract/1.0"}
    if kubernetes_api.token:
        headers["Authorization"] = f"Bearer {kubernetes_api.token}"
    timeout = aiohttp.ClientTimeout(total=None, connect=DEADLINE, sock_read=DEADLINE)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=1 << 22) as session:
        yield Client(session, kubernetes_api)


@pytest.fixture
async def namespace(client: Client) -> AsyncIterator[str]:
    """The path of a new namespace."""
    name = f"contract-{secrets.token_hex(4)}"
    created = await client.post("/api/v1/namespaces", {"metadata": {"name": name}})
    assert created.status == 201
    yield f"/api/v1/namespaces/{name}"
    await client.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def maps(namespace: str) -> str:
    """The path of the ConfigMaps of the new namespace."""
    return f"{namespace}/configmaps"


@pytest.fixture
def services(namespace: str) -> str:
    return f"{namespace}/services"


@pytest.fixture
def leases(namespace: str) -> str:
    return namespace.replace("/api/v1", "/apis/coordination.k8s.io/v1") + "/leases"


@pytest.fixture
def slices(namespace: str) -> str:
    return namespace.replace("/api/v1", "/apis/discovery.k8s.io/v1") + "/endpointslices"


def config_map(name: str, data: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    return obj if data is None else {**obj, "data": data}


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def lease(name: str, holder: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, **metadata},
        "spec": {"holderIdentity": holder},
    }


def owners(answer: Answer) -> dict[tuple[str, str], Any]:
    """Return the fields of each manager, by manager and operation."""
    entries = answer.body["metadata"].get("managedFields", [])
    assert all(entry["fieldsType"] == "FieldsV1" for entry in entries)
    return {(entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in entries}


# --- The API as a whole ----------------------------------------------------------------------------------------------


class TestApi:
    async def test_it_tells_its_version_and_its_groups(self, client: Client) -> None:
        assert (await client.get("/version")).body["major"] == "1"
        groups = (await client.send("GET", "/apis")).body["groups"]
        assert {"coordination.k8s.io", "discovery.k8s.io"} <= {group["name"] for group in groups}

    @pytest.mark.parametrize(
        ("path", "names"),
        [
            ("/api/v1", {"namespaces", "services", "configmaps"}),
            ("/apis/coordination.k8s.io/v1", {"leases"}),
            ("/apis/discovery.k8s.io/v1", {"endpointslices"}),
            ("/apis/authentication.k8s.io/v1", {"tokenreviews"}),
            ("/apis/authorization.k8s.io/v1", {"subjectaccessreviews"}),
        ],
    )
    async def test_it_tells_its_resources(self, client: Client, path: str, names: set[str]) -> None:
        assert names <= {resource["name"] for resource in (await client.get(path)).body["resources"]}

    async def test_a_resource_that_is_not_served_is_not_found(self, client: Client, namespace: str) -> None:
        for path in ("/api/v1/toasters", f"{namespace}/toasters", "/apis/kitchen.example/v1/toasters"):
            async with client._session.get(client._url + path, ssl=client._ssl) as response:
                assert response.status == 404

    async def test_methods_have_their_places(self, client: Client, namespace: str, maps: str) -> None:
        for method, path in (("PUT", maps), ("POST", f"{maps}/a"), ("POST", "/api/v1/configmaps")):
            answer = await client.send(method, path, config_map("a"))
            assert (answer.status, answer.reason) == (405, "MethodNotAllowed")

    async def test_a_wrong_token_is_unauthorized(self, client: Client, kubernetes_api: ApiAddress, maps: str) -> None:
        if kubernetes_api.token is None:
            pytest.skip("this API lets everybody in")
        answer = await client.send("GET", maps, token="wrong")
        assert (answer.status, answer.reason) == (401, "Unauthorized")


# --- Create and get --------------------------------------------------------------------------------------------------


class TestCreate:
    async def test_the_server_adds_identity_and_version(self, client: Client, namespace: str, maps: str) -> None:
        created = await client.post(maps, config_map("a", {"key": "text"}, labels={"team": "sre"}))
        assert created.status == 201
        assert created.body["data"] == {"key": "text"}
        metadata = created.body["metadata"]
        assert metadata["namespace"] == namespace.rpartition("/")[2]
        assert metadata["labels"] == {"team": "sre"}
        assert len(metadata["uid"]) == 36
        assert metadata["creationTimestamp"].endswith("Z")
        assert int(metadata["resourceVersion"]) > 0
        assert "generation" not in metadata

    async def test_what_was_created_can_be_got(self, client: Client, maps: str) -> None:
        created = await client.post(maps, config_map("a", {"key": "text"}))
        assert await client.get(f"{maps}/a") == (200, created.body)

    async def test_kind_and_version_may_be_left_out(self, client: Client, maps: str) -> None:
        created = await client.post(maps, {"metadata": {"name": "a"}})
        assert (created.body["kind"], created.body["apiVersion"]) == ("ConfigMap", "v1")

    async def test_unknown_fields_are_dropped_and_null_is_empty(self, client: Client, maps: str) -> None:
        created = await client.post(maps, config_map("a", {"key": None}) | {"colour": "red"})
        assert created.body["data"] == {"key": ""}
        assert "colour" not in created.body

    async def test_resource_versions_grow_over_all_kinds(self, client: Client, maps: str, services: str) -> None:
        first = await client.post(maps, config_map("a"))
        second = await client.post(services, service("b", ports=[{"port": 80}]))
        third = await client.post(maps, config_map("c"))
        assert int(first.version) < int(second.version) < int(third.version)

    async def test_a_name_is_taken_once(self, client: Client, maps: str) -> None:
        first = await client.post(maps, config_map("a"))
        again = await client.post(maps, config_map("a"))
        assert (again.status, again.reason) == (409, "AlreadyExists")
        assert again.body["message"] == 'configmaps "a" already exists'
        assert again.body["details"] == {"name": "a", "kind": "configmaps"}
        assert (await client.get(f"{maps}/a")).version == first.version

    async def test_a_deleted_name_comes_back_as_another_object(self, client: Client, maps: str) -> None:
        first = await client.post(maps, config_map("a"))
        await client.delete(f"{maps}/a")
        second = await client.post(maps, config_map("a"))
        assert second.body["metadata"]["uid"] != first.body["metadata"]["uid"]

    async def test_a_missing_object_says_what_is_missing(self, client: Client, maps: str, leases: str) -> None:
        answer = await client.get(f"{maps}/none")
        assert (answer.status, answer.reason) == (404, "NotFound")
        assert answer.body["status"] == "Failure"
        assert answer.body["code"] == 404
        assert answer.body["details"] == {"name": "none", "kind": "configmaps"}
        grouped = await client.get(f"{leases}/none")
        assert grouped.body["details"] == {"name": "none", "group": "coordination.k8s.io", "kind": "leases"}

    async def test_a_namespace_must_be_there(self, client: Client) -> None:
        answer = await client.post("/api/v1/namespaces/contract-none/configmaps", config_map("a"))
        assert (answer.status, answer.reason) == (404, "NotFound")
        assert answer.body["details"] == {"name": "contract-none", "kind": "namespaces"}

    async def test_a_namespace_must_not_be_another(self, client: Client, maps: str) -> None:
        answer = await client.post(maps, config_map("a", namespace="other"))
        assert (answer.status, answer.reason) == (400, "BadRequest")

    async def test_a_version_cannot_be_chosen(self, client: Client, maps: str) -> None:
        assert (await client.post(maps, config_map("a", resourceVersion="5"))).status == 500

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (config_map("Upper"), "metadata.name"),
            (config_map("under_score"), "metadata.name"),
            (config_map("-dash"), "metadata.name"),
            (config_map("x" * 254), "metadata.name"),
            ({"metadata": {}}, "metadata.name"),
            (config_map("a", labels={"a b": "c"}), "metadata.labels"),
            (config_map("a", labels={"a": "b c"}), "metadata.labels"),
            (config_map("a", labels={"a": "x" * 64}), "metadata.labels"),
            (config_map("a", labels={"not_dns/a": "b"}), "metadata.labels"),
            (config_map("a", annotations={"a b": "any text"}), "metadata.annotations"),
            (config_map("a", {"a/b": "c"}), "data[a/b]"),
            (config_map("a", {"key": "x" * ((1 << 20) + 1)}), "[]"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    async def test_an_invalid_object_says_which_field(
        self, client: Client, maps: str, body: dict[str, Any], field: str
    ) -> None:
        answer = await client.post(maps, body)
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert answer.body["details"]["kind"] == "ConfigMap"
        assert field in answer.fields_wrong
        assert field in answer.body["message"]

    async def test_a_config_map_may_hold_one_mebibyte(self, client: Client, maps: str) -> None:
        assert (await client.post(maps, config_map("a", {"key": "x" * (1 << 20)}))).status == 201

    async def test_names_may_be_long_and_dotted(self, client: Client, maps: str) -> None:
        assert (await client.post(maps, config_map("a." + "x" * 251))).status == 201

    @pytest.mark.parametrize(
        ("body", "content_type", "status", "reason"),
        [
            (b"{broken", JSON, 400, "BadRequest"),
            (b"[]", JSON, 400, "BadRequest"),
            ({"metadata": "a"}, JSON, 400, "BadRequest"),
            ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}, JSON, 400, "BadRequest"),
            (config_map("a", {"key": 1}), JSON, 400, "BadRequest"),
            (config_map("a"), "text/plain", 415, "UnsupportedMediaType"),
            (config_map("a", {"key": "x" * (3 << 20)}), JSON, 413, "RequestEntityTooLarge"),
        ],
        ids=["broken", "no object", "no metadata", "other kind", "number", "media type", "too large"],
    )
    async def test_a_body_that_is_none(
        self, client: Client, maps: str, body: Any, content_type: str, status: int, reason: str
    ) -> None:
        answer = await client.send("POST", maps, body, content_type)
        assert (answer.status, answer.reason) == (status, reason)

    async def test_a_creator_owns_what_it_sent(self, client: Client, maps: str) -> None:
        created = await client.post(maps, config_map("a", {"key": "x"}), fieldManager="me")
        assert owners(created) == {("me", "Update"): {"f:data": {".": {}, "f:key": {}}}}

    async def test_an_owner_without_a_name_is_called_like_its_program(self, client: Client, maps: str) -> None:
        assert owners(await client.post(maps, config_map("a", {"key": "x"}))).keys() == {("contract", "Update")}


# --- Update ----------------------------------------------------------------------------------------------------------


class TestUpdate:
    async def test_it_replaces_the_object_and_keeps_its_identity(self, client: Client, maps: str) -> None:
        before = await client.post(maps, config_map("a", {"old": "1"}, labels={"l": "1"}))
        after = await client.put(f"{maps}/a", config_map("a", {"new": "2"}))
        assert after.status == 200
        assert after.body["data"] == {"new": "2"}
        assert "labels" not in after.body["metadata"]
        assert int(after.version) > int(before.version)
        for field in ("uid", "creationTimestamp"):
            assert after.body["metadata"][field] == before.body["metadata"][field]

    async def test_a_version_is_a_precondition(self, client: Client, maps: str) -> None:
        old = await client.post(maps, config_map("a", {"key": "1"}))
        new = await client.put(f"{maps}/a", config_map("a", {"key": "2"}, resourceVersion=old.version))
        late = await client.put(f"{maps}/a", config_map("a", {"key": "3"}, resourceVersion=old.version))
        assert new.status == 200
        assert (late.status, late.reason) == (409, "Conflict")
        assert late.body["details"] == {"name": "a", "kind": "configmaps"}
        assert (await client.get(f"{maps}/a")).body["data"] == {"key": "2"}

    async def test_nothing_new_is_no_new_version(self, client: Client, maps: str) -> None:
        before = await client.post(maps, config_map("a", {"key": "1"}))
        assert (await client.put(f"{maps}/a", config_map("a", {"key": "1"}))).version == before.version

    async def test_it_creates_some_kinds_but_not_most(self, client: Client, maps: str, services: str) -> None:
        assert (await client.put(f"{maps}/a", config_map("a"))).status == 404
        assert (await client.put(f"{services}/a", service("a", ports=[{"port": 80}]))).status == 201

    async def test_name_and_identity_must_fit(self, client: Client, maps: str) -> None:
        await client.post(maps, config_map("a"))
        assert (await client.put(f"{maps}/a", config_map("b"))).status == 400
        assert (await client.put(f"{maps}/a", config_map("a", namespace="other"))).status == 400
        assert (await client.put(f"{maps}/a", config_map("a", uid="another"))).status == 409

    async def test_it_is_validated(self, client: Client, maps: str) -> None:
        await client.post(maps, config_map("a"))
        assert (await client.put(f"{maps}/a", config_map("a", {"a/b": ""}))).status == 422

    async def test_a_lease_needs_a_version_and_may_be_created(self, client: Client, leases: str) -> None:
        created = await client.put(f"{leases}/a", lease("a", "me"))
        assert created.status == 201
        blind = await client.put(f"{leases}/a", lease("a", "me"))
        assert (blind.status, blind.reason) == (422, "Invalid")
        assert blind.fields_wrong == ["metadata.resourceVersion"]
        renewed = await client.put(f"{leases}/a", lease("a", "you", resourceVersion=created.version))
        assert renewed.body["spec"] == {"holderIdentity": "you"}
        late = await client.put(f"{leases}/a", lease("a", "me", resourceVersion=created.version))
        assert (late.status, late.reason) == (409, "Conflict")


# --- Merge patch -----------------------------------------------------------------------------------------------------


class TestPatch:
    @pytest.mark.parametrize("content_type", [MERGE, STRATEGIC])
    async def test_it_changes_what_it_names_and_null_removes(
        self, client: Client, maps: str, content_type: str
    ) -> None:
        await client.post(maps, config_map("a", {"keep": "1", "drop": "2"}, labels={"l": "1"}))
        patch = {"data": {"drop": None, "add": "3"}, "metadata": {"annotations": {"note": "x"}}}
        after = await client.send("PATCH", f"{maps}/a", patch, content_type)
        assert after.status == 200
        assert after.body["data"] == {"keep": "1", "add": "3"}
        assert after.body["metadata"]["labels"] == {"l": "1"}
        assert after.body["metadata"]["annotations"] == {"note": "x"}

    async def test_a_map_without_keys_is_gone(self, client: Client, maps: str) -> None:
        await client.post(maps, config_map("a", {"drop": "1"}, labels={"l": "1"}))
        after = await client.merge(f"{maps}/a", {"data": {"drop": None}, "metadata": {"labels": None}})
        assert "data" not in after.body
        assert "labels" not in after.body["metadata"]

    async def test_nothing_new_is_no_new_version(self, client: Client, maps: str) -> None:
        before = await client.post(maps, config_map("a", {"key": "1"}))
        assert (await client.merge(f"{maps}/a", {"data": {"key": "1"}})).version == before.version
        assert (await client.merge(f"{maps}/a", {})).version == before.version

    async def test_a_version_is_a_precondition(self, client: Client, maps: str) -> None:
        old = await client.post(maps, config_map("a", {"key": "1"}))
        patch = {"metadata": {"resourceVersion": old.version}, "data": {"key": "2"}}
        assert (await client.merge(f"{maps}/a", patch)).status == 200
        late = await client.merge(f"{maps}/a", patch)
        assert (late.status, late.reason) == (409, "Conflict")

    async def test_it_creates_nothing(self, client: Client, maps: str) -> None:
        assert (await client.merge(f"{maps}/a", {"data": {}})).status == 404

    @pytest.mark.parametrize(
        ("patch", "status"),
        [(b"[]", 400), (b"{", 400), ({"metadata": {"name": "b"}}, 400), ({"data": {"key": 5}}, 422)],
        ids=["list", "broken", "rename", "number"],
    )
    async def test_a_patch_that_is_none(self, client: Client, maps: str, patch: Any, status: int) -> None:
        await client.post(maps, config_map("a"))
        assert (await client.merge(f"{maps}/a", patch)).status == status

    async def test_plain_json_is_no_patch(self, client: Client, maps: str) -> None:
        await client.post(maps, config_map("a"))
        answer = await client.send("PATCH", f"{maps}/a", {}, JSON)
        assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


# --- Delete ----------------------------------------------------------------------------------------------------------


class TestDelete:
    async def test_most_kinds_answer_with_a_status(self, client: Client, maps: str) -> None:
        created = await client.post(maps, config_map("a"))
        answer = await client.delete(f"{maps}/a")
        assert (answer.status, answer.body["status"]) == (200, "Success")
        assert answer.body["details"]["uid"] == created.body["metadata"]["uid"]
        assert (await client.get(f"{maps}/a")).status == 404

    async def test_a_service_is_answered_itself(self, client: Client, services: str) -> None:
        created = await client.post(services, service("a", ports=[{"port": 80}]))
        answer = await client.delete(f"{services}/a")
        assert (answer.status, answer.body["kind"]) == (200, "Service")
        assert int(answer.version) > int(created.version)

    async def test_what_is_not_there_is_not_found(self, client: Client, maps: str) -> None:
        answer = await client.delete(f"{maps}/a")
        assert (answer.status, answer.reason) == (404, "NotFound")

    @pytest.mark.parametrize("preconditions", [{"uid": "another"}, {"resourceVersion": "1"}])
    async def test_preconditions(self, client: Client, maps: str, preconditions: dict[str, str]) -> None:
        await client.post(maps, config_map("a"))
        answer = await client.delete(f"{maps}/a", {"preconditions": preconditions})
        assert (answer.status, answer.reason) == (409, "Conflict")
        assert (await client.get(f"{maps}/a")).status == 200


# --- List ------------------------------------------------------------------------------------------------------------


def names(answer: Answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.body["items"]]


class TestList:
    async def test_items_are_sorted_and_do_not_repeat_their_kind(self, client: Client, maps: str) -> None:
        for name in ("b", "a", "c"):
            last = await client.post(maps, config_map(name))
        answer = await client.get(maps)
        assert names(answer) == ["a", "b", "c"]
        assert (answer.body["kind"], answer.body["apiVersion"]) == ("ConfigMapList", "v1")
        assert not any("kind" in item for item in answer.body["items"])
        assert int(answer.version) >= int(last.version)

    async def test_all_namespaces_or_one(self, client: Client, namespace: str, maps: str) -> None:
        await client.post(maps, config_map("a"))
        everywhere = await client.get("/api/v1/configmaps")
        name = namespace.rpartition("/")[2]
        assert [
            item["metadata"]["name"] for item in everywhere.body["items"] if item["metadata"]["namespace"] == name
        ] == ["a"]
        nowhere = await client.get("/api/v1/namespaces/contract-none/configmaps")
        assert (nowhere.status, nowhere.body["items"]) == (200, [])

    async def test_pages_show_the_state_at_which_the_list_began(self, client: Client, maps: str) -> None:
        for name in "abcde":
            await client.post(maps, config_map(name, {"key": "old"}))
        first = await client.get(maps, limit=2)
        assert names(first) == ["a", "b"]
        assert first.body["metadata"]["remainingItemCount"] == 3
        await client.delete(f"{maps}/c")
        await client.merge(f"{maps}/d", {"data": {"key": "new"}})
        await client.post(maps, config_map("f"))
        second = await client.get(maps, limit=2, **{"continue": first.body["metadata"]["continue"]})
        third = await client.get(maps, limit=2, **{"continue": second.body["metadata"]["continue"]})
        assert names(second) + names(third) == ["c", "d", "e"]
        assert second.body["items"][1]["data"] == {"key": "old"}
        assert "continue" not in third.body["metadata"]
        assert first.version == second.version == third.version
        assert names(await client.get(maps)) == ["a", "b", "d", "e", "f"]

    async def test_a_limit_that_suffices_makes_one_page(self, client: Client, maps: str) -> None:
        await client.post(maps, config_map("a"))
        for limit in (1, 2, -1):
            answer = await client.get(maps, limit=limit)
            assert names(answer) == ["a"]
            assert not answer.body["metadata"].get("continue")

    async def test_version_zero_knows_no_limit(self, client: Client, maps: str) -> None:
        created = [await client.post(maps, config_map(name)) for name in "abc"]
        async with asyncio.timeout(DEADLINE):  # it may be answered from a cache that lags behind
            while int((answer := await client.get(maps, limit=1, resourceVersion="0")).version) < int(
                created[-1].version
            ):
                await asyncio.sleep(0.01)
        assert names(answer) == ["a", "b", "c"]

    async def test_a_version_of_the_future_is_a_timeout(self, client: Client, maps: str) -> None:
        answer = await client.get(maps, resourceVersion="999999999")
        assert (answer.status, answer.reason) == (504, "Timeout")

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": "many"},
            {"limit": 1, "continue": "garbage"},
            {"resourceVersion": "new"},
            {"labelSelector": "a b=c"},
            {"labelSelector": "a in"},
            {"labelSelector": "=a"},
            {"fieldSelector": "nonsense"},
            {"fieldSelector": "data.key=1"},
        ],
        ids=str,
    )
    async def test_a_question_that_is_none(self, client: Client, maps: str, query: dict[str, str | int]) -> None:
        answer = await client.get(maps, **query)
        assert (answer.status, answer.reason) == (400, "BadRequest")

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("app=x", ["a"]),
            ("app==x", ["a"]),
            ("app!=x", ["b", "c"]),
            ("app", ["a", "b"]),
            ("!app", ["c"]),
            ("app in (x, y)", ["a", "b"]),
            ("app notin (x)", ["b", "c"]),
            ("app in (x,y),tier!=2", ["a"]),
            ("example.com/tier=1", ["a"]),
            ("app=", []),
            ("", ["a", "b", "c"]),
        ],
    )
    async def test_labels_select(self, client: Client, maps: str, selector: str, expected: list[str]) -> None:
        labels = {"a": {"app": "x", "example.com/tier": "1"}, "b": {"app": "y", "tier": "2"}, "c": {}}
        for name in labels:
            await client.post(maps, config_map(name, labels=labels[name]))
        assert names(await client.get(maps, labelSelector=selector)) == expected
        if len(expected) > 1 and selector:
            page = await client.get(maps, labelSelector=selector, limit=1)
            assert page.body["metadata"]["continue"]
            assert "remainingItemCount" not in page.body["metadata"]

    async def test_name_and_namespace_select(self, client: Client, namespace: str, maps: str) -> None:
        for name in "ab":
            await client.post(maps, config_map(name))
        here = namespace.rpartition("/")[2]
        for selector, expected in (
            ("metadata.name=a", ["a"]),
            ("metadata.name!=a", ["b"]),
            (f"metadata.namespace={here}", ["a", "b"]),
            ("metadata.namespace=other", []),
            (f"metadata.name=b,metadata.namespace={here}", ["b"]),
        ):
            assert names(await client.get(maps, fieldSelector=selector)) == expected


# --- Watch -----------------------------------------------------------------------------------------------------------


class TestWatch:
    async def test_changes_arrive_as_they_are_made(self, client: Client, maps: str) -> None:
        start = (await client.get(maps)).version
        async with client.watch(maps, resourceVersion=start) as stream:
            assert stream.status == 200
            created = await client.post(maps, config_map("a", {"key": "1"}))
            assert await stream.event() == ("ADDED", created.body)
            changed = await client.merge(f"{maps}/a", {"data": {"key": "2"}})
            assert await stream.event() == ("MODIFIED", changed.body)
            await client.delete(f"{maps}/a")
            kind, obj = await stream.event()
            assert kind == "DELETED"
            assert obj["data"] == {"key": "2"}
            assert int(obj["metadata"]["resourceVersion"]) > int(changed.version)

    async def test_missed_changes_are_told_again(self, client: Client, maps: str) -> None:
        start = (await client.post(maps, config_map("a"))).version
        await client.post(maps, config_map("b"))
        await client.merge(f"{maps}/a", {"data": {"key": "1"}})
        await client.delete(f"{maps}/b")
        await client.post(maps, config_map("b"))
        async with client.watch(maps, resourceVersion=start) as stream:
            assert await stream.events(4) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b"), ("ADDED", "b")]

    async def test_a_change_of_nothing_is_no_event(self, client: Client, maps: str) -> None:
        start = (await client.post(maps, config_map("a", {"key": "1"}))).version
        await client.put(f"{maps}/a", config_map("a", {"key": "1"}))
        await client.post(maps, config_map("b"))
        async with client.watch(maps, resourceVersion=start) as stream:
            assert await stream.events(1) == [("ADDED", "b")]

    @pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}], ids=["unset", "zero"])
    async def test_without_a_version_it_starts_with_what_is_there(
        self, client: Client, maps: str, query: dict[str, str]
    ) -> None:
        for name in "ab":
            await client.post(maps, config_map(name))
        async with client.watch(maps, **query) as stream:
            assert await stream.events(2) == [("ADDED", "a"), ("ADDED", "b")]
            await client.delete(f"{maps}/a")
            assert await stream.events(1) == [("DELETED", "a")]

    async def test_it_ends_when_its_time_is_over(self, client: Client, maps: str) -> None:
        start = (await client.get(maps)).version
        await client.post(maps, config_map("a"))
        async with client.watch(maps, resourceVersion=start, timeoutSeconds=1) as stream:
            assert await stream.rest() == [("ADDED", "a")]

    async def test_only_its_namespace_and_kind(self, client: Client, maps: str, services: str) -> None:
        start = (await client.get(maps)).version
        other = f"contract-{secrets.token_hex(4)}"
        await client.post("/api/v1/namespaces", {"metadata": {"name": other}})
        try:
            await client.post(f"/api/v1/namespaces/{other}/configmaps", config_map("elsewhere"))
            await client.post(services, service("a", ports=[{"port": 80}]))
            await client.post(maps, config_map("here"))
            async with client.watch(maps, resourceVersion=start) as stream:
                assert await stream.events(1) == [("ADDED", "here")]
            async with client.watch(
                "/api/v1/configmaps", resourceVersion=start, fieldSelector=f"metadata.namespace={other}"
            ) as stream:
                assert await stream.events(1) == [("ADDED", "elsewhere")]
        finally:
            await client.delete(f"/api/v1/namespaces/{other}")

    async def test_one_object_by_its_name(self, client: Client, maps: str) -> None:
        start = (await client.get(maps)).version
        async with client.watch(maps, resourceVersion=start, fieldSelector="metadata.name=b") as stream:
            await client.post(maps, config_map("a"))
            await client.post(maps, config_map("b"))
            await client.delete(f"{maps}/b")
            assert await stream.events(2) == [("ADDED", "b"), ("DELETED", "b")]

    async def test_what_leaves_the_selection_is_deleted(self, client: Client, maps: str) -> None:
        first = await client.post(maps, config_map("a", labels={"app": "x"}))
        left = await client.merge(f"{maps}/a", {"metadata": {"labels": {"app": "y"}}})
        back = await client.merge(f"{maps}/a", {"metadata": {"labels": {"app": "x"}}})
        async with client.watch(maps, resourceVersion=first.version, labelSelector="app=x") as stream:
            kind, obj = await stream.event()
            assert (kind, obj["metadata"]["labels"]) == ("DELETED", {"app": "x"})
            assert obj["metadata"]["resourceVersion"] == left.version
            assert await stream.event() == ("ADDED", back.body)

    async def test_a_large_object_is_one_line(self, client: Client, maps: str) -> None:
        start = (await client.get(maps)).version
        text = "first\nsecond\u0085third\u2028" + "x" * 900_000
        async with client.watch(maps, resourceVersion=start) as stream:
            await client.post(maps, config_map("a", {"key": text}))
            _, obj = await stream.event()
            assert obj["data"] == {"key": text}


# --- Server-side apply -----------------------------------------------------------------------------------------------


class TestApply:
    async def test_it_creates(self, client: Client, maps: str) -> None:
        created = await client.apply(f"{maps}/a", config_map("a", {"key": "1"}, labels={"l": "1"}), "me")
        assert created.status == 201
        assert owners(created) == {("me", "Apply"): {"f:data": {"f:key": {}}, "f:metadata": {"f:labels": {"f:l": {}}}}}

    async def test_nothing_new_is_no_new_version(self, client: Client, maps: str) -> None:
        body = config_map("a", {"key": "1"}, labels={"l": "1"})
        created = await client.apply(f"{maps}/a", body, "me")
        assert await client.apply(f"{maps}/a", body, "me") == (200, created.body)

    async def test_foreign_keys_stay(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"mine": "1"}), "me")
        await client.merge(f"{maps}/a", {"data": {"theirs": "2"}, "metadata": {"labels": {"l": "3"}}})
        after = await client.apply(f"{maps}/a", config_map("a", {"mine": "4"}), "me")
        assert after.body["data"] == {"mine": "4", "theirs": "2"}
        assert after.body["metadata"]["labels"] == {"l": "3"}

    async def test_what_is_no_longer_stated_is_removed(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"keep": "1", "drop": "2"}, labels={"l": "1"}), "me")
        after = await client.apply(f"{maps}/a", config_map("a", {"keep": "1"}), "me")
        assert after.body["data"] == {"keep": "1"}
        assert "labels" not in after.body["metadata"]

    async def test_what_another_owns_too_is_not_removed(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"shared": "1"}), "me")
        shared = await client.apply(f"{maps}/a", config_map("a", {"shared": "1"}), "you")
        assert owners(shared).keys() == {("me", "Apply"), ("you", "Apply")}
        after = await client.apply(f"{maps}/a", config_map("a"), "me")
        assert after.body["data"] == {"shared": "1"}
        assert owners(after) == {("you", "Apply"): {"f:data": {"f:shared": {}}}}

    async def test_a_map_that_got_foreign_keys_is_not_removed(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {}), "me")
        await client.merge(f"{maps}/a", {"data": {"theirs": "1"}})
        after = await client.apply(f"{maps}/a", config_map("a"), "me")
        assert after.body["data"] == {"theirs": "1"}

    async def test_anothers_field_is_a_conflict(self, client: Client, maps: str) -> None:
        before = await client.apply(f"{maps}/a", config_map("a", {"x": "1", "y": "1"}), "me")
        answer = await client.apply(f"{maps}/a", config_map("a", {"x": "2", "y": "1"}), "you")
        assert (answer.status, answer.reason) == (409, "Conflict")
        assert answer.body["message"] == 'Apply failed with 1 conflict: conflict with "me": .data.x'
        assert answer.body["details"]["causes"] == [
            {"reason": "FieldManagerConflict", "message": 'conflict with "me"', "field": ".data.x"}
        ]
        assert (await client.get(f"{maps}/a")).body == before.body

    async def test_all_conflicts_are_named(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"x": "1"}, labels={"l": "1"}), "me")
        await client.merge(f"{maps}/a", {"data": {"y": "1"}}, fieldManager="editor")
        answer = await client.apply(f"{maps}/a", config_map("a", {"x": "2", "y": "2"}, labels={"l": "2"}), "you")
        assert answer.body["message"].startswith("Apply failed with 3 conflicts: ")
        assert {(cause["message"], cause["field"]) for cause in answer.body["details"]["causes"]} == {
            ('conflict with "me"', ".data.x"),
            ('conflict with "me"', ".metadata.labels.l"),
            ('conflict with "editor" using v1', ".data.y"),
        }

    async def test_force_takes_over(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"x": "1", "y": "1"}), "me")
        after = await client.apply(f"{maps}/a", config_map("a", {"x": "2"}), "you", force="true")
        assert after.body["data"] == {"x": "2", "y": "1"}
        assert owners(after) == {("me", "Apply"): {"f:data": {"f:y": {}}}, ("you", "Apply"): {"f:data": {"f:x": {}}}}

    async def test_a_hand_edit_takes_over_and_force_takes_back(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"mine": "1"}), "me")
        edited = await client.merge(
            f"{maps}/a", {"data": {"mine": "edited", "theirs": "2"}}, fieldManager="kubectl-edit"
        )
        assert owners(edited) == {("kubectl-edit", "Update"): {"f:data": {"f:mine": {}, "f:theirs": {}}}}
        refused = await client.apply(f"{maps}/a", config_map("a", {"mine": "1"}), "me")
        assert refused.fields_wrong == [".data.mine"]
        after = await client.apply(f"{maps}/a", config_map("a", {"mine": "1"}), "me", force="true")
        assert after.body["data"] == {"mine": "1", "theirs": "2"}
        assert owners(after) == {
            ("me", "Apply"): {"f:data": {"f:mine": {}}},
            ("kubectl-edit", "Update"): {"f:data": {"f:theirs": {}}},
        }

    async def test_an_update_takes_what_it_changes_and_ends_what_it_removes(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"x": "1", "y": "1", "z": "1"}), "me")
        after = await client.put(f"{maps}/a", config_map("a", {"x": "1", "y": "2"}), fieldManager="putter")
        assert owners(after) == {
            ("me", "Apply"): {"f:data": {"f:x": {}}},
            ("putter", "Update"): {"f:data": {"f:y": {}}},
        }

    async def test_what_nobody_owned_belongs_to_before_first_apply(self, client: Client, maps: str) -> None:
        await client.post(maps, config_map("a"))
        edited = await client.merge(f"{maps}/a", {"data": {"key": "1"}})
        assert owners(edited) == {}
        refused = await client.apply(f"{maps}/a", config_map("a", {"key": "2"}), "me")
        assert [cause["message"] for cause in refused.body["details"]["causes"]] == [
            'conflict with "before-first-apply" using v1'
        ]

    async def test_a_key_that_was_deleted_by_hand_comes_back(self, client: Client, maps: str) -> None:
        await client.apply(f"{maps}/a", config_map("a", {"mine": "1"}), "me")
        await client.merge(f"{maps}/a", {"data": {"mine": None}})
        after = await client.apply(f"{maps}/a", config_map("a", {"mine": "1"}), "me")
        assert (after.status, after.body["data"]) == (200, {"mine": "1"})

    async def test_a_version_is_a_precondition(self, client: Client, maps: str) -> None:
        old = await client.apply(f"{maps}/a", config_map("a", {"x": "1"}), "me")
        fresh = config_map("a", {"x": "2"}, resourceVersion=old.version)
        assert (await client.apply(f"{maps}/a", fresh, "me")).status == 200
        late = await client.apply(f"{maps}/a", config_map("a", {"x": "3"}, resourceVersion=old.version), "me")
        assert (late.status, late.reason) == (409, "Conflict")
        assert "the object has been modified" in late.body["message"]
        assert "causes" not in late.body["details"]

    async def test_even_force_does_not_help_against_a_version(self, client: Client, maps: str) -> None:
        old = await client.apply(f"{maps}/a", config_map("a", {"x": "1"}), "me")
        await client.merge(f"{maps}/a", {"data": {"y": "1"}})
        body = config_map("a", {"x": "2"}, resourceVersion=old.version)
        assert (await client.apply(f"{maps}/a", body, "me", force="true")).status == 409

    async def test_a_version_means_nothing_once_the_object_is_gone(self, client: Client, maps: str) -> None:
        old = await client.apply(f"{maps}/a", config_map("a", {"x": "1"}), "me")
        await client.delete(f"{maps}/a")
        again = await client.apply(f"{maps}/a", config_map("a", {"x": "1"}, resourceVersion=old.version), "me")
        assert again.status == 201

    async def test_a_manager_must_be_named(self, client: Client, maps: str) -> None:
        answer = await client.send("PATCH", f"{maps}/a", config_map("a"), APPLY)
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert answer.fields_wrong == ["fieldManager"]
        assert (await client.apply(f"{maps}/a", config_map("a"), "x" * 129)).fields_wrong == ["fieldManager"]

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (config_map("other"), 400),
            ({"metadata": {"name": "a"}}, 400),
            (config_map("a", managedFields=[{"manager": "me"}]), 400),
            (b"a: [", 400),
            (config_map("a") | {"colour": "red"}, 500),
            (config_map("a", {"key": 5}), 500),
            (config_map("a", {"a/b": ""}), 422),
            (config_map("a", {"key": "x" * ((1 << 20) + 1)}), 422),
        ],
        ids=["name", "kind", "managed fields", "broken", "unknown", "number", "key", "large"],
    )
    async def test_an_object_that_cannot_be(self, client: Client, maps: str, body: Any, status: int) -> None:
        assert (await client.apply(f"{maps}/a", body, "me")).status == status
        assert (await client.get(f"{maps}/a")).status == 404

    async def test_a_namespace_must_be_there(self, client: Client) -> None:
        answer = await client.apply("/api/v1/namespaces/contract-none/configmaps/a", config_map("a"), "me")
        assert (answer.status, answer.body["details"]["kind"]) == (404, "namespaces")

    async def test_yaml(self, client: Client, maps: str) -> None:
        body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  key: |\n    text\n"
        assert (await client.apply(f"{maps}/a", body, "me")).body["data"] == {"key": "text\n"}

    async def test_a_lease(self, client: Client, leases: str) -> None:
        await client.apply(f"{leases}/a", lease("a", "me"), "me")
        answer = await client.apply(f"{leases}/a", lease("a", "you"), "you")
        assert answer.fields_wrong == [".spec.holderIdentity"]


# --- Services --------------------------------------------------------------------------------------------------------


class TestServices:
    async def test_defaults(self, client: Client, services: str) -> None:
        spec = (await client.post(services, service("a", ports=[{"port": 80}], selector={"app": "x"}))).body["spec"]
        assert spec["type"] == "ClusterIP"
        assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
        assert spec["selector"] == {"app": "x"}
        assert spec["sessionAffinity"] == "None"
        assert spec["clusterIPs"] == [spec["clusterIP"]]

    async def test_each_has_an_address_and_keeps_it(self, client: Client, services: str) -> None:
        first = await client.post(services, service("a", ports=[{"port": 80}]))
        second = await client.post(services, service("b", ports=[{"port": 80}]))
        address = first.body["spec"]["clusterIP"]
        assert address != second.body["spec"]["clusterIP"]
        after = await client.put(f"{services}/a", service("a", ports=[{"port": 8080}]))
        assert after.body["spec"]["clusterIP"] == address
        assert after.body["spec"]["ports"] == [{"port": 8080, "protocol": "TCP", "targetPort": 8080}]

    async def test_an_address_cannot_be_changed_taken_or_invented(self, client: Client, services: str) -> None:
        taken = (await client.post(services, service("a", ports=[{"port": 80}]))).body["spec"]["clusterIP"]
        other = taken.rpartition(".")[0] + (".9" if not taken.endswith(".9") else ".8")
        changed = await client.merge(f"{services}/a", {"spec": {"clusterIP": other}})
        assert (changed.status, changed.fields_wrong) == (422, ["spec.clusterIPs[0]"])
        for address, field in (
            (taken, "spec.clusterIPs"),
            ("192.0.2.1", "spec.clusterIPs"),
            ("x", "spec.clusterIPs[0]"),
        ):
            answer = await client.post(services, service("b", ports=[{"port": 80}], clusterIP=address))
            assert (answer.status, answer.fields_wrong) == (422, [field])

    async def test_an_address_is_free_again_after_deletion(self, client: Client, services: str) -> None:
        address = (await client.post(services, service("a", ports=[{"port": 80}]))).body["spec"]["clusterIP"]
        await client.delete(f"{services}/a")
        again = await client.post(services, service("b", ports=[{"port": 80}], clusterIP=address))
        assert again.body["spec"]["clusterIP"] == address

    async def test_headless(self, client: Client, services: str) -> None:
        created = await client.post(services, service("a", clusterIP="None", ports=[{"port": 80, "targetPort": "web"}]))
        assert created.body["spec"]["clusterIP"] == "None"
        assert created.body["spec"]["ports"][0]["targetPort"] == "web"
        assert (await client.post(services, service("b", clusterIP="None"))).status == 201

    async def test_external_name(self, client: Client, services: str) -> None:
        created = await client.post(services, service("a", type="ExternalName", externalName="example.org"))
        assert created.status == 201
        assert "clusterIP" not in created.body["spec"]

    async def test_a_service_becomes_external_and_comes_back(self, client: Client, services: str) -> None:
        await client.post(services, service("a", ports=[{"port": 80}]))
        out = await client.put(f"{services}/a", service("a", type="ExternalName", externalName="example.org"))
        assert "clusterIP" not in out.body["spec"]
        back = await client.put(f"{services}/a", service("a", ports=[{"port": 80}]))
        assert back.body["spec"]["clusterIP"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (service("a.b", ports=[{"port": 80}]), "metadata.name"),
            (service("x" * 64, ports=[{"port": 80}]), "metadata.name"),
            (service("a"), "spec.ports"),
            (service("a", ports=[{"port": 80}, {"port": 81}]), "spec.ports[0].name"),
            (service("a", ports=[{"port": 80, "name": "x"}, {"port": 81, "name": "x"}]), "spec.ports[1].name"),
            (service("a", ports=[{"port": 70000}]), "spec.ports[0].port"),
            (service("a", ports=[{"name": "x"}]), "spec.ports[0].port"),
            (service("a", ports=[{"port": 80, "protocol": "X"}]), "spec.ports[0].protocol"),
            (service("a", type="ExternalName"), "spec.externalName"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    async def test_an_invalid_service_says_which_field(
        self, client: Client, services: str, body: dict[str, Any], field: str
    ) -> None:
        answer = await client.post(services, body)
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert field in answer.fields_wrong

    async def test_ports_are_owned_one_by_one_and_a_selector_as_a_whole(self, client: Client, services: str) -> None:
        mine = service("a", ports=[{"port": 80, "name": "web"}], selector={"app": "x"})
        created = await client.apply(f"{services}/a", mine, "me")
        entry = 'k:{"port":80,"protocol":"TCP"}'
        assert owners(created)["me", "Apply"] == {
            "f:spec": {"f:ports": {entry: {".": {}, "f:name": {}, "f:port": {}}}, "f:selector": {}}
        }
        more = service("a", ports=[{"port": 81, "name": "admin"}])
        both = await client.apply(f"{services}/a", more, "you")
        assert {port["name"] for port in both.body["spec"]["ports"]} == {"web", "admin"}
        clash = service("a", ports=[{"port": 80, "name": "api"}], selector={"app": "y"})
        refused = await client.apply(f"{services}/a", clash, "you")
        assert set(refused.fields_wrong) == {".spec.selector", '.spec.ports[port=80,protocol="TCP"].name'}
        less = await client.apply(f"{services}/a", service("a", selector={"app": "x"}), "me")
        assert [port["name"] for port in less.body["spec"]["ports"]] == ["admin"]


# --- Leases ----------------------------------------------------------------------------------------------------------


HELD = {
    "holderIdentity": "me",
    "leaseDurationSeconds": 15,
    "acquireTime": "2026-11-23T15:43:36.000000Z",
    "renewTime": "2026-11-23T15:43:38.000001Z",
    "leaseTransitions": 3,
}


class TestLeases:
    """What leader election stands on: of several who write from the same state, one wins."""

    async def test_of_many_who_put_it_one_creates_it(self, client: Client, leases: str) -> None:
        answers = await asyncio.gather(*(client.put(f"{leases}/a", lease("a", f"racer-{n}")) for n in range(8)))
        won = [answer for answer in answers if answer.status == 201]
        lost = [(answer.status, answer.reason) for answer in answers if answer.status != 201]
        assert (len(won), lost) == (1, [(422, "Invalid")] * 7)
        assert (await client.get(f"{leases}/a")).body == won[0].body

    async def test_of_many_who_post_it_one_creates_it(self, client: Client, leases: str) -> None:
        answers = await asyncio.gather(*(client.post(leases, lease("a", f"racer-{n}")) for n in range(8)))
        assert sorted(answer.status for answer in answers) == [201, *[409] * 7]
        assert {answer.reason for answer in answers if answer.status == 409} == {"AlreadyExists"}

    async def test_of_many_who_patch_one_state_one_wins(self, client: Client, leases: str) -> None:
        state = {"metadata": {"resourceVersion": (await client.post(leases, lease("a", ""))).version}}
        patches = [{**state, "spec": {"holderIdentity": f"racer-{n}"}} for n in range(8)]
        answers = await asyncio.gather(*(client.merge(f"{leases}/a", patch) for patch in patches))
        won = [answer for answer in answers if answer.status == 200]
        lost = [(answer.status, answer.reason) for answer in answers if answer.status != 200]
        assert (len(won), lost) == (1, [(409, "Conflict")] * 7)
        assert (await client.get(f"{leases}/a")).body == won[0].body

    async def test_a_patch_of_an_old_state_is_a_conflict_even_if_it_changes_nothing(
        self, client: Client, leases: str
    ) -> None:
        old = await client.post(leases, lease("a", "me"))
        await client.merge(f"{leases}/a", {"metadata": {"labels": {"team": "sre"}}})
        patch = {"metadata": {"resourceVersion": old.version}, "spec": {"holderIdentity": "me"}}
        answer = await client.merge(f"{leases}/a", patch)
        assert (answer.status, answer.reason) == (409, "Conflict")

    async def test_a_renewal_that_changes_nothing_is_none(self, client: Client, leases: str) -> None:
        first = await client.post(leases, lease("a", "me"))
        patch = {"metadata": {"resourceVersion": first.version}, "spec": {"holderIdentity": "me"}}
        assert (await client.merge(f"{leases}/a", patch)).version == first.version

    async def test_a_patch_does_not_bring_back_what_was_deleted(self, client: Client, leases: str) -> None:
        old = await client.post(leases, lease("a", "me"))
        await client.delete(f"{leases}/a")
        patch = {"metadata": {"resourceVersion": old.version}, "spec": {"holderIdentity": "me"}}
        assert (await client.merge(f"{leases}/a", patch)).status == 404

    async def test_an_update_does_unless_it_names_the_uid(self, client: Client, leases: str) -> None:
        old = await client.post(leases, lease("a", "me"))
        await client.delete(f"{leases}/a")
        uid = old.body["metadata"]["uid"]
        refused = await client.put(f"{leases}/a", lease("a", "me", resourceVersion=old.version, uid=uid))
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert (await client.put(f"{leases}/a", lease("a", "me", resourceVersion=old.version))).status == 201

    async def test_a_patch_leaves_the_rest_alone(self, client: Client, leases: str) -> None:
        held = lease("a", "me", labels={"team": "sre"}) | {"spec": HELD}
        await client.post(leases, held)
        after = await client.merge(f"{leases}/a", {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}})
        assert after.body["spec"] == HELD | {"holderIdentity": "", "leaseDurationSeconds": 1}
        assert after.body["metadata"]["labels"] == {"team": "sre"}

    async def test_times_are_kept_to_the_microsecond_and_in_utc(self, client: Client, leases: str) -> None:
        body = lease("a", "me") | {"spec": HELD | {"renewTime": "2026-11-23T17:43:38.000001+02:00"}}
        assert (await client.post(leases, body)).body["spec"] == HELD

    async def test_everything_may_be_missing(self, client: Client, leases: str) -> None:
        assert (await client.post(leases, {"metadata": {"name": "a"}})).body["spec"] == {}
        nothing = lease("b", "me") | {"spec": dict.fromkeys(HELD)}
        assert (await client.post(leases, nothing)).body["spec"] == {}
        await client.post(leases, lease("c", "me"))
        assert (await client.merge(f"{leases}/c", {"spec": None})).body["spec"] == {}

    @pytest.mark.parametrize(
        ("spec", "posted", "patched"),
        [
            ({"leaseDurationSeconds": 0}, 422, 422),
            ({"leaseDurationSeconds": -1}, 422, 422),
            ({"leaseDurationSeconds": 2**31 - 1}, 201, 200),
            ({"leaseDurationSeconds": 2**31}, 400, 422),
            ({"leaseDurationSeconds": 1.5}, 400, 422),
            ({"leaseTransitions": 0}, 201, 200),
            ({"leaseTransitions": -1}, 422, 422),
            ({"leaseTransitions": 2**31}, 400, 422),
            ({"holderIdentity": ""}, 201, 200),
            ({"holderIdentity": 5}, 400, 422),
            ({"renewTime": "2026-11-23T15:43:38Z"}, 400, 422),
            ({"renewTime": "2026-11-23T15:43:38.0000001Z"}, 400, 422),
            ({"renewTime": "2026-13-23T15:43:38.000000Z"}, 400, 422),
            ({"renewTime": "yesterday"}, 400, 422),
            ({"renewTime": ""}, 400, 422),
            ({"renewTime": 5}, 400, 422),
        ],
        ids=str,
    )
    async def test_values_are_checked(
        self, client: Client, leases: str, spec: dict[str, Any], posted: int, patched: int
    ) -> None:
        await client.post(leases, lease("a", "me") | {"spec": HELD})
        assert (await client.merge(f"{leases}/a", {"spec": spec})).status == patched
        assert (await client.post(leases, lease("b", "me") | {"spec": HELD | spec})).status == posted

    async def test_a_namespace_must_be_there(self, client: Client) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/contract-none/leases/a"
        answer = await client.put(path, lease("a", "me"))
        assert (answer.status, answer.body["details"]["kind"]) == (404, "namespaces")
        assert (await client.get(path)).body["details"]["kind"] == "leases"

    async def test_one_lease_can_be_watched(self, client: Client, leases: str) -> None:
        start = (await client.get(leases, fieldSelector="metadata.name=a")).version
        async with client.watch(leases, resourceVersion=start, fieldSelector="metadata.name=a") as stream:
            await client.put(f"{leases}/b", lease("b", "you"))
            await client.put(f"{leases}/a", lease("a", "me"))
            given_back = await client.merge(f"{leases}/a", {"spec": {"holderIdentity": ""}})
            assert await stream.events(1) == [("ADDED", "a")]
            assert await stream.event() == ("MODIFIED", given_back.body)


# --- Namespaces and EndpointSlices -----------------------------------------------------------------------------------


class TestNamespaces:
    async def test_a_namespace_is_labelled_with_its_name(self, client: Client, namespace: str) -> None:
        answer = await client.get(namespace)
        name = answer.body["metadata"]["name"]
        assert answer.body["metadata"]["labels"] == {"kubernetes.io/metadata.name": name}
        assert answer.body["status"] == {"phase": "Active"}

    async def test_the_usual_ones_are_there(self, client: Client) -> None:
        assert {"default", "kube-system"} <= set(names(await client.get("/api/v1/namespaces")))

    async def test_a_name_is_one_label(self, client: Client) -> None:
        for name in ("a.b", "Upper", "x" * 64):
            answer = await client.post("/api/v1/namespaces", {"metadata": {"name": name}})
            assert answer.status == 422
            assert "metadata.name" in answer.fields_wrong

    async def test_nothing_new_comes_into_one_that_goes(self, client: Client, namespace: str, maps: str) -> None:
        gone = await client.delete(namespace)
        assert (gone.status, gone.body["status"]) == (200, {"phase": "Terminating"})
        # Forbidden while it is being emptied, not found once it is gone.
        assert (await client.post(maps, config_map("a"))).status in {403, 404}

    async def test_the_default_one_stays(self, client: Client) -> None:
        answer = await client.delete("/api/v1/namespaces/default")
        assert (answer.status, answer.reason) == (403, "Forbidden")


class TestEndpointSlices:
    async def test_a_change_counts_as_a_generation(self, client: Client, slices: str) -> None:
        body = {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]}
        first = await client.post(slices, body)
        assert first.body["metadata"]["generation"] == 1
        body["endpoints"] = [{"addresses": ["192.0.2.2"]}]
        assert (await client.put(f"{slices}/a", body)).body["metadata"]["generation"] == 2

    async def test_lists_may_be_null(self, client: Client, slices: str) -> None:
        body = {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [], "ports": None}
        assert (await client.post(slices, body)).body["ports"] is None

    async def test_the_address_type_is_required(self, client: Client, slices: str) -> None:
        answer = await client.post(slices, {"metadata": {"name": "a"}, "endpoints": []})
        assert (answer.status, answer.fields_wrong) == (422, ["addressType"])


# --- Reviews ---------------------------------------------------------------------------------------------------------

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


async def review_token(client: Client, token: str, *audiences: str) -> dict[str, Any]:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    answer = await client.post(TOKEN_REVIEWS, body | {"spec": {"token": token, "audiences": audiences}})
    assert (answer.status, answer.body["kind"]) == (201, "TokenReview")
    return answer.body["status"]


async def review_access(client: Client, spec: dict[str, Any], path: str, verb: str) -> dict[str, Any]:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    question = {"nonResourceAttributes": {"path": path, "verb": verb}}
    answer = await client.post(ACCESS_REVIEWS, body | {"spec": spec | question})
    assert (answer.status, answer.body["kind"]) == (201, "SubjectAccessReview")
    return answer.body["status"]


class TestReviews:
    async def test_a_token_for_the_audience(self, client: Client, account: Account) -> None:
        status = await review_token(client, account.token, "contract")
        assert (status["authenticated"], status["audiences"]) == (True, ["contract"])
        assert status["user"]["username"] == account.username
        assert set(status["user"]["groups"]) == account.groups | {"system:authenticated"}

    async def test_one_audience_of_several_suffices_and_only_that_is_named(
        self, client: Client, account: Account
    ) -> None:
        status = await review_token(client, account.token, "elsewhere", "contract")
        assert (status["authenticated"], status["audiences"]) == (True, ["contract"])

    async def test_a_token_for_another_audience(self, client: Client, account: Account) -> None:
        status = await review_token(client, account.other_token, "contract")
        assert not status.get("authenticated")
        assert not status.get("audiences")
        assert not status["user"].get("username")

    @pytest.mark.parametrize("token", ["garbage", "a.b.c", "x" * 20_000, "ü", "{}"])
    async def test_what_is_no_token(self, client: Client, account: Account, token: str) -> None:
        assert not (await review_token(client, token, "contract")).get("authenticated")

    async def test_a_token_that_was_cut_off(self, client: Client, account: Account) -> None:
        for broken in (account.token[:-8], account.token[8:]):
            assert not (await review_token(client, broken, "contract")).get("authenticated")

    async def test_a_token_is_read_up_to_the_first_blank(self, client: Client, account: Account) -> None:
        status = await review_token(client, account.token + " garbage", "contract")
        assert status["user"]["username"] == account.username
        status = await review_token(client, "garbage " + account.token, "contract")
        assert not status.get("authenticated")

    async def test_blanks_alone_are_an_anonymous_caller_whatever_the_audience(
        self, client: Client, account: Account
    ) -> None:
        for blanks in (" ", "\n", " " + account.token):
            status = await review_token(client, blanks, "contract")
            assert status["authenticated"]
            assert status["audiences"] == ["contract"]
            assert status["user"] == {"username": "system:anonymous", "groups": ["system:unauthenticated"]}

    async def test_a_token_must_be_given(self, client: Client) -> None:
        for spec in ({}, {"token": ""}, {"token": None}):
            answer = await client.post(TOKEN_REVIEWS, {"spec": spec})
            assert (answer.status, answer.reason) == (400, "BadRequest")

    @pytest.mark.parametrize(
        ("path", "verb", "allowed"),
        [
            ("/contract/one", "get", True),
            ("/contract/one", "post", False),
            ("/contract/one", "GET", False),
            ("/contract/one/", "get", False),
            ("/contract/on", "get", False),
            ("/contract/tree", "get", False),
            ("/contract/tree/", "get", True),
            ("/contract/tree/a/b", "get", True),
            ("/contract/two", "get", False),
            ("", "get", False),
        ],
    )
    async def test_paths(self, client: Client, account: Account, path: str, verb: str, *, allowed: bool) -> None:
        spec = {"user": account.username, "groups": sorted(account.groups)}
        assert (await review_access(client, spec, path, verb))["allowed"] is allowed

    async def test_nobody_else_may(self, client: Client, account: Account) -> None:
        for spec in ({"user": "somebody"}, {"groups": [account.username]}, {"user": account.username + "x"}):
            assert not (await review_access(client, spec, "/contract/one", "get"))["allowed"]

    @pytest.mark.parametrize(
        "spec",
        [
            {},
            {"user": "ann"},
            {"nonResourceAttributes": {"path": "/", "verb": "get"}},
            {"user": "", "groups": [], "nonResourceAttributes": {"path": "/", "verb": "get"}},
            {
                "user": "ann",
                "nonResourceAttributes": {"path": "/", "verb": "get"},
                "resourceAttributes": {"verb": "get", "resource": "pods"},
            },
        ],
    )
    async def test_a_question_must_be_one(self, client: Client, spec: dict[str, Any]) -> None:
        answer = await client.post(ACCESS_REVIEWS, {"spec": spec})
        assert (answer.status, answer.reason) == (422, "Invalid")

    async def test_reviews_are_not_kept(self, client: Client) -> None:
        for path in (TOKEN_REVIEWS, ACCESS_REVIEWS):
            for method, where in (("GET", path), ("DELETE", path), ("PUT", f"{path}/a")):
                answer = await client.send(method, where, {} if method == "PUT" else None)
                assert (answer.status, answer.reason) in {(405, "MethodNotAllowed"), (404, "NotFound")}
