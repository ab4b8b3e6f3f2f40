"""HTTP requests of the harness, in the standard library: it must not stand on the code that it helps to test."""

import json
import ssl
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """The answer to a request, whatever its status."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout: float = 10.0,
) -> Answer:
    """Send one request over a connection of its own. Raises OSError where there is no answer. Knows no proxies."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        HTTPSConnection(host, port, timeout=timeout, context=tls)
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=timeout)
    )
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    with closing(connection):
        try:
            connection.request(method, target or "/", body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except HTTPException as error:
            raise ConnectionError(f"{method} {url}: {error!r}") from error


def answers(url: str, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether a GET is answered with 200 now."""
    try:
        return request("GET", url, tls=tls).status == 200
    except OSError:
        return False
