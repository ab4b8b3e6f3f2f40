"""An event loop in a thread, for the servers of tests that are not asynchronous themselves."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

_DEADLINE = 10.0


class LoopThread:
    """Runs things in a thread of its own, for as long as the ``with`` block; what still runs then is cancelled."""

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(started)), daemon=True)
        self._thread.start()
        started.wait(_DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_DEADLINE)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns, which must not take long."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_DEADLINE)

    def call(self, function: Callable[[], T]) -> T:
        """Return what a function returns, called where nothing else runs at the same time."""

        async def called() -> T:
            return function()

        return self.run(called())

    async def _main(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        started.set()
        await self._ended.wait()
