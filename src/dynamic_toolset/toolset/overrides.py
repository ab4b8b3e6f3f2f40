"""The people's last word: ``overrides.yaml``, merged deep into what is generated.

The text has HolmesGPT's own shape (``toolsets`` and ``mcp_servers``), or toolset names at top level. People may do
what Services may not (headers, commands, other servers): who may write this ConfigMap may reconfigure the agent
anyway. Only what would cost HolmesGPT the whole file, or is surely a mistake, is refused.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from msgspec import Struct

from dynamic_toolset.toolset.merge import merge
from dynamic_toolset.toolset.strict_yaml import MAX_SHOWN, YamlError, line_of, read, shown

KEY = "overrides.yaml"
"""The key of the ConfigMap. It belongs to people: this program never writes it."""

_SECTIONS = ("toolsets", "mcp_servers")
_INSTANCE_LISTS = ("instances", "clusters")
_INSTANCE_NAMES = ("name", "id")
_ADDRESSES = ("prometheus_url", "api_url", "broker")

# The shape of <type>-<namespace>-<name> (names.toolset_names). No built-in toolset of HolmesGPT is called like this.
_GENERATED_NAME = re.compile("[a-z0-9]+(-[a-z0-9]+){2,}")


class OverridesError(ValueError):
    """The overrides cannot be used: ``overrides.yaml:<line>: <path>: <what was given, what is allowed>``."""


class Overrides(Struct, frozen=True):
    """Changes by toolset name: a mapping to merge, or None to remove.

    ``servers`` were written under ``mcp_servers``; ``entries`` anywhere else, and ``apply`` finds out what they are.
    """

    entries: dict[str, dict[str, Any] | None] = {}
    servers: dict[str, dict[str, Any] | None] = {}


def parse(text: str | None) -> Overrides:
    """Return the changes that a text asks for. None, nothing, or comments only ask for none.

    Raises OverridesError. Of the last texts it is remembered what came of them.
    """
    outcome = _outcome(text)
    if isinstance(outcome, str):
        raise OverridesError(outcome)
    return outcome


@lru_cache(maxsize=2)  # every pass asks again for the same text; nothing changes what is returned
def _outcome(text: str | None) -> Overrides | str:
    """Return the changes, or why there are none: an error that is raised is not remembered."""
    try:
        return _overrides(text) if text else Overrides()
    except YamlError as error:
        return f"{KEY}:{error}"


def apply(generated: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Return the generated mapping with the overrides merged in; neither is changed.

    Mappings merge, lists of named entries (instances) merge by name, other lists and scalars replace, null removes.
    Whatever is in ``waiting`` is left out. The result can be loaded by HolmesGPT if ``generated`` can.
    """
    patch, _ = _settle(generated, overrides)
    result: dict[str, Any] = merge(generated, patch)
    if not result.get("mcp_servers"):
        result.pop("mcp_servers", None)
    return result


def waiting(generated: dict[str, Any], overrides: Overrides) -> tuple[str, ...]:
    """Return a sentence for each change that has nothing to change at present, in the order of the text.

    A Service that comes and goes must not turn a person's change to it (``timeout_seconds: 30``) into an instance
    without an address: HolmesGPT would report it as failed, in the prompt of every investigation.
    """
    _, sentences = _settle(generated, overrides)
    return sentences


# --- Reading --------------------------------------------------------------------------------------------------------


def _overrides(text: str) -> Overrides:
    content = read(text)
    if content is None:
        return Overrides()
    if not isinstance(content, dict):
        raise _mistake(text, "", f"{_kind(content)}; {' and '.join(_SECTIONS)}, or toolset names, are allowed")
    if content.keys().isdisjoint(_SECTIONS):
        return Overrides(_entries(text, content, ""))
    for name in content:
        if name not in _SECTIONS:
            why = f"this stands beside {' or '.join(_SECTIONS)}: move it below one of them"
            raise _mistake(text, name, why)
    sections = {section: _section(text, content.get(section), section) for section in _SECTIONS}
    return Overrides(sections["toolsets"], sections["mcp_servers"])


def _section(text: str, content: Any, path: str) -> dict[str, dict[str, Any] | None]:
    # "toolsets:" with nothing but comments below it asks for nothing. It surely does not ask to remove everything.
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _mistake(text, path, f"{_kind(content)}; a mapping of toolset names is allowed")
    return _entries(text, content, f"{path}.")


def _entries(text: str, content: dict[str, Any], prefix: str) -> dict[str, dict[str, Any] | None]:
    for name, entry in content.items():
        path = f"{prefix}{name}"
        if isinstance(entry, dict):
            _check_entry(text, entry, path)
        elif entry is not None:
            why = f"{_kind(entry)}; a mapping is allowed (to switch it off: 'enabled: false'), or null to remove it"
            raise _mistake(text, path, why)
    return content


def _check_entry(text: str, entry: dict[str, Any], path: str) -> None:
    enabled = entry.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        # HolmesGPT takes the text 'false' for yes, for some kinds of toolset.
        why = f"{_kind(enabled)}; true or false is allowed, without quotes"
        raise _mistake(text, f"{path}.enabled", why)
    config = entry.get("config")
    if config is not None and not isinstance(config, dict):
        raise _mistake(text, f"{path}.config", f"{_kind(config)}; a mapping is allowed")
    for key, instances in _instance_lists(entry):
        seen: set[str] = set()
        for index, instance in enumerate(instances):
            place = f"{path}.config.{key}[{index}]"
            name = _instance_name(instance)
            if name is None:
                why = "an entry needs a 'name' (RabbitMQ: an 'id') that is text: entries are merged by it"
                raise _mistake(text, place, why)
            if name in seen:
                raise _mistake(text, place, f"{name[:MAX_SHOWN]!a} is there twice; names must be unique")
            seen.add(name)


def _mistake(text: str, path: str, why: str) -> YamlError:
    return YamlError(line_of(text, path), path, why)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "this is a mapping"
    if isinstance(value, list):
        return "this is a list"
    if isinstance(value, str):
        return f"this is the text {value[:MAX_SHOWN]!a}"
    return f"this is {str(value).lower()}"


# --- Applying -------------------------------------------------------------------------------------------------------


def _settle(generated: dict[str, Any], overrides: Overrides) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the patch for ``generated``, without the changes that have nothing to change, and sentences on those."""
    patch: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    sentences: list[str] = []
    for section, name, entry in _placed(generated, overrides):
        present = generated.get(section, {}).get(name)
        path = f"{KEY}: {section}.{name}"
        if entry is None:
            patch[section][name] = None
        elif present is None and _GENERATED_NAME.fullmatch(name) and not _is_complete(entry):
            sentences.append(
                f"{path} has no effect at present: there is no such toolset, and it has no 'type' or 'url'"
            )
        else:
            patch[section][name], absent = _without_absent_instances(present or {}, entry)
            sentences += (
                f"{path} has no effect on {instance} at present: there is no such instance, and it has no address"
                for instance in map(shown, absent)
            )
    return patch, tuple(sentences)


def _placed(generated: dict[str, Any], overrides: Overrides) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Yield (section, name, change). A change under ``mcp_servers`` comes later, and wins, as it does for HolmesGPT."""
    for name, entry in overrides.entries.items():
        is_server = name in generated.get("mcp_servers", {}) or (entry is not None and _is_mcp(entry))
        yield "mcp_servers" if is_server else "toolsets", name, entry
    for name, entry in overrides.servers.items():
        yield "mcp_servers", name, entry


def _is_mcp(entry: dict[str, Any]) -> bool:
    """Whether an entry says of itself that it is an MCP server: only they have a ``mode``."""
    return entry.get("type") == "mcp" or "mode" in (entry.get("config") or {})


def _is_complete(entry: dict[str, Any]) -> bool:
    """Whether an entry is a toolset of the person's own, and not a change to a generated one."""
    config = entry.get("config") or {}
    return any(entry.get(key) is not None for key in ("type", "tools", "url")) or config.get("url") is not None


def _without_absent_instances(present: dict[str, Any], entry: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return ``entry`` without changes to instances that ``present`` has not got, and the names of those."""
    known = {_instance_name(instance) for _, instances in _instance_lists(present) for instance in instances}
    lists = dict(_instance_lists(entry))
    absent: list[str] = []
    config = {key: value for key, value in entry["config"].items() if key not in lists} if lists else {}
    for key, instances in lists.items():
        kept = []
        for instance in instances:
            name = _instance_name(instance)
            if name in known or any(instance.get(address) for address in _ADDRESSES):
                kept.append(instance)
            else:
                absent.append(str(name))
        if kept:
            config[key] = kept
    return ({**entry, "config": config} if absent else entry), tuple(absent)


def _instance_lists(entry: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    config = entry.get("config")
    if isinstance(config, dict):
        for key in _INSTANCE_LISTS:
            if isinstance(config.get(key), list):
                yield key, config[key]


def _instance_name(instance: Any) -> str | None:
    if isinstance(instance, dict):
        return next((name for key in _INSTANCE_NAMES if isinstance(name := instance.get(key), str)), None)
    return None
