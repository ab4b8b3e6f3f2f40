"""What every command needs first: settings, catalog, connection."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dynamic_toolset.discovery.catalog import Catalog, load_catalog
from dynamic_toolset.discovery.policy import unknown_types
from dynamic_toolset.settings import Settings, SettingsError, Source, load_with_sources

TOKEN_VARIABLE = "DYNAMIC_TOOLSET_TOKEN"  # noqa: S105 - a name
"""Holds the token for commands that speak to the running service."""

NO_SETTINGS = frozenset({"DYNAMIC_TOOLSET_CONFIG", TOKEN_VARIABLE})
"""The environment variables that are called as a setting might be, and stand for options of the command line."""


class Setup(NamedTuple):
    """The settings, the catalog that they name, and the source of each setting by its path."""

    settings: Settings
    catalog: Catalog
    sources: Mapping[str, Source]


def environment() -> dict[str, str]:
    """Return the environment as far as it may hold settings."""
    return {name: value for name, value in os.environ.items() if name not in NO_SETTINGS}


def prepare(config: Path | None, assignments: Iterable[str]) -> Setup:
    """Read settings (file, environment, ``--set``) and catalog. Raises SettingsError and CatalogError."""
    loaded = load_with_sources(config, environment(), assignments)
    settings = loaded.settings
    folder = settings.catalog_folder
    catalog = load_catalog(Path(folder) if folder else None)
    if unknown := unknown_types(settings, catalog):
        raise SettingsError("; ".join(unknown))
    return Setup(settings, catalog, loaded.sources)
