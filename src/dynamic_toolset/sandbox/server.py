"""The sandbox: a Kubernetes API in this process, on a port of its own."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from aiohttp import web

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox.addresses import ClusterAddresses
from dynamic_toolset.sandbox.api import Api
from dynamic_toolset.sandbox.resources import SERVICES, Object, Target, of_kind
from dynamic_toolset.sandbox.reviews import Reviews, Rule, Token
from dynamic_toolset.sandbox.status import StatusError
from dynamic_toolset.sandbox.store import Store
from dynamic_toolset.sandbox.writing import Writer

HOST = "127.0.0.1"


class Sandbox:
    """An in-process Kubernetes API that behaves, as far as it goes, like a kube-apiserver; use it with ``async with``.

    It serves Namespaces, Services, ConfigMaps, Secrets, EndpointSlices, Leases and ToolsetConfigs over plain HTTP:
    list in pages, watch, create, update, merge patch, server-side apply, delete; and the proxy for Services. It answers
    TokenReviews and SubjectAccessReviews about tokens and paths that ``add_token`` and ``allow`` have made known. The
    contract tests hold it to the real one, save the proxy. No controllers run: nothing makes EndpointSlices, and a
    deleted namespace is gone at once.

    ``token``: what a client must show (401 otherwise); None lets everybody in. ``history``: how many changes a watch
    can go back before it is told 410 Gone. ``cluster_ip``: where Services get their ClusterIP from, see
    ClusterAddresses. ``bookmark_interval``: seconds without an event after which a watch that asked for bookmarks
    gets one.

    The methods ``put``, ``patch``, ``get`` and ``delete`` do what the requests of the same name do, with the same
    checks, without a request (so they do not count in ``requests``).
    """

    def __init__(
        self,
        *,
        port: int = 0,
        token: str | None = None,
        history: int = 10_000,
        cluster_ip: str = "127.0.0.1",
        bookmark_interval: float = 60.0,
    ) -> None:
        self._port = port
        self._store = Store(history)
        self._writer = Writer(self._store, ClusterAddresses(cluster_ip))
        self._reviews = Reviews()
        self._api = Api(self._store, self._writer, self._reviews, token=token, bookmark_interval=bookmark_interval)

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self._api.application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.end_watches()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{HOST}:{self._port}"

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How often each verb was used on each resource, by HTTP: ``requests["list", "services"]``."""
        return self._api.requests

    async def put(self, obj: Object, *, manager: str = "sandbox") -> Object:
        """Create an object, or replace the one that is there, and return it. Raises StatusError."""
        wanted = _target(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        try:
            stored = self._writer.create(Target(wanted.resource, wanted.namespace), obj, manager)
        except StatusError as refusal:
            if refusal.reason != "AlreadyExists":
                raise
            version = self._store.objects(wanted.resource)[wanted.key]["metadata"]["resourceVersion"]
            obj = {**obj, "metadata": {"resourceVersion": version, **obj["metadata"]}}
            stored, _ = self._writer.update(wanted, obj, manager)
        return await _after_watchers(stored)

    async def patch(self, kind: str, namespace: str, name: str, patch: Object, *, manager: str = "sandbox") -> Object:
        """Merge a patch into an object (RFC 7396), and return it. Raises StatusError."""
        return await _after_watchers(self._writer.patch(_target(kind, namespace, name), patch, manager))

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object. Raises StatusError, with code 404 if there is none."""
        self._writer.delete(_target(kind, namespace, name), {})
        await _after_watchers({})

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, None if there is none."""
        wanted = _target(kind, namespace, name)
        return self._store.objects(wanted.resource).get(wanted.key)

    async def balance(self, namespace: str, name: str, *addresses: str) -> None:
        """Let a Service be reached at these addresses, as the controller of a cloud's load balancers writes."""
        key = ObjectKey(namespace, name)
        whole = self._store.objects(SERVICES)[key]
        status = {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}
        await _after_watchers(self._store.put(SERVICES, key, {**whole, "status": status}))

    def withdraw(self, kind: str) -> None:
        """Serve a kind no longer, as if its CustomResourceDefinition were deleted with all its objects."""
        resource = of_kind(kind)
        for key in list(self._store.objects(resource)):
            self._writer.delete(Target(resource, *key), {})
        self._api.withdrawn.add(resource)

    def install(self, kind: str) -> None:
        """Serve a kind again."""
        self._api.withdrawn.discard(of_kind(kind))

    def add_token(self, token: str, username: str, *, audiences: Iterable[str], groups: Iterable[str] = ()) -> None:
        """Let TokenReviews know a token. It lets nobody into the sandbox itself."""
        self._reviews.tokens[token] = Token(username, tuple(groups), tuple(audiences))

    def remove_token(self, token: str) -> None:
        """Make a token void."""
        self._reviews.tokens.pop(token, None)

    def allow(self, username: str, path: str, *verbs: str) -> None:
        """Let SubjectAccessReviews allow a path to a user, as a rule with ``nonResourceURLs`` does.

        A path that ends with ``*`` stands for all that begin so, the verb ``*`` for all verbs.
        """
        self._reviews.rules.append(Rule(username, path, verbs))


def _target(kind: str, namespace: str, name: str) -> Target:
    return Target(of_kind(kind), namespace, name)


async def _after_watchers(stored: Object) -> Object:
    """Let the watchers send the event first: a loop of writes must not drop them for being slow."""
    await asyncio.sleep(0)
    return stored
