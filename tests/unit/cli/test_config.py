"""``dynamic-toolset config``: check, show, schema."""

import json
from collections.abc import Callable

import pytest
import yaml

from dynamic_toolset.definition import crd
from dynamic_toolset.settings.model import leaves
from dynamic_toolset.settings.schema import json_schema
from tests.command import Ended
from tests.unit.cli.conftest import Run

RESOURCE = """\
apiVersion: toolset.kubernaut.io/v1alpha1
kind: ToolsetConfig
metadata: {name: mine}
spec:
  paused: true
  clusterDomain: resource.example
  healthCheck: {timeout: 9s}
"""

Write = Callable[..., str]


class TestCheck:
    def test_a_right_file(self, run: Run, manifest: Write) -> None:
        ended = run("config", "check", manifest("paused: true\n", "settings.yaml"))
        assert ended == Ended(0, "settings.yaml: nothing is wrong with it\n", "")

    def test_every_mistake_at_once_with_its_line(self, run: Run, manifest: Write) -> None:
        text = "healthCheck:\n  timeout: soon\n  intervall: 5\nserver: {port: 99999}\n"
        ended = run("config", "check", manifest(text, "settings.yaml"))
        assert ended.status == 1
        assert ended.out.splitlines() == [
            "settings.yaml:2: healthCheck.timeout: expected a duration such as 500ms, 5s or 1m30s",
            "settings.yaml:3: healthCheck.intervall: unknown field `intervall`; did you mean `interval`?",
            "settings.yaml:4: server.port: expected `int` <= 65535",
        ]

    def test_standard_input(self, run: Run) -> None:
        ended = run("config", "check", "-", stdin="paused: [")
        assert (ended.status, ended.out.partition(": not")[0]) == (1, "standard input:2")
        assert run("config", "check", "-", stdin="").status == 0

    def test_as_json(self, run: Run) -> None:
        wrong = run("config", "check", "-", "-o", "json", stdin="paused: 7")
        assert wrong.status == 1
        assert wrong.json["problems"] == [
            {"file": "-", "line": 1, "field": "paused", "message": "expected `bool`, got `int`"}
        ]
        assert run("config", "check", "-", "-o", "json", stdin="").json == {"valid": True, "problems": []}

    def test_a_toolset_config(self, run: Run) -> None:
        assert run("config", "check", "-", stdin=RESOURCE).status == 0
        ended = run("config", "check", "-", stdin=RESOURCE.replace("paused: true", "server: {}"))
        assert ended.out == (
            "standard input:5: spec.server: belongs to the process: set it in its file, environment or options\n"
        )

    def test_service_types_are_those_of_the_catalog_that_is_named(self, run: Run, manifest: Write) -> None:
        text = "policy: {trustedTypes: [pyroscope]}\n"
        assert "there is no service type 'pyroscope'" in run("config", "check", "-", stdin=text).out
        elsewhere = run("config", "check", "-", stdin=text + "catalogFolder: /etc/elsewhere\n")
        assert elsewhere.status == 0
        assert elsewhere.err == "warning: /etc/elsewhere is not here: names of service types are not checked\n"
        assert run("config", "check", "-", stdin=text + f"catalogFolder: {'a' * 256}\n").status == 0
        wrong = run("config", "check", "-", "--catalog", "nowhere", stdin=text)
        assert (wrong.status, wrong.err.startswith("error: nowhere")) == (1, True)

    @pytest.mark.parametrize("content", [b"a: \xff\n", None])
    def test_what_cannot_be_read(self, run: Run, manifest: Write, content: bytes | None) -> None:
        name = manifest(content, "settings.yaml") if content else "nowhere.yaml"
        ended = run("config", "check", name)
        assert (ended.status, ended.out) == (1, "")
        assert ended.err in (
            "error: settings.yaml:1: this is not UTF-8\n",
            "error: nowhere.yaml: No such file or directory\n",
        )


class TestShow:
    def test_every_setting_with_its_value_and_source(
        self, run: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = manifest("healthCheck: {timeout: 3s, interval: 7s}\nclusterDomain: file.example\n", "settings.yaml")
        resource = manifest(RESOURCE, "resource.yaml")
        monkeypatch.setenv("DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT", "4s")
        command = ("config", "show", "-c", file, "--set", "server.port=1", "--resource", resource)
        plain = run(*command, "-o", "json").json
        assert [row["name"] for row in plain["settings"]] == [path for path, _ in leaves()]
        rows = {row["name"]: (row["value"], row["source"]) for row in plain["settings"]}
        variable = {"kind": "environment", "name": "DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT"}
        assert rows["healthCheck.timeout"] == ("4s", variable)
        assert rows["healthCheck.interval"] == ("7s", {"kind": "file", "name": "settings.yaml"})
        assert rows["clusterDomain"] == ("resource.example", {"kind": "resource", "name": "mine"})
        assert rows["paused"] == (True, {"kind": "resource", "name": "mine"})
        assert rows["server.port"] == (1, {"kind": "option"})
        assert rows["dryRun"] == (False, {"kind": "default"})
        assert yaml.safe_load(run(*command, "-o", "yaml").out) == plain
        table = [line.split() for line in run(*command).out.splitlines()]
        assert table[0] == ["SETTING", "VALUE", "SOURCE"]
        assert ["paused", "true", "resource", "mine"] in table
        assert ["healthCheck.timeout", "4s", "environment", variable["name"]] in table

    def test_secrets_are_masked(self, run: Run, manifest: Write) -> None:
        file = manifest("toolset: {base: {a: {config: {api_key: hunter2}}}}", "settings.yaml")
        for output in ("table", "json", "yaml"):
            ended = run("config", "show", "-c", file, "-o", output)
            assert "hunter2" not in ended.out
            assert "***" in ended.out

    def test_wrong_settings_are_told(self, run: Run) -> None:
        ended = run("config", "show", "--set", "paused=perhaps")
        assert (ended.status, ended.err) == (1, "error: paused: expected `bool`, got `str`\n")

    @pytest.mark.parametrize("metadata", ["mine", "", "[mine]", "{}", "{name: }", "{name: 5}"])
    def test_metadata_is_left_to_the_api_server(self, run: Run, metadata: str) -> None:
        head = "apiVersion: toolset.kubernaut.io/v1alpha1\nkind: ToolsetConfig\n"
        text = f"{head}metadata: {metadata}\nspec: {{paused: true}}\n"
        rows = run("config", "show", "--resource", "-", "-o", "json", stdin=text).json["settings"]
        assert next(row["source"]["kind"] for row in rows if row["name"] == "paused") == "resource"

    def test_a_wrong_resource_is_told_with_its_lines(self, run: Run) -> None:
        ended = run("config", "show", "--resource", "-", stdin=RESOURCE.replace("9s", "0s"))
        assert (ended.status, ended.err) == (1, "error: -:7: spec.healthCheck.timeout: must be at least 1s, not 0s\n")
        ended = run("config", "show", "--resource", "-", stdin="paused: true")
        assert (ended.status, ended.err) == (1, "error: -: this is no ToolsetConfig\n")


class TestSchema:
    def test_of_the_file(self, run: Run) -> None:
        assert json.loads(run("config", "schema").out) == json_schema()

    def test_of_the_resource(self, run: Run) -> None:
        assert yaml.safe_load(run("config", "schema", "--crd").out) == crd.definition()
