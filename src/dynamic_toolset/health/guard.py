"""Which addresses may be dialled at all: pure.

Whoever may create a Service decides where our checks connect to, and our pod may stand where theirs does not. So what
only we could reach is refused: our own loopback, the node's link-local services, and the clouds' metadata addresses.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_METADATA = ip_network("fd00:ec2::254/128")
"""The metadata address that is not link-local (AWS: EC2 user guide, "Access instance metadata", IPv6 endpoint)."""

_THIS_NETWORK = ip_network("0.0.0.0/8")
"""RFC 1122, section 3.2.1.3: never a destination, and 0.0.0.0 itself reaches the local host on Linux."""

_BROADCAST = IPv4Address("255.255.255.255")

_LONGEST_ADDRESS = 45
"""Characters: eight groups, of which the last two are written as IPv4."""


class Guard:
    """Judges addresses. ``allowed_ranges`` lists CIDRs that may be dialled though they would be refused.

    Raises ValueError that names the first range which is none.
    """

    def __init__(self, allowed_ranges: Iterable[str] = ()) -> None:
        self._allowed = tuple(_range(text) for text in allowed_ranges)

    def refusal(self, address: str) -> str | None:
        """Return why ``address`` must not be dialled, in one line, or None if it may be.

        Only the plain spelling of an address is read. What some resolvers take for an address and others for a name
        (``127.1``, ``0x7f.0.0.1``, ``2130706433``) is refused as none. ``::ffff:a.b.c.d`` is judged as ``a.b.c.d``,
        which is where Linux sends it.
        """
        if "%" in address:
            return "an address with a zone means something on one node only"
        try:
            spelt = ip_address(address[: _LONGEST_ADDRESS + 1])
        except ValueError:
            return "not an IP address"
        meant = spelt.ipv4_mapped or spelt if isinstance(spelt, IPv6Address) else spelt
        kind = _refused_kind(meant)
        if kind is None or any(meant in allowed for allowed in self._allowed):
            return None
        return f"{meant} is {kind}, which is not dialled (healthCheck.allowedRanges can allow it)"


def _range(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"allowed range {text!r}: {error}") from None


def _refused_kind(address: IPv4Address | IPv6Address) -> str | None:
    """Return what makes an address unfit to be dialled. The first that fits is the most telling."""
    kinds = (
        (address.is_unspecified or address in _THIS_NETWORK, "an unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address in _METADATA, "a metadata address"),
        (address.is_multicast, "a multicast address"),
        (address == _BROADCAST, "the broadcast address"),
        (address.is_reserved, "a reserved address"),
    )
    return next((kind for applies, kind in kinds if applies), None)
