"""What HolmesGPT 0.45 can load: the names and values that would cost it the whole file, not only one entry.

HolmesGPT reads the file with PyYAML and python-benedict. One key with a ``.`` in it at any depth, or one toolset
name that YAML 1.1 does not read as text, and no toolset at all is loaded. So whatever did not come from our own code
(the operator's base, a person's overrides, a user's service type) is checked with the functions of this module.
"""

import math
from typing import Any

MAX_DEPTH = 32
"""How deep values may be nested. Far more than any toolset needs, far less than Python's recursion limit."""

MAX_KEY_LENGTH = 256
"""PyYAML reads a key only up to 1024 characters, quotes included (YAML 1.1, section 9.1.3, simple keys)."""


def key_problem(key: object) -> str | None:
    """Return why HolmesGPT could not load a mapping with this key; None if it could."""
    if not isinstance(key, str):
        return f"the name {key!r} is not text: put it in quotes"
    if "." in key:
        return f"the name {key!a} contains '.': HolmesGPT would refuse the whole file"
    if len(key) > MAX_KEY_LENGTH:
        return f"a name of {len(key)} characters: at most {MAX_KEY_LENGTH} are allowed"
    if not key.isprintable():
        return f"the name {key!a} contains a character that cannot be printed"
    return None


def scalar_problem(value: object) -> str | None:
    """Return why a value that is neither mapping nor list could not be written and read again; None if it could."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        surrogate = any("\ud800" <= character <= "\udfff" for character in value)
        return "the text contains half of a surrogate pair, which is no character" if surrogate else None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else "the number does not fit into 64 bits: put it in quotes"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not a number: put it in quotes"
    return f"a value of type {type(value).__name__}: only text, numbers, true, false, lists and mappings are allowed"


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
