"""What a Secret says of another cluster is read in bounded time, and nothing of it is told."""

import base64
import time

import pytest

from dynamic_toolset.controller.clusters import _connection
from dynamic_toolset.kube.errors import ConfigurationError

SECRET = "s3cr3t"

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def test_a_kubeconfig_is_yaml_or_json():
    text = """
        apiVersion: v1
        kind: Config
        preferences: {}
        current-context: ""
        contexts: [{name: a, context: {cluster: a, user: b}}]
        clusters: [{name: a, cluster: {server: "https://api.example.com", extensions: []}}]
        users: [{name: b, user: {token: abc}}]
    """
    assert _connection(encoded(text)).server == "https://api.example.com"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("?", "it is no text in UTF-8"),
        (encoded(b"\xff\xfe"), "it is no text in UTF-8"),
        ("", "it is no kubeconfig"),
        (encoded(f"token: {SECRET}\n  x: [{SECRET}"), "line "),
        (encoded(f"a: 1\na: {SECRET}"), "line 2 is not YAML that can be used"),
        (encoded(f"a: !!python/object:os.system {SECRET}"), "line 1 is not YAML that can be used"),
        (encoded(BOMB), "is not YAML that can be used"),
        (encoded(MERGES), "is not YAML that can be used"),
        (encoded("[" * 100_000), "is not YAML that can be used"),
        (encoded("a" * 1_000_000), "is not YAML that can be used"),
    ],
)
def test_anything_else_is_refused_soon_and_nothing_of_it_is_told(value: str, why: str):
    began = time.thread_time()
    with pytest.raises(ConfigurationError) as raised:
        _connection(value)
    assert why in str(raised.value)
    assert SECRET not in str(raised.value)
    assert time.thread_time() - began < 2
