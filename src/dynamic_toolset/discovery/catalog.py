"""Loads and checks service types: one YAML file each, how to know a product, reach it, check it and use it.

The format is documented for its users in docs/service-types.md; the files in ``catalog/`` are the best examples.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta, Struct

from dynamic_toolset.discovery.expressions import unfit
from dynamic_toolset.files import read_regular
from dynamic_toolset.model import AgentBinding, HealthCheck, HttpBinding, Identity, InstancesBinding, Scheme
from dynamic_toolset.strict_yaml import YamlLoader, examine

CUSTOM = "custom"
"""The type whose rules hold for an annotated type that the catalog does not know."""

MAX_FILE_BYTES = 256 * 1024

TypeName = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
BasePath = Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*$", max_length=200)]
Text = Annotated[str, Meta(min_length=1, max_length=4000)]
LabelValues = str | tuple[str, ...]

# Beside the module, not in a package of its own: a folder without code needs no import machinery at start-up.
_BUILT_IN = Path(__file__).with_suffix("")


class CatalogError(ValueError):
    """The catalog cannot be used. One line for each problem: ``file:line: field: what is wrong, what is allowed``."""


class _Entry(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class Rule(_Entry, frozen=True):
    """One way in which a product is deployed. All that is stated must hold, and one of the ports must be there.

    ``source`` names the chart, operator or manifest that deploys it so. ``labels`` are labels of the Service or its
    selector, ``selector`` of the selector only, ``names`` Service names. ``app`` and ``component`` stand for the
    labels in which charts write them; a value may be ``*`` (any), ``*suffix``, or empty (no such label).
    ``ports``, ``scheme`` and ``path`` override those of the type. With ``reject`` a match is refused for that reason.
    """

    source: Text
    labels: dict[str, LabelValues] = {}
    selector: dict[str, LabelValues] = {}
    names: tuple[str, ...] = ()
    ports: tuple[int | str, ...] = ()
    scheme: Scheme | None = None
    path: BasePath | None = None
    reject: str | None = None


class ServiceType(_Entry, frozen=True):
    """A product: how to know it, how to reach it, how to check it, how the agent uses it.

    ``ports`` lists the ports of its query API, best first: a number (of the port or its target), a name, or
    ``name:number``. ``peers``: each node answers for the whole cluster, so headless Services of single node groups
    lead to what another Service of the same installation already offers.
    """

    name: TypeName
    title: Annotated[str, Meta(min_length=1, max_length=60)]
    description: Annotated[str, Meta(min_length=1, max_length=300)]
    holmesgpt: AgentBinding
    health: HealthCheck = HealthCheck()
    ports: tuple[int | str, ...] = ()
    scheme: Scheme = "http"
    path: BasePath = ""
    peers: bool = False
    detect: tuple[Rule, ...] = ()

    def ports_of(self, rule: Rule) -> tuple[int | str, ...]:
        return rule.ports or self.ports


class Catalog(Struct, frozen=True):
    """The service types by name, sorted. It always holds ``custom``."""

    types: Mapping[str, ServiceType]


def load_catalog(folder: Path | None = None) -> Catalog:
    """Load the built-in types, then those of ``folder``, which add to them or replace them by name.

    Raises CatalogError with every problem of every file: a catalog that is half read would look like a cluster that
    is half empty.
    """
    problems: list[str] = []
    types: dict[str, ServiceType] = {}
    for file in _files(_BUILT_IN):
        data = file.read_bytes()
        _load_into(types, {}, file, data, yaml.load(data, YamlLoader), problems)  # noqa: S506 - a safe loader
    if folder is not None:
        origin: dict[str, Path] = {}
        for file in _files_of_people(folder):
            read = _read(file, problems)
            if read is not None:
                _load_into(types, origin, file, *read, problems)
    if problems:
        raise CatalogError("\n".join(problems))
    return Catalog(MappingProxyType(dict(sorted(types.items()))))


def _files(folder: Path) -> list[Path]:
    """Return the YAML files, sorted. Names that start with a dot are how Kubernetes mounts a ConfigMap."""
    return sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"} and path.name[0] != ".")


def _files_of_people(folder: Path) -> list[Path]:
    try:
        return _files(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise CatalogError(f"{folder}: catalogFolder: there is no such folder") from None
    except OSError as error:
        raise CatalogError(f"{folder}: catalogFolder: {error.strerror}") from None


def _read(file: Path, problems: list[str]) -> tuple[bytes, Any] | None:
    """Return what is in a file that somebody wrote, also as plain data; None if that cannot be had.

    Read as settings are, in bounded time and memory: what is nested a thousand times would be the end of the process.
    """
    try:
        data = read_regular(file, MAX_FILE_BYTES)
        text = data.decode("utf-8-sig")
    except OSError as error:
        problems.append(f"{file}:1: file: {error.strerror}")
        return None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.append(f"{file}:{line}: file: this is not UTF-8")
        return None
    if len(data) > MAX_FILE_BYTES:
        problems.append(f"{file}:1: file: a service type holds at most {MAX_FILE_BYTES} bytes")
        return None
    content, mistakes = examine(text)
    problems += [f"{file}:{one.line}: {one.path or 'file'}: {one.why}" for one in mistakes]
    return None if mistakes else (data, content)


def _load_into(
    types: dict[str, ServiceType], origin: dict[str, Path], file: Path, data: bytes, content: Any, problems: list[str]
) -> None:
    try:
        service_type = msgspec.convert(content, ServiceType)
        found = list(_contradictions(service_type))
    except msgspec.ValidationError:
        found = list(_violations(content, ServiceType, ()))
    else:
        if not found and service_type.name in origin:
            found = [(("name",), f"{service_type.name!r} is also the name in {origin[service_type.name].name}")]
        elif not found:
            types[service_type.name] = service_type
            origin[service_type.name] = file
    if found:
        root = yaml.compose(data, YamlLoader)
        problems += [f"{file}:{_line(root, path)}: {_dotted(path)}: {message}" for path, message in found]


# --- What is wrong with a file ----------------------------------------------------------------------------------------

_Path = tuple[str | int, ...]
_Problem = tuple[_Path, str]

PORT = re.compile(r"(?:(?P<name>[a-z0-9]([a-z0-9-]*[a-z0-9])?))?(?::(?P<number>[0-9]{1,5}))?")


def _violations(value: object, model: type[Struct], path: _Path) -> Iterator[_Problem]:
    """Convert each field on its own, because msgspec stops at the first problem of a whole."""
    if not isinstance(value, dict):
        yield path, f"it is {_kind(value)}; a mapping is expected"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield (*path, str(key)), f"there is no such field; {hint}allowed are {', '.join(fields)}"
    for name, field in fields.items():
        if name not in value:
            if field.required:
                yield path, f"the field {name!r} is missing"
        elif field.type == tuple[Rule, ...] and isinstance(value[name], list):
            for number, entry in enumerate(value[name]):
                yield from _converted(entry, Rule, (*path, name, number))
        else:
            yield from _converted(value[name], field.type, (*path, name))


def _converted(value: object, expected: Any, path: _Path) -> Iterator[_Problem]:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        if expected in {Rule, HealthCheck}:
            yield from _violations(value, expected, path)
        else:
            message, _, where = str(error).partition(" - at `$")
            yield (*path, *_steps(where.rstrip("`"))), message


def _contradictions(service_type: ServiceType) -> Iterator[_Problem]:
    """Check what types alone cannot say: patterns, and rules that would match too much."""
    yield from _bad_ports(service_type.ports, ("ports",))
    for number, rule in enumerate(service_type.detect):
        path: _Path = ("detect", number)
        yield from _bad_ports(rule.ports, (*path, "ports"))
        for field, labels in (("labels", rule.labels), ("selector", rule.selector)):
            for label, values in labels.items():
                if any("*" in value.removeprefix("*") for value in as_tuple(values)):
                    yield (*path, field, label), "'*' may stand only at the beginning of a value"
        if not (rule.names or rule.selector or any(any(as_tuple(values)) for values in rule.labels.values())):
            yield path, "a rule needs labels, selector or names: a port alone says nothing"
        patterns = service_type.ports_of(rule)
        if not patterns:
            yield path, "a rule needs ports, here or in the type: labels alone do not say which port to ask"
        elif rule.names and not (rule.selector or any(any(as_tuple(values)) for values in rule.labels.values())):
            loose = [pattern for pattern in patterns if port_pattern(pattern)[1] is None]
            if loose:
                yield (*path, "ports"), f"a rule by Service name needs port numbers, and {loose[0]!r} has none"
    for number, identity in enumerate(service_type.health.identity):
        yield from _bad_expressions(identity, ("health", "identity", number))
    yield from _bad_paths(service_type)
    if isinstance(service_type.holmesgpt, HttpBinding):
        unknown = set(re.findall(r"\{([A-Za-z_]*)\}", service_type.holmesgpt.instructions)) - {"base"}
        if "{{" in service_type.holmesgpt.instructions or "{%" in service_type.holmesgpt.instructions:
            yield ("holmesgpt", "instructions"), "'{{' and '{%' are template code to the agent; only {base} is replaced"
        elif unknown:
            named = ", ".join(sorted(unknown))
            yield ("holmesgpt", "instructions"), f"only {{base}} is replaced, so write <{named}> in angle brackets"
    elif isinstance(service_type.holmesgpt, InstancesBinding) and not service_type.holmesgpt.toolsets:
        yield ("holmesgpt", "toolsets"), "at least one toolset is needed"


def _bad_ports(patterns: tuple[int | str, ...], path: _Path) -> Iterator[_Problem]:
    for number, pattern in enumerate(patterns):
        name, port = port_pattern(pattern)
        if (name is None and port is None) or (port is not None and not 0 < port < 65536):
            yield (*path, number), f"{pattern!r} is not a port: allowed are 9090, a name (web), and both (web:9090)"


def _bad_expressions(identity: Identity, path: _Path) -> Iterator[_Problem]:
    for field, texts in (("json", identity.json), ("headers", identity.headers)):
        for key, text in texts.items():
            if problem := unfit(text):
                yield (*path, field, key), problem
    if identity.body is not None and (problem := unfit(identity.body, search=True)):
        yield (*path, "body"), problem
    for field, pointers in (("json", tuple(identity.json)), ("absent", identity.absent)):
        for pointer in pointers:
            if pointer and not pointer.startswith("/"):
                yield (*path, field), f"{pointer!r} is not a JSON pointer: it starts with '/'"


def _bad_paths(service_type: ServiceType) -> Iterator[_Problem]:
    health = service_type.health
    paths: list[tuple[_Path, str | None]] = [(("health", "path"), health.path)]
    paths += [(("health", "identity", n, "path"), identity.path) for n, identity in enumerate(health.identity)]
    if isinstance(service_type.holmesgpt, HttpBinding):
        paths.append((("holmesgpt", "healthPath"), service_type.holmesgpt.health_path))
    for where, path in paths:
        if path is not None and not re.fullmatch(r"(/[A-Za-z0-9._~/?=&%-]*)?", path):
            yield where, f"{path!r} is not a path: it starts with '/' and holds no spaces or template code"


def _line(root: yaml.Node | None, path: _Path) -> int:
    """Return the line of the value that ``path`` leads to, or of the last part of it that is there."""
    node, line = root, 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _steps(where: str) -> _Path:
    """Read msgspec's path, such as ``.holmesgpt[0].url`` or ``[...]`` for the value of a mapping."""
    found = re.findall(r"\.([A-Za-z_]\w*)|\[(\d+)\]", where)
    return tuple(name or int(number) for name, number in found)


def _dotted(path: _Path) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "file"


def _kind(value: object) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"


# --- Reading the short forms ------------------------------------------------------------------------------------------


def as_tuple(values: LabelValues) -> tuple[str, ...]:
    """Return one value or several as several."""
    return (values,) if isinstance(values, str) else values


def port_pattern(pattern: int | str) -> tuple[str | None, int | None]:
    """Return the name and the number that a port must have; None where either will do, both None if malformed."""
    if isinstance(pattern, int):
        return None, pattern
    found = PORT.fullmatch(pattern)
    if found is None:
        return None, None
    return found["name"], int(found["number"]) if found["number"] else None
