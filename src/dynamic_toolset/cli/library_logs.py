"""What libraries, asyncio, threads and Python itself have to say comes out as our own events do.

From warnings upwards, and no more than :data:`EACH_MINUTE` a minute from one place: a library that repeats itself must
neither fill the log nor cost much. What clients send to uvicorn is theirs to mend, so it is worth a look only to who
debugs.
"""

import logging
import sys
import threading
import time
from typing import Any

import structlog

EACH_MINUTE = 10

MAX_PLACES = 256
"""Places that are counted at a time. Nobody has so many; it is only that nothing grows without end."""


class Handler(logging.Handler):
    """Hands records to structlog: event ``library_message``, with the name of the ``logger`` and the ``message``."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._minute = 0.0
        self._places: dict[tuple[str, int], int] = {}
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. Called with the lock of the handler held."""
        level = record.levelno
        if record.name.startswith("uvicorn") and level == logging.WARNING:
            level = logging.DEBUG  # "Invalid HTTP request received.", "Unsupported upgrade request."
        elif not self._has_room(record):
            self._left_out += 1
            return
        log = structlog.get_logger()  # not once for all: who configures anew is to be obeyed
        fields: dict[str, Any] = {"logger": record.name, "message": _message(record)}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc_info"] = record.exc_info
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        log.log(_nearest(level), "library_message", **fields)

    def _has_room(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._minute >= 60 or len(self._places) >= MAX_PLACES:
            self._minute = now
            self._places.clear()
        place = record.pathname, record.lineno
        said = self._places[place] = self._places.get(place, 0) + 1
        return said <= EACH_MINUTE


def install() -> None:
    """Take the place of whatever handled the records of libraries until now, and take in Python's warnings."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, Handler):
            root.removeHandler(handler)
    root.addHandler(Handler())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_died
    sys.unraisablehook = _unraisable


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except Exception:  # noqa: BLE001 - a library whose message does not fit its arguments
        return str(record.msg)


def _nearest(level: int) -> int:
    """Return the level of ours that is next below one that a library may have made up."""
    ours = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
    return next((one for one in ours if level >= one), logging.DEBUG)


def _thread_died(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = args.thread.name if args.thread else "unknown"
    logging.getLogger("threading").error("thread %s died", name, exc_info=args.exc_value)


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    logging.getLogger("python").error(
        "%s", args.err_msg or "an error where none can be raised", exc_info=args.exc_value
    )
