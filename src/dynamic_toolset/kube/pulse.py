"""Whether a loop still makes progress: it says when it will be heard of next, and anybody can ask whether it was.

A loop that waits for an event rightly waits for hours, so a plain "last seen" says nothing. What counts is the promise.
"""

import math
import time
from collections.abc import Callable


class Pulse:
    """One loop's promise. Without one it is never late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf

    def promise(self, within: float) -> None:
        """I shall be heard of again within so many seconds; ``math.inf``: whenever something happens."""
        self._due = self._clock() + within

    @property
    def late(self) -> float:
        """By how many seconds the last promise is overdue; 0 if it is not."""
        return max(0.0, self._clock() - self._due)
