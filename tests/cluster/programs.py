"""Finds the programs that the cluster consists of, and builds what is not there.

``python -m tests.cluster.programs`` gets all of them ready and prints where they are. A program is looked for in the
folder ``$KUBEBUILDER_ASSETS`` (setup-envtest fills it; it knows no controller manager and no DNS), then in the cache,
and is else built with Go from the two modules beside this file, which pin every version.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.cluster import cache
from tests.cluster.cache import Missing

KUBERNETES_VERSION = (1, 36, 3)
_BUILD_DEADLINE = 1800


class Source(NamedTuple):
    """Where a program is built from: the folder of a Go module beside this file, and a package that it pins."""

    module: str
    package: str


_SOURCES = {
    "etcd": Source("kubernetes", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Source("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": Source("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kubectl": Source("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "coredns": Source("coredns", "github.com/coredns/coredns"),
}

_SYSTEM_PACKAGES = {
    "prometheus": ("prometheus", ("prometheus",)),
    "promtool": ("prometheus", ("promtool",)),
    "alertmanager": ("prometheus-alertmanager", ("prometheus-alertmanager", "alertmanager")),
    "victoria-metrics": ("victoria-metrics", ("victoria-metrics", "victoria-metrics-prod")),
    "chromium": ("chromium", ("chromium", "chromium-browser", "google-chrome")),
    "openssl": ("openssl", ("openssl",)),
    "setpriv": ("util-linux", ("setpriv",)),
    "unshare": ("util-linux", ("unshare",)),
}


def cluster_program(name: str) -> Path:
    """Return the path of a part of the cluster; building it, once, takes minutes.

    Raises Missing where it is not there and cannot be built.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (found := Path(assets, name)).is_file():
        return found
    source = _SOURCES[name]
    module = Path(__file__).parent / source.module
    folder = cache.folder("programs", cache.content_hash(module / "go.mod", module / "go.sum"))
    program = folder / name
    if not program.exists():
        with cache.locked(folder):
            if not program.exists():
                _build(source.package, module, program)
    return program


def system_program(name: str) -> Path:
    """Return the path of a program that the system's package manager installs. Raises Missing."""
    package, names = _SYSTEM_PACKAGES[name]
    for candidate in names:
        if found := shutil.which(candidate):
            return Path(found)
    raise Missing(name, f"`make system-packages`, or install the package {package} (Debian, Ubuntu)")


def _build(package: str, module: Path, program: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise Missing(program.name, "install Go 1.26 or newer (https://go.dev/dl), which builds it once, in minutes")
    cache.progress(f"building {program.name} with Go; the first time this takes up to 4 minutes")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=program.parent) as unfinished:
        binary = Path(unfinished, program.name)
        result = subprocess.run(
            [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", _linker_flags(), "-o", binary, package],
            cwd=module,
            env=os.environ | {"CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=_BUILD_DEADLINE,
        )
        if result.returncode:
            said = (result.stderr.strip().splitlines() or ["nothing"])[-1]
            raise Missing(
                program.name, f"`go build {package}` in tests/cluster/{module.name} must work; it said: {said}"
            )
        binary.replace(program)
    cache.progress(f"built {program.name} in {time.monotonic() - started:.0f} s")


def _linker_flags() -> str:
    """Without these, programs built outside of Kubernetes' own build call themselves v0.0.0."""
    major, minor, patch = KUBERNETES_VERSION
    values = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())])


def main() -> int:
    """Print where each program is, or why it is not there. Returns 1 if one is missing."""
    missing = 0
    for find, names in ((cluster_program, _SOURCES), (system_program, _SYSTEM_PACKAGES)):
        for name in names:
            try:
                print(f"{name:24} {find(name)}")
            except Missing as error:
                missing = 1
                print(f"{name:24} {error}")
    return missing


if __name__ == "__main__":
    sys.exit(main())
