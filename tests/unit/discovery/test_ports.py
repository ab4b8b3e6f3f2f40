"""What is said of each port of a Service."""

import pytest

from dynamic_toolset.discovery.ports import MAX_NOTES, considered
from dynamic_toolset.kube.objects import ServicePort
from dynamic_toolset.model import Outcome, ServiceKey
from dynamic_toolset.settings import ForeignEndpoints, Policy, Settings

from .building import detect, discover, headless, service

GRAFANA = ".name=grafana"
PROMETHEUS = ".name=prometheus"


def notes(decision):
    return [f"{port.port} {port.name or '-'}: {port.note}" for port in decision.ports]


@pytest.mark.parametrize(
    ("one", "outcome", "expected"),
    [
        (service(listens="http:80"), Outcome.IGNORED, []),
        (
            service(pods=PROMETHEUS, listens="reloader-web:8080 web:9090 53@UDP grpc:9095/grpc http-web:80"),
            Outcome.CANDIDATE,
            [
                "8080 reloader-web: not a port of Prometheus",
                "9090 web: chosen, a port of Prometheus (9090)",
                "53 -: UDP, which cannot be asked over HTTP",
                "9095 grpc: its appProtocol is grpc, which is not HTTP",
                "80 http-web: a port of Prometheus (http-web), but another one is chosen",
            ],
        ),
        (
            service(pods=PROMETHEUS, listens="web:9090 other:80", annotations={"-port": "other"}),
            Outcome.CANDIDATE,
            [
                "9090 web: a port of Prometheus (9090), but another one is chosen",
                "80 other: chosen by annotation kubernaut.io/toolset-port",
            ],
        ),
        (
            service(listens="a:1 b:2", annotations={"-endpoint": "http://web.shop:2/x", "-type": "thing"}),
            Outcome.CANDIDATE,
            [
                "1 a: it may speak HTTP, but nothing says that it is the one",
                "2 b: chosen by annotation kubernaut.io/toolset-endpoint",
            ],
        ),
        (
            service(listens="a:1", annotations={"-type": "thing"}),
            Outcome.CANDIDATE,
            ["1 a: chosen, the only one that may speak HTTP"],
        ),
        (
            service(listens="a:1 api:2", annotations={"-type": "thing"}),
            Outcome.CANDIDATE,
            [
                "1 a: it may speak HTTP, but nothing says that it is the one",
                "2 api: chosen, by its name that of an API",
            ],
        ),
        (
            service(listens="a:1 b:2", annotations={"-type": "thing"}),
            Outcome.REJECTED,
            [f"{port}: it may speak HTTP, but nothing says that it is the one" for port in ("1 a", "2 b")],
        ),
        (
            service(listens="a:1 b:2", annotations={"": "enabled"}),
            Outcome.REJECTED,
            [f"{port}: it may speak HTTP, but nothing says that it is the one" for port in ("1 a", "2 b")],
        ),
        (
            service(listens="dns:53@UDP", annotations={"-type": "grafana"}),
            Outcome.REJECTED,
            ["53 dns: UDP, which cannot be asked over HTTP"],
        ),
        (
            service(pods=GRAFANA, listens="http:80>3000", annotations={"-port": "81"}),
            Outcome.REJECTED,
            ["80 http: a port of Grafana (3000)"],
        ),
        (service(pods="", own=GRAFANA, listens="3000"), Outcome.REJECTED, ["3000 -: a port of Grafana (3000)"]),
        (headless(pods=GRAFANA, listens="80>3000"), Outcome.CANDIDATE, ["80 -: chosen, a port of Grafana (3000)"]),
        (service(annotations={"": "maybe"}), Outcome.REJECTED, []),
    ],
)
def test_each_port_has_its_note(one, outcome, expected):
    decision = detect(one)
    assert decision.outcome is outcome, decision.reason
    assert notes(decision) == expected


def test_a_port_of_another_host_comes_last():
    grant = ForeignEndpoints(namespaces=("shop",), hosts=("x.example.com",))
    one = service(listens="a:1", annotations={"-endpoint": "https://x.example.com:443", "-type": "grafana"})
    assert notes(detect(one, Settings(policy=Policy(foreign_endpoints=(grant,))))) == [
        "1 a: not a port of Grafana",
        "443 -: chosen by annotation kubernaut.io/toolset-endpoint",
    ]


def test_a_duplicate_and_what_is_too_much_keep_their_notes():
    first, second = (
        service("prometheus", pods=PROMETHEUS, listens="9090"),
        headless("prometheus-headless", pods=PROMETHEUS, listens="9090"),
    )
    duplicate = discover(first, second)[ServiceKey.of(second.metadata.key)]
    assert duplicate.outcome is Outcome.DUPLICATE
    assert len(duplicate.ports) == 1
    other = service("grafana", pods=GRAFANA, listens="3000")
    for policy in (Policy(max_per_namespace=1), Policy(max_in_all=1)):
        decisions = discover(first, other, settings=Settings(policy=policy))
        (rejected,) = (one for one in decisions.values() if one.outcome is Outcome.REJECTED)
        assert [port.chosen for port in rejected.ports] == [True]


def test_of_many_ports_the_first_are_told_and_always_the_chosen_one():
    one = service(pods=PROMETHEUS, listens=" ".join(f"p{number}:{number}" for number in range(1, 31)) + " web:9090")
    told = detect(one).ports
    assert [port.port for port in told] == [*range(1, MAX_NOTES), 9090, 0]
    assert told[-2].chosen
    assert told[-1].note == "and 11 more ports"
    exactly = service(listens=" ".join(f"{number}" for number in range(1, MAX_NOTES + 1)))
    assert [port.port for port in considered(exactly)] == [*range(1, MAX_NOTES + 1)]
    assert considered(service(listens=" ".join(f"{n}" for n in range(1, MAX_NOTES + 2))))[-1].note == "and 1 more port"


def test_no_name_or_protocol_is_shown_as_it_was_written():
    wild = (
        ServicePort(1, "\x1b[2J{{ env.X }}" + "x" * 90, None, "TCP"),
        ServicePort(2, None, None, "<b>" + "x" * 90),
        ServicePort(3, None, None, "TCP", "`x`" * 90),
        ServicePort(70000, None, None, "TCP"),
    )
    one = service(listens="")
    told = considered(type(one)(one.metadata, type(one.spec)(ports=wild)))
    assert [port.name for port in told] == ["??2J?? env.X ??xxxxx...", None, None, None]
    assert [port.note for port in told] == [
        "it may speak HTTP, but nothing says that it is the one",
        "?b?xxxxxxxxxxxxxxxxx..., which cannot be asked over HTTP",
        "its appProtocol is " + "?x?" * 13 + "?..., which is not HTTP",
        "there is no port of this number",
    ]
