"""How long it takes from a Service's change to the publication in which it shows."""

from collections.abc import Collection, Iterable, Mapping

from dynamic_toolset.model import DiscoveredService, ServiceKey

MAX_PENDING = 10_000
"""Changes that are followed at a time. Beyond that a figure is missed, and nothing else."""

Shown = Mapping[ServiceKey, tuple[str, str, str]]
"""What an agent sees of each listed service: type, URL, name."""


def shown(discovered: Iterable[DiscoveredService]) -> Shown:
    """Return what an agent sees of the listed ones."""
    return {
        one.candidate.key: (one.candidate.type, one.candidate.endpoint.url, one.candidate.name)
        for one in discovered
        if one.listed
    }


class Latency:
    """Follows the changes of Services that may come to be seen. Times are of one steady clock, in seconds."""

    def __init__(self) -> None:
        self._pending: dict[ServiceKey, float] = {}
        self._shown: Shown = {}

    def arrived(self, services: Iterable[ServiceKey], at: float) -> None:
        """Note that changes of these have arrived. Of several of one Service the first counts until it has shown."""
        for key in services:
            if len(self._pending) < MAX_PENDING:
                self._pending.setdefault(key, at)

    def settle(
        self, now_shown: Shown, waiting: Collection[ServiceKey], *, published: bool, now: float
    ) -> tuple[float, ...]:
        """Return how long ago those changes arrived that a publication has just shown.

        ``waiting`` are the services of which a verdict is still to come: theirs may show later. The others' changes,
        those which nobody will see, are forgotten.
        """
        done = [key for key in self._pending if self._shown.get(key) != now_shown.get(key)] if published else []
        latencies = tuple(now - self._pending.pop(key) for key in done)
        if published:
            self._shown = now_shown
        self._pending = {
            key: at for key, at in self._pending.items() if key in waiting or self._shown.get(key) != now_shown.get(key)
        }
        return latencies

    @property
    def waits(self) -> bool:
        """Whether there is a change that may still come to be seen."""
        return bool(self._pending)

    def forget(self, now_shown: Shown) -> None:
        """Another instance publishes, and has published this."""
        self._pending.clear()
        self._shown = now_shown
