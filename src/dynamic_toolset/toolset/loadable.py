"""What HolmesGPT 0.45 can load: the names and values that would cost it the whole file, not only one entry.

HolmesGPT reads the file with PyYAML and python-benedict. One key with a ``.`` in it at any depth, or one toolset
name that YAML 1.1 does not read as text, and no toolset at all is loaded. So whatever did not come from our own code
(the operator's base, a person's overrides, a user's service type) is checked with the functions of this module.
"""

from typing import Any

from dynamic_toolset.strict_yaml import MAX_DEPTH, name_problem, scalar_problem


def key_problem(key: object) -> str | None:
    """Return why HolmesGPT could not load a mapping with this key; None if it could."""
    if isinstance(key, str) and "." in key:
        return f"the name {key[:60]!a} contains '.': HolmesGPT would refuse the whole file"
    return name_problem(key)


def problem(value: Any, path: str) -> str | None:
    """Return ``path: why`` for the first part of a value that HolmesGPT could not load; None if it could load all."""
    return _problem(value, path, MAX_DEPTH)


def _problem(value: Any, path: str, depth: int) -> str | None:
    if depth == 0:
        return f"{path}: nested more than {MAX_DEPTH} deep"
    if isinstance(value, dict):
        for key, member in value.items():
            why = key_problem(key)
            if why:
                return f"{path}: {why}"
            why = _problem(member, f"{path}.{key}", depth - 1)
            if why:
                return why
        return None
    if isinstance(value, list):
        found = (_problem(member, f"{path}[{index}]", depth - 1) for index, member in enumerate(value))
        return next((why for why in found if why), None)
    why = scalar_problem(value)
    return f"{path}: {why}" if why else None
