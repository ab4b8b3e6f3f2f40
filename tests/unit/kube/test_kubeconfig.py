"""A kubeconfig that somebody hands over is data, or it is refused in words that hold nothing of it."""

import base64
from pathlib import Path
from typing import Any

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import ConfigurationError, ConnectionFailed
from dynamic_toolset.kube.kubeconfig import connect
from dynamic_toolset.kube.objects import ObjectMeta, Secret, Service
from dynamic_toolset.kube.resources import SERVICES
from tests.unit.kube.fault_server import TLS, FaultServer, server_context

SECRET = "s3cr3t-value-that-nobody-may-see"


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def kubeconfig(cluster: Any = None, user: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://api.example.com:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **more,
    }


async def test_what_is_data_is_followed():
    cluster = {"tls-server-name": "kubernetes", "proxy-url": "http://proxy.example.com:3128"}
    connection = connect(kubeconfig(cluster, {"token": "abc\n"}))
    assert (connection.server, connection.namespace) == ("https://api.example.com:6443", "shop")
    assert (connection.server_name, connection.proxy) == ("kubernetes", "http://proxy.example.com:3128")
    assert await connection.headers() == {"Authorization": "Bearer abc"}


def test_without_a_current_context_the_only_one_is_meant():
    assert connect(kubeconfig(**{"current-context": ""})).namespace == "shop"


def test_a_proxy_on_the_way_may_be_plain_http_to_loopback():
    assert connect(kubeconfig({"server": "http://127.0.0.1:8001/"})).server == "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "it is no kubeconfig"),
        ([], "it is no kubeconfig"),
        (SECRET, "it is no kubeconfig"),
        ({}, "current-context is missing"),
        ({"contexts": [SECRET]}, "contexts[0].context is no mapping"),
        ({"current-context": 5}, "current-context of the kubeconfig is no text"),
        (kubeconfig(**{"current-context": "other"}), "there is no context 'other' in contexts"),
        (kubeconfig(contexts={"c": {}}), "there is no context 'c' in contexts"),
        (kubeconfig(contexts=[{"name": "c", "context": SECRET}]), "the context 'c' is no mapping"),
        (kubeconfig(clusters=None), "there is no cluster 'k' in clusters"),
        (kubeconfig(users=[{"name": "u"}]), "the user 'u' is no mapping"),
        # Nothing is run, and no file of ours is read.
        (kubeconfig(user={"exec": {"command": SECRET}}), "exec of the user is not followed: a program is not run"),
        (kubeconfig(user={"auth-provider": {"name": SECRET}}), "auth-provider of the user"),
        (kubeconfig(user={"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}), "names a file"),
        (kubeconfig(user={"client-certificate": SECRET}), "use client-certificate-data"),
        (kubeconfig(user={"client-key": SECRET}), "use client-key-data"),
        (kubeconfig({"certificate-authority": SECRET}), "use certificate-authority-data"),
        (kubeconfig({"insecure-skip-tls-verify": True}), "the API must prove who it is"),
        (kubeconfig(user={"username": "u", "password": SECRET}), "username of the user is not followed"),
        (kubeconfig(user={"as": SECRET}), "impersonation is not supported"),
        # Nowhere else is anything sent.
        (kubeconfig({"server": "http://api.example.com"}), "server of the cluster is not https"),
        (kubeconfig({"server": "http://127.0.0.1.example.com"}), "server of the cluster is not https"),
        (
            kubeconfig({"server": f"http://127.0.0.1/{SECRET}", "proxy-url": "http://169.254.169.254"}),
            "could be read by its proxy",
        ),
        (kubeconfig({"server": f"https://u:{SECRET}@api.example.com"}), "server of the cluster holds a user"),
        (kubeconfig({"server": f"https://api.example.com/?{SECRET}"}), "more than an address and a path"),
        (kubeconfig({"server": f"file:///{SECRET}"}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": f"https://api.example.com:{SECRET}"}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": f"https://api\n{SECRET}"}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": ""}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": [SECRET]}), "server of the cluster is no text"),
        (kubeconfig({"proxy-url": f"http://u:{SECRET}@proxy:1"}), "proxy-url of the cluster holds a user"),
        (kubeconfig({"proxy-url": f"socks5://{SECRET}"}), "proxy-url of the cluster is no http or https URL"),
        # What nobody could look up, nor show to a server.
        (kubeconfig({"server": f"https://{SECRET}..example.com"}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": "https://."}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": "https://" + "a" * 64}), "server of the cluster is no http or https URL"),
        (kubeconfig({"server": f"https://a\\{SECRET}"}), "server of the cluster is no http or https URL"),
        (kubeconfig({"proxy-url": f"http://{SECRET}..a"}), "proxy-url of the cluster is no http or https URL"),
        (kubeconfig({"tls-server-name": f".{SECRET}"}), "tls-server-name of the cluster is no name of a host"),
        (kubeconfig({"tls-server-name": f"{SECRET}\0"}), "tls-server-name of the cluster is no name of a host"),
        # What is wrong in itself.
        (kubeconfig(user={"token": f"a\nb{SECRET}"}), "the token of the user has characters that no token has"),
        (kubeconfig(user={"token": {"a": SECRET}}), "token of the user is no text"),
        (kubeconfig({"certificate-authority-data": "?" + SECRET}), "is not base64"),
        (kubeconfig({"certificate-authority-data": data(TLS / "first.key")}), "holds no certificate"),
        (kubeconfig({"certificate-authority-data": "/////w=="}), "holds no certificate"),
        (kubeconfig(user={"client-key-data": data(TLS / "first.key")}), "belong together"),
        (
            kubeconfig(
                user={"client-certificate-data": data(TLS / "first.crt"), "client-key-data": data(TLS / "second.key")}
            ),
            "no certificate and the key that belongs to it",
        ),
    ],
)
def test_anything_else_is_refused_and_the_reason_quotes_no_value(content, why):
    with pytest.raises(ConfigurationError) as raised:
        connect(content)
    assert why in str(raised.value)
    assert SECRET not in str(raised.value)
    assert len(str(raised.value)) < 300
    assert str(raised.value).isprintable()


async def test_the_api_must_have_the_certificate_that_the_kubeconfig_says_or_nothing_is_sent():
    async with FaultServer(server_context("first")) as api:
        for name in ("first", "second"):
            there = {"server": api.url, "certificate-authority-data": data(TLS / f"{name}.crt")}
            async with Client(connect(kubeconfig(there, {"token": "abc"}))) as client:
                if name == "first":
                    await client.list(SERVICES, Service)
                else:
                    with pytest.raises(ConnectionFailed, match="certificate verify failed"):
                        await client.list(SERVICES, Service)


def test_a_client_certificate_is_taken_from_memory_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    user = {"client-certificate-data": data(TLS / "first.crt"), "client-key-data": data(TLS / "first.key")}
    connect(kubeconfig(user=user))
    monkeypatch.delattr("os.memfd_create")
    connect(kubeconfig(user=user))
    assert not list(tmp_path.iterdir())


def test_an_encrypted_key_asks_nobody_for_its_password(capfd):
    encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBvTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG9w0BBQwwHAQI\n-----END"
    user = {
        "client-certificate-data": data(TLS / "first.crt"),
        "client-key-data": base64.b64encode(encrypted.encode()).decode(),
    }
    with pytest.raises(ConfigurationError):
        connect(kubeconfig(user=user))
    assert capfd.readouterr() == ("", "")


def test_a_secret_shows_nothing_of_what_is_in_it():
    assert SECRET not in repr(Secret(ObjectMeta("a", "b"), {"kubeconfig": SECRET}))


async def test_a_client_sends_what_follows_over_another_connection():
    async with FaultServer() as first, FaultServer() as second, Client(static(first.url)) as client:
        await client.list(SERVICES, Service)
        client.reconnect(static(second.url))
        assert client.server == second.url
        await client.list(SERVICES, Service)
        assert [len(api.requests) for api in (first, second)] == [1, 1]
