"""The program itself: killed, asked to end, broken inside, and with a clock that jumps."""

import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cache import Missing
from tests.cluster.cluster import Cluster
from tests.cluster.pods import Pods
from tests.e2e.program import Program
from tests.e2e.team_api import team_api
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
                if number % 2:  # otherwise the next kill comes while it starts
                    eventually(lambda: documents(subject) == documents(control), within=30)
        with life.paused():
            eventually(lambda: subject.events("leading") and documents(subject) == documents(control), within=30)


def test_a_death_inside_ends_the_whole_with_a_message(
    cluster: Cluster, namespace: str, program: Start, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from dynamic_toolset.health.probe import Probe\n"
        "async def bug(self, candidate): raise ZeroDivisionError('a bug in a probe')\n"
        "Probe.__call__ = bug\n"
    )
    with team_api(cluster, namespace, "orders", health_path="/"):
        subject = program(environment={"PYTHONPATH": str(tmp_path)})
        eventually(lambda: subject.exit_code is not None)
    assert subject.exit_code == 1
    (died,) = subject.events("died")
    assert "a bug in a probe" in died["exception"]
    subject.kill()  # nothing is left to be ended in order


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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind(("127.53.53.53", 53))
        except PermissionError:
            raise Missing("the right to serve DNS on port 53", "run the tests as root") from None
        silent.settimeout(20)
        resolv_conf = tmp_path / "resolv.conf"
        resolv_conf.write_text("nameserver 127.53.53.53\noptions timeout:30 attempts:3\n")
        service = cluster.create_service(
            namespace, "orders", ports=[8080], annotations=ANNOTATIONS, selector={"app": "team-api"}, clusterIP="None"
        )
        Pods(cluster, service)
        subject = program(resolv_conf=resolv_conf)
        silent.recv(512)  # a lookup is under way
        began = time.monotonic()
        subject.stop()
        assert time.monotonic() - began < 10
        assert subject.events("stopped")
        assert lease(cluster, subject)["holderIdentity"] == ""


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
            {"leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "300ms"}},
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
