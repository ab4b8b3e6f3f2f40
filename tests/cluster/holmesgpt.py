"""The real HolmesGPT, in an environment of its own, judges a toolset file.

``python -m tests.cluster.holmesgpt`` makes the environment (once, 800 MB) and prints where it is.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster import cache
from tests.cluster.cache import Missing
from tests.cluster.cluster import Cluster
from tests.cluster.dns import under_cluster_dns

_PROJECT = Path(__file__).parents[2]
_REQUIREMENTS = _PROJECT / "constraints" / "holmesgpt.txt"
_SCRIPT = _PROJECT / "tests" / "e2e" / "check_with_holmesgpt.py"
_INSTALL_DEADLINE = 1200
_CHECK_DEADLINE = 180


class Toolset(NamedTuple):
    """What HolmesGPT made of one toolset of the file. ``message`` says what failed, or which instances work."""

    status: str
    message: str
    tools: tuple[str, ...]


class Loaded(NamedTuple):
    """What HolmesGPT made of a file.

    ``answer`` is empty, or what the tool that was called gave: a line ``status=success error=None``, and the text that
    the agent reads.
    """

    toolsets: Mapping[str, Toolset]
    answer: str


def python() -> Path:
    """Return the Python interpreter of HolmesGPT's environment, which is made if it is not there.

    Raises Missing if it cannot be made.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache.folder("holmesgpt", f"{cache.content_hash(_REQUIREMENTS)}-{version}")
    environment, complete = folder / "environment", folder / "complete"
    interpreter = environment / "bin" / "python"
    if not (complete.exists() and interpreter.exists()):
        with cache.locked(folder):
            if not (complete.exists() and interpreter.exists()):
                _install(environment)
                complete.touch()
    return interpreter


def check(
    document: str | Mapping[str, Any],
    *,
    cluster: Cluster,
    expect: Mapping[str, str],
    tool: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Load a toolset file as HolmesGPT's server does, with every check that it makes, under the cluster's DNS.

    ``document`` is the text of the file, or the ConfigMap that holds it. ``expect`` maps names of toolsets to the
    status that each must have (``enabled``, ``failed``, ``disabled``, ``absent``). ``tool`` is called with
    ``parameters``, as the agent would. ``environment`` is added to HolmesGPT's.

    Raises AssertionError, with all that HolmesGPT said, if it cannot load the file or an expectation fails; Missing
    if there is no HolmesGPT or no DNS.
    """
    file = cluster.folder / "toolset.yaml"
    file.write_text(document if isinstance(document, str) else json.dumps({**document, "kind": "ConfigMap"}))
    options = [f"--expect={name}={status}" for name, status in expect.items()]
    options += [f"--env={name}={value}" for name, value in (environment or {}).items()]
    if tool:
        options += [f"--tool={tool}", f"--parameters={json.dumps(parameters or {})}"]
    result = subprocess.run(
        under_cluster_dns(cluster, [python(), _SCRIPT, file, *options]),
        env=os.environ | {"NO_PROXY": "*", "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=_CHECK_DEADLINE,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    told = json.loads(result.stdout)
    toolsets = {
        name: Toolset(toolset["status"], toolset["message"], tuple(toolset["tools"]))
        for name, toolset in told["toolsets"].items()
    }
    return Loaded(toolsets, told["answer"])


def _install(environment: Path) -> None:
    cache.progress("installing HolmesGPT in an environment of its own; the first time this takes 2 minutes and 800 MB")
    started = time.monotonic()
    shutil.rmtree(environment, ignore_errors=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, "install", "--no-deps", "--require-hashes", "--requirement", str(_REQUIREMENTS)],
    ):
        result = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_DEADLINE)
        if result.returncode:
            said = ((result.stderr or result.stdout).strip().splitlines() or ["nothing"])[-1]
            raise Missing(
                "HolmesGPT",
                f"`pip install --no-deps --require-hashes -r constraints/holmesgpt.txt` must work; it said: {said}",
            )
    cache.progress(f"installed HolmesGPT in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    print(python())
