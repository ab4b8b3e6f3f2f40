"""Runs a process as a Pod would see the cluster: credentials in files, the API's address in the environment."""

import os
import shutil
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster
from tests.cluster.mounts import with_service_account
from tests.cluster.process import Process


def start(cluster: Cluster, token: str, namespace: str, command: Sequence[str]) -> Process:
    """Start ``python COMMAND`` in a mount namespace in which the ServiceAccount's files are where a Pod has them."""
    account = cluster.folder / "serviceaccount"
    account.mkdir(exist_ok=True)
    (account / "token").write_text(token)
    (account / "namespace").write_text(namespace)
    shutil.copy(cluster.ca_file, account / "ca.crt")
    address = urlsplit(cluster.url)
    # An installed program is compiled; ours is after its first start, whatever the developer's shell says of that.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = inherited | {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    return Process(with_service_account(account, [sys.executable, *command]), cluster.folder / "pod.log", environment)
