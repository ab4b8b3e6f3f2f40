"""``dynamic-toolset validate``: what is wrong with a text that is meant for the service, without the service."""

from collections.abc import Sequence

from dynamic_toolset.cli import mistakes
from dynamic_toolset.server.validation import validate_overrides


def run(files: Sequence[str], output: str) -> None:
    """Print every mistake of every file with overrides, by line. Exit status 1 if there is one."""
    mistakes.show([(file, validate_overrides(mistakes.text_of(file))) for file in files], output)
