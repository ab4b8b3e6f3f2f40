"""docs/logs.md lists every event and every span of the code, with its level and its fields, and nothing else."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from msgspec import Struct

from dynamic_toolset.model import EventName
from tests.documentation import DOCS, ROOT, table

SOURCE = ROOT / "src" / "dynamic_toolset"
LEVELS = ("debug", "info", "warning", "error", "critical")
COMMON = {"request_id", "trace_id"}


class Event(Struct, frozen=True):
    """A call that logs: where, under which names, at which level (empty if that is computed), with which fields."""

    place: str
    names: tuple[str, ...]
    level: str
    fields: frozenset[str]


class Finder(ast.NodeVisitor):
    """Finds the calls ``log.info("name", field=...)`` and their like in a module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        self.visit(ast.parse(path.read_text()))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append(node)
        self.generic_visit(node)
        self._functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815 - the name that ast calls

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Attribute):
            return
        method, logger = node.func.attr, node.func.value
        is_log = isinstance(logger, ast.Name) and logger.id == "log"
        if is_log and method in {*LEVELS, "exception"}:
            self._add(node, node.args[0], "error" if method == "exception" else method)
        elif is_log and method == "log":
            self._add(node, node.args[1], "")
        elif method == "log" and isinstance(logger, ast.Attribute) and logger.attr == "_events":  # server/access.py
            self._add(node, node.args[0], "warning")
        else:
            assert not is_log, f"{self.path}:{node.lineno}: log.{method} is no level"

    def _add(self, node: ast.Call, name: ast.expr, level: str) -> None:
        place = f"{self.path.relative_to(ROOT)}:{node.lineno}"
        if isinstance(name, ast.Name) and self._functions[-1].name == "log":
            return  # hands on what its callers say, who are found themselves
        fields = {"exception"} if isinstance(node.func, ast.Attribute) and node.func.attr == "exception" else set()
        for keyword in node.keywords:
            fields |= self._keys(keyword.value, place) if keyword.arg is None else {keyword.arg}
        fields = {"exception" if field == "exc_info" else field for field in fields}
        self.events.append(Event(place, tuple(_names(name, place)), level, frozenset(fields)))

    def _keys(self, value: ast.expr, place: str) -> set[str]:
        """Return the keys of a dict that the enclosing function builds: ``facts = {...}``, ``fields["x"] = ...``."""
        assert isinstance(value, ast.Name), f"{place}: ** of something else than a name"
        found = set()
        for node in ast.walk(self._functions[-1]):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            targets = [part for one in targets for part in (one.elts if isinstance(one, ast.Tuple) else [one])]
            for target in targets:
                if isinstance(target, ast.Name) and target.id == value.id:
                    assert isinstance(node.value, ast.Dict), place
                    found |= {key.value for key in node.value.keys}
                if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                    found |= {target.slice.value} if target.value.id == value.id else set()
        return found


def _names(name: ast.expr, place: str) -> Iterator[str]:
    if isinstance(name, ast.IfExp):
        yield from _names(name.body, place)
        yield from _names(name.orelse, place)
    elif isinstance(name, ast.Attribute) and name.attr == "event":  # of a Change of a service
        yield from (event for event in get_args(EventName) if event.startswith("service_"))
    else:
        assert isinstance(name, ast.Constant), f"{place}: the name of an event is computed"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name.value), f"{place}: {name.value!r} is not snake_case"
        yield name.value


EVENTS = [event for path in sorted(SOURCE.rglob("*.py")) for event in Finder(path).events]


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Return what the page says of each event: its levels and its fields."""
    rows = table(DOCS / "logs.md", "event")
    assert len({name for name, *_ in rows}) == len(rows)
    return {
        name.strip("`"): (set(levels.split(", ")), {field.strip("`") for field in fields.split(", ") if field})
        for name, levels, fields, _ in rows
    }


def test_the_finder_finds() -> None:
    assert len(EVENTS) > 20
    assert {name for event in EVENTS for name in event.names} >= {*get_args(EventName), "starting", "request"}


def test_every_event_is_documented_and_no_other() -> None:
    assert documented().keys() == {name for event in EVENTS for name in event.names}


def test_every_event_is_documented_with_its_fields() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for event in EVENTS:
        for name in event.names:
            found[name] |= event.fields - COMMON
    assert {name: fields for name, (_, fields) in documented().items()} == found


def test_every_event_is_documented_with_its_levels() -> None:
    said, found, computed = documented(), defaultdict(set), set()
    for event in EVENTS:
        for name in event.names:
            found[name].add(event.level)
            computed |= set() if event.level else {name}
    for name, (levels, _) in said.items():
        assert levels <= set(LEVELS)
        assert levels == found[name] or name in computed, name


def test_fields_that_several_events_have_are_explained() -> None:
    explained = {name.strip("`") for name, _ in table(DOCS / "logs.md", "field")}
    assert explained >= COMMON | {"timestamp", "level", "event", "exception"}
    several = {"service", "namespace", "type", "endpoint", "reason", "duration", "message"}
    assert explained >= several


def test_every_span_is_documented() -> None:
    said = {name.strip("`") for name, *_ in table(DOCS / "logs.md", "span") if name.endswith("`")}
    code = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    assert said == set(re.findall(r'tracing\.span\(\s*"(\w+)"', code))
