"""Who may publish what: namespaces, opt-in, opt-out, and what the annotations of a Service may ask for.

Whoever may annotate a Service is not trusted: nothing that is written there reaches a URL, a name or a reason without
passing an allow-list here. All of it is pure.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Literal, cast

from msgspec import Struct

from dynamic_toolset.kube.objects import ObjectMeta
from dynamic_toolset.model import Scheme
from dynamic_toolset.settings import Namespaces

ANNOTATION_PREFIX = "kubernaut.io/toolset"

TLS_ANNOTATIONS = frozenset(
    {"service.beta.openshift.io/serving-cert-secret-name", "service.alpha.openshift.io/serving-cert-secret-name"}
)
"""OpenShift writes a certificate for the Service's name into the Secret that this names: its ports speak TLS
(docs.openshift.com, "Securing service traffic using service serving certificate secrets")."""

TOOLSET = ANNOTATION_PREFIX
TYPE = f"{ANNOTATION_PREFIX}-type"
NAME = f"{ANNOTATION_PREFIX}-name"
ENDPOINT = f"{ANNOTATION_PREFIX}-endpoint"
PORT = f"{ANNOTATION_PREFIX}-port"
SCHEME = f"{ANNOTATION_PREFIX}-scheme"
PATH = f"{ANNOTATION_PREFIX}-path"
HEALTH_PATH = f"{ANNOTATION_PREFIX}-health-path"

_KNOWN = (TOOLSET, TYPE, NAME, ENDPOINT, PORT, SCHEME, PATH, HEALTH_PATH)
_OPT_OUT = frozenset({"disabled", "false"})
_OPT_IN = frozenset({"enabled", "true"})

_WORD = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,199}")
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ENDPOINT = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]{1,253}):(?P<port>[0-9]{1,5})(?P<path>/.*)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_WORD_RULE = "lower-case letters, digits and '-', at most 40 characters, such as my-service"
_PATH_RULE = "a path of letters, digits and . _ ~ - /, without '..' and '//', such as /prometheus"
_ENDPOINT_RULE = "a full URL of this Service, such as {example}"


class Url(Struct, frozen=True):
    """The parts of an ``-endpoint`` annotation."""

    scheme: Scheme
    host: str
    port: int
    path: str


class Request(Struct, frozen=True):
    """What the owner of a Service asks for. ``wanted``: it is to be listed, even if nothing else says what it is.

    Every text is harmless: it passed the allow-lists of this module. ``path`` does not end with ``/``.
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
    problems = [_unknown(key) for key in sorted(ours.keys() - set(_KNOWN))[:5]]
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
            rule = _ENDPOINT_RULE.format(example="http://name.namespace.svc:8080/path, with its port")
            problems.append(broken(ENDPOINT, ours[ENDPOINT], rule))
        other = next((key for key in (PORT, SCHEME, PATH) if key in ours), None)
        if other:
            problems.append(f"annotation {ENDPOINT} says what {other} says too: keep one of them")
    if problems:
        return Broken("; ".join(problems))
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


def foreign_host(url: Url, metadata: ObjectMeta, cluster_domain: str) -> str | None:
    """Return why ``url`` does not lead to this Service's own name; None if it does.

    A Service that could name any host would make us, and the agent, ask that host.
    """
    base = f"{metadata.name}.{metadata.namespace}"
    own = (base, f"{base}.svc", f"{base}.svc.{cluster_domain}")
    if url.host in own:
        return None
    shown = f"{url.scheme}://{url.host}:{url.port}"
    return broken(ENDPOINT, shown, _ENDPOINT_RULE.format(example=f"{url.scheme}://{own[1]}:{url.port}"))


def outside(namespace: str, namespaces: Namespaces) -> str | None:
    """Return why Services of this namespace are not looked at; None if they are."""
    if namespace in namespaces.exclude:
        return "its namespace is excluded by the setting namespaces.exclude"
    if namespaces.include and namespace not in namespaces.include:
        return "its namespace is not in the setting namespaces.include"
    return None


def has_dns_name(metadata: ObjectMeta) -> bool:
    """Whether the Service can be addressed by name. The API server lets no other in; a file might hold one."""
    return bool(_DNS_LABEL.fullmatch(metadata.name) and _DNS_LABEL.fullmatch(metadata.namespace))


def broken(annotation: str, value: str, rule: str) -> str:
    """Say what is wrong with an annotation, in the words that every such reason uses."""
    return f"annotation {annotation} is {quoted(value)}: it should be {rule}"


def quoted(text: str, limit: int = 60) -> str:
    """Return foreign text for a reason: at most ``limit`` of its characters, printable ASCII only, in quotes."""
    shown = "".join(
        character if " " <= character <= "~" and character not in '"{}' else "?" for character in text[:limit]
    )
    return f'"{shown}"' if len(text) <= limit else f'"{shown}..."'


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key[:100], _KNOWN, n=1, cutoff=0.0)
    return f"annotation {quoted(key)} is not known: did you mean {near[0]}?"


def _is_path(text: str) -> bool:
    return bool(_PATH.fullmatch(text)) and ".." not in text and "//" not in text


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
    scheme = cast("Literal['http', 'https']", found["scheme"])
    return Url(scheme, found["host"], int(found["port"]), _trimmed(path) or "")


def _trimmed(path: str | None) -> str | None:
    return path.rstrip("/") if path is not None else None
