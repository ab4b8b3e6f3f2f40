"""The Kubernetes API over HTTP (kubernetes.io/docs/reference/using-api/api-concepts/)."""

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import yaml
from aiohttp import web

from dynamic_toolset.sandbox import proxying, selectors, status
from dynamic_toolset.sandbox.documents import documents
from dynamic_toolset.sandbox.reading import Watch, WatchEvent, page
from dynamic_toolset.sandbox.resources import REVIEWS, Object, Resource, Target, target
from dynamic_toolset.sandbox.reviews import Reviews
from dynamic_toolset.sandbox.status import StatusError
from dynamic_toolset.sandbox.store import Store
from dynamic_toolset.sandbox.writing import Writer

MAX_BODY_BYTES = 3 * 1024 * 1024
"""The most that a request may carry (k8s.io/apiserver ``MaxRequestBodyBytes``)."""

_JSON = "application/json"
_YAML = "application/yaml"
_APPLY = "application/apply-patch+yaml"
_MERGE = ("application/merge-patch+json", "application/strategic-merge-patch+json")
_WATCH_SECONDS = 1800.0
_MAX_MANAGER_BYTES = 128


class Api:
    """Answers requests from a store. ``requests`` counts them by Kubernetes verb and resource (``list``, ``services``).

    An apply counts as ``patch``, as in RBAC and in the audit log of a cluster. Strategic merge patches are taken for
    merge patches, which is the same for labels, annotations, data and every other map. ``withdrawn`` are the kinds that
    are not served, as if their CustomResourceDefinition were not there.
    """

    def __init__(
        self, store: Store, writer: Writer, reviews: Reviews, *, token: str | None, bookmark_interval: float
    ) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self._store = store
        self._writer = writer
        self._reviews = reviews
        self._token = token
        self._bookmark_interval = bookmark_interval
        self._watches: set[Watch] = set()
        self.withdrawn: set[Resource] = set()
        self._documents = documents()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def end_watches(self) -> None:
        """Let every watch end in good order, as a server does that shuts down."""
        for watch in self._watches:
            watch.end()

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authenticate(request)
            return await self._route(request)
        except web.HTTPRequestEntityTooLarge:
            return _response(status.too_large(MAX_BODY_BYTES))
        except StatusError as error:
            return _response(error)

    def _authenticate(self, request: web.Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._token.encode()):
            raise status.unauthorized()

    async def _route(self, request: web.Request) -> web.StreamResponse:
        if request.path in {"/readyz", "/livez", "/healthz"}:
            return web.Response(text="ok")
        if request.path.rstrip("/") in {resource.root for resource in self.withdrawn}:
            raise status.no_such_path()
        if document := self._documents.get(request.path.rstrip("/")):
            if request.method != "GET":
                raise status.method_not_allowed()
            return _response(document)
        if to := proxying.route(request.path):
            return await proxying.answer(self._store, request, to)
        wanted = target(request.path)
        if wanted is None or wanted.resource in self.withdrawn:
            raise status.no_such_path()
        if request.query.get("dryRun"):
            raise status.bad_request("the sandbox knows no dryRun")
        verb, handler = self._handler(request, wanted)
        self.requests[verb, wanted.resource.plural + ("/status" if wanted.status else "")] += 1
        return await handler(request, wanted)

    def _handler(
        self, request: web.Request, wanted: Target
    ) -> tuple[str, Callable[[web.Request, Target], Awaitable[web.StreamResponse]]]:
        if wanted.resource in REVIEWS:
            if request.method != "POST" or wanted.name:
                raise status.method_not_allowed()
            return "create", self._review
        creatable = bool(wanted.namespace) or not wanted.resource.namespaced
        match request.method, bool(wanted.name):
            case "GET", True:
                return "get", self._get
            case "GET", False:
                return ("watch", self._watch) if _flag(request, "watch") else ("list", self._list)
            case "POST", False if creatable:
                return "create", self._create
            case "PUT", True:
                return "update", self._update
            case "PATCH", True:
                return "patch", self._patch
            case "DELETE", True if not wanted.status:
                return "delete", self._delete
        raise status.method_not_allowed()

    async def _get(self, _request: web.Request, wanted: Target) -> web.StreamResponse:
        found = self._store.objects(wanted.resource).get(wanted.key)
        if found is None:
            raise status.not_found(wanted.resource, wanted.name)
        return _response(found)

    async def _list(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        query = request.query
        return _response(
            page(
                self._store,
                wanted,
                _selector(query),
                limit=_number(query, "limit"),
                token=query.get("continue", ""),
                revision=query.get("resourceVersion", ""),
            )
        )

    async def _create(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        body = await _body(request, _JSON, _YAML)
        return _response(self._writer.create(wanted, _object(body), _manager(request)), code=201)

    async def _review(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        body = await _body(request, _JSON, _YAML)
        return _response(self._reviews.review(wanted.resource, _object(body)), code=201)

    async def _update(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        body = await _body(request, _JSON, _YAML)
        stored, created = self._writer.update(wanted, _object(body), _manager(request))
        return _response(stored, code=201 if created else 200)

    async def _patch(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        body = await _body(request, *_MERGE, _APPLY)
        if request.content_type != _APPLY:
            return _response(self._writer.patch(wanted, body, _manager(request)))
        if not request.query.get("fieldManager"):
            raise _bad_manager("FieldValueRequired", "Required value: is required for apply patch")
        force = _flag(request, "force")
        stored, created = self._writer.apply(wanted, _object(body), _manager(request), force=force)
        return _response(stored, code=201 if created else 200)

    async def _delete(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        options = _object(await _body(request, _JSON, _YAML)) if request.can_read_body else {}
        return _response(self._writer.delete(wanted, options.get("preconditions") or {}))

    # --- Watches -----------------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, wanted: Target) -> web.StreamResponse:
        query = request.query
        bookmarks = self._bookmark_interval if _flag(request, "allowWatchBookmarks") else None
        seconds = _number(query, "timeoutSeconds") or _WATCH_SECONDS
        stream = web.StreamResponse(headers={"Content-Type": _JSON, "Cache-Control": "no-cache, private"})
        try:
            watch = Watch(
                self._store, wanted, _selector(query), query.get("resourceVersion", ""), lambda: _abort(request)
            )
        except StatusError as error:
            if error.code != 410:
                raise
            # Too old is told inside of the stream, as the watch cache of the real API does.
            await stream.prepare(request)
            await stream.write(_line(WatchEvent("ERROR", error.body())))
            return stream
        with watch:
            self._watches.add(watch)
            try:
                await stream.prepare(request)
                async with asyncio.timeout(seconds):
                    await _send(stream, watch, bookmarks)
            except (TimeoutError, ConnectionError):
                pass  # its time is over, or nobody listens any more
            finally:
                self._watches.discard(watch)
        return stream


async def _send(stream: web.StreamResponse, watch: Watch, bookmarks: float | None) -> None:
    while True:
        try:
            async with asyncio.timeout(bookmarks):
                event = await watch.next()
        except TimeoutError:
            event = watch.bookmark()
        if event is None:
            return
        await stream.write(_line(event))


def _line(event: WatchEvent) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _abort(request: web.Request) -> None:
    """Cut the connection of a client that does not read. There is no other way to tell it."""
    if request.transport is not None:
        request.transport.abort()


# --- Parts of requests and responses ---------------------------------------------------------------------------------


def _response(answer: Object | StatusError, *, code: int = 200) -> web.Response:
    headers = {}
    if isinstance(answer, StatusError):
        code = answer.code
        if seconds := answer.details.get("retryAfterSeconds"):
            headers["Retry-After"] = str(seconds)
        answer = answer.body()
    return web.Response(body=msgspec.json.encode(answer), status=code, content_type=_JSON, headers=headers)


def _selector(query: Mapping[str, str]) -> selectors.Selector | None:
    return selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in {"1", "true"}


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    try:
        return int(text)
    except ValueError:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _manager(request: web.Request) -> str:
    """Return who writes: ``fieldManager``, or what the client calls itself up to the first slash."""
    stated = request.query.get("fieldManager", "")
    if len(stated.encode()) > _MAX_MANAGER_BYTES:
        raise _bad_manager("FieldValueTooLong", f"Too long: may not be more than {_MAX_MANAGER_BYTES} bytes")
    return stated or request.headers.get("User-Agent", "").partition("/")[0] or "unknown"


def _bad_manager(reason: Any, message: str) -> StatusError:
    return status.invalid("PatchOptions", "meta.k8s.io", "", [status.Cause(reason, message, "fieldManager")])


async def _body(request: web.Request, *accepted: str) -> Any:
    """Return a request's body. Where YAML may come, JSON is tried first: it is YAML too, and faster."""
    if request.content_type not in accepted:
        raise status.unsupported_media_type(accepted)
    data = await request.read()
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        if not request.content_type.endswith("yaml"):
            raise status.bad_request(f"json parse error: {error}") from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise status.bad_request(f"error decoding YAML: {error}") from None


def _object(body: Any) -> Object:
    if not isinstance(body, dict):
        raise status.bad_request("the object provided is unrecognized: couldn't get version/kind")
    return body
