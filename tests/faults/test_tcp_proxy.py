"""The TCP proxy does what it says: a proxy that does nothing would let every fault test pass."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.tcp_proxy import Address, TcpProxy
from tests.waiting import eventually


@pytest.fixture
def echo() -> Iterator[Address]:
    """The address of a server that says what is said to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65536):
                        connection.sendall(data)
                except OSError:
                    pass

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=[connection], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(echo: Address) -> Iterator[TcpProxy]:
    with TcpProxy(echo) as proxy:
        yield proxy


def connect(wire: TcpProxy) -> socket.socket:
    return socket.create_connection(wire.address, timeout=20)


def say(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(65536)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(20)


def test_it_carries_bytes_both_ways_and_the_end_of_each(wire: TcpProxy) -> None:
    with connect(wire) as connection:
        assert say(connection, b"hello") == b"hello"
        assert (wire.accepted, wire.connections) == (1, 1)
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"last words"
        assert connection.recv(100) == b""
    eventually(lambda: wire.connections == 0)


def test_large_amounts_arrive_whole(wire: TcpProxy) -> None:
    sent = bytes(range(256)) * 20_000
    with connect(wire) as connection:
        threading.Thread(target=connection.sendall, args=[sent], daemon=True).start()
        received = b""
        while len(received) < len(sent):
            received += connection.recv(1 << 20)
    assert received == sent


def test_a_cut_breaks_the_connections_and_new_ones_work(wire: TcpProxy) -> None:
    with connect(wire) as connection:
        assert say(connection, b"hello") == b"hello"
        wire.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(wire) as connection:
        assert say(connection, b"again") == b"again"


def test_a_frozen_connection_stays_open_and_carries_nothing_more(wire: TcpProxy) -> None:
    with connect(wire) as frozen:
        assert say(frozen, b"hello") == b"hello"
        wire.freeze()
        frozen.sendall(b"lost")
        assert is_silent(frozen)
        with connect(wire) as connection:
            assert say(connection, b"new") == b"new"
        assert is_silent(frozen)
        wire.cut()


def test_while_silent_also_new_connections_are_accepted_and_carry_nothing(wire: TcpProxy) -> None:
    with connect(wire) as old:
        assert say(old, b"hello") == b"hello"
        with wire.silent(), connect(wire) as new:
            for connection in (old, new):
                connection.sendall(b"late")
                assert is_silent(connection)
        assert old.recv(100) == b"late"


def test_while_it_refuses_nobody_gets_in_and_the_address_stays(wire: TcpProxy, echo: Address) -> None:
    with connect(wire) as connection:
        assert say(connection, b"hello") == b"hello"
        with wire.refusing():
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
            with pytest.raises(ConnectionRefusedError):
                connect(wire)
            with pytest.raises(OSError, match="in use"):
                socket.create_server(wire.address)
    with connect(wire) as connection:
        assert say(connection, b"again") == b"again"


def test_a_throttle_slows_answers_down(wire: TcpProxy) -> None:
    wire.bytes_per_second = 100
    with connect(wire) as connection:
        started = time.monotonic()
        connection.sendall(b"x" * 50)
        received = b""
        while len(received) < 50:
            received += connection.recv(100)
        assert 0.4 < time.monotonic() - started < 10


def test_where_nobody_listens_behind_it_a_connection_breaks() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        with TcpProxy(place.getsockname()) as wire, connect(wire) as connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
