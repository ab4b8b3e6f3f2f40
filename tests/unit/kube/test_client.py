import asyncio
import contextlib
import gzip
import json
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from dynamic_toolset.kube import client as module
from dynamic_toolset.kube.client import Client, Watch
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import (
    AnswerTooLong,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Gone,
    InvalidAnswer,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from dynamic_toolset.kube.objects import ConfigMap, ObjectKey, Service
from dynamic_toolset.kube.resources import CONFIG_MAPS, NAMESPACES, SERVICES, Resource
from dynamic_toolset.kube.tokens import request_token
from tests.unit.kube.fault_server import (
    FaultServer,
    answer,
    bookmark,
    broken,
    event,
    hanging,
    key,
    listing,
    refusal,
    reset,
    service,
    status,
    undecodable,
    watching,
)
from tests.waiting import PATIENCE

CONFIG_MAP = {"metadata": {"name": "tools", "namespace": "apps", "resourceVersion": "7"}, "data": {"a": "b"}}
TOOLS = ObjectKey("apps", "tools")
LEASES = Resource("coordination.k8s.io", "v1", "leases")


class RotatingToken:
    """Credentials of which the first is no longer good."""

    def __init__(self) -> None:
        self.number = 1

    async def authorization(self, *, refresh: bool) -> str:
        self.number += refresh
        return f"Bearer token-{self.number}"


def asked(api: FaultServer) -> tuple[str, str, dict[str, str], object]:
    """Return method, path, query and decoded body of the last request."""
    request = api.requests[-1][1]
    path, _, query = request.path_qs.partition("?")
    body = api.bodies[-1]
    return request.method, path, dict(parse_qsl(query)), json.loads(body) if body else None


# --- Paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (SERVICES, "", "", "/api/v1/services"),
        (SERVICES, "apps", "", "/api/v1/namespaces/apps/services"),
        (SERVICES, "apps", "loki", "/api/v1/namespaces/apps/services/loki"),
        (NAMESPACES, "", "apps", "/api/v1/namespaces/apps"),
        (LEASES, "apps", "a", "/apis/coordination.k8s.io/v1/namespaces/apps/leases/a"),
        (LEASES, "a/b", "c?d#e%", "/apis/coordination.k8s.io/v1/namespaces/a%2Fb/leases/c%3Fd%23e%25"),
    ],
)
def test_paths(resource, namespace, name, path):
    assert resource.path(namespace, name) == path


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_cannot_lead_elsewhere(name):
    with pytest.raises(ValueError, match="path"):
        SERVICES.path("apps", name)


async def test_an_object_without_a_name_is_not_the_collection(client):
    with pytest.raises(ValueError, match="name"):
        await client.delete(SERVICES, ObjectKey("apps", ""))


async def test_names_and_selectors_arrive_as_they_are(api, client):
    api.others.append(answer(CONFIG_MAP))
    await client.get(CONFIG_MAPS, ObjectKey("apps", "a b/c%d"), ConfigMap)
    assert asked(api)[1] == "/api/v1/namespaces/apps/configmaps/a%20b%2Fc%25d"
    selector = "app in (a,b),tier!=c&d=e"
    await client.list(SERVICES, Service, label_selector=selector, field_selector="metadata.name=x")
    assert api.queries("LIST") == [
        {"limit": "500", "labelSelector": selector, "fieldSelector": "metadata.name=x"},
    ]


async def test_a_server_may_have_a_path_of_its_own(api):
    async with Client(static(f"{api.url}/clusters/c-1/")) as client:
        await client.list(SERVICES, Service)
    assert asked(api)[1] == "/clusters/c-1/api/v1/services"


# --- Calls ----------------------------------------------------------------------------------------------------------


async def test_get(api, client):
    api.others.append(answer(CONFIG_MAP))
    found = await client.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert (found.metadata.key, found.data) == (TOOLS, {"a": "b"})
    assert asked(api) == ("GET", "/api/v1/namespaces/apps/configmaps/tools", {}, None)


async def test_create(api, client):
    api.others.append(answer(CONFIG_MAP, code=201))
    created = await client.create(CONFIG_MAPS, "apps", {"data": {"a": "b"}}, ConfigMap)
    assert created.metadata.resource_version == "7"
    assert asked(api) == ("POST", "/api/v1/namespaces/apps/configmaps", {}, {"data": {"a": "b"}})


async def test_apply_to_a_part_of_an_object(api, client):
    api.others.append(answer(CONFIG_MAP))
    await client.apply(CONFIG_MAPS, TOOLS, {}, ConfigMap, field_manager="me", subresource="status")
    assert asked(api)[:2] == ("PATCH", "/api/v1/namespaces/apps/configmaps/tools/status")


@pytest.mark.parametrize(
    ("found", "served"),
    [
        (answer({"resources": [{"name": "leases", "kind": "Lease"}, {"name": "leases/status"}]}), True),
        (answer({"resources": []}), False),
        (answer({"kind": "Status", "status": "Failure", "reason": "NotFound"}, code=404), False),
    ],
)
async def test_whether_a_kind_is_known(api, client, found, served):
    api.others.append(found)
    assert await client.serves(LEASES) is served
    assert asked(api)[:2] == ("GET", "/apis/coordination.k8s.io/v1")


@pytest.mark.parametrize(("force", "word"), [(False, "false"), (True, "true")])
@pytest.mark.parametrize("body", [{"data": {}}, b'{"data": {}}'])
async def test_apply(api, client, force, word, body):
    api.others.append(answer(CONFIG_MAP))
    await client.apply(CONFIG_MAPS, TOOLS, body, ConfigMap, field_manager="some one", force=force)
    query = {"fieldManager": "some one", "force": word}
    assert asked(api) == ("PATCH", "/api/v1/namespaces/apps/configmaps/tools", query, {"data": {}})
    assert api.requests[-1][1].content_type == "application/apply-patch+yaml"


async def test_patch(api, client):
    api.others.append(answer(CONFIG_MAP))
    await client.patch(CONFIG_MAPS, TOOLS, {"data": {"a": None}}, ConfigMap)
    assert asked(api) == ("PATCH", "/api/v1/namespaces/apps/configmaps/tools", {}, {"data": {"a": None}})
    assert api.requests[-1][1].content_type == "application/merge-patch+json"


async def test_update(api, client):
    api.others.append(answer(CONFIG_MAP))
    await client.update(CONFIG_MAPS, TOOLS, {"data": {}}, ConfigMap)
    assert asked(api) == ("PUT", "/api/v1/namespaces/apps/configmaps/tools", {}, {"data": {}})
    assert api.requests[-1][1].content_type == "application/json"


async def test_delete(api, client):
    api.others.append(answer(status(200, "Success")))
    await client.delete(CONFIG_MAPS, TOOLS)
    assert asked(api) == ("DELETE", "/api/v1/namespaces/apps/configmaps/tools", {}, None)


# --- Lists ----------------------------------------------------------------------------------------------------------


async def test_a_list_is_read_page_by_page(api, client):
    api.lists += [
        listing([service("a", 1), service("b", 2)], 9, token="more/+="),
        listing([service("c", 3)], 9),
    ]
    found = await client.list(SERVICES, Service, namespace="default", page_size=2, resource_version="0")
    assert [item.metadata.name for item in found.items] == ["a", "b", "c"]
    assert found.resource_version == "9"
    assert api.queries("LIST") == [{"limit": "2", "resourceVersion": "0"}, {"limit": "2", "continue": "more/+="}]


async def test_a_page_that_expired_begins_the_list_again_as_one(api, client):
    api.lists += [
        listing([service("a", 1), undecodable("b", 2)], 9, token="old"),
        refusal(410, "Expired"),
        listing([service("c", 3)], 12),
    ]
    found = await client.list(SERVICES, Service, label_selector="x=y", resource_version="0")
    assert [item.metadata.name for item in found.items] == ["c"]
    assert (found.resource_version, found.skipped) == ("12", ())
    assert api.queries("LIST")[-1] == {"labelSelector": "x=y"}


async def test_a_list_that_never_holds_ends(api, client):
    api.lists += [
        listing([], 9, token="old"),
        refusal(410, "Expired"),
        listing([], 10, token="old"),
        refusal(410, "Expired"),
    ]
    with pytest.raises(Gone):
        await client.list(SERVICES, Service)


class Store:
    """Answers lists as the API does, of Services of so many characters each; ``asked`` has the place and the limit."""

    def __init__(self, sizes, forgets=()):
        self.services = [service(f"s{place}", place + 1, note="x" * size) for place, size in enumerate(sizes)]
        self.asked = []
        self._forgets = list(forgets)

    async def __call__(self, request):
        place, limit = int(request.query.get("continue", "0")), int(request.query.get("limit", "0"))
        self.asked.append((place, limit))
        if place and place in self._forgets:
            self._forgets.remove(place)
            return await refusal(410, "Expired")(request)
        end = place + limit if limit else len(self.services)
        token = str(end) if end < len(self.services) else ""
        return await listing(self.services[place:end], 9, token=token)(request)


@pytest.fixture
def small_answers(monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER", 100_000)


@pytest.mark.usefixtures("small_answers")
async def test_a_page_that_is_too_long_is_read_in_smaller_ones_until_it_is_over(api, client):
    store = Store([1] * 40 + [10_000] * 100 + [1] * 400)
    api.lists.extend([store] * 200)
    pages = [page async for page in client.pages(SERVICES, Service, page_size=40)]
    names = [item.metadata.name for page in pages for item in page.items]
    assert names == [f"s{place}" for place in range(540)]
    assert [page.first for page in pages] == [True] + [False] * (len(pages) - 1)
    assert store.asked[:4] == [(0, 40), (40, 40), (40, 5), (45, 2)]
    assert store.asked[-1][1] == 40
    assert max(limit for place, limit in store.asked[4:] if 40 < place < 140) <= 10


@pytest.mark.usefixtures("small_answers")
async def test_after_a_large_page_the_next_one_is_asked_for_when_its_consumer_is_done(api, client):
    store = Store([30_000] * 6)
    api.lists.extend([store] * 6)
    async for _ in client.pages(SERVICES, Service, page_size=3):
        asked = len(store.asked)
        await asyncio.sleep(0.05)
        assert len(store.asked) == asked


@pytest.mark.usefixtures("small_answers")
async def test_an_object_that_is_too_long_by_itself_is_an_error(api, client):
    store = Store([100_000])
    api.lists.extend([store] * 10)
    with pytest.raises(AnswerTooLong, match=r"^GET /api/v1/services: an answer of more than 100000 bytes$"):
        await client.list(SERVICES, Service)
    assert store.asked == [(0, limit) for limit in (500, 62, 7, 1)]
    api.others.append(answer({**CONFIG_MAP, "data": {"a": "x" * 100_000}}))
    with pytest.raises(AnswerTooLong):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)


@pytest.mark.usefixtures("small_answers")
async def test_a_list_that_expired_is_not_read_as_one_if_that_is_too_long(api, client):
    store = Store([1000] * 200, forgets=[40])
    api.lists.extend([store] * 50)
    pages = [page async for page in client.pages(SERVICES, Service, page_size=20)]
    assert store.asked[:5] == [(0, 20), (20, 20), (40, 20), (0, 0), (0, 2)]
    last = max(place for place, page in enumerate(pages) if page.first)
    names = [item.metadata.name for page in pages[last:] for item in page.items]
    assert names == [f"s{place}" for place in range(200)]
    # But not without end.
    store = Store([1000] * 200, forgets=[40, *range(2, 200)])
    api.lists.clear()
    api.lists.extend([store] * 50)
    with pytest.raises(Gone):
        await client.list(SERVICES, Service, page_size=20)


@pytest.mark.parametrize("character", ["x", "<", "\x01"])
async def test_any_object_that_the_api_can_hold_fits_into_an_answer(api, client, character):
    """3 MiB is what the API server accepts; what Go's JSON writes as six characters is bounded further."""
    note = character * (3 * 2**20 if character == "x" else 256 * 2**10)
    content = json.dumps({**service("a", 1, note=note), "kind": "Service"}).replace("<", "\\u003c")
    body = f'{{"metadata": {{"resourceVersion": "9"}}, "items": [{content}]}}'.encode()
    api.lists.append(answer(body))
    assert len((await client.list(SERVICES, Service, page_size=1)).items) == 1
    data = {"a": character * 2**20}
    api.others.append(answer(json.dumps({**CONFIG_MAP, "data": data}).replace("<", "\\u003c").encode()))
    assert (await client.get(CONFIG_MAPS, TOOLS, ConfigMap)).data == data


async def test_a_410_at_the_start_of_a_list_is_an_error(api, client):
    api.lists.append(refusal(410, "Expired"))
    with pytest.raises(Gone):
        await client.list(SERVICES, Service, resource_version="1")


async def test_what_could_not_be_decoded_is_told(api, client):
    api.lists += [listing([undecodable("bad", 1), service("a", 2)], 9, token="t"), listing([undecodable("c", 3)], 9)]
    found = await client.list(SERVICES, Service)
    assert [item.metadata.name for item in found.items] == ["a"]
    assert [one.key for one in found.skipped] == [key("bad"), key("c")]


async def test_a_compressed_answer_is_read(api, client):
    content = json.dumps({"metadata": {"resourceVersion": "9"}, "items": [service("a", 1)] * 3000}).encode()

    async def compressed(request: web.Request) -> web.Response:
        assert "gzip" in request.headers["Accept-Encoding"]
        return web.Response(body=gzip.compress(content), headers={"Content-Encoding": "gzip"})

    api.lists.append(compressed)
    assert len((await client.list(SERVICES, Service)).items) == 3000


# --- Errors ---------------------------------------------------------------------------------------------------------


async def test_a_refusal_has_its_type_and_says_what_the_api_said(api, client):
    api.others.append(refusal(409, "Conflict", "the object has been modified"))
    with pytest.raises(Conflict, match="the object has been modified"):
        await client.update(CONFIG_MAPS, TOOLS, {}, ConfigMap)
    api.others.append(refusal(404, "NotFound"))
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)


async def test_a_retry_after_that_no_clock_can_show_is_none(api, client):
    date = "Tue, 14 Nov 99999999999999999999 22:13:25 GMT"
    api.others.append(refusal(429, "TooManyRequests", headers={"Retry-After": date}))
    with pytest.raises(TooManyRequests) as raised:
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert raised.value.retry_after is None


async def test_retry_after_is_read(api, client):
    api.others.append(refusal(429, "TooManyRequests", headers={"Retry-After": "11"}))
    with pytest.raises(TooManyRequests) as raised:
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert raised.value.retry_after == 11.0


async def test_the_body_of_an_error_is_bounded(api, client):
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=403)
        await response.prepare(request)
        while True:
            await response.write(b"no " * 10_000)
            sent += 30_000

    api.others.append(endless)
    with pytest.raises(Forbidden):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert sent < 10_000_000


async def test_a_redirect_is_not_followed(api, client):
    api.others.append(answer(b"", code=302, headers={"Location": f"{api.url}/api/v1/services"}))
    with pytest.raises(InvalidAnswer, match="redirect"):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert len(api.requests) == 1


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"\x00"])
async def test_an_answer_that_is_no_object_names_the_request(api, client, body):
    api.others.append(answer(body))
    with pytest.raises(InvalidAnswer, match="GET /api/v1/namespaces/apps/configmaps/tools"):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)


async def cut(request: web.Request) -> web.StreamResponse:
    """Half an answer, then a reset."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"metadata"')
    reset(request)
    return response


async def garbled(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"this is not gzip", headers={"Content-Encoding": "gzip"})


async def stalled(request: web.Request) -> web.StreamResponse:
    """Half an answer, then silence."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"metadata"')
    await asyncio.sleep(60)
    return response


@pytest.mark.parametrize("fault", [broken, hanging, cut, garbled, stalled])
async def test_every_broken_answer_is_our_error_in_time(api, fault):
    async with Client(static(api.url), timeout=0.2) as client:
        for call in (
            client.get(CONFIG_MAPS, TOOLS, ConfigMap),
            client.apply(CONFIG_MAPS, TOOLS, {}, ConfigMap, field_manager="me"),
            client.list(SERVICES, Service),
        ):
            api.others += [fault, fault]
            api.lists += [fault, fault]
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(ConnectionFailed, match=r"configmaps|services"):
                    await call


async def test_an_api_that_is_away_is_our_error(api, client):
    await api.stop()
    with pytest.raises(ConnectionFailed):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)


@pytest.mark.parametrize(
    "server", ["https://a..example.com", f"https://{'a' * 64}", "http://a\\b", "http://u:p@127.0.0.1:1"]
)
async def test_an_address_that_cannot_be_asked_is_our_error(server):
    async with Client(static(server, token="t")) as client:
        for call in (client.get(CONFIG_MAPS, TOOLS, ConfigMap), client.list(SERVICES, Service)):
            with pytest.raises(ConfigurationError, match=r"configmaps|services"):
                await call


async def test_something_else_on_the_port_is_our_error():
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(static(f"http://127.0.0.1:{port}")) as client:
            with pytest.raises(ConnectionFailed):
                await client.list(SERVICES, Service)


async def test_a_read_survives_a_connection_that_died_while_it_was_idle(api, client):
    await client.list(SERVICES, Service)
    await api.stop()
    await api.start()
    assert (await client.list(SERVICES, Service)).resource_version == "100"


async def test_a_slow_list_may_take_longer_than_a_silent_one(api):
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b'{"metadata":', b'{"resourceVersion":', b'"9"},', b'"items"', b":[]}"):
            await asyncio.sleep(0.6)
            await response.write(part)
        return response

    api.lists.append(slow)
    async with Client(static(api.url), timeout=2.5) as client:
        assert (await client.list(SERVICES, Service)).resource_version == "9"


async def test_a_closed_client_says_so(api):
    with pytest.raises(RuntimeError, match="async with"):
        await Client(static(api.url)).list(SERVICES, Service)


# --- Credentials ----------------------------------------------------------------------------------------------------


def only(token: str, then: object) -> object:
    """An answer for those who come with this token, and 401 for everybody else."""

    async def respond(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return await refusal(401, "Unauthorized")(request)
        return await then(request)

    return respond


@pytest.fixture
async def rotating(api):
    connection = static(api.url)
    connection._credentials = RotatingToken()
    async with Client(connection, timeout=10.0) as opened:
        yield opened


async def test_a_refused_token_is_renewed_once(api, rotating):
    api.others += [only("token-2", answer(CONFIG_MAP, code=201))] * 2
    created = await rotating.create(CONFIG_MAPS, "apps", {"data": {"a": "b"}}, ConfigMap)
    assert created.data == {"a": "b"}
    assert [json.loads(body) for body in api.bodies] == [{"data": {"a": "b"}}] * 2


async def test_a_token_that_is_refused_twice_is_an_error(api, rotating):
    api.others += [refusal(401, "Unauthorized")] * 3
    with pytest.raises(Unauthorized):
        await rotating.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert len(api.requests) == 2


@pytest.mark.parametrize("content_type", ["text/html; charset*", "x.1; charset*", '";', "\xff", ""])
async def test_a_refusal_of_whatever_type_is_our_error(api, client, content_type):
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"Content-Type": content_type})

    api.others += [respond] * 4
    with pytest.raises(Unauthorized):
        await client.get(CONFIG_MAPS, TOOLS, ConfigMap)
    assert (await client.pass_on("GET", "/x")).status == 401


async def test_a_watch_renews_its_token_too(api, rotating):
    api.watches += [only("token-2", watching(event("ADDED", service("a", 101))))] * 2
    async with rotating.watch(SERVICES, resource_version="100") as events:
        assert [one.type async for one in events] == ["ADDED"]


# --- What is passed on ----------------------------------------------------------------------------------------------


def saying(status, content_type, body):
    async def respond(request):
        return web.Response(status=status, body=body, content_type=content_type)

    return respond


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "application/json", b"{}"),
        (202, "application/json", b"[]"),
        (302, "text/html", b"elsewhere"),
        (404, "application/problem+json", b"{}"),
        (503, "application/json", b'{"kind": "Status"}'),
        (500, "text/plain", b"\xff"),
    ],
)
async def test_whatever_is_answered_comes_back_as_it_is(api, client, status, content_type, body):
    api.others.append(saying(status, content_type, body))
    target = "/api/v1/namespaces/a/services/http%3Ab%3A80/proxy/x?y=1&y=%2F"
    found = await client.pass_on("POST", target, headers={"X-Mine": "yes"}, body=b"text")
    assert (found.status, found.content_type, found.body) == (status, content_type, body)
    request = api.requests[-1][1]
    assert (request.method, request.path_qs, request.headers["X-Mine"]) == ("POST", target, "yes")
    assert api.bodies == [b"text"]


async def test_credentials_are_renewed_for_the_api_server_and_not_for_who_is_behind_it(api, rotating):
    api.others += [only("token-2", saying(200, "application/json", b"{}"))] * 2
    assert (await rotating.pass_on("GET", "/x")).status == 200
    assert len(api.requests) == 2
    api.others.append(saying(401, "application/problem+json", b"{}"))
    assert (await rotating.pass_on("GET", "/x")).status == 401
    assert len(api.requests) == 3


async def test_what_is_passed_on_is_bounded_in_time_and_size(api, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)
    async with Client(static(api.url)) as client:
        api.others.append(saying(200, "text/plain", b"x" * 1001))
        with pytest.raises(AnswerTooLong, match="GET /x: "):
            await client.pass_on("GET", "/x?token=secret")
    async with Client(static(api.url), timeout=0.3) as client:
        api.others.append(hanging)
        with pytest.raises(ConnectionFailed, match="GET /x: no answer in time") as failure:
            await client.pass_on("GET", "/x?token=secret")
        assert "secret" not in str(failure.value)


# --- Tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_of_a_service_account(api, client):
    api.others.append(answer({"status": {"token": "fresh", "expirationTimestamp": "2026-01-01T00:00:00Z"}}, code=201))
    assert await request_token(client, ObjectKey("ops", "sre"), "dynamic-toolset") == "fresh"
    method, path, _, body = asked(api)
    assert (method, path) == ("POST", "/api/v1/namespaces/ops/serviceaccounts/sre/token")
    assert body["spec"] == {"audiences": ["dynamic-toolset"], "expirationSeconds": 600}
    api.others.append(answer({"status": {}}, code=201))
    with pytest.raises(InvalidAnswer):
        await request_token(client, ObjectKey("ops", "sre"), "dynamic-toolset")
    with pytest.raises(ValueError, match="name"):
        await request_token(client, ObjectKey("ops", ""), "dynamic-toolset")


# --- Watches --------------------------------------------------------------------------------------------------------


async def test_a_watch_gives_events_until_its_end(api, client):
    lines = event("ADDED", service("a", 101)) + bookmark(102) + event("DELETED", service("a", 103))
    api.watches.append(watching(lines[:50], lines[50:]))
    async with client.watch(
        SERVICES,
        namespace="apps",
        resource_version="100",
        label_selector="a=b",
        field_selector="metadata.name=c",
        timeout_seconds=42,
    ) as events:
        assert [one.type async for one in events] == ["ADDED", "BOOKMARK", "DELETED"]
    assert api.requests[-1][1].headers["Accept-Encoding"] == "identity"
    assert asked(api)[:3] == (
        "GET",
        "/api/v1/namespaces/apps/services",
        {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "100",
            "timeoutSeconds": "42",
            "labelSelector": "a=b",
            "fieldSelector": "metadata.name=c",
        },
    )


async def test_a_watch_without_a_version_is_refused(client):
    with pytest.raises(ValueError, match="resourceVersion"):
        client.watch(SERVICES, resource_version="")


async def test_a_watch_is_to_be_entered(client):
    with pytest.raises(RuntimeError, match="async with"):
        await anext(client.watch(SERVICES, resource_version="1"))


async def test_a_watch_that_is_left_frees_its_connection(api, client):
    async with client.watch(SERVICES, resource_version="1"):
        opened = await api.watch()
    await client.list(SERVICES, Service)
    async with asyncio.timeout(PATIENCE):
        while opened._request.transport is not None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (hanging, ConnectionFailed),
        (broken, ConnectionFailed),
        (refusal(403, "Forbidden"), Forbidden),
        (watching(event("ADDED", service("a", 101)), b"garbage\n"), InvalidAnswer),
        (watching(event("ERROR", status(410, "Expired"))), Gone),
    ],
)
async def test_every_failure_of_a_watch_is_our_error(api, fault, error):
    api.watches += [fault, fault]
    timeout = 0.2 if fault is hanging else 10.0
    async with Client(static(api.url), timeout=timeout) as client, asyncio.timeout(PATIENCE):
        with pytest.raises(error):
            await read(client.watch(SERVICES, resource_version="1"))


@pytest.mark.parametrize("drip", [b"\n", b" "])
async def test_a_watch_that_says_nothing_in_many_words_is_silent(api, drip):
    async with Client(static(api.url), silence=0.3) as client:
        reading = asyncio.create_task(read(client.watch(SERVICES, resource_version="1")))
        watch = await api.watch()
        async with asyncio.timeout(PATIENCE):
            while not reading.done():
                with contextlib.suppress(ConnectionError):  # it has hung up
                    await watch.send(drip)
                await asyncio.sleep(0.02)
        with pytest.raises(ConnectionFailed, match="no answer in time"):
            await reading
        watch.end()


async def test_a_line_of_a_watch_that_does_not_end_is_given_up(api, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)
    async with Client(static(api.url)) as client:
        api.watches.append(watching(event("ADDED", service("a", 101)), *[b"x" * 500] * 3))
        with pytest.raises(AnswerTooLong, match="WATCH "):
            await read(client.watch(SERVICES, resource_version="1"))


async def read(watch: Watch) -> None:
    async with watch as events:
        async for _ in events:
            pass
