"""How events are written: JSON for machines, colours for a person at a terminal."""

import logging
import sys

# structlog imports rich, if it is there, for tracebacks on a terminal: 45 ms and 9 MB that a service never gets back.
# This module is the first to import structlog, and the commands that draw tables import rich themselves, later.
_rich = sys.modules.pop("rich", None)
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

del sys.modules["rich"]
if _rich is not None:
    sys.modules["rich"] = _rich


def configure(form: str, level: str) -> None:
    """Write events of at least ``level`` to stderr. ``form`` is ``json``, ``console``, or ``auto``."""
    terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal)
        if form == "console" or (form == "auto" and terminal)
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
