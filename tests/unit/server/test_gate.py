"""What every request passes: its id, its bounds, who may call and how often, and what is answered when it fails."""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import structlog
from structlog.typing import EventDict

from dynamic_toolset.server.access import TOKEN_HEADER, Caller, Forbidden, Unauthenticated, Unavailable
from dynamic_toolset.server.exchange import MAX_BODY, STREAM, App, Receive, Scope, Send
from dynamic_toolset.server.gate import AGAIN, LOGGED_PATH, MAX_PATH, OPEN, TIME, Gate
from dynamic_toolset.server.limits import Limiter, caller_key
from dynamic_toolset.server.problems import Refusal
from tests.unit.server.asgi import Answer, ask
from tests.virtual_time import virtual_time


class Meter:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int, str]] = []

    def requested(self, route: str, method: str, status: int, seconds: float, request_id: str) -> None:
        assert seconds >= 0
        self.heard.append((route, method, status, request_id))


class Doorman:
    """Plays Access: knows ann, who may get, and bob, who may nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.away = False
        self.known = {"ann", "bob"}

    def knows(self, token: str | None) -> bool:
        return token == "ann" and not self.away

    async def authenticate(self, token: str | None, path: str, verb: str, *, remote: str = "") -> Caller:
        self.asked.append((verb, path))
        if self.away:
            raise Unavailable("whose token this is cannot be found out at present", 3)
        if token is None or token not in self.known:
            raise Unauthenticated("a bearer token is needed", given=token is not None)
        return Caller(token)

    async def authorize(self, caller: Caller, path: str, verb: str, *, remote: str = "") -> None:
        if caller.username != "ann" or verb != "get":
            raise Forbidden(f"user {caller.username!r} cannot {verb} path {path!r}")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the body, and says how long it was."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    scope["path_template"] = "/there"
    body = f"{scope['method']} {length}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Accept")]})
    await send({"type": "http.response.body", "body": body})


def gate(app: App = hello, **options: Any) -> Gate:
    options = {"access": None, "limiter": Limiter(0), "open_to_all": OPEN, "meter": Meter(), **options}
    return Gate(app, **options)


def raising(error: BaseException) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def own(token: str) -> dict[str, str]:
    return {"x-dynamic-toolset-token": token}


def assert_problem(answer: Answer, status: int, instance: str = "/api/v1/services") -> str:
    """Check that an answer is a problem as RFC 9457 has it, and return its detail."""
    assert answer.status == status
    assert answer.is_whole
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json["status"], answer.json["instance"]) == (status, instance)
    assert answer.json["title"]
    assert answer.json["requestId"] == answer.headers["x-request-id"]
    detail: str = answer.json["detail"]
    assert detail
    return detail


# --- The id of a request ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "abc-123", "A.b_c:d/e+f=", "7" * 128, "00-4bf92f3577b34da6-00f067aa-01"])
async def test_an_id_that_a_proxy_gave_is_taken(given: str) -> None:
    assert (await ask(gate(), headers={"X-Request-ID": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "-a", "a b", "7" * 129, "a\tb", "ä", 'a"b', "a;b", "<script>", "{}", "\x1b[31m"])
async def test_an_id_that_is_not_fit_for_a_log_is_replaced(given: str) -> None:
    answer = await ask(gate(), headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


async def test_each_request_has_an_id_of_its_own() -> None:
    answers = [await ask(gate()) for _ in range(10)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 10


async def test_the_id_is_in_every_event_that_a_request_causes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        structlog.get_logger().info("inside", **structlog.contextvars.get_contextvars())
        await hello(scope, receive, send)

    heard: list[EventDict] = []

    def hear(_logger: Any, _method: str, event: EventDict) -> EventDict:
        heard.append(structlog.contextvars.merge_contextvars(_logger, _method, event))
        raise structlog.DropEvent

    with _processors([hear]):
        await ask(gate(app), headers={"X-Request-ID": "mine"})
    assert {event["event"]: event.get("request_id") for event in heard} == {"inside": "mine", "request": "mine"}
    assert not structlog.contextvars.get_contextvars()


def _processors(processors: list[Any]) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def configured() -> Any:
        before = structlog.get_config()
        structlog.configure(processors=processors, cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)

    return configured()


# --- What is said of a request ---------------------------------------------------------------------------------------


async def test_a_request_is_logged_and_counted_by_its_route() -> None:
    meter = Meter()
    with structlog.testing.capture_logs() as logged:
        answer = await ask(gate(meter=meter, access=Doorman()), headers=bearer("ann"))
    [event] = [one for one in logged if one["event"] == "request"]
    assert {key: event[key] for key in ("method", "path", "status", "caller", "log_level")} == {
        "method": "GET", "path": "/api/v1/services", "status": 200, "caller": "ann", "log_level": "info"
    }  # fmt: skip
    assert meter.heard == [("/there", "GET", 200, answer.headers["x-request-id"])]


async def test_a_path_that_leads_nowhere_is_no_label_of_its_own() -> None:
    meter = Meter()
    await ask(gate(raising(Refusal(404, "nothing")), meter=meter), target="/some/path")
    assert [one[0] for one in meter.heard] == ["unknown"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
async def test_what_is_asked_every_few_seconds_is_logged_only_for_who_looks_for_it(path: str) -> None:
    with structlog.testing.capture_logs() as logged:
        await ask(gate(), target=path)
    assert [one["log_level"] for one in logged] == ["debug"]


async def test_a_path_in_the_log_is_of_bounded_length() -> None:
    with structlog.testing.capture_logs() as logged:
        await ask(gate(), target="/api/" + "x" * 20_000)
    assert all(len(one["path"]) <= LOGGED_PATH for one in logged)


@pytest.mark.parametrize("headers", [bearer("s3cret-token"), own("s3cret-token"), bearer("s3cret") | own("s3cret")])
async def test_no_token_gets_into_the_log_or_the_answer(headers: Mapping[str, str]) -> None:
    with structlog.testing.capture_logs() as logged:
        answer = await ask(gate(access=Doorman()), headers=headers)
    assert "s3cret" not in f"{logged} {answer.body!r} {answer.fields}"


# --- When something fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("the inside"), TimeoutError("the inside"), KeyError("the inside")])
async def test_a_mistake_of_ours_tells_nothing_and_is_logged_in_full(error: Exception) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        raise error

    with structlog.testing.capture_logs() as logged:
        answer = await ask(gate(app))
    detail = assert_problem(answer, 503 if isinstance(error, TimeoutError) else 500)
    assert "inside" not in detail
    if not isinstance(error, TimeoutError):
        [failure] = [one for one in logged if one["event"] == "request_failed"]
        assert failure["exc_info"]
        assert [one["status"] for one in logged if one["event"] == "request"] == [500]


async def test_an_answer_of_which_half_has_gone_out_is_broken_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("the inside")

    answer = await ask(gate(app))
    assert (answer.status, answer.body) == (200, b"half")
    assert answer.is_cut
    assert not answer.is_whole


@virtual_time
async def test_a_request_that_takes_too_long_is_given_up() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3600)

    answer = await ask(gate(app))
    assert "30 s" in assert_problem(answer, 503)
    assert answer.headers["connection"] == "close"
    assert asyncio.get_running_loop().time() == TIME


@virtual_time
async def test_a_stream_of_events_may_take_as_long_as_it_likes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3600)
        await hello(scope, receive, send)

    assert (await ask(gate(app), target="/api/v1/events")).status == 200


@virtual_time
async def test_the_end_of_the_program_is_no_error_of_a_request() -> None:
    request = asyncio.create_task(ask(gate(raising(asyncio.CancelledError()))))
    await asyncio.wait([request])
    assert request.cancelled()


# --- The body --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "pieces", "status"),
    [
        ({}, [b""], 200),
        ({}, [b"x" * MAX_BODY], 200),
        ({}, [b"x" * 1000] * (MAX_BODY // 1000), 200),
        ({"content-length": str(MAX_BODY)}, [b"x" * MAX_BODY], 200),
        ({"content-length": str(MAX_BODY + 1)}, [b"x"], 413),
        ({"content-length": "9" * 4000}, [b"x"], 413),
        ({}, [b"x" * MAX_BODY, b"x"], 413),
        ({"transfer-encoding": "chunked"}, [b"x" * 1000] * (MAX_BODY // 1000 + 1), 413),
        ({"content-length": "7"}, [b"x" * MAX_BODY, b"x"], 413),
    ],
)
async def test_a_body_is_bounded_whatever_was_said_of_its_length(
    headers: Mapping[str, str], pieces: list[bytes], status: int
) -> None:
    answer = await ask(gate(), "POST", headers=headers, body=pieces)
    if status == 413:
        assert str(MAX_BODY) in assert_problem(answer, 413)
    else:
        assert (answer.status, answer.body) == (200, f"POST {sum(map(len, pieces))}".encode())


# --- The target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 200),
        ("/api/v1/toolsets/grafana/loki", 200),
        ("/api/v1/toolsets/grafana%2Floki", 200),
        ("/api/v1/../services", 200),  # no such path for the router either, which knows no dots
        ("/api/v1/services/", 404),
        ("/api/v1//services", 404),
        ("//api/v1/services", 404),
        ("/api/v1/services%2F", 404),
        ("/api%2F/v1/services", 404),
        ("/healthz/", 404),
        ("//healthz", 404),
        ("//", 404),
        ("*", 404),
        ("/" + "x" * MAX_PATH, 414),
        ("/" + "%41" * (MAX_PATH - 1), 200),
    ],
)
async def test_a_path_is_taken_as_the_router_takes_it_or_leads_nowhere(target: str, status: int) -> None:
    answer = await ask(gate(), target=target)
    assert answer.status == status
    if status != 200:
        assert_problem(answer, status, target)


async def test_the_instance_of_a_problem_is_the_path_as_it_was_sent() -> None:
    answer = await ask(gate(raising(Refusal(404, "nothing"))), target="/api/a%20%22b%22%0A?token=secret")
    assert_problem(answer, 404, "/api/a%20%22b%22%0A")


@pytest.mark.parametrize(("hosts", "status"), [(1, 200), (2, 400), (0, 400)])
async def test_a_request_has_one_host(hosts: int, status: int) -> None:
    headers = [("host", "toolset")] * hosts if hosts else [("host", "x")]
    if not hosts:
        answer = await _without_host()
    else:
        answer = await ask(gate(), headers=headers)
    assert answer.status == status


async def _without_host() -> Answer:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate()({**scope, "headers": []}, receive, send)

    return await ask(app)


# --- HEAD ------------------------------------------------------------------------------------------------------------


async def test_head_is_answered_as_get_is_without_the_body() -> None:
    meter = Meter()
    answer = await ask(gate(access=Doorman(), meter=meter), "HEAD", headers=bearer("ann"))
    assert (answer.status, answer.body) == (200, b"")
    assert meter.heard[0][:3] == ("/there", "HEAD", 200)


async def test_nobody_can_follow_the_events_without_a_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["method"] == "HEAD"
        raise Refusal(405, "this can be had with GET")

    assert (await ask(gate(app), "HEAD", "/api/v1/events")).status == 405


# --- Who may call ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ([("Authorization", "Bearer ann")], "GET", 200),
        ([("Authorization", "bearer  ann ")], "GET", 200),
        ([("Authorization", "Bearer ann")], "POST", 403),
        ([("Authorization", "Bearer bob")], "GET", 403),
        ([("Authorization", "Bearer eve")], "GET", 401),
        ([("Authorization", "Basic ann")], "GET", 401),
        ([("Authorization", "ann")], "GET", 401),
        ([], "GET", 401),
        ([("Authorization", "Bearer ann"), ("Authorization", "Bearer ann")], "GET", 400),
        ([("Authorization", "Bearer bob"), ("Authorization", "Bearer ann")], "GET", 400),
        ([("Proxy-Authorization", "Bearer ann")], "GET", 401),
        ([(TOKEN_HEADER, "ann")], "GET", 200),
        ([(TOKEN_HEADER, " ann ")], "GET", 200),
        ([(TOKEN_HEADER, "ann")], "POST", 403),
        ([(TOKEN_HEADER, "bob")], "GET", 403),
        ([(TOKEN_HEADER, "eve")], "GET", 401),
        ([(TOKEN_HEADER, "")], "GET", 401),
        ([(TOKEN_HEADER, "Bearer ann")], "GET", 401),
        ([(TOKEN_HEADER, "ann"), ("Authorization", "Basic ann")], "GET", 200),
        ([(TOKEN_HEADER, "ann"), (TOKEN_HEADER, "ann")], "GET", 400),
        ([(TOKEN_HEADER, "ann"), ("Authorization", "Bearer ann")], "GET", 400),
        ([(TOKEN_HEADER, "bob"), ("Authorization", "Bearer ann")], "GET", 400),
        ([(TOKEN_HEADER, ""), ("Authorization", "Bearer ann")], "GET", 400),
        ([(TOKEN_HEADER, "ann"), ("Authorization", "Bearer ")], "GET", 400),
    ],
)
async def test_who_is_let_in(headers: Iterable[tuple[str, str]], method: str, status: int) -> None:
    answer = await ask(gate(access=Doorman()), method, headers=headers)
    assert answer.status == status
    assert ("www-authenticate" in answer.headers) is (status == 401)
    if status != 200:
        assert_problem(answer, status)


async def test_when_nobody_can_be_asked_nobody_is_let_in() -> None:
    doorman = Doorman()
    doorman.away = True
    answer = await ask(gate(access=doorman), headers=bearer("ann"))
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize("path", sorted(OPEN))
async def test_what_is_open_to_all_needs_no_token_and_asks_nobody(path: str) -> None:
    doorman = Doorman()
    assert (await ask(gate(access=doorman, limiter=Limiter(1)), target=path, headers=bearer("eve"))).status == 200
    assert not doorman.asked


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/healthz/x",
            "/healthzx",
            "/HEALTHZ",
            "/healthz;x",
            "/healthz%3F",
            "/healthz%00",
            "/healthz/..",
            "/./healthz",
        ),
        *(
            "/healthz/../api/v1/services",
            "/openapi.json/../api/v1/services",
            "/openapi.json.",
            "/",
            "/metrics",
            "/openapi",
        ),
        *("/api/v1/healthz", "/%68ealthz/x", "/readyz%20", "/api", "/nothing"),
    ],
)
async def test_everything_else_needs_a_token(target: str) -> None:
    assert (await ask(gate(access=Doorman()), target=target)).status == 401


async def test_an_open_path_in_another_spelling_is_the_same_path() -> None:
    assert (await ask(gate(access=Doorman()), target="/%68ealth%7A")).status == 200


# --- How often -------------------------------------------------------------------------------------------------------


async def test_who_calls_too_often_is_told_when_to_come_again() -> None:
    guarded = gate(limiter=Limiter(2))
    for remaining in (1, 0):
        answer = await ask(guarded)
        assert answer.status == 200
        assert answer.headers["ratelimit"].startswith(f'"default";r={remaining};t=')
        assert answer.headers["ratelimit-policy"] == '"default";q=2;w=60'
    answer = await ask(guarded)
    assert "2 requests a minute" in assert_problem(answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert (await ask(guarded, address="192.0.2.2")).status == 200
    assert (await ask(guarded, target="/healthz")).status == 200


async def test_the_caller_is_who_the_token_says_wherever_it_comes_from() -> None:
    guarded = gate(limiter=Limiter(2), access=Doorman())
    statuses = [(await ask(guarded, headers=bearer("ann"), address=f"192.0.2.{number}")).status for number in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert (await ask(guarded, headers=bearer("bob"))).status == 403


async def test_who_guesses_tokens_is_stopped_before_anybody_is_asked() -> None:
    doorman = Doorman()
    guarded = gate(limiter=Limiter(2), access=doorman)
    statuses = [(await ask(guarded, headers=bearer(f"guess-{number}"))).status for number in range(5)]
    assert statuses == [401, 401, 429, 429, 429]
    assert len(doorman.asked) == 2
    assert (await ask(guarded, headers=bearer("ann"))).status == 200  # who is known is not held up by that


async def test_a_refusal_has_each_field_of_the_limit_once() -> None:
    answer = await ask(gate(limiter=Limiter(5), access=Doorman()), headers=bearer("eve"))
    assert [name for name, _ in answer.fields].count("ratelimit") == 1
    assert answer.headers["ratelimit"].startswith('"default";r=4;')


# --- Pages of other origins ------------------------------------------------------------------------------------------

ORIGIN = "https://dash.example.com"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "GET"}


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_no_page_of_another_origin_may_read_unless_it_is_listed(method: str) -> None:
    for guarded in (gate(), gate(origins=["https://other.example.com"])):
        answer = await ask(guarded, method, headers=PREFLIGHT)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("origin", "shared"),
    [
        (ORIGIN, True),
        (ORIGIN + ".evil.com", False),
        ("http://dash.example.com", False),
        (ORIGIN + ":8443", False),
        ("https://DASH.example.com", False),
        ("null", False),
        ("", False),
    ],
)
async def test_a_page_of_a_listed_origin_may_read_the_answer(origin: str, shared: bool) -> None:
    answer = await ask(gate(origins=[ORIGIN]), headers={"origin": origin})
    assert answer.status == 200
    assert answer.headers.get("access-control-allow-origin") == (origin if shared else None)
    assert ("access-control-expose-headers" in answer.headers) is shared
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Accept, Origin"


async def test_a_browser_that_only_asks_needs_no_token() -> None:
    doorman = Doorman()
    answer = await ask(gate(origins=[ORIGIN], access=doorman), "OPTIONS", headers=PREFLIGHT)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert TOKEN_HEADER not in answer.headers["access-control-allow-headers"]  # for programs, not for pages
    assert "GET" in answer.headers["access-control-allow-methods"]
    assert not doorman.asked


async def test_who_only_says_that_it_is_a_browser_still_needs_a_token() -> None:
    guarded = gate(origins=[ORIGIN], access=Doorman())
    assert (await ask(guarded, "OPTIONS", headers={"origin": ORIGIN})).status == 401
    assert (await ask(guarded, "OPTIONS", headers={**PREFLIGHT, "origin": "https://evil.com"})).status == 401
    answer = await ask(guarded, headers={"origin": ORIGIN})
    assert_problem(answer, 401)
    assert answer.headers["access-control-allow-origin"] == ORIGIN  # so that the page can read why


# --- What goes with every answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [gate, lambda: gate(access=Doorman()), lambda: gate(raising(ValueError()))])
async def test_every_answer_has_an_id_and_is_taken_for_what_it_is(make: Callable[[], Gate]) -> None:
    answer = await ask(make())
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_while_the_service_ends_connections_are_closed_after_their_next_answer() -> None:
    ending = False
    guarded = gate(is_ending=lambda: ending)
    assert "connection" not in (await ask(guarded)).headers
    ending = True
    assert (await ask(guarded)).headers["connection"] == "close"
    assert (await ask(guarded, target="/api//x")).headers["connection"] == "close"


async def test_what_is_no_request_is_passed_over() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    await gate()({"type": "lifespan"}, never, never)


def test_a_problem_names_what_is_wrong_in_a_request() -> None:
    from dynamic_toolset.server import problems

    refusal = Refusal(
        400, "this request does not fit", errors=problems.from_validation([{"key": "limit", "message": "x"}, 7])
    )
    body = json.loads(problems.encode(refusal, instance="/x", request_id="r"))
    assert body == {
        "title": "Bad Request",
        "status": 400,
        "detail": "this request does not fit",
        "instance": "/x",
        "requestId": "r",
        "errors": [{"field": "limit", "message": "x"}],
    }


@pytest.mark.parametrize("extra", [None, "text", {}, [1, None], []])
def test_what_the_framework_says_in_another_way_breaks_nothing(extra: Any) -> None:
    from dynamic_toolset.server import problems

    assert tuple(problems.from_validation(extra)) == ()


def test_no_header_of_a_problem_can_become_two() -> None:
    from dynamic_toolset.server import problems

    refusal = Refusal(401, "x", headers={"WWW-Authenticate": 'Bearer error="ä€"'})
    [challenge] = [value for name, value in problems.headers(refusal, b"") if name == b"www-authenticate"]
    assert challenge == 'Bearer error="ä?"'.encode("latin-1")


@virtual_time
async def test_who_may_call_no_longer_is_cut_off_from_the_events() -> None:
    async def follow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    doorman = Doorman()
    following = asyncio.create_task(ask(gate(follow, access=doorman), target=STREAM, headers=bearer("ann")))
    await asyncio.sleep(3600)
    doorman.away = True  # the API server cannot be asked, which takes nobody's right away
    await asyncio.sleep(3600)
    doorman.away = False
    await asyncio.sleep(3600)
    assert not following.done()
    doorman.known = {"bob"}
    async with asyncio.timeout(AGAIN + 1):
        answer = await following
    assert (answer.status, answer.is_cut) == (200, True)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "admission"]


# --- Without tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        *(("localhost", True), ("localhost:8080", True), ("LocalHost:1", True), ("127.0.0.1:8080", True)),
        *(("127.3.2.1", True), ("[::1]", True), ("[::1]:8080", True)),
        *(("evil.example", False), ("evil.example:8080", False), ("localhost.evil.example", False), ("", False)),
        *(("192.0.2.1:8080", False), ("127.0.0.1.evil.example", False), ("0x7f.1", False), ("[2001:db8::1]:80", False)),
    ],
)
async def test_who_needs_no_token_must_use_a_name_of_this_machine(host: str, is_answered: bool) -> None:
    """Or a page from elsewhere, whose name has come to lead to loopback, could read the answer (DNS rebinding)."""
    answer = await ask(gate(local_only=True), headers={"Host": host})
    assert answer.status == (200 if is_answered else 403)
    assert (await ask(gate(local_only=True), target="/healthz", headers={"Host": host})).status == 200
    assert (await ask(gate(), headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    ("headers", "is_answered"),
    [
        ({}, True),  # no browser
        ({"Origin": "http://localhost:8080"}, True),
        ({"Origin": "https://LOCALHOST:8080"}, True),  # TLS may end before us
        ({"Origin": "https://dash.example"}, True),  # is listed
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://localhost:3000"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "https://proxied.example", "Sec-Fetch-Site": "same-origin"}, True),  # a proxy set another Host
        ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, True),
    ],
)
async def test_who_needs_no_token_is_sent_by_no_page_of_another_site(
    headers: Mapping[str, str], is_answered: bool
) -> None:
    """Or any page that somebody at this machine looks at could have everything checked again, all the time."""
    limiter = Limiter(1)
    open_to_all = gate(origins=["https://dash.example"], limiter=limiter)
    headers = {"Host": "localhost:8080", **headers}
    answer = await ask(open_to_all, "POST", "/api/v1/discover", headers)
    if is_answered:
        assert answer.status == 200
    else:
        assert_problem(answer, 403, "/api/v1/discover")
        assert limiter.peek(caller_key(None, "192.0.2.1")).remaining == 1, "who did not ask pays for it"
    assert (await ask(gate(origins=["https://dash.example"]), "GET", headers=headers)).status == 200
    guarded = await ask(gate(access=Doorman()), "POST", headers={**headers, **bearer("ann")})
    assert assert_problem(guarded, 403) == "user 'ann' cannot post path '/api/v1/services'"


@virtual_time
async def test_requests_to_the_api_give_way_and_probes_do_not() -> None:
    free = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, free.set)

    async def give_way() -> None:
        await free.wait()

    door = gate(give_way=give_way)
    assert (await ask(door, "GET", "/healthz")).status == 200
    assert not free.is_set()
    assert (await ask(door, "GET", "/api/v1/services")).status == 200
    assert free.is_set()
