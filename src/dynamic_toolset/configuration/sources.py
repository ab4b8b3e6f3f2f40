"""What the settings are made from: in this process its file, environment, options and catalog, and a ToolsetConfig."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from dynamic_toolset.discovery.catalog import Catalog, load_catalog
from dynamic_toolset.discovery.policy import unknown_types
from dynamic_toolset.files import stamp
from dynamic_toolset.health.trust import read_authorities
from dynamic_toolset.settings import (
    Content,
    Loaded,
    Resource,
    Settings,
    SettingsError,
    Source,
    changed,
    layered,
    leaves,
    read_file,
)


class Setup(NamedTuple):
    """The settings, the catalog that they name, the source of each setting by its path, and what the CA file holds."""

    settings: Settings
    catalog: Catalog
    sources: Mapping[str, Source]
    authorities: str = ""

    def changes(self, new: "Setup", *besides: str) -> tuple[str, ...]:
        """Return the paths of the settings that differ, or of which what they name does, and of those ``besides``."""
        differ = {*changed(self.settings, new.settings), *besides}
        if self.catalog != new.catalog:
            differ.add("catalogFolder")
        if self.authorities != new.authorities:
            differ.add("healthCheck.caFile")
        return tuple(path for path, _ in leaves() if path in differ)


class Basis(Struct, frozen=True):
    """What the process itself brings, right in itself, and read at one time. ``alone`` is what comes of it."""

    content: Content | None
    environ: Mapping[str, str]
    assignments: tuple[str, ...]
    catalog: Catalog
    alone: Loaded
    authorities: str = ""

    def under(self, resource: Resource | None) -> Setup:
        """Return what comes of it with a ToolsetConfig on top of the file. Raises SettingsError."""
        if resource is None:
            return Setup(self.alone.settings, self.catalog, self.alone.sources, self.authorities)
        loaded = layered(self.content, self.environ, self.assignments, resource=resource)
        _check_types(loaded.settings, self.catalog)
        return Setup(loaded.settings, self.catalog, loaded.sources, self.authorities)


class Sources:
    """Reads file, environment, options, catalog and CA file, and knows whether one may say something else since.

    To ask that takes some microseconds for each file: it is done without a thread, often, and for ever.
    """

    def __init__(
        self, file: Path | None = None, environ: Mapping[str, str] | None = None, assignments: Iterable[str] = ()
    ) -> None:
        self.file = file
        self._environ = environ or {}
        self._assignments = tuple(assignments)
        self._piped: Content | None = None
        self._begun = False
        self._folder: Path | None = None
        self._ca_file: Path | None = None
        self._seen: Signature = ((), (), ())

    def read(self, *, authorities: bool = True) -> Basis:
        """Read all of it, whole or not at all. Raises SettingsError and CatalogError.

        Who checks nothing needs no ``authorities``: the CA file of a Pod is seldom where its settings are looked at.
        """
        # What is read is looked at before, so that what changes meanwhile is read again.
        self._seen = self._signature()
        content = None if self.file is None else self._content(self.file)
        alone = layered(content, self._environ, self._assignments)
        folder = alone.settings.catalog_folder
        self._folder = Path(folder) if folder else None
        how = alone.settings.health_check
        self._ca_file = Path(how.ca_file) if how.ca_file else None
        self._seen = (() if self._piped else self._seen[0], *self._signature()[1:])
        catalog = load_catalog(self._folder)
        _check_types(alone.settings, catalog)
        trusted = read_authorities(how) if authorities else ""
        return Basis(content, self._environ, self._assignments, catalog, alone, trusted)

    def _content(self, file: Path) -> Content:
        """Return what the file says; if it was a pipe at the start, which can be read once, what that said."""
        if self._begun:
            return self._piped or read_file(file, wait=False)
        regular = os.path.isfile(file)  # noqa: PTH113 - that of a Path raises errors
        content = read_file(file)
        self._begun, self._piped = True, None if regular else content
        return content

    def look(self) -> "Signature | None":
        """Return what all of it looks like, if that is different from when it was read; otherwise None."""
        found = self._signature()
        return None if found == self._seen else found

    def _signature(self) -> "Signature":
        return (() if self._piped else _marks(self.file), _marks_of(self._folder), _marks(self._ca_file))


class Fixed(Sources):
    """Settings that nobody can change, as those of a demo."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        super().__init__()
        alone = Loaded(settings, dict.fromkeys(dict(leaves()), Source("default")))
        self._basis = Basis(Content("", msgspec.to_builtins(settings)), {}, (), catalog, alone)

    def read(self, *, authorities: bool = True) -> Basis:  # noqa: ARG002 - there are none
        return self._basis


Mark = tuple[str, tuple[int, int, int] | None]
"""What tells a file from another one in its place: its path past all links, and its stamp."""

Signature = tuple[tuple[Mark, ...], tuple[Mark, ...], tuple[Mark, ...]]
"""The marks of the file, of the folder and what is in it, and of the CA file."""


def _mark(path: Path) -> Mark:
    # A mounted ConfigMap is swapped by one link to a folder, of which the file is not even aware.
    return os.path.realpath(path), stamp(path)


def _marks(file: Path | None) -> tuple[Mark, ...]:
    return () if file is None else (_mark(file),)


def _marks_of(folder: Path | None) -> tuple[Mark, ...]:
    if folder is None:
        return ()
    try:
        below = sorted(_mark(path) for path in folder.iterdir() if path.suffix in {".yaml", ".yml"})
    except OSError:
        below = []
    return (_mark(folder), *below)


def _check_types(settings: Settings, catalog: Catalog) -> None:
    if unknown := unknown_types(settings, catalog):
        raise SettingsError("; ".join(unknown))
