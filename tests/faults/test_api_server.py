"""Whatever the API server does, what is published stays right or stays as it was, and comes right by itself.

After each fault a change is published, without a restart of the program, whose requests and memory are bounded.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from dynamic_toolset.kube.connection import TOKEN_LIFETIME
from tests.cluster.cluster import Cluster
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
from tests.e2e.test_lifecycle import MERGE, annotate, tools
from tests.faults.api_proxy import ApiProxy, Edit, Parts, doubled, event, halved, lost, status, withheld
from tests.faults.tcp_proxy import ApiWire
from tests.waiting import eventually

pytestmark = pytest.mark.faults

Start = Callable[..., Program]

# Not every request for Services is for all of them: of the API server's own one is watched too.
LIST: dict[str, Any] = {"verb": "list", "resource": "services", "namespace": ""}
WATCH: dict[str, Any] = {"verb": "watch", "resource": "services", "namespace": ""}
APPLY: dict[str, Any] = {"verb": "patch", "resource": "configmaps"}
NEEDED = (LIST, WATCH, APPLY)
"""What the program needs of the API to publish, in this order."""

RECOVERY = 40.0
"""Seconds within which a change must be published once a fault is over: after faults this short no pause is longer."""

MEGABYTES = 120.0
"""What the program may hold of memory; it starts with 45."""


class Scene:
    """The program, and one Service that it publishes."""

    def __init__(self, cluster: Cluster, subject: Program) -> None:
        self.subject = subject
        self._cluster = cluster
        self._changes = 0
        eventually(self.endpoint, within=RECOVERY)
        self._good = subject.published()

    def endpoint(self) -> str:
        """Return where the toolset says that the Service is; empty if it does not."""
        return tools(self.subject).get(f"{self.subject.namespace}/orders", "")

    def change(self) -> str:
        """Change the Service, and return the path that the toolset must show from now on."""
        self._changes += 1
        path = f"/change/{self._changes}"
        annotate(self._cluster, self.subject.namespace, "orders", {"kubernaut.io/toolset-path": path})
        return path

    def wait_for(self, path: str, within: float = RECOVERY) -> None:
        """Wait until a change is published."""
        eventually(lambda: self.endpoint().endswith(path), within)
        self._good = self.subject.published()

    def assert_untouched(self) -> None:
        """The ConfigMap is what it was, and, as its resourceVersion says, was all the time."""
        assert self.subject.published() == self._good

    def assert_works(self) -> None:
        """A change is published, nothing is wrong any more, and the process is sound."""
        self.wait_for(self.change())
        eventually(lambda: self.subject.problems() == {}, within=RECOVERY)
        assert self.subject.exit_code is None
        assert self.subject.memory < MEGABYTES


@contextmanager
def staged(cluster: Cluster, namespace: str, start: Start, *settings: Any, **options: Any) -> Iterator[Scene]:
    """Have a Service in a namespace, and then the program, started with these settings and options."""
    with team_api(cluster, namespace, "orders", health_path="/"):
        yield Scene(cluster, start(*settings, namespace=namespace, **options))


@pytest.fixture
def scene(cluster: Cluster, namespace: str, program: Start, proxy: ApiProxy) -> Iterator[Scene]:
    """The program finds the API through the proxy."""
    with staged(cluster, namespace, program, server=proxy) as built:
        yield built


def delete_service(cluster: Cluster, namespace: str, name: str) -> None:
    assert cluster.api("DELETE", f"/api/v1/namespaces/{namespace}/services/{name}").status == 200


# --- Killed, and started again ---------------------------------------------------------------------------------------


def test_killed_during_a_watch(cluster: Cluster, namespace: str, program: Start) -> None:
    """Nothing is missed that happens before the watches are back: a change, a deletion, a new Service."""
    with (
        team_api(cluster, namespace, "goes", health_path="/"),
        staged(cluster, namespace, program) as scene,
    ):
        subject = scene.subject
        eventually(lambda: f"{namespace}/goes" in tools(subject))
        before = subject.published()
        cluster.restart_apiserver()
        assert subject.published() == before
        seen = len(list(cluster.audit()))
        path = scene.change()
        delete_service(cluster, namespace, "goes")
        with team_api(cluster, namespace, "comes", health_path="/"):
            eventually(lambda: set(tools(subject)) == {f"{namespace}/orders", f"{namespace}/comes"}, within=RECOVERY)
            scene.wait_for(path)
        scene.assert_works()
        mine = [one for one in cluster.audit(seen) if one.user == subject.user and one.resource == "services"]
        assert len(mine) <= 10


def test_killed_during_a_list(cluster: Cluster, proxy: ApiProxy, scene: Scene) -> None:
    """Half a list takes nothing away: neither from a program that runs, nor from one that has just started."""
    with proxy.editing(halved, **LIST, times=1) as halves:
        assert proxy.inject(event("ERROR", status(410)), **WATCH)
        eventually(lambda: halves)
        cluster.restart_apiserver()
    scene.assert_untouched()
    scene.assert_works()

    scene.subject.stop()
    with proxy.editing(halved, **LIST, times=1) as halves:
        scene.subject.start()
        eventually(lambda: halves)
        cluster.restart_apiserver()
    scene.assert_untouched()
    scene.assert_works()


def test_killed_before_an_apply_arrives(cluster: Cluster, proxy: ApiProxy, scene: Scene) -> None:
    with ExitStack() as away:
        with proxy.holding(**APPLY) as held:
            path = scene.change()
            eventually(lambda: held)
            away.enter_context(cluster.without_apiserver())
        eventually(lambda: "PublicationFailed" in scene.subject.problems())
    scene.wait_for(path)
    scene.assert_works()


def test_killed_between_an_apply_and_its_answer(cluster: Cluster, proxy: ApiProxy, scene: Scene) -> None:
    with proxy.editing(lost, **APPLY, times=1) as unanswered:
        path = scene.change()
        eventually(lambda: unanswered and unanswered[0].status == 200)
        cluster.restart_apiserver()
    scene.wait_for(path)
    scene.assert_works()
    # What was done is not done again: the second is that of assert_works.
    applied = [one for one in proxy.asked(**APPLY, since=unanswered[0].time) if one.status == 200]
    assert len(applied) == 2


# --- etcd ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Cluster.with_hanging_etcd, Cluster.without_etcd])
def test_etcd_away_for_half_a_minute(
    cluster: Cluster, namespace: str, program: Start, fault: Callable[[Cluster], AbstractContextManager[None]]
) -> None:
    """A backend that dies meanwhile is taken out afterwards, and nothing else happens."""
    with (
        team_api(cluster, namespace, "dies", health_path="/") as dying,
        staged(cluster, namespace, program, {"healthCheck": {"interval": "1s"}}) as scene,
    ):
        subject = scene.subject
        eventually(lambda: f"{namespace}/dies" in tools(subject))
        seen = len(list(cluster.audit()))
        with fault(cluster):
            time.sleep(20)
            dying.status = 500
            time.sleep(10)
            assert subject.problems()
        eventually(lambda: answers(cluster), within=RECOVERY)
        eventually(lambda: set(tools(subject)) == {f"{namespace}/orders"}, within=RECOVERY)

        def mine(**which: str) -> list[int]:
            """Return the status of each of its requests that these words choose."""
            return [
                one.code
                for one in cluster.audit(seen)
                if one.user == subject.user and all(getattr(one, name) == value for name, value in which.items())
            ]

        eventually(lambda: mine(**APPLY).count(200) == 1)
        assert len(mine()) < 100
        scene.assert_works()


def answers(cluster: Cluster) -> bool:
    """Whether the API server answers, and from its data."""
    try:
        return cluster.api("GET", "/api/v1/namespaces/default", timeout=1).status == 200
    except OSError:
        return False


# --- Slow and busy ---------------------------------------------------------------------------------------------------


def test_every_answer_takes_three_seconds(cluster: Cluster, namespace: str, program: Start, proxy: ApiProxy) -> None:
    """Slow is not failing: no problem is reported, nothing is asked twice, and who leads goes on leading."""
    proxy.delay = 3.0
    with staged(cluster, namespace, program, server=proxy) as scene:
        for _ in range(2):
            scene.wait_for(scene.change(), within=20)
        assert not scene.subject.events("problem", "standing_by")
        assert len(proxy.asked(**LIST)) == 1
        scene.assert_works()


def pauses(proxy: ApiProxy, which: dict[str, Any]) -> list[float]:
    """Return the seconds from each request of a kind to the next."""
    return [after.time - before.time for before, after in pairwise(proxy.asked(**which))]


def test_429_with_retry_after(cluster: Cluster, namespace: str, program: Start, proxy: ApiProxy) -> None:
    with ExitStack() as faults:
        for which in NEEDED:
            faults.enter_context(proxy.refusing(429, retry_after=4, times=1, **which))
        with staged(cluster, namespace, program, server=proxy) as scene:
            for which in NEEDED:
                (pause, *_) = eventually(lambda which=which: pauses(proxy, which))
                assert pause >= 4, which
            scene.assert_works()


@pytest.mark.parametrize("code", [429, 500, 503])
def test_runs_of_errors(cluster: Cluster, namespace: str, program: Start, proxy: ApiProxy, code: int) -> None:
    """Each request is tried again, after pauses that grow; first while the program starts, then all while it runs."""
    with ExitStack() as faults:
        for which in NEEDED:
            faults.enter_context(proxy.refusing(code, times=3, **which))
        with staged(cluster, namespace, program, server=proxy) as scene:
            for which in NEEDED:
                first, _, third, *_ = eventually(lambda which=which: pauses(proxy, which)[2:] and pauses(proxy, which))
                assert first >= 0.1, which
                assert third >= 0.4, which
            with proxy.refusing(code) as refused:
                proxy.wire.cut()
                path = scene.change()
                eventually(lambda: str(code) in scene.subject.problems().get("WatchFailing", ""), within=20)
                scene.assert_untouched()
            assert len(refused) < 50  # five watches and a lease
            scene.wait_for(path)
            scene.assert_works()


# --- Who may what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renewal", ["in time", "late"])
def test_401_when_a_token_is_void(cluster: Cluster, namespace: str, program: Start, renewal: str) -> None:
    """The new token in the file is taken: at once if it is there by then, else when it comes."""
    with staged(cluster, namespace, program, in_cluster=True) as scene:
        subject = scene.subject
        secrets_path = f"/api/v1/namespaces/{namespace}/secrets"
        session = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "session"}}
        session = cluster.api("POST", secrets_path, session).json
        subject.stop()
        subject.renew_token(cluster.token(namespace, subject.service_account, bound_to=session))
        started = time.monotonic()
        subject.start()
        scene.assert_works()

        seen = len(list(cluster.audit()))
        renewed = cluster.token(namespace, subject.service_account)
        if renewal == "in time":
            subject.renew_token(renewed)
        assert cluster.api("DELETE", f"{secrets_path}/session").status == 200
        cluster.restart_apiserver()  # it forgets whom it took the old token for, and all watches have to be opened anew
        if renewal == "late":
            eventually(lambda: "401" in subject.problems().get("WatchFailing", ""), within=20)
            path = scene.change()
            scene.assert_untouched()
            subject.renew_token(renewed)
            scene.wait_for(path)
        scene.assert_works()
        if time.monotonic() - started < TOKEN_LIFETIME:  # otherwise it has read the new one without a refusal
            eventually(lambda: unauthorized(cluster, seen))
        assert unauthorized(cluster, seen) < (100 if renewal == "late" else 20)


def unauthorized(cluster: Cluster, skip: int) -> int:
    """How often somebody was refused of whom nothing could be made."""
    return sum(one.code == 401 for one in cluster.audit(skip))


def forbidden(cluster: Cluster, subject: Program, skip: int) -> int:
    return sum(one.user == subject.user and one.code == 403 for one in cluster.audit(skip))


ROLES = "/apis/rbac.authorization.k8s.io/v1"


@contextmanager
def without_right(cluster: Cluster, role: str, verb: str, resource: str) -> Iterator[None]:
    """Take a right out of a role inside of the block. ``role`` is its path at the API."""
    rules = cluster.get(role)["rules"]
    fewer = [
        {**rule, "verbs": [one for one in rule["verbs"] if one != verb or resource not in rule["resources"]]}
        for rule in rules
    ]
    assert fewer != rules
    assert cluster.api("PATCH", role, {"rules": fewer}, content_type=MERGE).status == 200
    try:
        yield
    finally:
        assert cluster.api("PATCH", role, {"rules": rules}, content_type=MERGE).status == 200


def test_403_on_watch_while_list_is_allowed(cluster: Cluster, namespace: str, program: Start) -> None:
    with (
        ApiWire(cluster) as wire,
        staged(cluster, namespace, program, service_account="watchless", server=wire) as scene,
    ):
        subject = scene.subject
        seen = len(list(cluster.audit()))
        with without_right(cluster, f"{ROLES}/clusterroles/watchless", "watch", "services"):
            wire.cut()
            eventually(lambda: "403" in subject.problems().get("WatchFailing", ""), within=20)
            path = scene.change()
            scene.assert_untouched()
            # What a new start finds is published all the same.
            subject.stop()
            subject.start()
            scene.wait_for(path)
            eventually(lambda: "403" in subject.problems().get("WatchFailing", ""), within=20)
            path = scene.change()
            eventually(lambda: forbidden(cluster, subject, seen) >= 6)
            assert forbidden(cluster, subject, seen) < 50
        scene.wait_for(path)
        scene.assert_works()


def test_403_on_list_while_watch_is_allowed(cluster: Cluster, namespace: str, program: Start) -> None:
    with staged(cluster, namespace, program, service_account="listless") as scene:
        subject = scene.subject
        subject.stop()
        seen = len(list(cluster.audit()))
        with without_right(cluster, f"{ROLES}/clusterroles/listless", "list", "services"):
            subject.start()
            eventually(lambda: "403" in subject.problems().get("WatchFailing", ""), within=20)
            path = scene.change()
            eventually(lambda: forbidden(cluster, subject, seen) >= 5, within=20)
            scene.assert_untouched()
            assert forbidden(cluster, subject, seen) < 25  # two lists, of all and of the API's own, in 20 s
        scene.wait_for(path)
        scene.assert_works()


def test_403_on_apply(cluster: Cluster, namespace: str, program: Start) -> None:
    with staged(cluster, namespace, program, service_account="writeless") as scene:
        subject = scene.subject
        seen = len(list(cluster.audit()))
        with without_right(cluster, f"{ROLES}/namespaces/{namespace}/roles/writeless", "patch", "configmaps"):
            path = scene.change()
            eventually(lambda: "403" in subject.problems().get("PublicationFailed", ""))
            eventually(lambda: forbidden(cluster, subject, seen) >= 3, within=20)
            scene.assert_untouched()
            assert forbidden(cluster, subject, seen) < 6
        scene.wait_for(path)
        scene.assert_works()


def test_403_on_slices(cluster: Cluster, namespace: str, program: Start) -> None:
    """Then nobody is asked. It is said, and what is published stays, and follows its Service all the same."""
    with staged(cluster, namespace, program, service_account="sliceless") as scene:
        subject = scene.subject
        subject.stop()
        seen = len(list(cluster.audit()))
        with without_right(cluster, f"{ROLES}/clusterroles/sliceless", "list", "endpointslices"):
            subject.start()
            assert "403" in eventually(lambda: subject.problems().get("EndpointSlicesUnreadable"), within=20)
            scene.assert_untouched()
            scene.wait_for(scene.change())
            assert forbidden(cluster, subject, seen) < 25
        scene.assert_works()


# --- Too old ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", ["services", "configmaps", "endpointslices"])
def test_410_in_a_watch(proxy: ApiProxy, scene: Scene, resource: str) -> None:
    """A list makes up for it, and what is published is not touched."""
    lists = len(proxy.asked(verb="list", resource=resource))
    watches = proxy.inject(event("ERROR", status(410)), resource=resource)
    assert watches
    eventually(lambda: len(proxy.asked(verb="list", resource=resource)) == lists + watches)
    scene.assert_untouched()
    scene.assert_works()
    assert len(proxy.asked(verb="list", resource=resource)) == lists + watches


def test_410_in_the_middle_of_a_list(proxy: ApiProxy, scene: Scene) -> None:
    """The list begins again, and what its first page did not hold is not taken for gone."""
    proxy.page_size = 1
    with proxy.refusing(410, **LIST, where=lambda request: "continue" in request.query, times=1) as expired:
        assert proxy.inject(event("ERROR", status(410)), **WATCH)
        eventually(lambda: expired)
        eventually(lambda: "limit" not in proxy.asked(**LIST)[-1].query)
    scene.assert_untouched()
    scene.assert_works()


# --- Connections that carry nothing, or not what they should ---------------------------------------------------------


@pytest.mark.long
def test_silence_is_noticed(
    cluster: Cluster, make_namespace: Callable[[], str], program: Start, proxy: ApiProxy
) -> None:
    """Within 90 s: on connections that are dead without a word, and on living ones that bring no bookmarks."""
    with ApiWire(cluster) as wire, ExitStack() as scenes:
        dead = scenes.enter_context(staged(cluster, make_namespace(), program, server=wire))
        with proxy.editing(withheld, verb="watch"):
            deaf = scenes.enter_context(staged(cluster, make_namespace(), program, server=proxy))
        wire.freeze()
        started = time.monotonic()
        changes = [(scene, scene.change()) for scene in (dead, deaf)]
        for scene, path in changes:
            scene.wait_for(path, within=90 - (time.monotonic() - started))
        for scene, _ in changes:
            scene.assert_works()


def test_a_line_that_breaks_off(proxy: ApiProxy, scene: Scene) -> None:
    with proxy.editing(halved, **WATCH, times=1) as halves:
        proxy.wire.cut()
        eventually(lambda: halves and halves[0].status)
        scene.wait_for(scene.change())
    assert len(proxy.asked(**WATCH, since=halves[0].time)) > 1, "nothing broke off"
    scene.assert_works()


@pytest.mark.parametrize("line", [b"<html>\n", b"null\n", b'{"type":"ADDED"}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_a_line_that_is_no_event(proxy: ApiProxy, scene: Scene, line: bytes) -> None:
    assert proxy.inject(line, **WATCH)
    scene.assert_works()


def instead(*bodies: bytes) -> Edit:
    """Return the edit that puts one body after the other into the place of what the API said."""
    left = iter(bodies)

    async def edit(parts: Parts) -> Parts:
        async for _ in parts:
            yield next(left)

    return edit


def test_answers_that_are_none(proxy: ApiProxy, scene: Scene) -> None:
    """What is no list is never taken for an empty one, and what says nothing about an apply leads to another look."""
    no_lists = (b"", b"<html>", b"{}", b'{"metadata":{"resourceVersion":"9"},"items":[{"metadata":')
    with proxy.editing(instead(*no_lists), **LIST, times=len(no_lists)) as listed:
        assert proxy.inject(event("ERROR", status(410)), **WATCH)
        eventually(lambda: len(listed) == len(no_lists), within=30)
        scene.assert_untouched()
    with proxy.editing(instead(b"<html>"), **APPLY, times=1) as applied:
        path = scene.change()
        eventually(lambda: applied)
    scene.wait_for(path)
    scene.assert_works()


async def swapped(lines: Parts) -> Parts:
    """Send each second event before the first. A bookmark, which says that all before it was sent, stays in place."""
    waiting: list[bytes] = []
    async for line in lines:
        if b'"BOOKMARK"' in line or waiting:
            yield line
            for late in waiting:
                yield late
            waiting.clear()
        else:
            waiting.append(line)


async def replayed(lines: Parts) -> Parts:
    """After each event send those before it once more, the oldest last."""
    past: list[bytes] = []
    async for line in lines:
        for one in (line, *past):
            yield one
        past = [line, *past[:50]]


@pytest.mark.parametrize("disorder", [doubled, swapped, replayed])
def test_events_twice_out_of_order_or_from_the_past(
    cluster: Cluster, proxy: ApiProxy, scene: Scene, disorder: Edit
) -> None:
    """The newest state of each Service counts, what is gone does not come back, and nothing is written for nothing."""
    subject, namespace = scene.subject, scene.subject.namespace

    def stir() -> None:
        """Cause two events that mean nothing, so that none that means something is the last."""
        for _ in range(2):
            annotate(cluster, namespace, "plain", {"stirred": secrets.token_hex(4)})

    cluster.create_service(namespace, "plain", ports=[80])
    with proxy.editing(disorder, **WATCH) as disordered:
        proxy.wire.cut()
        eventually(lambda: disordered and disordered[0].status)
    with team_api(cluster, namespace, "goes", health_path="/"):
        stir()
        eventually(lambda: f"{namespace}/goes" in tools(subject))
        paths = [scene.change() for _ in range(5)]
        delete_service(cluster, namespace, "goes")
        stir()
        scene.wait_for(paths[-1])
        eventually(lambda: set(tools(subject)) == {f"{namespace}/orders"})
        written = len(proxy.asked(**APPLY))
        path = scene.change()
        stir()
        scene.wait_for(path)
        assert len(proxy.asked(**APPLY)) == written + 1
        assert set(tools(subject)) == {f"{namespace}/orders"}
    proxy.wire.cut()
    scene.assert_works()


def undecodable(name: str) -> Edit:
    """Return the edit that makes an object of this name be none, in lists and in watches."""

    async def edit(parts: Parts) -> Parts:
        async for part in parts:
            document = json.loads(part)
            for item in document["items"] if "items" in document else [document["object"]]:
                if item["metadata"].get("name") == name:
                    item["spec"]["ports"] = "eighty"
            yield json.dumps(document).encode() + b"\n"

    return edit


def test_an_object_that_cannot_be_decoded(cluster: Cluster, namespace: str, proxy: ApiProxy, scene: Scene) -> None:
    """It harms only itself, is named, and stays published as it was last."""
    subject = scene.subject
    with team_api(cluster, namespace, "odd", health_path="/"):
        odd = eventually(lambda: tools(subject).get(f"{namespace}/odd"))
        with proxy.editing(undecodable("odd"), resource="services", namespace="") as edited:
            proxy.wire.cut()
            eventually(lambda: edited and edited[-1].status)
            annotate(cluster, namespace, "odd", {"kubernaut.io/toolset-path": "/new"})
            eventually(lambda: f"{namespace}/odd" in subject.problems().get("ServiceUnreadable", ""))
            scene.wait_for(scene.change())
            assert tools(subject)[f"{namespace}/odd"] == odd
            assert proxy.inject(event("ERROR", status(410)), **WATCH)
            eventually(lambda: edited[-2:] and [one.verb for one in edited[-2:]] == ["list", "watch"])
            scene.wait_for(scene.change())
            assert tools(subject)[f"{namespace}/odd"] == odd
        proxy.wire.cut()
        annotate(cluster, namespace, "odd", {"kubernaut.io/toolset-path": "/newer"})
        eventually(lambda: tools(subject)[f"{namespace}/odd"].endswith("/newer"), within=RECOVERY)
        scene.assert_works()
