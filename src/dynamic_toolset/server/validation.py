"""What is wrong with a text that somebody means to put into ``overrides.yaml`` or into the settings' file. Pure.

Whatever a text holds, the answer comes in bounded time, is of bounded length, and is never an exception. It has the
words and lines of the refusal that the text would meet where it is used.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from dynamic_toolset import settings
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.policy import unknown_types
from dynamic_toolset.strict_yaml import YamlError, lines_of, read, shortened
from dynamic_toolset.toolset import holmesgpt, overrides


class Mistake(Struct, frozen=True):
    """What is wrong in a line (from 1) of a text. ``field`` is the path of the value, empty for the whole text."""

    line: int
    field: str
    message: str


def validate_overrides(text: str) -> tuple[Mistake, ...]:
    """Return every mistake of a text for ``overrides.yaml``, by line; nothing if it would be applied."""
    return tuple(map(_told, overrides.mistakes(text)))


def validate_settings(text: str, catalog: Catalog | None = None) -> tuple[Mistake, ...]:
    """Return every mistake of a settings file, by line; nothing if a start with it would use all of it.

    That takes the service types too, of which some settings speak, if there is a ``catalog``.
    """
    found = settings.mistakes(text)
    if found:
        return tuple(map(_told, found))
    return tuple(sorted(map(_told, _unusable(text, catalog)), key=lambda mistake: mistake.line))


def _unusable(text: str, catalog: Catalog | None) -> Iterator[YamlError]:
    """Yield what settings that are right in themselves name in vain."""
    given = settings.merged_settings(read(text) or {})
    yield from _placed(text, holmesgpt.base_problems(given.toolset))
    if catalog is not None:
        yield from _placed(text, unknown_types(given, catalog))


def _placed(text: str, sentences: Iterable[str]) -> Iterator[YamlError]:
    parts = [sentence.partition(": ") for sentence in sentences]
    lines = lines_of(text, [path for path, _, _ in parts])
    return (YamlError(line, path, why) for line, (path, _, why) in zip(lines, parts, strict=True))


def _told(error: YamlError) -> Mistake:
    return Mistake(error.line, shortened(error.path, 500), shortened(error.why, 600))
