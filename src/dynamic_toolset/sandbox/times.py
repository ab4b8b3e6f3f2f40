"""Times as they are written in objects. Pure."""

import re
from datetime import UTC, datetime

_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")


def micro_time(value: object) -> str:
    """Return a MicroTime as the API writes it, in UTC (meta/v1 ``RFC3339Micro``: six digits, no more and no less).

    Raises ValueError for what is none.
    """
    if not isinstance(value, str) or not _MICRO_TIME.fullmatch(value):
        raise ValueError(f"parsing time {value!r} as 2006-01-02T15:04:05.000000Z07:00")
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
