"""Reads Services from manifests: YAML or JSON, any number of documents, Lists among them."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import msgspec
import yaml

from dynamic_toolset.cli import streams
from dynamic_toolset.kube.objects import Namespace, ObjectKey, Service
from dynamic_toolset.strict_yaml import MISFITS, YamlLoader

MAX_DEPTH = 100
"""How deep YAML may be nested: libyaml's composer recurses, and takes the process with it when the stack is full."""

MAX_ALIASED = 1_000_000
"""How many values the aliases of a file may stand for, in all: a few lines of YAML can stand for billions."""

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class ManifestError(ValueError):
    """A file cannot be read at all. The message names the file, and the line where there is one."""


class Manifests(msgspec.Struct, frozen=True):
    """The Services that were read, in input order, and the labels of the namespaces, by their names.

    ``problems`` says what was wrong with the objects that could not be used, ``warnings`` what is odd.
    """

    services: tuple[Service, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def read(files: Iterable[str]) -> Manifests:
    """Read every Service and Namespace. Other kinds are passed over; one that cannot be used is a problem, not the end.

    Of two Services with the same name and namespace both are returned, with a warning.

    Raises ManifestError where a file is missing or no YAML.
    """
    services: list[Service] = []
    namespaces: dict[str, Mapping[str, str]] = {}
    problems: list[str] = []
    warnings: list[str] = []
    seen: dict[ObjectKey, str] = {}
    for file in files:
        shown = "standard input" if file == "-" else file
        before = len(services) + len(problems)
        for where, manifest in _objects(shown, _text(file, shown)):
            if not isinstance(manifest, dict):
                problems.append(f"{where}: an object is expected, not {type(manifest).__name__}")
            elif "kind" not in manifest:
                problems.append(f"{where}: an object without kind")
            elif manifest["kind"] == "Namespace" and manifest.get("apiVersion", "v1") == "v1":
                try:
                    metadata = msgspec.convert(manifest, Namespace).metadata
                except msgspec.ValidationError as error:
                    problems.append(f"{where}: Namespace {_name(manifest)}: {_readable(error)}")
                    continue
                namespaces[metadata.name] = metadata.labels or {}
            elif manifest["kind"] == "Service" and manifest.get("apiVersion", "v1") == "v1":
                try:
                    service = _service(manifest)
                except msgspec.ValidationError as error:
                    problems.append(f"{where}: Service {_name(manifest)}: {_readable(error)}")
                    continue
                key = service.metadata.key
                if key in seen:
                    warnings.append(f"{where}: Service {key} is there already ({seen[key]}); the last one counts")
                seen[key] = where
                services.append(service)
        if len(services) + len(problems) == before:
            warnings.append(f"{shown}: there is no Service in it")
    return Manifests(tuple(services), namespaces, tuple(problems), tuple(warnings))


def _service(manifest: dict[str, Any]) -> Service:
    service = msgspec.convert(manifest, Service)
    if not service.metadata.name:
        raise msgspec.ValidationError("metadata.name is empty")
    if service.metadata.namespace:
        return service
    # As kubectl does with a manifest that names no namespace.
    return msgspec.structs.replace(service, metadata=msgspec.structs.replace(service.metadata, namespace="default"))


def _objects(shown: str, text: str) -> Iterator[tuple[str, Any]]:
    try:
        documents = _json(text) or _yaml(shown, text)
        for number, document in enumerate(documents, 1):
            yield from _unpacked(f"{shown}, document {number}", document)
    except RecursionError:
        raise ManifestError(f"{shown}: nested too deep") from None


def _unpacked(where: str, document: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:  # the interpreter's own bound differs from one version to the next
        raise RecursionError
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
        # The API leaves kind and version out in the items of a typed list.
        inherited = {"kind": document["kind"].removesuffix("List"), "apiVersion": document.get("apiVersion", "v1")}
        items = document.get("items") or []
        for number, item in enumerate(items if isinstance(items, list) else [items], 1):
            whole = {**inherited, **item} if isinstance(item, dict) and inherited["kind"] else item
            yield from _unpacked(f"{where}, item {number}", whole, depth + 1)
    elif document is not None:
        yield where, document


# --- Text, JSON, YAML -----------------------------------------------------------------------------------------------


def _text(file: str, shown: str) -> str:
    try:
        data = streams.read(file)
        # PowerShell's `kubectl get services -o yaml > services.yaml` writes UTF-16.
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{shown}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{shown}: not UTF-8 at byte {error.start}") from None


def _json(text: str) -> list[Any]:
    """Return the JSON values that a text consists of, or none if it is something else, YAML say.

    YAML is almost a superset of JSON, but is read 20 times slower, and does not take one value after another, which is
    what ``jq`` prints.
    """
    decoder = json.JSONDecoder()
    values: list[Any] = []
    at = _after_space(text, 0)
    while at < len(text):
        if text[at] not in "{[":
            return []
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:  # no JSON, or a number of thousands of digits
            return []
        values.append(value)
        at = _after_space(text, at)
    return values


def _after_space(text: str, at: int, space: re.Pattern[str] = re.compile(r"[ \t\r\n]*")) -> int:
    match = space.match(text, at)
    return match.end() if match else at


class _Loader(YamlLoader):  # type: ignore[misc,valid-type]
    """Reads a date as the text that it is for Kubernetes."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in YamlLoader.yaml_implicit_resolvers.items()
    }


def _yaml(shown: str, text: str) -> list[Any]:
    try:
        _check_bounds(shown, text)
        return list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ManifestError(f"{shown}{line}: not YAML: {what}") from None
    except yaml.YAMLError as error:
        raise ManifestError(f"{shown}: not YAML: {' '.join(str(error).split())}") from None
    except ManifestError:
        raise
    except MISFITS as error:
        raise ManifestError(f"{shown}: a value does not fit its tag: {error}") from None


def _check_bounds(shown: str, text: str) -> None:
    """Refuse what would fill the stack, or would not end, before it is built. Costs a fifteenth of building it."""
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    count = aliased = 0
    for event in yaml.parse(text, YamlLoader):
        if isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, count))
            count += 1
            if len(opened) > MAX_DEPTH:
                raise ManifestError(f"{_at(shown, event)}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.AliasEvent):
            # An anchor is known once its value is complete, so that a value that holds itself is refused here.
            if event.anchor not in sizes:
                raise ManifestError(f"{_at(shown, event)}: the alias *{event.anchor} has no anchor before it")
            count += sizes[event.anchor]
            aliased += sizes[event.anchor]
            if aliased > MAX_ALIASED:
                raise ManifestError(f"{_at(shown, event)}: the aliases stand for more than {MAX_ALIASED} values")
        elif isinstance(event, yaml.DocumentStartEvent):
            sizes.clear()


def _at(shown: str, event: yaml.Event) -> str:
    return f"{shown}:{event.start_mark.line + 1}" if event.start_mark else shown


# --- Words ----------------------------------------------------------------------------------------------------------


def _name(manifest: dict[str, Any]) -> str:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return str(name) if name else "without a name"


def _readable(error: msgspec.ValidationError) -> str:
    """Say ``spec.ports: expected ...`` for what msgspec says as ``Expected ... - at `$.spec.ports```."""
    problem, _, path = str(error).partition(" - at `$.")
    problem = problem[:1].lower() + problem[1:]
    return f"{path.rstrip('`')}: {problem}" if path else problem
