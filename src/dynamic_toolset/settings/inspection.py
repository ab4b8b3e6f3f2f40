"""What is in force, as it may be shown, and what differs between two settings. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from dynamic_toolset.settings.model import Settings, leaves
from dynamic_toolset.settings.reading import DEFAULT, Source

MASK = "***"
"""Stands for what might be a secret."""

RESTART = ("configMap.name", "configMap.namespace", "toolsetConfig", "leaderElection", "server")
"""The settings, and groups of them, of its file, environment and options that a running process does not take over. Its
ports are bound and served from its start to its end, and its ConfigMap says where its Lease and its ToolsetConfig are,
and how they are called. A ToolsetConfig moves the ConfigMap alone, so it may do that at any time."""

# As they are written without - and _, in lower case. "key" includes apiKey, "auth" Authorization.
_SECRET_NAME = re.compile(
    "token|pass(wd|word|phrase|code)|pwd|secret|key|auth|credential|cookie|session|bearer|private|signature|jwt|dsn"
)
_ALL_BELOW = frozenset({"headers", "extraheaders", "env", "args", "command"})
"""Mappings and lists whose members bear any name, or none, and whose values are secrets as often as not."""

_REFERENCE = re.compile(r"(Bearer |Basic )?\{\{\s*env\.[A-Za-z_][A-Za-z0-9_]*\s*\}\}")
_CREDENTIALS = re.compile(r"\b(bearer|basic)\s+\S+", re.IGNORECASE)
_PARAMETER = re.compile(r"([A-Za-z0-9_.-]{1,64})=[^&#\s]*")


class Setting(Struct, frozen=True):
    """One setting in force: its path, its value as JSON knows it, masked, and where it came from."""

    name: str
    value: Any
    source: Source


def effective(settings: Settings, sources: Mapping[str, Source]) -> tuple[Setting, ...]:
    """Return every setting in the order of the model; one without a source is a default.

    No setting asks for a secret: ``toolset.credentials`` holds names of environment variables, and files are given by
    their path. Only below ``toolset.base`` may people write what they like. There it is guaranteed that no value is
    shown whose name speaks of a secret (token, password, secret, key, auth, cookie and their like, in any spelling), no
    HTTP header, environment variable, command or argument, no user information of a URL, no query parameter with such
    a name, and nothing after ``Bearer`` or ``Basic``. What stays are booleans and references to variables of the agent
    (``{{ env.NAME }}``). A secret under a harmless name (``hint: hunter2``) cannot be told from other text.
    """
    plain = _plain(settings)
    rows = []
    for path, _ in leaves():
        value = _at(plain, path)
        shown = _masked(value) if path == "toolset.base" else value
        rows.append(Setting(path, shown, sources.get(path, DEFAULT)))
    return tuple(rows)


def changed(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return the paths of the settings that differ, in the order of the model."""
    before, after = _plain(old), _plain(new)
    return tuple(path for path, _ in leaves() if not _same(_at(before, path), _at(after, path)))


def needs_restart(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return those of the settings that differ which take effect only in a new process.

    Both are of file, environment and options alone.
    """
    return tuple(filter(counts_from_start, changed(old, new)))


def counts_from_start(path: str) -> bool:
    """Whether a setting of file, environment and options takes effect only in a new process."""
    return path in RESTART or path.partition(".")[0] in RESTART


def _plain(settings: Settings) -> Any:
    return msgspec.json.decode(msgspec.json.encode(settings))


def _at(plain: Any, path: str) -> Any:
    for name in path.split("."):
        plain = plain[name]
    return plain


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON too, where true is not 1."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def _masked(value: Any, *, secret: bool = False) -> Any:
    if isinstance(value, dict):
        return {name: _masked(member, secret=secret or _is_secret(name)) for name, member in value.items()}
    if isinstance(value, list):
        return [_masked(member, secret=secret) for member in value]
    if value is None or isinstance(value, bool):
        return value
    if secret:
        return value if isinstance(value, str) and _REFERENCE.fullmatch(value) else MASK
    return _without_secrets(value) if isinstance(value, str) else value


def _is_secret(name: str) -> bool:
    plain = re.sub("[^a-z0-9]", "", name.lower())
    return plain in _ALL_BELOW or bool(_SECRET_NAME.search(plain))


def _without_secrets(text: str) -> str:
    if _REFERENCE.fullmatch(text):
        return text
    words = re.split(r"(\s+)", _CREDENTIALS.sub(lambda found: f"{found[1]} {MASK}", text))
    return "".join(_PARAMETER.sub(_parameter, _without_user(word)) for word in words)


def _without_user(word: str) -> str:
    """Mask what stands before the last @ of a URL: a password may hold any character that nobody has escaped."""
    start, end = word.find("://"), word.rfind("@")
    if 0 <= start < end and ":" not in word[:start]:
        return f"{word[: start + 3]}{MASK}{word[end:]}"
    return f"{MASK}{word[end:]}" if ":" in word[: max(end, 0)] else word


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if _is_secret(found[1]) else found[0]
