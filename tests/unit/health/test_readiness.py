"""What needs no API to be known of a candidate. The rest is in tests/integration/test_readiness.py."""

import pytest

from dynamic_toolset.health.guard import Guard
from dynamic_toolset.health.readiness import MAX_SELECTOR, NOT_READ, Readiness, selector
from dynamic_toolset.kube import selectors
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.model import Candidate, Verdict
from tests.unit.health.candidates import candidate


def readiness(guard: Guard) -> Readiness:
    return Readiness(Client(static("http://127.0.0.1")), guard, api_server=[("10.0.0.1", 6443), ("api.example", 6443)])


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (candidate(address="169.254.169.254"), "169.254.169.254 is a link-local address"),
        (candidate(host="127.0.0.1"), "127.0.0.1 is a loopback address"),
        (candidate(host="::1", address="10.1.1.1"), "::1 is a loopback address"),
        (candidate(host="10.0.0.1", port=6443), "10.0.0.1 is the Kubernetes API server"),
    ],
)
def test_a_refused_address_is_known_without_any_slice(one: Candidate, why: str) -> None:
    health = readiness(Guard()).known(one)
    assert health is not None
    assert health.refused
    assert health.verdict is Verdict.UNHEALTHY
    assert health.reason.startswith(why)


@pytest.mark.parametrize(
    "one",
    [
        candidate(),  # what its name resolves to is the probe's business
        candidate(address="10.1.1.1"),
        candidate(address="10.0.0.1", port=9090),  # a host may have an API server and other things
    ],
)
def test_any_other_is_not_to_be_asked_before_its_slices_have_been_read(one: Candidate) -> None:
    assert readiness(Guard()).known(one) is NOT_READ


def test_of_one_that_leads_elsewhere_nothing_is_to_be_read() -> None:
    assert readiness(Guard()).known(candidate(host="loki.example.com")) is None


def test_what_is_allowed_is_not_refused() -> None:
    assert readiness(Guard(["127.0.0.0/8"])).known(candidate(address="127.0.0.1")) is NOT_READ


def test_the_selector_is_the_same_for_the_same_names_and_selects_them() -> None:
    text = selector(["loki", "kubernetes", "grafana"])
    assert text == selector({"grafana", "loki", "kubernetes"})
    selects = selectors.parse(text)
    assert selects({"kubernetes.io/service-name": "loki"})
    assert not selects({"kubernetes.io/service-name": "tempo"})
    assert not selects({})


def test_a_selector_that_would_be_too_long_selects_all() -> None:
    names = [f"service-{number:03}" for number in range(330)]
    assert 0 < len(selector(names)) <= MAX_SELECTOR
    assert selector([*names, "another-one", "and-another-one"]) == ""
