"""Which addresses may be dialled."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.health.guard import Guard


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.20.3.4", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2a00:1450::5", "::ffff:10.0.0.1"],
)
def test_addresses_of_clusters_and_of_the_world_may_be_dialled(address: str) -> None:
    assert Guard().refusal(address) is None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.96.3.4", "loopback"),
        ("::1", "loopback"),
        ("0:0:0:0:0:0:0:1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("::127.0.0.1", "reserved"),
        ("::ffff:127.0.0.1", "127.0.0.1 is a loopback"),
        ("::ffff:a9fe:a9fe", "169.254.169.254 is a link-local"),
    ],
)
def test_what_only_we_could_reach_is_refused_with_its_kind(address: str, kind: str) -> None:
    refusal = Guard().refusal(address)
    assert refusal is not None
    assert kind in refusal
    assert "healthCheck.allowedRanges" in refusal


@pytest.mark.parametrize(
    "spelling",
    [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "localhost",
        "",
        "10.0.0.1 ",
        "[::1]",
        "10.0.0.1/8",
        "x" * 5000,
    ],
)
def test_what_is_no_plain_address_is_refused(spelling: str) -> None:
    assert Guard().refusal(spelling) == "not an IP address"


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fd00::1%1", "10.0.0.1%eth0"])
def test_zones_are_refused_even_where_the_range_is_allowed(address: str) -> None:
    refusal = Guard(["::/0", "0.0.0.0/0"]).refusal(address)
    assert refusal is not None
    assert "zone" in refusal


def test_allowed_ranges_may_be_dialled_and_nothing_beside_them() -> None:
    guard = Guard(["127.96.0.0/16", "fe80::/64"])
    assert guard.refusal("127.96.3.4") is None
    assert guard.refusal("::ffff:127.96.3.4") is None
    assert guard.refusal("fe80::1") is None
    assert guard.refusal("127.0.0.1")
    assert guard.refusal("::1")
    assert guard.refusal("169.254.169.254")


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "10.0.0.1/8", "cluster", ""])
def test_a_wrong_range_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match="allowed range") as caught:
        Guard(["10.0.0.0/8", wrong])
    assert repr(wrong) in str(caught.value)


@given(st.ip_addresses(v=4))
def test_the_ipv4_address_inside_is_what_counts(address: IPv4Address) -> None:
    guard = Guard(["127.96.0.0/16"])
    assert guard.refusal(f"::ffff:{address}") == guard.refusal(str(address))


@given(st.ip_addresses(v=6))
def test_every_spelling_of_an_address_is_judged_alike(address: IPv6Address) -> None:
    guard = Guard()
    assert guard.refusal(address.exploded.upper()) == guard.refusal(address.compressed)


@given(st.text())
def test_whatever_is_asked_the_answer_is_one_line(text: str) -> None:
    refusal = Guard().refusal(text)
    assert refusal is None or refusal.isprintable()
