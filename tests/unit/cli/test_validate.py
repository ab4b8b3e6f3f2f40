"""Files are judged without the service: every mistake by its line, in a form that editors and CI read."""

from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import Run

OVERRIDES = "toolsets:\n  internet: {enabled: perhaps}\n  grafana/dashboards: 7\nwrong: {}\n"

Manifest = Callable[..., str]


def test_what_is_right_is_said_so(run: Run, manifest: Manifest) -> None:
    manifest("toolsets: {internet: {enabled: false}}\n", "overrides.yaml")
    manifest("", "empty.yaml")
    ended = run("validate", "overrides", "-f", "overrides.yaml", "-f", "empty.yaml")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "overrides.yaml: nothing is wrong with it\nempty.yaml: nothing is wrong with it\n"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (OVERRIDES, ["2: toolsets.internet.enabled", "3: toolsets.grafana/dashboards"]),
        ("toolsets: [\n", ["2: "]),
        ("a: 1\na: 2\n", ["2: a"]),
    ],
)
def test_every_mistake_has_its_line(run: Run, manifest: Manifest, text: str, places: list[str]) -> None:
    file = manifest(text, "given.yaml")
    ended = run("validate", "overrides", "-f", file)
    assert (ended.status, ended.err) == (1, "")
    lines = ended.out.splitlines()
    for place in places:
        assert any(line.startswith(f"given.yaml:{place}") for line in lines), ended.out
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)
    again = run("validate", "overrides", "-f", "-", stdin=text)
    assert again.out == ended.out.replace("given.yaml:", "standard input:")
    found = run("validate", "overrides", "-f", file, "-o", "json")
    assert found.status == 1
    assert found.json["valid"] is False
    assert [f"{one['file']}:{one['line']}" for one in found.json["problems"]] == [
        ":".join(line.split(":")[:2]) for line in lines
    ]
    assert all(one["message"] for one in found.json["problems"])


def test_one_file_that_is_wrong_makes_the_whole_wrong(run: Run, manifest: Manifest) -> None:
    manifest("", "right.yaml")
    manifest(OVERRIDES, "wrong.yaml")
    ended = run("validate", "overrides", "-f", "wrong.yaml", "-f", "right.yaml")
    assert ended.status == 1
    assert "right.yaml: nothing is wrong with it\n" in ended.out
    ended = run("validate", "overrides", "-f", "right.yaml", "-o", "json")
    assert (ended.status, ended.json) == (0, {"valid": True, "problems": []})


def test_a_file_that_cannot_be_read_is_named(run: Run, manifest: Manifest) -> None:
    assert run("validate", "overrides", "-f", "none").err == "error: none: No such file or directory\n"
    manifest(b"a: b\nc: \xff\n", "latin.yaml")
    ended = run("validate", "overrides", "-f", "latin.yaml")
    assert (ended.status, ended.err) == (1, "error: latin.yaml:2: this is not UTF-8\n")
    assert run("validate", "overrides").status == 2


def test_what_somebody_wrote_does_not_speak_to_the_terminal(run: Run, manifest: Manifest) -> None:
    manifest('toolsets: {"\\e]0;x\\a": 7}\n', "a\x1b.yaml")
    ended = run("validate", "overrides", "-f", "a\x1b.yaml")
    assert ended.status == 1
    assert ended.out.replace("\n", "").isprintable()
