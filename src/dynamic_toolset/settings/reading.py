"""From file, ToolsetConfig, environment and command line to the settings, and where each of them came from."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_origin

from msgspec import Struct

from dynamic_toolset.files import read_regular, shown
from dynamic_toolset.settings.model import Settings, leaves
from dynamic_toolset.settings.problems import SettingsError, merged_settings, problems
from dynamic_toolset.strict_yaml import MAX_BYTES, Parsed, YamlError, examine, lines_of, read

ENVIRONMENT_PREFIX = "DYNAMIC_TOOLSET_"


class Source(Struct, frozen=True):
    """Where a setting came from, and the name of that file, ToolsetConfig or variable."""

    kind: Literal["default", "file", "resource", "environment", "option"]
    name: str | None = None


DEFAULT = Source("default")

_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""What the kubelet appends to the name of a Service in the variables that each container of its namespace gets, unless
the Pod says ``enableServiceLinks: false`` (kubernetes.io/docs/tutorials/services/connect-applications-service/)."""

_WHOLE = frozenset(path.rpartition(".")[2] for path, hint in leaves() if get_origin(hint) is dict)


class Resource(Struct, frozen=True):
    """A ToolsetConfig: its name and ``spec``, which must be right in itself (``settings.problems``)."""

    name: str
    spec: Mapping[str, Any]


class Content(Struct, frozen=True):
    """A settings file that is right in itself: its path and what it says."""

    name: str
    values: Mapping[str, Any]


class Loaded(Struct, frozen=True):
    """The settings, and the source of each by its path, in the order of the model."""

    settings: Settings
    sources: Mapping[str, Source]


def load(
    file: Path | None = None, environ: Mapping[str, str] | None = None, assignments: Iterable[str] = ()
) -> Settings:
    """Return the settings: the defaults, over them the file, over it the environment, over it the assignments.

    An environment variable is the setting's path in capitals (``healthCheck.timeout`` is
    ``DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT``); an assignment is ``healthCheck.timeout=3s``. A list may be written
    with commas, or as YAML. What the kubelet says there of Services that are called like this program is no setting.
    Raises SettingsError with all problems of the first of them that has any, one a line, each with its source and the
    setting.
    """
    return load_with_sources(file, environ, assignments).settings


def load_with_sources(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    assignments: Iterable[str] = (),
    *,
    resource: Resource | None = None,
) -> Loaded:
    """Return what ``load`` returns, and where each setting came from.

    What a ToolsetConfig says beats the file, and is beaten by the environment.
    """
    # A wrong file is named as wrong, whatever the environment says on top of it.
    content = None if file is None else read_file(file)
    return layered(content, environ or {}, assignments, resource=resource)


def read_file(file: Path, *, wait: bool = True) -> Content:
    """Read a settings file. Raises SettingsError with all that is wrong with it, by line.

    Who does not ``wait`` takes a regular file only: what comes through a pipe comes when it comes, or never.
    """
    return Content(shown(file), _read(file, wait=wait))


def layered(
    content: Content | None,
    environ: Mapping[str, str],
    assignments: Iterable[str] = (),
    *,
    resource: Resource | None = None,
) -> Loaded:
    """Return what ``load_with_sources`` returns, of a file that has been read. Raises SettingsError."""
    merged: dict[str, Any] = {}
    types = dict(leaves())
    sources = dict.fromkeys(types, DEFAULT)
    if content is not None:
        _merge(merged, content.values)
        sources |= {path: Source("file", content.name) for path in types if _is_given(content.values, path)}
    if resource is not None:
        _merge(merged, resource.spec)
        sources |= {path: Source("resource", resource.name) for path in types if _is_given(resource.spec, path)}
    for path, text, source in (*_variables(environ, types), *_options(assignments, types)):
        _merge(merged, _nested(path, _value(text, types[path])))
        sources[path] = source
    found = problems(merged)
    if found:
        raise SettingsError("\n".join(f"{_origin(problem.path, sources)}{problem}" for problem in found))
    return Loaded(merged_settings(merged), MappingProxyType(sources))


def mistakes(text: str) -> tuple[YamlError, ...]:
    """Return every mistake of a settings file, by line; nothing if ``load`` takes it. It never raises."""
    return _examined(text).mistakes


# --- The file -------------------------------------------------------------------------------------------------------


def _read(file: Path, *, wait: bool) -> dict[str, Any]:
    try:
        data = _read_on(file) if wait else read_regular(file, MAX_BYTES)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(f"{file}: settings hold at most {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: this is not UTF-8") from None
    content, found = _examined(text)
    if found:
        raise SettingsError("\n".join(f"{file}:{mistake}" for mistake in found))
    return dict(content)


def _read_on(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _examined(text: str) -> Parsed:
    content, found = examine(text)
    if content is None:
        return Parsed({}, found)
    if not isinstance(content, dict):
        why = f"a mapping of settings is expected, not a {type(content).__name__}"
        return Parsed({}, found or (YamlError(1, "", why),))
    unread = {(mistake.path, "got `null`") for mistake in found}  # null stands for what is a mistake already
    wrong = [problem for problem in problems(content) if (problem.path, problem.message[-10:]) not in unread]
    if wrong:
        lines = lines_of(text, [problem.path for problem in wrong])
        placed = [YamlError(line, one.path, one.message) for line, one in zip(lines, wrong, strict=True)]
        found = tuple(sorted((*found, *placed), key=lambda mistake: mistake.line))
    return Parsed(content, found)


def _is_given(content: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(content, dict) or name not in content:
            return False
        content = content[name]
    return True


# --- The environment and the command line -----------------------------------------------------------------------------


def _variables(environ: Mapping[str, str], types: Mapping[str, Any]) -> Iterator[tuple[str, str, Source]]:
    variables = {ENVIRONMENT_PREFIX + _screaming(path): path for path in types}
    services = tuple(name.removesuffix("SERVICE_HOST") for name in environ if name.endswith("_SERVICE_HOST"))
    for variable in sorted(environ):
        linked = any(variable.startswith(one) and _SERVICE_LINK.fullmatch(variable, len(one)) for one in services)
        # Of a Service dynamic-toolset-server it is tcp://10.0.0.1:8080, and of a person a number.
        if variable in variables and not (linked and "://" in environ[variable]):
            _check_text(variable, environ[variable])
            yield variables[variable], environ[variable], Source("environment", variable)
        elif variable.startswith(ENVIRONMENT_PREFIX) and not linked:
            raise SettingsError(f"{variable}: no such setting; there are {', '.join(variables)}")


def _options(assignments: Iterable[str], types: Mapping[str, Any]) -> Iterator[tuple[str, str, Source]]:
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or path not in types:
            raise SettingsError(f"{path!r}: write SETTING=VALUE with one of {', '.join(types)}")
        _check_text(path, text)
        yield path, text, Source("option")


def _check_text(name: str, text: str) -> None:
    """Raise SettingsError for bytes that are no text: Python takes them for halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{name}: this is not UTF-8") from None


def _screaming(path: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path).replace(".", "_").upper()


def _value(text: str, hint: Any) -> Any:
    """Read what somebody wrote for one setting: as it stands for a word or a number, as YAML for what has parts."""
    origin = get_origin(hint)
    if origin not in {tuple, dict}:
        return text
    try:
        value = read(text)
    except YamlError:
        value = text
    if origin is tuple and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        # What is a mapping to people is one value: two sources do not mix it.
        if isinstance(value, dict) and name not in _WHOLE:
            present = into.get(name)
            into[name] = dict(present) if isinstance(present, dict) else {}  # an alias may have put it in two places
            _merge(into[name], value)
        else:
            into[name] = value


def _origin(path: str, sources: Mapping[str, Source]) -> str:
    """Say which variable a wrong setting was given by; what an option gave is named by the setting already."""
    for setting, source in sources.items():
        if source.kind == "environment" and (path == setting or path.startswith((f"{setting}.", f"{setting}["))):
            return f"{source.name}: "
    return ""
