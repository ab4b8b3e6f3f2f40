"""Every version that an object had, for as long as a ``with`` block."""

import json
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Self
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster
from tests.waiting import eventually

_LONGEST = 24 * 3600


class History:
    """Watches one object of a collection. ``versions`` are those that it had since the start, in order.

    Where it was deleted there is None.
    """

    def __init__(self, cluster: Cluster, collection: str, name: str) -> None:
        self.versions: list[dict[str, Any] | None] = []
        self._cluster = cluster
        self._collection = collection
        self._selector = f"fieldSelector=metadata.name={name}"
        self._over = threading.Event()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        listed = self._list()
        self.versions += listed["items"]
        url = urlsplit(self._cluster.url)
        connection = HTTPSConnection(
            str(url.hostname), url.port, context=ssl.create_default_context(cafile=self._cluster.ca_file)
        )
        query = f"watch=true&resourceVersion={listed['metadata']['resourceVersion']}&timeoutSeconds={_LONGEST}"
        headers = {"Authorization": f"Bearer {self._cluster.admin_token}"}
        with ExitStack() as cleanup:
            cleanup.callback(connection.close)
            connection.request("GET", f"{self._collection}?{self._selector}&{query}", headers=headers)
            running = cleanup.enter_context(ThreadPoolExecutor(1)).submit(self._follow, connection.getresponse())
            cleanup.callback(running.result)
            cleanup.callback(connection.sock.shutdown, socket.SHUT_RDWR)
            cleanup.callback(self._over.set)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def complete(self) -> list[dict[str, Any] | None]:
        """Return all versions up to now."""
        present = next(iter(self._list()["items"]), None)
        eventually(lambda: _version(self.versions[-1] if self.versions else None) == _version(present))
        return list(self.versions)

    def _follow(self, watch: HTTPResponse) -> None:
        assert watch.status == 200, watch.read()
        try:
            for line in watch:
                event = json.loads(line)
                assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
                self.versions.append(None if event["type"] == "DELETED" else event["object"])
        except (OSError, HTTPException):
            if not self._over.is_set():
                raise

    def _list(self) -> Any:
        return self._cluster.get(f"{self._collection}?{self._selector}")


def _version(item: Mapping[str, Any] | None) -> str:
    return "" if item is None else str(item["metadata"]["resourceVersion"])
