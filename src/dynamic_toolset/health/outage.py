"""Whether it is the backends that fail, or our own network: pure.

Services fail one by one; what fails all at once is most likely the way to them. Then nothing is taken out of the
toolset for a while: people are told, and the agent keeps the tools that it will need most.

An **outage** begins when at least half of the published services, and at least three, turned failing within
``window``; or when all of them fail, nothing else answers either, and at least two turned failing within it. Of a
single one nobody can say whether the service is dead or the network, and people expect a dead service to go.

While it lasts every failing service is held, also one that begins to fail during it. It ends

* by recovery: so few of them fail now that it would not begin, whenever they began to fail;
* by time: ``hold`` after its begin;
* by a person, who says so with a word that was not there when it began.

After the last two, what was held may go: a service that was is no reason for another outage until it has recovered.

**Confirmation**: one that begins to fail is held for ``settle`` seconds in any case, if there are others. By then all
of them can have been asked, so that an outage is recognised before its first victim goes. For as long those are held
that still fail when an outage ends by recovery, though not beyond the longest that it could have lasted: they have been
asked last when nothing could answer.
"""

from collections.abc import Collection

from msgspec import Struct

from dynamic_toolset.model import ServiceKey
from dynamic_toolset.settings import MassFailure, seconds

FEWEST = 3
"""How many services must turn failing to make an outage, while others still answer."""

FEWEST_OF_ALL = 2
"""How many it takes where nothing answers at all."""


class Outage(Struct, frozen=True):
    """An outage that lasts: since when, until when at most (monotonic seconds), and what is held because of it.

    ``published`` is how many services are published now.
    """

    since: float
    until: float
    services: frozenset[ServiceKey]
    published: int


class Held(Struct, frozen=True):
    """Which services must not be taken out now, the outage if there is one, and when to ask again.

    ``wake`` is the monotonic time at which the answer changes by time alone; None if it does not.
    """

    services: frozenset[ServiceKey] = frozenset()
    outage: Outage | None = None
    wake: float | None = None


class _Failure(Struct):
    """One failing published service: since when, held until when at least, and whether an outage has released it."""

    since: float
    held_until: float
    released: bool = False


class _Begun(Struct, frozen=True):
    """The begin of the outage that lasts. ``word`` is what people had said by then."""

    at: float
    word: str


class Removals:
    """Remembers what fails since when, and says which removals are held.

    ``settle`` is how many seconds after one began to fail all others have been asked too. All times are of one
    monotonic clock, in seconds.
    """

    def __init__(self, settings: MassFailure, settle: float) -> None:
        self._window = seconds(settings.window)
        self._hold = seconds(settings.hold)
        self._settle = settle
        self._failing: dict[ServiceKey, _Failure] = {}
        self._taken_out: dict[ServiceKey, float] = {}
        """Since when those failed that were taken out lately. They count, so that a slow failure is noticed too."""
        self._held: frozenset[ServiceKey] = frozenset()
        self._begun: _Begun | None = None

    def hold(
        self,
        failing: Collection[ServiceKey],
        published: Collection[ServiceKey],
        answering: int,
        *,
        now: float,
        release: str = "",
    ) -> Held:
        """Take over the present state, and return what must not be taken out of the toolset.

        ``published`` are the services that are published and still candidates, ``failing`` those of them whose last
        check failed; ``answering`` is how many candidates in all answer. ``release`` is what people say, empty for
        nothing: it ends an outage unless it was said already when that began.

        The same call again at the same time returns the same. With a ``hold`` of 0 nothing is ever held.
        """
        if not self._hold:
            return Held()
        published = frozenset(published)
        self._take_over(published.intersection(failing), published, now)
        if self._begun is None:
            if self._is_outage(published, answering, since=now - self._window):
                self._begun = _Begun(now, release)
        elif now >= self._begun.at + self._hold or release not in ("", self._begun.word):
            self._release()
        elif not self._is_outage(published, answering):
            self._recover(held_until=min(now + self._settle, self._begun.at + self._hold))
            self._forget(before=now - self._window)
        self._held = frozenset(key for key, one in self._failing.items() if self._is_held(one, published, now))
        return Held(self._held, self._outage(published), self._wake())

    # --- Memory -----------------------------------------------------------------------------------------------------

    def _take_over(self, failing: frozenset[ServiceKey], published: frozenset[ServiceKey], now: float) -> None:
        """Note who began to fail, who does no longer, and who was taken out."""
        for key in self._failing.keys() - failing:
            one = self._failing.pop(key)
            # What was held and is no longer published has been deleted: nobody takes out what is held.
            if key not in self._held and not one.released:
                self._taken_out[key] = one.since
        for key in failing - self._failing.keys():
            self._failing[key] = _Failure(now, now + self._settle)
        self._taken_out = {key: since for key, since in self._taken_out.items() if key not in published}
        if self._begun is None:  # an outage that lasts still counts those that led to it
            self._forget(before=now - self._window)

    def _forget(self, before: float) -> None:
        self._taken_out = {key: since for key, since in self._taken_out.items() if since >= before}

    def _release(self) -> None:
        for one in self._failing.values():
            one.released = True
        self._taken_out.clear()
        self._begun = None

    def _recover(self, held_until: float) -> None:
        for one in self._failing.values():
            one.held_until = held_until
        self._begun = None

    # --- Judgement --------------------------------------------------------------------------------------------------

    def _is_outage(self, published: frozenset[ServiceKey], answering: int, since: float = float("-inf")) -> bool:
        """Whether so much fails that was not released, as far as it began to fail at ``since`` or later."""
        released = sum(one.released for one in self._failing.values())
        turned = sum(one.since >= since for one in self._failing.values() if not one.released)
        gone = len(self._taken_out)
        if not turned:
            return False
        nothing_answers = answering == 0 and len(self._failing) == len(published)
        many = turned + gone >= FEWEST and 2 * (turned + gone) >= len(published) - released + gone
        return many or (nothing_answers and turned + gone >= FEWEST_OF_ALL)

    def _is_held(self, one: _Failure, published: frozenset[ServiceKey], now: float) -> bool:
        if one.released:
            return False
        return self._begun is not None or (now < one.held_until and len(published) > 1)

    # --- Answer -----------------------------------------------------------------------------------------------------

    def _outage(self, published: frozenset[ServiceKey]) -> Outage | None:
        if self._begun is None:
            return None
        return Outage(self._begun.at, self._begun.at + self._hold, self._held, len(published))

    def _wake(self) -> float | None:
        if self._begun is not None:
            return self._begun.at + self._hold
        return min((self._failing[key].held_until for key in self._held), default=None)
