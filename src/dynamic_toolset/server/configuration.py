"""The settings in force: shown, and read again when somebody asks."""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from dynamic_toolset import settings
from dynamic_toolset.controller.supervisor import Supervisor
from dynamic_toolset.discovery.catalog import Catalog, CatalogError
from dynamic_toolset.server import answers
from dynamic_toolset.server.problems import FieldError, Refusal
from dynamic_toolset.settings import Settings, SettingsError, Source


class Setup(Protocol):
    """What a start is made with: the settings, where each came from, and the catalog that they name."""

    @property
    def settings(self) -> Settings: ...
    @property
    def sources(self) -> Mapping[str, Source]: ...
    @property
    def catalog(self) -> Catalog: ...


class Configuration:
    """What the service was started with, and what has come into force since.

    ``read`` reads everything again: file, environment, options, and the catalog. It raises SettingsError and
    CatalogError. ``file`` is the path of the settings' file, None without one.
    """

    def __init__(self, setup: Setup, read: Callable[[], Setup], supervisor: Supervisor, file: str | None) -> None:
        self._setup = setup
        self._read = read
        self._supervisor = supervisor
        self._file = file

    @property
    def catalog(self) -> Catalog:
        return self._setup.catalog

    def show(self) -> answers.ConfigAnswer:
        """Return every setting in force, masked, and where it came from."""
        rows = settings.effective(self._supervisor.settings, self._setup.sources)
        return answers.ConfigAnswer(
            self._file, tuple(answers.SettingItem(row.name, row.value, row.source.kind) for row in rows)
        )

    def reload(self) -> answers.ReloadAnswer:
        """Read everything again and let it come into force, save what counts only from the start of a process.

        All or nothing: if anything is wrong, everything stays as it was. Raises Refusal (400) with every problem.
        """
        try:
            new = self._read()
        except (SettingsError, CatalogError) as error:
            errors = [FieldError("", line) for line in str(error).splitlines()]
            raise Refusal(400, "the settings cannot be used, so those before stay in force", errors=errors) from None
        old = self._supervisor.settings
        changed, restart = settings.changed(old, new.settings), settings.needs_restart(old, new.settings)
        if new.catalog != self._setup.catalog and "catalogFolder" not in changed:
            changed = (*changed, "catalogFolder")
        self._setup = new
        if set(changed) - set(restart):
            kept = {group: getattr(old, group) for group in ("config_map", "leader_election", "server")}
            self._supervisor.replace(replace(new.settings, **kept), new.catalog)
        return answers.ReloadAnswer(changed, restart)
