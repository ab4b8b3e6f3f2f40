"""An event loop whose time passes only while nothing else is to be done, so that a test of hours takes milliseconds.

::

    @virtual_time
    async def test_it_is_checked_every_30_seconds() -> None:
        await asyncio.sleep(3600)
        assert asyncio.get_running_loop().time() == 3600

Time starts at 0 and jumps to the next timer when no callback is ready. All that waits through the loop follows it:
``asyncio.sleep``, ``asyncio.timeout``, ``loop.call_later``. The same test gives the same order of events on every
machine. It is for code without sockets: an answer that is on its way is nothing to be done yet, so a deadline would
pass before it. A test that waits for what can never happen fails at once instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class Deadlock(AssertionError):
    """Everything waits, and nothing is left that could wake it."""


class _JumpingSelector(selectors.DefaultSelector):
    """Lets time jump instead of waiting. The loop asks it to wait only when no callback is ready."""

    _REAL_SECONDS_FOR_A_THREAD = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            # No timer either: only another thread could still wake the loop.
            events = super().select(self._REAL_SECONDS_FOR_A_THREAD)
            if not events:
                raise Deadlock("every task waits, and no timer is set")
            return events
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop. ``time()`` is in virtual seconds since its start."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without the deadline that asyncio sets from 3.12 on: it would be over at once."""
        await super().shutdown_default_executor()


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time. Fixtures and parameters work as ever; async fixtures do not."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
