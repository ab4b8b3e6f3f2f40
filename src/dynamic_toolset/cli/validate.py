"""``dynamic-toolset validate``: what is wrong with a text that is meant for the service, without the service."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from dynamic_toolset.cli.failures import printable
from dynamic_toolset.cli.manifests import ManifestError
from dynamic_toolset.server.validation import Mistake, validate_overrides


def run(files: Sequence[str], output: str) -> None:
    """Print every mistake of every file with overrides, by line. Exit status 1 if there is one."""
    found = [(file, validate_overrides(_text(file))) for file in files]
    if output == "json":
        print(json.dumps(_plain(found), indent=2))
    else:
        for file, mistakes in found:
            name = "standard input" if file == "-" else file
            for one in mistakes:
                place = f"{printable(name)}:{one.line}: " + (f"{one.field}: " if one.field else "")
                print(place + printable(one.message))
            if not mistakes:
                print(f"{printable(name)}: nothing is wrong with it")
    if any(mistakes for _, mistakes in found):
        sys.exit(1)


def _plain(found: Iterable[tuple[str, tuple[Mistake, ...]]]) -> dict[str, object]:
    problems = [
        {"file": file, "line": one.line, "field": one.field, "message": one.message}
        for file, mistakes in found
        for one in mistakes
    ]
    return {"valid": not problems, "problems": problems}


def _text(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode()
    except OSError as error:
        raise ManifestError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{file}:{line}: this is not UTF-8") from None
