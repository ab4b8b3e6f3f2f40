"""How a command says that something went wrong: on stderr, in one line each, for a person and for a script."""

import sys
from collections.abc import Iterable

from dynamic_toolset.cli.manifests import ManifestError
from dynamic_toolset.discovery.catalog import CatalogError
from dynamic_toolset.kube.errors import KubernetesError
from dynamic_toolset.publication.configmap import DocumentsTooLarge
from dynamic_toolset.server.ports import CannotListen
from dynamic_toolset.settings import SettingsError
from dynamic_toolset.toolset.overrides import OverridesError


class RemoteError(Exception):
    """The running service could not be asked, or refused. The message says what to do about it."""


EXPECTED: tuple[type[Exception], ...] = (
    CannotListen,
    CatalogError,
    DocumentsTooLarge,
    KubernetesError,
    ManifestError,
    OverridesError,
    RemoteError,
    SettingsError,
)
"""The errors that a person can do something about: shown as a message, without a traceback."""


def complain(error: Exception) -> None:
    """Print what went wrong."""
    print("error:", "\n".join(map(printable, str(error).splitlines())), file=sys.stderr)


def tell(warnings: Iterable[str], problems: Iterable[str]) -> None:
    """Print warnings and problems, and end with status 1 if there is a problem. What could be done has been done."""
    for warning in warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    status = 0
    for problem in problems:
        print(f"error: {printable(problem)}", file=sys.stderr)
        status = 1
    if status:
        sys.exit(status)


def printable(text: str) -> str:
    """Return a text with what would steer the terminal written as its code: a manifest can come from anybody."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
