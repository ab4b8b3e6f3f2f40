"""What the annotations of a Service ask for. Pure.

Whoever may annotate a Service is not trusted: nothing that is written there reaches a URL, a name or a reason without
passing an allow-list here.
"""

import difflib
import heapq
import re
from collections.abc import Mapping
from typing import cast

from msgspec import Struct

from dynamic_toolset.model import Scheme

ANNOTATION_PREFIX = "kubernaut.io/toolset"

TOOLSET = ANNOTATION_PREFIX
TYPE = f"{ANNOTATION_PREFIX}-type"
NAME = f"{ANNOTATION_PREFIX}-name"
ENDPOINT = f"{ANNOTATION_PREFIX}-endpoint"
PORT = f"{ANNOTATION_PREFIX}-port"
SCHEME = f"{ANNOTATION_PREFIX}-scheme"
PATH = f"{ANNOTATION_PREFIX}-path"
HEALTH_PATH = f"{ANNOTATION_PREFIX}-health-path"

MAX_PROBLEMS = 5
"""How many of the mistakes in one Service's annotations are told at once."""

_KNOWN = (TOOLSET, TYPE, NAME, ENDPOINT, PORT, SCHEME, PATH, HEALTH_PATH)
_OPT_OUT = frozenset({"disabled", "false"})
_OPT_IN = frozenset({"enabled", "true"})

_WORD = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,199}")
_PATH_SEGMENTS_TO_REFUSE = frozenset({".", ".."})
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ENDPOINT = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]{1,253}):(?P<port>[0-9]{1,5})(?P<path>/.*)?")

# Terminals, logs, web pages and chats show reasons: no character that one of these could take for more than text.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ()*+,./:;=?_~-]")

_WORD_RULE = "lower-case letters, digits and '-', at most 40 characters, such as my-service"
_PATH_RULE = "a path of letters, digits and . _ ~ - /, without '..', '.' and '//' as parts of it, such as /prometheus"
_ENDPOINT_RULE = "a full URL of this Service, such as http://name.namespace.svc:8080/path, with its port"


class Url(Struct, frozen=True):
    """The parts of an ``-endpoint`` annotation."""

    scheme: Scheme
    host: str
    port: int
    path: str


class Request(Struct, frozen=True):
    """What the owner of a Service asks for. ``wanted``: it is to be listed, even if nothing else says what it is.

    Every text is harmless: it passed the allow-lists of this module. ``path`` does not end with ``/``. Whether the
    host of ``endpoint`` is one that may be named there is for the policy to say.
    """

    wanted: bool = False
    type: str | None = None
    name: str | None = None
    endpoint: Url | None = None
    port: str | None = None
    scheme: Scheme | None = None
    path: str | None = None
    health_path: str | None = None


class OptedOut(Struct, frozen=True):
    """The owner does not want the Service to be listed."""

    value: str


class Broken(Struct, frozen=True):
    """Annotations that cannot be followed, with the reason."""

    reason: str


def request(annotations: Mapping[str, str] | None) -> Request | OptedOut | Broken | None:
    """Return what the annotations ask for; None if there are none of ours.

    Opting out wins over everything else, broken annotations included: who says no is not asked for grammar.
    """
    if not annotations:
        return None
    ours = {key: value for key, value in annotations.items() if key.startswith(ANNOTATION_PREFIX)}
    if not ours:
        return None
    switch = ours.get(TOOLSET)
    if switch in _OPT_OUT:
        return OptedOut(switch)
    unknown = ours.keys() - set(_KNOWN)
    problems = [_unknown(key) for key in heapq.nsmallest(MAX_PROBLEMS, unknown)]
    if switch is not None and switch not in _OPT_IN:
        problems.append(broken(TOOLSET, switch, "enabled, true, disabled or false"))
    for key, pattern, rule in ((TYPE, _WORD, _WORD_RULE), (NAME, _WORD, _WORD_RULE)):
        if key in ours and not pattern.fullmatch(ours[key]):
            problems.append(broken(key, ours[key], rule))
    paths = [key for key in (PATH, HEALTH_PATH) if key in ours and not _is_path(ours[key])]
    problems += [broken(key, ours[key], _PATH_RULE) for key in paths]
    scheme = ours.get(SCHEME)
    if scheme not in {None, "http", "https"}:
        problems.append(broken(SCHEME, scheme, "http or https"))
    port = ours.get(PORT)
    if port is not None and not _is_port(port):
        problems.append(broken(PORT, port, "the number (1 to 65535) or the name of a port of this Service"))
    endpoint = None
    if ENDPOINT in ours:
        endpoint = _url(ours[ENDPOINT])
        if endpoint is None:
            problems.append(broken(ENDPOINT, ours[ENDPOINT], _ENDPOINT_RULE))
        other = next((key for key in (PORT, SCHEME, PATH) if key in ours), None)
        if other:
            problems.append(f"annotation {ENDPOINT} says what {other} says too: keep one of them")
    if problems:
        more = len(problems) + max(0, len(unknown) - MAX_PROBLEMS) - MAX_PROBLEMS
        return Broken("; ".join([*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]))
    return Request(
        wanted=switch is not None or TYPE in ours,
        type=ours.get(TYPE),
        name=ours.get(NAME),
        endpoint=endpoint,
        port=port,
        scheme=cast("Scheme | None", scheme),
        path=_trimmed(ours.get(PATH)),
        health_path=ours.get(HEALTH_PATH),
    )


def broken(annotation: str, value: str, rule: str) -> str:
    """Say what is wrong with an annotation, in the words that every such reason uses."""
    return f"annotation {annotation} is {quoted(value)}: it should be {rule}"


def quoted(text: str, limit: int = 60) -> str:
    """Return foreign text for a reason: in quotes, at most ``limit`` of its characters, and those by allow-list."""
    shown = _NOT_PLAIN.sub("?", text[:limit])
    return f'"{shown}"' if len(text) <= limit else f'"{shown}..."'


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key[:60], _KNOWN, n=1, cutoff=0.0)
    return f"annotation {quoted(key)} is not known: did you mean {near[0]}?"


def _is_path(text: str) -> bool:
    """Whether it is a path by the allow-list, that leads where it seems to lead however it is joined or cleaned."""
    if not _PATH.fullmatch(text) or "//" in text:
        return False
    return _PATH_SEGMENTS_TO_REFUSE.isdisjoint(text.split("/"))


def _is_port(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return len(text) <= 5 and 0 < int(text) < 65536
    return bool(_PORT_NAME.fullmatch(text))


def _url(text: str) -> Url | None:
    found = _ENDPOINT.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        return None
    path = found["path"]
    if path is not None and not _is_path(path):
        return None
    return Url(cast("Scheme", found["scheme"]), found["host"], int(found["port"]), _trimmed(path) or "")


def _trimmed(path: str | None) -> str | None:
    return path.rstrip("/") if path is not None else None
