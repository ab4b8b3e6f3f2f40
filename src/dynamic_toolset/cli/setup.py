"""What every command needs first: settings and catalog."""

import os
from collections.abc import Iterable
from pathlib import Path

from dynamic_toolset.controller.sources import Setup, Sources

__all__ = ["Setup", "prepare"]


def prepare(config: Path | None, assignments: Iterable[str]) -> Setup:
    """Read settings (file, environment, ``--set``) and catalog. Raises SettingsError and CatalogError."""
    return Sources(config, os.environ, assignments).read().under(None)
