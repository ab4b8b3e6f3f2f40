"""Whatever backends do, they harm only themselves; and what is published stays until it is certain that it is gone."""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods
from tests.cluster.programs import cluster_program
from tests.e2e.program import Program, merged
from tests.e2e.team_api import team_api
from tests.e2e.test_lifecycle import tools
from tests.faults import hostile
from tests.faults.hostile import (
    Authority,
    Behaviour,
    Connection,
    Servers,
    answering,
    create_pod,
    dripping,
    in_turn,
    over_tls,
    own_selector,
    redirecting,
    redirecting_to,
)
from tests.faults.test_configmap import settled, writes
from tests.waiting import eventually

pytestmark = pytest.mark.faults

Start = Callable[..., Program]
Settings = Mapping[str, Any]

MEGABYTES = 150.0
"""What the program may hold of memory; it starts with 50."""

DELAY = 15.0
"""By how many seconds a thousand bad ones may delay a publication on a busy machine, which has all of them to read, and
begins to check them: half of what a check of one that hangs takes."""


# --- Backends and their Services -------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of backend: why it is not listed, as a regular expression; what it does; what is odd about its Service.

    ``port`` is an attribute of Servers, ``certificate`` one of Certificates. Annotations are without their prefix.
    """

    reason: str = ""
    behaviour: Behaviour = hostile.prometheus
    port: str = "port"
    certificate: str | None = None
    annotations: Mapping[str, str] = {}
    spec: Mapping[str, Any] = {}

    @property
    def is_reached(self) -> bool:
        """Whether Servers see who asks it."""
        return self.port == "port" and not self.spec and "endpoint" not in self.annotations


class Certificates:
    """What backends of a namespace show. Who trusts ``ca_file`` trusts all but the untrusted one."""

    def __init__(self, folder: Path, namespace: str) -> None:
        trusted = Authority(folder / "trusted")
        own = f"*.{namespace}.svc.cluster.local"
        self.good = trusted.issue(own)
        self.expired = trusted.issue(own, expired=True)
        self.other_name = trusted.issue("prometheus.example.com")
        self.untrusted = Authority(folder / "untrusted").issue(own)
        self.ca_file = trusted.file


class World:
    """Creates Services with backends of any kind."""

    def __init__(self, cluster: Cluster, servers: Servers, certificates: Certificates) -> None:
        self.servers = servers
        self._cluster = cluster
        self._certificates = certificates

    def create(self, namespace: str, kinds: Mapping[str, Kind]) -> dict[str, str]:
        """Create Services, all with one ready Pod behind them, and return the address of each."""
        addresses = {name: self._create(namespace, name, kind) for name, kind in kinds.items()}
        create_pod(self._cluster, namespace, (name for name, kind in kinds.items() if "selector" not in kind.spec))
        return addresses

    def settings(self, *namespaces: str) -> Settings:
        """What the program needs to see these namespaces, and to be able to fail as the kinds say."""
        return {
            "namespaces": {"include": list(namespaces)},
            "healthCheck": {"timeout": "2s", "caFile": str(self._certificates.ca_file)},
            "policy": {
                "allowedRanges": [self._cluster.service_range, f"{NO_ROUTE}/32", f"{ELSEWHERE}/32"],
                "foreignEndpoints": [{"namespaces": ["*"], "hosts": [NO_ROUTE]}],
                "withoutSelector": ["*"],
            },
        }

    def _create(self, namespace: str, name: str, kind: Kind) -> str:
        annotations = {"kubernaut.io/toolset": "enabled", "kubernaut.io/toolset-type": "prometheus"}
        annotations |= {f"kubernaut.io/toolset-{key}": value for key, value in kind.annotations.items()}
        ports = [getattr(self.servers, kind.port)]
        spec = {"selector": own_selector(name)} | kind.spec
        service = self._cluster.create_service(namespace, name, ports=ports, annotations=annotations, **spec)
        address: str = service["spec"]["clusterIP"]
        behaviour = kind.behaviour
        if kind.certificate:
            behaviour = over_tls(getattr(self._certificates, kind.certificate), behaviour)
        self.servers.put(address, behaviour)
        return address


@contextmanager
def world_of(cluster: Cluster, folder: Path, namespace: str) -> Iterator[World]:
    with Servers() as servers:
        yield World(cluster, servers, Certificates(folder, namespace))


@pytest.fixture
def world(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[World]:
    with world_of(cluster, tmp_path, namespace) as world:
        yield world


# --- Each kind of bad backend ----------------------------------------------------------------------------------------

NO_ROUTE = "239.255.0.1"
"""A multicast group: to connect to it fails as to a network without a route, and Linux sends nothing."""

ELSEWHERE = "127.0.0.2"
"""Where a good backend is that no Service leads to."""

PATIENCE = 5
"""Seconds that a check of each may take: whom a busy machine holds up is not to be taken for one that hangs."""

NOT_JSON = "answers, but not as Prometheus: /api/v1/status/buildinfo: not JSON"
LONG_HEAD = "the head of the answer is longer than 128 lines"
HTTPS = {"scheme": "https"}

BAD = {
    "nothing-listens": Kind("connection refused", port="closed_port"),
    "no-route": Kind("network is unreachable", annotations={"endpoint": f"http://{NO_ROUTE}:9090"}),
    "no-name": Kind(r"name does not resolve: no-name\..*", spec={"clusterIP": "None", "selector": None}),
    "no-pod": Kind("no ready endpoint in its EndpointSlices", spec={"selector": {"app": "nobody"}}),
    "deaf": Kind(f"no answer within {PATIENCE} s", port="deaf_port"),
    "silent": Kind(f"no answer within {PATIENCE} s", hostile.silent),
    "dripping": Kind(f"no answer within {PATIENCE} s", dripping()),
    "dripping-body": Kind(f"no complete answer within {PATIENCE} s", dripping(b"HTTP/1.1 200 OK\r\n\r\n")),
    "hanging-up": Kind("connection closed without an answer", hostile.hanging_up),
    "breaking-off": Kind("the answer breaks off", hostile.breaking_off),
    "endless-head": Kind(LONG_HEAD, hostile.endless_head),
    "endless-interim-answers": Kind(LONG_HEAD, hostile.endless_interim_answers),
    "endless-body": Kind(NOT_JSON, hostile.endless_body),
    "endless-chunks": Kind("the answer comes in more than 1024 chunks", hostile.endless_chunks),
    "hundred-megabytes": Kind(NOT_JSON, hostile.hundred_megabytes),
    "bomb": Kind(NOT_JSON, hostile.bomb),
    "deep": Kind(NOT_JSON, hostile.deep),
    "not-http": Kind("the answer is not HTTP", hostile.ssh),
    "https-for-http": Kind(r"the answer is not HTTP but TLS; does it speak https here\?", hostile.tls_alert),
    "http-for-https": Kind(r"TLS failed: .*; does it speak https here\?", hostile.plain_http, annotations=HTTPS),
    "redirect-loop": Kind(r"redirects to another path \(redirects are not followed\)", hostile.redirecting_in_a_circle),
    "redirect-elsewhere": Kind(r"redirects to 127\.0\.0\.2 \(redirects are not followed\)", redirecting_to(ELSEWHERE)),
    "redirect-to-metadata": Kind(
        r"redirects to 169\.254\.169\.254 \(redirects are not followed\)",
        redirecting("http://169.254.169.254/latest/meta-data/iam/security-credentials/"),
    ),
    "untrusted": Kind(
        r"certificate not trusted: .*\(set healthCheck\.caFile to its CA, .*\)",
        certificate="untrusted",
        annotations=HTTPS,
    ),
    "other-name": Kind(r"certificate not valid: Hostname mismatch, .*", certificate="other_name", annotations=HTTPS),
    "expired": Kind(r"certificate not valid: certificate has expired .*", certificate="expired", annotations=HTTPS),
    "http-401": Kind(r"needs credentials \(HTTP 401\)", answering(401)),
    "http-403": Kind(r"needs credentials \(HTTP 403\)", answering(403)),
    "http-429": Kind("HTTP 429", answering(429, Retry_After="3600")),
    "http-500": Kind("HTTP 500", answering(500)),
    "welcome-page": Kind(NOT_JSON, answering(200, b"<h1>Welcome to nginx!</h1>")),
    "somebody-else": Kind(
        "answers, but not as Prometheus: /api/v1/status/buildinfo: no /data/goVersion",
        answering(200, b'{"status": "success", "data": {"version": "2.15.0", "application": "Grafana Mimir"}}'),
    ),
}

WELL = Kind()
GOOD = {"good": WELL, "good-https": Kind(certificate="good", annotations=HTTPS)}


class Trial(NamedTuple):
    """The program, with all kinds of backends before it."""

    subject: Program
    servers: Servers
    addresses: Mapping[str, str]

    def word_on(self, name: str) -> dict[str, Any]:
        """Wait for what the log says of a Service once it has been checked."""
        return eventually(lambda: next(iter(self._words(name)), None), within=40)

    def _words(self, name: str) -> Iterator[dict[str, Any]]:
        for event in self.subject.events("service_listed", "service_not_listed"):
            if event["service"] == f"{self.subject.namespace}/{name}" and event["health"] != "unknown":
                yield event


@pytest.fixture(scope="module")
def trial(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    namespace = f"bad-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("bad")
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {cluster.dns_address}\n")
    cluster.create_namespace(namespace)
    try:
        with world_of(cluster, folder, namespace) as world:
            world.servers.put(ELSEWHERE, hostile.prometheus)
            addresses = world.create(namespace, BAD | GOOD)
            seen = None if cluster.dns_missing else resolv_conf
            settings = merged(world.settings(namespace), {"healthCheck": {"timeout": f"{PATIENCE}s"}})
            with running(Program(cluster, namespace, settings, resolv_conf=seen)) as subject:
                yield Trial(subject, world.servers, addresses)
    finally:
        cluster.delete_namespace(namespace)


@contextmanager
def running(subject: Program) -> Iterator[Program]:
    subject.start()
    try:
        yield subject
    finally:
        subject.stop()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_backend_is_not_listed_and_the_log_says_why(cluster: Cluster, trial: Trial, name: str) -> None:
    if name == "no-name" and cluster.dns_missing:
        raise cluster.dns_missing
    event = trial.word_on(name)
    assert (event["event"], event["health"]) == ("service_not_listed", "unhealthy")
    assert re.fullmatch(BAD[name].reason, event["reason"])


def test_among_bad_backends_the_good_ones_are_listed(trial: Trial) -> None:
    for name in GOOD:
        event = trial.word_on(name)
        assert (event["event"], event["reason"]) == ("service_listed", "answers as Prometheus")
    eventually(lambda: set(tools(trial.subject)) == {f"{trial.subject.namespace}/{name}" for name in GOOD})


def test_no_redirect_is_followed(trial: Trial) -> None:
    for name in ("redirect-loop", "redirect-elsewhere", "redirect-to-metadata"):
        trial.word_on(name)
        assert {visit.path for visit in trial.servers.visits(trial.addresses[name])} == {"/-/healthy"}
    assert not trial.servers.visits(ELSEWHERE)


def test_bad_backends_leave_the_program_sound(cluster: Cluster, trial: Trial) -> None:
    for name in BAD:
        trial.word_on(name)
    assert trial.subject.problems() == {}
    assert peak_memory(trial.subject) < MEGABYTES
    # The first publication does not wait for good ones that take longer than a second to answer.
    assert len(writes(cluster, trial.subject)) <= 1 + len(GOOD)


def peak_memory(subject: Program) -> float:
    """The most that the program has held so far, in MB (10^6 bytes)."""
    status = Path(f"/proc/{subject.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


# --- A thousand of them ----------------------------------------------------------------------------------------------


def test_a_thousand_bad_ones_neither_delay_nor_crowd_out_thirty_good_ones(
    cluster: Cluster, make_namespace: Callable[[], str], world: World
) -> None:
    decent, others = [make_namespace() for _ in range(3)], [make_namespace() for _ in range(25)]
    ten = {f"good-{n}": WELL for n in range(10)}
    good = {f"{namespace}/{name}" for namespace in decent for name in world.create(namespace, ten)}
    kinds = cycle(BAD.items())
    crowds = [{f"{name}-{n}": kind for n, (name, kind) in enumerate(islice(kinds, 40))} for _ in others]
    with ThreadPoolExecutor(4) as pool:
        created = pool.map(world.create, others, crowds)
        bad = [
            addresses[name]
            for crowd, addresses in zip(crowds, created, strict=True)
            for name, kind in crowd.items()
            if kind.is_reached
        ]

    with running(Program(cluster, make_namespace(), world.settings(*decent))) as subject:
        alone = publication(subject, good)

    # Whoever waited for those that hang would wait for longer than anybody does here.
    settings = world.settings(*decent, *others)
    beyond_the_caps = {"policy": {"maxInAll": 2000}, "healthCheck": {"timeout": "30s"}}
    with running(Program(cluster, make_namespace(), merged(settings, beyond_the_caps))) as subject:
        among_a_thousand = publication(subject, good)
        eventually(lambda: sum(len(world.servers.visits(address)) for address in bad) > 3 * len(bad), 60, every=0.5)
        memory = peak_memory(subject)
        assert set(tools(subject)) == good
        assert subject.problems() == {}

    began = time.monotonic()
    with running(Program(cluster, make_namespace(), settings)) as subject:
        among_few = publication(subject, good)
        taken = eventually(lambda: len(found := judged(subject)) == 500 and found, within=60, every=0.5)
        assert good <= taken
        assert {sum(key.startswith(f"{namespace}/") for key in taken) for namespace in others} == {18, 19}
        asked = [address for address in bad if any(visit.time > began for visit in world.servers.visits(address))]
        assert len(asked) <= 470
        assert set(tools(subject)) == good
    print(
        f"30 are published after {alone:.2f} s alone, {among_a_thousand:.2f} s among 1,000 bad ones "
        f"({memory:.0f} MB at most), {among_few:.2f} s if the caps cut those off"
    )
    assert memory < MEGABYTES
    assert max(among_a_thousand, among_few) < alone + DELAY


def publication(subject: Program, services: set[str]) -> float:
    """Wait until these are published, and return the seconds that it took."""
    began = time.monotonic()
    eventually(lambda: services <= set(tools(subject)), within=20)
    return time.monotonic() - began


def judged(subject: Program) -> set[str]:
    """The Services that have been checked, or could be judged without."""
    events = subject.events("service_listed", "service_not_listed")
    return {event["service"] for event in events if event["health"] != "unknown"}


# --- Hysteresis ------------------------------------------------------------------------------------------------------

ORDERS = Kind(annotations={"type": "orders", "health-path": "/"})
"""A team's own API, which is asked one thing at each check."""

QUICK = {"healthCheck": {"interval": "200ms", "timeout": "10s"}}
"""Often, and with all the time to answer: one that is late by the machine would be a failure more in a row."""


@pytest.mark.parametrize(
    "statuses",
    [
        pytest.param((200, 500), id="500 half of the time"),
        pytest.param((200, 500, 503), id="two of three"),
        pytest.param((200, 401, 500), id="never the same"),
    ],
)
def test_one_or_two_failures_in_a_row_cause_no_write(
    cluster: Cluster, namespace: str, world: World, program: Start, statuses: tuple[int, ...]
) -> None:
    kind = ORDERS._replace(behaviour=in_turn(*statuses))
    address = world.create(namespace, {"orders": kind})["orders"]
    subject = program(merged(world.settings(namespace), QUICK))
    eventually(lambda: tools(subject))
    written, asked = settled(cluster, subject), len(world.servers.visits(address))
    eventually(lambda: len(world.servers.visits(address)) > asked + 12, within=20)
    assert list(tools(subject)) == [f"{namespace}/orders"]
    assert writes(cluster, subject)[written:] == []


def test_the_third_failure_takes_a_service_out_and_one_good_answer_brings_it_back(
    cluster: Cluster, namespace: str, world: World, program: Start
) -> None:
    address = world.create(namespace, {"orders": ORDERS})["orders"]
    subject = program(merged(world.settings(namespace), {"healthCheck": {"interval": "4s"}}))
    eventually(lambda: tools(subject))
    written = settled(cluster, subject)
    for behaviour, listed, after in ((answering(500), [], 3), (hostile.healthy, [f"{namespace}/orders"], 1)):
        asked, counted = counting(behaviour)
        world.servers.put(address, counted)
        eventually(lambda expected=listed: list(tools(subject)) == expected, within=30)
        assert len(asked) == after  # the next one is seconds away
    eventually(lambda: writes(cluster, subject)[written:] == [200, 200])


def counting(behaviour: Behaviour) -> tuple[list[Connection], Behaviour]:
    """Return the behaviour, and a list that gets longer with each connection on which a backend shows it."""
    asked: list[Connection] = []

    async def counted(connection: Connection) -> None:
        asked.append(connection)
        await behaviour(connection)

    return asked, counted


def test_a_rolling_restart_of_two_replicas_causes_no_write(
    cluster: Cluster, namespace: str, world: World, program: Start
) -> None:
    """Nor do checks that meet the Pod that is about to go, or the one that is not quite there."""
    annotations = {f"kubernaut.io/toolset-{key}": value for key, value in ORDERS.annotations.items()}
    service = cluster.create_service(
        namespace, "orders", ports=[world.servers.port], annotations=annotations | {"kubernaut.io/toolset": "enabled"}
    )
    address = service["spec"]["clusterIP"]
    pods = Pods(cluster, service, replicas=2)
    world.servers.put(address, hostile.healthy)
    subject = program(merged(world.settings(namespace), QUICK))
    eventually(lambda: tools(subject))
    written = settled(cluster, subject)
    world.servers.put(address, in_turn(200, 500, 503))
    asked = len(world.servers.visits(address))
    for _ in range(3):
        pods.restart()
    eventually(lambda: len(world.servers.visits(address)) > asked + 6)
    assert list(tools(subject)) == [f"{namespace}/orders"]
    assert writes(cluster, subject)[written:] == []


def test_without_a_ready_endpoint_it_is_taken_out_unasked_and_with_one_it_is_back_at_once(
    cluster: Cluster, namespace: str, program: Start
) -> None:
    # The sixth failure comes 31 s after the first, and the next check would be 32 s away.
    patient = {"healthCheck": {"interval": "1h", "failureThreshold": 6}}
    with team_api(cluster, namespace, "orders", health_path="/", replicas=2) as api:
        subject = program({"namespaces": {"include": [namespace]}} | patient)
        eventually(lambda: tools(subject))
        written, asked = settled(cluster, subject), api.requests
        api.pods.each[0].set_ready(False)
        api.pods.wait_for(1)
        api.pods.set_ready(False)
        eventually(lambda: not tools(subject), within=60)
        assert api.requests <= asked + 1  # one with its first ready endpoint may be checked a second time just then
        reason = "no ready endpoint in its EndpointSlices"
        eventually(lambda: reason in {one["reason"] for one in subject.events("service_not_listed")})
        api.pods.each[1].set_ready(True)
        eventually(lambda: tools(subject))  # which is sooner than the next check would come
        eventually(lambda: writes(cluster, subject)[written:] == [200, 200])


def test_at_rest_a_service_is_asked_once_in_an_interval(namespace: str, world: World, program: Start) -> None:
    address = world.create(namespace, {"orders": ORDERS})["orders"]
    program(merged(world.settings(namespace), {"healthCheck": {"interval": "1s"}}))
    eventually(lambda: len(world.servers.visits(address)) > 6, within=20)
    # The first two may come together: a new Service is checked at once, and so is one with its first ready endpoint.
    first, *_, last = [visit.time for visit in world.servers.visits(address)][2:7]
    assert 0.8 < (last - first) / 4 < 3


# --- Mass failure ----------------------------------------------------------------------------------------------------

FIVE = tuple(f"orders-{n}" for n in range(5))


class Five:
    """Five published services, and the network to them."""

    def __init__(self, world: World, namespace: str, start: Start, **settings: Any) -> None:
        self.namespace = namespace
        self._world = world
        self._addresses = world.create(namespace, dict.fromkeys(FIVE, ORDERS))
        self.recover()
        self.subject = start(merged(world.settings(namespace), {"healthCheck": {"interval": "1s"}} | settings))
        eventually(lambda: self.listed == set(FIVE))

    @property
    def listed(self) -> set[str]:
        return {name.partition("/")[2] for name in tools(self.subject)}

    def cut(self) -> None:
        self._put(hostile.hanging_up)

    def recover(self) -> None:
        self._put(hostile.healthy)

    def wait_for_checks(self, number: int) -> None:
        """Wait until each has been asked so many times from now on."""
        before = {address: len(self._world.servers.visits(address)) for address in self._addresses.values()}
        eventually(
            lambda: all(len(self._world.servers.visits(address)) >= past + number for address, past in before.items()),
            within=20,
        )

    def _put(self, behaviour: Behaviour) -> None:
        for address in self._addresses.values():
            self._world.servers.put(address, behaviour)


@pytest.fixture
def published(world: World, namespace: str, program: Start) -> Callable[..., Five]:
    return lambda **settings: Five(world, namespace, program, **settings)


def test_when_the_network_fails_nothing_is_taken_out_but_what_is_deleted(
    cluster: Cluster, published: Callable[..., Five]
) -> None:
    five = published()
    subject, first = five.subject, FIVE[0]
    written = settled(cluster, subject)
    five.cut()
    message = eventually(lambda: subject.problems().get("MassFailure"), within=20)
    assert re.match("[3-5] of 5 published services turned unhealthy", message)
    five.wait_for_checks(4)
    assert five.listed == set(FIVE)
    assert writes(cluster, subject)[written:] == []
    assert cluster.api("DELETE", f"/api/v1/namespaces/{five.namespace}/services/{first}").status == 200
    eventually(lambda: five.listed == set(FIVE) - {first}, within=15)
    assert "MassFailure" in subject.problems()
    five.recover()
    eventually(lambda: subject.problems() == {})
    assert five.listed == set(FIVE) - {first}
    eventually(lambda: writes(cluster, subject)[written:] == [200])


def test_what_a_mass_failure_holds_is_released_by_time(cluster: Cluster, published: Callable[..., Five]) -> None:
    five = published(massFailure={"hold": "5s"})
    began = time.monotonic()
    five.cut()
    eventually(lambda: "MassFailure" in five.subject.problems())
    eventually(lambda: not five.listed, within=20)
    assert time.monotonic() - began > 5
    eventually(lambda: five.subject.problems() == {})
    five.recover()
    eventually(lambda: five.listed == set(FIVE))


def test_what_a_mass_failure_holds_is_released_by_a_person_who_does_as_the_message_says(
    cluster: Cluster, published: Callable[..., Five]
) -> None:
    five = published()
    five.cut()
    message = eventually(lambda: five.subject.problems().get("MassFailure"), within=20)
    five.wait_for_checks(4)
    assert five.listed == set(FIVE)
    command = message[message.index("kubectl annotate") :]
    path = f"{cluster_program('kubectl').parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(["sh", "-c", command], check=True, env=environment, timeout=30)
    eventually(lambda: not five.listed)
    eventually(lambda: five.subject.problems() == {})
