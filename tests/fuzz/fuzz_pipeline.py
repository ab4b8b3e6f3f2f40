"""From what the API sends to what the agent reads: one input of the fuzzer through all pure stages.

An input is JSON: ``{"settings": 2, "overrides": "...", "services": [{"metadata": ..., "spec": ...}, ...]}``, so that a
finding can be read, and tried with ``dynamic-toolset explain``. What is no such thing is passed over.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory
from dynamic_toolset.kube.objects import Service
from dynamic_toolset.model import Decision, DiscoveredService, Health, Outcome, ServiceKey, Verdict
from dynamic_toolset.settings import AllowedTypes, ForeignEndpoints, Namespaces, Policy, Settings, YamlLoader
from dynamic_toolset.toolset import generic, holmesgpt
from dynamic_toolset.toolset.documents import render
from dynamic_toolset.toolset.overrides import OverridesError
from dynamic_toolset.toolset.safety import refusal
from tests.unit.discovery.absurd import INJECTIONS
from tests.unit.discovery.building import PREFIX, is_plain
from tests.unit.toolset.samples import load

CORPUS = Path(__file__).parents[1] / "unit/discovery/corpus"
SEEDS_PER_FILE = 60

GRANTS = Policy(
    foreign_endpoints=(ForeignEndpoints(("*",), ("x.example.com", "*.svc.cluster.local", "*.com", "10.0.0.1")),),
    without_selector=("*",),
)
SETTINGS = (
    Settings(),
    Settings(policy=GRANTS),
    Settings(policy=GRANTS, endpoint_host="clusterIP", require_annotations=True),
    Settings(policy=Policy(without_selector=("*",), max_per_namespace=1, max_in_all=2)),
    Settings(
        namespaces=Namespaces(selector="team=a", exclude=("b",)),
        policy=Policy(allowed_types=(AllowedTypes(("*",), ("custom", "grafana")),), trusted_namespaces=("a",)),
    ),
)


class Input(Struct):
    """What one execution looks at."""

    services: list[Service]
    settings: int = 0
    overrides: str | None = None


@cache
def detectors() -> tuple[Detector, ...]:
    catalog = load_catalog()
    return tuple(Detector(catalog, settings, {"a": {"team": "a"}, "b": {}}) for settings in SETTINGS)


def check(data: bytes) -> None:
    """Raise whatever a stage raises, and AssertionError where what it says must not be."""
    try:
        given = msgspec.json.decode(data, type=Input)
    except msgspec.DecodeError:
        return
    number = given.settings % len(SETTINGS)
    settings, detector = SETTINGS[number], detectors()[number]
    decisions = detector.discover(given.services)
    for decision in decisions.values():
        _check_decision(decision)
    last = {ServiceKey.of(service.metadata.key): service for service in given.services}
    assert detector.discover(reversed(last.values())) == decisions, "the order matters"
    _check_changes(last, detector, decisions)
    if given.overrides is not None or any(decision.candidate for decision in decisions.values()):
        _check_documents(decisions, settings, given.overrides)


def _check_changes(
    services: dict[ServiceKey, Service], detector: Detector, decisions: Mapping[ServiceKey, Decision]
) -> None:
    """Let the Services come one after another, and one of them go."""
    inventory = Inventory(detector)
    for key, service in services.items():
        inventory.update({key: inventory.judge(service)})
    assert inventory.decisions == decisions, "it matters that they came one after another"
    if services:
        gone = next(iter(services))
        inventory.update({gone: None})
        rest = detector.discover(service for key, service in services.items() if key != gone)
        assert inventory.decisions == rest, "it matters that there was another one"


def _check_decision(decision: Decision) -> None:
    assert is_plain(decision.reason), decision.reason
    assert all(map(is_plain, decision.evidence)), decision.evidence
    has_candidate = decision.outcome in {Outcome.CANDIDATE, Outcome.DUPLICATE}
    assert (decision.candidate is not None) == has_candidate, decision.outcome
    assert decision.candidate is None or refusal(decision.candidate) is None, refusal(decision.candidate)


def _check_documents(decisions: dict[ServiceKey, Decision], settings: Settings, changes: str | None) -> None:
    services = [
        DiscoveredService(one.candidate, Health(Verdict.HEALTHY, "ok"), listed=True)
        for one in decisions.values()
        if one.outcome is Outcome.CANDIDATE and one.candidate
    ]
    rendered = render(services, settings, None)
    assert not rendered.problems, rendered.problems
    texts = {document.key: document.text for document in rendered.documents}
    assert "{{" not in "".join(texts.values()), "a template of nobody's credentials"
    load(texts[holmesgpt.KEY])
    assert len(json.loads(texts[generic.KEY])["tools"]) == len(services)
    assert len(generic.published(texts[generic.KEY])) == len(services)
    if changes is not None:
        refusal = ""
        try:
            rendered = render(services, settings, changes)
        except OverridesError as error:
            refusal = str(error)
        assert re.fullmatch(r"(overrides\.yaml:\d+: .{1,800})?", refusal), refusal
        assert refusal.isprintable(), refusal
        load(next(document.text for document in rendered.documents if document.key == holmesgpt.KEY))


# --- Where it begins, and how it goes on ----------------------------------------------------------------------------


@cache
def seeds() -> tuple[bytes, ...]:
    """Return inputs of real Services, and of annotated ones."""
    found = []
    for file in sorted(CORPUS.glob("*.yaml")):
        entries = yaml.load(file.read_bytes(), YamlLoader)
        step = max(1, len(entries) // SEEDS_PER_FILE)
        found += [{"settings": 1, "services": [entry["service"]]} for entry in entries[::step]]
        several = [[entry["service"] for entry in entries[place : place + 3]] for place in range(0, len(entries), 40)]
        found += [{"settings": 3, "services": services} for services in several]
    for key, value in WORDS_OF_ANNOTATIONS:
        metadata = {"name": "api", "namespace": "a", "annotations": {f"{PREFIX}-type": "custom", key: value}}
        spec = {"selector": {"app": "x"}, "ports": [{"port": 8080, "name": "http"}]}
        found.append({"settings": 0, "services": [{"metadata": metadata, "spec": spec}]})
        alias = spec | {"type": "ExternalName", "externalName": "x.example.com"}
        found.append({"settings": 1, "services": [{"metadata": metadata, "spec": alias}]})
    metadata = {"name": "api", "namespace": "a", "annotations": {f"{PREFIX}-type": "custom"}}
    custom = {"metadata": metadata, "spec": {"selector": {"app": "x"}, "ports": [{"port": 8080}]}}
    found += [{"settings": 0, "overrides": text, "services": [custom]} for text in OVERRIDES]
    return tuple(json.dumps(one).encode() for one in found)


OVERRIDES = [
    "toolsets:\n  custom-a-api:\n    llm_instructions: |\n      GET x\n    config: &c {timeout_seconds: 3, x: [1]}\n",
    "custom-a-api: {config: {<<: [{a: 1}, {b: ~}], instances: [{name: a.api, api_url: 'http://x'}]}, enabled: false}\n",
    "mcp_servers:\n  mine: {type: mcp, config: {url: 'https://x/{{ env.X }}', mode: sse}}\ntoolsets: {bash: null}\n",
    "a: &a {b: 0x1F, c: 1.5e+3, d: \"\\u0041\"}\nb: *a\nc: !!map {d: !!int '3'}\n",
]
"""Texts for the mutations to begin with: every way to write something that YAML has and people use."""

WORDS_OF_OVERRIDES = [
    *("toolsets", "mcp_servers", "enabled", "config", "instances", "name", "id", "type", "url", "mode", "custom-a-api"),
    *(
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "'",
        '"',
        "|\n",
        ">\n",
        "---\n",
        "#",
        "&a ",
        "*a",
        "<<: ",
        "? ",
    ),
    *("!!int ", "!!float ", "!!bool ", "!!null ", "!!str ", "!!timestamp ", "!!set ", "!!binary ", "!!merge ", "!x "),
    *(
        ":1" * 90,
        ":1" * 90 + ".5",
        "9" * 400,
        "1e999",
        ".inf",
        ".nan",
        "0b",
        "0x",
        "_",
        "1:30",
        "2001-99-99",
        "~",
        "null",
    ),
    *("\\ud800", "\\0", "\ud800", "\x85", "\u2028", "\ufeff", "\0", "\t", "on", "true", "=", "", "%YAML 9.9\n"),
]

WORDS_OF_ANNOTATIONS = [
    *((PREFIX, value) for value in ("enabled", "disabled", "maybe")),
    *((f"{PREFIX}-type", value) for value in ("custom", "mcp", "grafana", "mine")),
    (f"{PREFIX}-name", "mine"),
    *((f"{PREFIX}-endpoint", value) for value in ("http://api.a.svc:8080/x", "https://x.example.com:1/y")),
    *((f"{PREFIX}-port", value) for value in ("8080", "http", "web")),
    (f"{PREFIX}-scheme", "https"),
    *((f"{PREFIX}-path", value) for value in ("/x", "/", "/x/./y")),
    (f"{PREFIX}-health-path", "/up"),
]

WORDS: list[Any] = [
    *INJECTIONS,
    *("X.example.com", "a..com", "-.com", "127.1", "localhost", "kubernetes", "kubernetes.default.svc.cluster.local"),
    *(word for pair in WORDS_OF_ANNOTATIONS for word in pair),
    *(
        "ExternalName",
        "None",
        "10.0.0.1",
        "fe80::1%eth0",
        "x.example.com",
        "kubernetes.default.svc",
        "default",
        "a",
        "b",
    ),
    *(
        "kubernetes",
        "app",
        "prometheus",
        "grafana",
        "x-loki",
        "server",
        "TCP",
        "UDP",
        "https",
        "kubernetes.io/h2c",
        "web",
    ),
    *(0, -1, 80, 443, 3000, 9090, 65535, 65536, 2**63, None, {}, []),
]
KEYS = (
    "labels",
    "annotations",
    "selector",
    "ports",
    "type",
    "clusterIP",
    "externalName",
    "targetPort",
    "appProtocol",
    "name",
)


def mutated(data: bytes, seed: int, most: int, mutate_text: Callable[[bytes, int], bytes]) -> bytes:
    """Return another input: JSON stays JSON, changed in one to four places. ``mutate_text`` changes mere text."""
    choice = random.Random(seed)
    try:
        value = json.loads(data)
        services, overrides = value["services"], value.get("overrides")
    except (ValueError, LookupError, TypeError, AttributeError):
        return choice.choice(seeds())
    for _ in range(choice.randint(1, 4)):
        if isinstance(overrides, str) and choice.randrange(4):
            overrides = _other_text(overrides, choice, mutate_text)
        else:
            services = _with_a_change(services, choice, mutate_text)
    settings = choice.randrange(len(SETTINGS)) if not choice.randrange(4) else value.get("settings")
    changed = json.dumps({"settings": settings, "overrides": overrides, "services": services}).encode()
    return changed if len(changed) <= most else data


def _other_text(text: str, choice: random.Random, mutate_text: Callable[[bytes, int], bytes]) -> str:
    """Change overrides: put something in, take something out, double something, or let the fuzzer change characters."""
    start, end = sorted(choice.randint(0, len(text)) for _ in range(2))
    match choice.randrange(6):
        case 0 | 1 | 2:
            return text[:start] + choice.choice(WORDS_OF_OVERRIDES) + text[start:]
        case 3:
            return text[:start] + text[end:]
        case 4:
            return text[:end] + text[start:]
    return mutate_text(text.encode("utf-8", "surrogatepass"), 2 * len(text) + 8).decode("utf-8", "replace")


def _with_a_change(value: Any, choice: random.Random, mutate_text: Callable[[bytes, int], bytes]) -> Any:
    """Change one place: go down at random, and change what is there."""
    if isinstance(value, dict) and value:
        key = choice.choice(list(value))
        match choice.randrange(12):
            case 0:
                return {name: member for name, member in value.items() if name != key}
            case 1:
                return {**value, str(choice.choice([*WORDS, *KEYS])): choice.choice(WORDS)}
            case 2:
                return {**value, choice.choice(KEYS): value[key]}
        return {**value, key: _with_a_change(value[key], choice, mutate_text)}
    if isinstance(value, list) and value:
        place = choice.randrange(len(value))
        before, member, after = value[:place], value[place], value[place + 1 :]
        match choice.randrange(8):
            case 0:
                return before + after
            case 1:
                return [*before, member, _with_a_change(member, choice, mutate_text), *after]
            case 2:
                return value * choice.choice([2, 3, 300 // len(value) or 1])
        return [*before, _with_a_change(member, choice, mutate_text), *after]
    return _another(value, choice, mutate_text)


def _another(value: Any, choice: random.Random, mutate_text: Callable[[bytes, int], bytes]) -> Any:
    match choice.randrange(4):
        case 0 | 1:
            return choice.choice(WORDS)
        case 2 if isinstance(value, str):
            word = str(choice.choice(WORDS))
            place = choice.randint(0, len(value))
            return value[:place] + word + value[place:]
        case _ if isinstance(value, str):
            return mutate_text(value.encode("utf-8", "surrogatepass"), 2 * len(value) + 8).decode("utf-8", "replace")
        case _ if isinstance(value, int):
            return value + choice.choice([-1, 1, 2**16, 2**64])
    return choice.choice(WORDS)
