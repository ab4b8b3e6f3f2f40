"""The limiter: its law, what it tells a caller, and what a flood can and cannot do to its table."""

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.server.limits import UNLIMITED, WINDOW, Allowance, CallerKey, Limiter, caller_key

ANN = caller_key("ann", "192.0.2.1")


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(limiter: Limiter, key: CallerKey, most: int = 100_000) -> int:
    """Make requests until one is refused, and return how many were allowed."""
    for number in range(most):
        if not limiter.take(key).allowed:
            return number
    raise AssertionError("never refused")


# --- The law ---------------------------------------------------------------------------------------------------------

gaps = st.lists(st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 150)), max_size=300)


@given(limit=st.integers(1, 50), gaps=gaps)
def test_never_more_than_the_limit_and_what_came_back_meanwhile(limit: int, gaps: list[float]) -> None:
    clock = Clock()
    limiter = Limiter(limit, clock=clock)
    allowed = []
    for gap in gaps:
        clock.now += gap
        if limiter.take(ANN).allowed:
            allowed.append(clock.now)
    for first, start in enumerate(allowed):
        in_window = bisect_right(allowed, start + WINDOW) - first
        assert in_window <= 2 * limit
        for last in range(first, len(allowed)):
            assert last - first + 1 <= limit + (allowed[last] - start) * limit / WINDOW + 1e-3


@given(limit=st.integers(1, 50), gaps=gaps)
def test_a_refused_caller_is_allowed_after_the_time_that_it_was_told(limit: int, gaps: list[float]) -> None:
    clock = Clock()
    limiter = Limiter(limit, clock=clock)
    for gap in gaps:
        clock.now += gap
        told = limiter.take(ANN)
        assert told.allowed is (told.retry_after == 0)
        assert 0 <= told.remaining < limit
        assert 0 < told.reset <= WINDOW
        if not told.allowed:
            assert told.remaining == 0
            assert 1 <= told.retry_after <= told.reset
            clock.now += told.retry_after
            assert limiter.take(ANN).allowed


@given(limit=st.integers(1, 1000), waits=st.lists(st.floats(1, 5), max_size=100))
def test_who_keeps_to_the_limit_is_never_refused(limit: int, waits: list[float]) -> None:
    clock = Clock()
    limiter = Limiter(limit, clock=clock)
    assert spend(limiter, ANN) == limit
    for wait in waits:
        clock.now += wait * WINDOW / limit
        assert limiter.take(ANN).allowed


@given(gaps=gaps)
def test_peeking_says_what_taking_would_and_costs_nothing(gaps: list[float]) -> None:
    clock = Clock()
    limiter, peeked = Limiter(5, clock=clock), Limiter(5, clock=clock)
    for gap in gaps:
        clock.now += gap
        foretold = [peeked.peek(ANN).allowed for _ in range(3)]
        taken = limiter.take(ANN)
        assert foretold == [taken.allowed] * 3
        assert peeked.take(ANN) == taken


# --- What a caller is told -------------------------------------------------------------------------------------------


def test_the_course_of_a_minute(clock: Clock) -> None:
    limiter = Limiter(100, clock=clock)
    assert limiter.take(ANN) == Allowance(allowed=True, limit=100, remaining=99, reset=1, retry_after=0)
    assert spend(limiter, ANN) == 99
    refused = limiter.take(ANN)
    assert refused == Allowance(allowed=False, limit=100, remaining=0, reset=60, retry_after=1)
    assert refused.headers == {
        "RateLimit-Policy": '"default";q=100;w=60',
        "RateLimit": '"default";r=0;t=60',
        "Retry-After": "1",
    }
    clock.now += 30
    half = limiter.take(ANN)
    assert half.headers == {"RateLimit-Policy": '"default";q=100;w=60', "RateLimit": '"default";r=49;t=31'}
    clock.now += 60
    assert spend(limiter, ANN) == 100


def test_without_a_limit_nothing_is_counted_and_nothing_said(clock: Clock) -> None:
    limiter = Limiter(0, clock=clock)
    assert all(limiter.take(ANN) is UNLIMITED for _ in range(1000))
    assert UNLIMITED.headers == {}
    assert len(limiter) == 0


def test_a_limit_of_one(clock: Clock) -> None:
    limiter = Limiter(1, clock=clock)
    assert limiter.take(ANN).allowed
    assert limiter.take(ANN).retry_after == 60


def test_the_limit_may_change(clock: Clock) -> None:
    limiter = Limiter(10, clock=clock)
    assert spend(limiter, ANN) == 10
    limiter.limit = 60
    assert limiter.take(ANN).retry_after == 1
    clock.now += 1
    assert limiter.take(ANN).allowed
    limiter.limit = 0
    assert limiter.take(ANN).allowed


# --- Who is a caller -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "address", "key"),
    [
        ("ann", "192.0.2.1", ("user", "ann")),
        (None, "192.0.2.1", ("address", "192.0.2.1")),
        ("", "192.0.2.1", ("address", "192.0.2.1")),
        (None, "::ffff:192.0.2.1", ("address", "192.0.2.1")),
        (None, "2001:db8:1:2:3:4:5:6", ("address", "2001:db8:1:2::/64")),
        (None, "2001:DB8:1:2::", ("address", "2001:db8:1:2::/64")),
        (None, "fe80::1%eth0", ("address", "fe80::/64")),
        (None, "::1", ("address", "::/64")),
        (None, "unix:", ("address", "unix:")),
        (None, "", ("address", "")),
        (None, None, ("address", "")),
        ("192.0.2.1", None, ("user", "192.0.2.1")),
    ],
)
def test_a_caller_is_a_user_or_an_address(username: str | None, address: str | None, key: tuple[str, str]) -> None:
    assert caller_key(username, address) == key


def test_a_long_name_takes_no_more_room_than_a_short_one() -> None:
    keys = {caller_key("x" * 10_000 + end, None) for end in "ab"}
    assert len(keys) == 2
    assert all(len(key.name) == 64 for key in keys)


def test_callers_do_not_share_a_limit(clock: Clock) -> None:
    limiter = Limiter(3, clock=clock)
    for key in (ANN, caller_key("bob", None), caller_key(None, "ann"), caller_key(None, "2001:db8::1")):
        assert spend(limiter, key) == 3
    assert not limiter.take(caller_key(None, "2001:db8::2")).allowed


# --- Floods ----------------------------------------------------------------------------------------------------------


def address(number: int) -> CallerKey:
    return caller_key(None, f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")


def test_fresh_addresses_take_no_memory_and_free_no_offender(clock: Clock) -> None:
    limiter = Limiter(10, clock=clock, max_callers=100)
    offenders = [address(1_000_000 + number) for number in range(50)]
    for offender in (*offenders, ANN):
        spend(limiter, offender)
    for number in range(5000):
        limiter.take(address(number))
        clock.now += 0.001
        assert len(limiter) <= 101
    # In these 5 s not one request came back, nor to ANN, who is no address.
    assert not any(limiter.take(offender).allowed for offender in (*offenders, ANN))


def test_who_has_used_up_least_is_forgotten_first(clock: Clock) -> None:
    limiter = Limiter(10, clock=clock, max_callers=3)
    for number, requests in enumerate((5, 2, 8)):
        for _ in range(requests):
            limiter.take(address(number))
    limiter.take(address(3))
    remaining = [limiter.peek(address(number)).remaining for number in range(4)]
    assert remaining == [5, 10, 2, 9]


def test_only_as_many_as_there_is_room_for_free_an_offender(clock: Clock) -> None:
    limiter = Limiter(10, clock=clock, max_callers=100)
    offender = address(1_000_000)
    spend(limiter, offender)
    clock.now += 1
    for number in range(99):
        spend(limiter, address(number))
    assert not limiter.take(offender).allowed
    limiter.take(address(100))
    assert limiter.take(offender).allowed


def test_who_has_a_full_limit_again_is_forgotten_as_others_come(clock: Clock) -> None:
    limiter = Limiter(60, clock=clock)
    for number in range(20_000):
        limiter.take(address(number))
        clock.now += 0.01
    assert len(limiter) < 250  # each for a second


@given(st.lists(st.tuples(st.integers(0, 8), st.floats(0, 3)), max_size=300))
def test_a_small_table_never_refuses_whom_a_large_one_allows(requests: list[tuple[int, float]]) -> None:
    clock = Clock()
    small, large = Limiter(4, clock=clock, max_callers=4), Limiter(4, clock=clock)
    for number, gap in requests:
        clock.now += gap
        # What is forgotten is so in the caller's favour: the large one, which forgot nothing, may refuse more.
        if not small.peek(address(number)).allowed:
            assert not large.peek(address(number)).allowed
        if large.take(address(number)).allowed:
            small.take(address(number))
        assert len(small) <= 4
