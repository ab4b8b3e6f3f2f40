"""Who may call: whose bearer token it is, and whether that one may use this path, both as the Kubernetes API says.

What is guaranteed:

- Nobody is let in without a yes of the API server that is at most :data:`YES_LIFETIME` old, and none outlives the
  token's own expiry. When the API server cannot be asked, who has no such yes is not let in.
- A token is kept nowhere: answers are remembered by a keyed hash whose key exists in this process only.
- Whatever comes in, the API server is asked :data:`CONCURRENCY` questions of each kind at a time at most, no more than
  :data:`QUEUE` of them are under way or wait, each ends within :data:`PATIENCE`, and many requests with the same
  question cause one. A flood of invalid tokens pushes no valid one out of memory, and holds up no question about what
  a known caller may do; it can hold up tokens that are new.

The order in which a request is best looked at, so that a flood is refused before anybody else has work with it::

    if not access.knows(token): limiter.peek(caller_key(None, address))   # 429 if this address has spent its limit
    caller = await access.authenticate(token, path, verb)                 # Unauthenticated: take() from the address
    limiter.take(caller_key(caller.username, address))                    # 429 if this caller has spent its limit
    await access.authorize(caller, path, verb)
"""

import asyncio
import contextvars
import hmac
import math
import re
import secrets
import time
from base64 import urlsafe_b64decode
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Final, Generic, NamedTuple, TypeVar

import msgspec
import structlog
from msgspec import Struct

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.errors import ApiError, KubernetesError
from dynamic_toolset.kube.reviews import TokenIdentity, review_access, review_token

YES_LIFETIME = 60.0
"""Seconds for which a yes is remembered: so long may somebody still call whose right was taken away."""

NO_LIFETIME = 10.0
"""Seconds for which a no is remembered: so long may somebody have to wait who was just given the right."""

FAILURE_LIFETIME = 1.0
"""Seconds for which a question that the API server could not answer is not asked again."""

MAX_RETRY_AFTER = 10.0
"""The longest that an API server that asks for patience gets, in seconds: its word must not lock anybody out."""

MEMORY = 1000
"""How many answers are remembered of each kind; beyond it those are forgotten that were not used for longest."""

CONCURRENCY = 8
"""Questions of each kind that are asked at a time."""

QUEUE = 64
"""Questions of each kind that are under way or wait for their turn; who comes then is told to come again."""

PATIENCE = 5.0
"""Seconds after which a question is given up, with the time that it waited for its turn."""

MAX_TOKEN_LENGTH = 16 * 1024
"""Characters; far more than a ServiceAccount's token (1,000) or one with many groups in it (8,000) has."""

LOGGED_EACH_SECOND = 10
"""How many events of each name go into the log in a second; of the rest only the number does."""

LOGGED_CHARACTERS = 300
"""How much of a text that a caller chose goes into the log."""

SECURITY_EVENTS = ("request_unauthenticated", "request_forbidden", "access_review_failed")
"""What is logged of a request that is not let in: its token, its right, or the API server that cannot be asked."""

PREFIX = "/dynamic-toolset"
"""What stands before our paths in the rules of the cluster.

Every cluster lets everybody who is authenticated ``get`` /api/*, /healthz, /version and some more, for those are its
API server's own paths (ClusterRole ``system:discovery``). Without the prefix that would open our /api/ to all.
"""

TOKEN_HEADER = "X-Dynamic-Toolset-Token"  # noqa: S105 - a name
"""A header that takes a token too, as it stands: the Service proxy of the API server keeps Authorization to itself."""

T = TypeVar("T")

log = structlog.get_logger()


# --- What a caller is told -------------------------------------------------------------------------------------------


class AccessError(Exception):
    """Base of the refusals. The text may be shown to the caller; ``status`` is the HTTP status."""

    status: ClassVar[int]


class Unauthenticated(AccessError):
    """Nobody knows who calls. ``challenge`` is the value of WWW-Authenticate (RFC 6750, 3)."""

    status = 401

    def __init__(self, message: str, *, given: bool) -> None:
        super().__init__(message)
        self.challenge = 'Bearer realm="dynamic-toolset"'
        if given:  # who shows no token is not told of an error (RFC 6750, 3.1): it did not know that one is needed
            self.challenge += f', error="invalid_token", error_description="{_NOT_QUOTABLE.sub("?", message)}"'


class Forbidden(AccessError):
    """It is known who calls, and that one may not."""

    status = 403


class Unavailable(AccessError):
    """The API server cannot be asked. ``retry_after``: whole seconds after which it may be worth another try."""

    status = 503

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Caller(Struct, frozen=True):
    """Who calls. ``key`` stands for the whole identity, in this process only."""

    username: str
    anonymous: bool = False
    identity: TokenIdentity | None = None
    key: bytes = b""


ANONYMOUS: Final = Caller("", anonymous=True)
"""Everybody, where no token is asked for. Access never returns it, and never lets it in."""


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an Authorization header; None without one, or for another scheme than Bearer."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


# --- Access ----------------------------------------------------------------------------------------------------------


class Access:
    """Lets callers in, or raises an AccessError. To be closed when no more requests come.

    ``audience``: what a token must have been made for. ``prefix``: what is put before a path to ask whether somebody
    may use it; empty for /metrics, which is what scrapers have rules for all over the cluster. ``clock`` counts
    seconds steadily; ``now`` is the time of day, in seconds since the epoch.

    Needs the rights to create TokenReviews and SubjectAccessReviews.
    """

    def __init__(
        self,
        client: Client,
        *,
        audience: str,
        prefix: str = PREFIX,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._audience = audience
        self._prefix = prefix
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._callers: _Answers[Caller | None] = _Answers(clock)
        self._rights: _Answers[bool] = _Answers(clock)
        self._events = _Events()

    async def admit(self, token: str | None, path: str, verb: str, *, remote: str = "") -> Caller:
        """Return who calls, if that one may use ``path`` with the HTTP method ``verb``.

        ``path`` is the decoded path that the request is routed by, without query: another one, however alike, would
        be judged by other rules than those of what it reaches. ``remote`` is the caller's address, for the log.

        :raises Unauthenticated: there is no token, or none that the API server knows for our audience.
        :raises Forbidden: the caller may not.
        :raises Unavailable: the API server cannot be asked.
        """
        caller = await self.authenticate(token, path, verb, remote=remote)
        await self.authorize(caller, path, verb, remote=remote)
        return caller

    async def authenticate(self, token: str | None, path: str, verb: str, *, remote: str = "") -> Caller:
        """Return who calls: the first half of ``admit``. Path and verb are for the log."""
        facts = {"path": _short(path), "verb": _short(verb.lower()), "remote": remote}
        if not token:
            self._events.log("request_unauthenticated", **facts, reason="no token")
            raise Unauthenticated("a bearer token is needed", given=False)
        problem = _shape_problem(token)
        caller = None
        if not problem:
            try:
                caller = await self._callers.get(
                    self._hash(token.encode()), lambda: self._review(token), self._seconds_left(token)
                )
            except NoAnswer as error:
                # What the API server says, or a proxy before it, might repeat what it was sent.
                reason = error.reason.replace(token, "[token]")
                self._events.log("access_review_failed", **facts, reason=_short(reason))
                raise Unavailable("whose token this is cannot be found out at present", error.retry_after) from None
            problem = f"the token is not valid, or not for the audience {self._audience}"
        if caller is None:
            self._events.log("request_unauthenticated", **facts, reason=problem)
            raise Unauthenticated(problem, given=True)
        return caller

    async def authorize(self, caller: Caller, path: str, verb: str, *, remote: str = "") -> None:
        """Raise unless the caller may use the path: the second half of ``admit``."""
        identity, asked, verb = caller.identity, self._prefix + path, verb.lower()
        facts = {"path": _short(path), "verb": _short(verb), "remote": remote, "username": _short(caller.username)}
        allowed = False
        if identity is not None:
            try:
                allowed = await self._rights.get(
                    self._hash(caller.key + f"{verb}\0{asked}".encode()),
                    lambda: review_access(self._client, identity, asked, verb),
                )
            except NoAnswer as error:
                self._events.log("access_review_failed", **facts, reason=_short(error.reason))
                raise Unavailable("what you may do cannot be found out at present", error.retry_after) from None
        if not allowed:
            self._events.log("request_forbidden", **facts, reason="no rule allows it")
            raise Forbidden(f"user {facts['username']!r} cannot {facts['verb']} path {_short(asked)!r}")

    @property
    def events(self) -> Mapping[str, int]:
        """How often each security event has happened, whether or not it got into the log."""
        return self._events.counts

    def knows(self, token: str | None) -> bool:
        """Return whether ``authenticate`` accepts the token without asking."""
        if not token or _shape_problem(token):
            return False
        return self._callers.remembers_yes(self._hash(token.encode()))

    async def close(self) -> None:
        """Give up the questions that are under way; who waits for an answer gets Unavailable."""
        await self._callers.close()
        await self._rights.close()
        self._events.close()

    def _hash(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, text, "sha256")

    async def _review(self, token: str) -> Caller | None:
        identity = await review_token(self._client, token, self._audience)
        if identity is None:
            return None
        # The rights of two tokens of one identity are the same, and those of an identity that changed are not.
        return Caller(identity.username, identity=identity, key=self._hash(msgspec.json.encode(identity)))

    def _seconds_left(self, token: str) -> float:
        expiry = stated_expiry(token)
        return math.inf if expiry is None else expiry - self._now()


# --- What a token looks like -----------------------------------------------------------------------------------------

_UNUSUAL = re.compile(r"[^\x21-\x7e]")
_NOT_QUOTABLE = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # RFC 6750, 3: error_description


def _shape_problem(token: str) -> str:
    """Return why a token is not even asked about; empty if nothing speaks against that.

    White space is more than bad form: the API server reads a token up to the first blank. It takes " x" for that of an
    anonymous caller, which it knows, and "a b" for "a", which our memory would take for another.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        return f"the token has more than {MAX_TOKEN_LENGTH} characters"
    if _UNUSUAL.search(token):
        return "the token has characters that no token has"
    return ""


class _Claims(Struct):
    exp: float | None = None


def stated_expiry(token: str) -> float | None:
    """Return when a token says that it expires, in seconds since the epoch; None if it says nothing, or is no JWT.

    Nothing has been verified here. It serves only to forget a yes early, never to let anybody in or keep anybody out.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims).exp
    except (ValueError, RecursionError):  # binascii and msgspec raise kinds of ValueError
        return None


# --- Answers ---------------------------------------------------------------------------------------------------------


class NoAnswer(Exception):
    """A question could not be answered. ``reason`` is for the log only."""

    def __init__(self, reason: str, retry_after: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class _Failure(Struct, frozen=True):
    reason: str
    retry_after: int


class _Memory(Generic[T]):
    """Values by key, each for a time, :data:`MEMORY` of them at most."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until = entry
        if self._clock() >= until:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: T, until: float) -> None:
        self._entries[key] = (value, until)
        self._entries.move_to_end(key)
        if len(self._entries) > MEMORY:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class _Answers(Generic[T]):
    """Answers to one kind of question: asked once for all who want to know, remembered, and never too many at a time.

    A question is a task of its own: who asked first may go away while others wait for the answer. What is true (or an
    object) counts as a yes. Yes, no and failure are remembered apart, so that many of one push none of another out.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._yes: _Memory[T] = _Memory(clock)
        self._no: _Memory[tuple[T]] = _Memory(clock)
        self._failures: _Memory[_Failure] = _Memory(clock)
        self._asking: dict[bytes, asyncio.Task[T | _Failure]] = {}
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._closed = False

    def remembers_yes(self, key: bytes) -> bool:
        return self._yes.get(key) is not None

    async def get(self, key: bytes, ask: Callable[[], Awaitable[T]], seconds_left: float = math.inf) -> T:
        """Return the answer. A yes is remembered for ``seconds_left`` at most, counted from now.

        :raises NoAnswer: the question failed, or cannot be asked at present.
        """
        if (yes := self._yes.get(key)) is not None:
            return yes
        if (no := self._no.get(key)) is not None:
            return no[0]
        answer: T | _Failure
        if (failure := self._failures.get(key)) is not None:
            answer = failure
        else:
            task = self._asking.get(key) or self._begin(key, ask, self._clock() + seconds_left)
            await asyncio.wait([task])  # unlike awaiting the task itself, being cancelled here does not cancel it
            answer = _Failure("the service ends", 1) if task.cancelled() else task.result()
        if isinstance(answer, _Failure):
            raise NoAnswer(answer.reason, answer.retry_after)
        return answer

    def _begin(self, key: bytes, ask: Callable[[], Awaitable[T]], expiry: float) -> asyncio.Task[T | _Failure]:
        if self._closed:
            raise NoAnswer("the service ends")
        if len(self._asking) >= QUEUE:
            raise NoAnswer("too many questions to the API server are under way")
        task = asyncio.create_task(self._ask(key, ask, expiry), name="access review")
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key))
        return task

    async def _ask(self, key: bytes, ask: Callable[[], Awaitable[T]], expiry: float) -> T | _Failure:
        try:
            async with asyncio.timeout(PATIENCE), self._slots:
                asked = self._clock()  # from here on the answer may be true no longer
                answer = await ask()
        except (KubernetesError, TimeoutError) as error:
            pause = FAILURE_LIFETIME
            if isinstance(error, ApiError) and error.retry_after is not None:
                pause = min(max(pause, error.retry_after), MAX_RETRY_AFTER)
            failure = _Failure(str(error) or f"no answer in {PATIENCE:g} s", math.ceil(pause))
            self._failures.put(key, failure, self._clock() + pause)
            return failure
        if answer:
            self._yes.put(key, answer, min(asked + YES_LIFETIME, expiry))
        else:
            self._no.put(key, (answer,), asked + NO_LIFETIME)
        return answer

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


# --- Security events -------------------------------------------------------------------------------------------------


class _Second(NamedTuple):
    """What has been logged under one name since the timer was set, and how many were not."""

    logged: int
    left_out: int
    timer: asyncio.TimerHandle


class _Events:
    """The log of refusals: :data:`LOGGED_EACH_SECOND` of a name in a second, and then how many more there were."""

    def __init__(self) -> None:
        self._seconds: dict[str, _Second] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(SECURITY_EVENTS, 0))

    def log(self, event: str, **facts: str) -> None:
        self.counts[event] += 1
        second = self._seconds.get(event)
        if second is None:
            second = _Second(
                0,
                0,
                asyncio.get_running_loop().call_later(
                    1.0,
                    self._end_second,
                    event,
                    context=contextvars.Context(),  # of many requests, not of this one
                ),
            )
        if second.logged < LOGGED_EACH_SECOND:
            log.warning(event, **{name: value for name, value in facts.items() if value})
            self._seconds[event] = second._replace(logged=second.logged + 1)
        else:
            self._seconds[event] = second._replace(left_out=second.left_out + 1)

    def _end_second(self, event: str) -> None:
        second = self._seconds.pop(event)
        if second.left_out:
            log.warning("security_events_left_out", left_out=event, count=second.left_out)

    def close(self) -> None:
        for event, second in list(self._seconds.items()):
            second.timer.cancel()
            self._end_second(event)


def _short(text: str) -> str:
    return text if len(text) <= LOGGED_CHARACTERS else text[:LOGGED_CHARACTERS] + "…"
