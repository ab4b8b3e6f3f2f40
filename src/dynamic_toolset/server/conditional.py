"""Conditional requests (RFC 9110, section 13)."""

import re


def knows(if_none_match: str | None, etag: str) -> bool:
    """Whether who asks has this state already (section 13.1.2: compared weakly)."""
    tags = re.findall(r'\*|"[^"]*"', if_none_match or "")
    return "*" in tags or etag in tags
