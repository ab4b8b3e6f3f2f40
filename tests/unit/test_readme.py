"""What the README shows is what happens: each of its commands is run by a test, and its output compared."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dynamic_toolset.discovery import annotations
from dynamic_toolset.settings import load
from tests.documentation import DOCS, PAGES, README, ROOT, Command, blocks, commands, shows, table

CRD = "tests/e2e/test_crd.py"
LIVE = "tests/integration/test_readme_live.py"
CLI = "tests/integration/test_cli_live.py"

# What needs a cluster, or takes longer, and the test that runs it.
ELSEWHERE = {
    "make demo": f"{CLI}::test_the_demo_tells_its_story_as_the_readme_shows_and_ends_with_the_configmap",
    "dynamic-toolset discover": f"{LIVE}::test_discover_is_as_shown",
    "dynamic-toolset explain monitoring/grafana": f"{LIVE}::test_explain_is_as_shown",
    "kubectl apply --server-side -f deploy/crd.yaml": f"{CRD}::installed",
    "kubectl apply -f toolsetconfig.yaml": f"{CRD}::test_a_refusal_reads_as_the_guide_shows",
    "dynamic-toolset run --kubeconfig ~/.kube/config --set configMap.namespace=holmes": f"{LIVE}::test_run_as_shown",
}
PAGES_WITH_COMMANDS = (README, DOCS / "overrides.md", DOCS / "service-types.md", DOCS / "configuration-by-resource.md")


def without_a_cluster() -> list[Command]:
    found = [command for page in PAGES_WITH_COMMANDS for command in commands(page)]
    return [one for one in found if one.line not in ELSEWHERE and "dynamic-toolset" in one.line.split()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the documentation speaks of, and the programs that its commands call."""
    (tmp_path / "services.yaml").write_text(example("# services.yaml"))
    (tmp_path / "settings.yaml").write_text("discoveryInterval: 10m\n")
    (tmp_path / "overrides.yaml").write_text("toolsets: {kubernetes/logs: null}\n")
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "pyroscope.yaml").write_text(example("# catalog/pyroscope.yaml"))
    services = {"kind": "List", "items": list(yaml.safe_load_all(example("# services.yaml")))}
    programs = tmp_path / "bin"
    programs.mkdir()
    _program(programs / "dynamic-toolset", f'exec {sys.executable} -m dynamic_toolset "$@"')
    _program(programs / "kubectl", f"test \"$*\" = 'get services -A -o json' && echo '{json.dumps(services)}'")
    return tmp_path


def example(first_line: str) -> str:
    """Return the YAML block of the documentation that starts with this comment."""
    found = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
    return next(block.text for block in found if block.text.startswith(first_line))


def _program(file: Path, line: str) -> None:
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("command", without_a_cluster(), ids=lambda command: command.line)
def test_a_command_that_needs_no_cluster_does_what_is_shown(command: Command, folder: Path) -> None:
    environ = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(
        ["sh", "-c", command.line], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout
    if command.output is not None:
        assert shows(command.output, ended.stdout), ended.stdout


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_every_command_is_one_that_a_test_runs(page: Path) -> None:
    here = {command.line for command in without_a_cluster()}
    for command in commands(page):
        # What kubectl does with a ConfigMap is not ours to test.
        if not command.line.startswith(("make ", "kubectl -n ")):
            assert command.line in here | ELSEWHERE.keys()


def test_every_test_that_is_said_to_run_a_command_is_there() -> None:
    for name in ELSEWHERE.values():
        file, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("command", sorted({c.line for c in commands(README) if c.line.startswith("make ")}))
def test_every_make_command_has_a_target(command: str) -> None:
    program, *targets = command.split()
    subprocess.run([program, "--dry-run", *targets], cwd=ROOT, check=True, capture_output=True, timeout=30)


def test_make_shows_every_target_that_the_readme_speaks_of() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30).stdout
    for target in {command.line.split()[1] for command in commands(README) if command.line.startswith("make ")}:
        assert f"  make {target} " in shown


def test_the_first_screen_has_the_two_commands_and_the_picture() -> None:
    first, second, third, *_ = blocks(README)
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["make demo", "make test"]
    assert "ConfigMap" in second.text
    assert third.text.startswith("$ make demo\n")
    assert third.line < 35


def test_the_annotations_are_those_that_the_program_knows() -> None:
    known = {
        *(annotations.TOOLSET, annotations.TYPE, annotations.NAME, annotations.ENDPOINT),
        *(annotations.PORT, annotations.SCHEME, annotations.PATH, annotations.HEALTH_PATH),
    }
    for page in (README, DOCS / "service-types.md"):
        assert {row[0].strip("`") for row in table(page, "annotation")} == known


def test_the_deployment_is_set_up_as_the_program_reads_it() -> None:
    text = next(block.text for block in blocks(README) if "kind: Deployment" in block.text)
    deployment = yaml.safe_load(text)
    pod = deployment["spec"]["template"]["spec"]
    accounts = yaml.safe_load_all(next(blocks(DOCS / "permissions.md")).text)
    assert pod["serviceAccountName"] == next(accounts)["metadata"]["name"]
    (container,) = pod["containers"]
    settings = load(None, {one["name"]: one["value"] for one in container["env"]})
    assert settings.config_map.namespace == deployment["metadata"]["namespace"]
