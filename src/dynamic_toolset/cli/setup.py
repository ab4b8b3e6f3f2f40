"""What every command needs first: settings and catalog."""

import os
from collections.abc import Iterable
from pathlib import Path

from dynamic_toolset.configuration.sources import Setup, Sources

__all__ = ["Setup", "environment", "prepare"]

TOKEN_VARIABLE = "DYNAMIC_TOOLSET_TOKEN"  # noqa: S105 - a name
"""Holds the token for commands that speak to the running service."""

NO_SETTINGS = frozenset({"DYNAMIC_TOOLSET_CONFIG", TOKEN_VARIABLE})
"""The environment variables that are called as a setting might be, and stand for options of the command line."""


def environment() -> dict[str, str]:
    """Return the environment as far as it may hold settings."""
    return {name: value for name, value in os.environ.items() if name not in NO_SETTINGS}


def prepare(config: Path | None, assignments: Iterable[str], *, checks: bool = False) -> Setup:
    """Read settings (file, environment, ``--set``) and catalog, for a command that ``checks`` backends or does not.

    Raises SettingsError and CatalogError.
    """
    return Sources(config, environment(), assignments).read(authorities=checks).under(None)
