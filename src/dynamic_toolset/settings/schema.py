"""The settings as schemas: JSON Schema of the file, and what a CustomResourceDefinition says of ``spec``. Pure.

Both come from the model, so they say what it says: names, types, bounds, required fields. What a type cannot say, a
JSON Schema leaves to the program; for the resource it is said in CEL (kubernetes.io/docs/reference/using-api/cel/),
with the same outcome and nearly the same words, so that a wrong resource is refused when it is written.
"""

import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from dynamic_toolset.kube import selectors
from dynamic_toolset.settings.descriptions import DESCRIPTIONS
from dynamic_toolset.settings.model import MAX_ENTRIES, MAX_ITEMS, Duration, Selector, Settings
from dynamic_toolset.settings.problems import in_words
from dynamic_toolset.settings.resource import PROCESS_SETTINGS

Schema = dict[str, Any]


def ecma(pattern: str) -> str:
    """Return a pattern of the model as Go (RE2) and JavaScript write it, to whom $ is the very end."""
    return re.sub(r"\\Z$", "$", pattern)


(_DURATION,) = Duration.__metadata__  # type: ignore[attr-defined]
_IS_DURATION = f"self.matches(r'{ecma(_DURATION.pattern)}')"
_SELECTOR_RULE = (
    f"self.matches(r'{selectors.pattern()}')",
    "must be a label selector such as tier=web,team in (a, b),!legacy",
)
_RANGE_RULE = (
    "isIP(self) || (isCIDR(self) && cidr(self).masked() == cidr(self))",
    "must be a range such as 10.0.0.0/8, without host bits, or an address",
)


def _duration_rule(rule: str) -> str:
    """Let a rule speak of durations only.

    One that cannot be evaluated is an error, also for what was stored before the rule came and is not touched.
    """
    return f"size(self) > {_DURATION.max_length} || !{_IS_DURATION} || {rule}"


_RULES: Mapping[str, tuple[str, str]] = {
    "discoveryInterval": (
        _duration_rule("(duration(self) >= duration('1m') && duration(self) <= duration('1h'))"),
        "must be from 1m to 1h",
    ),
    "selector": _SELECTOR_RULE,
    "namespaces.selector": _SELECTOR_RULE,
    "policy.allowedRanges[]": _RANGE_RULE,
    "policy.refusedRanges[]": _RANGE_RULE,
    "healthCheck.timeout": (_duration_rule("duration(self) >= duration('1s')"), "must be at least 1s"),
    "healthCheck.interval": (_duration_rule("duration(self) >= duration('100ms')"), "must be at least 100ms"),
}
"""By path: what must be true in CEL, and what is said otherwise."""

_KEYS: Mapping[str, tuple[str, ...]] = {"toolset.credentials": ("namespace", "service", "cluster")}
"""The lists whose members have a key, by which two appliers can own one each."""

_STORED_DEFAULTS = frozenset({"serviceTypes.*.enabled", "toolset.credentials[].cluster"})
"""The only defaults that are stored in a resource: see docs/decisions/0009-defaults-are-not-stored.md."""


def json_schema() -> Schema:
    """Return the JSON Schema (2020-12) of the settings file, for editors.

    It refuses nothing that the program takes as it stands, but what a type cannot say (``healthCheck.timeout`` of 1s at
    least, names of service types) it does not refuse either.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of Dynamic Toolset",
        **_JsonSchema().struct(Settings, ""),
    }


def spec_schema() -> Schema:
    """Return the structural OpenAPI v3 schema of a ToolsetConfig's ``spec``."""
    return _Structural(DESCRIPTIONS, frozenset(PROCESS_SETTINGS), nullable=True).struct(Settings, "")


def structural(model: type[Struct]) -> Schema:
    """Return the structural schema of a Struct that describes its fields itself (``Meta(description=...)``).

    A field that may be None is one that is left out.
    """
    return _Structural({}, frozenset(), nullable=False).struct(model, "")


class _Walk:
    """A walk along a model, by the types of its fields."""

    def __init__(self, descriptions: Mapping[str, str], absent: frozenset[str]) -> None:
        self._descriptions = descriptions
        self._absent = absent

    def struct(self, model: type[Struct], path: str) -> Schema:
        hints = get_type_hints(model, include_extras=True)
        properties: Schema = {}
        required = []
        for field in msgspec.structs.fields(model):
            below = f"{path}.{field.encode_name}" if path else field.encode_name
            if below in self._absent:
                continue
            schema = self._described(below, self.of(hints[field.name], below))
            properties[field.encode_name] = schema
            if field.required:
                required.append(field.encode_name)
            else:
                self._note_default(schema, _default(field), below)
        return {"type": "object", "properties": properties, **({"required": required} if required else {})}

    def of(self, hint: Any, path: str) -> Schema:
        origin, parts = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(parts[0], hint.__metadata__, path)
        if origin in (Union, UnionType):
            (inner,) = (part for part in parts if part is not NoneType)
            return self._or_null(self.of(inner, path))
        if isinstance(hint, type) and issubclass(hint, Struct):
            return self.struct(hint, path)
        if origin is Literal:
            return {"type": "string", "enum": list(parts)}
        if origin is tuple:
            return self._list(parts[0], path)
        if origin is dict:
            name, member = parts
            return self._mapping(name, member, path)
        if hint is Any:
            return {}
        return {"type": {str: "string", int: "integer", bool: "boolean"}[hint]}

    def _described(self, path: str, schema: Schema) -> Schema:
        text = self._descriptions.get(path)
        return {"description": text, **schema} if text else schema

    def _annotated(self, hint: Any, metas: tuple[Meta, ...], path: str) -> Schema:
        schema = self.of(hint, path)
        for meta in metas:
            bounds = {
                "minimum": meta.ge,
                "maximum": meta.le,
                "pattern": meta.pattern and ecma(meta.pattern),
                "minItems" if schema.get("type") == "array" else "minLength": meta.min_length,
                "maxItems" if schema.get("type") == "array" else "maxLength": meta.max_length,
            }
            described = {"description": meta.description} if meta.description else {}
            schema = {
                **described,
                **schema,
                **{name: bound for name, bound in bounds.items() if bound is not None},
                **(meta.extra_json_schema or {}),
            }
        return schema

    def _list(self, member: Any, path: str) -> Schema:
        return {
            "type": "array",
            "maxItems": MAX_ITEMS,
            "items": self._described(f"{path}[]", self.of(member, f"{path}[]")),
        }

    def _mapping(self, name: Any, member: Any, path: str) -> Schema:
        value = self._described(f"{path}.*", self.of(member, f"{path}.*"))
        schema = {"type": "object", "maxProperties": MAX_ENTRIES, "additionalProperties": value}
        pattern = _pattern(name)
        return self._named(schema, pattern) if pattern else schema

    def _named(self, schema: Schema, pattern: str) -> Schema:
        """Return the schema of a mapping whose names fit a pattern."""
        raise NotImplementedError

    def _or_null(self, schema: Schema) -> Schema:
        raise NotImplementedError

    def _note_default(self, schema: Schema, default: Any, path: str) -> None:
        raise NotImplementedError


class _JsonSchema(_Walk):
    """For editors: with defaults, and closed, so that a misspelt name is marked."""

    def __init__(self) -> None:
        super().__init__(DESCRIPTIONS, frozenset())

    def struct(self, model: type[Struct], path: str) -> Schema:
        return super().struct(model, path) | {"additionalProperties": False}

    def of(self, hint: Any, path: str) -> Schema:
        schema = super().of(hint, path)
        return schema | {"pattern": selectors.pattern()} if hint is Selector else schema

    def _list(self, member: Any, path: str) -> Schema:
        unique = {} if _is_struct(member) else {"uniqueItems": True}
        return super()._list(member, path) | unique

    def _named(self, schema: Schema, pattern: str) -> Schema:
        return schema | {"propertyNames": {"pattern": pattern}}

    def _or_null(self, schema: Schema) -> Schema:
        return schema | {"type": [schema["type"], "null"]}

    def _note_default(self, schema: Schema, default: Any, path: str) -> None:  # noqa: ARG002
        # That of a group is what its members say.
        if not isinstance(default, dict) or "properties" not in schema:
            schema["default"] = default


class _Structural(_Walk):
    """For a CustomResourceDefinition (kubernetes.io/docs/tasks/extend-kubernetes/custom-resources, "Structural")."""

    def __init__(self, descriptions: Mapping[str, str], absent: frozenset[str], *, nullable: bool) -> None:
        super().__init__(descriptions, absent)
        self._nullable = nullable

    def _described(self, path: str, schema: Schema) -> Schema:
        rules = [_RULES[path]] if path in _RULES else []
        return super()._described(path, _with_rules(schema, *rules))

    def _list(self, member: Any, path: str) -> Schema:
        schema = super()._list(member, path)
        if path in _KEYS:
            return schema | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(_KEYS[path])}
        return schema | {"x-kubernetes-list-type": "atomic" if _is_struct(member) else "set"}

    def _named(self, schema: Schema, pattern: str) -> Schema:
        rule = f"self.all(name, name.matches(r'{pattern}'))"
        return _with_rules(schema, (rule, f"each name must be {in_words(pattern)}"))

    def of(self, hint: Any, path: str) -> Schema:
        schema = super().of(hint, path)
        if hint is Duration:  # people get it wrong most often, and a pattern is no help to them
            del schema["pattern"]
            return _with_rules(schema, (_IS_DURATION, f"must be {in_words(_DURATION.pattern)}"))
        if schema == {"type": "object", "maxProperties": MAX_ENTRIES, "additionalProperties": {}}:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return schema

    def _or_null(self, schema: Schema) -> Schema:
        return schema | {"nullable": True} if self._nullable else schema

    def _note_default(self, schema: Schema, default: Any, path: str) -> None:
        if path in _STORED_DEFAULTS:
            schema["default"] = default
        elif path in self._descriptions and (said := _said(default)):
            schema["description"] += f" Default: {said}."


def _with_rules(schema: Schema, *rules: tuple[str, str]) -> Schema:
    present = schema.get("x-kubernetes-validations", [])
    added = [{"rule": rule, "message": message} for rule, message in rules]
    return schema | {"x-kubernetes-validations": present + added} if added else schema


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)


def _pattern(hint: Any) -> str | None:
    metas = getattr(hint, "__metadata__", ())
    return next((ecma(meta.pattern) for meta in metas if meta.pattern), None)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return msgspec.json.decode(msgspec.json.encode(made))


def _said(default: Any) -> str:
    """Return a default in words; nothing if there is none worth a word."""
    if isinstance(default, bool) or (isinstance(default, (str, int)) and default != ""):
        return f"`{str(default).lower() if isinstance(default, bool) else default}`"
    if isinstance(default, list):
        return ", ".join(f"`{member}`" for member in default)
    return ""


def paths(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield the path and the schema of everything within a schema, in its order."""
    for name, inner in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        yield below, inner
        yield from paths(inner, below)
    if isinstance(members := schema.get("items"), dict):
        yield f"{path}[]", members
        yield from paths(members, f"{path}[]")
    if isinstance(members := schema.get("additionalProperties"), dict):
        yield f"{path}.*", members
        yield from paths(members, f"{path}.*")
