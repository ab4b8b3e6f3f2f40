"""What is wrong with a text that somebody means for ``overrides.yaml``, the settings' file, or a ToolsetConfig. Pure.

Whatever a text holds, the answer comes in bounded time, is of bounded length, and is never an exception. It has the
words and lines of the refusal that the text would meet where it is used.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from dynamic_toolset import settings
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.policy import unknown_types
from dynamic_toolset.settings import Settings
from dynamic_toolset.strict_yaml import YamlError, examine, lines_of, read, shortened
from dynamic_toolset.toolset import holmesgpt, overrides
from dynamic_toolset.toolset_config import API_VERSION, KIND

_FIELDS = {"apiVersion", "kind", "metadata", "spec", "status"}


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


def is_toolset_config(text: str) -> bool:
    """Whether a text is the manifest of a ToolsetConfig, right or wrong, and not a settings file."""
    content = examine(text).content
    return isinstance(content, dict) and content.get("kind") == KIND


def validate_toolset_config(text: str, catalog: Catalog | None = None) -> tuple[Mistake, ...]:
    """Return every mistake of the manifest of a ToolsetConfig, by line; nothing if an instance would use its spec.

    ``metadata`` is left to the API server.
    """
    content, found = examine(text)
    if found:
        return tuple(map(_told, found))
    if not isinstance(content, dict):
        return (Mistake(1, "", f"a {KIND} is expected, not a {type(content).__name__}"),)
    sentences = [f"{name}: there is no such field in a {KIND}" for name in content.keys() - _FIELDS]
    if (version := content.get("apiVersion")) != API_VERSION:
        sentences.append(f"apiVersion: {API_VERSION} is expected, not {version}")
    spec = content.get("spec", {})
    wrong = [str(problem) for problem in settings.problems_of_spec(spec)]
    if not wrong:
        wrong = list(_vain(settings.merged_settings(spec), catalog))
    mistakes = [*_placed(text, sentences), *_placed(text, wrong, "spec")]
    return tuple(sorted(map(_told, mistakes), key=lambda mistake: mistake.line))


def _unusable(text: str, catalog: Catalog | None) -> Iterator[YamlError]:
    return _placed(text, _vain(settings.merged_settings(read(text) or {}), catalog))


def _vain(given: Settings, catalog: Catalog | None) -> Iterator[str]:
    """Yield what settings that are right in themselves name in vain: ``path: why``."""
    yield from holmesgpt.base_problems(given.toolset)
    if catalog is not None:
        yield from unknown_types(given, catalog)


def _placed(text: str, sentences: Iterable[str], within: str = "") -> Iterator[YamlError]:
    """Give each sentence, ``path: why``, its line. The paths are those ``within`` a part of the text."""
    parts = [_below(within, sentence).partition(": ") for sentence in sentences]
    lines = lines_of(text, [path for path, _, _ in parts])
    return (YamlError(line, path, why) for line, (path, _, why) in zip(lines, parts, strict=True))


def _below(within: str, sentence: str) -> str:
    return f"{within}.{sentence}" if within and not sentence.startswith(f"{within}: ") else sentence


def _told(error: YamlError) -> Mistake:
    return Mistake(error.line, shortened(error.path, 500), shortened(error.why, 600))
