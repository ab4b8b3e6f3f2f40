"""Runs commands that see some paths differently from the rest of the machine."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.cache import Missing
from tests.cluster.programs import system_program

_RESOLV_CONF = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
# /var/run, where a Pod has the files of its ServiceAccount, leads to /run, which is ours to fill here.
_SERVICE_ACCOUNT = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$0" /run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""


def with_resolv_conf(file: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command such that it sees ``file`` as ``/etc/resolv.conf``. Raises Missing."""
    return _in_mount_namespace(_RESOLV_CONF, file, command)


def with_service_account(folder: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command such that it sees ``folder`` where a Pod has token, ca.crt and namespace. Raises Missing."""
    return _in_mount_namespace(_SERVICE_ACCOUNT, folder, command)


def _in_mount_namespace(script: str, path: Path, command: Sequence[str | Path]) -> list[str | Path]:
    unshare = [system_program("unshare"), "--mount"]
    if os.geteuid():
        unshare.append("--map-root-user")
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=10).returncode:
        raise Missing("the right to make a mount namespace", "run the tests as root, in a container with CAP_SYS_ADMIN")
    return [*unshare, "sh", "-c", script, path, *command]
