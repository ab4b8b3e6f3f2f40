"""No secret gets into the log, wherever in an event it is."""

import base64
import json
import time
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dynamic_toolset.cli import logs
from dynamic_toolset.cli.masking import HIDDEN, MAX_TEXT, mask, text, traceback

SECRETS = st.text(st.sampled_from("ABCDEFabcdefghij0123456789_-"), min_size=12, max_size=60)

AROUND = (
    "Authorization: Bearer {}",
    "authorization: Negotiate {}",
    "{{'Authorization': 'Bearer {}'}}",
    '{{"authorization":"Basic {}"}}',
    "(b'authorization', b'Bearer {}')",
    "invalid bearer {}",
    "Cookie: session={}; theme=dark",
    "https://user:{}@host.example/path",
    "https://{}@host.example",
    "redis://:{}@host:6379/0",
    "https://host/path?access_token={}&page=2",
    "https://host/path?page=2&api_key={}",
    "password={}",
    "password: '{}'",
    'PASSWORD="{}"',
    "{{'client_secret': '{}'}}",
    '{{"token": "{}"}}',
    "apiKey: {}",
    "X-Api-Key: {}",
    "X-Dynamic-Toolset-Token: {}",
    "{{'X-Dynamic-Toolset-Token': '{}'}}",
    "(b'x-dynamic-toolset-token', b'{}')",
    "eyJhbGciOiJSUzI1NiJ9.{}.c2ln",
    "prefix-eyJhbGciOiJSUzI1NiJ9.{}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}",
)

NAMES = ("token", "access_token", "password", "userPassword", "secret", "client-secret", "Authorization", "apiKey",
         "api_key", "credentials", "Set-Cookie", "privateKey", "bearer")  # fmt: skip


def line(**fields: Any) -> str:
    event: Any = mask(None, "info", {"event": "published", "level": "info", "timestamp": "now", **fields})
    return str(logs._render_json(None, "info", event))


NESTED = (lambda one: one, lambda one: [one], lambda one: {"a": {"b": (one,)}}, lambda one: {one: 1})


@example("s3cr3t/abc", AROUND[-1], "cookie=", "", NESTED[0])
@example("s3cr3t/abc", AROUND[-2], "token:", "", NESTED[0])
@given(SECRETS, st.sampled_from(AROUND), st.text(max_size=50), st.text(max_size=50), st.sampled_from(NESTED))
def test_a_secret_is_known_by_what_stands_around_it(
    secret: str, around: str, before: str, after: str, nested: Any
) -> None:
    assume(secret not in before + after)
    assert secret not in line(message=nested(f"{before} {around.format(secret)} {after}"))
    assert secret not in line(exception=f"Traceback\n  {before}\nOSError: {around.format(secret)} {after}")


@given(SECRETS, st.sampled_from(NAMES), st.sampled_from(NESTED))
def test_a_secret_is_known_by_the_name_of_its_field(secret: str, name: str, nested: Any) -> None:
    assert secret not in line(**{name: nested(secret)})
    assert secret not in line(request={name: nested(secret)})
    assert secret not in line(**{name: secret.encode()})


@given(SECRETS, st.sampled_from(AROUND), st.integers(0, 100))
def test_a_secret_that_the_end_of_a_long_text_cuts_is_hidden_all_the_same(secret: str, around: str, back: int) -> None:
    long = "." * (MAX_TEXT - back) + " " + around.format(secret) + " " + "." * MAX_TEXT
    said = line(message=long)
    assert secret[:12] not in said


def test_the_rest_of_a_text_can_still_be_read() -> None:
    assert text("GET https://me:pw@host/path failed") == f"GET https://{HIDDEN}@host/path failed"
    assert text("?access_token=abcdef&page=2") == f"?access_token={HIDDEN}&page=2"
    assert text('{"token": "abc def", "type": "x"}') == f'{{"token": {HIDDEN}, "type": "x"}}'


@pytest.mark.parametrize(
    "harmless",
    [
        "monitoring/prometheus",
        "http://prometheus.monitoring.svc.cluster.local:9090",
        "a bearer token is needed",
        "the token is not valid, or not for the audience dynamic-toolset",
        "HTTP 401: needs credentials",
        "tokenreviews: HTTP 403: forbidden",
        "Secret shop/grafana: not found",
        "kubectl label --overwrite configmap --namespace a b app.kubernetes.io/managed-by=dynamic-toolset",
        "mail@example.com asked http://host:80/a",
        "eyJ is how they begin",
    ],
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    assert text(harmless) == harmless


def test_yes_no_and_nothing_are_no_secrets() -> None:
    assert json.loads(line(needs_credentials=True, token=None))["needs_credentials"] is True


def test_a_real_token_of_a_service_account_is_hidden() -> None:
    parts = [{"alg": "RS256", "kid": "x"}, {"aud": ["dynamic-toolset"], "sub": "system:serviceaccount:a:b"}]
    token = (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".sig"
    )
    assert text(f"cannot use {token}") == f"cannot use {HIDDEN}"


UNITS = ("token", "token:", "token:'", 'token="', "bearer x", "://", "://a@", "eyJ", "eyJaaaaaaaaa.", "a.eyJ.", "=:@ a",
         "-----BEGIN PRIVATE KEY-----", "authorization:", "cookie ", "secret   ", "x")  # fmt: skip


def test_no_text_takes_long() -> None:
    """Twice the length takes about twice the time, at worst 30 ms: what a caller sends must not stop the service."""
    for one, other in product(UNITS, repeat=2):
        hostile = (one + other) * 10_000
        began = time.process_time()
        text(hostile)
        traceback(hostile)
        assert time.process_time() - began < 0.5, (one, other)
