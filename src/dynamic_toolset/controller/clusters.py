"""The other clusters whose Services are discovered too.

Each of them is followed on its own, with a kubeconfig from a Secret, so that one which is away takes nothing from the
others, nor from us: what was seen of it last stays. Three things see to that:

* its store stays as it was while its API cannot be reached (``kube.reflector``);
* after a restart, until it has been reached, its candidates are those of our own document, ``toolset.json``: they are
  not asked, so that each counts as it was published last (*recalled*);
* what fails in it stays listed until its API has answered *since*: a cluster that is lost as a whole is no proof that
  its services are gone (*unproven*).
"""

import asyncio
import base64
import binascii
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from dynamic_toolset.controller.conditions import PATIENCE
from dynamic_toolset.controller.namespaces import NamespaceLabels
from dynamic_toolset.discovery.catalog import Catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Judged, judge, recall
from dynamic_toolset.health.readiness import Target, dialled
from dynamic_toolset.kube import kubeconfig
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import Connection
from dynamic_toolset.kube.errors import ApiError, ConfigurationError, KubernetesError, ServerError
from dynamic_toolset.kube.objects import ObjectKey, ObjectMeta, Secret, Service
from dynamic_toolset.kube.reflector import Reflector, backoff
from dynamic_toolset.kube.resources import SECRETS, SERVICES
from dynamic_toolset.model import Candidate, Health, Problem, ServiceKey, Verdict
from dynamic_toolset.settings import RemoteCluster, Settings
from dynamic_toolset.strict_yaml import YamlError, read, shortened
from dynamic_toolset.toolset import generic, safety
from dynamic_toolset.toolset.generic import Tool

RECALLED = Health(Verdict.UNKNOWN, "not checked: its cluster has not been reached since the start")
"""The health of what is known from our own document only."""

_NOWHERE = "https://not-connected.invalid"
"""The address of a cluster before its kubeconfig has been read: nothing is sent there."""

_MAX_SAID = 500
"""Characters of an error of another cluster that are told."""

_ANY_SERVICE = ObjectKey("default", "kubernetes")
"""A Service that every cluster has, and any other would do."""

Changed = dict[ServiceKey, Judged | None]


class Clusters:
    """All other clusters of the settings. The same as each of them, for all.

    ``client`` reads their Secrets, which are in ``namespace``. ``on_change`` is called when there is something to take
    over, ``notify`` when anything else is another than before, and ``protect`` with where the API of a cluster is.
    ``known`` returns the health of a candidate as far as it follows from its address.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        catalog: Catalog,
        *,
        namespace: str,
        on_change: Callable[[], None],
        notify: Callable[[], None],
        protect: Callable[[Iterable[Target]], None],
        known: Callable[[Candidate], Health | None],
    ) -> None:
        self._known = known
        self._all = {
            one.name: _Cluster(client, one, settings, catalog, namespace, on_change, notify, protect)
            for one in settings.clusters
        }

    async def run(self) -> None:
        """Follow all, for ever. An error in one is a mistake of ours, and is raised."""
        async with asyncio.TaskGroup() as tasks:
            for name, one in self._all.items():
                tasks.create_task(one.run(), name=f"cluster {name}")
            tasks.create_task(asyncio.Event().wait(), name="no cluster")

    async def settled(self, timeout: float) -> None:  # noqa: ASYNC109 - it is part of the question, not of the call
        """Wait until all have been listed, for so many seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                for one in self._all.values():
                    await one.services.synced.wait()
        except TimeoutError:
            return

    def take_changed(self) -> Changed:
        """Return the Services that changed since the last call, None for those that are gone."""
        changed: Changed = {}
        for one in self._all.values():
            changed |= one.take_changed()
        return changed

    def remember(self, document: str | None) -> None:
        """Take what our own document says for what there is in those that have not been reached yet.

        Where there is none, what is known stays.
        """
        known = () if document is None or not self._all else generic.tools(document)
        for name, one in self._all.items() if document is not None else ():
            one.remember([tool for tool in known if tool.service.cluster == name])

    def is_recalled(self, key: ServiceKey) -> bool:
        """Whether a Service is known from our own document only."""
        one = self._all.get(key.cluster)
        return one is not None and key in one.recalled

    def without_recalled(self, candidates: Mapping[ServiceKey, Candidate]) -> Mapping[ServiceKey, Candidate]:
        """Return the candidates that are known from more than our own document."""
        if not any(one.recalled for one in self._all.values()):
            return candidates
        return {key: one for key, one in candidates.items() if not self.is_recalled(key)}

    def recalled_health(self, candidate: Candidate) -> Health | None:
        """Return the health of a candidate that is known from our own document only, else None."""
        return (self._known(candidate) or RECALLED) if self.is_recalled(candidate.key) else None

    def unproven(self, failing: Collection[ServiceKey], now: float) -> frozenset[ServiceKey]:
        """Return those of the failing candidates whose clusters have not answered since they began to fail.

        They are asked for that; ``notify`` is called when one has answered. ``now`` is the time of the loop.
        """
        return frozenset().union(
            *(one.unproven({key for key in failing if key.cluster == name}, now) for name, one in self._all.items())
        )

    def relist(self) -> None:
        """List all Services anew."""
        for one in self._all.values():
            one.services.relist()

    def problems(self) -> Iterator[Problem]:
        """Yield what is in the way of knowing them."""
        for one in self._all.values():
            yield from one.problems()

    def unreadable(self) -> Iterator[tuple[ServiceKey, str]]:
        """Yield the Services that cannot be decoded, with the reason."""
        for name, one in self._all.items():
            for key, error in one.services.skipped.items():
                yield ServiceKey.of(key, name), error

    def reflectors(self) -> dict[str, Reflector[Any, Any]]:
        """Return the reflectors by what they follow."""
        found: dict[str, Reflector[Any, Any]] = {}
        for name, one in self._all.items():
            found |= {f"Services of {name}": one.services, f"Secret of {name}": one.secret}
            if one.namespaces.needed:
                found[f"Namespaces of {name}"] = one.namespaces.reflector
        return found


class _Cluster:
    """One other cluster: its Secret, and what is followed with the kubeconfig in it."""

    def __init__(
        self,
        client: Client,
        how: RemoteCluster,
        settings: Settings,
        catalog: Catalog,
        namespace: str,
        on_change: Callable[[], None],
        notify: Callable[[], None],
        protect: Callable[[Iterable[Target]], None],
    ) -> None:
        self._name = how.name
        self._key = how.key
        self._place = ObjectKey(namespace, how.secret)
        self._on_change = on_change
        self._notify = notify
        self._protect = protect

        self.secret = Reflector(
            client,
            SECRETS,
            Secret,
            namespace=namespace,
            field_selector=f"metadata.name={how.secret}",
            transform=partial(_only, how.key),
            on_change=self._secret_changed,
        )
        self._renewed = asyncio.Event()
        self._connected = asyncio.Event()
        self._unusable: str | None = None

        self._client = Client(Connection(_NOWHERE))
        self.namespaces = NamespaceLabels(self._client, settings.namespaces.selector, on_change=self._relist)
        self._detector = Detector(catalog, settings, self.namespaces.labels, how.name)
        self.services = Reflector(
            self._client, SERVICES, Service, transform=partial(judge, self._detector), on_change=on_change
        )

        self.recalled: Mapping[ServiceKey, Judged] = {}
        self._pending: Changed = {}
        self._failing: dict[ServiceKey, float] = {}
        self._doubt = asyncio.Event()
        self._answered = -math.inf

    async def run(self) -> None:
        """Follow it, for ever."""
        async with self._client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.secret.run(), name="secret")
            tasks.create_task(self._connect(), name="kubeconfig")
            tasks.create_task(self._ask_in_doubt(), name="doubt")
            await self._connected.wait()
            tasks.create_task(self.namespaces.run(), name="namespaces")
            await self.namespaces.synced.wait()
            tasks.create_task(self.services.run(), name="services")
            await self.services.synced.wait()
            self._on_change()  # an empty list is no change, and yet the end of what was only recalled

    # --- How it is reached -------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Take up each kubeconfig that can be used; with one that cannot, the last one stays."""
        await self.secret.synced.wait()
        text: str | None = None
        while True:
            given = self._given()
            if given is not None and given != text:
                text = given
                try:
                    # In a thread: it is as long as somebody made it.
                    self._take_up(await asyncio.to_thread(_connection, given))
                except ConfigurationError as error:
                    self._unusable = str(error)
                self._notify()
            await self._renewed.wait()
            self._renewed.clear()

    def _take_up(self, connection: Connection) -> None:
        self._unusable = None
        self._protect(dialled(connection.server))
        self._client.reconnect(connection)
        if self._connected.is_set():  # it may be another cluster now, or a permission more
            self.namespaces.reflector.relist()
            self.services.relist()
        self._connected.set()

    def _given(self) -> str | None:
        secret = self.secret.store.get(self._place)
        return None if secret is None else (secret.data or {}).get(self._key)

    def _secret_changed(self) -> None:
        self._renewed.set()
        self._notify()

    def _relist(self) -> None:
        self.services.relist()

    def problems(self) -> Iterator[Problem]:
        """Yield what is in the way of knowing it."""
        stays = "what was seen last stays in force"
        if why := self._why_unusable():
            yield Problem("ClusterUnusable", f"cluster {self._name} cannot be used: {why}; {stays}")
        if not self._connected.is_set():
            return
        watches = [self.namespaces.reflector.statistics] if self.namespaces.needed else []
        for now in (*watches, self.services.statistics):
            if now.consecutive_failures >= PATIENCE:
                # The words are those of another cluster's API, or of whoever answers in its place.
                why = shortened(now.last_error or "", _MAX_SAID)
                yield Problem("ClusterUnreachable", f"cluster {self._name} cannot be followed: {why}; {stays}")
                return

    def _why_unusable(self) -> str | None:
        now = self.secret.statistics
        if now.consecutive_failures >= PATIENCE:
            return f"Secret {self._place} cannot be followed: {now.last_error}"
        if self._place in self.secret.skipped:
            return f"Secret {self._place} cannot be read"
        if not self.secret.synced.is_set():
            return None
        if self._place not in self.secret.store:
            return f"Secret {self._place} does not exist"
        if self._given() is None:
            return f"Secret {self._place} has no key {self._key}"
        return f"{self._key} of Secret {self._place}: {self._unusable}" if self._unusable else None

    # --- What is in it -----------------------------------------------------------------------------------------------

    def take_changed(self) -> Changed:
        """Return the Services that changed since the last call, None for those that are gone."""
        changed, self._pending = self._pending, {}
        taken, store = self.services.take_changed(), self.services.store
        if self.services.synced.is_set():
            changed |= dict.fromkeys(self.recalled)
            self.recalled = {}
        return changed | {ServiceKey.of(key, self._name): store.get(key) for key in taken}

    def remember(self, tools: Iterable[Tool]) -> None:
        """Take these, of our own document, for what there is, until it has been reached."""
        if self.services.synced.is_set():
            return
        found = (
            (tool.service, recall(self._detector, tool.service, tool.type, tool.name, tool.endpoint)) for tool in tools
        )
        recalled = {key: judged for key, judged in found if judged is not None and _is_safe(judged)}
        if recalled != self.recalled:
            self._pending |= dict.fromkeys(self.recalled.keys() - recalled.keys()) | recalled
            self.recalled = recalled
            self._on_change()

    # --- Whether it is there -----------------------------------------------------------------------------------------

    def unproven(self, failing: Collection[ServiceKey], now: float) -> frozenset[ServiceKey]:
        """Return those that began to fail later than its API was asked anything that it answered."""
        self._failing = {key: self._failing.get(key, now) for key in failing}
        found = frozenset(key for key, since in self._failing.items() if self._answered < since)
        if found:
            self._doubt.set()
        return found

    async def _ask_in_doubt(self) -> None:
        """Whenever there is doubt, ask until there is an answer: any will do, also that we must not know."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            failures = 0
            while True:
                began = asyncio.get_running_loop().time()
                if await self._answers():
                    break
                failures += 1
                await asyncio.sleep(backoff(failures, random.random()))  # noqa: S311 - jitter is no secret
            self._answered = began
            self._notify()

    async def _answers(self) -> bool:
        try:
            await self._client.get(SERVICES, _ANY_SERVICE, Service)
        except ServerError:
            return False  # by whoever stands before it
        except ApiError:
            return True
        except KubernetesError:
            return False
        return True


def _only(key: str, secret: Secret) -> Secret:
    """Return a Secret with nothing but one key."""
    metadata = secret.metadata
    bare = ObjectMeta(metadata.name, metadata.namespace, resource_version=metadata.resource_version)
    value = (secret.data or {}).get(key)
    return Secret(bare, None if value is None else {key: value})


def _is_safe(judged: Judged) -> bool:
    candidate = judged.decision.candidate
    return candidate is None or safety.is_safe(candidate)


def _connection(value: str) -> Connection:
    """Return the connection of a kubeconfig as a Secret holds it. Raises ConfigurationError, which quotes nothing."""
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise ConfigurationError("it is no text in UTF-8") from None
    try:
        content = read(text)
    except YamlError as error:
        raise ConfigurationError(f"line {error.line} is not YAML that can be used") from None
    return kubeconfig.connect(content)
