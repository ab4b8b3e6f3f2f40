"""Which settings are in force: the one place that decides it, while the service runs.

They are made from what the process brings (file, environment, options, catalog) and from a ToolsetConfig, if there is
one. Both may change at any time, and each change comes into force as a whole or not at all: a controller with the new
settings takes the place of the one before, and with it goes every check that was under way with the old ones.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dynamic_toolset.configuration.sources import Basis, Setup, Sources
from dynamic_toolset.configuration.toolset_configs import ToolsetConfigs
from dynamic_toolset.controller.pacer import Pacer
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.discovery.catalog import CatalogError
from dynamic_toolset.files import shown
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.kube.reflector import Reflector
from dynamic_toolset.model import Problem
from dynamic_toolset.settings import (
    Resource,
    SettingsError,
    counts_from_start,
    leaves,
    needs_restart,
    problems_of_spec,
)
from dynamic_toolset.strict_yaml import shortened
from dynamic_toolset.toolset_config import ToolsetConfig

log = structlog.get_logger()

FIRST_LIST_WAIT = 1.0
"""Seconds that the start waits to learn whether there is a ToolsetConfig, before it begins without knowing."""

POLL = 0.5
"""Seconds between two looks at file and catalog. A look takes some microseconds for each file."""

STEADY = 0.1
"""Seconds for which a file must look the same until it is read: who writes it may be half-way."""

_LONGEST_WRITE = 10
"""How many such looks are waited for one that writes on and on."""

_SAID = 1000
"""Characters of what is wrong that a problem quotes."""


REASONS = frozenset({"SettingsInvalid", "CatalogInvalid", "ResourceInvalid", "ResourceUnknown", "RestartNeeded"})
"""The problems that are told of here, and nowhere else."""


class Change(Struct, frozen=True):
    """The settings that differ from those before, and those of them that take effect only after a restart."""

    changed: tuple[str, ...]
    need_restart: tuple[str, ...]


class _Choice(Struct, frozen=True):
    """What settings are made from. Not ``certain``: whether and how a ToolsetConfig configures us is not known."""

    basis: Basis
    resource: Resource | None
    certain: bool

    def setup(self) -> Setup:
        """Return the settings. Raises SettingsError if the parts do not fit together."""
        return self.basis.under(self.resource)


class Configuration:
    """Keeps the settings in force what file, environment, options, catalog and ToolsetConfig say.

    **The last good ones stay.** What is wrong is not taken up, and a problem says so for as long as it is wrong:
    ``SettingsInvalid``, ``CatalogInvalid``, ``ResourceInvalid``. Neither keeps a change of the other from being taken
    up. ``RestartNeeded`` names what a running process does not take over.

    **Nothing is published by guess.** While it is not known whether there is a ToolsetConfig, or ours was wrong from
    the start on, nobody knows what is to be published: all goes on with the settings of the file, but nothing is
    written (``unsettled``), and what was published stays.

    ``basis`` is what ``sources`` said at the start. Without a ``client`` there is no ToolsetConfig. ``observed`` is the
    ToolsetConfig of the last decision, taken up or not. ``on_decision`` is called after each.
    """

    def __init__(self, sources: Sources, basis: Basis, supervisor: Supervisor, client: Client | None = None) -> None:
        self._sources = sources
        self._supervisor = supervisor
        self._pacer = Pacer(free=1, longest=1.0)
        self._start = basis
        self._newest = basis
        self._unread: Problem | None = None
        self._problems: tuple[Problem, ...] = ()
        self._judged: tuple[str, int] | None = None
        self._wrong = ""
        self._reading = asyncio.Lock()
        self.begun = asyncio.Event()
        self.toolset_configs: ToolsetConfigs | None = None
        self.observed: ToolsetConfig | None = None
        alone = basis.alone.settings
        key = ObjectKey(alone.config_map.namespace, alone.instance)
        self._named = f"ToolsetConfig {key}"
        if client is not None and alone.toolset_config.enabled:
            self.toolset_configs = ToolsetConfigs(client, key, on_change=self._pacer.notify)
        self.on_decision: Callable[[], None] = lambda: None
        self._choice = _Choice(basis, None, certain=self.toolset_configs is None)
        self.setup = basis.under(None)
        self._unsettled = False
        supervisor.notices = self.problems
        supervisor.others = self._reflectors

    @property
    def file(self) -> str | None:
        """The path of the settings' file; None without one."""
        return None if self._sources.file is None else shown(self._sources.file)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the settings, or in the way of knowing them."""
        yield from self._problems
        if self.toolset_configs is not None:
            yield from self.toolset_configs.problems()

    def _reflectors(self) -> dict[str, Reflector[Any, Any]]:
        reflector = None if self.toolset_configs is None else self.toolset_configs.reflector
        return {} if reflector is None else {"ToolsetConfigs": reflector}

    async def run(self) -> None:
        """Decide, and decide again whenever something changes, for ever. ``begun`` is set after the first decision."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_sources(), name="sources")
            if self.toolset_configs is not None:
                tasks.create_task(self.toolset_configs.run(), name="toolsetconfigs")
                waiting = tasks.create_task(self.toolset_configs.known.wait())
                await asyncio.wait([waiting], timeout=FIRST_LIST_WAIT)
            self._decide()
            self.begun.set()
            while True:
                await self._pacer.wait()
                self._decide()

    async def reload(self) -> Change:
        """Read file and catalog now, and return what that has changed.

        Raises SettingsError and CatalogError if it cannot come into force; all stays as it was.
        """
        before = self.setup
        await self._read(strict=True)
        failure = self._decide()
        if failure is not None:
            raise failure
        restart = self._restart_needed()
        return Change(before.changes(self.setup, *restart), restart)

    # --- What the process brings -------------------------------------------------------------------------------------

    async def _follow_sources(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            found = self._sources.look()
            if found is None:
                continue
            for _ in range(_LONGEST_WRITE):
                await asyncio.sleep(STEADY)
                before, found = found, self._sources.look()
                if found in {before, None}:
                    break
            await self._read()
            self._pacer.notify()

    async def _read(self, *, strict: bool = False) -> None:
        async with self._reading:
            try:
                # Not in the event loop: a long file, or a slow disk, is to hold up nobody.
                self._newest, self._unread = await asyncio.to_thread(self._sources.read), None
            except (SettingsError, CatalogError, OSError) as error:
                reason = "SettingsInvalid" if isinstance(error, SettingsError) else "CatalogInvalid"
                self._unread = Problem(reason, f"{_said(error)}; the settings before stay in force")
                if strict:
                    raise error if isinstance(error, ValueError) else CatalogError(str(error)) from None

    # --- The decision ------------------------------------------------------------------------------------------------

    def _decide(self) -> SettingsError | None:
        """Let the newest come into force, as far as it is right. Return what keeps the newest of the process out."""
        problems: list[Problem] = [] if self._unread is None else [self._unread]
        resource, certain = self._judge_resource(problems)
        wanted = _Choice(self._newest, resource, certain)
        choice, setup, failure = self._fitting(wanted, problems)
        self._choice = choice
        if restart := self._restart_needed():
            problems.append(
                Problem("RestartNeeded", f"{', '.join(restart)}: changed, but only a restart takes it over")
            )
        self._put_in_force(self._with_start(setup))
        if tuple(problems) != self._problems:
            self._problems = tuple(problems)
            self._supervisor.notice()
        self.on_decision()
        return failure

    def _judge_resource(self, problems: list[Problem]) -> tuple[Resource | None, bool]:
        """Return what our ToolsetConfig says, or said when it was right last, and whether anything is known of it."""
        before = self._choice.resource, self._choice.certain
        follower = self.toolset_configs
        if follower is None:
            return None, True
        if not follower.known.is_set():
            if follower.is_failing:  # an API that is only slow is no problem
                problems.append(Problem("ResourceUnknown", f"whether there is a {self._named} is not known yet{_HELD}"))
            return before
        self.observed = follower.own
        if follower.unreadable is not None:
            problems.append(self._refused(follower.unreadable))
            return before
        if self.observed is None:
            return None, True
        wrong = self._mistakes(self.observed)
        if wrong:
            problems.append(self._refused(wrong))
            return before
        return Resource(self.observed.metadata.name, self.observed.spec or {}), True

    def _mistakes(self, config: ToolsetConfig) -> str:
        """Say what is wrong with a spec. It is looked at once: each write of a status comes by here too."""
        judged = (config.metadata.uid, config.metadata.generation)
        if judged != self._judged:
            spec = {} if config.spec is None else config.spec
            self._judged, self._wrong = judged, "; ".join(map(str, problems_of_spec(spec)))
        return self._wrong

    def _fitting(self, wanted: _Choice, problems: list[Problem]) -> tuple[_Choice, Setup, SettingsError | None]:
        """Return as much of what is wanted as fits together: each part is right in itself, but not every pair is."""
        try:
            return wanted, wanted.setup(), None
        except SettingsError as error:
            failure = error
        before = self._choice
        try:
            choice = replace(wanted, resource=before.resource, certain=before.certain)
            setup = choice.setup()
        except SettingsError:
            pass
        else:
            problems.append(self._refused(str(failure)))
            return choice, setup, None
        problems.append(Problem("SettingsInvalid", f"{_said(failure)}; the settings before stay in force"))
        try:
            choice = replace(wanted, basis=before.basis)
            return choice, choice.setup(), failure
        except SettingsError as error:
            problems.append(self._refused(str(error)))
        return before, before.setup(), failure

    def _refused(self, why: str) -> Problem:
        stays = "; what it said before stays in force" if self._choice.certain else _HELD
        return Problem("ResourceInvalid", f"{self._named}: {_said(why)}{stays}")

    def _restart_needed(self) -> tuple[str, ...]:
        return needs_restart(self._start.alone.settings, self._newest.alone.settings)

    def _put_in_force(self, new: Setup) -> None:
        old, self.setup = self.setup, new
        was_unsettled, self._unsettled = self._unsettled, not self._choice.certain
        differ = old.changes(new)
        if differ or was_unsettled != self._unsettled:
            self._supervisor.replace(new.settings, new.catalog, unsettled=self._unsettled, authorities=new.authorities)
        if differ:
            log.info("settings_changed", changed=differ, toolset_config=self._choice.resource is not None)
        before, after = (f"{one.namespace}/{one.name}" for one in (old.settings.config_map, new.settings.config_map))
        if before != after:
            log.info("toolset_moved", old=before, new=after)

    def _with_start(self, setup: Setup) -> Setup:
        """Return what comes into force of it: what counts from a start only is as it was then."""
        start, sources = self._start.alone, dict(setup.sources)
        stays = [path for path, _ in leaves() if counts_from_start(path) and sources[path].kind != "resource"]
        sources |= {path: start.sources[path] for path in stays}
        place = {name: getattr(start.settings.config_map, name) for name in _PLACE if f"configMap.{name}" in stays}
        settings = replace(
            setup.settings,
            config_map=replace(setup.settings.config_map, **place),
            toolset_config=start.settings.toolset_config,
            leader_election=start.settings.leader_election,
            server=start.settings.server,
        )
        return Setup(settings, setup.catalog, sources, setup.authorities)


_PLACE = ("name", "namespace")

_HELD = "; until then nothing is written, and what was published stays"


def _said(what: object) -> str:
    return shortened("; ".join(str(what).splitlines()), _SAID)
