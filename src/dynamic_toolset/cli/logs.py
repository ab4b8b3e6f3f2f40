"""How events are written: JSON for machines, colours for a person at a terminal.

What is guaranteed: one line for each event, with time, level and name first; no secret (see ``masking``) and no local
variable in a traceback; what a tenant wrote can neither begin a line nor speak to the terminal; and an event that
cannot be written is lost, without harm to who logs it.
"""

import contextlib
import json
import logging
import sys
import threading
from typing import Any, TextIO

import msgspec

# structlog imports rich, if it is there, for tracebacks on a terminal: 45 ms and 9 MB that a service never gets back.
# This module is the first to import structlog, and the commands that draw tables import rich themselves, later.
_rich = sys.modules.pop("rich", None)
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

del sys.modules["rich"]
if _rich is not None:
    sys.modules["rich"] = _rich

from structlog.types import EventDict, Processor, WrappedLogger  # noqa: E402

from dynamic_toolset import tracing  # noqa: E402
from dynamic_toolset.cli import library_logs  # noqa: E402
from dynamic_toolset.cli.masking import mask  # noqa: E402


def configure(form: str, level: str) -> None:
    """Write events of at least ``level`` to stderr. ``form`` is ``json``, ``console``, or ``auto``.

    What libraries log from warnings upwards, and Python's own warnings, come out in the same form.
    """
    terminal = sys.stderr.isatty()
    if form == "console" or (form == "auto" and terminal):
        # A formatter of tracebacks that shows no variables, whatever else is installed.
        console = structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback, timestamp_key="timestamp"
        )
        render: list[Processor] = [_make_printable, console]
    else:
        render = [_put_first, _render_json]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            structlog.processors.format_exc_info,
            mask,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_LinesFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    library_logs.install()


class _Lines:
    """Writes lines to a file."""

    def __init__(self, file: TextIO, lock: threading.Lock) -> None:
        self._file = file
        self._lock = lock

    def msg(self, line: str) -> None:
        # A full disk, a reader that has gone away: no event is worth the service.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._file.write(line + "\n")
            self._file.flush()

    log = debug = info = warning = error = critical = exception = msg


class _LinesFactory:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def __call__(self, *_args: Any) -> _Lines:
        return _Lines(self._file, self._lock)


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if trace_id := tracing.trace_id():
        event["trace_id"] = trace_id
    return event


def _put_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put what a person who reads lines looks for to their beginning."""
    return {"timestamp": event.pop("timestamp", None), "level": event.pop("level", None), "event": None, **event}


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return JSON in ASCII. After ``mask`` there are only plain values."""
    try:
        line = msgspec.json.encode(event)
        if line.isascii():
            return line.decode("ascii")
    except ValueError:  # half a character, which UTF-8 does not have
        pass
    # Four times as slow, and not needed often. A terminal that shows the line must not take what is in it for orders.
    return json.dumps(event, separators=(",", ":"))


def _make_printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Show what would speak to the terminal instead of the reader as its number.

    A traceback keeps its lines, set in: the words of an error may be somebody else's, and pass for an event otherwise.
    """
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name == "exception" else ()
            event[name] = "\n".join(f"  {_printable(line)}" for line in lines) if lines else _printable(value)
    return event


def _printable(value: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in value)
