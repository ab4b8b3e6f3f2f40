# ruff: noqa: A002 - `type` is the word for what an answer is decoded to
"""A thin client of the Kubernetes API: aiohttp on the wire, msgspec for the decoding.

Every call has a deadline, and every failure is one of the types of :mod:`~dynamic_toolset.kube.errors`. A request that
is refused with 401 is sent once more with fresh credentials. aiohttp sends GET, PUT and DELETE once more when a
connection that was kept alive turns out to be dead; nothing else is retried here.

The protocol: kubernetes.io/docs/reference/using-api/api-concepts/.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from msgspec import Raw, Struct
from yarl import URL

from dynamic_toolset.kube.answers import (
    Lines,
    ObjectList,
    Page,
    Skipped,
    WatchEvent,
    decode_event,
    decode_list,
    decode_object,
    decode_refusal,
    parse_retry_after,
)
from dynamic_toolset.kube.connection import Connection
from dynamic_toolset.kube.errors import (
    AnswerTooLong,
    ConfigurationError,
    ConnectionFailed,
    Gone,
    InvalidAnswer,
    KubernetesError,
    NotFound,
)
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.kube.resources import Resource

__all__ = [
    "Client",
    "ObjectList",
    "Page",
    "Passed",
    "Skipped",
    "Watch",
    "WatchEvent",
]

T = TypeVar("T")

PAGE_SIZE = 500
"""Objects asked for at once, as in client-go: about 1 MB of Services, 4 ms of decoding."""

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer that are read, decompressed. Whoever may create objects can fill a page with large ones: 500 of
1.5 MB are more than our memory. A single object always fits: etcd takes 1.5 MiB by default, the API server 3 MiB in any
case, and of that only annotations (256 KiB) and the data of a ConfigMap (1 MiB) may hold what JSON writes six times as
long. Nor is a watch's line read any further."""

SHRINK = 8
"""By how much the next page is smaller when one was too long."""

LIST_PATIENCE = 6
"""How many times the ordinary deadline a whole list answer may take, as long as its bytes keep coming."""

WATCH_SILENCE = 80.0
"""Seconds of silence after which a watch is taken for dead. The API sends a bookmark about every minute."""

ERROR_BYTES = 64 * 1024
"""How much of an error's body is read. A Status is far smaller; a proxy's error page need not be."""

JSON = "application/json"
PROBLEM = "application/problem+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML


class Passed(NamedTuple):
    """An answer as it came, whatever its status. ``content_type`` is without parameters, in lower case."""

    status: int
    reason: str
    content_type: str
    body: bytes


class _Served(Struct):
    name: str


class _ServedResources(Struct):
    resources: tuple[_Served, ...]


class Client:
    """One API, one connection pool. To be used as an async context manager.

    ``timeout`` is the deadline in seconds of every call, retries included; a list may take :data:`LIST_PATIENCE` times
    as long in all, but never be silent for longer. ``silence`` is the same for a watch.

    Every call raises :class:`~dynamic_toolset.kube.errors.KubernetesError` and nothing else, save ``ValueError`` for a
    name that no object can have.
    """

    def __init__(self, connection: Connection, *, timeout: float = 10.0, silence: float = WATCH_SILENCE) -> None:
        self._connection = connection
        self._timeout = timeout
        self._silence = silence
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def server(self) -> str:
        """The URL of the API."""
        return self._connection.server

    def reconnect(self, connection: Connection) -> None:
        """Send every request from now on over another connection. What is under way goes on over the last one."""
        self._connection = connection

    async def get(self, resource: Resource, key: ObjectKey, type: type[T]) -> T:
        return await self._call("GET", _object_path(resource, key), type)

    async def serves(self, resource: Resource) -> bool:
        """Whether the API knows a kind, which a CustomResourceDefinition may have brought (API discovery)."""
        try:
            found = await self._call("GET", resource.discovery, _ServedResources)
        except NotFound:
            return False
        return any(one.name == resource.plural for one in found.resources)

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any], type: type[T]) -> T:
        """Create an object and return it as the API stored it.

        :raises Conflict: it exists already.
        """
        return await self._call("POST", resource.path(namespace), type, body=body)

    async def apply(
        self,
        resource: Resource,
        key: ObjectKey,
        body: Mapping[str, Any] | bytes,
        type: type[T],
        *,
        field_manager: str,
        force: bool = False,
        subresource: str = "",
    ) -> T:
        """Make the fields of ``body`` so, and own them (server-side apply); create the object if it is not there.

        A ``metadata.resourceVersion`` in ``body`` is a precondition. A ``subresource`` (``status``) is a part of an
        object with permissions of its own, which does not come to be without it.

        :raises Conflict: another manager owns a field (unless ``force``), or the precondition fails.
        """
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = _object_path(resource, key, subresource)
        return await self._call("PATCH", path, type, body=body, content_type=APPLY_PATCH, query=query)

    async def patch(self, resource: Resource, key: ObjectKey, body: Mapping[str, Any], type: type[T]) -> T:
        """Change the fields of ``body`` (JSON merge patch, RFC 7396: null removes)."""
        return await self._call("PATCH", _object_path(resource, key), type, body=body, content_type=MERGE_PATCH)

    async def update(self, resource: Resource, key: ObjectKey, body: Mapping[str, Any], type: type[T]) -> T:
        """Replace the object.

        :raises Conflict: it is no longer at the ``metadata.resourceVersion`` of ``body``.
        """
        return await self._call("PUT", _object_path(resource, key), type, body=body)

    async def delete(self, resource: Resource, key: ObjectKey) -> None:
        """Delete the object. Its finalizers may keep it for a while yet."""
        await self._call("DELETE", _object_path(resource, key), Raw)

    async def create_subresource(
        self, resource: Resource, key: ObjectKey, subresource: str, body: Mapping[str, Any], type: type[T]
    ) -> T:
        """Ask something of an object that makes no other object, such as a token of a ServiceAccount."""
        return await self._call("POST", _object_path(resource, key, subresource), type, body=body)

    async def pass_on(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Passed:
        """Send a request for a path, with its query, and return any answer: another program may have given it.

        That is what the proxies of the API server are for. No status is an error here; a redirect is not followed.
        """
        with _named_errors(f"{method} {target.partition('?')[0]}"):
            async with asyncio.timeout(self._timeout):
                response = await self._exchange(method, target, headers=headers or {}, data=body, silence=self._timeout)
                async with response:
                    content = bytes(await _content(response))
                    return Passed(response.status, response.reason or "", _media_type(response), content)

    async def list(
        self,
        resource: Resource,
        type: type[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        resource_version: str | None = None,
    ) -> ObjectList[T]:
        """Return all objects of a namespace, or of all namespaces. See :meth:`pages`."""
        items: list[T] = []
        skipped: list[Skipped] = []
        version = ""
        async for page in self.pages(
            resource,
            type,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            page_size=page_size,
            resource_version=resource_version,
        ):
            if page.first:
                items.clear()
                skipped.clear()
            items += page.items
            skipped += page.skipped
            version = page.resource_version
        return ObjectList(items, version, tuple(skipped))

    async def pages(
        self,
        resource: Resource,
        type: type[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        resource_version: str | None = None,
    ) -> AsyncIterator[Page[T]]:
        """Yield a list page by page, all of one moment.

        The API is asked for the next page before this one is yielded, so that it works while the consumer does; but
        not after a page that was large, because there would be two of them. A page that is too long is asked for once
        more in smaller pieces. If the API forgets that moment half-way (410), the list begins again, as one page of
        everything unless that is too long. An object that cannot be decoded is in ``skipped``; an answer that is no
        list at all is an error, never an empty list.
        """
        selectors = _selectors(label_selector, field_selector)
        path = resource.path(namespace)
        read = partial(self._read, "GET", path, deadline=self._timeout * LIST_PATIENCE)
        start = {} if resource_version is None else {"resourceVersion": resource_version}
        limit, token = page_size, ""
        whole = restarted = False
        first = True

        def ask() -> asyncio.Task[bytearray]:
            # Without the resourceVersion: the token knows the moment, and the API refuses both together.
            place = {"continue": token} if token else start
            return asyncio.create_task(read(query=selectors | ({} if whole else {"limit": str(limit)}) | place))

        answer = ask()
        try:
            while True:
                try:
                    body = await answer
                except Gone:
                    if first or restarted:
                        raise
                    first = restarted = whole = True
                    token, start = "", {}
                    answer = ask()
                    continue
                except AnswerTooLong:
                    if limit == 1 and not whole:
                        raise
                    limit, whole = max(limit // SHRINK, 1), False
                    answer = ask()
                    continue
                with _named_errors(f"GET {path}"):
                    page, token = decode_list(body, type)
                large = len(body) > MAX_ANSWER // 4
                if large:
                    limit = max(limit // 2, 1)
                elif len(body) < MAX_ANSWER // 8:
                    limit = min(limit * 2, page_size)
                del body  # a megabyte that the consumer of the page has no use for
                if token and not large:
                    answer = ask()
                    await asyncio.sleep(0)  # the request goes out before the consumer takes over
                yield Page(page.items, page.resource_version, page.skipped, first)
                if not token:
                    return
                del page
                first = False
                if large:
                    answer = ask()
        finally:
            answer.cancel()

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> "Watch":
        """Return a watch from ``resource_version`` on, to be entered with ``async with`` and iterated.

        The API ends it after ``timeout_seconds``. ``resource_version`` comes from a list or an earlier event: without
        one the API would send all objects as if they were new and never say which are gone (kubernetes#123448).
        """
        if not resource_version:
            raise ValueError("a watch needs the resourceVersion to start from")
        query = _selectors(label_selector, field_selector)
        query |= {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        path = resource.path(namespace)
        return Watch(path, partial(self._open_watch, path, query), self._silence)

    async def _open_watch(self, path: str, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        with _named_errors(f"WATCH {path}"):
            async with asyncio.timeout(self._timeout):
                return await self._send("GET", path, query=query, silence=self._silence, encoding="identity")

    async def _call(
        self,
        method: str,
        path: str,
        type: type[T],
        *,
        body: Mapping[str, Any] | bytes | None = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> T:
        answer = await self._read(method, path, body=body, content_type=content_type, query=query)
        with _named_errors(f"{method} {path}"):
            return decode_object(answer, type)

    async def _read(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | bytes | None = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> bytearray:
        with _named_errors(f"{method} {path}"):
            async with asyncio.timeout(deadline or self._timeout):
                response = await self._send(
                    method, path, body=body, content_type=content_type, query=query, silence=self._timeout
                )
                async with response:
                    return await _content(response)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        silence: float,
        body: Mapping[str, Any] | bytes | None = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        encoding: str = "gzip",
    ) -> aiohttp.ClientResponse:
        """Return the response to a request that the API accepted, its body still to be read."""
        parameters = f"?{urlencode(query, quote_via=quote)}" if query else ""
        headers = {"Accept": JSON, "Accept-Encoding": encoding}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        response = await self._exchange(method, path + parameters, headers=headers, data=data, silence=silence)
        if response.status < 300:
            return response
        async with response:
            raise await _refusal(response)

    async def _exchange(
        self, method: str, target: str, *, headers: Mapping[str, str], data: bytes | None, silence: float
    ) -> aiohttp.ClientResponse:
        """Return the response to a request, its body still to be read. What is refused with 401 is sent once more."""
        if self._session is None:
            raise RuntimeError("the client is not open: use 'async with Client(...)'")
        url = URL(self._connection.server + target, encoded=True)
        refresh = False
        while True:
            response = await self._session.request(
                method,
                url,
                data=data,
                headers={**headers, **await self._connection.headers(refresh=refresh)},
                ssl=self._connection.ssl(),
                proxy=self._connection.proxy,
                server_hostname=self._connection.server_name,
                allow_redirects=False,  # our token is for this host only
                timeout=aiohttp.ClientTimeout(sock_connect=self._timeout, sock_read=silence),
            )
            # A problem (RFC 9457) is the word of a program behind the API server, which has let us pass.
            if response.status != 401 or refresh or _media_type(response) == PROBLEM:
                return response
            async with response:
                refresh = True


class Watch:
    """An open watch: an async context manager, and in it an iterator of the events in the order in which they come.

    The iteration ends when the API ends the watch. An ``ERROR`` event is raised as the error that it holds, and a line
    that does not come to its end as AnswerTooLong. A last line that was cut off is dropped: it comes again when the
    watch is resumed. ``silence`` is how many seconds may pass without an event, whatever else comes meanwhile.
    """

    def __init__(
        self, path: str, connect: Callable[[], Awaitable[aiohttp.ClientResponse]], silence: float = WATCH_SILENCE
    ) -> None:
        self._path = path
        self._connect = connect
        self._silence = silence
        self._response: aiohttp.ClientResponse | None = None
        self._lines = Lines(MAX_ANSWER)
        self._pending: deque[bytes] = deque()

    async def __aenter__(self) -> Self:
        self._response = await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._response is not None:
            connection = self._response.connection
            if connection is not None and connection.transport is not None:
                # Only a stream that is open still has one. An orderly end of TLS would wait for the other side's word.
                connection.transport.abort()
            self._response.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        if self._response is None:
            raise RuntimeError("the watch is not open: use 'async with client.watch(...)'")
        with _named_errors(f"WATCH {self._path}"):
            if not self._pending:
                async with asyncio.timeout(self._silence):
                    await self._receive(self._response)
            return decode_event(self._pending.popleft())

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        """Wait until a line is complete."""
        while not self._pending:
            chunk = await response.content.readany()
            if not chunk:
                raise StopAsyncIteration
            self._pending.extend(self._lines.feed(chunk))


def _object_path(resource: Resource, key: ObjectKey, subresource: str = "") -> str:
    if not key.name:
        raise ValueError("an object needs a name: without one the path is that of the whole collection")
    return resource.path(key.namespace, key.name, subresource)


def _media_type(response: aiohttp.ClientResponse) -> str:
    """Return the type of an answer without parameters: aiohttp's reader of these raises IndexError for some of them."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def _content(response: aiohttp.ClientResponse) -> bytearray:
    answer = bytearray()
    while chunk := await response.content.readany():
        answer += chunk
        if len(answer) > MAX_ANSWER:
            raise AnswerTooLong(f"an answer of more than {MAX_ANSWER} bytes")
    return answer


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}


@contextmanager
def _named_errors(request: str) -> Iterator[None]:
    """Turn what aiohttp raises into our errors, and say which request it was."""
    try:
        yield
    except InvalidAnswer as error:
        raise type(error)(f"{request}: {error}") from error
    except TimeoutError as error:
        raise ConnectionFailed(f"{request}: no answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionFailed(f"{request}: {str(error) or type(error).__name__}") from error
    except ValueError as error:  # of a host name that cannot be encoded, say: whoever made the address may be anybody
        raise ConfigurationError(f"{request}: this cannot be asked for as the connection says: {error}") from error


async def _refusal(response: aiohttp.ClientResponse) -> KubernetesError:
    if response.status < 400:
        return InvalidAnswer(f"a redirect to {response.headers.get('Location')}, which is not followed")
    body = bytearray()
    while len(body) < ERROR_BYTES and (chunk := await response.content.readany()):
        body += chunk
    retry_after = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
    return decode_refusal(response.status, response.reason or "", bytes(body), retry_after)
