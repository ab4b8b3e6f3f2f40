"""How long somebody else's word stands, and what is said of it: tables over a clock of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.publication.contest import LONGEST_PAUSE, QUICK, QUIET, Contest

MIDDLE = 0.5
"""The random number that means neither more nor less."""


class Fight:
    """A contest with somebody who changes what we wrote ``after`` seconds; it is put right as soon as may be."""

    def __init__(self, random: float = MIDDLE) -> None:
        self.contest = Contest(lambda: random)
        self.now = 1000.0
        self.writes: list[float] = []

    def change(self, after: float = 0.01, by: str = "argocd") -> float:
        """Let somebody change it, wait, put it right. Return the pause."""
        self.now += after
        self.contest.drifted(self.now, [by])
        pause = self.contest.remaining(self.now)
        self.now += pause
        assert self.contest.remaining(self.now) == 0
        self.contest.stands(self.now)
        self.writes.append(self.now)
        return pause

    def changes(self, count: int, after: float = 0.01) -> list[float]:
        return [round(self.change(after), 3) for _ in range(count)]

    @property
    def sentence(self) -> str | None:
        return self.contest.describe(self.now)


def test_the_first_two_are_put_right_at_once_and_then_the_pauses_grow() -> None:
    assert Fight().changes(11) == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("random", "expected"), [(0.0, [0, 0, 0.8, 1.6]), (1.0, [0, 0, 1.2, 2.4])])
def test_pauses_are_jittered_by_a_fifth(random: float, expected: list[float]) -> None:
    assert Fight(random).changes(4) == expected


def test_from_the_third_on_it_is_named_with_its_count_also_while_ours_stands() -> None:
    fight = Fight()
    fight.changes(2)
    assert fight.sentence is None
    fight.change()
    assert fight.sentence is not None
    assert "changed 3 times in a row by argocd;" in fight.sentence
    assert "pauses of up to 60 s: end the other writer" in fight.sentence
    fight.change(by="somebody who deletes it")
    assert "changed 4 times in a row by argocd and somebody who deletes it;" in str(fight.sentence)


def test_it_is_also_named_while_theirs_stands() -> None:
    fight = Fight()
    fight.changes(2)
    fight.contest.drifted(fight.now, ["argocd"])
    assert fight.contest.describe(fight.now + 10 * QUIET)
    assert fight.contest.ends_in(fight.now) is None


def test_what_is_seen_again_before_it_is_put_right_is_the_same_drift() -> None:
    contest = Contest(lambda: MIDDLE)
    for now in range(100):
        contest.drifted(now, ["argocd"])
    assert contest.remaining(100) == 0
    assert contest.describe(100) is None


def test_the_pause_runs_from_the_drift_however_often_it_is_looked_at() -> None:
    fight = Fight()
    fight.changes(4)
    fight.contest.drifted(fight.now, ["argocd"])
    fight.contest.drifted(fight.now + 1, ["argocd"])
    assert fight.contest.remaining(fight.now + 1) == 3
    assert fight.contest.remaining(fight.now + 5) == 0


def test_what_they_put_right_themselves_is_as_good_as_put_right_by_us() -> None:
    fight = Fight()
    fight.changes(3)
    fight.contest.drifted(fight.now, ["argocd"])
    fight.contest.stands(fight.now + 0.5)
    assert fight.contest.remaining(fight.now + 0.5) == 0
    assert fight.change(after=1) == 4


def test_a_look_at_what_stands_does_not_prolong_it() -> None:
    fight = Fight()
    fight.changes(3)
    for _ in range(20):
        fight.now += QUIET / 10
        fight.contest.stands(fight.now)
    assert fight.sentence is None


def test_ten_quiet_minutes_end_it() -> None:
    fight = Fight()
    fight.changes(9)
    assert fight.contest.ends_in(fight.now + 1) == QUIET - 1
    assert fight.contest.describe(fight.now + QUIET - 1)
    assert fight.contest.describe(fight.now + QUIET) is None
    assert fight.contest.ends_in(fight.now + QUIET) is None
    assert fight.changes(3, after=QUIET)[0] == 0
    fight = Fight()
    fight.changes(9)
    fight.now += QUIET
    assert [fight.change(by="helm") for _ in range(4)] == [0, 0, 1, 2]
    assert "4 times in a row by helm;" in str(fight.sentence)


def test_one_that_comes_seldom_is_named_but_put_right_at_once() -> None:
    fight = Fight()
    assert fight.changes(5, after=QUICK + 1) == [0, 0, 0, 0, 0]
    assert "5 times in a row" in str(fight.sentence)
    assert fight.changes(3) == [1, 2, 4]
    assert fight.changes(1, after=QUICK + 1) == [0]


def test_quick_is_measured_by_the_pause_once_that_is_long() -> None:
    fight = Fight()
    fight.changes(9)  # the pause is a minute by now
    assert fight.change(after=2 * LONGEST_PAUSE - 1) == 60
    assert fight.change(after=2 * LONGEST_PAUSE + 1) == 0


def test_a_single_edit_now_and_then_is_never_a_contest() -> None:
    fight = Fight()
    assert fight.changes(20, after=QUIET) == [0] * 20
    assert fight.sentence is None
    assert fight.contest.ends_in(fight.now) is None


def test_a_writer_with_a_new_name_each_time_costs_no_memory() -> None:
    fight = Fight()
    for number in range(50):
        fight.change(by=f"writer-{number}")
    assert "50 times in a row by writer-0 and writer-1 and writer-2 and 7 others" in str(fight.sentence)


@given(st.lists(st.tuples(st.floats(0, 10_000), st.floats(0, 1)), max_size=200))
def test_however_they_time_it_the_writes_are_few(steps: list[tuple[float, float]]) -> None:
    """In any minute we write at most as often as the pauses allow while they grow."""
    fight = Fight()
    for after, random in steps:
        fight.contest._random = lambda random=random: random
        fight.change(after)
    for index, first in enumerate(fight.writes):
        assert sum(1 for write in fight.writes[index:] if write - first < QUICK) <= 9


def test_the_first_drift_of_all_is_put_right_at_once_on_any_clock() -> None:
    for now in (-5.0, 0.0, 1e9):
        contest = Contest(lambda: 1.0)
        contest.drifted(now, ["kubectl"])
        assert contest.remaining(now) == 0
