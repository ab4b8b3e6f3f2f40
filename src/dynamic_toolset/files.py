"""Files that people write, read while the service runs: it waits for nobody, and reads no further than it must."""

import os
import stat
from pathlib import Path


def shown(file: Path) -> str:
    """Return a path as text, with ``?`` for what is none: a file may be called by any bytes."""
    return str(file).encode(errors="replace").decode()


def stamp(file: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from another in its place: modification time (ns), inode, size; None without one."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def read_regular(file: Path, most: int) -> bytes:
    """Return what is in a file, of one that is longer than ``most`` bytes no more than one byte beyond.

    Raises OSError, also for what is no regular file: a pipe that nobody writes to would be waited for, for ever.
    """
    number = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as opened:  # a folder is refused here
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(0, "not a regular file", str(file))
        return opened.read(most + 1)
