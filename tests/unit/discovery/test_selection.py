"""How many candidates are taken, and whose."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory
from dynamic_toolset.discovery.selection import Rank, fair_shares
from dynamic_toolset.model import Outcome, ServiceKey
from dynamic_toolset.settings import Policy, Settings

from .building import catalog, discover, headless, service


def capped(**policy):
    return Settings(policy=Policy(**policy))


def prometheus(name, namespace="shop", created="", make=service, workload=None):
    one = make(name, "app=prometheus", "9090", f"app=prometheus instance={workload or name}", namespace)
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, creation_timestamp=created))


def at(minute):
    return f"2026-01-01T00:{minute:02}:00Z"


def taken(decisions):
    return {key.name for key, decision in decisions.items() if decision.outcome is Outcome.CANDIDATE}


# --- Within a namespace ---------------------------------------------------------------------------------------------


def test_the_oldest_of_a_namespace_are_taken():
    services = [prometheus("d", created=at(1)), prometheus("a"), prometheus("b", created=at(2)), prometheus("c")]
    services.append(prometheus("e", namespace="other"))
    for most, names in ((1, {"d"}), (2, {"d", "b"}), (3, {"d", "b", "a"}), (4, {"a", "b", "c", "d"})):
        assert taken(discover(*services, settings=capped(max_per_namespace=most))) == {*names, "e"}


def test_the_reason_names_setting_and_numbers():
    decisions = discover(*(prometheus(name) for name in "abc"), settings=capped(max_per_namespace=2))
    assert decisions[ServiceKey("shop", "c")].outcome is Outcome.REJECTED
    assert decisions[ServiceKey("shop", "c")].reason == (
        "its namespace has 3 candidates, of which 2 are taken, the oldest first, by the setting policy.maxPerNamespace"
    )


def test_a_newcomer_pushes_nobody_out():
    there = [prometheus(f"p{number}", created=at(number)) for number in range(3)]
    for name in ("a", "z"):
        newcomer = prometheus(name, created=at(59))
        assert taken(discover(newcomer, *there, settings=capped(max_per_namespace=3))) == {"p0", "p1", "p2"}


def test_duplicates_do_not_count():
    services = [prometheus("a"), prometheus("b")]
    services += [prometheus(f"{name}-headless", make=headless, workload=name) for name in "ab"]
    decisions = discover(*services, settings=capped(max_per_namespace=2))
    assert taken(decisions) == {"a", "b"}
    assert decisions[ServiceKey("shop", "a-headless")].outcome is Outcome.DUPLICATE


def test_of_two_services_with_one_name_the_last_counts():
    one, other = prometheus("a"), service("a", "app=web", "80")
    for found, outcome in (((one, other), Outcome.IGNORED), ((other, one), Outcome.CANDIDATE)):
        assert discover(*found)[ServiceKey("shop", "a")].outcome is outcome


# --- In all ---------------------------------------------------------------------------------------------------------


def ranks(**counts):
    return {name: tuple(Rank("", ServiceKey(name, str(n))) for n in range(count)) for name, count in counts.items()}


@pytest.mark.parametrize(
    ("counts", "most", "shares"),
    [
        ({}, 5, {}),
        ({"a": 3}, 5, {"a": 3}),
        ({"a": 3}, 3, {"a": 3}),
        ({"a": 3}, 2, {"a": 2}),
        ({"a": 50, "b": 3}, 10, {"a": 7, "b": 3}),
        ({"a": 50, "b": 50, "c": 1}, 11, {"a": 5, "b": 5, "c": 1}),
        ({"a": 50, "b": 50, "c": 1}, 12, {"a": 6, "b": 5, "c": 1}),
        ({"a": 50, "b": 4, "c": 2}, 10, {"a": 4, "b": 4, "c": 2}),
        ({"a": 1, "b": 1, "c": 1}, 2, {"a": 1, "b": 1, "c": 0}),
    ],
)
def test_what_all_may_have_is_shared(counts, most, shares):
    assert fair_shares(ranks(**counts), most) == shares


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9)), st.integers(1, 40), st.randoms())
def test_shares_are_fair(counts, most, random):
    found = ranks(**counts)
    shares = fair_shares(found, most)
    assert sum(shares.values()) == min(most, sum(counts.values()))
    assert shares.keys() == counts.keys()
    cut = [shares[name] for name in counts if shares[name] < counts[name]]
    assert all(share <= counts[name] for name, share in shares.items())
    # Whoever goes without something has as much as anybody else, give or take what cannot be divided.
    assert not cut or max(shares.values()) <= min(cut) + 1
    shuffled = list(found.items())
    random.shuffle(shuffled)
    assert fair_shares(dict(shuffled), most) == shares


def test_what_cannot_be_shared_evenly_goes_to_the_oldest():
    services = [prometheus("a", "x", at(1)), prometheus("b", "a", at(3)), prometheus("c", "y", at(2))]
    assert taken(discover(*services, settings=capped(max_in_all=2))) == {"a", "c"}


def test_one_tenant_does_not_crowd_out_the_others():
    crowd = [prometheus(f"p{number}", "evil", at(0)) for number in range(100)]
    others = [prometheus(f"q{number}", "good", at(1)) for number in range(4)]
    decisions = discover(*crowd, *others, settings=capped(max_per_namespace=50, max_in_all=10))
    assert sum(key.namespace == "good" for key in decisions if decisions[key].outcome is Outcome.CANDIDATE) == 4
    assert sum(key.namespace == "evil" for key in decisions if decisions[key].outcome is Outcome.CANDIDATE) == 6
    by_namespace, in_all = sorted(
        {decision.reason for decision in decisions.values() if decision.outcome is Outcome.REJECTED}
    )
    assert "100 candidates, of which 50 are taken" in by_namespace
    assert in_all == (
        "there are 54 candidates in all, of which 10 are taken, by the setting policy.maxInAll; "
        "the share of its namespace is 6 of its 50, the oldest first"
    )


# --- What it costs --------------------------------------------------------------------------------------------------

CROWD = 5000


def different(number):
    return prometheus(f"p{number}", make=headless)


def entangled(number):
    """Return one that has half of its selector in common with every other, and is neither a part of it nor a whole."""
    pairs = " ".join(f"k{bit}={number >> bit & 1}" for bit in range(13))
    return (headless if number % 2 else service)(f"p{number}", "app=prometheus", "9090", f"app=prometheus {pairs}")


@pytest.mark.parametrize("look", [different, entangled])
def test_a_change_among_thousands_of_look_alikes_costs_milliseconds(look):
    inventory = Inventory(Detector(catalog(), Settings()))
    services = [look(number) for number in range(CROWD)]
    store = {ServiceKey.of(one.metadata.key): inventory.judge(one) for one in services}
    inventory.update(store)
    assert len(inventory.candidates) <= 50

    def change(one):
        began = time.thread_time()
        inventory.update({ServiceKey.of(one.metadata.key): inventory.judge(one)})
        return time.thread_time() - began

    seconds = min(change(one) for one in services[:5])
    assert seconds < 1, "50 ms on a machine with nothing else to do"
