"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds to wait for what is to come at once. A busy machine may take some; half a minute would be too long, as the
program looks at everything again by then, and comes to what it has missed."""


def eventually(condition: Callable[[], T], within: float = PATIENCE, *, every: float = 0.02) -> T:
    """Return the first true value of ``condition``, asked every few milliseconds for ``within`` seconds.

    An AssertionError of the condition counts as not yet, so that a test can wait for its own assertions; when the
    time is over it is what the caller sees.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            if value := condition():
                return value
            failure = AssertionError(f"not true within {within} s: {getattr(condition, '__name__', condition)}")
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        time.sleep(every)


class Stopwatch:
    """Takes the time, as long as the ``with`` block, without the moments in which the machine stood still.

    ::

        with Stopwatch() as watch:
            ...
        assert watch.seconds < 2

    A shared machine stops all processes of a container for a second now and then. A thread that has nothing to do but
    to wake up notices that. How busy the machine is does not count: that is part of what is measured.
    """

    _TICK = 0.02
    _STOOD_STILL = 0.2

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="stopwatch", daemon=True)

    def __enter__(self) -> Self:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _tick(self) -> None:
        while True:
            over = self._over.wait(self._TICK)
            now = time.monotonic()
            passed, self._last = now - self._last, now
            if passed < self._STOOD_STILL:
                self.seconds += passed
            if over:
                return
