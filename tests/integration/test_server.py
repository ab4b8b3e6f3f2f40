"""The server over HTTP, with everything behind it: what each operation answers, and to whom."""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import structlog
import yaml

from dynamic_toolset.kube.pulse import Pulse
from dynamic_toolset.model import Change
from dynamic_toolset.server import answers, probes, views
from dynamic_toolset.server.access import PREFIX
from dynamic_toolset.server.problems import ProblemDetails
from tests.integration.sandboxed import CATALOG, NAMESPACE, TARGET, Cluster, until
from tests.integration.serving import AUDIENCE, Answer, Background, Served, in_thread

Serve = Callable[..., Awaitable[Served]]

V1 = "/api/v1"


def read(answer: Answer, model: type[Any], status: int = 200) -> Any:
    """Decode an answer strictly: every field of the model, and no other."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    decoded = msgspec.json.decode(answer.body, type=model)
    assert msgspec.json.decode(msgspec.json.encode(decoded)) == answer.json
    return decoded


def problem(answer: Answer, status: int, instance: str | None = None) -> ProblemDetails:
    """Check that an answer is a problem as RFC 9457 has it."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    found = msgspec.json.decode(answer.body, type=ProblemDetails)
    assert found.status == status
    assert found.request_id == answer.headers["x-request-id"] != ""
    assert found.detail
    assert instance is None or found.instance == instance
    return found


async def populate(cluster: Cluster) -> None:
    """Create some Services of each kind."""
    for name in ("a", "b", "c"):
        await cluster.add(name)
    await cluster.add("sick", mode="fail")
    await cluster.add("metrics", kind="prometheus")
    for name in ("plain", "plainer"):
        ports = [{"name": "x", "port": 80}]
        meta = {"name": name, "namespace": NAMESPACE}
        await cluster.sandbox.put({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports}})


async def settled(served: Served) -> None:
    """Wait until they have all been checked, and what is healthy is published."""
    await until(lambda: served.cluster.listed == {"a", "b", "c", "metrics"})
    await until(lambda: (report := served.supervisor.controller.report) and report.published)
    await until(lambda: views.counts(served.source.snapshot.report).unknown == 0)


@pytest.fixture
async def populated(cluster: Cluster, serve: Serve) -> Served:
    """Some Services of each kind, and the service that has looked at them."""
    await populate(cluster)
    served = await serve()
    await settled(served)
    return served


@pytest.fixture(scope="module")
def standing() -> Iterator[Background]:
    """The same, for tests that only read."""
    with in_thread() as background:
        background.run(populate(background.cluster))
        background.run(settled(background.served))
        yield background


# --- Each operation --------------------------------------------------------------------------------------------------


async def test_the_toolset_is_what_the_config_map_holds(populated: Served, cluster: Cluster) -> None:
    answer = await populated.get(f"{V1}/toolset")
    found = read(answer, answers.ToolsetAnswer)
    assert (found.config_map.namespace, found.config_map.name, found.published) == (*TARGET, True)
    assert {one.key: one.text for one in found.documents} == cluster.documents
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["application/yaml", "text/yaml", "application/x-yaml"])
def test_the_toolset_as_the_file_of_holmesgpt(standing: Background, accept: str) -> None:
    answer = standing.get(f"{V1}/toolset", headers={"accept": f"{accept}, application/json;q=0.5"})
    assert answer.headers["content-type"] == f"{accept}; charset=utf-8"
    assert answer.body.decode() == standing.cluster.documents["custom_toolset.yaml"]
    assert "toolsets" in yaml.safe_load(answer.body)


@pytest.mark.parametrize("accept", ["application/json", "application/yaml"])
async def test_who_has_the_toolset_gets_304_until_it_changes(populated: Served, cluster: Cluster, accept: str) -> None:
    first = await populated.get(f"{V1}/toolset", headers={"accept": accept})
    etag = first.headers["etag"]
    assert re.fullmatch(r'"[^"]+"', etag)
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = await populated.get(f"{V1}/toolset", headers={"accept": accept, "if-none-match": known})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert "content-type" not in again.headers
    for unknown in ('"x"', etag.strip('"'), ""):
        again = await populated.get(f"{V1}/toolset", headers={"accept": accept, "if-none-match": unknown})
        assert (again.status, again.body) == (200, first.body)
    await cluster.delete("a")
    await until(lambda: "a" not in cluster.listed)
    await until(lambda: populated.supervisor.controller.report.published)  # type: ignore[union-attr]
    changed = await populated.get(f"{V1}/toolset", headers={"accept": accept, "if-none-match": etag})
    assert changed.status == 200
    assert changed.headers["etag"] != etag


def test_json_and_yaml_are_not_taken_for_each_other(standing: Background) -> None:
    etags = {
        (standing.get(f"{V1}/toolset", headers={"accept": kind})).headers["etag"]
        for kind in ("application/json", "application/yaml")
    }
    assert len(etags) == 2


def test_the_toolsets_and_each_of_them(standing: Background) -> None:
    found = read(standing.get(f"{V1}/toolsets"), answers.ToolsetList)
    items = {item.name: item for item in found.items}
    assert list(items) == sorted(items)
    assert items["prometheus/metrics"].services == (answers.ServiceRef(NAMESPACE, "metrics"),)
    assert (items["kubernetes/core"].source, items["prometheus/metrics"].source) == ("base", "services")
    for name, item in items.items():
        for spelling in (name, name.replace("/", "%2F")):
            detail = read(standing.get(f"{V1}/toolsets/{spelling}"), answers.ToolsetDetail)
            assert answers.ToolsetItem(**{key: getattr(detail, key) for key in item.__struct_fields__}) == item
    content = read(standing.get(f"{V1}/toolsets/prometheus/metrics"), answers.ToolsetDetail).content
    assert "metrics.shop" in str(content)
    problem(standing.get(f"{V1}/toolsets/nothing/at/all"), 404, f"{V1}/toolsets/nothing/at/all")


async def test_what_would_change_is_nothing_once_it_is_published(populated: Served) -> None:
    found = read(await populated.get(f"{V1}/diff"), answers.DiffAnswer)
    assert (found.config_map.namespace, found.config_map.name) == TARGET
    assert (found.exists, found.changes, found.withheld) == (True, (), ())


async def test_what_would_change_is_shown_with_what_is_in_the_way(cluster: Cluster, serve: Serve) -> None:
    await cluster.edit({"custom_toolset.yaml": "toolsets: {theirs: {enabled: true}}\n"})
    await cluster.add("a")
    served = await serve()

    async def told() -> Any:
        return read(await served.get(f"{V1}/diff"), answers.DiffAnswer)

    await until(lambda: "a.shop" in str(served.source.snapshot.report.documents))
    found = await told()
    assert [one.reason for one in found.withheld] == ["ConfigMapForeign"]
    changes = {one.key: one.diff for one in found.changes}
    assert set(changes) == {"custom_toolset.yaml", "toolset.json", "metadata.labels"}
    assert "-toolsets: {theirs: {enabled: true}}" in changes["custom_toolset.yaml"].splitlines()
    assert "a.shop.svc" in changes["custom_toolset.yaml"]

    label = {"metadata": {"labels": {"kubernaut.io/managed-by": "dynamic-toolset"}}}
    await cluster.sandbox.patch("ConfigMap", *TARGET, label)
    await until(lambda: served.source.snapshot.report.published)
    assert cluster.listed == {"a"}
    assert (await told()) == answers.DiffAnswer(answers.ServiceRef(*TARGET), exists=True, changes=(), withheld=())

    await cluster.edit({"overrides.yaml": "toolsets: 7"})
    await until(lambda: "OverridesInvalid" in str(served.source.snapshot.report.problems))
    found = await told()
    assert ([one.reason for one in found.withheld], found.changes) == (["OverridesInvalid"], ())


@pytest.mark.parametrize(("setting", "reason"), [("paused", "Paused"), ("dryRun", "DryRun")])
async def test_while_nothing_is_to_be_written_what_would_be_is_shown(
    cluster: Cluster, serve: Serve, setting: str, reason: str
) -> None:
    await cluster.add("a")
    served = await serve(**{setting: True})
    await until(lambda: "a.shop" in str(served.source.snapshot.report.documents))
    found = read(await served.get(f"{V1}/diff"), answers.DiffAnswer)
    assert not found.exists
    assert [one.reason for one in found.withheld] == [reason]
    assert "a.shop.svc" in next(one.diff for one in found.changes if one.key == "custom_toolset.yaml")
    assert cluster.config_map is None


async def test_before_anything_is_decided_nobody_knows_what_would_change(cluster: Cluster, serve: Serve) -> None:
    cluster.sandbox._api._token = "nobody has it"
    served = await serve(started=False)
    answer = await served.get(f"{V1}/diff")
    assert "yet" in problem(answer, 503).detail
    assert answer.headers["retry-after"] == "1"


def test_every_service_is_shown_in_its_order(standing: Background) -> None:
    found = read(standing.get(f"{V1}/services"), answers.ServiceList)
    assert [item.name for item in found.items] == ["a", "b", "c", "metrics", "plain", "plainer", "sick"]
    assert (found.total, found.next) == (7, None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "a b c metrics plain plainer sick"),
        ("type=prometheus", "metrics"),
        ("type=prometheus&type=orders", "a b c metrics sick"),
        ("namespace=shop&health=healthy", "a b c metrics"),
        ("namespace=nowhere", ""),
        ("health=unhealthy", "sick"),
        ("health=unhealthy&health=healthy&listed=false", "sick"),
        ("decision=ignored", "plain plainer"),
        ("decision=candidate&listed=true", "a b c metrics"),
        ("search=PLAIN", "plain plainer"),
        ("search=metrics.shop%20prom", "metrics"),
        ("listed=false", "plain plainer sick"),
    ],
)
def test_which_services_are_found(standing: Background, query: str, expected: str) -> None:
    found = read(standing.get(f"{V1}/services?{query}"), answers.ServiceList)
    assert " ".join(item.name for item in found.items) == expected
    assert found.total == len(found.items)


def test_services_a_page_at_a_time(standing: Background) -> None:
    names, after = [], ""
    for _ in range(10):
        page = read(standing.get(f"{V1}/services?limit=3{after}"), answers.ServiceList)
        names.append([item.name for item in page.items])
        if page.next is None:
            break
        after = f"&continue={page.next}"
    assert names == [["a", "b", "c"], ["metrics", "plain", "plainer"], ["sick"]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("health=fine", "health"),
        ("decision=x", "decision"),
        ("listed=perhaps", "listed"),
        ("search=" + "x" * 201, "search"),
        ("continue=" + "x" * 401, "continue"),
        ("continue=nonsense", "continue"),
    ],
)
def test_a_query_that_makes_no_sense_is_named(standing: Background, query: str, field: str | None) -> None:
    found = problem(standing.get(f"{V1}/services?{query}"), 400, f"{V1}/services")
    assert [one.field for one in found.errors] == ([field] if field else [])


async def test_the_whole_decision_about_a_service(populated: Served) -> None:
    found = read(await populated.get(f"{V1}/services/{NAMESPACE}/metrics"), answers.ServiceDetail)
    assert (found.decision, found.type, found.health, found.listed, found.failures) == (
        *("candidate", "prometheus", "healthy", True, 0),
    )
    assert found.evidence
    assert found.checks
    assert found.checks[0].health == "healthy"
    assert all(earlier.at <= later.at for later, earlier in pairwise(found.checks))
    assert found.toolsets == ("prometheus/metrics",)
    assert found.agent
    assert found.endpoint in str(found.agent)

    sick = read(await populated.get(f"{V1}/services/{NAMESPACE}/sick"), answers.ServiceDetail)
    assert (sick.health, sick.listed, sick.agent) == ("unhealthy", False, None)
    assert sick.failures > 0

    plain = read(await populated.get(f"{V1}/services/{NAMESPACE}/plain"), answers.ServiceDetail)
    assert (plain.decision, plain.health, plain.checks, plain.agent) == ("ignored", None, (), None)
    assert plain.reason

    problem(await populated.get(f"{V1}/services/{NAMESPACE}/nobody"), 404, f"{V1}/services/{NAMESPACE}/nobody")


async def test_discover_looks_at_all_services_and_asks_every_candidate(cluster: Cluster, serve: Serve) -> None:
    backend = await cluster.add("a")
    served = await serve(health={"interval": "10m"})
    await until(lambda: cluster.listed == {"a"})
    lists, asked = cluster.requests["list", "services"], sum(backend.requests.values())
    answer = await served.ask("POST", f"{V1}/discover")
    assert read(answer, answers.Accepted, 202).message
    await until(lambda: cluster.requests["list", "services"] > lists)
    await until(lambda: sum(backend.requests.values()) > asked)
    await asyncio.sleep(0)
    assert cluster.requests["list", "services"] == lists + 1


async def test_statistics(populated: Served) -> None:
    found = read(await populated.get(f"{V1}/statistics"), answers.StatisticsAnswer)
    assert (found.leads, found.ready, found.problems) == (True, True, ())
    assert found.services == answers.ServiceCounts(
        known=7, candidates=5, listed=4, healthy=4, unhealthy=1, unknown=0, held=0
    )
    assert {"Services", "ConfigMap", "EndpointSlices", "Lease"} <= set(found.watches)
    assert found.watches["Services"].objects == 7
    assert found.publications.writes >= 1
    assert found.passes.last_outcome in {"created", "updated", "unchanged"}
    assert found.started_at.endswith("Z")


async def test_the_history_says_what_happened_and_why(populated: Served, cluster: Cluster) -> None:
    first = read(await populated.get(f"{V1}/history"), answers.HistoryList)
    assert [one.event for one in first.items].count("published") >= 1
    await cluster.add("new")
    await until(lambda: "new" in cluster.listed)
    await cluster.delete("new")
    await until(lambda: "new" not in cluster.listed)
    await until(lambda: populated.telemetry.history.entries[-1].change.event == "published")
    items = read(await populated.get(f"{V1}/history"), answers.HistoryList).items
    news = [one for one in items if one.id not in {old.id for old in first.items}][::-1]
    assert len({one.id for one in items}) == len(items)
    told = [(one.event, one.cause) for one in news if one.service and one.service.name == "new"]
    assert told[0][0] in {"service_not_listed", "service_listed"}
    assert told[0][1] == "Service shop/new was created"
    assert told[-1] == ("service_gone", "Service shop/new was deleted")
    published = [one for one in news if one.event == "published"]
    assert [one.diff.startswith("--- before\n+++ after\n@@") for one in published] == [True, True]
    assert published[-1].cause == "Service shop/new was deleted"


# --- Events ----------------------------------------------------------------------------------------------------------


async def test_a_change_is_streamed_when_it_happens(populated: Served, cluster: Cluster) -> None:
    async with populated.events() as events:
        hello = await anext(events)
        assert hello.name == "hello"
        assert hello.data["lastEventId"] == populated.telemetry.history.last_id
        await cluster.add("new")
        change = await populated.following(events, "change")
        assert (change.data["service"], change.data["cause"]) == (
            {"namespace": NAMESPACE, "name": "new", "cluster": ""}, "Service shop/new was created"
        )  # fmt: skip
        assert msgspec.convert(change.data, answers.HistoryItem).id == change.id
        assert (await populated.following(events, "report")).id is None
        while (change := await populated.following(events, "change")).data["event"] != "published":
            pass
    assert "new" in cluster.listed


@pytest.mark.parametrize("by", ["header", "query"])
async def test_who_comes_back_is_told_what_it_missed(populated: Served, cluster: Cluster, by: str) -> None:
    seen = populated.telemetry.history.last_id
    await cluster.delete("a")
    await until(lambda: populated.telemetry.history.last_id != seen)
    headers = {"Last-Event-ID": seen} if by == "header" else {}
    query = f"?lastEventId={seen}" if by == "query" else ""
    missed = populated.telemetry.history.since(seen)
    assert missed
    async with populated.events(f"{V1}/events{query}", headers=headers) as events:
        assert (await anext(events)).name == "hello"
        assert [(await anext(events)).id for _ in missed] == [one.id for one in missed]
    async with populated.events(headers={"Last-Event-ID": "another-1"}) as events:
        assert [(await anext(events)).name for _ in range(2)] == ["hello", "reset"]


async def test_two_hundred_readers_hear_of_each_change_once(populated: Served, cluster: Cluster) -> None:
    ready = asyncio.Semaphore(0)

    async def follow() -> list[str | None]:
        async with populated.events() as events, asyncio.timeout(60):
            assert (await anext(events)).name == "hello"
            ready.release()
            seen = []
            while True:
                event = await populated.following(events, "change")
                seen.append(event.id)
                if event.data["event"] == "service_gone":
                    return seen

    readers = [asyncio.create_task(follow()) for _ in range(200)]
    for _ in readers:
        await ready.acquire()
    last = populated.telemetry.history.last_id
    await cluster.delete("plain")
    await cluster.delete("sick")
    seen = await asyncio.gather(*readers)
    expected = [one.id for one in populated.telemetry.history.since(last) or ()]
    assert all(len(set(one)) == len(one) for one in seen)
    assert {tuple(one) for one in seen} == {tuple(expected[: len(seen[0])])}
    await until(lambda: populated.telemetry.stream.readers == 0)


async def test_a_reader_that_does_not_read_is_dropped_and_holds_nobody_up(populated: Served, cluster: Cluster) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", populated.ports.api.socket.getsockname()[1], limit=1)
    writer.write(f"GET {V1}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: populated.telemetry.stream.readers)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with populated.events() as events:
        await anext(events)
        for _ in range(400):
            entries = populated.telemetry.history.add([Change("published", diff="x" * 50_000)], 1.0)
            populated.telemetry.stream.tell(entries, None)
            populated.telemetry.stream.flush()  # not many together, but many
            await populated.following(events, "change")
            if populated.telemetry.stream.dropped:
                break
        assert populated.telemetry.stream.dropped == 1
    writer.close()
    await until(lambda: populated.telemetry.stream.readers == 0)
    assert (await populated.get("/healthz")).status == 200


async def test_a_reader_that_goes_away_is_forgotten(populated: Served) -> None:
    async with populated.events() as events:
        await anext(events)
        assert populated.telemetry.stream.readers == 1
    await until(lambda: populated.telemetry.stream.readers == 0)


# --- What is refused -------------------------------------------------------------------------------------------------

READ = [
    "toolset",
    "toolsets",
    "toolsets/kubernetes/core",
    "services",
    f"services/{NAMESPACE}/a",
    "statistics",
    "history",
]


@pytest.mark.parametrize("path", READ)
def test_what_is_read_is_read_with_get_or_head(standing: Background, path: str) -> None:
    whole = standing.get(f"{V1}/{path}")
    head = standing.ask("HEAD", f"{V1}/{path}")
    assert (whole.status, head.status, head.body) == (200, 200, b"")
    if path != "statistics":
        assert head.headers["content-length"] == whole.headers["content-length"]
    for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE"):
        refused = standing.ask(method, f"{V1}/{path}")
        problem(refused, 405, f"{V1}/{path}")
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_what_is_done_is_done_with_post(served: Served) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        refused = await served.ask(method, f"{V1}/discover")
        assert refused.status == 405
        assert refused.headers["allow"] == "OPTIONS, POST"
    refused = await served.ask("HEAD", f"{V1}/events")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, OPTIONS")


@pytest.mark.parametrize("path", [*READ, "events", "discover"])
def test_what_nobody_can_be_answered_with_is_not_acceptable(standing: Background, path: str) -> None:
    method = "POST" if path == "discover" else "GET"
    problem(standing.ask(method, f"{V1}/{path}", headers={"accept": "image/png"}), 406, f"{V1}/{path}")


@pytest.mark.parametrize(
    "path",
    [
        *("/api", "/api/v1", "/api/v2/services", "/nothing", "/api/v1/Services", "/api/v1/services/only-one"),
        *("/api/v1/services/a/b/c", "/api/v1/services/", "/api/v1//services", "/api/v1/toolsets/", "/healthz/"),
        *(
            "/api/v1/../v1/services",
            "/api/v1/%2e%2e/services",
            "/schema",
            "/docs/x",
            "/openapi.yaml",
            "/openapi.json/swagger",
        ),
    ],
)
def test_where_there_is_nothing_it_is_not_found(standing: Background, path: str) -> None:
    answer = standing.run(_raw(standing.served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in answer


async def _raw(served: Served, request: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.ports.api.socket.getsockname()[1])
    try:
        writer.write(request.encode("latin-1"))
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_path_of_any_length_is_answered(served: Served) -> None:
    problem(await served.get(f"{V1}/services/shop/" + "x" * 20_000), 414)
    problem(await served.get(f"{V1}/services/shop/" + "x" * 300), 400)


async def test_a_body_that_is_too_large_is_refused_and_the_answer_arrives(served: Served) -> None:
    problem(await served.ask("POST", f"{V1}/discover", data=io.BytesIO(b"x" * 3_000_000)), 413, f"{V1}/discover")
    assert (await served.ask("POST", f"{V1}/discover", data=b"x" * 1000)).status == 202


async def test_a_mistake_of_ours_tells_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(type(served.source), "statistics", fail)
    answer = await served.get(f"{V1}/statistics", headers={"X-Request-ID": "mine"})
    assert problem(answer, 500).request_id == "mine"
    assert b"inside" not in answer.body


@pytest.mark.parametrize("rest", [b"zz\r\n", b""])
async def test_a_body_that_breaks_off_is_no_mistake_of_ours(served: Served, rest: bytes) -> None:
    """Or anybody could fill the log with tracebacks, and raise an alert with each."""
    head = f"POST {V1}/validate?kind=settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    with structlog.testing.capture_logs() as logged:
        _, writer = await asyncio.open_connection("127.0.0.1", served.ports.api.socket.getsockname()[1])
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\na: \r\n".encode() + rest)
        await writer.drain()
        await until(lambda: served.server._connections()["api"])
        if not rest:
            writer.transport.abort()
        await until(lambda: any(one["event"] == "request" for one in logged))
        writer.close()
    assert [one["status"] for one in logged if one["event"] == "request"] == [0]
    assert not [one for one in logged if one["event"] == "request_failed"]


async def test_who_calls_too_often_has_to_wait(serve: Serve) -> None:
    served = await serve(server={"rateLimit": 3})
    for remaining in (2, 1, 0):
        answer = await served.get(f"{V1}/services")
        assert answer.status == 200
        assert answer.headers["ratelimit"].startswith(f'"default";r={remaining};')
    refused = await served.get(f"{V1}/services")
    problem(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit"].startswith('"default";r=0;')
    assert (await served.get("/healthz")).status == 200


# --- Who may call ----------------------------------------------------------------------------------------------------


def know_callers(cluster: Cluster) -> None:
    """Make known ann, who may read everything, bob, who may read the toolset, and eve, who may nothing."""
    for name in ("ann", "bob", "eve"):
        cluster.sandbox.add_token(f"{name}-1", name, audiences=[AUDIENCE])
    cluster.sandbox.add_token("ann-elsewhere", "ann", audiences=["another"])
    cluster.sandbox.allow("ann", f"{PREFIX}/api/v1/*", "get")
    cluster.sandbox.allow("bob", f"{PREFIX}/api/v1/toolset", "get")
    cluster.sandbox.allow("bob", f"{PREFIX}/api/v1/services/*", "get")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Background]:
    """The service, which wants a token."""
    with in_thread(server={"auth": "token"}) as background:
        know_callers(background.cluster)
        background.run(background.cluster.add("a"))
        background.run(until(lambda: background.cluster.listed == {"a"}))
        yield background


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("token", "method", "path", "status"),
    [
        ("ann-1", "GET", "toolset", 200),
        ("ann-1", "HEAD", "toolset", 200),
        ("ann-1", "GET", "services/shop/a", 200),
        ("ann-1", "POST", "discover", 403),
        ("ann-elsewhere", "GET", "toolset", 401),
        ("bob-1", "GET", "toolset", 200),
        ("bob-1", "GET", "toolsets", 403),
        ("bob-1", "GET", "services/shop/a", 200),
        ("bob-1", "GET", "services", 403),
        ("bob-1", "GET", "services/", 404),  # and not the list, by the rule for what is below it
        ("bob-1", "GET", "services//", 404),
        ("bob-1", "GET", "services%2F", 404),
        ("bob-1", "GET", "toolset%2F..%2Fservices", 403),
        ("eve-1", "GET", "toolset", 403),
        ("nobody-1", "GET", "toolset", 401),
        (None, "GET", "toolset", 401),
        (None, "GET", "nothing", 401),
        (None, "DELETE", "toolset", 401),
        (None, "OPTIONS", "toolset", 401),
        (None, "GET", "events", 401),
    ],
)
def test_who_is_let_in(guarded: Background, token: str | None, method: str, path: str, status: int) -> None:
    answer = guarded.ask(method, f"{V1}/{path}", headers=bearer(token))
    assert answer.status == status
    if status >= 400:
        problem(answer, status, f"{V1}/{path}")
    assert ("www-authenticate" in answer.headers) is (status == 401)


def test_the_probes_and_the_description_need_no_token(guarded: Background) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert guarded.get(path).status == 200


def test_whatever_leads_to_a_handler_needs_leave(guarded: Background) -> None:
    """Every spelling that could get by: none is answered with 200 without a token."""
    spellings = ["{}", "{}/", "/{}", "/.{}", "//{}", "{}//", "{}/.", "{}?x", "{}#x", "{};x", "{}%00", "{}%20"]
    spellings += ["/healthz/..{}", "/healthz%2F..{}", "http://x{}", "/openapi.json{}", "/page/..{}"]
    for path in READ:
        whole = f"{V1}/{path}"
        variants = {spelling.format(whole) for spelling in spellings}
        variants |= {
            whole.replace("/", "//"),
            whole.replace("/api", "/%61pi"),
            whole.replace("/", "%2F"),
            whole.upper(),
        }
        for target in variants:
            answer = guarded.run(
                _raw(guarded.served, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            )
            assert answer.split(b" ")[1] in {b"401", b"404", b"400"}, target


async def test_when_the_api_server_cannot_be_asked_only_who_is_known_comes_in(cluster: Cluster, serve: Serve) -> None:
    know_callers(cluster)
    guarded = await serve(server={"auth": "token"})
    assert (await guarded.get(f"{V1}/toolset", headers=bearer("ann-1"))).status == 200
    await cluster.sandbox._runner.cleanup()
    refused = await guarded.get(f"{V1}/toolset", headers=bearer("bob-1"))
    problem(refused, 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert (await guarded.get(f"{V1}/toolset", headers=bearer("ann-1"))).status == 200
    assert (await guarded.get("/healthz")).status == 200


# --- Probes ----------------------------------------------------------------------------------------------------------


async def test_the_probes_say_how_the_service_is(populated: Served) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await populated.get(path)
        assert (answer.status, answer.body) == (200, b"ok\n")
        assert answer.headers["content-type"].startswith("text/plain")
    verbose = (await populated.get("/readyz?verbose")).body.decode().splitlines()
    assert verbose == [
        "[+]Services synced ok",
        "[+]ConfigMap synced ok",
        "[+]API reached lately ok",
        "[+]leader or standby ok",
        "[+]first pass done ok",
        "[+]not ending ok",
        "ok",
    ]
    verbose = (await populated.get("/healthz?verbose")).body.decode().splitlines()
    assert {f"[+]{name} ok" for name in ("watch of Services", "health checks", "election", "passes")} < set(verbose)


async def test_no_probe_asks_the_kubernetes_api(populated: Served, cluster: Cluster) -> None:
    before = dict(cluster.sandbox.requests)
    for _ in range(50):
        await populated.get("/healthz?verbose")
        await populated.get("/readyz?verbose")
    changed = {key: count - before.get(key, 0) for key, count in cluster.sandbox.requests.items()}
    assert sum(count for (verb, _), count in changed.items() if verb in {"get", "list", "create"}) == 0


async def test_the_service_is_not_alive_when_a_loop_stands_still_and_says_which(populated: Served) -> None:
    pulse = Pulse(lambda: 1000.0)
    pulse.promise(0)
    pulse._clock = lambda: 1000.0 + probes.GRACE - 1
    populated.supervisor.controller._services.pulse = pulse
    assert (await populated.get("/healthz")).status == 200
    pulse._clock = lambda: 1000.0 + probes.GRACE + 1
    answer = await populated.get("/healthz")
    assert answer.status == 503
    assert "[-]watch of Services failed: late by 61 s" in answer.body.decode()
    assert "[+]health checks ok" in answer.body.decode()
    assert (await populated.get("/readyz")).status == 200


async def test_before_anything_could_be_listed_the_service_is_alive_but_not_ready(
    cluster: Cluster, serve: Serve
) -> None:
    await cluster.add("a")
    cluster.sandbox._api._token = "another"
    served = await serve(started=False)
    answer = await until_status(served, "/readyz", 503)
    assert "[-]Services synced failed: not listed yet" in answer.body.decode()
    assert (await served.get("/healthz")).status == 200
    assert read(await served.get(f"{V1}/services"), answers.ServiceList).total == 0
    assert read(await served.get(f"{V1}/toolset"), answers.ToolsetAnswer).published is False
    assert read(await served.get(f"{V1}/statistics"), answers.StatisticsAnswer).ready is False
    cluster.sandbox._api._token = None
    await until_status(served, "/readyz", 200)
    assert cluster.listed == {"a"}


async def test_a_change_that_waits_for_the_api_is_no_loop_that_hangs(cluster: Cluster, serve: Serve) -> None:
    """The Services can be listed, the ConfigMap cannot: nothing can be decided, and a restart would not help."""
    await cluster.add("a")
    served = await serve(started=False)
    controller = served.supervisor.controller
    controller._config_maps.synced = asyncio.Event()  # which nobody sets
    await until(lambda: controller._services.synced.is_set())
    controller._pacer._since = asyncio.get_running_loop().time() - 600
    if not controller._passes:
        assert (await served.get("/healthz?verbose")).status == 200


async def test_a_standby_is_ready(cluster: Cluster, serve: Serve) -> None:
    await cluster.add("a")
    leader = await serve()
    await until(lambda: cluster.listed == {"a"})
    standby = await serve()
    await until_status(standby, "/readyz", 200)
    assert read(await leader.get(f"{V1}/statistics"), answers.StatisticsAnswer).leads
    found = read(await standby.get(f"{V1}/statistics"), answers.StatisticsAnswer)
    assert (found.leads, found.ready) == (False, True)
    assert found.holder
    await until(lambda: standby.supervisor.controller.report.published)  # type: ignore[union-attr]
    assert read(await standby.get(f"{V1}/toolset"), answers.ToolsetAnswer).published


async def until_status(served: Served, path: str, status: int) -> Answer:
    async with asyncio.timeout(20):
        while (answer := await served.get(path)).status != status:
            await asyncio.sleep(0.02)
        return answer


# --- The other port --------------------------------------------------------------------------------------------------


async def test_the_metrics_have_a_port_of_their_own(populated: Served) -> None:
    async with populated.session.get(f"{populated.metrics_url}/metrics") as answer:
        assert answer.status == 200
    problem(await populated.get("/metrics"), 404)
    # Nor does it answer to a page from elsewhere, whose name has come to lead to loopback.
    async with populated.session.get(f"{populated.metrics_url}/metrics", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 403


# --- Other pages -----------------------------------------------------------------------------------------------------


async def test_other_origins_may_read_only_if_they_are_listed(serve: Serve) -> None:
    served = await serve(server={"corsOrigins": ["https://dash.example.com"]})
    for origin, allowed in (("https://dash.example.com", True), ("https://evil.example.com", False)):
        answer = await served.get(f"{V1}/toolset", headers={"origin": origin})
        assert ("access-control-allow-origin" in answer.headers) is allowed
        assert {part.strip() for value in answer.headers.getall("vary") for part in value.split(",")} == {  # type: ignore[attr-defined]
            "Accept", "Origin"
        }  # fmt: skip


# --- Settings that come into force while it runs ---------------------------------------------------------------------


async def test_a_successor_keeps_what_is_listed_and_repeats_no_news(populated: Served, cluster: Cluster) -> None:
    last, writes = populated.telemetry.history.last_id, len(cluster.writes)
    old = populated.supervisor.controller
    changed = msgspec.structs.replace(populated.settings, require_annotations=True)
    populated.supervisor.replace(changed, CATALOG)
    await until(lambda: populated.supervisor.controller is not old)
    await until(lambda: populated.supervisor.controller._passes > 1)
    assert cluster.listed == {"a", "b", "c", "metrics"}
    assert len(cluster.writes) == writes
    news = populated.telemetry.history.since(last) or ()
    assert [one.change for one in news if one.change.service] == []
    found = read(await populated.get(f"{V1}/services"), answers.ServiceList)
    assert found.total == 7
    await cluster.delete("a")
    await until(lambda: "a" not in cluster.listed)


async def test_a_successor_that_cannot_reach_the_api_shows_what_was_known(populated: Served, cluster: Cluster) -> None:
    last = populated.telemetry.history.last_id
    old = populated.supervisor.controller
    cluster.sandbox._api._token = "another"
    populated.supervisor.replace(populated.settings, CATALOG)
    await until(lambda: populated.supervisor.controller is not old, 20)
    await until(lambda: "WatchFailing" in {one.reason for one in populated.supervisor.controller.report.problems}, 20)  # type: ignore[union-attr]
    assert read(await populated.get(f"{V1}/services"), answers.ServiceList).total == 7
    gone = [one for one in populated.telemetry.history.since(last) or () if one.change.service]
    assert gone == []
    cluster.sandbox._api._token = None


async def test_of_two_successors_the_later_one_takes_over(populated: Served) -> None:
    for requires in (True, False):
        changed = msgspec.structs.replace(populated.settings, require_annotations=requires)
        populated.supervisor.replace(changed, CATALOG)
    old = populated.supervisor.controller
    await until(lambda: populated.supervisor.controller is not old)
    assert populated.supervisor.settings.require_annotations is False
    assert populated.supervisor.controller._settings.require_annotations is False
    await until(lambda: populated.supervisor.controller._passes)
    assert populated.supervisor.controller is not old


async def test_the_end_while_a_successor_takes_over_is_the_end(populated: Served) -> None:
    populated.supervisor.replace(populated.settings, CATALOG)
    populated.supervisor.stop()
    async with asyncio.timeout(20):
        await asyncio.wait([populated.working])
    assert populated.working.exception() is None
    assert (await populated.get(f"{V1}/services")).status == 200


# --- In a thread -----------------------------------------------------------------------------------------------------


def test_what_runs_in_a_thread_can_be_asked_and_changed_from_here() -> None:
    with in_thread() as served:
        served.run(served.cluster.add("orders"))
        served.run(until(lambda: served.cluster.listed == {"orders"}))
        answer = served.run(served.served.get(f"{V1}/services"))
    assert [item["name"] for item in answer.json["items"]] == ["orders"]
