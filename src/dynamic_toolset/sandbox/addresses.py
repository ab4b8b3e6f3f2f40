"""The addresses of Services."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import islice

from dynamic_toolset.sandbox.resources import SERVICES, Object
from dynamic_toolset.sandbox.status import Cause, StatusError, invalid


class ClusterAddresses:
    """Gives each Service its ClusterIP, and remembers which are given.

    ``source`` is a range (``127.96.0.0/16``), of which each Service gets an address of its own, as in a real cluster;
    or a single address (``127.0.0.1``), which all Services share: the only way on a machine where no other
    loopback address is local.
    """

    def __init__(self, source: str) -> None:
        self._network = ip_network(source)
        self._shared = self._network.num_addresses == 1
        self._given: set[str] = set()
        self._next = self._round()

    def assign(self, service: Object, old: Object | None) -> Object:
        """Return ``service`` with its addresses. ``old`` is the stored Service, if there is one.

        Raises StatusError (422) for an address outside the range, one that another Service has, or a changed one.
        """
        spec = service["spec"]
        present = old["spec"].get("clusterIP", "") if old else ""
        if spec["type"] == "ExternalName":
            self.release(present)
            return {**service, "spec": {key: spec[key] for key in spec.keys() - {"clusterIP", "clusterIPs"}}}
        wanted = spec.get("clusterIP") or present
        if present and wanted != present:
            raise _refused(service, f'Invalid value: ["{wanted}"]: may not change once set', "spec.clusterIPs[0]")
        if wanted != present and wanted != "None":
            self._check(wanted, service)
        address = wanted or self._free(service)
        if address != "None" and not self._shared:
            self._given.add(address)
        return {**service, "spec": {**spec, "clusterIP": address, "clusterIPs": [address]}}

    def release(self, address: str) -> None:
        """Take an address back."""
        self._given.discard(address)

    def _free(self, service: Object) -> str:
        candidates = islice(self._next, self._network.num_addresses)
        for address in candidates:
            if address not in self._given:
                return address
        message = "Internal error: failed to allocate a serviceIP: range is full"
        raise _refused(service, message, "spec.clusterIPs")

    def _round(self) -> Iterator[str]:
        """Go round the range for ever, so that the next free address is near. The first one names the network."""
        while True:
            yield from map(str, islice(self._network, 0 if self._shared else 1, None))

    def _check(self, address: str, service: Object) -> None:
        try:
            inside = ip_address(address) in self._network
        except ValueError:
            message = f'Invalid value: "{address}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
            raise _refused(service, message, "spec.clusterIPs[0]") from None
        why = "provided IP is already allocated" if address in self._given else ""
        if not inside:
            why = "the provided network does not match the current range"
        if why:
            message = f'Invalid value: ["{address}"]: failed to allocate IP {address}: {why}'
            raise _refused(service, message, "spec.clusterIPs")


def _refused(service: Object, message: str, field: str) -> StatusError:
    cause = Cause("FieldValueInvalid", message, field)
    return invalid(SERVICES.kind, SERVICES.group, service["metadata"]["name"], [cause])
