"""The controller that is at work, in whose place another one can be put: that is how other settings come into force."""

from dynamic_toolset.controller.controller import Controller
from dynamic_toolset.controller.observer import Observer
from dynamic_toolset.controller.statistics import Statistics, continued, kept
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.kube.client import Client
from dynamic_toolset.settings import Settings


class Supervisor:
    """Runs a controller, and then the one that takes its place, until ``stop``.

    A successor begins anew, with what is published as its memory, so nothing that is listed goes away meanwhile. It
    knows the last report of its predecessor, and so reports only what is different from that.
    """

    def __init__(
        self, client: Client, settings: Settings, catalog: Catalog, *, observer: Observer | None = None
    ) -> None:
        self._client = client
        self._observer = observer
        self._next: Controller | None = None
        self._past: Statistics | None = None
        self._stopped = False
        self.settings = settings
        self.controller = Controller(client, settings, catalog, observer=observer)

    async def run(self) -> None:
        """Work until ``stop``. An error in a part ends the whole and is raised."""
        while not self._stopped:
            await self.controller.run()
            if self._next is None:
                return
            self._past = kept(self._past, self.controller.statistics())
            self._next.report = self.controller.report  # what it has told of since
            self.controller, self._next = self._next, None

    def statistics(self) -> Statistics:
        """Return everything that is counted, by all controllers so far: it never goes back."""
        now = self.controller.statistics()
        return now if self._past is None else continued(self._past, now)

    def replace(self, settings: Settings, catalog: Catalog) -> None:
        """Let a controller with these settings take over, once what the present one is writing has ended."""
        self.settings = settings
        report = self.controller.report
        self._next = Controller(self._client, settings, catalog, observer=self._observer, previous=report)
        self.controller.stop()

    def stop(self) -> None:
        """End ``run``, in order."""
        self._stopped = True
        self.controller.stop()
