"""Entity tags, and requests that depend on them (RFC 9110, sections 8.8 and 13)."""

import hashlib
import re


def entity_tag(state: bytes) -> str:
    """Return what tells a state from another: a strong entity tag (section 8.8.3)."""
    return f'"{hashlib.sha256(state).hexdigest()[:32]}"'


def knows(if_none_match: str | None, etag: str) -> bool:
    """Whether who asks has this state already (section 13.1.2: compared weakly)."""
    tags = re.findall(r'\*|"[^"]*"', if_none_match or "")
    return "*" in tags or etag in tags
