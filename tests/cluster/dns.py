"""Runs commands that see the cluster's DNS as the system's resolver, as a Pod would."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.cache import Missing
from tests.cluster.cluster import Cluster
from tests.cluster.process import tied
from tests.cluster.programs import system_program

_MOUNT_AND_RUN = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


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
    unshare = [str(system_program("unshare")), "--mount"]
    if os.geteuid():
        unshare.append("--map-root-user")
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=10).returncode:
        raise Missing("the right to make a mount namespace", "run the tests as root, in a container with CAP_SYS_ADMIN")
    return tied([*unshare, "sh", "-c", _MOUNT_AND_RUN, resolv_conf, *command])
