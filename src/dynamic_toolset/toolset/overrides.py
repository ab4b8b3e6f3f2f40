"""The people's last word: ``overrides.yaml``, merged deep into what is generated.

The text has HolmesGPT's own shape (``toolsets`` and ``mcp_servers``), or toolset names at top level. People may do
what Services may not (headers, commands, other servers): who may write this ConfigMap may reconfigure the agent
anyway. Only what would cost HolmesGPT the whole file, or is surely a mistake, is refused.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from dynamic_toolset.model import Effect
from dynamic_toolset.strict_yaml import MAX_MISTAKES, YamlError, examine, lines_of, read, shortened
from dynamic_toolset.toolset.loadable import key_problem
from dynamic_toolset.toolset.merge import differences, merge

MAX_PLACES = 8
"""How many of the places that one override changes are told."""

KEY = "overrides.yaml"
"""The key of the ConfigMap. It belongs to people: this program never writes it."""

_Section = Literal["toolsets", "mcp_servers"]
_SECTIONS: tuple[_Section, ...] = ("toolsets", "mcp_servers")
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

    Raises OverridesError with the first mistake. Of the last texts it is remembered what came of them.
    """
    outcome = _outcome(text)
    if isinstance(outcome, str):
        raise OverridesError(outcome)
    return outcome


@lru_cache(maxsize=2)  # every pass asks again for the same text; nothing changes what is returned
def _outcome(text: str | None) -> Overrides | str:
    """Return the changes, or why there are none: an error that is raised is not remembered."""
    if not text:
        return Overrides()
    try:
        content = read(text, key_problem)
        for error in _placed_mistakes(text, islice(_mistakes(content), 1)):
            raise error
    except YamlError as error:
        return f"{KEY}:{error}"
    return _overrides(content)


def mistakes(text: str) -> tuple[YamlError, ...]:
    """Return every mistake of a text, by line; nothing if ``parse`` takes it. It never raises.

    Of more than MAX_MISTAKES it is said that there are more.
    """
    content, found = examine(text, key_problem)
    wrong = list(islice(_mistakes(content), MAX_MISTAKES + 1))
    if wrong:
        told = sorted((*found, *_placed_mistakes(text, wrong[:MAX_MISTAKES])), key=lambda mistake: mistake.line)
        found = tuple(told)
    if len(wrong) > MAX_MISTAKES:
        more = f"more than {MAX_MISTAKES} mistakes: the rest is not looked at"
        found = (*found, YamlError(found[-1].line, "", more))
    return found


def apply(generated: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Return the generated mapping with the overrides merged in; neither is changed.

    Mappings merge, lists of named entries (instances) merge by name, other lists and scalars replace, null removes.
    Whatever is in ``waiting`` is left out. The result can be loaded by HolmesGPT if ``generated`` can.
    """
    result: dict[str, Any] = merge(generated, _patch(_settle(generated, overrides)))
    if not result.get("mcp_servers"):
        result.pop("mcp_servers", None)
    return result


def waiting(generated: dict[str, Any], overrides: Overrides) -> tuple[str, ...]:
    """Return a sentence for each change that has nothing to change at present, in the order of the text.

    A Service that comes and goes must not turn a person's change to it (``timeout_seconds: 30``) into an instance
    without an address: HolmesGPT would report it as failed, in the prompt of every investigation.
    """
    return tuple(sentence for one in _settle(generated, overrides) for sentence in one.waiting)


def effects(generated: dict[str, Any], overrides: Overrides) -> tuple[Effect, ...]:
    """Return what each change does to which toolset, in the order of the text, and in ``waiting``'s words what waits.

    The toolsets of those that changed, added or removed something are the ones in which ``apply`` makes a difference.
    Values are not told, only the names of what holds them: a value may be a secret.
    """
    settled = tuple(_settle(generated, overrides))
    last = {(one.section, one.name): one for one in settled if one.change}
    found: list[Effect] = []
    for one in settled:
        section, name = one.section, one.name
        present = generated.get(section, {}).get(name)
        path = f"{KEY}: {section}.{name}"
        kind: Literal["changed", "added", "removed", "none"] = "none"
        if not one.change:
            said = ""
        elif last[section, name] is not one:
            said = "has no effect: another change of this toolset counts instead"
        elif one.entry is None:
            said = "has no effect: it removes what is not there" if present is None else "is removed"
            kind = "none" if present is None else "removed"
        elif present is None:
            kind, said = "added", "is added"
        elif places := tuple(differences(present, merge(present, one.entry))):
            kind, said = "changed", f"changes {_listed(places)}"
        else:
            said = "" if one.waiting else "has no effect: it says what is there already"
        if said:
            found.append(Effect(name, section, kind, f"{path} {said}"))
        found += (Effect(name, section, "waiting", sentence) for sentence in one.waiting)
    return tuple(found)


def not_applied(generated: dict[str, Any], overrides: Overrides, why: str) -> tuple[Effect, ...]:
    """Return for each change, in the order of the text, that it has no effect, and why none is applied."""
    return tuple(
        Effect(name, section, "none", f"{KEY}: {section}.{name} has no effect: {why}")
        for section, name, _ in _placed(generated, overrides)
    )


def _listed(places: tuple[str, ...]) -> str:
    shown = [shortened(place, 120) for place in places[:MAX_PLACES]]
    more = len(places) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


# --- Reading --------------------------------------------------------------------------------------------------------


_Mistake = tuple[str, str]
"""The path of a value, and why it is not allowed."""


def _overrides(content: dict[str, Any] | None) -> Overrides:
    """Sort out the changes of a content without mistakes."""
    if content is None:
        return Overrides()
    if content.keys().isdisjoint(_SECTIONS):
        return Overrides(content)
    # "toolsets:" with nothing but comments below it asks for nothing. It surely does not ask to remove everything.
    return Overrides(*(content.get(section) or {} for section in _SECTIONS))


def _mistakes(content: Any) -> Iterator[_Mistake]:
    if content is None:
        return
    if not isinstance(content, dict):
        yield "", f"{_kind(content)}; {' and '.join(_SECTIONS)}, or toolset names, are allowed"
    elif content.keys().isdisjoint(_SECTIONS):
        yield from _wrong_entries(content, "")
    else:
        for name in content:
            if name not in _SECTIONS:
                yield name, f"this stands beside {' or '.join(_SECTIONS)}: move it below one of them"
        for section in _SECTIONS:
            entries = content.get(section)
            if isinstance(entries, dict):
                yield from _wrong_entries(entries, f"{section}.")
            elif entries is not None:
                yield section, f"{_kind(entries)}; a mapping of toolset names is allowed"


def _wrong_entries(content: dict[str, Any], prefix: str) -> Iterator[_Mistake]:
    for name, entry in content.items():
        path = f"{prefix}{name}"
        if isinstance(entry, dict):
            yield from _wrong_entry(entry, path)
        elif entry is not None:
            why = f"{_kind(entry)}; a mapping is allowed (to switch it off: 'enabled: false'), or null to remove it"
            yield path, why


def _wrong_entry(entry: dict[str, Any], path: str) -> Iterator[_Mistake]:
    enabled = entry.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        # HolmesGPT takes the text 'false' for yes, for some kinds of toolset.
        yield f"{path}.enabled", f"{_kind(enabled)}; true or false is allowed, without quotes"
    config = entry.get("config")
    if config is not None and not isinstance(config, dict):
        yield f"{path}.config", f"{_kind(config)}; a mapping is allowed"
    for key, instances in _instance_lists(entry):
        seen: set[str] = set()
        for index, instance in enumerate(instances):
            place = f"{path}.config.{key}[{index}]"
            name = _instance_name(instance)
            if name is None:
                yield place, "an entry needs a 'name' (RabbitMQ: an 'id') that is text: entries are merged by it"
            elif name in seen:
                yield place, f"{shortened(ascii(name), 60)} is there twice; names must be unique"
            else:
                seen.add(name)


def _placed_mistakes(text: str, wrong: Iterable[_Mistake]) -> Iterator[YamlError]:
    found = list(wrong)
    if found:
        for line, (path, why) in zip(lines_of(text, [path for path, _ in found]), found, strict=True):
            yield YamlError(line, path, why)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "this is a mapping"
    if isinstance(value, list):
        return "this is a list"
    if isinstance(value, str):
        return f"this is the text {shortened(ascii(value), 60)}"
    return f"this is {str(value).lower()}"


# --- Applying -------------------------------------------------------------------------------------------------------


class _Settled(NamedTuple):
    """What becomes of one change: ``entry`` is merged, or None removes; ``waiting`` says what is left out of it.

    Without ``change`` all of it is left out.
    """

    section: _Section
    name: str
    entry: dict[str, Any] | None
    waiting: tuple[str, ...]
    change: bool


def _settle(generated: dict[str, Any], overrides: Overrides) -> Iterator[_Settled]:
    """Yield what becomes of each change, without the parts that have nothing to change."""
    for section, name, entry in _placed(generated, overrides):
        present = generated.get(section, {}).get(name)
        path = f"{KEY}: {section}.{name}"
        if entry is None:
            yield _Settled(section, name, None, (), change=True)
        elif present is None and _GENERATED_NAME.fullmatch(name) and not _is_complete(entry):
            why = f"{path} has no effect at present: there is no such toolset, and it has no 'type' or 'url'"
            yield _Settled(section, name, None, (why,), change=False)
        else:
            kept, without_effect = _without_absent_instances(present or {}, entry)
            sentences = tuple(f"{path} has no effect on {instance}" for instance in without_effect)
            yield _Settled(section, name, kept, sentences, change=True)


def _patch(settled: Iterable[_Settled]) -> dict[str, dict[str, Any]]:
    patch: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for one in settled:
        if one.change:
            patch[one.section][one.name] = one.entry  # of two changes of one toolset the later one counts
    return patch


def _placed(generated: dict[str, Any], overrides: Overrides) -> Iterator[tuple[_Section, str, dict[str, Any] | None]]:
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
    """Return ``entry`` without changes to instances that ``present`` has not got, and which those are, and why.

    Nor does it keep what would not be merged with the entries that are there, but take the place of all of them.
    """
    there = dict(_instance_lists(present))
    lists = dict(_instance_lists(entry))
    absent: list[str] = []
    config = {key: value for key, value in entry["config"].items() if key not in lists} if lists else {}
    for key, instances in lists.items():
        keys = _told_apart_by(there.get(key, []))
        known = {_instance_name(instance, keys) for instance in there.get(key, [])}
        kept: dict[str, Any] = {}
        for instance in instances:
            name = _instance_name(instance, keys)
            if name is None:
                shown = shortened(str(_instance_name(instance)), 40)
                absent.append(f"{shown}: entries of config.{key} are merged by their '{keys[0]}', and it has none")
            elif name in kept:
                absent.append(f"{shortened(name, 40)} a second time: its '{keys[0]}' is there twice")
            elif name in known or any(instance.get(address) for address in _ADDRESSES):
                kept[name] = instance
            else:
                why = "there is no such instance, and it has no address"
                absent.append(f"{shortened(name, 40)} at present: {why}")
        if kept:
            config[key] = list(kept.values())
    return ({**entry, "config": config} if absent else entry), tuple(absent)


def _told_apart_by(instances: list[Any]) -> tuple[str, ...]:
    """Return by which of their names these are merged (``merge.merge``); either, where there are none."""
    for key in _INSTANCE_NAMES:
        if instances and all(_instance_name(one, (key,)) is not None for one in instances):
            return (key,)
    return _INSTANCE_NAMES


def _instance_lists(entry: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    config = entry.get("config")
    if isinstance(config, dict):
        for key in _INSTANCE_LISTS:
            if isinstance(config.get(key), list):
                yield key, config[key]


def _instance_name(instance: Any, keys: tuple[str, ...] = _INSTANCE_NAMES) -> str | None:
    if isinstance(instance, dict):
        return next((name for key in keys if isinstance(name := instance.get(key), str)), None)
    return None
