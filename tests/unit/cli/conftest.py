"""The command line, called as its entry point calls it, in this process."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from tests.command import Ended, called

PROMETHEUS = """\
apiVersion: v1
kind: Service
metadata:
  name: prometheus
  namespace: monitoring
  labels: {app.kubernetes.io/name: prometheus}
spec:
  selector: {app.kubernetes.io/name: prometheus}
  ports: [{name: web, port: 9090}]
"""

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
"""


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    """The process of the tests ends by SIGTERM as before, whatever a command has done."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings and no cluster of whoever runs the tests."""
    for name in ("DYNAMIC_TOOLSET_CONFIG", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restored: None) -> Run:
    """Call the program: ``run("explain", "-f", "-", stdin="kind: Service ...")``.

    What it does to this process is undone.
    """

    def run(*arguments: str, stdin: str | bytes = b"") -> Ended:
        return called(monkeypatch, capsys, *arguments, stdin=stdin)

    return run


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., str]:
    """Write a file and return its name: relative, as a person gives it."""

    def write(content: str | bytes, name: str = "services.yaml") -> str:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return name

    return write


@pytest.fixture
def restored() -> Iterator[None]:
    """Undo what ``logs.configure`` does to this process."""
    root, hooks = logging.getLogger(), (threading.excepthook, sys.unraisablehook)
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show
    threading.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
