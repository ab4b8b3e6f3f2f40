"""Which addresses may be dialled and published at all: pure.

Whoever may create a Service decides where our checks and the agent connect to, and our pod may stand where theirs does
not. So what only we could reach is refused: our own loopback, the node's link-local services, the metadata services of
the clouds, and the Kubernetes API server, which would answer us.

Not refused are private ranges (clusters live in them), and the ranges of documentation and benchmarks (RFC 5737,
RFC 2544, RFC 3849): they lead nowhere that others could not reach, and laboratories use them for Pods.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(*ranges: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in ranges)


_REFUSED_KINDS = (
    # RFC 1122, section 3.2.1.3: never a destination, and on Linux 0.0.0.0 and :: reach the local host.
    ("an unspecified address", _networks("0.0.0.0/8", "::/128")),
    ("a loopback address", _networks("127.0.0.0/8", "::1/128")),
    # Where most clouds have their metadata service: 169.254.169.254 and fe80::a9fe:a9fe.
    ("a link-local address", _networks("169.254.0.0/16", "fe80::/10")),
    ("a site-local address", _networks("fec0::/10")),  # RFC 3879: no longer to be used
    (
        "a metadata address",
        _networks(
            "fd00:ec2::/32",  # AWS: metadata ::254, credentials of EKS Pod Identity ::23, DNS ::253, time ::123
            "fd20:ce::254/128",  # Google Cloud, instances without IPv4
            "168.63.129.16/32",  # Azure's wire server (Microsoft Learn, "What is IP address 168.63.129.16?")
            "100.100.100.200/32",  # Alibaba Cloud
            "fd00:100::100:200/128",  # Alibaba Cloud, IPv6 (cloud-init, DataSourceAliYun)
            "192.0.0.192/32",  # Oracle Cloud, classic and at Customer
            "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud, IPv6 (its SDK, instance_principals_security_token_signer.py)
            "fd00:42::42/128",  # Scaleway, IPv6 (cloud-init, DataSourceScaleway)
            "fd00:a9fe:a9fe::1/128",  # Akamai (Linode), IPv6 (cloud-init, DataSourceAkamai)
        ),
    ),
    ("a multicast address", _networks("224.0.0.0/4", "ff00::/8")),
    ("the broadcast address", _networks("255.255.255.255/32")),
    ("a reserved address", _networks("240.0.0.0/4")),
)
"""The first that fits is the most telling. Who runs Pods in 240.0.0.0/4, as GKE can, has to allow it."""

_REMEMBERED = 8192
"""Judgements that are remembered: a slice of 1,000 addresses is mostly the one of before, less or more a few."""

_ASSIGNED = _networks("2000::/3", "fc00::/7", "64:ff9b::/96")
"""What of IPv6 is assigned to unicast beyond one link (IANA, "IPv6 Address Space"); all else is reserved. So is the
NAT64 prefix for local use (64:ff9b:1::/48, RFC 8215): where in it the IPv4 address stands, only its operator knows."""

_IPV4_LAST = _networks(
    "::/96",  # IPv4-compatible (RFC 4291, section 2.5.5.1)
    "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765, section 2.1)
    "64:ff9b::/96",  # NAT64 (RFC 6052)
)
"""Forms whose last 32 bits are an IPv4 address. IPv4-mapped is not among them: it *is* the IPv4 address."""

_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The third 32 bits of an ISATAP address (RFC 5214, section 6.1), behind any prefix."""

_LONGEST_ADDRESS = 45
"""Characters: eight groups, of which the last two are written as IPv4."""


class _Ranges:
    """Says quickly whether an address is in one of many networks: a tenant can have us ask a thousand times at once."""

    def __init__(self, networks: Iterable[Network]) -> None:
        every = tuple(networks)
        merged: list[Network] = [
            *collapse_addresses(one for one in every if isinstance(one, IPv4Network)),
            *collapse_addresses(one for one in every if isinstance(one, IPv6Network)),
        ]
        self._bounds = {
            version: [
                (int(one.network_address), int(one.broadcast_address)) for one in merged if one.version == version
            ]
            for version in (4, 6)
        }
        self._starts = {version: [first for first, _ in bounds] for version, bounds in self._bounds.items()}

    def __contains__(self, address: Address) -> bool:
        value, version = int(address), address.version
        place = bisect_right(self._starts[version], value) - 1
        return place >= 0 and value <= self._bounds[version][place][1]


_REFUSED = _Ranges(network for _, networks in _REFUSED_KINDS for network in networks)
_UNICAST = _Ranges(_ASSIGNED)
_ENDS_IN_IPV4 = _Ranges(_IPV4_LAST)


class Guard:
    """Judges addresses.

    ``allowed_ranges`` lists CIDRs that may be dialled though they are of a refused kind, ``refused_ranges`` such as may
    not, whatever is allowed. Raises ValueError that names the first range which is none.
    """

    def __init__(self, allowed_ranges: Iterable[str] = (), refused_ranges: Iterable[str] = ()) -> None:
        self._allowed = tuple(_range(text, "allowed") for text in allowed_ranges)
        self._refused = tuple(_range(text, "refused") for text in refused_ranges)
        self._api_servers: dict[Address, frozenset[int]] = {}
        self._api_ports: frozenset[int] = frozenset()
        self._judged = lru_cache(maxsize=_REMEMBERED)(self._judge)

    def protect(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Take over the addresses and ports of the Kubernetes API server, in place of those known before.

        What is no address is passed over: nobody could dial it.
        """
        ports: dict[Address, frozenset[int]] = {}
        for text, port in addresses:
            if (address := _read(text)) is not None:
                ports[address] = ports.get(address, frozenset()) | {port}
        self._api_servers = ports
        self._api_ports = frozenset().union(*ports.values())
        self._judged.cache_clear()

    def refusal(self, address: str, port: int | None = None) -> str | None:
        """Return why ``address`` must be neither dialled nor published, in one line, or None if it may be.

        Without a port all ports are meant. Only the plain spelling of an address is read. What some resolvers take for
        an address and others for a name (``127.1``, ``0x7f.0.0.1``, ``2130706433``) is refused as none.

        ``::ffff:a.b.c.d`` is judged as ``a.b.c.d``, which is where Linux sends it. An address of a tunnel or translator
        is judged for itself and for the IPv4 addresses within it. An allowed IPv4 range does not extend to those: they
        lead to the address as a relay sees it, to *its* loopback and *its* metadata service, and these are not what
        the range means. They can be allowed by an IPv6 range.
        """
        if "%" in address:
            return "an address with a zone means something on one node only"
        return self._judged(address[: _LONGEST_ADDRESS + 1], port)

    def refusal_at_any(self, address: str, ports: Collection[int | None]) -> str | None:
        """Return why ``address`` must not be dialled at one of these ports, None if it may at all of them.

        It takes no longer for a hundred ports than for one: only where the API server is does the port matter.
        """
        anywhere = self.refusal(address)
        if anywhere is None or None in ports:
            return anywhere
        numbers = {port for port in ports if port is not None}
        for port in (*sorted(numbers & self._api_ports), *sorted(numbers - self._api_ports)[:1]):
            if refusal := self.refusal(address, port):
                return refusal
        return None

    def _judge(self, address: str, port: int | None) -> str | None:
        meant = _read(address)
        if meant is None:
            return "not an IP address"
        leads_to = (meant, *_embedded(meant))
        return self._refused_for_good(leads_to, port) or self._refused_by_kind(leads_to)

    def _refused_for_good(self, leads_to: tuple[Address, ...], port: int | None) -> str | None:
        """Return why no setting could allow it, if so."""
        for one in leads_to:
            ports = self._api_servers.get(one, frozenset())
            if port in ports or (port is None and ports):
                return _sentence(leads_to[0], one, "the Kubernetes API server, which is never dialled")
        for one in leads_to:
            for refused in self._refused:
                if one in refused:
                    return _sentence(leads_to[0], one, f"in {refused}, which policy.refusedRanges refuses")
        return None

    def _refused_by_kind(self, leads_to: tuple[Address, ...]) -> str | None:
        if any(leads_to[0] in allowed for allowed in self._allowed):
            return None
        for one in leads_to:
            if kind := _refused_kind(one):
                return _sentence(leads_to[0], one, f"{kind}, which is not dialled (policy.allowedRanges can allow it)")
        return None


def _range(text: str, what: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{what} range {text!r}: {error}") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))


def _read(text: str) -> Address | None:
    """Return the address that is meant, or None if ``text`` is not the plain spelling of one."""
    text = text[: _LONGEST_ADDRESS + 1]
    try:
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses that a tunnel or a translator would make of it."""
    if isinstance(address, IPv4Address):
        return
    value = int(address)
    if address in _ENDS_IN_IPV4 or value >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(value & 0xFFFFFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _refused_kind(address: Address) -> str | None:
    if address in _REFUSED:
        return next(kind for kind, networks in _REFUSED_KINDS if any(address in network for network in networks))
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return "a reserved address"
    return None


def _sentence(address: Address, leads_to: Address, what: str) -> str:
    return f"{address} is {what}" if address == leads_to else f"{address} leads to {leads_to}, {what}"
