"""Deep merge of plain data, as for JSON (RFC 7396), and of lists whose entries have names."""

from collections.abc import Iterator
from typing import Any

_NAMES = ("name", "id")


def merge(value: Any, patch: Any) -> Any:
    """Return ``value`` with ``patch`` laid over it. Neither is changed; the result may share parts with both.

    Mappings merge key by key, and null removes a key. Lists whose entries all carry a ``name`` (or an ``id``) of
    their own merge entry by entry: those that are in both merge in place, new ones follow. Everything else in the
    patch replaces what was there. Merging the same patch again changes nothing.
    """
    if isinstance(patch, dict):
        result = dict(value) if isinstance(value, dict) else {}
        for key, member in patch.items():
            if member is None:
                result.pop(key, None)
            else:
                result[key] = merge(result.get(key), member)
        return result
    if isinstance(patch, list):
        if isinstance(value, list):
            for key in _NAMES:
                if _is_named(value, key) and _is_named(patch, key):
                    return _merge_named(value, patch, key)
        return [merge(None, member) for member in patch]
    return patch


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each part that differs, such as ``config.instances[monitoring.prometheus].verify_ssl``.

    Nothing differs exactly if both are written alike: true is not 1, and the order of a mapping does not count.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in (*before, *(key for key in after if key not in before)):
            place = f"{path}.{key}" if path and key[:1] != "[" else f"{path}{key}"
            if key in before and key in after:
                yield from differences(before[key], after[key], place)
            else:
                yield place
    elif isinstance(before, list) and isinstance(after, list):
        key = next((key for key in _NAMES if _is_named(before, key) and _is_named(after, key)), None)
        names = [entry[key] for entry in before] if key else []
        if key and names == [entry[key] for entry in after[: len(names)]]:
            yield from differences(_by_name(before, key), _by_name(after, key), path)
        elif len(before) != len(after) or any(any(differences(*pair, "x")) for pair in zip(before, after, strict=True)):
            yield path
    elif type(before) is not type(after) or before != after:
        yield path


def _by_name(entries: list[Any], key: str) -> dict[str, Any]:
    return {f"[{entry[key]}]": entry for entry in entries}


def _is_named(entries: list[Any], key: str) -> bool:
    names = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _merge_named(value: list[Any], patch: list[Any], key: str) -> list[Any]:
    changes = {entry[key]: entry for entry in patch}
    merged = [merge(entry, changes.pop(entry[key], {})) for entry in value]
    return merged + [merge(None, entry) for entry in changes.values()]
