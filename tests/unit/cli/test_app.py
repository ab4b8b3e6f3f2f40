"""The options, the help, and how the program ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynamic_toolset import __version__
from dynamic_toolset.cli import explain
from tests.unit.cli.conftest import PROMETHEUS, WEB, Run

PROGRAM = [sys.executable, "-m", "dynamic_toolset"]
COMMANDS = ("run", "discover", "generate", "explain", "get", "diff", "refresh", "validate", "config", "demo")
BELOW = ("get services", "get toolset", "get config", "validate overrides")


def test_the_version(run: Run) -> None:
    assert run("--version").out == f"dynamic-toolset {__version__}\n"


def test_without_arguments_it_shows_its_commands(run: Run) -> None:
    ended = run()
    assert ended.status == 2
    for command in COMMANDS:
        assert f"\n  {command} " in ended.out + ended.err


@pytest.mark.parametrize("command", COMMANDS + BELOW)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help_with_examples(run: Run, command: str, option: str) -> None:
    ended = run(*command.split(), option)
    assert ended.status == 0
    assert f"Usage: dynamic-toolset {command} " in ended.out
    assert "Examples:" in ended.out
    assert f"dynamic-toolset {command}" in ended.out.partition("Examples:")[2]


@pytest.mark.parametrize("command", ["check", "show", "schema"])
def test_every_command_of_the_settings_has_help_with_examples(run: Run, command: str) -> None:
    ended = run("config", command, "--help")
    assert ended.status == 0
    assert f"dynamic-toolset config {command}" in ended.out.partition("Examples:")[2]


def test_an_unknown_command_and_an_unknown_option_are_wrong_calls(run: Run) -> None:
    assert (run("observe").status, run("discover", "--loud").status) == (2, 2)


# --- Settings and catalog: the same for every command ---------------------------------------------------------------


def test_the_settings_file_may_be_named_in_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text("clusterDomain: file.example\nendpointHost: dns\n")
    monkeypatch.setenv("DYNAMIC_TOOLSET_CONFIG", "settings.yaml")
    ended = run("explain", "-f", "-", "-o", "json", stdin=PROMETHEUS)
    assert ended.json["services"][0]["endpoint"] == "http://prometheus.monitoring.svc.file.example:9090"
    monkeypatch.setenv("DYNAMIC_TOOLSET_CLUSTER_DOMAIN", "environment.example")
    ended = run("explain", "-f", "-", "-o", "json", stdin=PROMETHEUS)
    assert ended.json["services"][0]["endpoint"] == "http://prometheus.monitoring.svc.environment.example:9090"


def test_an_empty_variable_names_no_settings_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMIC_TOOLSET_CONFIG", "")
    assert run("explain", "-f", "-", stdin=WEB).status == 0


def test_a_misspelt_variable_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMIC_TOOLSET_CLUSTERDOMAIN", "x")
    ended = run("explain", "-f", "-", stdin=WEB)
    assert ended.status == 1
    assert ended.err.startswith("error: DYNAMIC_TOOLSET_CLUSTERDOMAIN: no such setting; there are DYNAMIC_TOOLSET_D")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "healthCheck.timeout=soon"], "error: healthCheck.timeout: expected a duration such as 500ms"),
        (["--set", "catalogFolder=nowhere"], "error: nowhere"),
        (["--config", "nowhere.yaml"], "error: nowhere.yaml: No such file or directory"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["discover"], ["explain", "a/b"]])
def test_wrong_settings_are_refused_before_a_cluster_is_looked_for(
    run: Run, command: list[str], options: list[str], message: str
) -> None:
    # There is no cluster here either: that would be the complaint, were it looked for first.
    ended = run(*command, *options)
    assert ended.status == 1
    assert ended.err.startswith(message)


@pytest.mark.parametrize("command", [["run"], ["discover"], ["explain", "a/b"]])
def test_without_a_cluster_it_says_what_was_tried(run: Run, command: list[str]) -> None:
    ended = run(*command)
    assert ended.status == 1
    assert ended.err.startswith("error: no Kubernetes API found: not in a cluster: KUBERNETES_SERVICE_HOST and ")
    assert "~/.kube/config" in ended.err


# --- How it ends ----------------------------------------------------------------------------------------------------


def test_an_interrupt_from_the_keyboard_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explain, "run_files", interrupted)
    assert run("explain", "-f", "-").status == 130


def test_a_mistake_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(explain, "run_files", mistaken)
    with pytest.raises(KeyError, match="ours"):
        run("explain", "-f", "-")


@pytest.mark.parametrize("services", [1, 20_000], ids=["less than a buffer", "more than a pipe holds"])
def test_a_reader_that_leaves_is_no_mistake(tmp_path: Path, services: int) -> None:
    names = [{"kind": "Service", "metadata": {"name": f"s{number}"}} for number in range(services)]
    (tmp_path / "services.json").write_text(json.dumps({"kind": "List", "items": names}))
    command = [*PROGRAM, "explain", "-f", "services.json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 1


# --- As a user starts it --------------------------------------------------------------------------------------------


def test_as_a_module_and_in_a_pipe(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*PROGRAM, "generate", "-f", "-", "-o", "generic"], input=PROMETHEUS.encode(), capture_output=True, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["tools"][0]["endpoint"] == "http://prometheus.monitoring.svc.cluster.local:9090"


def test_standard_input_is_utf_8_whatever_the_locale() -> None:
    text = WEB.replace("name: web", "name: wéb")
    ended = subprocess.run(
        [*PROGRAM, "explain", "-f", "-", "-o", "json"],
        input=text.encode(),
        capture_output=True,
        timeout=30,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert json.loads(ended.stdout)["services"][0]["name"] == "wéb"


@pytest.mark.parametrize("command", ["config schema", "config show", "config show -o json"])
@pytest.mark.parametrize(
    ("output", "said"),
    [(">&-", ""), (">/dev/full", "error: the output cannot be written: No space left on device\n"), (">&- 2>&-", "")],
)
def test_what_cannot_be_printed_is_no_mistake_of_ours(command: str, output: str, said: str) -> None:
    shell = ["sh", "-c", f'"$0" "$@" {output}', *PROGRAM, *command.split()]
    ended = subprocess.run(shell, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (1 if said else 0, said)


@pytest.mark.parametrize("command", ["config check -", "validate overrides -f -", "explain -f -"])
def test_an_input_that_is_closed_is_said_to_be(command: str) -> None:
    shell = ["sh", "-c", '"$0" "$@" <&-', *PROGRAM, *command.split()]
    ended = subprocess.run(shell, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "the standard input is closed" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_what_the_locale_cannot_show_is_written_as_its_code(tmp_path: Path, output: str) -> None:
    (tmp_path / "settings.yaml").write_text("toolset: {base: {a: {description: 'wéb → ☃'}}}\n")
    command = [*PROGRAM, "config", "show", "--config", "settings.yaml", "-o", output]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, timeout=30, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"w" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        # Start-up time is a property of the product: a service needs neither tables nor a kubeconfig's reader.
        (["run", "--set", "clusterDomain=_"], ["rich", "kubernetes", "dynamic_toolset.sandbox"]),
        (["run"], ["rich", "dynamic_toolset.sandbox"]),
        (["--help"], ["rich", "kubernetes", "aiohttp", "yaml", "structlog"]),
        (["get", "services", "--help"], ["rich", "kubernetes", "aiohttp", "yaml", "structlog"]),
        (["get", "services", "--url", "http://127.0.0.1:1"], ["kubernetes", "litestar", "dynamic_toolset.sandbox"]),
        (["validate", "overrides", "-f", "/dev/null"], ["aiohttp", "kubernetes", "litestar"]),
        (["explain", "-f", "/dev/null"], ["kubernetes", "dynamic_toolset.sandbox"]),
    ],
    ids=["run, refused", "run, without a cluster", "help", "help of a command", "get", "validate", "explain"],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], unwanted: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from dynamic_toolset.cli import main\n"
        "try: main()\n"
        "finally: print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={"HOME": str(tmp_path)},
    )
    imported = set(ended.stderr.splitlines())
    assert "dynamic_toolset.cli.app" in imported
    assert imported.isdisjoint(unwanted)
