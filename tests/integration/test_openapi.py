"""The OpenAPI document, and schemathesis: everything that the document allows, and more, is asked of a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from dynamic_toolset.server.access import PREFIX
from dynamic_toolset.server.app import describe
from tests.integration.sandboxed import NAMESPACE, until
from tests.integration.serving import AUDIENCE, Background, in_thread

TOKEN = "ann-1"

DOCUMENT: dict[str, Any] = json.loads(describe(needs_token=True))

OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}

CONFIGURATION = """\
[checks]
enabled = true

# Its answer has no end. What comes over it is tested in test_server.py.
[[operations]]
include-path = "/api/v1/events"
enabled = false

# Its body is a text, any text. What is no text for schemathesis, an object say, it writes as YAML, which is one.
[[operations]]
include-path = "/api/v1/validate"
checks.negative_data_rejection.enabled = false
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Background]:
    with in_thread(server={"auth": "token"}) as served:
        cluster = served.cluster
        cluster.sandbox.add_token(TOKEN, "ann", audiences=[AUDIENCE])
        cluster.sandbox.allow("ann", f"{PREFIX}/*", "*")
        for name in ("a", "b", "c"):
            served.run(cluster.add(name))
        served.run(cluster.add("metrics", kind="prometheus"))
        served.run(until(lambda: cluster.listed == {"a", "b", "c", "metrics"}))
        yield served


def test_schemathesis_finds_nothing(served: Background, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    command = [
        *(Path(sys.executable).with_name("schemathesis"), f"--config-file={configuration}", "run"),
        *(f"{served.base_url}/openapi.json", "--max-examples=15", "--seed=1", "--no-color"),
        *(f"--header=Authorization: Bearer {TOKEN}", "--request-timeout=20", "--wait-for-schema=10"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in ended.stdout, ended.stdout
    assert f"Tested: {len(OPERATIONS) - 1}" in ended.stdout


# --- The document ----------------------------------------------------------------------------------------------------


def test_the_document_is_openapi_3_1_and_the_same_each_time(served: Background) -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert describe(needs_token=True) == describe(needs_token=True)
    code = "from dynamic_toolset.server import app; print(app.describe(needs_token=True).decode())"
    command = [sys.executable, "-c", code]
    in_another_process = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert json.loads(in_another_process) == DOCUMENT
    answer = served.run(served.served.get("/openapi.json"))
    assert (answer.status, answer.json) == (200, DOCUMENT)
    assert answer.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    etag = {"if-none-match": answer.headers["etag"]}
    assert served.run(served.served.get("/openapi.json", headers=etag)).status == 304


def test_the_document_names_every_operation_once() -> None:
    assert sorted(OPERATIONS) == [
        "GET /api/v1/config",
        "GET /api/v1/diff",
        "GET /api/v1/events",
        "GET /api/v1/history",
        "GET /api/v1/services",
        "GET /api/v1/services/{namespace}/{name}",
        "GET /api/v1/statistics",
        "GET /api/v1/toolset",
        "GET /api/v1/toolsets",
        "GET /api/v1/toolsets/{name}",
        "GET /healthz",
        "GET /readyz",
        "POST /api/v1/config/reload",
        "POST /api/v1/discover",
        "POST /api/v1/validate",
    ]
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_does_and_who_may_call_it(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["description"]
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation.get("security", [{}]) == ([{"bearer": []}] if "/api/" in name else [{}])
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], parameter["name"]


def test_without_tokens_nobody_is_told_to_bring_one() -> None:
    open_to_all = json.loads(describe(needs_token=False))
    operations = [operation for item in open_to_all["paths"].values() for operation in item.values()]
    assert all(operation.get("security", [{}]) == [{}] for operation in operations)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_has_an_example_that_is_one(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        assert answer["description"]
        for media_type, content in answer.get("content", {}).items():
            examples = [one["value"] for one in content.get("examples", {}).values()]
            assert examples, f"{status} as {media_type} has no example"
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            for example in examples:
                Draft202012Validator(schema).validate(example)
            if status[0] in "45" and "/api/" in name:
                assert media_type == "application/problem+json"
                assert [one["status"] for one in examples] == [int(status)]


def test_every_body_has_an_example() -> None:
    bodies = {name: one["requestBody"] for name, one in OPERATIONS.items() if "requestBody" in one}
    assert set(bodies) == {"POST /api/v1/validate"}
    assert all(content["example"] for content in bodies["POST /api/v1/validate"]["content"].values())


def test_real_answers_are_as_the_document_says(served: Background) -> None:
    for path, item in DOCUMENT["paths"].items():
        if "get" not in item or path == "/api/v1/events":
            continue
        filled = path.format(
            namespace=NAMESPACE, name=NAMESPACE and ("a" if "namespace" in path else "kubernetes/core")
        )
        answer = served.run(served.served.get(filled, headers={"authorization": f"Bearer {TOKEN}"}))
        assert answer.status == 200, path
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = {
            **item["get"]["responses"]["200"]["content"][media_type]["schema"],
            "components": DOCUMENT["components"],
        }
        Draft202012Validator(schema).validate(answer.json if media_type == "application/json" else answer.body.decode())
