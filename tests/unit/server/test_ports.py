"""The ports: where they are bound, where they can be reached, and what is said when they cannot be had."""

import socket
from pathlib import Path

import pytest

from dynamic_toolset.server.ports import CannotListen, Port, Ports
from dynamic_toolset.settings import ServerSettings, TlsFiles

TLS = Path(__file__).parents[1] / "kube" / "tls"
NO_TLS = TlsFiles()
GOOD = TlsFiles(str(TLS / "first.crt"), str(TLS / "first.key"))


def port(address: str = "127.0.0.1", number: int = 0, tls: TlsFiles = NO_TLS) -> Port:
    return Port(address, number, tls, name="server.port", tls_name="server.tls")


@pytest.mark.parametrize(
    ("address", "family", "reached"),
    [
        ("127.0.0.1", socket.AF_INET, "http://127.0.0.1:"),
        ("0.0.0.0", socket.AF_INET, "http://localhost:"),
        ("::1", socket.AF_INET6, "http://[::1]:"),
        ("::", None, "http://localhost:"),
    ],
)
def test_a_port_is_open_at_once_and_says_where(address: str, family: int | None, reached: str) -> None:
    if address == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    opened = port(address)
    try:
        assert opened.url.startswith(reached)
        assert int(opened.url.rpartition(":")[2]) > 0
        assert family is None or opened.socket.family == family
        host = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(address, address)
        with socket.create_connection((host, opened.socket.getsockname()[1]), timeout=5):
            pass  # it waits in the queue, though nobody serves yet
    finally:
        opened.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_every_address_means_both_families() -> None:
    opened = port("::")
    try:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, opened.socket.getsockname()[1]), timeout=5).close()
    finally:
        opened.close()


def test_a_port_that_is_taken_names_its_setting() -> None:
    taken = port()
    number = taken.socket.getsockname()[1]
    try:
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1 port {number}: .*in use \(setting server\.port\)"):
            port(number=number)
        with pytest.raises(CannotListen, match=r"setting server\.metricsPort"):
            Ports(ServerSettings(address="127.0.0.1", port=0, metrics_port=number))
    finally:
        taken.close()


def test_an_address_of_somebody_else_names_its_setting() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on 192\.0\.2\.1 port 0: .* \(setting server\.port\)"):
        port("192.0.2.1")


def test_a_port_that_is_given_up_can_be_had_again() -> None:
    settings = ServerSettings(address="127.0.0.1", port=0, metrics_port=0)
    first = Ports(settings)
    number = first.api.socket.getsockname()[1]
    first.close()
    port(number=number).close()


def test_when_the_second_port_cannot_be_had_the_first_is_given_up() -> None:
    taken, free = port(), port()
    number = free.socket.getsockname()[1]
    free.close()
    try:
        with pytest.raises(CannotListen):
            Ports(ServerSettings(address="127.0.0.1", port=number, metrics_port=taken.socket.getsockname()[1]))
        port(number=number).close()
    finally:
        taken.close()


def test_with_a_certificate_it_is_https() -> None:
    opened = port(tls=GOOD)
    assert opened.url.startswith("https://127.0.0.1:")
    opened.close()


@pytest.mark.parametrize("key", ["nowhere.key", "second.key", "first.crt"])
def test_a_certificate_that_cannot_be_used_names_its_setting(key: str) -> None:
    with pytest.raises(CannotListen, match=rf"{key} cannot be used: .+ \(setting server\.tls\)"):
        port(tls=TlsFiles(str(TLS / "first.crt"), str(TLS / key)))
