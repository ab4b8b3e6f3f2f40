"""The last changes, and what somebody has missed of them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.model import Change
from dynamic_toolset.server.history import SIZE, History


def history(changes: int) -> History:
    made = History(now=lambda: 1_800_000_000.0)
    for number in range(changes):
        made.add([Change("problem", message=str(number))], float(number))
    return made


def test_the_entries_in_their_order_with_ids_that_grow() -> None:
    made = history(3)
    assert [(one.change.message, one.at) for one in made.entries] == [("0", 0.0), ("1", 1.0), ("2", 2.0)]
    numbers = [int(one.id.rpartition("-")[2]) for one in made.entries]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    assert made.last_id == made.entries[-1].id


def test_only_the_last_ones_are_kept() -> None:
    made = history(SIZE + 7)
    assert [one.change.message for one in made.entries] == [str(number) for number in range(7, SIZE + 7)]


def test_more_changes_at_once_than_are_kept() -> None:
    made = History()
    assert len(made.add([Change("problem")] * (SIZE + 5), 1.0)) == SIZE + 5
    assert len(made.entries) == SIZE
    assert made.entries[-1].id == made.last_id


@given(total=st.integers(0, 2 * SIZE + 5), seen=st.integers(0, 2 * SIZE + 5))
def test_what_was_missed_is_whole_or_unknown(total: int, seen: int) -> None:
    made = history(total)
    start = made.last_id.partition("-")[0]
    missed = made.since(f"{start}-{seen}")
    if seen > total or total - seen > SIZE:
        assert missed is None
    else:
        assert missed is not None
        assert [one.change.message for one in missed] == [str(number) for number in range(seen, total)]


@pytest.mark.parametrize(
    "entry_id", ["", "-", "x", "x-1", "{start}", "{start}-", "{start}-x", "{start}--1", "{start}-1.0", "{start}-٣",
                 "{start}-" + "9" * 5000, "-1", "{start}-1-1", " {start}-1"]
)  # fmt: skip
def test_an_id_that_was_never_given_is_not_known(entry_id: str) -> None:
    made = history(3)
    assert made.since(entry_id.replace("{start}", made.last_id.partition("-")[0])) is None


def test_an_id_of_an_earlier_process_is_not_known() -> None:
    before, now = History(now=lambda: 1.0), History(now=lambda: 2.0)
    before.add([Change("problem")], 1.0)
    now.add([Change("problem")] * 3, 2.0)
    assert now.since(before.last_id) is None


def test_before_the_first_change_there_is_an_id_too() -> None:
    made = History()
    first = made.last_id
    assert made.since(first) == ()
    [added] = made.add([Change("problem")], 1.0)
    assert made.since(first) == (added,)
