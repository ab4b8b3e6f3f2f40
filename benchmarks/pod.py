"""Runs a process as a Pod would see the cluster: credentials in files, the API's address in the environment."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster
from tests.cluster.process import Process

_SCRIPT = """
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$0"/* /run/secrets/kubernetes.io/serviceaccount/
exec "$@"
"""


def start(cluster: Cluster, token: str, namespace: str, command: Sequence[str]) -> Process:
    """Start ``python COMMAND`` in a mount namespace in which the ServiceAccount's files are where a Pod has them."""
    account = cluster.folder / "serviceaccount"
    account.mkdir(exist_ok=True)
    (account / "token").write_text(token)
    (account / "namespace").write_text(namespace)
    shutil.copy(cluster.ca_file, account / "ca.crt")
    address = urlsplit(cluster.url)
    environment = os.environ | {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    return Process(
        [*unshare, "sh", "-c", _SCRIPT, account, sys.executable, *command], cluster.folder / "pod.log", environment
    )


def memory(process: Process) -> float:
    """Return the resident memory of a process in MB (10^6 bytes)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    kibibytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return kibibytes * 1024 / 1e6
