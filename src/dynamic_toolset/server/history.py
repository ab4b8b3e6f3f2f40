"""The last changes, remembered: what an operator asks first."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from dynamic_toolset.model import Change, Entry

SIZE = 100
"""Changes that are remembered."""


class History:
    """The last :data:`SIZE` changes, in their order.

    An entry's ``id`` is made of when this process started and a number that grows, so that one of an earlier process
    is known as such.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._start = f"{round(now() * 1000):x}"
        self._number = 0
        self._entries: deque[Entry] = deque(maxlen=SIZE)

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries, the oldest first."""
        return tuple(self._entries)

    @property
    def last_id(self) -> str:
        """The id of the newest entry; also there is one before the first."""
        return f"{self._start}-{self._number}"

    def add(self, changes: Iterable[Change], at: float) -> tuple[Entry, ...]:
        """Remember changes, and return their entries."""
        added = []
        for change in changes:
            self._number += 1
            added.append(Entry(self.last_id, at, change))
        self._entries.extend(added)
        return tuple(added)

    def since(self, entry_id: str) -> tuple[Entry, ...] | None:
        """Return the entries that came after one; None if that is not known any more, or never was."""
        start, _, number = entry_id.partition("-")
        if start != self._start or not (number.isascii() and number.isdecimal()) or len(number) > 18:
            return None
        missed = self._number - int(number)
        if not 0 <= missed <= len(self._entries):
            return None
        return tuple(self._entries)[len(self._entries) - missed :]
