"""Waiting for a condition, with a deadline, instead of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = 10.0, *, every: float = 0.02) -> T:
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
