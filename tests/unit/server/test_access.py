"""Who is let in, how often the API server is asked about it, and what happens when it is not there or is flooded."""

import asyncio
import base64
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.kube.errors import ConnectionFailed, TooManyRequests
from dynamic_toolset.kube.errors import Forbidden as ApiForbidden
from dynamic_toolset.kube.resources import TOKEN_REVIEWS
from dynamic_toolset.server import access as module
from dynamic_toolset.server.access import (
    ANONYMOUS,
    CONCURRENCY,
    LOGGED_EACH_SECOND,
    MAX_TOKEN_LENGTH,
    MEMORY,
    PATIENCE,
    QUEUE,
    Access,
    AccessError,
    Forbidden,
    Unauthenticated,
    Unavailable,
    bearer_token,
    stated_expiry,
)
from tests.virtual_time import virtual_time

AUDIENCE = "toolset"
EPOCH = 1_800_000_000.0
SERVICES = "/api/v1/services"


class Api:
    """Answers reviews in place of a client: ``tokens`` are good, and ``rules`` says who may do what."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {"ann-1": "ann", "ann-2": "ann", "bob-1": "bob"}
        self.groups: dict[str, list[str]] = {}
        self.rules: set[tuple[str, str, str]] = {("ann", "get", SERVICES), ("bob", "get", SERVICES)}
        self.asked: Counter[str] = Counter()
        self.error: Exception | None = None
        self.seconds = 0.01
        self.running = self.most = 0

    async def create(self, resource: Any, namespace: str, body: Mapping[str, Any], type: Any) -> Any:  # noqa: A002
        kind = "token" if resource == TOKEN_REVIEWS else "access"
        self.asked[kind] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if self.error:
            raise self.error
        spec = body["spec"]
        if kind == "token":
            user = self.tokens.get(spec["token"])
            status: dict[str, Any] = {"authenticated": user is not None}
            if user:
                status |= {"user": {"username": user, "groups": self.groups.get(user)}, "audiences": spec["audiences"]}
        else:
            attributes = spec["nonResourceAttributes"]
            path = attributes["path"].removeprefix("/dynamic-toolset")
            assert path != attributes["path"]
            status = {"allowed": (spec["user"], attributes["verb"], path) in self.rules}
        return msgspec.convert({"status": status}, type)


def access(api: Any) -> Access:
    loop = asyncio.get_running_loop()
    return Access(api, audience=AUDIENCE, clock=loop.time, now=lambda: EPOCH + loop.time())


def jwt(**claims: Any) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "s"]
    )


async def outcome(request: Any) -> str:
    """Return who was let in, or the name of the refusal."""
    try:
        return (await request).username
    except AccessError as error:
        return type(error).__name__


# --- Yes and no ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "path", "verb", "expected"),
    [
        ("ann-1", SERVICES, "get", "ann"),
        ("ann-1", SERVICES, "GET", "ann"),
        ("ann-1", SERVICES, "post", "Forbidden"),
        ("ann-1", f"{SERVICES}/", "get", "Forbidden"),
        ("eve-1", SERVICES, "get", "Unauthenticated"),
        ("", SERVICES, "get", "Unauthenticated"),
        (None, SERVICES, "get", "Unauthenticated"),
    ],
)
@virtual_time
async def test_who_is_let_in(token: str | None, path: str, verb: str, expected: str) -> None:
    assert await outcome(access(Api()).admit(token, path, verb)) == expected


@virtual_time
async def test_what_a_refused_caller_is_told() -> None:
    subject = access(Api())
    with pytest.raises(Unauthenticated) as without:
        await subject.admit(None, SERVICES, "get")
    assert (without.value.status, without.value.challenge) == (401, 'Bearer realm="dynamic-toolset"')
    with pytest.raises(Unauthenticated) as wrong:
        await subject.admit("eve-1", SERVICES, "get")
    message = "the token is not valid, or not for the audience toolset"
    assert str(wrong.value) == message
    assert wrong.value.challenge == (
        f'Bearer realm="dynamic-toolset", error="invalid_token", error_description="{message}"'
    )
    with pytest.raises(Forbidden) as forbidden:
        await subject.admit("ann-1", SERVICES, "DELETE")
    assert forbidden.value.status == 403
    assert str(forbidden.value) == "user 'ann' cannot delete path '/dynamic-toolset/api/v1/services'"


def test_a_challenge_cannot_be_broken_out_of() -> None:
    challenge = Unauthenticated('an audience "\r\nSet-Cookie: \\ é', given=True).challenge
    assert challenge.endswith('error_description="an audience ???Set-Cookie: ? ?"')


@pytest.mark.parametrize(
    "token",
    [
        "x" * (MAX_TOKEN_LENGTH + 1),
        "ann-1 x",
        " ann-1",
        "ann-1\n",
        "ann-1\0",
        "ann-1\x7f",
        "ann-1\u00a0",
        "\u0430nn-1",
        "\ud800",
    ],
)
@virtual_time
async def test_what_can_be_no_token_is_not_asked_about(token: str) -> None:
    api = Api()
    subject = access(api)
    assert await outcome(subject.admit(token, SERVICES, "get")) == "Unauthenticated"
    assert not subject.knows(token)
    assert not api.asked


@virtual_time
async def test_a_token_may_be_as_long_as_the_bound() -> None:
    api = Api()
    api.tokens["x" * MAX_TOKEN_LENGTH] = "ann"
    assert await outcome(access(api).admit("x" * MAX_TOKEN_LENGTH, SERVICES, "get")) == "ann"


@virtual_time
async def test_nobody_comes_in_as_nobody() -> None:
    assert ANONYMOUS.anonymous
    with pytest.raises(Forbidden):
        await access(Api()).authorize(ANONYMOUS, SERVICES, "get")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Bearer a b", "a b"),
        ("Basic abc", None),
        ("Bearerabc", None),
    ],
)
def test_the_token_of_a_header(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token


# --- What is remembered ----------------------------------------------------------------------------------------------


@virtual_time
async def test_a_yes_is_remembered_for_a_minute_and_no_longer() -> None:
    api = Api()
    subject = access(api)
    assert not subject.knows("ann-1")
    await subject.admit("ann-1", SERVICES, "get")
    assert subject.knows("ann-1")
    api.tokens.clear()
    api.rules.clear()
    await asyncio.sleep(59.9)
    assert await outcome(subject.admit("ann-1", SERVICES, "get")) == "ann"
    assert api.asked == {"token": 1, "access": 1}
    await asyncio.sleep(0.1)
    assert not subject.knows("ann-1")
    assert await outcome(subject.admit("ann-1", SERVICES, "get")) == "Unauthenticated"


@virtual_time
async def test_a_no_is_remembered_for_ten_seconds() -> None:
    api = Api()
    subject = access(api)
    for _ in range(9):
        assert await outcome(subject.admit("new", SERVICES, "get")) == "Unauthenticated"
        assert await outcome(subject.admit("ann-1", "/", "get")) == "Forbidden"
        await asyncio.sleep(1)
    assert api.asked == {"token": 2, "access": 1}
    api.tokens["new"] = "ann"
    api.rules.add(("ann", "get", "/"))
    await asyncio.sleep(1)
    assert await outcome(subject.admit("new", SERVICES, "get")) == "ann"
    assert await outcome(subject.admit("ann-1", "/", "get")) == "ann"


@virtual_time
async def test_rights_go_with_the_identity_and_each_path_and_verb_is_asked_about() -> None:
    api = Api()
    subject = access(api)
    await subject.admit("ann-1", SERVICES, "get")
    await subject.admit("ann-2", SERVICES, "GET")  # another token of hers
    assert api.asked == {"token": 2, "access": 1}
    await subject.admit("bob-1", SERVICES, "get")
    await outcome(subject.admit("ann-1", SERVICES, "post"))
    await outcome(subject.admit("ann-1", "/", "get"))
    assert api.asked == {"token": 3, "access": 4}
    api.groups["ann"] = ["on-call"]
    await asyncio.sleep(30)
    api.tokens["ann-3"] = "ann"
    await subject.admit("ann-3", SERVICES, "get")  # the same name, but more than before may follow from its groups
    assert api.asked == {"token": 4, "access": 5}


@pytest.mark.parametrize(
    ("left", "remembered"), [(-1e30, 0), (-30, 0), (0, 0), (30, 30), (59, 59), (61, 60), (1e30, 60)]
)
@virtual_time
async def test_a_yes_does_not_outlive_what_the_token_says_of_itself(left: float, remembered: float) -> None:
    api = Api()
    token = jwt(exp=EPOCH + left)
    api.tokens[token] = "ann"
    subject = access(api)
    # Whether it is good is the API server's to say, which allows for clocks that differ.
    assert await outcome(subject.admit(token, SERVICES, "get")) == "ann"
    if remembered:
        await asyncio.sleep(remembered - 0.5)
        assert subject.knows(token)
        await asyncio.sleep(0.5)
    assert not subject.knows(token)
    assert await outcome(subject.admit(token, SERVICES, "get")) == "ann"
    assert api.asked["token"] == 2


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (jwt(exp=17), 17.0),
        (jwt(exp=17.5), 17.5),
        (jwt(exp=10**400), None),
        (jwt(exp="17"), None),
        (jwt(exp=None), None),
        (jwt(exp=True), None),
        (jwt(sub="ann"), None),
        ("abc", None),
        ("a.b", None),
        ("a.b.c", None),
        ("..", None),
        ("a.e30.c", None),
        ("a." + base64.urlsafe_b64encode(b"[" * 12_000).decode() + ".c", None),
        ("a.b.c.d", None),
    ],
)
def test_what_a_token_says_of_its_expiry(token: str, expiry: float | None) -> None:
    assert stated_expiry(token) == expiry


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126))
    | st.binary().map(lambda claims: f"a.{base64.urlsafe_b64encode(claims).decode()}.c")
)
def test_no_token_is_a_surprise(token: str) -> None:
    expiry = stated_expiry(token)
    assert expiry is None or not math.isnan(expiry)


@virtual_time
async def test_tokens_are_kept_nowhere() -> None:
    api = Api()
    subject = access(api)
    await subject.admit("ann-1", SERVICES, "get")
    await outcome(subject.admit("eve-1", SERVICES, "get"))
    memories = (subject._callers._yes, subject._callers._no, subject._rights._yes)
    assert [len(memory) for memory in memories] == [1, 1, 1]
    kept = repr([memory._entries for memory in memories])
    assert "ann-1" not in kept
    assert "eve-1" not in kept
    other = access(api)
    await other.admit("ann-1", SERVICES, "get")
    assert list(other._callers._yes._entries) != list(memories[0]._entries)  # the hash has a key of this one's own


@virtual_time
async def test_memory_is_bounded_and_a_flood_of_invalid_tokens_pushes_no_valid_one_out() -> None:
    api = Api()
    subject = access(api)
    await subject.admit("ann-1", SERVICES, "get")
    for number in range(MEMORY + 500):
        await outcome(subject.admit(f"random-{number}", SERVICES, "get"))
        await outcome(subject.admit("ann-1", f"/{number}", "get"))
    for number in range(MEMORY + 500):
        api.tokens[f"valid-{number}"] = "ann"
    assert subject.knows("ann-1")
    assert len(subject._callers._no) <= MEMORY
    assert len(subject._rights._no) <= MEMORY
    for number in range(MEMORY + 500):
        await subject.admit(f"valid-{number}", SERVICES, "get")
        await subject.admit("ann-1", SERVICES, "get")
    assert len(subject._callers._yes) <= MEMORY
    assert subject.knows("ann-1")  # it is in use, unlike most of the others


# --- One question for many -------------------------------------------------------------------------------------------


@virtual_time
async def test_many_requests_cause_one_question() -> None:
    api = Api()
    subject = access(api)
    outcomes = await asyncio.gather(*(outcome(subject.admit("ann-1", SERVICES, "get")) for _ in range(500)))
    assert set(outcomes) == {"ann"}
    assert api.asked == {"token": 1, "access": 1}
    outcomes = await asyncio.gather(*(outcome(subject.admit("eve-1", SERVICES, "get")) for _ in range(500)))
    assert set(outcomes) == {"Unauthenticated"}
    assert api.asked == {"token": 2, "access": 1}


@pytest.mark.parametrize("leaver", range(3))
@virtual_time
async def test_who_goes_away_takes_nobody_along(leaver: int) -> None:
    api = Api()
    api.seconds = 1.0
    subject = access(api)
    tasks = [asyncio.create_task(outcome(subject.admit("ann-1", SERVICES, "get"))) for _ in range(3)]
    for moment in (0.5, 1.5):  # during the first question, and during the second
        await asyncio.sleep(moment - asyncio.get_running_loop().time())
        if not tasks[leaver].done():
            tasks[leaver].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(leaver), asyncio.CancelledError)
    assert results == ["ann", "ann"]
    assert api.asked == {"token": 1, "access": 1}


@virtual_time
async def test_an_answer_that_nobody_waits_for_any_more_is_still_of_use() -> None:
    api = Api()
    subject = access(api)
    task = asyncio.create_task(subject.admit("ann-1", SERVICES, "get"))
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.1)
    assert subject.knows("ann-1")
    assert not subject._callers._asking


@given(seed=st.integers(0, 2**32))
def test_whoever_comes_and_goes_the_answer_is_right_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)

    @virtual_time
    async def scenario() -> None:
        api = Api()
        api.seconds = 0.1
        subject = access(api)
        expected = {"ann-1": {"ann"}, "bob-1": {"bob"}, "eve-1": {"Unauthenticated"}}
        requests: list[tuple[str, asyncio.Task[str]]] = []

        async def request(token: str) -> str:
            return await outcome(subject.admit(token, SERVICES, "get"))

        for _ in range(40):
            token = chance.choice([*expected])
            requests.append((token, asyncio.create_task(request(token))))
            if chance.random() < 0.4:
                chance.choice(requests)[1].cancel()
            await asyncio.sleep(chance.choice([0, 0, 0.03, 0.3]))
        await asyncio.wait([task for _, task in requests])
        await asyncio.sleep(1)
        assert all(task.cancelled() or task.result() in expected[token] for token, task in requests)
        assert not subject._callers._asking
        assert not subject._rights._asking
        assert api.asked["token"] <= 3 + 40 * 0.3 / 10
        assert len(asyncio.all_tasks()) == 1

    scenario()


# --- The API server is away, slow, or flooded ------------------------------------------------------------------------


@virtual_time
async def test_without_the_api_server_only_those_come_in_who_did_lately() -> None:
    api = Api()
    subject = access(api)
    await subject.admit("ann-1", SERVICES, "get")
    api.error = ConnectionFailed("refused")
    assert await outcome(subject.admit("ann-1", SERVICES, "get")) == "ann"
    assert await outcome(subject.admit("ann-1", SERVICES, "post")) == "Unavailable"
    assert await outcome(subject.admit("bob-1", SERVICES, "get")) == "Unavailable"
    await asyncio.sleep(60)
    assert await outcome(subject.admit("ann-1", SERVICES, "get")) == "Unavailable"
    api.error = None
    await asyncio.sleep(1.1)
    assert await outcome(subject.admit("ann-1", SERVICES, "get")) == "ann"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ConnectionFailed("refused"), 1),
        (ApiForbidden(403, "Forbidden", "cannot create resource tokenreviews"), 1),
        (TooManyRequests(429, "TooManyRequests", "", 4.0), 4),
        (TooManyRequests(429, "TooManyRequests", "", 1e9), 10),
        (TooManyRequests(429, "TooManyRequests", "", 0.0), 1),
    ],
)
@virtual_time
async def test_a_question_that_failed_is_asked_again_after_a_moment(error: Exception, seconds: int) -> None:
    api = Api()
    api.seconds = 0
    api.error = error
    subject = access(api)
    for _ in range(100):
        with pytest.raises(Unavailable) as refusal:
            await subject.admit("ann-1", SERVICES, "get")
        assert (refusal.value.status, refusal.value.retry_after) == (503, seconds)
        assert str(refusal.value) == "whose token this is cannot be found out at present"
    assert api.asked["token"] == 1
    api.error = None
    await asyncio.sleep(seconds)
    assert await outcome(subject.admit("ann-1", SERVICES, "get")) == "ann"


@virtual_time
async def test_an_api_server_that_hangs_is_given_up() -> None:
    api = Api()
    api.seconds = 3600
    start = asyncio.get_running_loop().time()
    assert await outcome(access(api).admit("ann-1", SERVICES, "get")) == "Unavailable"
    assert asyncio.get_running_loop().time() - start == pytest.approx(PATIENCE)
    assert api.running == 0


@virtual_time
async def test_a_flood_of_random_tokens_is_not_passed_on() -> None:
    api = Api()
    api.seconds = 1.0
    subject = access(api)
    known = asyncio.create_task(subject.authenticate("ann-1", SERVICES, "get"))
    await asyncio.sleep(2)
    ann = await known
    flood = [asyncio.create_task(outcome(subject.admit(f"random-{n}", SERVICES, "get"))) for n in range(1000)]
    await asyncio.sleep(0.5)
    assert sum(task.done() and task.result() == "Unavailable" for task in flood) == 1000 - QUEUE
    start = asyncio.get_running_loop().time()
    await subject.authorize(ann, SERVICES, "get")  # what a known caller may do is not held up
    assert asyncio.get_running_loop().time() - start == pytest.approx(1.0)
    await asyncio.wait(flood)
    assert api.most <= CONCURRENCY + 1
    answered = CONCURRENCY * math.floor(PATIENCE)  # the rest of the queue did not get its turn in time
    assert Counter(task.result() for task in flood)["Unauthenticated"] <= answered + CONCURRENCY
    assert await outcome(subject.admit("bob-1", SERVICES, "get")) == "bob"


@virtual_time
async def test_a_mistake_of_ours_lets_nobody_in() -> None:
    api = Api()
    api.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        await access(api).admit("ann-1", SERVICES, "get")


@virtual_time
async def test_closing_tells_those_who_wait() -> None:
    api = Api()
    api.seconds = 4.0
    subject = access(api)
    waiting = [asyncio.create_task(outcome(subject.admit("ann-1", SERVICES, "get"))) for _ in range(2)]
    await asyncio.sleep(0.1)
    await subject.close()
    assert await asyncio.gather(*waiting) == ["Unavailable", "Unavailable"]
    assert await outcome(subject.admit("bob-1", SERVICES, "get")) == "Unavailable"
    assert api.running == 0


# --- The log ---------------------------------------------------------------------------------------------------------

Logged = list[dict[str, Any]]


async def logged(act: Callable[[], Any]) -> Logged:
    with structlog.testing.capture_logs() as events:
        await act()
    return [dict(event) for event in events]


@virtual_time
async def test_each_refusal_is_an_event() -> None:
    api = Api()
    subject = access(api)

    async def act() -> None:
        await outcome(subject.admit(None, "/a", "GET", remote="192.0.2.1"))
        await outcome(subject.admit("eve-1", "/a", "GET"))
        await outcome(subject.admit("eve 1", "/a", "GET"))
        await outcome(subject.admit("ann-1", "/a", "POST", remote="192.0.2.1"))
        await outcome(subject.admit("ann-1", SERVICES, "get"))
        api.error = ConnectionFailed("POST /apis: a proxy says: bob-1 is not welcome")
        await outcome(subject.admit("bob-1", "/a", "get"))
        await outcome(subject.admit("ann-1", "/b", "get"))
        await subject.close()

    assert await logged(act) == [
        {"path": "/a", "log_level": "warning", **fields}
        for fields in (
            {"event": "request_unauthenticated", "verb": "get", "remote": "192.0.2.1", "reason": "no token"},
            {
                "event": "request_unauthenticated",
                "verb": "get",
                "reason": "the token is not valid, or not for the audience toolset",
            },
            {
                "event": "request_unauthenticated",
                "verb": "get",
                "reason": "the token has characters that no token has",
            },
            {
                "event": "request_forbidden",
                "verb": "post",
                "remote": "192.0.2.1",
                "username": "ann",
                "reason": "no rule allows it",
            },
            {
                "event": "access_review_failed",
                "verb": "get",
                "reason": "POST /apis: a proxy says: [token] is not welcome",
            },
            {
                "event": "access_review_failed",
                "verb": "get",
                "username": "ann",
                "path": "/b",
                "reason": "POST /apis: a proxy says: bob-1 is not welcome",
            },
        )
    ]


@virtual_time
async def test_a_flood_does_not_fill_the_log() -> None:
    subject = access(Api())

    async def act() -> None:
        for _ in range(500):
            await outcome(subject.admit(None, "/" + "x" * 5000, "get"))
        await outcome(subject.admit("ann-1", "/", "get"))  # not drowned by the others
        await asyncio.sleep(1.5)
        await outcome(subject.admit(None, "/", "get"))
        await asyncio.sleep(1.5)
        for _ in range(LOGGED_EACH_SECOND + 1):
            await outcome(subject.admit(None, "/", "get"))
        await subject.close()

    events = await logged(act)
    assert [event["event"] for event in events] == [
        *["request_unauthenticated"] * LOGGED_EACH_SECOND,
        "request_forbidden",
        "security_events_left_out",
        *["request_unauthenticated"] * (1 + LOGGED_EACH_SECOND),
        "security_events_left_out",
    ]
    left_out = [event for event in events if event["event"] == "security_events_left_out"]
    assert [(event["left_out"], event["count"]) for event in left_out] == [
        ("request_unauthenticated", 490),
        ("request_unauthenticated", 1),
    ]
    assert max(len(event.get("path", "")) for event in events) <= module.LOGGED_CHARACTERS + 1
