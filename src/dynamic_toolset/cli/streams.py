"""Standard input, output and error, whatever the caller made of them."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import NoReturn, TypeGuard


def prepare() -> None:
    """See to it that what is printed can be: whatever the locale, and also where somebody closed the output (``>&-``).

    Of a closed one Python has nothing at all, and the next file that is opened would take its number.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def flush(failed: int) -> None:
    """Write out what is left while what goes wrong (``| head``, a full disk) can be told from a mistake of ours.

    If it goes wrong the program ends: with ``failed``, or with 1 if the reader has left.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more when it ends (docs.python.org/3/library/signal.html, "Note on SIGPIPE").
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        give_up(error.strerror, failed)


def is_full(error: Exception) -> TypeGuard[OSError]:
    """Whether an error says that something could not be written: no command writes anything but its output."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def give_up(why: str | None, failed: int) -> NoReturn:
    """End because the output cannot be written."""
    print(f"error: the output cannot be written: {why}", file=sys.stderr)
    sys.exit(failed)


def read(file: str) -> bytes:
    """Return what is in a file; ``-`` is standard input. Raises OSError, also if that is closed (``<&-``)."""
    if file != "-":
        return Path(file).read_bytes()
    if sys.stdin is None:
        raise OSError(errno.EBADF, "the standard input is closed")
    return sys.stdin.buffer.read()
