import json
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import (
    TOKEN_LIFETIME,
    Connection,
    Files,
    Tls,
    TokenFile,
    discover,
    from_kubeconfig,
    in_cluster,
    static,
)
from dynamic_toolset.kube.errors import ConfigurationError, ConnectionFailed
from dynamic_toolset.kube.objects import Service
from dynamic_toolset.kube.resources import SERVICES
from tests.unit.kube.fault_server import TLS, FaultServer, server_context

IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    """A ServiceAccount volume as the kubelet mounts it."""
    (tmp_path / "token").write_text("one\n")
    (tmp_path / "ca.crt").write_bytes((TLS / "first.crt").read_bytes())
    (tmp_path / "namespace").write_text("kubernaut-system")
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    """Replace a file as the kubelet does: another file under the same name."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.rename(path)


# --- In the cluster -------------------------------------------------------------------------------------------------


async def test_in_cluster(service_account):
    connection = in_cluster(service_account, IN_A_POD)
    assert connection.server == "https://10.0.0.1:443"
    assert connection.namespace == "kubernaut-system"
    assert await connection.headers() == {"Authorization": "Bearer one"}
    assert isinstance(connection.ssl(), ssl.SSLContext)


def test_in_cluster_with_ipv6(service_account):
    environ = IN_A_POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert in_cluster(service_account, environ).server == "https://[fd00::1]:443"


@pytest.mark.parametrize("content", [None, ""])
def test_without_a_namespace_file_it_is_default(service_account, content):
    (service_account / "namespace").unlink()
    if content is not None:
        (service_account / "namespace").write_text(content)
    assert in_cluster(service_account, IN_A_POD).namespace == "default"


@pytest.mark.parametrize("environ", [{}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}])
def test_outside_of_a_pod_says_what_was_looked_for(service_account, environ):
    with pytest.raises(ConfigurationError, match="KUBERNETES_SERVICE_HOST"):
        in_cluster(service_account, environ)


@pytest.mark.parametrize("file", ["token", "ca.crt"])
def test_a_missing_file_is_named(service_account, file):
    (service_account / file).unlink()
    with pytest.raises(ConfigurationError, match=str(service_account / file)):
        in_cluster(service_account, IN_A_POD)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words\x00", b"t\xc3\xb6ken", b"\xff\xfe", b"one\ntwo"])
def test_what_is_no_token_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigurationError):
        TokenFile(tmp_path / "token")


# --- Tokens rotate --------------------------------------------------------------------------------------------------


async def test_the_token_is_read_again_after_a_minute(service_account):
    clock = Clock()
    token = TokenFile(service_account / "token", clock=clock)
    replace(service_account / "token", b"two")
    clock.now += TOKEN_LIFETIME - 1
    assert await token.authorization(refresh=False) == "Bearer one"
    clock.now += 1
    assert await token.authorization(refresh=False) == "Bearer two"


async def test_the_token_is_read_again_when_it_was_refused(service_account):
    connection = in_cluster(service_account, IN_A_POD)
    replace(service_account / "token", b"two")
    assert await connection.headers() == {"Authorization": "Bearer one"}
    assert await connection.headers(refresh=True) == {"Authorization": "Bearer two"}
    assert await connection.headers() == {"Authorization": "Bearer two"}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("")])
async def test_the_last_token_stays_while_the_file_is_no_good(service_account, damage: Callable[[Path], Any]):
    connection = in_cluster(service_account, IN_A_POD)
    damage(service_account / "token")
    assert await connection.headers(refresh=True) == {"Authorization": "Bearer one"}
    (service_account / "token").write_text("two")
    assert await connection.headers(refresh=True) == {"Authorization": "Bearer two"}


# --- TLS ------------------------------------------------------------------------------------------------------------


async def test_a_replaced_ca_is_trusted_without_a_restart(service_account):
    async with FaultServer(server_context("first")) as first, FaultServer(server_context("second")) as second:
        connection = static(first.url, ca_file=service_account / "ca.crt")
        async with Client(connection) as client:
            await client.list(SERVICES, Service)
            connection.server = second.url
            with pytest.raises(ConnectionFailed, match="certificate verify failed"):
                await client.list(SERVICES, Service)
            replace(service_account / "ca.crt", (TLS / "second.crt").read_bytes())
            await client.list(SERVICES, Service)


def test_the_same_ca_in_a_new_file_keeps_the_connections(service_account, monkeypatch):
    tls = Tls(Files(ca=service_account / "ca.crt"))
    before = tls.context()
    replace(service_account / "ca.crt", (TLS / "first.crt").read_bytes())
    assert tls.context() is before
    monkeypatch.setattr(Path, "read_bytes", None)  # read once, it is only looked at
    assert tls.context() is before


def test_certificates_of_old_clusters_are_accepted():
    context = Tls(Files(ca=TLS / "first.crt")).context()
    assert isinstance(context, ssl.SSLContext)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nhalf"])
def test_a_half_replaced_ca_leaves_the_last_good_one(service_account, content):
    ca = service_account / "ca.crt"
    tls = Tls(Files(ca=ca))
    before = tls.context()
    ca.unlink()
    if content is not None:
        ca.write_bytes(content)
    assert tls.context() is before
    replace(ca, (TLS / "second.crt").read_bytes())
    assert tls.context() is not before


def test_a_ca_that_never_was_one_is_an_error(tmp_path):
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        static("https://127.0.0.1", ca_file=tmp_path / "ca.crt")


@pytest.mark.parametrize("verify", [True, False])
def test_without_files_aiohttp_decides(verify):
    assert Tls(Files(verify=verify)).context() is verify


async def test_the_name_in_the_certificate_can_be_stated():
    async with FaultServer(server_context("first")) as api:
        tls = Files(ca=TLS / "first.crt")
        async with Client(Connection(api.url, tls=tls, server_name="kubernetes.test")) as client:
            await client.list(SERVICES, Service)
        async with Client(Connection(api.url, tls=tls, server_name="elsewhere.test")) as client:
            with pytest.raises(ConnectionFailed, match=r"elsewhere\.test"):
                await client.list(SERVICES, Service)


# --- Stated address -------------------------------------------------------------------------------------------------


async def test_static():
    connection = static("http://127.0.0.1:8001/", namespace="apps")
    assert (connection.server, connection.namespace) == ("http://127.0.0.1:8001", "apps")
    assert await connection.headers() == {}
    assert await static("http://127.0.0.1", token="t").headers(refresh=True) == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    "server", ["", "127.0.0.1:8001", "ftp://host", "https://", "https://[::1", "https://a:b", "https://a:99999"]
)
def test_an_address_that_is_no_url_is_refused(server):
    with pytest.raises(ConfigurationError, match="http or https URL"):
        static(server)


def test_a_proxy_that_aiohttp_cannot_use_is_refused():
    with pytest.raises(ConfigurationError, match="socks5"):
        Connection("https://127.0.0.1", proxy="socks5://127.0.0.1:1080")


# --- Kubeconfig -----------------------------------------------------------------------------------------------------


def kubeconfig(tmp_path: Path, user: dict[str, Any], **cluster: Any) -> str:
    """Write a kubeconfig with the contexts ``one`` (current, namespace ``apps``) and ``two``."""
    path = tmp_path / "config"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "local", "user": "me", "namespace": "apps"}},
            {"name": "two", "context": {"cluster": "other", "user": "me"}},
        ],
        "clusters": [
            {"name": "local", "cluster": {"server": "https://127.0.0.1:6443"} | cluster},
            {"name": "other", "cluster": {"server": "http://127.0.0.1:8001"}},
        ],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    """Neither a cluster nor a user's kubeconfig nor a proxy around the test."""
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


async def test_kubeconfig_with_a_token(tmp_path):
    connection = from_kubeconfig(kubeconfig(tmp_path, {"token": "secret"}))
    assert (connection.server, connection.namespace) == ("https://127.0.0.1:6443", "apps")
    assert await connection.headers() == {"Authorization": "Bearer secret"}


def test_kubeconfig_with_another_context(tmp_path):
    connection = from_kubeconfig(kubeconfig(tmp_path, {}), "two")
    assert (connection.server, connection.namespace) == ("http://127.0.0.1:8001", "default")


async def test_kubeconfig_with_certificates(tmp_path):
    user = {"client-certificate": str(TLS / "first.crt"), "client-key": str(TLS / "first.key")}
    context = server_context("second")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(TLS / "first.crt")
    async with FaultServer(context) as api:
        ca = {"certificate-authority": str(TLS / "second.crt")}
        path = kubeconfig(tmp_path, user, server=api.url, **ca)
        async with Client(from_kubeconfig(path)) as client:
            await client.list(SERVICES, Service)
        async with Client(from_kubeconfig(kubeconfig(tmp_path, {}, server=api.url, **ca))) as client:
            with pytest.raises(ConnectionFailed):
                await client.list(SERVICES, Service)


async def test_kubeconfig_may_switch_verification_off(tmp_path):
    async with FaultServer(server_context("first")) as api:
        path = kubeconfig(tmp_path, {}, server=api.url, **{"insecure-skip-tls-verify": True})
        async with Client(from_kubeconfig(path)) as client:
            await client.list(SERVICES, Service)


def test_an_unverified_server_may_still_ask_for_a_certificate():
    files = Files(certificate=TLS / "first.crt", key=TLS / "first.key", verify=False)
    context = Tls(files).context()
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_NONE


async def test_an_exec_plugin_is_asked_again_after_a_401(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    program = (
        "import json, pathlib, os;"
        f"p = pathlib.Path({str(counter)!r}); n = int(p.read_text()) + 1; p.write_text(str(n));"
        "version = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['apiVersion'];"
        "print(json.dumps(dict(kind='ExecCredential', apiVersion=version, status=dict(token=f'token-{n}'))))"
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", program],
        "interactiveMode": "Never",
    }
    connection = from_kubeconfig(kubeconfig(tmp_path, {"exec": plugin}))
    assert await connection.headers() == {"Authorization": "Bearer token-1"}
    assert await connection.headers() == {"Authorization": "Bearer token-1"}
    assert await connection.headers(refresh=True) == {"Authorization": "Bearer token-2"}


async def test_credentials_that_cannot_be_renewed_are_our_error(tmp_path):
    path = kubeconfig(tmp_path, {"token": "secret"})
    connection = from_kubeconfig(path)
    Path(path).unlink()
    with pytest.raises(ConfigurationError, match="cannot be renewed"):
        await connection.headers(refresh=True)


def test_kubeconfig_with_a_proxy(tmp_path, monkeypatch):
    path = kubeconfig(tmp_path, {}, **{"proxy-url": "http://127.0.0.1:3128"})
    assert from_kubeconfig(path).proxy == "http://127.0.0.1:3128"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert from_kubeconfig(path).proxy is None


@pytest.mark.parametrize("content", ["", "just text", "a: [", json.dumps({"contexts": []}), "{}"])
def test_a_kubeconfig_that_is_none_is_our_error(tmp_path, content):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=str(path)):
        from_kubeconfig(str(path))


def test_an_unknown_context_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="three"):
        from_kubeconfig(kubeconfig(tmp_path, {}), "three")


def test_without_the_package_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dynamic-toolset\[kubeconfig\]'"):
        from_kubeconfig(kubeconfig(tmp_path, {}))


# --- Which one ------------------------------------------------------------------------------------------------------


def test_what_is_stated_comes_first(tmp_path, monkeypatch):
    path = kubeconfig(tmp_path, {})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert discover(path, None).server == "https://127.0.0.1:6443"
    monkeypatch.setenv("KUBECONFIG", path)
    assert discover(None, "two").server == "http://127.0.0.1:8001"


def test_outside_of_a_cluster_the_users_kubeconfig_is_taken(tmp_path, monkeypatch):
    path = Path(kubeconfig(tmp_path, {}))
    monkeypatch.setenv("KUBECONFIG", f"/nonexistent{os.pathsep}{path}")
    assert discover().server == "https://127.0.0.1:6443"
    monkeypatch.delenv("KUBECONFIG")
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    path.rename(home / "config")
    assert discover().server == "https://127.0.0.1:6443"


def test_with_nothing_at_all_the_message_says_what_was_tried():
    with pytest.raises(ConfigurationError, match=r"KUBERNETES_SERVICE_HOST.*~/\.kube/config"):
        discover()
