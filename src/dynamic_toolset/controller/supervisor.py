"""The controller that is at work, in whose place another one can be put: that is how other settings come into force."""

import gc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from dynamic_toolset.controller.controller import ADJUSTABLE, Controller
from dynamic_toolset.controller.leadership import lease_of
from dynamic_toolset.controller.observer import Observer
from dynamic_toolset.controller.pacer import Alarm
from dynamic_toolset.controller.statistics import Loop, Statistics, continued, kept, loop_of, watch_of
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.kube.reflector import Reflector
from dynamic_toolset.model import Problem
from dynamic_toolset.settings import Settings, changed

TIDY_AFTER = 10.0
"""Seconds after the last succession in which what was left behind is collected: it takes as long as many requests."""


class Supervisor:
    """Runs a controller, and then the one that takes its place, until ``stop``.

    A successor begins anew, with what is published as its memory, so nothing that is listed goes away meanwhile. It
    knows the last report of its predecessor, and so reports only what is different from that. No check that was under
    way counts for it.

    ``lease`` is the one that all of them stand for, whatever ConfigMap they write: by default that of ``settings``, and
    so to be given where these hold more than those of the process.

    ``notices`` says what else a report is to name as a problem; ``notice`` that this has changed. ``others`` are the
    reflectors of whoever decides on the settings, by what they follow: they count like the controller's own.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        catalog: Catalog,
        *,
        observer: Observer | None = None,
        lease: ObjectKey | None = None,
        authorities: str = "",
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._authorities = authorities
        self._observer = observer
        self._lease = lease or lease_of(settings)
        self._next: Controller | None = None
        self._past: Statistics | None = None
        self.unsettled = False
        self._running = False
        self._decided_before = 0
        self._stopped = False
        self._tidy = Alarm(_tidy)
        self.notices: Callable[[], Iterable[Problem]] = tuple
        self.others: Callable[[], Mapping[str, Reflector[Any, Any]]] = dict
        self.settings = settings
        self.controller = self._controller()

    async def run(self) -> None:
        """Work until ``stop``. An error in a part ends the whole and is raised."""
        self._running = True
        try:
            await self._run()
        finally:
            self._tidy.set(None)

    async def _run(self) -> None:
        while not self._stopped:
            await self.controller.run()
            if self._next is None:
                return
            gc.unfreeze()  # what is frozen is never collected, and the one that ended was
            self._tidy.set(TIDY_AFTER)
            self._past = kept(self._past, self.controller.statistics())
            self._next.succeed(self.controller)
            self.controller, self._next = self._next, None

    @property
    def is_settled(self) -> bool:
        """Whether the report is one of the settings in force, and not yet of those before."""
        return self._next is None and self.controller.passes > self._decided_before

    def statistics(self) -> Statistics:
        """Return everything that is counted, by all controllers so far: it never goes back."""
        now = self.controller.statistics()
        if self._past is not None:
            now = continued(self._past, now)
        return replace(now, watches={**now.watches, **{name: watch_of(one) for name, one in self.others().items()}})

    def loops(self) -> tuple[Loop, ...]:
        """Return whether each loop makes progress, which it does though the API is away."""
        return (*self.controller.loops(), *map(loop_of, self.others().items()))

    def replace(self, settings: Settings, catalog: Catalog, *, unsettled: bool = False, authorities: str = "") -> None:
        """Let a controller with these settings take over, once what the present one is writing has ended.

        Where only such settings differ that a controller at work can take over, the present one stays. While it is
        ``unsettled`` which settings are to be in force, nothing is written.
        """
        differ = changed(self.settings, settings)
        small = ADJUSTABLE.issuperset(differ) and (differ or unsettled != self.unsettled)
        same = catalog == self._catalog and authorities == self._authorities
        stays = self._next is None and small and same
        self.settings, self.unsettled = settings, unsettled
        self._catalog, self._authorities = catalog, authorities
        self._decided_before = self.controller.passes if stays else 0
        if stays:
            self.controller.adjust(settings, unsettled=unsettled)
        elif self._running:
            self._next = self._controller()
            self.controller.stop()
        else:
            self.controller = self._controller()

    def notice(self) -> None:
        """Let what ``notices`` says now be reported, soon."""
        self.controller.notice()

    def stop(self) -> None:
        """End ``run``, in order."""
        self._stopped = True
        self.controller.stop()

    def _controller(self) -> Controller:
        return Controller(
            self._client,
            self.settings,
            self._catalog,
            observer=self._observer,
            lease=self._lease,
            notices=lambda: self.notices(),
            unsettled=self.unsettled,
            authorities=self._authorities,
        )


def _tidy() -> None:
    """Collect what successions have left behind. The rest stays, and no collection needs to walk it again."""
    gc.collect()
    gc.freeze()
