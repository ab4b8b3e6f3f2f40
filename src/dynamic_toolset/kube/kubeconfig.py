"""A connection from a kubeconfig that somebody handed over: data only.

What it says is followed as far as it is data. It may not name a file of ours, nor a program to run, so that whoever may
write it reads nothing and starts nothing here (``connection.from_kubeconfig`` is for people's own). No error quotes
what is in it but names of fields, contexts, clusters and users.
"""

import base64
import binascii
import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from dynamic_toolset.kube.connection import Connection, Files, StaticToken, client_context
from dynamic_toolset.kube.errors import ConfigurationError

_FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
    "tokenFile": "token",
}
"""Fields that name a file, and what is to be used instead (kubernetes.io/docs/reference/config-api/kubeconfig.v1/)."""

_REFUSED = {
    "exec": "a program is not run: use a token or a client certificate",
    "auth-provider": "it takes a program's help: use a token or a client certificate",
    "username": "basic authentication is not known to Kubernetes any more: use a token",
    "password": "basic authentication is not known to Kubernetes any more: use a token",
    "as": "impersonation is not supported",
    "as-uid": "impersonation is not supported",
    "as-groups": "impersonation is not supported",
    "as-user-extra": "impersonation is not supported",
    "insecure-skip-tls-verify": "the API must prove who it is: use certificate-authority-data",
}
"""Fields that are refused if they say anything, and why."""

_MAX_NAME = 80

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
"""What can be looked up. Anything else is an error of Python's, of many types, once it is asked for."""


def connect(content: Any) -> Connection:
    """Return the connection of the current context of a kubeconfig, which has been read as plain data.

    Without a current context it is the only one. Plain HTTP is taken for a loopback address only.

    :raises ConfigurationError: it cannot be used, or says what is not followed; the message names the field.
    """
    if not isinstance(content, Mapping):
        raise ConfigurationError("it is no kubeconfig: a mapping is expected")
    context = _context(content)
    cluster = _named(content, "clusters", "cluster", _text(context, "cluster", "the context"))
    name = _text(context, "user", "the context")
    user = _named(content, "users", "user", name) if name else {}
    for part, what in ((cluster, "the cluster"), (user, "the user")):
        _refuse(part, what)
    url = _server(_text(cluster, "server", "the cluster"))
    proxy = _proxy(_text(cluster, "proxy-url", "the cluster"))
    if proxy is not None and url.scheme == "http":
        raise ConfigurationError("server of the cluster is not https: what is sent there could be read by its proxy")
    token = _text(user, "token", "the user").strip()
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigurationError("the token of the user has characters that no token has")
    return Connection(
        url.geturl(),
        namespace=_text(context, "namespace", "the context") or "default",
        credentials=StaticToken(token) if token else None,
        tls=_tls(cluster, user) if url.scheme == "https" else Files(),
        proxy=proxy,
        server_name=_server_name(_text(cluster, "tls-server-name", "the cluster")),
    )


def _context(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    name = _text(content, "current-context", "the kubeconfig")
    if name:
        return _named(content, "contexts", "context", name)
    contexts = content.get("contexts")
    if not isinstance(contexts, list) or len(contexts) != 1:
        raise ConfigurationError("current-context is missing, and there is not just one context")
    only = contexts[0]
    found = only.get("context") if isinstance(only, Mapping) else None
    if not isinstance(found, Mapping):
        raise ConfigurationError("contexts[0].context is no mapping")
    return found


def _named(content: Mapping[Any, Any], plural: str, singular: str, name: str) -> Mapping[Any, Any]:
    """Return what a list of named entries has under a name, the first if there are several, as kubectl does."""
    entries = content.get(plural)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("name") == name:
            found = entry.get(singular)
            if isinstance(found, Mapping):
                return found
            raise ConfigurationError(f"the {singular} {_shown(name)} is no mapping")
    raise ConfigurationError(f"there is no {singular} {_shown(name)} in {plural}")


def _text(part: Mapping[Any, Any], field: str, where: str) -> str:
    value = part.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(f"{field} of {where} is no text")
    return value


def _refuse(part: Mapping[Any, Any], what: str) -> None:
    for field, instead in _FILES.items():
        if part.get(field):
            raise ConfigurationError(f"{field} of {what} names a file, and none is read: use {instead}")
    for field, why in _REFUSED.items():
        if part.get(field):
            raise ConfigurationError(f"{field} of {what} is not followed: {why}")


def _server(text: str) -> SplitResult:
    url = _url(text, "server")
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        raise ConfigurationError("server of the cluster is not https: what is sent there could be read by others")
    if url.query or url.fragment:
        raise ConfigurationError("server of the cluster is more than an address and a path")
    return url


def _proxy(text: str) -> str | None:
    return _url(text, "proxy-url").geturl() if text else None


def _server_name(text: str) -> str | None:
    if text and not _is_host(text):
        raise ConfigurationError("tls-server-name of the cluster is no name of a host")
    return text or None


def _url(text: str, field: str) -> SplitResult:
    try:
        url = urlsplit(text)
        known = url.scheme in ("http", "https") and _is_host(url.hostname or "") and (url.port is None or url.port > 0)
    except ValueError:
        known = False
    if not known or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{field} of the cluster is no http or https URL")
    if url.username is not None or url.password is not None:
        raise ConfigurationError(f"{field} of the cluster holds a user: a URL is shown in logs")
    return url


def _tls(cluster: Mapping[Any, Any], user: Mapping[Any, Any]) -> ssl.SSLContext:
    authority = _decoded(cluster, "certificate-authority-data", "the cluster")
    certificate = _decoded(user, "client-certificate-data", "the user")
    key = _decoded(user, "client-key-data", "the user")
    if bool(certificate) != bool(key):
        raise ConfigurationError("client-certificate-data and client-key-data belong together: give both, or none")
    try:
        context = client_context(cadata=authority.decode("ascii") if authority else None)
    except (OSError, ValueError):
        raise ConfigurationError("certificate-authority-data of the cluster holds no certificate, PEM") from None
    if certificate:
        try:
            with _as_file(certificate + b"\n" + key) as path:
                # Without a password OpenSSL would ask whoever sits at the terminal for that of an encrypted key.
                context.load_cert_chain(path, password="")
        except (OSError, ValueError):
            raise ConfigurationError(
                "client-certificate-data and client-key-data are no certificate and the key that belongs to it, PEM"
            ) from None
    return context


def _decoded(part: Mapping[Any, Any], field: str, what: str) -> bytes:
    try:
        return base64.b64decode("".join(_text(part, field, what).split()), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"{field} of {what} is not base64") from None


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield the path of a file with this content, which only we can read: OpenSSL takes keys from files only.

    Where the system can, it is in memory: the file system of a Pod may be read-only, and should hold no key.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("key", os.MFD_CLOEXEC)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{number}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return bool(_HOST_NAME.fullmatch(text))
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(name: str) -> str:
    return ascii(name[:_MAX_NAME])
