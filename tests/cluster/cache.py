"""Where the slow things are kept: programs built with Go, HolmesGPT's environment, a cluster with 10,000 Services.

Outside the checkout, so that a fresh clone starts warm.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Missing(Exception):
    """A part of the tests cannot be had on this machine. The text is one line: what is missing, and how to get it."""

    def __init__(self, what: str, how_to_get_it: str) -> None:
        super().__init__(f"{what} is missing: {how_to_get_it}")


def folder(*names: str) -> Path:
    """Return a folder of the cache, and make it (XDG Base Directory Specification, XDG_CACHE_HOME)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = root.joinpath("dynamic-toolset", *names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def content_hash(*files: Path) -> str:
    """Return what names a cache entry that is made from these files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a cache folder, so that two test runs do not make the same thing at once."""
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another run that fills {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def progress(line: str) -> None:
    """Tell the person who waits what takes so long."""
    print(f"[tests] {line}", file=sys.stderr, flush=True)
