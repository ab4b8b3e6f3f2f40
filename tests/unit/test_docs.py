"""The reference pages say what is so."""

import re
import string
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
import yaml

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.settings import ConfigMapSettings, Settings
from tests.documentation import DOCS, PAGES, ROOT, anchors, blocks, links, shows, table


def test_the_permissions_are_those_that_the_cluster_tests_grant() -> None:
    where = ConfigMapSettings()
    template = string.Template((ROOT / "tests/cluster/rbac.yaml").read_text())
    granted = template.substitute(namespace=where.namespace, config_map=where.name)
    documented = next(block.text for block in blocks(DOCS / "permissions.md") if block.language == "yaml")
    assert list(yaml.safe_load_all(documented)) == list(yaml.safe_load_all(granted))


def defaults(model: type[msgspec.Struct], prefix: str = "") -> dict[str, Any]:
    """Return each setting's path and its default."""
    found: dict[str, Any] = {}
    hints = get_type_hints(model)
    default = model()
    for field in msgspec.structs.fields(model):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            found |= defaults(hint, f"{prefix}{field.encode_name}.")
        else:
            found[prefix + field.encode_name] = getattr(default, field.name)
    return found


SETTINGS = {name.strip("`"): default for name, default, _ in table(DOCS / "settings.md", "setting")}


def test_every_setting_is_in_the_table_in_the_order_of_the_model() -> None:
    assert list(SETTINGS) == list(defaults(Settings))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_table_has_the_default_that_is_so(name: str) -> None:
    said = re.findall(r"`([^`]+)`", SETTINGS[name])
    match defaults(Settings)[name]:
        case None | () | "":
            assert SETTINGS[name] in {"none", "all", "the system's", "the ConfigMap's name", "the ToolsetConfig's name"}
        case dict() | tuple() as default:
            assert said == [*default]
        case default:
            assert said == [str(default).lower() if isinstance(default, bool) else str(default)]


def test_every_built_in_service_type_is_in_the_table() -> None:
    said = [name.strip("`") for name, *_ in table(DOCS / "service-types.md", "type")]
    assert said == sorted(load_catalog().types)


def test_every_reason_of_an_event_is_in_the_table() -> None:
    code = (ROOT / "src/dynamic_toolset/controller/announcing.py").read_text()
    rows = table(DOCS / "events.md", "reason")
    told = set(re.findall(r'Announcement\("(\w+)", "(\w+)"', code))
    assert {(kind, reason.strip("`")) for reason, kind, *_ in rows if "`" in reason} == told
    everything = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = re.findall(r"`([A-Z]\w+)`", rows[-1][-1])
    assert len(named) > 3
    assert not [word for word in named if f'"{word}"' not in everything]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_yaml_block_is_yaml(page: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            assert list(yaml.safe_load_all(block.text)), f"line {block.line}"


def test_the_pictures_are_few_and_small_and_each_is_shown() -> None:
    shown = "".join(page.read_text() for page in PAGES)
    pictures = sorted((DOCS / "images").iterdir())
    assert len(pictures) <= 4
    for picture in pictures:
        assert f"images/{picture.name}" in shown
        assert picture.stat().st_size < 150_000


def test_who_may_see_the_page_has_the_role_of_the_permissions() -> None:
    documents = [
        document
        for page in ("page.md", "permissions.md")
        for block in blocks(DOCS / page)
        if block.language == "yaml"
        for document in yaml.safe_load_all(block.text)
        if document["metadata"]["name"] == "dynamic-toolset-reader"
    ]
    assert len(documents) == 2
    assert documents[0] == documents[1]


def promises() -> list[tuple[str, str]]:
    """Return each promise and a test that is said to hold it."""
    rows = re.findall(r"^- (.*)\n((?:  .*\n)*)", (DOCS / "guarantees.md").read_text(), re.MULTILINE)
    return [(first, test) for first, rest in rows for test in re.findall(r"`(tests/[^`]+)`", first + rest) or [""]]


@pytest.mark.parametrize(("promise", "test"), promises())
def test_every_promise_names_a_test_that_is_there(promise: str, test: str) -> None:
    path, _, name = test.partition("::")
    assert name, f"no test: {promise}"
    assert re.search(rf"^ *(async )?def {name}\(|^class {name}\b", (ROOT / path).read_text(), re.MULTILINE), test


def test_the_decisions_are_numbered_and_the_readme_leads_to_each() -> None:
    records = sorted((DOCS / "decisions").iterdir())
    assert [record.name[:4] for record in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for number, record in enumerate(records, 1):
        assert record.read_text().startswith(f"# {number}. ")
        assert f"docs/decisions/{record.name}" in set(links(ROOT / "README.md"))


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("a\nb\n", True),
        ("a\n...\n", True),
        ("...\nb\n", True),
        ("a\n...\nb\n", True),
        ("...", True),
        ("a\n", False),
        ("b\na\n", False),
        ("a\nx\n...\n", False),
        ("...\na\n", False),
    ],
)
def test_output_is_compared_line_by_line(expected: str, shown: bool) -> None:
    assert shows(expected, "a\nb\n") is shown


def test_ports_and_seconds_and_columns_may_differ_in_output_and_nothing_else() -> None:
    assert shows("  ports     9090 web: chosen\n", "  ports     40123 web: chosen\n")
    assert not shows("  ports     9090 web: chosen\n", "  ports     9090 api: chosen\n")
    real = "  0.12 s  http://a.svc.cluster.local:40123     healthy\n"
    assert shows("  3.45 s  http://a.svc.cluster.local:9090  healthy\n", real)
    assert not shows("  3.45 s  http://b.svc.cluster.local:9090  healthy\n", real)
    assert not shows("0.12 s  http://a.svc.cluster.local:40123  healthy\n", real)
