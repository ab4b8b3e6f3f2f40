"""Files that people wrote: read, and told what is wrong with them, by line."""

import json
import sys
from collections.abc import Sequence

from dynamic_toolset.cli import streams
from dynamic_toolset.cli.failures import printable
from dynamic_toolset.server.validation import Mistake
from dynamic_toolset.settings import SettingsError


def text_of(file: str) -> str:
    """Return what is in a file; ``-`` is standard input. Raises SettingsError if there is no text to be had."""
    try:
        data = streams.read(file)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: this is not UTF-8") from None


def show(found: Sequence[tuple[str, tuple[Mistake, ...]]], output: str) -> None:
    """Print every mistake of every file, as text or JSON, and end with status 1 if there is one."""
    if output == "json":
        problems = [
            {"file": file, "line": one.line, "field": one.field, "message": one.message}
            for file, mistakes in found
            for one in mistakes
        ]
        print(json.dumps({"valid": not problems, "problems": problems}, indent=2))
    else:
        for file, mistakes in found:
            name = printable("standard input" if file == "-" else file)
            for one in mistakes:
                place = f"{name}:{one.line}: " + (f"{one.field}: " if one.field else "")
                print(place + printable(one.message))
            if not mistakes:
                print(f"{name}: nothing is wrong with it")
    if any(mistakes for _, mistakes in found):
        sys.exit(1)
