"""``dynamic-toolset config``: what is wrong with settings, what they come to, and what there is."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dynamic_toolset import settings
from dynamic_toolset.cli import mistakes
from dynamic_toolset.cli.failures import printable
from dynamic_toolset.cli.setup import environment
from dynamic_toolset.cli.tables import draw
from dynamic_toolset.discovery.catalog import Catalog, load_catalog
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import discover
from dynamic_toolset.kube.errors import NotFound
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.server.validation import (
    Mistake,
    is_toolset_config,
    validate_settings,
    validate_toolset_config,
)
from dynamic_toolset.settings import Resource, Setting, SettingsError, Source
from dynamic_toolset.strict_yaml import read
from dynamic_toolset.toolset_config import KIND, TOOLSET_CONFIGS, ToolsetConfig


def check(file: str, catalog: Path | None, output: str) -> None:
    """Print every mistake of a settings file, or of the manifest of a ToolsetConfig. Exit status 1 if there is one.

    ``file`` is ``-`` for standard input; ``catalog`` is a folder of service types, if not the one that the file names.
    """
    mistakes.show([(file, _mistakes(mistakes.text_of(file), catalog))], output)


def show(
    output: str,
    config: Path | None,
    assignments: Sequence[str],
    resource: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Print every setting as ``run`` would start with it, and where it came from.

    A ToolsetConfig is taken into account if there is a manifest of it (``resource``), or if a kubeconfig is named.
    """
    environ = environment()
    loaded = settings.load_with_sources(config, environ, assignments)
    layer = None
    if resource is not None:
        layer = _from_manifest(resource)
    elif (kubeconfig or context) and loaded.settings.toolset_config.enabled:
        layer = asyncio.run(_from_cluster(loaded.settings, kubeconfig, context))
    if layer is not None:
        loaded = settings.load_with_sources(config, environ, assignments, resource=layer)
    rows = settings.effective(loaded.settings, loaded.sources)
    if output == "table":
        _table(rows)
        return
    plain = {"settings": [_plain(row) for row in rows]}
    print(json.dumps(plain, indent=2) if output == "json" else yaml.safe_dump(plain, sort_keys=False).rstrip())


def schema(*, crd: bool) -> None:
    """Print the JSON Schema of the settings file, or the CustomResourceDefinition."""
    from dynamic_toolset import definition
    from dynamic_toolset.definition.crd import manifest

    print(manifest() if crd else definition.schema_text(), end="")


# --- What is wrong ----------------------------------------------------------------------------------------------------


def _mistakes(text: str, catalog: Path | None) -> tuple[Mistake, ...]:
    if is_toolset_config(text):
        return validate_toolset_config(text, load_catalog(catalog))
    # What is wrong with the text itself comes first: only then it can say which catalog it means.
    return validate_settings(text) or validate_settings(text, _catalog(text, catalog))


def _catalog(text: str, catalog: Path | None) -> Catalog | None:
    """Return the service types of which settings, which are right in themselves, may speak."""
    folder = settings.merged_settings(read(text) or {}).catalog_folder
    if catalog is None and folder and not os.path.isdir(folder):  # noqa: PTH112 - that of a Path raises errors
        print(f"warning: {printable(folder)} is not here: names of service types are not checked", file=sys.stderr)
        return None
    return load_catalog(catalog or (Path(folder) if folder else None))


# --- What they come to ------------------------------------------------------------------------------------------------


def _from_manifest(file: str) -> Resource:
    text = mistakes.text_of(file)
    if not is_toolset_config(text):
        raise SettingsError(f"{file}: this is no {KIND}")
    found = validate_toolset_config(text)
    if found:
        raise SettingsError("\n".join(f"{file}:{one.line}: {one.field}: {one.message}" for one in found))
    content = read(text)
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return Resource(str(name or ""), content.get("spec", {}))


async def _from_cluster(started: settings.Settings, kubeconfig: str | None, context: str | None) -> Resource | None:
    """Return the ToolsetConfig that configures this instance; None, with a warning, if none can."""
    key = ObjectKey(started.config_map.namespace, started.instance)
    async with Client(discover(kubeconfig, context)) as client:
        try:
            found = await client.get(TOOLSET_CONFIGS, key, ToolsetConfig)
        except NotFound:
            print(f"warning: there is no {KIND} {key}", file=sys.stderr)
            return None
    spec = {} if found.spec is None else found.spec
    problems = settings.problems_of_spec(spec)
    for problem in problems:
        print(f"warning: {KIND} {key} is not used: {printable(str(problem))}", file=sys.stderr)
    return None if problems else Resource(key.name, spec)


def _plain(row: Setting) -> dict[str, Any]:
    return {"name": row.name, "value": row.value, "source": _kind(row.source)}


def _kind(source: Source) -> dict[str, str]:
    return {"kind": source.kind} | ({"name": source.name} if source.name else {})


def _table(rows: Sequence[Setting]) -> None:
    def cells(row: Setting) -> tuple[str, str, str]:
        value = row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)
        return row.name, value, " ".join(_kind(row.source).values())

    draw(
        ("SETTING", "VALUE", "SOURCE"),
        ((cells(row), "dim" if row.source.kind == "default" else "") for row in rows),
    )
