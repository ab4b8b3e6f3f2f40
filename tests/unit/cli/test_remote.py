"""What a refusal of the running service, or on the way to it, tells a person to do; and what the options may say."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dynamic_toolset.cli.remote import Where, refused
from dynamic_toolset.kube.client import Passed
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.server.problems import FieldError, Refusal, encode
from tests.unit.cli.conftest import Run


def of_service(status: int, detail: str, *errors: FieldError) -> Passed:
    body = encode(Refusal(status, detail, errors=errors), instance="/api/v1/services", request_id="7")
    return Passed(status, "", "application/problem+json", body)


def of_api_server(code: int, reason: str, message: str) -> Passed:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return Passed(code, reason, "application/json", json.dumps(body).encode())


PROXIED = Where(service="holmes/toolset", port="http")
DIRECT = Where(url="http://127.0.0.1:8080")

# What kube-apiserver 1.36 and the service say, and what must be in the sentence that a person reads.
REFUSALS: list[tuple[Passed, dict[str, Any], list[str]]] = [
    (of_service(401, "a bearer token is needed"), {}, ["--service-account", "--token-file", "docs/permissions.md"]),
    (of_service(401, "the token is not valid"), {"has_token": True}, ["the token is not valid", "--audience"]),
    (
        of_service(403, "user 'system:serviceaccount:a:b' cannot get path '/dynamic-toolset/api/v1/services'"),
        {"has_token": True},
        ["system:serviceaccount:a:b", "ClusterRole", "nonResourceURLs", "/dynamic-toolset/api/v1/*"],
    ),
    (of_service(403, "this is answered under a name of this machine only"), {}, ["a name of this machine"]),
    (of_service(404, "there is nothing here"), {}, ["another version", "Service holmes/toolset"]),
    (of_service(429, "100 requests a minute are allowed; try again in 12 s"), {}, ["try again in 12 s"]),
    (of_service(503, "nothing has been decided yet"), {}, ["nothing has been decided yet"]),
    (of_service(400, "this does not fit", FieldError("health", "is none")), {}, ["this does not fit; health: is none"]),
    (Passed(500, "", "application/problem+json", b"<oops>"), {}, ["500"]),
    (of_api_server(401, "Unauthorized", "Unauthorized"), {}, ["--kubeconfig", "--context"]),
    (
        of_api_server(403, "Forbidden", 'services "http:toolset:http" is forbidden: User "ann" cannot get resource'),
        {},
        ['User "ann"', "namespace holmes", "verb get on services/proxy", "port-forward service/toolset", "--url"],
    ),
    (
        of_api_server(403, "Forbidden", 'services "http:toolset:http" is forbidden: User "ann" cannot create'),
        {"method": "POST"},
        ["verb create on services/proxy"],
    ),
    (of_api_server(404, "NotFound", 'services "toolset" not found'), {}, ["no Service holmes/toolset", "--service"]),
    (
        of_api_server(503, "ServiceUnavailable", 'no endpoints available for service "http:toolset:http"'),
        {},
        ["no ready Pod at port http", "kubectl -n holmes get pods", "--port"],
    ),
    (of_api_server(503, "ServiceUnavailable", 'no service port 81 found for service "toolset"'), {}, ["--port"]),
    (
        of_api_server(503, "ServiceUnavailable", "error trying to reach service: dial tcp 10.0.0.1:80: i/o timeout"),
        {},
        ["10.0.0.1:80: i/o timeout", "network policy", "port-forward"],
    ),
    (
        of_api_server(503, "ServiceUnavailable", "error trying to reach service: EOF"),
        {},
        ["give --tls"],
    ),
    (
        of_api_server(
            503, "", "error trying to reach service: tls: first record does not look like a TLS handshake"
        ),
        {"where": Where(tls=True)},
        ["leave out --tls"],
    ),
    (of_api_server(502, "BadGateway", "something else"), {}, ["502", "something else", "port-forward"]),
    (Passed(502, "Bad Gateway", "text/html", b"<h1>a proxy</h1>"), {"where": DIRECT}, ["502 Bad Gateway", "address"]),
    (of_api_server(404, "NotFound", "the server could not find"), {"where": DIRECT}, ["404", "http://127.0.0.1:8080"]),
    (Passed(302, "Found", "", b""), {"where": DIRECT}, ["302 Found"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "how", "said"), REFUSALS, ids=lambda value: getattr(value, "body", b"")[:60].decode()
)
def test_a_refusal_says_what_to_do_in_a_sentence_or_two(answer: Passed, how: dict[str, Any], said: list[str]) -> None:
    how = {"where": PROXIED, "method": "GET", "has_token": False, **how}
    told = refused(answer, how["where"], how["method"], has_token=how["has_token"])
    for words in said:
        assert words in told
    assert len(told) < 450
    assert "\n" not in told


def test_where_the_service_is() -> None:
    assert Where().target == "/api/v1/namespaces/kubernaut-system/services/http%3Adynamic-toolset%3A8080/proxy"
    assert Where(service="one").key == ObjectKey("kubernaut-system", "one")
    there = Where(service="holmes/one", port="web", tls=True)
    assert there.target == "/api/v1/namespaces/holmes/services/https%3Aone%3Aweb/proxy"
    assert Where(service="holmes/one", service_account="sre").account == ObjectKey("holmes", "sre")
    assert Where(service_account="ops/sre").account == ObjectKey("ops", "sre")
    assert Where().account is None


@pytest.mark.parametrize(
    "wrong",
    [
        ["--url", "localhost:8080"],
        ["--url", "ftp://localhost"],
        ["--url", "http://localhost/?a=b"],
        ["--url", "http://"],
        ["--url", "http://[::1"],
        ["--url", "http://localhost:http"],
        ["--url", "http://localhost:99999"],
        ["--url", "http://@"],
        ["--service", "a/b/c"],
        ["--service", "../b"],
        ["--service", ""],
        ["--port", "80/proxy"],
        ["--service-account", "a:b"],
        ["--token-file", "a", "--service-account", "b"],
        ["-o", "xml"],
    ],
)
@pytest.mark.parametrize("command", [["get", "services"], ["get", "toolset"], ["get", "config"], ["diff"], ["refresh"]])
def test_an_option_that_cannot_be_meant_is_a_wrong_call(run: Run, command: list[str], wrong: list[str]) -> None:
    ended = run(*command, *wrong)
    assert (ended.status, ended.out) == (2, "")
    assert "Error: " in ended.err


def test_all_services_and_some_decisions_exclude_each_other(run: Run) -> None:
    assert run("get", "services", "--all", "--decision", "ignored").status == 2


@pytest.mark.parametrize("command", [["get", "services"], ["get", "toolset"], ["get", "config"], ["refresh"]])
def test_where_nothing_answers_it_is_said(run: Run, command: list[str]) -> None:
    ended = run(*command, "--url", "http://127.0.0.1:1")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error: ")
    assert "port-forward" in ended.err


@pytest.mark.parametrize("url", ["http://a..example.com", f"http://{'a' * 64}", "http://a\\b"])
def test_an_address_that_cannot_be_asked_is_no_mistake_of_ours(run: Run, url: str) -> None:
    ended = run("get", "config", "--url", url)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error: GET /api/v1/config: ")


def test_no_password_of_an_address_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://ann:hunter2@127.0.0.1:1"
    assert str(Where(url=url)) == "http://***@127.0.0.1:1"
    assert "hunter2" not in run("get", "config", "--url", url).err
    monkeypatch.setenv("DYNAMIC_TOOLSET_TOKEN", "anything")
    ended = run("get", "config", "--url", url)
    assert ended.err.startswith("error: ")
    assert "hunter2" not in ended.err


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"items": [{}], "continue": ""}', b"[" * 100_000])
@pytest.mark.parametrize("command", ["get services", "get toolset", "get config", "diff", "refresh", "refresh --wait"])
def test_a_stranger_that_speaks_json_is_no_mistake_of_ours(run: Run, command: str, body: bytes) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name is theirs

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        ended = run(*command.split(), "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (ended.status, ended.out) == (2 if command == "diff" else 1, "")
    assert ended.err.startswith("error: what answers at http://127.0.0.1")


@pytest.mark.parametrize("options", [["--url", "http://127.0.0.1:1"], []])
def test_a_diff_that_did_not_work_is_neither_yes_nor_no(run: Run, options: list[str]) -> None:
    ended = run("diff", *options)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: ")


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", "naïve".encode()])
def test_a_file_without_a_token_is_refused_before_anything_is_sent(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    ended = run("get", "config", "--url", "http://127.0.0.1:1", "--token-file", "token")
    assert (ended.status, ended.err) == (1, "error: token holds no token\n")
    assert run("get", "config", "--url", "http://127.0.0.1:1", "--token-file", "none").err == (
        "error: none: No such file or directory\n"
    )


def test_the_variable_of_the_token_is_no_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMIC_TOOLSET_TOKEN", "anything")
    assert run("explain", "-f", "-").status == 0
