"""Whether removals are held, as stories and as laws. A service is a letter here."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dynamic_toolset.health.outage import Held, Outage, Removals
from dynamic_toolset.model import ServiceKey
from dynamic_toolset.settings import MassFailure

WINDOW, HOLD, SETTLE = 120.0, 600.0, 6.0
TEN = "abcdefghij"


def keys(names: Iterable[str]) -> frozenset[ServiceKey]:
    return frozenset(ServiceKey("shop", name) for name in names)


def names(services: Iterable[ServiceKey]) -> str:
    return "".join(sorted(key.name for key in services))


class Story:
    """A Removals and what is published, which is what stays in the toolset if every check fails three times."""

    def __init__(self, published: str, **settings: str) -> None:
        self.removals = Removals(MassFailure(**settings), SETTLE)
        self.published = published
        self.last = Held()

    def at(self, now: float, failing: str = "", *, answering: int | None = None, release: str = "") -> str:
        """Ask at a time, and return what is held; ``answering`` is what does not fail, unless said otherwise."""
        if answering is None:
            answering = len(set(self.published) - set(failing))
        self.last = self.removals.hold(keys(failing), keys(self.published), answering, now=now, release=release)
        return names(self.last.services)

    def take_out(self, gone: str) -> None:
        """What the toolset does with failing services that are not held."""
        assert not set(gone) & set(names(self.last.services)), "they are held"
        self.delete(gone)

    def delete(self, gone: str) -> None:
        self.published = "".join(name for name in self.published if name not in gone)

    @property
    def outage(self) -> Outage | None:
        return self.last.outage


# --- The begin ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "failing", "answering", "begins"),
    [
        ("abcdef", "abc", 3, True),  # half, and three
        ("abcdef", "ab", 4, False),  # not three
        ("abcdefg", "abc", 4, False),  # not half
        ("abc", "abc", 0, True),
        ("abc", "abc", 5, True),  # three of three, whatever else answers
        ("abc", "ab", 1, False),
        ("ab", "ab", 0, True),  # nothing answers at all
        ("ab", "ab", 1, False),  # something does, though it is not published
        ("ab", "a", 0, False),  # what is published does not all fail
        ("abcde", "ab", 0, False),  # nor here: of the others nothing is known yet
        ("a", "a", 0, False),  # dead, or cut off: who knows
        ("", "", 0, False),
        ("abc", "xyz", 0, False),  # what is not published does not count
    ],
)
def test_what_begins_an_outage(published: str, failing: str, answering: int, begins: bool) -> None:
    story = Story(published)
    story.at(100)
    held = story.at(1000, failing, answering=answering)
    if begins:
        assert story.outage == Outage(1000, 1600, keys(failing), len(published))
        assert story.last.wake == 1600
        assert held == failing
    else:
        assert story.outage is None


def test_an_outage_is_what_fails_within_the_window() -> None:
    story = Story(TEN)
    story.at(0, "a")
    story.at(40, "ab")
    story.at(80, "abc")
    story.at(119, "abcd")
    assert story.outage is None
    story.at(120.5, "abcde")  # a began 120.5 seconds ago
    assert story.outage is None
    story.at(160, "abcdef")  # b 120 seconds ago
    assert story.outage == Outage(160, 760, keys("abcdef"), 10)


def test_a_setting_says_how_long_the_window_is() -> None:
    story = Story("abcdef", window="10s")
    story.at(0, "a")
    story.at(11, "abc")
    assert story.outage is None
    story = Story("abcdef", window="20s")
    story.at(0, "a")
    story.at(11, "abc")
    assert story.outage is not None


def test_what_is_taken_out_while_it_drips_still_counts() -> None:
    story = Story(TEN)
    for number, name in enumerate("abcd"):
        now = 25.0 * number
        assert story.at(now, name) == name
        story.at(now + 6, name)
        story.take_out(name)
    assert story.at(100, "e") == "e"
    # Five of ten, though only six are left, and but one of them fails.
    assert story.outage == Outage(100, 700, keys("e"), 6)
    assert story.at(160, "e") == "e"


@pytest.mark.parametrize(("now", "begins"), [(120, True), (120.5, False)])
def test_what_was_taken_out_counts_if_it_began_to_fail_within_the_window(now: float, begins: bool) -> None:
    story = Story(TEN)
    story.at(0, "abcd")
    story.at(6, "abcd")
    story.take_out("abcd")
    story.at(10)
    story.at(now, "ef")
    assert (story.outage is not None) == begins
    story.at(122, "efg")
    assert story.outage is not None  # three of six


def test_what_was_taken_out_and_came_back_does_not_count() -> None:
    story = Story(TEN)
    story.at(0, "abcd")
    story.at(6, "abcd")
    story.take_out("abcd")
    story.at(7)
    story.published = TEN
    story.at(20)
    story.at(21, "efg")
    assert story.outage is None


def test_the_second_of_two_is_held_when_the_first_was_taken_out_just_before() -> None:
    story = Story("ab")
    story.at(0, "a")
    story.at(6, "a")
    story.take_out("a")
    assert story.at(30, "b") == "b"
    assert story.outage is not None


def test_nobody_who_recovered_in_between_counts() -> None:
    story = Story(TEN)
    story.at(0, "abcd")
    story.at(10)
    story.at(20, "efg")
    assert story.outage is None


# --- Confirmation ---------------------------------------------------------------------------------------------------


def test_one_that_fails_goes_when_the_others_have_been_asked() -> None:
    story = Story(TEN)
    assert story.at(100, "a") == "a"
    assert (story.outage, story.last.wake) == (None, 106)
    assert story.at(105.9, "ab") == "ab"
    assert story.last.wake == 106
    assert story.at(106, "ab") == "b"
    assert story.last.wake == pytest.approx(111.9)
    assert story.at(112, "ab") == ""
    assert story.last == Held()


def test_one_that_recovers_meanwhile_is_confirmed_anew_when_it_fails_again() -> None:
    story = Story(TEN)
    story.at(0, "a")
    story.at(5)
    assert story.at(7, "a") == "a"
    assert story.last.wake == 13


def test_a_single_service_needs_no_confirmation() -> None:
    story = Story("a")
    assert story.at(0, "a") == ""
    assert story.last == Held()


def test_the_first_victim_is_still_there_when_the_outage_is_recognised() -> None:
    story = Story(TEN)
    assert story.at(0, "a") == "a"
    assert story.at(5.5, "ab") == "ab"
    assert story.at(5.9, "abcdefg") == "abcdefg"
    assert story.at(300, "abcdefg") == "abcdefg"


# --- While it lasts -------------------------------------------------------------------------------------------------


def test_who_begins_to_fail_during_it_is_held_too() -> None:
    story = Story(TEN)
    story.at(0, "abcde")
    assert story.at(400, "abcdef") == "abcdef"
    assert story.at(590, "abcdef") == "abcdef"
    assert story.outage == Outage(0, 600, keys("abcdef"), 10)


def test_who_was_failing_already_and_is_still_there_is_held_too() -> None:
    story = Story(TEN)
    story.at(0, "a")
    assert story.at(10, "a") == ""
    assert story.at(11, "abcde") == "abcde"


def test_a_deleted_one_is_never_held() -> None:
    story = Story(TEN)
    story.at(0, "abcdef")
    story.delete("ab")
    assert story.at(10, "abcdef") == "cdef"
    assert story.outage is not None


def test_deletion_is_no_failure() -> None:
    """A namespace is deleted: its Pods end first, then its Services go."""
    story = Story(TEN)
    assert story.at(0, "abcde") == "abcde"
    story.delete("abcde")
    assert story.at(1) == ""
    assert story.outage is None
    story.at(2, "fg")
    assert story.outage is None


def test_what_was_taken_out_before_the_begin_counts_as_long_as_it_lasts() -> None:
    story = Story(TEN)
    story.at(0, "ab")
    story.at(6, "ab")
    story.take_out("ab")
    story.at(100, "cde")
    assert story.outage is not None
    assert story.at(300, "cde") == "cde"
    assert story.outage is not None
    # One that was taken out comes back: four of ten fail.
    story.published += "a"
    story.at(301, "cde")
    assert story.outage is None


# --- The end --------------------------------------------------------------------------------------------------------


def test_it_ends_by_recovery_though_some_still_fail() -> None:
    story = Story(TEN)
    story.at(0, "abcde")
    assert story.at(300, "abcde") == "abcde"
    # The others will be asked again within seconds. Until then nothing is written.
    assert story.at(301, "abcd") == "abcd"
    assert (story.outage, story.last.wake) == (None, 307)
    assert story.at(307, "abcd") == ""


def test_it_does_not_end_because_the_begin_is_long_ago() -> None:
    story = Story(TEN)
    story.at(0, "abcde")
    assert story.at(599, "abcde") == "abcde"


def test_recovery_never_holds_longer_than_the_outage_would_have() -> None:
    story = Story(TEN)
    story.at(0, "abcde")
    assert story.at(598, "abcd") == "abcd"
    assert story.last.wake == 600


def test_it_ends_when_everything_has_recovered() -> None:
    story = Story(TEN)
    story.at(0, "abcde")
    assert story.at(30) == ""
    assert story.last == Held()


def test_it_ends_by_time_and_what_was_held_is_no_reason_for_another() -> None:
    story = Story(TEN)
    story.at(0, "abcdef")
    assert story.at(600, "abcdef") == ""
    assert story.last == Held()
    assert story.at(601, "abcdef") == ""  # their removal may take a while, too
    story.take_out("abcdef")
    assert story.at(602) == ""
    assert story.at(603, "g") == "g"
    assert story.outage is None


def test_what_was_released_is_not_held_by_the_next_one() -> None:
    story = Story(TEN)
    story.at(0, "abcdef")
    story.at(600, "abcdef")
    assert story.at(601, "abcdefghi") == "ghi"  # three of the four others
    assert story.outage == Outage(601, 1201, keys("ghi"), 10)


def test_what_was_released_counts_again_once_it_has_recovered() -> None:
    story = Story(TEN)
    story.at(0, "abcdef")
    story.at(600, "abcdef")
    story.at(610, "bcdef")
    assert story.at(620, "abcdef") == "a"
    story.at(700)
    assert story.at(800, "abcdef") == "abcdef"
    assert story.outage is not None


@pytest.mark.parametrize("hold", ["90s", "1h"])
def test_a_setting_says_how_long_it_holds(hold: str) -> None:
    story = Story(TEN, hold=hold)
    story.at(0, "abcdef")
    assert story.outage is not None
    until = story.outage.until
    assert story.at(until - 0.1, "abcdef") == "abcdef"
    assert story.at(until, "abcdef") == ""
    # Also where the window is longer than the outage was.
    story.take_out("abcdef")
    story.at(until + 1, "gh")
    assert story.outage is None


def test_a_person_ends_it() -> None:
    story = Story(TEN)
    story.at(0, "abcdef")
    assert story.at(60, "abcdef", release="yes") == ""
    assert story.last == Held()
    story.take_out("abcdef")
    story.at(61, "g", release="yes")
    assert story.outage is None


def test_what_a_person_said_before_it_began_does_not_end_it() -> None:
    story = Story(TEN)
    story.at(0, release="monday")
    story.at(1, "abcdef", release="monday")
    assert story.at(2, "abcdef", release="monday") == "abcdef"
    assert story.at(3, "abcdef") == "abcdef"
    assert story.at(4, "abcdef", release="monday") == "abcdef"
    assert story.at(5, "abcdef", release="tuesday") == ""


def test_who_was_taken_out_before_is_no_reason_for_another_either() -> None:
    story = Story(TEN)
    story.at(0, "abcd")
    story.at(6, "abcd")
    story.take_out("abcd")
    story.at(20, "ef")
    assert story.outage is not None
    story.at(30, "ef", release="yes")
    story.at(31, "efg", release="yes")
    assert story.outage is None


def test_it_can_be_switched_off() -> None:
    story = Story(TEN, hold="0s")
    assert story.at(0, TEN) == ""
    assert story.last == Held()


# --- Laws -----------------------------------------------------------------------------------------------------------

some = st.sets(st.sampled_from("abcdefgh"))
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 6.0, 30.0, 119.0, 121.0, 600.0]),
        some,
        some,
        st.booleans(),
        st.sampled_from(["", "x", "y"]),
    ),
    max_size=25,
)


@given(steps)
def test_the_same_calls_give_the_same_answers_and_a_call_twice_the_same_twice(life) -> None:
    once, twice = (Removals(MassFailure(), SETTLE) for _ in range(2))
    now = 0.0
    for wait, failing, published, something_else, release in life:
        now += wait
        answering = len(published - failing) + something_else
        first = once.hold(keys(failing), keys(published), answering, now=now, release=release)
        backwards = sorted(keys(failing), reverse=True), sorted(keys(published), reverse=True)
        for _ in range(2):
            assert twice.hold(*backwards, answering, now=now, release=release) == first


@given(steps)
def test_only_what_fails_and_is_published_is_held_and_the_answer_says_when_it_changes(life) -> None:
    removals = Removals(MassFailure(), SETTLE)
    now = 0.0
    for wait, failing, published, something_else, release in life:
        now += wait
        answering = len(published - failing) + something_else
        held = removals.hold(keys(failing), keys(published), answering, now=now, release=release)
        assert held.services <= keys(failing & published)
        assert (held.wake is None) == (not held.services)
        assert held.wake is None or now < held.wake <= now + HOLD
        if held.outage is not None:
            assert held.outage.since <= now < held.outage.until == held.wake
            assert held.outage.services == held.services
            assert held.outage.published == len(published)


@given(steps)
def test_without_a_change_the_answer_stays_until_the_time_that_it_named(life) -> None:
    removals, untouched = (Removals(MassFailure(), SETTLE) for _ in range(2))
    now = 0.0
    for wait, failing, published, something_else, release in life:
        now += wait
        state = keys(failing), keys(published), len(published - failing) + something_else
        held = removals.hold(*state, now=now, release=release)
        untouched.hold(*state, now=now, release=release)
        if held.wake is None:
            assert removals.hold(*state, now=now + 10_000, release=release) == held
            return
        assert removals.hold(*state, now=(now + held.wake) / 2, release=release) == held
        later = untouched.hold(*state, now=held.wake, release=release)
        assert later.services < held.services
        removals = untouched
        now = held.wake


class Life(RuleBasedStateMachine):
    """Services that fail, recover, come and go, and a toolset that takes out what fails and is not held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.removals = Removals(MassFailure(), SETTLE)
        self.listed: set[str] = set()
        self.up: set[str] = set()
        self.down_since: dict[str, float] = {}
        self.last_begin = float("-inf")
        self.held = Held()
        self.told: set[str] = set()

    def look(self) -> None:
        """One pass of the controller."""
        self.told = set(self.listed)
        failing = self.listed - self.up
        self.held = self.removals.hold(keys(failing), keys(self.listed), len(self.up), now=self.now)
        if self.held.outage is not None:
            self.last_begin = self.held.outage.since
        self.down_since = {name: self.down_since.get(name, self.now) for name in failing}
        self.listed -= failing - set(names(self.held.services))
        self.listed |= self.up
        self.down_since = {name: since for name, since in self.down_since.items() if name in self.listed}

    @rule(which=some)
    def come_up(self, which: set[str]) -> None:
        self.up |= which
        self.look()

    @rule(which=some)
    def go_down(self, which: set[str]) -> None:
        self.up -= which
        self.look()

    @rule(which=some)
    def be_deleted(self, which: set[str]) -> None:
        self.up -= which
        self.listed -= which
        self.look()
        assert not keys(which) & self.held.services

    @rule(seconds=st.floats(0.1, 700))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.look()

    @rule()
    @precondition(lambda self: self.held.wake is not None)
    def the_time_has_come(self) -> None:
        self.now = self.held.wake
        self.look()

    @invariant()
    def nothing_is_held_for_longer_than_it_may(self) -> None:
        for key in self.held.services:
            held_from = max(self.down_since[key.name] + SETTLE, self.last_begin)
            assert self.now < held_from + HOLD

    @invariant()
    def memory_is_bounded(self) -> None:
        assert keys(self.told) >= self.removals._failing.keys()
        if self.held.outage is None:
            assert all(since >= self.now - WINDOW for since in self.removals._taken_out.values())

    def teardown(self) -> None:
        """Everything recovers: nothing is held, and soon nothing is remembered."""
        self.up |= self.listed
        self.look()
        assert self.held == Held()
        self.now += WINDOW + 1
        self.look()
        assert not self.removals._failing
        assert not self.removals._taken_out


TestLife = Life.TestCase
