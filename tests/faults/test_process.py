"""The program itself: killed, asked to end, broken inside, and with a clock that jumps."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cache import Missing
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
from tests.e2e.test_lifecycle import annotate
from tests.faults.api_proxy import ApiProxy
from tests.faults.documents import documents
from tests.faults.life import ANNOTATIONS, Life
from tests.waiting import eventually

pytestmark = pytest.mark.faults

Start = Callable[..., Program]
MERGE = "application/merge-patch+json"

KILLS = 50
"""In each of four lives."""

SHORT_LEASE = {"leaseDuration": "1s", "renewDeadline": "800ms", "retryPeriod": "200ms"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments_it_leaves_nothing_broken_and_goes_on_where_it_was(
    cluster: Cluster, namespace: str, program: Start, seed: int
) -> None:
    # Another instance, with a ConfigMap of its own, is never killed: it says what is right.
    control = program({"massFailure": {"hold": "0s"}}, config_map="control", service_account="control")
    subject = program({"leaderElection": SHORT_LEASE, "massFailure": {"hold": "0s"}})
    chance = random.Random(seed)
    with Life(cluster, namespace, [subject.config_map, control.config_map], seed=seed, pause=0.2) as life:
        for number in range(KILLS):
            time.sleep(chance.uniform(0, 1))  # the moment is what is random here
            subject.kill()
            with life.paused():
                documents(subject)
                data = (subject.published() or {}).get("data") or {}
                assert data.get("overrides.yaml") == life.last_override(subject.config_map)
                subject.start()
                # Every other start lives until it has come to the same bytes. The rest are killed while they start,
                # which would never happen with a wait after each; what that leaves behind the next one starts from.
                if number % 2:
                    eventually(lambda: documents(subject) == documents(control), within=30)
        with life.paused():
            eventually(lambda: subject.events("leading") and documents(subject) == documents(control), within=30)


# --- Broken inside ---------------------------------------------------------------------------------------------------


def with_code(folder: Path, code: str) -> dict[str, str]:
    """Return the environment in which a program of Python runs some code before its own."""
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


BUG = """
from dynamic_toolset.health.probe import Probe

probe = Probe.__call__

async def bug(self, candidate):
    if candidate.key.name == "bug":
        raise ZeroDivisionError("a bug in a probe")
    return await probe(self, candidate)

Probe.__call__ = bug
"""


def assert_died(subject: Program) -> None:
    eventually(lambda: subject.exit_code is not None)
    assert subject.exit_code == 1
    (died,) = subject.events("died")
    assert "a bug in a probe" in died["exception"]
    subject.kill()  # nothing is left to be ended in order


def test_a_death_inside_ends_the_whole_with_a_message(
    cluster: Cluster, namespace: str, program: Start, tmp_path: Path
) -> None:
    with team_api(cluster, namespace, "bug", health_path="/"):
        assert_died(program(environment=with_code(tmp_path, BUG)))


@contextmanager
def silent_name_server(folder: Path) -> Iterator[tuple[socket.socket, Path]]:
    """Have a socket that is a name server but never answers, and the resolv.conf that leads to it, and to no other."""
    high, low = divmod(os.getpid() % 65_536, 256)
    address = f"127.53.{high}.{low}"  # others, who run these tests at the same time, have theirs
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind((address, 53))
        except PermissionError:
            raise Missing("the right to serve DNS on port 53", "run the tests as root") from None
        silent.settimeout(20)
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text(f"nameserver {address}\noptions timeout:30 attempts:3\n")
        yield silent, resolv_conf


def create_headless(cluster: Cluster, namespace: str) -> None:
    """Create a Service whose check begins with a name lookup."""
    service = cluster.create_service(
        namespace, "orders", ports=[8080], annotations=ANNOTATIONS, selector={"app": "team-api"}, clusterIP="None"
    )
    Pods(cluster, service)


def test_a_death_inside_is_the_end_though_no_name_server_answers(
    cluster: Cluster, namespace: str, program: Start, tmp_path: Path
) -> None:
    create_headless(cluster, namespace)
    bug = cluster.create_service(namespace, "bug", ports=[8080], selector={"app": "bug"})
    Pods(cluster, bug)
    with silent_name_server(tmp_path) as (silent, resolv_conf):
        subject = program(resolv_conf=resolv_conf, environment=with_code(tmp_path, BUG))
        silent.recv(512)  # a lookup is under way
        annotate(cluster, namespace, "bug", dict(ANNOTATIONS))
        assert_died(subject)


# --- SIGTERM ---------------------------------------------------------------------------------------------------------


def test_it_finishes_the_write_under_way_and_gives_the_lease_back(
    cluster: Cluster, namespace: str, program: Start, proxy: ApiProxy
) -> None:
    with team_api(cluster, namespace, "orders", health_path="/"):
        subject = program(server=proxy)
        eventually(lambda: "orders" in str(documents(subject)))
        with proxy.holding(verb="patch", resource="configmaps") as held:
            path = f"/api/v1/namespaces/{namespace}/services/orders"
            body = {"metadata": {"annotations": {"kubernaut.io/toolset-path": "/last"}}}
            assert cluster.api("PATCH", path, body, content_type=MERGE).status == 200
            eventually(lambda: held)
            subject.send(signal.SIGTERM)
            eventually(lambda: subject.events("stopping"))
            assert lease(cluster, subject)["holderIdentity"]  # as long as it may write
        subject.stop()  # it says so if that takes 10 s, or ends with another status than 0
        assert "8080/last" in str(documents(subject))
        assert lease(cluster, subject)["holderIdentity"] == ""


def test_it_ends_in_time_though_no_name_server_answers(
    cluster: Cluster, namespace: str, program: Start, tmp_path: Path
) -> None:
    create_headless(cluster, namespace)
    with silent_name_server(tmp_path) as (silent, resolv_conf):
        subject = program(resolv_conf=resolv_conf)
        silent.recv(512)  # a lookup is under way
        began = time.monotonic()
        subject.stop()
        assert time.monotonic() - began < 10
        assert subject.events("stopped")
        assert lease(cluster, subject)["holderIdentity"] == ""


AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["click", "structlog", "aiohttp", "dynamic_toolset.controller"])
def test_sigterm_while_it_is_still_being_loaded_is_the_end_with_status_0(
    program: Start, tmp_path: Path, module: str
) -> None:
    subject = program(environment=with_code(tmp_path, AT_IMPORT.format(module=module)))
    eventually(lambda: subject.exit_code is not None)
    assert subject.exit_code == 0, subject.log
    assert subject.log == ""
    subject.kill()


def test_sigterm_again_and_again_until_it_ends_changes_nothing(program: Start) -> None:
    subject = program()
    for _ in range(3):
        eventually(lambda: subject.events("leading"))
        while subject.exit_code is None:
            subject.send(signal.SIGTERM)
            time.sleep(0.001)
        assert subject.exit_code == 0, subject.log
        subject.stop()
        subject.start()
    eventually(lambda: subject.hears)


def test_sigterm_is_heard_at_any_moment_of_the_first_second(program: Start) -> None:
    subject = program()
    for number in range(10):
        eventually(lambda: subject.hears)
        time.sleep(number * 0.1)
        subject.stop()  # with status 0
        subject.start()
    eventually(lambda: subject.hears)


# --- The clock -------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_and_forward_an_hour_changes_nothing(
    cluster: Cluster, namespace: str, program: Start, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": libfaketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nobody can set that one
    }
    with team_api(cluster, namespace, "orders", health_path="/"):
        subject = program(
            {"leaderElection": {"retryPeriod": "300ms"}},  # often, to see at once that it renews by the new clock
            environment=faked,
        )
        eventually(lambda: "orders" in str(documents(subject)))
        holder = lease(cluster, subject)["holderIdentity"]
        path = f"/api/v1/namespaces/{namespace}/services/orders"
        for number, offset in enumerate(("-3600", "+3600", "+0")):
            clock.write_text(f"{offset}\n")
            eventually(lambda expected=offset: clock_of(subject) == int(expected), within=15)
            body = {"metadata": {"annotations": {"kubernaut.io/toolset-path": f"/v{number}"}}}
            assert cluster.api("PATCH", path, body, content_type=MERGE).status == 200
            eventually(lambda expected=number: f"8080/v{expected}" in str(documents(subject)), within=15)
            renewed = lease(cluster, subject)["renewTime"]
            eventually(lambda before=renewed: lease(cluster, subject)["renewTime"] != before, within=15)
        record = lease(cluster, subject)
        assert (record["holderIdentity"], record.get("leaseTransitions", 0)) == (holder, 0)
        assert not subject.events("problem", "standing_by", "service_not_listed")


def libfaketime() -> str:
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        raise Missing("libfaketime", "make system-packages (Debian's package faketime)")
    return str(found)


def lease(cluster: Cluster, subject: Program) -> dict[str, Any]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{subject.namespace}/leases/{subject.config_map}"
    return (cluster.get(path) or {"spec": {}})["spec"]


def clock_of(subject: Program) -> int | None:
    """By how many seconds the program's clock is off, as its lease says, to the next ten minutes."""
    renewed = lease(subject._cluster, subject)["renewTime"]
    seconds = time.mktime(time.strptime(renewed.partition(".")[0], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return round((seconds - time.time()) / 600) * 600
