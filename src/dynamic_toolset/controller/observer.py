"""Who wants to know what the controller does: metrics, history, and what is streamed to readers."""

from typing import Protocol

from dynamic_toolset.model import Candidate, Health, Pass


class Observer(Protocol):
    """Is told, in the event loop, of what happens. It must be quick, and may not raise."""

    def passed(self, done: Pass) -> None:
        """Hear that a pass has ended."""

    def checked(self, candidate: Candidate, health: Health) -> None:
        """Hear that a check of a candidate has ended."""


class Nobody:
    """The observer that wants to know nothing."""

    def passed(self, done: Pass) -> None:
        pass

    def checked(self, candidate: Candidate, health: Health) -> None:
        pass


class Several:
    """The observer that hands on what it hears to several others, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Let one more hear, after those that are there."""
        self._observers.append(observer)

    def passed(self, done: Pass) -> None:
        for one in self._observers:
            one.passed(done)

    def checked(self, candidate: Candidate, health: Health) -> None:
        for one in self._observers:
            one.checked(candidate, health)
