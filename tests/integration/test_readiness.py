"""What the EndpointSlices say of candidates, against the sandbox."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from dynamic_toolset.health import readiness as module
from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.readiness import NOT_READ, NOT_READY, Readiness
from dynamic_toolset.kube.client import PAGE_SIZE, Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.model import Candidate, ServiceKey
from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.resources import Object
from dynamic_toolset.sandbox.status import StatusError
from tests.integration.sandboxed import until
from tests.unit.health.candidates import candidate

NAMESPACE = "default"
METADATA = "100.100.100.200"


def key(name: str, namespace: str = NAMESPACE) -> ServiceKey:
    return ServiceKey(namespace, name)


def a(name: str, namespace: str = NAMESPACE) -> Candidate:
    """A candidate with this name."""
    one = candidate(host=f"{name}.{namespace}.svc.cluster.local")
    return msgspec.structs.replace(one, key=key(name, namespace))


def endpoint_slice(
    service: str,
    *addresses: str,
    ready: bool | None = True,
    ports: Sequence[int | None] = (9090,),
    name: str | None = None,
    namespace: str = NAMESPACE,
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service}-x7k2p",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2025-01-01T00:00:00Z"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}} for address in addresses
        ]
        or None,
        "ports": [{"name": "", "protocol": "TCP", "port": port} for port in ports],
    }


class Api:
    """The sandbox, with an eye on the lists of slices; a test may put something in their way."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.selectors: list[str] = []
        self.refuse: StatusError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.pages = asyncio.Event()
        self.pages.set()
        self.waiting = False
        self._list = sandbox._api._list
        sandbox._api._list = self._watched_list

    async def put(self, *slices: Object) -> None:
        for one in slices:
            await self.sandbox.put(one)

    async def _watched_list(self, request: web.Request, wanted: Any) -> web.StreamResponse:
        if wanted.resource.kind == "EndpointSlice":
            self.selectors.append(request.query.get("labelSelector", ""))
            await self.open.wait()
            if "continue" in request.query:
                self.waiting = True
                await self.pages.wait()
            if self.refuse is not None:
                raise self.refuse
        return await self._list(request, wanted)


class Watcher:
    """A readiness at work, with what it told."""

    def __init__(self, api: Api, guard: Guard, **options: Any) -> None:
        self.told: list[frozenset[ServiceKey]] = []
        self.client = Client(static(api.sandbox.url))
        self.readiness = Readiness(self.client, guard, on_change=self.told.append, **options)

    def known(self, name: str, namespace: str = NAMESPACE) -> str | None:
        """What is known of a candidate: the reason, and whether that is a refusal."""
        health = self.readiness.known(a(name, namespace))
        if health is None:
            return None
        return f"refused: {health.reason}" if health.refused else health.reason

    def refused(self, name: str) -> bool:
        return (self.known(name) or "").startswith("refused")

    def take_told(self) -> set[ServiceKey]:
        told, self.told[:] = set().union(*self.told), []
        return told


@pytest.fixture
def api(sandbox: Sandbox) -> Api:
    return Api(sandbox)


@asynccontextmanager
async def watching(
    api: Api, *names: str, keys: Iterable[ServiceKey] = (), guard: Guard | None = None, **options: Any
) -> AsyncIterator[Watcher]:
    """Watch for these candidates; they have been read when it begins."""
    watcher = Watcher(api, guard or Guard(), **options)
    async with watcher.client:
        task = asyncio.create_task(watcher.readiness.run())
        watcher.readiness.update([key(name) for name in names] + list(keys))
        if api.open.is_set() and not api.refuse:
            assert await watcher.readiness.settled(10)
        try:
            yield watcher
        finally:
            assert not task.done(), "it ends by cancellation only"
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


# --- Ready or not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slices", "known"),
    [
        ([], None),
        ([endpoint_slice("loki", "10.1.0.1")], None),
        ([endpoint_slice("loki", "10.1.0.1", ready=None)], None),
        ([endpoint_slice("loki")], NOT_READY.reason),
        ([endpoint_slice("loki", "10.1.0.1", "10.1.0.2", ready=False)], NOT_READY.reason),
        ([endpoint_slice("loki", "10.1.0.1", ready=False), endpoint_slice("loki", "10.1.0.2", name="b")], None),
        ([endpoint_slice("loki", name="a"), endpoint_slice("loki", name="b")], NOT_READY.reason),
    ],
)
async def test_a_candidate_is_unready_if_it_has_slices_and_nobody_in_them_is_ready(api, slices, known):
    await api.put(*slices)
    async with watching(api, "loki") as watcher:
        assert watcher.known("loki") == known


async def test_slices_of_others_do_not_count(api):
    await api.sandbox.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    without_label = endpoint_slice("loki", name="c")
    del without_label["metadata"]["labels"]
    await api.put(endpoint_slice("loki", namespace="other"), endpoint_slice("tempo"), without_label)
    async with watching(api, "loki") as watcher:
        assert watcher.known("loki") is None
        # But as soon as that one is a candidate too, it is known of it what is known.
        watcher.readiness.update([key("loki"), key("loki", "other")])
        assert watcher.known("loki", "other") == NOT_READY.reason
        assert watcher.known("loki") is None


async def test_slices_say_nothing_of_an_endpoint_elsewhere(api):
    await api.put(endpoint_slice("loki"), endpoint_slice("tempo", METADATA))
    async with watching(api, "loki", "tempo") as watcher:
        for name in ("loki", "tempo"):
            elsewhere = msgspec.structs.replace(candidate(host="loki.example.com"), key=key(name))
            assert watcher.readiness.known(elsewhere) is None
            by_address = msgspec.structs.replace(candidate(host="10.1.1.1", address="10.1.1.1"), key=key(name))
            assert watcher.readiness.known(by_address) == watcher.readiness.known(a(name)) is not None


async def test_every_change_of_what_is_known_is_told_once(api):
    async with watching(api, "loki", "tempo") as watcher:
        watcher.take_told()

        async def becomes(known: str | None, *slices: Object) -> None:
            await api.put(*slices)
            await until(lambda: watcher.told)
            assert watcher.known("loki") == known
            assert watcher.told == [{key("loki")}]
            watcher.told.clear()

        await becomes(NOT_READY.reason, endpoint_slice("loki"))
        await becomes(None, endpoint_slice("loki", "10.1.0.1"))
        await becomes(NOT_READY.reason, endpoint_slice("loki", "10.1.0.1", ready=False))
        await becomes(None, endpoint_slice("loki", "10.1.0.2", name="b"))
        # One more Pod, one fewer, a rolling restart: nobody need ask again.
        await api.put(
            endpoint_slice("loki", "10.1.0.1", "10.1.0.3"),
            endpoint_slice("loki", "10.1.0.2", name="b", ready=False),
            endpoint_slice("loki", "10.1.0.4", name="b", ready=False),
        )
        await becomes(NOT_READY.reason, endpoint_slice("loki", "10.1.0.3", ready=False))
        for name in ("b", "loki-x7k2p"):
            await api.sandbox.delete("EndpointSlice", NAMESPACE, name)
        await until(lambda: watcher.told)
        assert watcher.known("loki") is None
        assert not watcher.readiness._slices
        assert not watcher.readiness._by_service


async def test_the_first_ready_endpoint_is_told_though_nothing_was_known_against_it(api):
    """A Service and its slice appear together: its first check failed, and the next one need not wait."""
    async with watching(api, "loki") as watcher:
        watcher.take_told()
        await api.put(endpoint_slice("loki", "10.1.0.1"))
        await until(lambda: watcher.told)
        assert watcher.told == [{key("loki")}]


async def test_a_slice_that_is_given_to_another_service(api):
    await api.put(endpoint_slice("loki", name="a"))
    async with watching(api, "loki", "tempo") as watcher:
        assert (watcher.known("loki"), watcher.known("tempo")) == (NOT_READY.reason, None)
        watcher.take_told()
        await api.put(endpoint_slice("tempo", name="a"))
        await until(lambda: watcher.known("tempo"))
        assert watcher.known("loki") is None
        assert watcher.take_told() == {key("loki"), key("tempo")}


# --- Where it leads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        endpoint_slice("loki", METADATA),
        endpoint_slice("loki", METADATA, ready=False),
        endpoint_slice("loki", "10.1.0.1", "10.1.0.2", METADATA, ports=(80, 9090)),
        endpoint_slice("loki", METADATA, ports=()),
        endpoint_slice("loki", METADATA, ports=(None,)),
        endpoint_slice("loki", "::ffff:169.254.169.254"),
        endpoint_slice("loki", "fe80::1%eth0"),
        endpoint_slice("loki", "metadata.google.internal"),
        endpoint_slice("loki", "{{ env.TOKEN }}\n\u202e"),
        endpoint_slice("loki", ""),
    ],
)
async def test_a_candidate_whose_slices_lead_to_a_refused_address_is_refused(api, bad):
    good = endpoint_slice("loki", "10.1.0.1", name="good")
    await api.put(good, bad)
    async with watching(api, "loki") as watcher:
        known = watcher.known("loki")
        assert known is not None
        assert known.startswith("refused: its EndpointSlice has a refused address: ")
        assert known.isprintable()
        assert "TOKEN" not in known
        watcher.take_told()
        await api.put(endpoint_slice("loki", "10.1.0.3"))
        await until(lambda: watcher.known("loki") is None)
        assert watcher.take_told() == {key("loki")}


async def test_the_reason_does_not_depend_on_the_order_of_what_the_slices_hold(api):
    await api.put(endpoint_slice("loki", METADATA, "169.254.169.254"), endpoint_slice("loki", "127.0.0.1", name="b"))
    async with watching(api, "loki") as watcher:
        known = watcher.known("loki")
        assert f"address: {METADATA} is" in known
        await api.put(endpoint_slice("loki", "127.0.0.1"))
        await api.put(endpoint_slice("loki", "169.254.169.254", METADATA, name="b"))
        watcher.readiness.update([key("loki"), key("tempo")])
        assert await watcher.readiness.settled(10)
        assert watcher.known("loki") == known


async def test_a_slice_of_more_than_anybody_needs_is_refused_unjudged(api):
    many = [f"10.1.{number // 256}.{number % 256}" for number in range(1001)]
    await api.put(endpoint_slice("loki", *many), endpoint_slice("tempo", "10.1.0.1", ports=range(1, 102)))
    await api.put(endpoint_slice("mimir", *many[:1000], ports=range(1, 101)))
    async with watching(api, "loki", "tempo", "mimir") as watcher:
        for name in ("loki", "tempo"):
            assert watcher.known(name) == "refused: its EndpointSlice has more than 1000 addresses or 100 ports"
        assert watcher.known("mimir") is None


async def test_little_of_a_slice_is_kept(api):
    many = [f"10.1.{number // 256}.{number % 256}" for number in range(1000)]
    await api.put(endpoint_slice("loki", *many))
    async with watching(api, "loki") as watcher:
        assert watcher.readiness._in_force is not None
        assert all(len(msgspec.json.encode(one)) < 400 for one in watcher.readiness._in_force.store.values())


# --- Where the API server is ----------------------------------------------------------------------------------------

API_SLICE = endpoint_slice("kubernetes", "10.9.0.1", ports=(6443,), name="kubernetes")


async def test_nobody_leads_to_the_api_server(api):
    await api.put(
        API_SLICE,
        endpoint_slice("loki", "10.1.0.1", "10.9.0.1", ports=(6443,)),
        endpoint_slice("all-ports", "10.9.0.1", ports=(None,)),
        endpoint_slice("tempo", "10.9.0.1", ports=(9090,)),  # something else on the same host
        endpoint_slice("dialled", "10.7.7.7", ports=(443,)),
    )
    async with watching(api, "loki", "all-ports", "tempo", "dialled", api_server=[("10.7.7.7", 443)]) as watcher:
        await until(lambda: watcher.refused("loki") and watcher.refused("all-ports"))
        assert "10.9.0.1 is the Kubernetes API server" in watcher.known("loki")
        assert watcher.refused("dialled")
        assert watcher.known("tempo") is None


async def test_the_address_of_the_service_of_the_api_server_is_its_own_too(api):
    for name, port in (("kubernetes", 443), ("other", 80)):
        metadata = {"name": name, "namespace": "default"}
        await api.sandbox.put({"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": port}]}})
    await api.put(endpoint_slice("loki", "127.0.0.1", ports=(443,)))  # in the sandbox every ClusterIP is this one
    async with watching(api, "loki", guard=Guard(["127.0.0.0/8"])) as watcher:
        await until(lambda: watcher.refused("loki"))
        assert watcher.readiness.known(candidate(address="127.0.0.1", port=443)).refused
        assert watcher.readiness.known(candidate(address="127.0.0.1", port=80)) is NOT_READ


async def test_who_leads_to_the_api_server_is_found_out_when_it_moves(api):
    await api.put(API_SLICE, endpoint_slice("loki", "10.9.0.2", ports=(6443,)))
    async with watching(api, "loki") as watcher:
        await until(lambda: len(api.selectors) >= 2)
        assert watcher.known("loki") is None
        watcher.take_told()
        await api.put(endpoint_slice("kubernetes", "10.9.0.2", ports=(6443,), name="kubernetes"))
        await until(lambda: watcher.refused("loki"))
        assert watcher.take_told() == {key("loki")}
        await api.put(API_SLICE)
        await until(lambda: watcher.known("loki") is None)


async def test_who_leads_to_an_api_server_is_found_out_though_that_is_learnt_in_the_middle_of_a_list(api):
    others = [endpoint_slice("loki", "10.1.0.1", name=f"loki-{number}") for number in range(PAGE_SIZE)]
    await api.put(endpoint_slice("loki", "10.9.0.2", ports=(6443,), name="loki"), *others)
    async with watching(api) as watcher:
        api.pages.clear()
        watcher.readiness.update([key("loki")])
        await until(lambda: api.waiting)
        watcher.readiness.protect([("10.9.0.2", 6443)])  # as of another cluster, whose kubeconfig has just been read
        api.pages.set()
        await until(lambda: watcher.refused("loki"))


async def test_everybody_is_told_when_the_api_server_is_found_elsewhere(api):
    """An address of theirs may be its own, for which no slice is needed."""
    async with watching(api, "loki", "tempo") as watcher:
        watcher.take_told()
        await api.put(API_SLICE)
        await until(lambda: watcher.readiness.known(candidate(address="10.9.0.1", port=6443)).refused)
        assert watcher.take_told() == {key("loki"), key("tempo")}
        # The same place once more is no news.
        asked = len(api.selectors)
        await api.put({**API_SLICE, "metadata": {**API_SLICE["metadata"], "annotations": {"checked": "again"}}})
        await api.put(endpoint_slice("loki"))
        await until(lambda: watcher.known("loki"))
        assert watcher.take_told() == {key("loki")}
        assert len(api.selectors) == asked


async def test_an_api_server_in_a_hundred_places_is_not_believed(api):
    many = [f"10.9.0.{number}" for number in range(101)]
    await api.put(endpoint_slice("kubernetes", *many, ports=(6443,), name="kubernetes"))
    async with watching(api) as watcher:
        assert watcher.readiness.known(candidate(address="10.9.0.1", port=6443)) is NOT_READ


async def test_a_slice_of_that_name_elsewhere_says_nothing_of_the_api_server(api):
    await api.sandbox.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    forged = endpoint_slice("kubernetes", "10.1.0.1", ports=(9090,), name="kubernetes", namespace="other")
    await api.put(forged, endpoint_slice("loki", "10.1.0.1"))
    async with watching(api, "loki") as watcher:
        assert watcher.known("loki") is None
        assert watcher.readiness._protected == frozenset()


async def test_where_the_api_server_is_known_before_a_candidate_comes_one_list_each_is_enough(api):
    await api.put(API_SLICE, endpoint_slice("loki", "10.9.0.1", ports=(6443,)))
    async with watching(api) as watcher:
        watcher.readiness.update([key("loki")])
        assert await watcher.readiness.settled(10)
        assert watcher.refused("loki")
    assert len(api.selectors) == 2


# --- What is asked of the API ---------------------------------------------------------------------------------------


async def test_only_the_slices_of_the_candidates_are_asked_for(api):
    async with watching(api, "tempo", "loki"):
        assert api.selectors[-1] == "kubernetes.io/service-name in (kubernetes,loki,tempo)"


async def test_nothing_is_asked_while_nothing_changes(api):
    async with watching(api, "loki") as watcher:
        asked = len(api.selectors)
        for _ in range(20):
            watcher.readiness.update([key("loki")])
            await asyncio.sleep(0.01)
        watcher.readiness.update([key("loki"), key("loki", "other")])  # its name is watched for already
        await asyncio.sleep(0.2)
        assert len(api.selectors) == asked


async def test_many_changes_at_once_cost_a_list_or_two(api):
    async with watching(api) as watcher:
        asked = len(api.selectors)
        for number in range(200):
            watcher.readiness.update([key(f"loki-{one}") for one in range(number)])
            await asyncio.sleep(0)
        assert await watcher.readiness.settled(10)
        assert len(api.selectors) - asked <= 2


async def test_what_was_known_stays_in_force_until_the_new_list_is_there(api):
    await api.put(endpoint_slice("loki"), endpoint_slice("tempo"))
    async with watching(api, "loki") as watcher:
        api.open.clear()
        watcher.readiness.update([key("loki"), key("tempo")])
        await until(lambda: "tempo" in api.selectors[-1])
        assert not await watcher.readiness.settled(0.05)
        assert (watcher.known("loki"), watcher.known("tempo")) == (NOT_READY.reason, NOT_READ.reason)
        await api.put(endpoint_slice("loki", "10.1.0.1"))
        await until(lambda: watcher.known("loki") is None)
        watcher.take_told()
        api.open.set()
        assert await watcher.readiness.settled(10)
        assert (watcher.known("loki"), watcher.known("tempo")) == (None, NOT_READY.reason)
        assert watcher.take_told() == {key("tempo")}
        # From now on the new one is listened to, and the old one has ended.
        await api.put(endpoint_slice("tempo", "10.1.0.1"))
        await until(lambda: watcher.known("tempo") is None)
        await until(lambda: [task.get_name() for task in asyncio.all_tasks()].count("endpointslices") == 1)


async def test_a_list_that_never_comes_makes_room_for_one_that_is_wanted_now(api, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    api.open.clear()
    async with watching(api) as watcher:
        await until(lambda: api.selectors)
        await asyncio.sleep(0.2)
        assert len(api.selectors) == 1  # nothing else is wanted
        watcher.readiness.update([key("loki"), key("tempo")])
        await until(lambda: "tempo" in api.selectors[-1])
        assert [task.get_name() for task in asyncio.all_tasks()].count("endpointslices") == 1
        # This one comes late too, but is still wanted.
        await asyncio.sleep(0.2)
        api.open.set()
        assert await watcher.readiness.settled(10)
        assert len(api.selectors) == 2


@pytest.mark.parametrize("bad", [True, False])
async def test_a_newcomer_is_not_to_be_asked_until_its_slices_are_there_and_then_it_is_told_of(api, bad):
    await api.put(endpoint_slice("loki", "10.1.0.1"), endpoint_slice("tempo", METADATA if bad else "10.1.0.2"))
    async with watching(api, "loki") as watcher:
        api.open.clear()
        watcher.readiness.update([key("loki"), key("tempo"), key("tempo", "other")])
        await until(lambda: "tempo" in api.selectors[-1])
        watcher.take_told()
        assert watcher.readiness.known(a("tempo")) is NOT_READ
        assert watcher.readiness.known(a("tempo", "other")) is NOT_READ
        assert watcher.known("loki") is None  # what is known of others is not forgotten
        api.open.set()
        assert await watcher.readiness.settled(10)
        assert watcher.refused("tempo") == bad
        assert watcher.known("tempo", "other") is None  # it has none
        assert watcher.take_told() == {key("tempo"), key("tempo", "other")}


async def test_a_candidate_that_left_and_came_back_is_a_newcomer(api):
    async with watching(api, "loki", "tempo") as watcher:
        watcher.readiness.update([key("loki")])
        assert await watcher.readiness.settled(10)
        api.open.clear()
        watcher.readiness.update([key("loki"), key("tempo")])
        await until(lambda: "tempo" in api.selectors[-1])
        assert watcher.known("tempo") == NOT_READ.reason
        api.open.set()
        assert await watcher.readiness.settled(10)
        assert watcher.known("tempo") is None


async def test_where_the_api_server_is_is_asked_before_anything_else(api):
    await api.put(API_SLICE, endpoint_slice("loki", "10.9.0.1", ports=(6443,)))
    async with watching(api, "loki") as watcher:
        assert api.selectors[0] == "kubernetes.io/service-name in (kubernetes)"
        assert watcher.refused("loki")
    assert len(api.selectors) == 2


async def test_it_is_settled_when_the_slices_of_the_latest_candidates_are_there(api):
    await api.put(endpoint_slice("loki"), endpoint_slice("tempo"))
    async with watching(api) as watcher:
        api.open.clear()
        watcher.readiness.update([key("loki")])
        await until(lambda: "loki" in api.selectors[-1])
        watcher.readiness.update([key("loki"), key("tempo")])
        api.open.set()
        assert await watcher.readiness.settled(10)
        assert watcher.known("tempo") == NOT_READY.reason


async def test_of_too_many_candidates_all_slices_are_watched_and_only_theirs_are_kept(api):
    names = [f"a-service-with-quite-a-long-name-{number}" for number in range(150)]
    await api.put(endpoint_slice(names[0]), endpoint_slice("somebody-elses", METADATA))
    async with watching(api, *names) as watcher:
        assert api.selectors[-1] == ""
        assert watcher.known(names[0]) == NOT_READY.reason
        assert watcher.known("somebody-elses") == NOT_READ.reason
        assert {one.name for one in watcher.readiness._by_service} == {names[0]}
        await api.put(endpoint_slice(names[1]))
        await until(lambda: watcher.known(names[1]))
        watcher.readiness.update([key(names[0])])
        assert await watcher.readiness.settled(10)
        assert api.selectors[-1] != ""
        assert (watcher.known(names[0]), watcher.known(names[1])) == (NOT_READY.reason, NOT_READ.reason)


# --- What goes wrong ------------------------------------------------------------------------------------------------


def no_rights() -> StatusError:
    return StatusError(403, "Forbidden", 'endpointslices.discovery.k8s.io is forbidden: User "x" cannot list resource')


async def test_while_slices_cannot_be_read_nobody_is_to_be_asked_and_the_problem_says_what_it_takes(api):
    api.refuse = no_rights()
    await api.put(endpoint_slice("loki"))
    async with watching(api, "loki") as watcher:
        problem = await until(lambda: watcher.readiness.problem)
        assert problem.startswith("EndpointSlices cannot be read: 403 Forbidden: ")
        assert "permission to list and watch endpointslices (discovery.k8s.io) in all namespaces" in problem
        assert watcher.readiness.known(a("loki")) is NOT_READ
        assert len(api.selectors) < 10  # no busy loop
        # What needs no slice is known all the same.
        assert watcher.readiness.known(candidate(address=METADATA)).refused
        api.refuse = None
        await until(lambda: watcher.known("loki") == NOT_READY.reason and watcher.readiness.problem is None)


async def test_what_was_known_stays_when_the_right_is_lost_while_the_candidates_change(api):
    await api.put(endpoint_slice("loki", METADATA))
    async with watching(api, "loki") as watcher:
        api.refuse = no_rights()
        watcher.readiness.update([key("loki"), key("tempo")])
        await until(lambda: watcher.readiness.problem)
        assert watcher.refused("loki")
        assert watcher.known("tempo") == NOT_READ.reason


async def test_a_watch_that_cannot_be_had_leaves_what_was_seen_in_force(api, monkeypatch):
    await api.put(endpoint_slice("loki"))
    async with watching(api, "loki") as watcher:
        broken = api.sandbox._api

        async def refuse(*_: Any) -> web.StreamResponse:
            raise no_rights()

        monkeypatch.setattr(broken, "_watch", refuse)
        watcher.readiness.update([key("loki"), key("tempo")])
        problem = await until(lambda: watcher.readiness.problem)
        assert problem.startswith("EndpointSlices cannot be followed: 403 Forbidden: ")
        assert (watcher.known("loki"), watcher.known("tempo")) == (NOT_READY.reason, None)


async def test_a_slice_that_cannot_be_decoded_is_named(api):
    broken = endpoint_slice("loki", "10.1.0.1", name="broken")
    broken["ports"] = [{"port": "http"}]
    await api.put(broken, endpoint_slice("tempo"))
    async with watching(api, "loki", "tempo") as watcher:
        assert watcher.readiness.problem.startswith("EndpointSlice default/broken cannot be read: ")
        assert watcher.known("tempo") == NOT_READY.reason
        assert watcher.known("loki") is None


async def test_who_is_no_candidate_any_more_is_not_told_of(api):
    async with watching(api, "loki", "tempo") as watcher:
        api.open.clear()  # the new list does not come, so the old watch still brings what happens to loki
        watcher.readiness.update([key("tempo")])
        watcher.take_told()
        await api.put(endpoint_slice("loki"))
        await until(lambda: watcher.known("loki"))
        assert watcher.take_told() == set()
        api.open.set()
        assert await watcher.readiness.settled(10)
        assert watcher.known("loki") == NOT_READ.reason
