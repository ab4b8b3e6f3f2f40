"""Who owns which field: ``metadata.managedFields`` and the rules of server-side apply. Pure.

The rules are those of sigs.k8s.io/structured-merge-diff (``merge/update.go``), for the few shapes that our kinds have:
labels, annotations and data are owned key by key, a Service's ports entry by entry (their key is port and protocol),
every other list or map as a whole (kubernetes.io/docs/reference/using-api/server-side-apply/).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from dynamic_toolset.sandbox.resources import Object

Path = tuple[str, ...]
"""A field, in the elements of FieldsV1: ``f:NAME`` for a key, ``k:{...}`` for a list entry by its key fields."""


class Manager(NamedTuple):
    """Who writes, and how. One name that applies and updates is two managers."""

    operation: Literal["Apply", "Update"]
    name: str


class Owned(Struct, frozen=True):
    """The fields of one manager, and when it last wrote."""

    paths: frozenset[Path]
    time: str


Managers = Mapping[Manager, Owned]

_BEFORE_FIRST_APPLY = Manager("Update", "before-first-apply")


class _Shape(Enum):
    STRUCT = auto()
    """Fields that belong together; owned field by field, never as such."""
    MAP = auto()
    """Keys that the user names; who made the map owns it as well."""
    LIST = auto()
    ENTRY = auto()


_SHAPES: Mapping[Path, _Shape] = {
    (): _Shape.STRUCT,
    ("f:metadata",): _Shape.STRUCT,
    ("f:metadata", "f:labels"): _Shape.MAP,
    ("f:metadata", "f:annotations"): _Shape.MAP,
    ("f:data",): _Shape.MAP,
    ("f:binaryData",): _Shape.MAP,
    ("f:spec",): _Shape.STRUCT,
    ("f:spec", "f:ports"): _Shape.LIST,
}
_UNOWNED = {
    (): {"apiVersion", "kind", "status"},
    ("f:metadata",): {
        *("name", "namespace", "uid", "resourceVersion", "generation"),
        *("creationTimestamp", "deletionTimestamp", "managedFields"),
    },
}


# --- From objects to fields and back ---------------------------------------------------------------------------------


def fields(obj: Object, *, applied: bool = False) -> dict[Path, Any]:
    """Return the fields of an object with their values, None for the nodes that hold others.

    ``applied``: of an applied object only the leaves and the list entries count, and what is stated to be empty.
    """
    return dict(_walk(obj, (), applied=applied))


def _walk(value: Any, path: Path, *, applied: bool) -> Iterator[tuple[Path, Any]]:
    shape = _shape(path)
    if shape is None:
        yield path, value
        return
    if _is_member(shape, applied=applied, empty=not value) and path:
        yield path, None
    for element, child in _children(value, path, shape):
        yield from _walk(child, (*path, element), applied=applied)


def _is_member(shape: _Shape, *, applied: bool, empty: bool) -> bool:
    """Whether a node counts as a field itself, beside what it holds."""
    match shape:
        case _Shape.ENTRY:
            return True
        case _Shape.STRUCT:
            return applied and empty
        case _Shape.MAP:
            return empty or not applied
        case _Shape.LIST:
            return not applied


def _children(value: Any, path: Path, shape: _Shape) -> Iterator[tuple[str, Any]]:
    if shape is _Shape.LIST:
        yield from ((_entry(item), item) for item in value or ())
    else:
        unowned = _UNOWNED.get(path, ())
        yield from ((f"f:{key}", child) for key, child in (value or {}).items() if key not in unowned)


def _shape(path: Path) -> _Shape | None:
    return _Shape.ENTRY if path and path[-1].startswith("k:") else _SHAPES.get(path)


def _entry(port: Mapping[str, Any]) -> str:
    key = {"port": port.get("port"), "protocol": port.get("protocol", "TCP")}
    return "k:" + json.dumps(key, separators=(",", ":"))


def merge(live: Any, config: Any, path: Path = ()) -> Any:
    """Return ``live`` with everything that ``config`` states put into it."""
    shape = _shape(path)
    if shape is None or live is None:
        return config
    if shape is _Shape.LIST:
        entries = {_entry(item): item for item in live}
        for item in config or ():
            element = _entry(item)
            entries[element] = merge(entries.get(element), item, (*path, element))
        return list(entries.values())
    merged = dict(live)
    for key, value in (config or {}).items():
        merged[key] = merge(live.get(key), value, (*path, f"f:{key}"))
    return merged


def remove(obj: Any, paths: Iterable[Path], at: Path = ()) -> Any:
    """Return ``obj`` without the fields ``paths`` and all that is below them; a path that leads nowhere is no error."""
    gone = frozenset(paths)
    shape = _shape(at)
    if shape is None or obj is None or not gone:
        return obj
    if shape is _Shape.LIST:
        kept = [(_entry(item), item) for item in obj if (*at, _entry(item)) not in gone]
        return [remove(item, _below(gone, (*at, element)), (*at, element)) for element, item in kept]
    return {
        key: remove(value, _below(gone, (*at, f"f:{key}")), (*at, f"f:{key}"))
        for key, value in obj.items()
        if (*at, f"f:{key}") not in gone
    }


def _below(paths: frozenset[Path], at: Path) -> frozenset[Path]:
    return frozenset(path for path in paths if path[: len(at)] == at)


# --- Who owns what after a write -------------------------------------------------------------------------------------


def after_update(live: Object, new: Object, managers: Managers, actor: Manager, now: str) -> dict[Manager, Owned]:
    """Return the owners after an update: what it changed is the actor's alone, what it removed nobody's.

    An object that nobody owns any part of stays so until the first apply (kube-apiserver, ``skipnonapplied.go``).
    """
    if live and not managers:
        return {}
    before, after = fields(live), fields(new)
    changed, removed = _changed(before, after), before.keys() - after.keys()
    mine = managers[actor].paths if actor in managers else frozenset()
    left = {manager: Owned(owned.paths - changed - removed, owned.time) for manager, owned in managers.items()}
    left[actor] = Owned((mine - removed) | changed, now)
    return _with_fields(left)


def after_apply(
    live: Object, config: Object, managers: Managers, actor: Manager, now: str
) -> tuple[Object, dict[Manager, Owned], dict[Manager, frozenset[Path]]]:
    """Return the object after an apply, its owners, and the conflicts: what others own of what it would change.

    What the actor applied before and does not state now is removed, unless somebody else owns it too. The owners
    are those after the apply is forced; without conflicts there is no difference.
    """
    if live and not managers:
        managers = {_BEFORE_FIRST_APPLY: Owned(frozenset(fields(live)), now)}
    last = managers[actor].paths if actor in managers else frozenset()
    claims = dict(managers) | {actor: Owned(frozenset(fields(config, applied=True)), now)}
    owned = frozenset[Path]().union(*(claim.paths for claim in claims.values()))
    new = remove(merge(live, config), _unclaimed(last, owned))
    before, after = fields(live), fields(new)
    changed, removed = _changed(before, after), before.keys() - after.keys()
    others = {manager: claim for manager, claim in claims.items() if manager != actor}
    conflicts = {manager: claim.paths & changed for manager, claim in others.items() if claim.paths & changed}
    left = {manager: Owned(claim.paths - changed - removed, claim.time) for manager, claim in others.items()}
    return new, _with_fields(left | {actor: claims[actor]}), conflicts


def _unclaimed(paths: frozenset[Path], owned: frozenset[Path]) -> frozenset[Path]:
    """Return the fields that nobody owns any more.

    A map stays as long as anything in it is owned. A list entry does not: whoever owns only some of its fields, and
    not the entry, loses them with it.
    """
    maps = {path[:length] for path in owned for length in range(1, len(path)) if path[length - 1].startswith("f:")}
    return paths - owned - maps


def _changed(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> frozenset[Path]:
    return frozenset(path for path, value in after.items() if path not in before or before[path] != value)


def _with_fields(managers: Managers) -> dict[Manager, Owned]:
    return {manager: owned for manager, owned in managers.items() if owned.paths}


# --- On the wire -----------------------------------------------------------------------------------------------------


def encode(managers: Managers, api_version: str) -> list[Object]:
    """Return ``metadata.managedFields``, appliers first."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _encode_paths(owned.paths),
        }
        for manager, owned in sorted(managers.items(), key=lambda item: item[0])
    ]


def decode(entries: Iterable[Object]) -> dict[Manager, Owned]:
    """Return the owners that ``metadata.managedFields`` tells of."""
    return {
        Manager(entry["operation"], entry["manager"]): Owned(
            frozenset(_decode_paths(entry["fieldsV1"], ())), entry["time"]
        )
        for entry in entries
    }


def _encode_paths(paths: frozenset[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_lone_dots(tree)


def _without_lone_dots(node: Object) -> Object:
    """Drop the dot of a node that holds no others: it is a member by being there."""
    if node.keys() == {"."}:
        return {}
    return {element: _without_lone_dots(child) if element != "." else {} for element, child in sorted(node.items())}


def _decode_paths(node: Object, path: Path) -> Iterator[Path]:
    if path and (not node or "." in node):
        yield path
    for element, child in node.items():
        if element != ".":
            yield from _decode_paths(child, (*path, element))


def describe(path: Path) -> str:
    """Return a field as conflict messages write it: ``.data.x``, ``.spec.ports[port=80,protocol="TCP"].name``."""
    text = ""
    for element in path:
        kind, name = element[:2], element[2:]
        if kind == "f:":
            text += f".{name}"
        else:
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(name).items()) + "]"
    return text
