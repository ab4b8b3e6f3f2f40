"""``dynamic-toolset validate``: what is wrong with a text that is meant for the service, without the service."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from dynamic_toolset import settings
from dynamic_toolset.cli.failures import printable
from dynamic_toolset.cli.manifests import ManifestError
from dynamic_toolset.discovery.catalog import Catalog, load_catalog
from dynamic_toolset.server.validation import Mistake, validate_overrides, validate_settings
from dynamic_toolset.strict_yaml import read


def run(kind: str, files: Sequence[str], output: str) -> None:
    """Print every mistake of every file, by line. Exit status 1 if there is one."""
    found = {file: _mistakes(kind, _text(file, kind)) for file in files}
    if output == "json":
        print(json.dumps(_plain(found.items()), indent=2))
    else:
        for file, mistakes in found.items():
            name = "standard input" if file == "-" else file
            for one in mistakes:
                place = f"{printable(name)}:{one.line}: " + (f"{one.field}: " if one.field else "")
                print(place + printable(one.message))
            if not mistakes:
                print(f"{printable(name)}: nothing is wrong with it")
    if any(found.values()):
        sys.exit(1)


def _mistakes(kind: str, text: str) -> tuple[Mistake, ...]:
    if kind == "overrides":
        return validate_overrides(text)
    # What is wrong with the text itself comes first: only then it can say which catalog it means.
    return validate_settings(text) or validate_settings(text, _catalog(text))


def _catalog(text: str) -> Catalog | None:
    """Return the service types that settings, which are right in themselves, may speak of; None for those elsewhere."""
    folder = settings.merged_settings(read(text) or {}).catalog_folder
    if folder and not Path(folder).is_dir():
        print(f"warning: {printable(folder)} is not here: names of service types are not checked", file=sys.stderr)
        return None
    return load_catalog(Path(folder) if folder else None)


def _plain(found: Iterable[tuple[str, tuple[Mistake, ...]]]) -> dict[str, object]:
    problems = [
        {"file": file, "line": one.line, "field": one.field, "message": one.message}
        for file, mistakes in found
        for one in mistakes
    ]
    return {"valid": not problems, "problems": problems}


def _text(file: str, kind: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        # A mark at its beginning is passed over where the service reads a file; overrides come from a ConfigMap.
        return data.decode("utf-8" if kind == "overrides" else "utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{file}:{line}: this is not UTF-8") from None
