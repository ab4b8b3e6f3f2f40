"""Which addresses may be dialled and published."""

import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_toolset.health import guard as module
from dynamic_toolset.health.guard import Guard


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.20.3.4", "192.168.1.1", "100.64.0.1", "8.8.8.8", "100.100.100.199", "192.0.0.193"),
        *("fd00::1", "fd12:3456:789a::1", "fc00::1", "2a00:1450::5", "fd00:10:96::1", "::ffff:10.0.0.1"),
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "2001:db8::1"),  # documentation, benchmarks
        *("64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1", "2002:0a00:0001::1", "2001:0:808:808::f5ff:fffe"),
        "fd00::5efe:10.0.0.1",
    ],
)
def test_addresses_of_clusters_and_of_the_world_may_be_dialled(address: str) -> None:
    assert Guard().refusal(address) is None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("127.96.3.4", "a loopback address"),
        ("::1", "::1 is a loopback address"),
        ("0:0:0:0:0:0:0:1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("169.254.170.23", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::a9fe:a9fe", "a link-local address"),
        ("febf::1", "a link-local address"),
        ("fec0::1", "a site-local address"),
        ("feff::1", "a site-local address"),
        ("fd00:ec2::254", "a metadata address"),
        ("fd00:ec2::23", "a metadata address"),
        ("fd00:ec2::253", "a metadata address"),
        ("fd00:ec2::123", "a metadata address"),
        ("fd00:ec2:ffff::1", "a metadata address"),
        ("fd20:ce::254", "a metadata address"),
        ("168.63.129.16", "a metadata address"),
        ("100.100.100.200", "a metadata address"),
        ("fd00:100::100:200", "a metadata address"),
        ("192.0.0.192", "a metadata address"),
        ("fd00:c1::a9fe:a9fe", "a metadata address"),
        ("fd00:42::42", "a metadata address"),
        ("fd00:a9fe:a9fe::1", "a metadata address"),
        ("0.0.0.0", "an unspecified address"),
        ("0.1.2.3", "an unspecified address"),
        ("::", "an unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("239.255.255.255", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("240.0.0.1", "a reserved address"),
        ("100::1", "a reserved address"),
        ("4000::1", "a reserved address"),
        ("fe00::1", "a reserved address"),
        ("::127.0.0.1", "::7f00:1 is a reserved address"),
        ("::10.0.0.1", "a reserved address"),
        ("::ffff:0:127.0.0.1", "a reserved address"),
        ("64:ff9b:1::127.0.0.1", "a reserved address"),
        ("64:ff9b:1:7f00:0:100::", "a reserved address"),
        ("::ffff:127.0.0.1", "127.0.0.1 is a loopback address"),
        ("::ffff:a9fe:a9fe", "169.254.169.254 is a link-local address"),
        ("::ffff:100.100.100.200", "100.100.100.200 is a metadata address"),
        ("2002:7f00:1::", "2002:7f00:1:: leads to 127.0.0.1, a loopback address"),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe leads to 169.254.169.254, a link-local address"),
        ("2001:0:a9fe:a9fe::", "leads to 169.254.169.254, a link-local address"),  # Teredo: the server
        ("2001:0:808:808::5601:5601", "leads to 169.254.169.254, a link-local address"),  # the client, inverted
        ("2001:db8::5efe:127.0.0.1", "leads to 127.0.0.1, a loopback address"),
        ("fd00::200:5efe:169.254.169.254", "leads to 169.254.169.254, a link-local address"),
    ],
)
def test_what_only_we_could_reach_is_refused_with_its_kind(address: str, kind: str) -> None:
    refusal = Guard().refusal(address)
    assert refusal is not None
    assert kind in refusal
    assert refusal.endswith("which is not dialled (policy.allowedRanges can allow it)")


@pytest.mark.parametrize(
    "spelling",
    [
        *("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.01", "017700000001"),
        *("localhost", "", " ", ".", "127.0.0.1.", "::1.", "127.0.0.1\n", "\t127.0.0.1", " ::1", "10.0.0.1 "),
        *("[::1]", "[127.0.0.1]", "10.0.0.1/8", "::1/128", "127.0.0.1:80", "127.0.0.1\x00", "127.0.0.1#"),
        *("\uff11\uff12\uff17.0.0.1", "\u2488\u2488\u2488\u2488", "127\u30020\u30020\u30021", "\u0661.0.0.1"),
        *("::ffff:7f000001", "1.2.3", "1.2.3.4.5", "256.0.0.1", "-1.0.0.0", "x" * 5000, "1" * 5000, ":" * 5000),
    ],
)
def test_what_is_no_plain_address_is_refused(spelling: str) -> None:
    assert Guard(["0.0.0.0/0", "::/0"]).refusal(spelling) == "not an IP address"


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fd00::1%1", "10.0.0.1%eth0", "%", "::1%25lo"])
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


def test_an_allowed_range_means_our_address_and_not_that_of_a_relay() -> None:
    loopback = Guard(["127.0.0.0/8"])
    relayed = ["2002:7f00:1::", "64:ff9b::127.0.0.1", "2001:0:7f00:1::", "fd00::5efe:127.0.0.1", "::127.0.0.1"]
    assert all(loopback.refusal(address) for address in relayed)
    translator = Guard(["64:ff9b::/96", "64:ff9b:1::/48"])
    assert translator.refusal("64:ff9b::169.254.169.254") is None
    assert translator.refusal("64:ff9b:1::10.0.0.1") is None
    assert translator.refusal("169.254.169.254")


def test_refused_ranges_are_refused_in_every_form_whatever_is_allowed() -> None:
    guard = Guard(["10.0.0.0/8", "::/0"], refused_ranges=["10.20.0.0/16", "fd00:1::/32"])
    assert guard.refusal("10.21.0.1") is None
    assert guard.refusal("10.20.0.1") == "10.20.0.1 is in 10.20.0.0/16, which policy.refusedRanges refuses"
    assert guard.refusal("fd00:1::1") == "fd00:1::1 is in fd00:1::/32, which policy.refusedRanges refuses"
    assert guard.refusal("::ffff:10.20.0.1") == guard.refusal("10.20.0.1")
    for form in (
        "2002:a14:1::",
        "64:ff9b::10.20.0.1",
        "2001:0:a14:1::",
        "fd00::5efe:10.20.0.1",
        "::10.20.0.1",
        "::ffff:0:10.20.0.1",
    ):
        refusal = guard.refusal(form)
        assert refusal is not None
        assert refusal.endswith("leads to 10.20.0.1, in 10.20.0.0/16, which policy.refusedRanges refuses")


def test_a_range_in_the_mapped_form_is_the_ipv4_range() -> None:
    assert Guard(refused_ranges=["::ffff:10.20.0.0/112"]).refusal("10.20.255.255")
    assert Guard(refused_ranges=["::ffff:10.20.0.0/112"]).refusal("10.21.0.1") is None
    assert Guard(["::ffff:127.0.0.0/104"]).refusal("127.0.0.1") is None


def test_the_api_server_is_never_dialled() -> None:
    guard = Guard(["0.0.0.0/0", "::/0"])
    guard.protect([("10.96.0.1", 443), ("192.168.7.2", 6443), ("fd00::7", 6443), ("192.168.7.2", 8443)])
    never = "is the Kubernetes API server, which is never dialled"
    assert guard.refusal("10.96.0.1", 443) == f"10.96.0.1 {never}"
    assert guard.refusal("10.96.0.1") == f"10.96.0.1 {never}"
    assert guard.refusal("192.168.7.2", 6443) == f"192.168.7.2 {never}"
    assert guard.refusal("192.168.7.2", 8443) == f"192.168.7.2 {never}"
    assert guard.refusal("fd00:0::7", 6443) == f"fd00::7 {never}"
    assert guard.refusal("::ffff:192.168.7.2", 6443) == f"192.168.7.2 {never}"
    assert guard.refusal("64:ff9b::192.168.7.2", 6443) == (
        "64:ff9b::c0a8:702 leads to 192.168.7.2, the Kubernetes API server, which is never dialled"
    )


def test_what_no_setting_can_allow_is_said_before_what_one_can() -> None:
    guard = Guard(refused_ranges=["127.0.0.2/32"])
    guard.protect([("127.0.0.1", 6443)])
    assert "is the Kubernetes API server" in (guard.refusal("127.0.0.1", 6443) or "")
    assert "policy.refusedRanges" in (guard.refusal("127.0.0.2", 6443) or "")


def test_other_services_of_the_api_servers_node_may_be_dialled() -> None:
    guard = Guard()
    guard.protect([("192.168.7.2", 6443)])
    assert guard.refusal("192.168.7.2", 9090) is None
    assert guard.refusal("192.168.7.3", 6443) is None


def test_an_api_server_that_moved_is_protected_where_it_is() -> None:
    guard = Guard()
    guard.protect([("192.168.7.2", 6443)])
    guard.protect([("::ffff:192.168.7.3", 6443), ("not an address", 6443), ("fe80::1%eth0", 6443)])
    assert guard.refusal("192.168.7.2", 6443) is None
    assert guard.refusal("192.168.7.3", 6443)


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "10.0.0.1/8", "cluster", ""])
@pytest.mark.parametrize("which", ["allowed", "refused"])
def test_a_wrong_range_is_named(which: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{which} range") as caught:
        Guard(**{f"{which}_ranges": ["10.0.0.0/8", wrong]})
    assert repr(wrong) in str(caught.value)


def _inverted(address: IPv4Address) -> int:
    return int(address) ^ 0xFFFFFFFF


EMBEDDINGS: dict[str, Callable[[IPv4Address], int]] = {
    "mapped": lambda v4: 0xFFFF << 32 | int(v4),
    "compatible": int,
    "translated": lambda v4: 0xFFFF << 48 | int(v4),
    "6to4": lambda v4: 0x2002 << 112 | int(v4) << 80,
    "NAT64": lambda v4: 0x64FF9B << 96 | int(v4),
    "local NAT64 /48": lambda v4: 0x64FF9B0001 << 80 | int(v4) >> 16 << 64 | (int(v4) & 0xFFFF) << 40,
    "local NAT64 /56": lambda v4: 0x64FF9B0001 << 80 | int(v4) >> 24 << 64 | (int(v4) & 0xFFFFFF) << 32,
    "local NAT64 /64": lambda v4: 0x64FF9B0001 << 80 | int(v4) << 24,
    "local NAT64 /96": lambda v4: 0x64FF9B0001 << 80 | int(v4),
    "Teredo server": lambda v4: 0x20010000 << 96 | int(v4) << 64 | _inverted(IPv4Address("8.8.8.8")),
    "Teredo client": lambda v4: 0x20010000 << 96 | 0x08080808 << 64 | _inverted(v4),
    "ISATAP": lambda v4: 0xFD00 << 112 | 0x5EFE << 32 | int(v4),
    "ISATAP, universal": lambda v4: 0x2A00 << 112 | 0x2005EFE << 32 | int(v4),
}

SPECIAL = st.sampled_from(
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "10.0.0.0/8", "100.100.100.200/32"]
).flatmap(lambda network: st.ip_addresses(network=ip_network(network)))
IPV4 = st.one_of(SPECIAL, st.ip_addresses(v=4))


@given(IPV4, st.sampled_from(sorted(EMBEDDINGS)))
def test_no_form_makes_a_refused_ipv4_address_pass(v4: IPv4Address, form: str) -> None:
    embedding = IPv6Address(EMBEDDINGS[form](v4))
    guard = Guard(refused_ranges=["10.20.0.0/16"])
    guard.protect([("10.96.0.1", 443)])
    for spelling in (embedding.compressed, embedding.exploded, embedding.exploded.upper()):
        if guard.refusal(spelling, 443) is None:
            assert guard.refusal(str(v4), 443) is None


@given(IPV4)
def test_the_mapped_form_is_the_ipv4_address(address: IPv4Address) -> None:
    guard = Guard(["127.96.0.0/16"], refused_ranges=["10.20.0.0/16"])
    assert guard.refusal(f"::ffff:{address}") == guard.refusal(str(address))


@given(st.ip_addresses(v=6))
def test_every_spelling_of_an_address_is_judged_alike(address: IPv6Address) -> None:
    guard = Guard()
    assert guard.refusal(address.exploded.upper()) == guard.refusal(address.compressed)


LIKE_ADDRESSES = st.from_regex(r"[0-9a-fA-F:.%xX\[\] /]{0,60}", fullmatch=True)


@given(
    st.one_of(st.text(), LIKE_ADDRESSES, st.ip_addresses().map(str)),
    st.none() | st.integers(),
    st.lists(st.tuples(st.one_of(st.text(), st.ip_addresses().map(str)), st.integers()), max_size=3),
)
def test_whatever_is_asked_the_answer_is_one_line_that_names_a_way_out(
    text: str, port: int | None, api_servers: list[tuple[str, int]]
) -> None:
    guard = Guard()
    guard.protect(api_servers)
    refusal = guard.refusal(text, port)
    if refusal is not None:
        assert refusal.isprintable()
        assert len(refusal) <= 160
    if refusal is not None and "which is not dialled" in refusal:
        assert "policy.allowedRanges" in refusal


METADATA = {"100.100.100.200", "fd20:ce::254", "fd00:100::100:200", "fd00:c1::a9fe:a9fe", "fd00:42::42"}
CLUSTER_RANGES = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "2400::/6"]


@given(st.sampled_from(CLUSTER_RANGES).flatmap(lambda network: st.ip_addresses(network=ip_network(network))))
def test_no_address_that_a_cluster_may_use_is_refused(address: IPv4Address | IPv6Address) -> None:
    text = str(address)
    if text in METADATA or text.startswith(("fd00:ec2:", "fd00:a9fe:a9fe:")) or ":5efe:" in address.exploded:
        return
    assert Guard().refusal(text) is None


# --- Many at once ---------------------------------------------------------------------------------------------------


def naive(address: str) -> str | None:
    """The kind of a refused address, found by asking every network in turn."""
    one = ip_address(address)
    for kind, networks in module._REFUSED_KINDS:
        if any(one in network for network in networks):
            return kind
    if one.version == 6 and not any(one in network for network in module._ASSIGNED):
        return "a reserved address"
    return None


EDGES = [
    edge
    for networks in (*(networks for _, networks in module._REFUSED_KINDS), module._ASSIGNED, module._IPV4_LAST)
    for network in networks
    for edge in (network.network_address, network.broadcast_address)
]


@given(
    st.sampled_from(EDGES).flatmap(lambda edge: st.integers(-2, 2).map(lambda step: (edge.version, int(edge) + step)))
    | st.tuples(st.just(4), st.integers(0, 2**32 - 1))
    | st.tuples(st.just(6), st.integers(0, 2**128 - 1))
)
def test_what_is_found_quickly_is_what_is_found_in_turn(number: tuple[int, int]) -> None:
    version, value = number
    if not 0 <= value < 2 ** (32 if version == 4 else 128):
        return
    address = (IPv4Address if version == 4 else IPv6Address)(value)
    assert module._refused_kind(address) == naive(str(address))


@given(
    st.sets(st.none() | st.integers(1, 5) | st.just(6443), min_size=1),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "169.254.169.254", "::ffff:10.0.0.1", "no", "fe80::1%e"]),
)
def test_an_address_is_refused_at_any_of_some_ports_if_it_is_at_one_of_them(
    ports: set[int | None], address: str
) -> None:
    guard = Guard()
    guard.protect([("10.0.0.1", 6443), ("10.0.0.1", 3)])
    refusals = {guard.refusal(address, port) for port in ports} - {None}
    assert (guard.refusal_at_any(address, ports) is None) == (not refusals)
    assert guard.refusal_at_any(address, ports) in refusals | {None}


def test_what_is_remembered_is_forgotten_when_the_api_server_moves() -> None:
    guard = Guard()
    assert guard.refusal("10.0.0.1", 6443) is None
    guard.protect([("10.0.0.1", 6443)])
    assert guard.refusal("10.0.0.1", 6443)
    assert guard.refusal_at_any("10.0.0.1", [6443])
    guard.protect([("10.0.0.2", 6443)])
    assert guard.refusal("10.0.0.1", 6443) is None


def test_a_thousand_addresses_are_judged_in_milliseconds_and_once_more_in_no_time() -> None:
    guard = Guard()
    guard.protect([("10.0.0.1", 6443)])
    many = [f"fd00:1:2:3:0:5efe:a{number // 256:02x}:{number % 256:x}" for number in range(1000)]
    ports = range(1, 101)
    begun = time.thread_time()
    assert not any(guard.refusal_at_any(address, ports) for address in many)
    between = time.thread_time()
    assert not any(guard.refusal_at_any(address, ports) for address in many)
    assert between - begun < 0.15
    assert time.thread_time() - between < 0.02
    assert guard._judged.cache_info().maxsize == 8192
