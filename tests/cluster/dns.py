"""Runs commands that see the cluster's DNS as the system's resolver, as a Pod would."""

from collections.abc import Sequence
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.mounts import with_resolv_conf
from tests.cluster.process import tied


def under_cluster_dns(cluster: Cluster, command: Sequence[str | Path]) -> list[str]:
    """Return the command such that it runs with a ``/etc/resolv.conf`` of its own, which names the cluster's DNS.

    Raises Missing if the cluster has no DNS, or if this user may not have a mount namespace.
    """
    if cluster.dns_missing:
        raise cluster.dns_missing
    resolv_conf = cluster.folder / "resolv.conf"
    resolv_conf.write_text(
        f"nameserver {cluster.dns_address}\nsearch svc.cluster.local cluster.local\noptions ndots:5 timeout:1\n"
    )
    return tied(with_resolv_conf(resolv_conf, command))
