"""Whether somebody else fights for what we publish, and how long we let it stand before it is put right. Pure.

A single edit or deletion by hand is put right at once. Another writer that wants these keys to say something else, a
GitOps tool or a second installation, undoes that as fast as it is done: two programs that never give up would write
as fast as the API lets them. So it is named, and put right after pauses that grow.
"""

import random as randomness
from collections import Counter
from collections.abc import Callable, Iterable

ROUNDS = 3
"""So many drifts without a quiet time between them make a contest."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds to wait before a drift of a contest is put right, doubling from the first to the longest, give or take a
fifth."""

QUICK = 60.0
"""Seconds, or twice the present pause: a drift that takes longer to come is put right at once, as it costs little."""

QUIET = 600.0
"""Seconds without a drift after which a contest is over."""

_REMEMBERED = 10
_NAMED = 3
"""How many of those who change it are remembered, and how many named: a writer may call itself anew each time."""


class Contest:
    """Counts the drifts from what we wrote. All times are seconds of any one monotonic clock.

    ``drifted`` and ``stands`` tell what was seen, at every look, in any number.
    """

    def __init__(self, random: Callable[[], float] = randomness.random) -> None:
        self._random = random
        self._rounds = 0
        self._pause = 0.0
        self._changers: Counter[str] = Counter()
        self._due: float | None = None
        self._stands_since = float("-inf")

    def drifted(self, now: float, changers: Iterable[str]) -> None:
        """Note that the ConfigMap no longer says what we wrote. Until it does again, this is one drift."""
        if self._due is not None:
            return
        stood = now - self._stands_since
        if stood >= QUIET:
            self._rounds, self._pause = 0, 0.0
            self._changers.clear()
        self._rounds += 1
        self._changers.update(one for one in changers if one in self._changers or len(self._changers) < _REMEMBERED)
        if stood > max(QUICK, 2 * self._pause):
            self._pause = 0.0
        elif self._rounds >= ROUNDS:
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._due = now + self._pause * (0.8 + 0.4 * self._random())

    def stands(self, now: float) -> None:
        """Note that the ConfigMap says what we wrote."""
        if self._due is not None:
            self._due = None
            self._stands_since = now

    def overtaken(self, now: float) -> None:
        """Note that somebody wrote while the drift was being put right: if it is still there, that is another one."""
        self.stands(now)

    def remaining(self, now: float) -> float:
        """Return the seconds to wait before the drift is put right: 0 for at once."""
        return 0.0 if self._due is None else max(0.0, self._due - now)

    def ends_in(self, now: float) -> float | None:
        """Return the seconds after which the contest is over if nothing happens; None if it is not going to be."""
        if self._due is not None or not self._is_on(now):
            return None
        return self._stands_since + QUIET - now

    def describe(self, now: float) -> str | None:
        """Say who fights, and how often by now; None if nobody does."""
        if not self._is_on(now):
            return None
        names = [name for name, _ in self._changers.most_common(_NAMED)]
        more = len(self._changers) - len(names)
        return (
            f"what is published was changed {self._rounds} times in a row by {' and '.join(names)}"
            + (f" and {more} others" if more else "")
            + f"; it is put right again, after pauses of up to {LONGEST_PAUSE:.0f} s: end the other writer, or have "
            "this program publish elsewhere (setting configMap.name)"
        )

    def _is_on(self, now: float) -> bool:
        return self._rounds >= ROUNDS and (self._due is not None or now - self._stands_since < QUIET)
