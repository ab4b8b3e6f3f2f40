"""What the EndpointSlices say of candidates without asking them: whether a Pod is ready, and where a Service leads.

Whoever may write EndpointSlices can point a Service that has a ClusterIP, and a name that the cluster's DNS knows, at
any address: at the node's metadata service, or at the API server. So the guard judges every address in them.

Only the slices of the candidates are watched: of 10,000 in a cluster we need some thirty. When the candidates change,
a reflector with another selector takes the place of the last one as soon as it has its first list; until then what was
known stays in force, and of a newcomer nothing is known, not even that it may be dialled. Of a slice no more is kept
than what follows from it. Of Services of other clusters no slices are read: those are reached through a load balancer.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from ipaddress import ip_address
from itertools import product
from urllib.parse import urlsplit

from msgspec import Struct

from dynamic_toolset.health import reasons
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.objects import EndpointSlice, ObjectKey, ObjectMeta, Service, SliceEndpoint
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.kube.resources import ENDPOINT_SLICES, SERVICES
from dynamic_toolset.model import Candidate, Health, ServiceKey, Verdict

SERVICE_NAME = "kubernetes.io/service-name"
"""The label that says which Service of its namespace a slice belongs to."""

API_SERVER = ServiceKey("default", "kubernetes")
"""The Service of the API server, which writes its slice itself. Whoever else may write slices in that namespace could
lead every Pod that asks for the API elsewhere, so they are believed."""

MAX_SELECTOR = 4000
"""Characters of a label selector, which travels in a URL. Beyond that all slices are watched."""

MAX_ADDRESSES = 1000
MAX_PORTS = 100
"""Of one slice, to be judged in milliseconds. The cluster's own controller puts 100 Pods into one, 1,000 at most."""

MAX_API_SERVERS = 100
"""Pairs of address and port in a slice of the API server."""

BETWEEN_SELECTORS = 0.1
"""Seconds at least between two changes of the selector, so that many candidates at once cost one list."""

_PATIENCE = 10.0
"""Seconds that a selector which is not wanted any more is given to have its first list."""

_FAILING = 3
"""Failures in a row from which on the slices count as unreadable: an API server that restarts is no news."""

NOT_READ = Health(Verdict.UNKNOWN, "its EndpointSlices have not been read yet")
NOT_READY = Health(Verdict.UNHEALTHY, "no ready endpoint in its EndpointSlices")

Target = tuple[str, int]
"""An address and a port."""


class _Slice(Struct, frozen=True, gc=False):
    """What follows from a slice: whose it is, whether an endpoint in it is ready, why it must not be used, if so.

    One that is of no interest has no ``service``. ``targets`` are those of the API server's own slice, else empty.
    """

    metadata: ObjectMeta
    service: ServiceKey | None = None
    ready: bool = False
    refusal: str | None = None
    targets: frozenset[Target] = frozenset()


class Readiness:
    """Keeps what the slices of the candidates say, for as long as ``run`` runs.

    It tells ``guard`` where the API server is: ``api_server`` is what is known from the start, such as what our own
    connection dials; the rest is learned from the Service ``default/kubernetes`` and its slice.

    ``on_change`` is called with the candidates of which ``known`` may say something else now, such as those whose
    slices have been read for the first time, and with those that got their first ready endpoint: a check of them need
    not wait.
    """

    def __init__(
        self,
        client: Client,
        guard: Guard,
        *,
        api_server: Iterable[Target] = (),
        on_change: Callable[[frozenset[ServiceKey]], None] = lambda _keys: None,
    ) -> None:
        self._client = client
        self._guard = guard
        self._on_change = on_change
        self._candidates: frozenset[ServiceKey] = frozenset()

        self._names = frozenset({API_SERVER.name})
        self._outdated = asyncio.Event()
        self._settled = asyncio.Event()
        self._latest: Reflector[EndpointSlice, _Slice] | None = None
        self._in_force: Reflector[EndpointSlice, _Slice] | None = None
        self._covered: frozenset[str] = frozenset()
        """Of which names the reflector in force keeps the slices."""

        self._slices: dict[ObjectKey, _Slice] = {}
        self._by_service: dict[ServiceKey, dict[ObjectKey, _Slice]] = {}
        self._said: dict[ServiceKey, Health | None] = {}
        """What follows for each Service that has slices; None where they say nothing against it."""

        self._api_service = Reflector(
            client,
            SERVICES,
            Service,
            namespace=API_SERVER.namespace,
            field_selector=f"metadata.name={API_SERVER.name}",
            transform=unchanged,
            on_change=self._protect,
        )
        self._known_api_server = frozenset(api_server)
        self._protected: frozenset[Target] = frozenset()
        self._protect()

    def update(self, keys: Collection[ServiceKey]) -> None:
        """Take over who the present candidates are. Cheap where that changes nothing."""
        self._candidates = frozenset(key for key in keys if not key.cluster)
        names = frozenset(key.name for key in self._candidates) | {API_SERVER.name}
        if names != self._names:
            self._names = names
            self._outdated.set()
            self._settled.clear()

    def protect(self, api_servers: Iterable[Target]) -> None:
        """Let no check dial these either: other API servers, which we can reach."""
        self._known_api_server |= set(api_servers)
        self._protect()

    def known(self, candidate: Candidate) -> Health | None:
        """Return the health of a candidate as far as it follows from its addresses and its slices, else None.

        One whose slices have not been read is NOT_READ, an unknown health: it could lead anywhere, so it is not to be
        asked. One that has none may have them soon: then only a check can tell. Of one whose endpoint is another host,
        which the operator has allowed, its slices say nothing.
        """
        endpoint = candidate.endpoint
        for address in dict.fromkeys((endpoint.address, endpoint.host)):
            if address and _is_address(address) and (refusal := self._guard.refusal(address, endpoint.port)):
                return _refused(refusal)
        if candidate.key.cluster or not _leads_to_itself(candidate):
            return None
        return self._said.get(candidate.key) if candidate.key.name in self._covered else NOT_READ

    @property
    def reflector(self) -> Reflector[EndpointSlice, _Slice] | None:
        """The one that follows the slices of the present candidates, for who wants to know how it is."""
        return self._latest

    @property
    def problem(self) -> str | None:
        """Say what is in the way of reading the slices, in a sentence; None for nothing."""
        if self._latest is None:
            return None
        now = self._latest.statistics
        if now.consecutive_failures >= _FAILING:
            if self._latest is self._in_force:
                return f"EndpointSlices cannot be followed: {now.last_error}; what was seen last stays in force"
            return (
                f"EndpointSlices cannot be read: {now.last_error}; until they can, nothing shows where a Service "
                "leads: new ones wait, neither asked nor listed, and those published before stay listed, unasked; it "
                "takes the permission to list and watch endpointslices (discovery.k8s.io) in all namespaces"
            )
        for key, error in self._latest.skipped.items():
            return f"EndpointSlice {key} cannot be read: {error}"
        return None

    async def settled(self, timeout: float) -> bool:  # noqa: ASYNC109 - it is part of the question, not of the call
        """Wait until the slices of the present candidates have been read. Return whether they were in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Watch, for ever. Ends by cancellation; an error in a watch is raised."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._api_service.run(), name="service kubernetes")
            watching: asyncio.Task[None] | None = None
            names = frozenset({API_SERVER.name})  # first where the API server is: the others are judged by that
            while True:
                reflector = self._latest = self._reflector(names)
                task = tasks.create_task(reflector.run(), name="endpointslices")
                if await self._synced(reflector):
                    if watching is not None:
                        watching.cancel()
                    watching = task
                    self._put_in_force(reflector, names)
                    if names == self._names:
                        self._settled.set()
                else:
                    task.cancel()
                await asyncio.sleep(BETWEEN_SELECTORS)
                await self._outdated.wait()
                self._outdated.clear()
                names = self._names

    # --- Which slices are watched -----------------------------------------------------------------------------------

    def _reflector(self, names: frozenset[str]) -> Reflector[EndpointSlice, _Slice]:
        """Return a reflector of the slices of Services with these names."""
        return Reflector(
            self._client,
            ENDPOINT_SLICES,
            EndpointSlice,
            label_selector=selector(names),
            transform=partial(self._digest, names),
            on_change=self._look,
            successor_of=self._latest,
        )

    async def _synced(self, reflector: Reflector[EndpointSlice, _Slice]) -> bool:
        """Wait for the first list. Return False if it does not come and others are wanted by now."""
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await reflector.synced.wait()
            except TimeoutError:
                if self._outdated.is_set():
                    return False
            else:
                return True

    def _put_in_force(self, reflector: Reflector[EndpointSlice, _Slice], names: frozenset[str]) -> None:
        new = names - self._covered
        self._in_force, self._covered = reflector, names
        newcomers = {key for key in self._candidates if key.name in new}
        self._take_over(self._slices.keys() | reflector.take_changed(), reflector.store, newcomers)

    def _look(self) -> None:
        """Something changed, though perhaps not in the reflector that is in force."""
        if self._in_force is not None:
            self._take_over(self._in_force.take_changed(), self._in_force.store)

    # --- What they say ----------------------------------------------------------------------------------------------

    def _digest(self, names: frozenset[str], item: EndpointSlice) -> _Slice:
        """Return what is to be kept of a slice that has just been read."""
        metadata = item.metadata
        bare = ObjectMeta(metadata.name, metadata.namespace, resource_version=metadata.resource_version)
        name = (metadata.labels or {}).get(SERVICE_NAME, "")
        if name not in names:
            return _Slice(bare)
        service = ServiceKey(metadata.namespace, name)
        endpoints = item.endpoints or ()
        addresses = {address for endpoint in endpoints for address in endpoint.addresses or ()}
        ports = {port.port for port in item.ports or ()} or {None}
        targets: frozenset[Target] = frozenset()
        if service == API_SERVER and len(addresses) * len(ports) <= MAX_API_SERVERS:
            targets = frozenset((address, port) for address, port in product(addresses, ports) if port)
        return _Slice(bare, service, any(map(_is_ready, endpoints)), self._refusal(addresses, ports), targets)

    def _refusal(self, addresses: Collection[str], ports: Collection[int | None]) -> str | None:
        """Return why a slice must not be used: in the same words for the same targets, in whatever order they come."""
        if len(addresses) > MAX_ADDRESSES or len(ports) > MAX_PORTS:
            return f"its EndpointSlice has more than {MAX_ADDRESSES} addresses or {MAX_PORTS} ports"
        for address in sorted(addresses):
            if refusal := self._guard.refusal_at_any(address, ports):
                return f"its EndpointSlice has a refused address: {refusal}"
        return None

    def _take_over(
        self, changed: Iterable[ObjectKey], store: Mapping[ObjectKey, _Slice], newcomers: Collection[ServiceKey] = ()
    ) -> None:
        """Take over the slices that changed, and tell whom that concerns, ``newcomers`` in any case."""
        services: set[ServiceKey] = set()
        for key in changed:
            old, new = self._slices.pop(key, None), store.get(key)
            if old is not None and old.service is not None:
                services.add(old.service)
                del self._by_service[old.service][key]
            if new is not None and new.service is not None:
                services.add(new.service)
                self._by_service.setdefault(new.service, {})[key] = self._slices[key] = new
        news = {service for service in services if self._judge(service)} & self._candidates | set(newcomers)
        if API_SERVER in services:
            self._protect()
        if news:
            self._on_change(frozenset(news))

    def _judge(self, service: ServiceKey) -> bool:
        """Draw the conclusion from all slices of a Service. Return whether it is another than before."""
        before = service in self._said, self._said.pop(service, None)
        slices = self._by_service[service].values()
        if not slices:
            del self._by_service[service]
        elif refusal := min((one.refusal for one in slices if one.refusal), default=None):
            self._said[service] = _refused(refusal)
        else:
            self._said[service] = None if any(one.ready for one in slices) else NOT_READY
        return before != (service in self._said, self._said.get(service))

    # --- Where the API server is ------------------------------------------------------------------------------------

    def _protect(self) -> None:
        """Tell the guard where the API server is. If that is news, the slices are judged anew, by another list."""
        targets = self._known_api_server | {
            (service.spec.cluster_ip or "", port.port)
            for service in self._api_service.store.values()
            for port in service.spec.ports or ()
        }
        targets |= {target for one in self._by_service.get(API_SERVER, {}).values() for target in one.targets}
        if targets == self._protected:
            return
        self._protected = targets
        self._guard.protect(targets)
        if self._by_service.keys() - {API_SERVER} and self._in_force is not None:
            self._in_force.relist()
        if self._latest is not None and self._latest is not self._in_force:
            self._latest.relist()  # what has come of its first list by now was judged by where it was before
        if self._candidates:
            self._on_change(self._candidates)


def dialled(server: str) -> tuple[Target, ...]:
    """Return the address behind the URL of a Kubernetes API, where it says one."""
    url = urlsplit(server)
    host = url.hostname or ""
    return ((host, url.port or {"http": 80, "https": 443}[url.scheme]),) if _is_address(host) else ()


def selector(names: Iterable[str]) -> str:
    """Return the label selector of the slices of Services with these names, empty (all) where it would be too long."""
    text = f"{SERVICE_NAME} in ({','.join(sorted(names))})"
    return text if len(text) <= MAX_SELECTOR else ""


def _leads_to_itself(candidate: Candidate) -> bool:
    """Whether the endpoint is that of the Service, by its ClusterIP or its name in the cluster's DNS."""
    key, endpoint = candidate.key, candidate.endpoint
    return endpoint.address is not None or endpoint.host.startswith(f"{key.name}.{key.namespace}.svc.")


def _is_ready(endpoint: SliceEndpoint) -> bool:
    """Where it is unset it is to be taken for true (discovery.k8s.io/v1, EndpointConditions)."""
    return endpoint.conditions is None or endpoint.conditions.ready is not False


def _refused(reason: str) -> Health:
    return Health(Verdict.UNHEALTHY, reasons.one_line(reason), refused=True)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
