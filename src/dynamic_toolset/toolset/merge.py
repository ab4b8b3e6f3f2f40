"""Deep merge of plain data, as for JSON (RFC 7396), and of lists whose entries have names."""

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


def _is_named(entries: list[Any], key: str) -> bool:
    names = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _merge_named(value: list[Any], patch: list[Any], key: str) -> list[Any]:
    changes = {entry[key]: entry for entry in patch}
    merged = [merge(entry, changes.pop(entry[key], {})) for entry in value]
    return merged + [merge(None, entry) for entry in changes.values()]
