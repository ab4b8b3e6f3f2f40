"""A certificate that is read again when its files change, and taken over as a whole or not at all."""

import asyncio
import ssl
from pathlib import Path

import structlog

from dynamic_toolset.files import read_regular, stamp

log = structlog.get_logger()

PERIOD = 10.0
"""Seconds between two looks at the files."""


class Certificate:
    """The TLS of a port: 1.2 or newer. What cannot be read later is said, while the last good one stays in use.

    Raises OSError (which ssl.SSLError is) if the files cannot be used at the start.
    """

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._cert, self._key = Path(cert_file), Path(key_file)
        self._seen = self._stamps()
        self.context = self._current = self._load()
        # Files that change while they are read, chain and key apart, could spoil a context that is in use. So each
        # handshake is handed the one that was last read in full; OpenSSL calls this also where no name is asked for.
        self.context.sni_callback = self._hand_over

    async def watch(self) -> None:
        """Take over what the files say when they change, for every handshake from then on."""
        while True:
            await asyncio.sleep(PERIOD)
            self.look()

    def look(self) -> None:
        """Take over what the files say, if they changed since the last look."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._current = self._load()
        except OSError as error:
            log.warning(
                "certificate_unusable", file=str(self._cert), message=f"{error}; the last good one stays in use"
            )
        else:
            log.info("certificate_renewed", file=str(self._cert))

    def _load(self) -> ssl.SSLContext:
        for file in (self._cert, self._key):
            read_regular(file, 0)  # OpenSSL would wait for a pipe, and with it everybody
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A key that needs a password is an error, and no question to whoever sits at the terminal.
        context.load_cert_chain(self._cert, self._key, password="")
        return context

    def _hand_over(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _asked: ssl.SSLContext) -> None:
        connection.context = self._current

    def _stamps(self) -> tuple[object, ...]:
        """Return what tells the files from what was there before, also where a link is swapped, as a kubelet does."""
        return stamp(self._cert), stamp(self._key)
