"""The ports, opened before anything else: who asks early waits in the queue, instead of being refused."""

import socket

from dynamic_toolset.server.tls import Certificate
from dynamic_toolset.settings import ServerSettings, TlsFiles

BACKLOG = 1024


class CannotListen(Exception):
    """A port, or its certificate, cannot be used. The message says which, why, and which setting names it."""


class Port:
    """A port that is open: connections queue until somebody serves it. A number of 0 takes one that is free.

    The address ``::`` stands for every one, of either family where there are two. ``name`` is that of its setting.
    Raises CannotListen.
    """

    def __init__(self, address: str, number: int, tls: TlsFiles, *, name: str, tls_name: str) -> None:
        self.certificate: Certificate | None = None
        if tls.cert_file and tls.key_file:
            try:
                self.certificate = Certificate(tls.cert_file, tls.key_file)
            except OSError as error:
                files = f"{tls.cert_file} and {tls.key_file}"
                raise CannotListen(f"{files} cannot be used: {error.strerror or error} (setting {tls_name})") from None
        try:
            self.socket = _open(address, number)
        except OSError as error:
            why = error.strerror or str(error)
            raise CannotListen(f"cannot listen on {address} port {number}: {why} (setting {name})") from None

    @property
    def url(self) -> str:
        """Where it can be reached from this machine; the number is the real one, also where any would do."""
        address, number = self.socket.getsockname()[:2]
        host = {"::": "localhost", "0.0.0.0": "localhost"}.get(address, address)  # noqa: S104 - every address
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://[{host}]:{number}" if ":" in host else f"{scheme}://{host}:{number}"

    def close(self) -> None:
        """Give the port up."""
        self.socket.close()


class Ports:
    """The two ports of the service. Raises CannotListen."""

    def __init__(self, settings: ServerSettings) -> None:
        address = settings.bound
        self.api = Port(address, settings.port, settings.tls, name="server.port", tls_name="server.tls")
        try:
            self.metrics = Port(
                address,
                settings.metrics_port,
                settings.metrics_tls,
                name="server.metricsPort",
                tls_name="server.metricsTls",
            )
        except CannotListen:
            self.api.close()
            raise

    def close(self) -> None:
        """Give both up."""
        self.api.close()
        self.metrics.close()


def _open(address: str, number: int) -> socket.socket:
    if address == "::" and not socket.has_dualstack_ipv6():
        address = "0.0.0.0"  # noqa: S104 - every address is what was asked for
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named. Without it the body of an answer, which is sent apart
    # from its header, waits 40 ms for the reader's delayed acknowledgement of that.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        opened.bind((address, number))
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened
