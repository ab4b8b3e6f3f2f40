"""How many requests a caller may make: a token bucket for each, of a bounded number of callers.

A caller has ``limit`` requests at once, and gets them back evenly, ``limit`` in a :data:`WINDOW`. So in a time of any
length t it makes at most ``limit * (1 + t / WINDOW)`` requests: twice the limit in the worst window, the limit in the
long run. A request that is refused costs nothing.

Kept is one number for each caller, the time at which its bucket is full again (the "theoretical arrival time" of GCRA,
ITU-T I.371). Whose bucket is full is like one who never came, and is forgotten first. When more callers than there is
room for have called lately, those are forgotten who have used up least. So:

- Memory is bounded, whoever calls: 10,000 users and 10,000 addresses unless told otherwise.
- Who is limited stays so until its time, unless as many other callers of its kind as there is room for have each used
  up as much as it has. Addresses push out no users.
- A newcomer to a full table may be forgotten between two requests, and so make more than its limit: when in doubt, a
  flood from everywhere lets somebody in who should wait, and locks nobody out who should not.
"""

import hashlib
import heapq
import math
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Literal, NamedTuple

from msgspec import Struct

WINDOW = 60
"""Seconds in which a caller gets back its whole limit."""

MAX_CALLERS = 10_000
"""How many users, and how many addresses, are kept apart."""

MAX_NAME = 256
"""Characters of a caller's name; of a longer one its hash is kept."""

IPV6_PREFIX = 64
"""Bits of an IPv6 address that stand for a caller: who has one address in such a network has all 2^64."""


class CallerKey(NamedTuple):
    """Whose requests are counted together."""

    kind: Literal["user", "address"]
    name: str


def caller_key(username: str | None, address: str | None) -> CallerKey:
    """Return whose limit a request counts for: that of the user, or without one that of the address.

    What is no IP address counts as it stands, all that have none as one.
    """
    if username:
        return CallerKey("user", _bounded(username))
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return CallerKey("address", _bounded(address or ""))
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return CallerKey("address", str(parsed.ipv4_mapped))
        network = IPv6Address(int(parsed) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX))
        return CallerKey("address", f"{network}/{IPV6_PREFIX}")
    return CallerKey("address", str(parsed))


def _bounded(name: str) -> str:
    return name if len(name) <= MAX_NAME else hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()


class Allowance(Struct, frozen=True):
    """What a caller may still do. ``limit`` 0: whatever it likes.

    ``remaining`` is how many more requests it could make at once, and ``reset`` in how many seconds it has its whole
    limit again. ``retry_after``: in how many seconds the next request would be allowed, 0 if it is now.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int

    @property
    def headers(self) -> dict[str, str]:
        """The fields of the answer: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10).

        To a refusal Retry-After, in whole seconds (RFC 9110, 10.2.3). Nothing if there is no limit.
        """
        if not self.limit:
            return {}
        fields = {
            "RateLimit-Policy": f'"default";q={self.limit};w={WINDOW}',
            "RateLimit": f'"default";r={self.remaining};t={self.reset}',
        }
        return fields if self.allowed else fields | {"Retry-After": str(self.retry_after)}


UNLIMITED = Allowance(allowed=True, limit=0, remaining=0, reset=0, retry_after=0)


class Limiter:
    """Counts the requests of callers. ``limit`` is how many each may make in a minute, 0 for any number.

    It may be changed at any time: who was limited then waits for as long as the new limit makes of what is missing.
    """

    def __init__(
        self, limit: int, *, clock: Callable[[], float] = time.monotonic, max_callers: int = MAX_CALLERS
    ) -> None:
        self.limit = limit
        self._clock = clock
        self._tables = {kind: _Table(max_callers) for kind in ("user", "address")}

    def take(self, key: CallerKey) -> Allowance:
        """Count a request, if it is allowed."""
        return self._judge(key, count=True)

    def peek(self, key: CallerKey) -> Allowance:
        """Return what ``take`` would, but count nothing."""
        return self._judge(key, count=False)

    def __len__(self) -> int:
        """Return how many callers are kept apart."""
        return sum(len(table) for table in self._tables.values())

    def _judge(self, key: CallerKey, *, count: bool) -> Allowance:
        limit = self.limit
        if limit <= 0:
            return UNLIMITED
        table = self._tables[key.kind]
        now = self._clock()
        cost = WINDOW / limit
        full_at = max(table.get(key.name), now)
        # One request must still fit in; by a hair less, or rounding would cost the last one of a full bucket.
        wait = full_at + cost - WINDOW - now
        allowed = wait <= cost * 1e-6
        if allowed and count:
            full_at += cost
            table.put(key.name, full_at, now)
        missing = full_at - now
        return Allowance(
            allowed=allowed,
            limit=limit,
            remaining=max(0, math.floor((WINDOW - missing) / cost + 1e-6)),
            reset=math.ceil(missing - 1e-6),  # by a hair less: a full minute is not 61 s
            retry_after=0 if allowed else max(1, math.ceil(wait)),
        )


class _Table:
    """When each caller's bucket is full again. Beyond ``size`` those are forgotten for whom that is soonest.

    Times only grow, so the heap may hold an old one of a caller: it is put right when it comes to the top. Each
    caller is in it once, so it is as bounded as the table.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._full_at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def get(self, name: str) -> float:
        return self._full_at.get(name, -math.inf)

    def put(self, name: str, full_at: float, now: float) -> None:
        if name not in self._full_at:
            self._forget(now)
            heapq.heappush(self._heap, (full_at, name))
        self._full_at[name] = full_at

    def _forget(self, now: float) -> None:
        """Make room for one, and forget at most two whose buckets are full: so many that they never pile up."""
        dropped = 0
        while self._heap:
            noted, name = self._heap[0]
            actual = self._full_at[name]
            if actual > noted and (noted <= now or len(self._full_at) >= self._size):
                heapq.heapreplace(self._heap, (actual, name))
            elif (actual <= now and dropped < 2) or len(self._full_at) >= self._size:
                heapq.heappop(self._heap)
                del self._full_at[name]
                dropped += 1
            else:
                return

    def __len__(self) -> int:
        return len(self._full_at)
