"""Where the API is and how to be let in: address, TLS and credentials, all of which may change while we run.

A ServiceAccount token in a Pod is renewed about once an hour, and the CA of a cluster can be replaced
(kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/, "ServiceAccount token volume projection").
What can be read again is read again; while it cannot be, the last good value stays in use.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from msgspec import Struct

from dynamic_toolset.files import stamp
from dynamic_toolset.kube.errors import ConfigurationError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts token, CA and namespace of a Pod's ServiceAccount."""

TOKEN_LIFETIME = 60.0
"""Seconds for which a token file's content is used before it is read again, as client-go does."""


class Credentials(Protocol):
    """Gives the value of the Authorization header."""

    async def authorization(self, *, refresh: bool) -> str | None:
        """Return the header's value, None for none; ``refresh`` says that the last one was refused."""
        ...


class Anonymous:
    async def authorization(self, *, refresh: bool) -> str | None:  # noqa: ARG002 - nothing to refresh
        return None


class StaticToken:
    def __init__(self, token: str) -> None:
        self._token = token

    async def authorization(self, *, refresh: bool) -> str | None:  # noqa: ARG002 - nothing to refresh
        return f"Bearer {self._token}"


class TokenFile:
    """A token that somebody else renews in a file.

    :raises ConfigurationError: the file has never held a usable token.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._token = _read_token(path)
        self._read_at = clock()

    async def authorization(self, *, refresh: bool) -> str | None:
        if refresh or self._clock() - self._read_at >= TOKEN_LIFETIME:
            with suppress(ConfigurationError):  # half replaced: the last token may well be valid still
                self._token = _read_token(self._path)
            self._read_at = self._clock()
        return f"Bearer {self._token}"


class Files(Struct, frozen=True):
    """The files that make up a TLS client. ``ca`` None trusts the system's authorities."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca, self.certificate, self.key) if path is not None)


class Tls:
    """The TLS context made of some files, built anew when their content has changed.

    :raises ConfigurationError: the files have never made a usable context.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._stamps = self._stat()
        try:
            self._contents = self._read()
            self._context = _build(files)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"TLS cannot be set up with {_names(files)}: {error}") from error

    def context(self) -> ssl.SSLContext | bool:
        """Return what aiohttp takes for ``ssl``. Costs one stat for each file while nothing changes."""
        stamps = self._stat()
        if stamps != self._stamps:
            self._reload(stamps)
        return self._context

    def _reload(self, stamps: tuple[object, ...]) -> None:
        # The kubelet replaces all files of a volume when one changes: a new token must not cost us the connections.
        try:
            contents = self._read()
            if contents != self._contents:
                self._context, self._contents = _build(self._files), contents
        except (OSError, ValueError):
            return  # half replaced: the last good context stays, and the next request looks again
        self._stamps = stamps

    def _stat(self) -> tuple[object, ...]:
        return tuple(stamp(path) for path in self._files.paths)

    def _read(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in self._files.paths)


class Connection:
    """Address, TLS and credentials of one API.

    ``server`` is the base URL without a trailing slash, ``namespace`` the one to use where none is given, ``proxy``
    the HTTP proxy's URL, ``server_name`` the name in the API's certificate where it differs from the URL's host.
    ``tls`` are the files that make up the TLS client, or a context that stays as it is.
    """

    def __init__(
        self,
        server: str,
        *,
        namespace: str = "default",
        credentials: Credentials | None = None,
        tls: Files | ssl.SSLContext = Files(),  # noqa: B008 - immutable
        proxy: str | None = None,
        server_name: str | None = None,
    ) -> None:
        if not is_url(server):
            raise ConfigurationError(f"the address of a Kubernetes API must be an http or https URL, not {server!r}")
        if proxy is not None and not is_url(proxy):
            raise ConfigurationError(f"the proxy of {server} must be an http or https URL, not {proxy!r}")
        self.server = server.rstrip("/")
        self.namespace = namespace
        self.proxy = proxy
        self.server_name = server_name
        self._credentials = credentials or Anonymous()
        self._tls = Tls(tls) if isinstance(tls, Files) else tls

    def ssl(self) -> ssl.SSLContext | bool:
        """Return the TLS context of the moment. A new one is another object, so that old connections are not used."""
        return self._tls.context() if isinstance(self._tls, Tls) else self._tls

    async def headers(self, *, refresh: bool = False) -> dict[str, str]:
        """Return the headers that authenticate a request. ``refresh`` after a 401 reads the credentials again.

        :raises ConfigurationError: there are none to be had.
        """
        authorization = await self._credentials.authorization(refresh=refresh)
        return {} if authorization is None else {"Authorization": authorization}


def in_cluster(root: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> Connection:
    """Connect as the Pod that we run in (kubernetes.io/docs/tasks/run-application/access-api-from-pod/).

    :raises ConfigurationError: we are not in a Pod, or it has no ServiceAccount token.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigurationError(
            "not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not both set in the environment"
        )
    if ":" in host:
        host = f"[{host}]"
    try:
        namespace = (root / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return Connection(
        f"https://{host}:{port}",
        namespace=namespace or "default",
        credentials=TokenFile(root / "token"),
        tls=Files(ca=root / "ca.crt"),
    )


def from_kubeconfig(path: str | None = None, context: str | None = None) -> Connection:
    """Connect as a kubeconfig says, read by the official ``kubernetes`` package (exec plugins, OIDC, certificates).

    ``path`` may list several files as ``$KUBECONFIG`` does; without one that variable or ``~/.kube/config`` is read.
    Without ``context`` the current one is used. An exec plugin is run before this function returns.

    :raises ConfigurationError: the package is not installed, or the file cannot be used.
    """
    try:
        from kubernetes.client import Configuration
        from kubernetes.config import list_kube_config_contexts, load_kube_config
    except ImportError as error:
        raise ConfigurationError(
            "reading a kubeconfig needs the 'kubernetes' package: pip install 'dynamic-toolset[kubeconfig]'"
        ) from error

    source = path or _default_kubeconfig()

    def load() -> Any:
        configuration = Configuration()
        load_kube_config(source, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
        return configuration

    try:
        contexts, current = list_kube_config_contexts(source)  # type: ignore[no-untyped-call]
        configuration = load()
    except Exception as error:  # any YAML can be in the file, and the loader raises whatever it stumbles over
        raise ConfigurationError(f"the kubeconfig {source} cannot be used: {error}") from error
    chosen = next((entry for entry in contexts if entry["name"] == context), current)
    return Connection(
        configuration.host,
        namespace=chosen["context"].get("namespace") or "default",
        credentials=_Kubeconfig(configuration, load),
        tls=Files(
            ca=_path(configuration.ssl_ca_cert),
            certificate=_path(configuration.cert_file),
            key=_path(configuration.key_file),
            verify=configuration.verify_ssl,
        ),
        proxy=_proxy(configuration),
        server_name=configuration.tls_server_name,
    )


def static(
    server: str, *, token: str | None = None, ca_file: str | Path | None = None, namespace: str = "default"
) -> Connection:
    """Connect to a stated address (the sandbox, a test cluster).

    :raises ConfigurationError: the address is no URL, or the CA file cannot be used.
    """
    return Connection(
        server,
        namespace=namespace,
        credentials=None if token is None else StaticToken(token),
        tls=Files(ca=_path(ca_file)),
    )


def discover(kubeconfig: str | None = None, context: str | None = None) -> Connection:
    """Find the API: the stated kubeconfig or context, else the cluster that we run in, else the user's kubeconfig.

    :raises ConfigurationError: none of them can be used. The message says what was tried.
    """
    if kubeconfig is not None or context is not None:
        return from_kubeconfig(kubeconfig, context)
    try:
        return in_cluster()
    except ConfigurationError as outside:
        try:
            return from_kubeconfig()
        except ConfigurationError as error:
            raise ConfigurationError(f"no Kubernetes API found: {outside}; {error}") from error


class _Kubeconfig:
    """The credentials of a loaded kubeconfig, renewed in a thread: an exec plugin takes as long as it takes.

    The deadline is that of the request which they are for.
    """

    def __init__(self, configuration: Any, load: Callable[[], Any]) -> None:
        self._configuration = configuration
        self._load = load

    async def authorization(self, *, refresh: bool) -> str | None:
        try:
            if refresh:
                self._configuration = await asyncio.to_thread(self._load)
            return await asyncio.to_thread(self._value)
        except Exception as error:  # the loader runs other people's programs and raises what they cause
            raise ConfigurationError(f"the kubeconfig's credentials cannot be renewed: {error}") from error

    def _value(self) -> str | None:
        # Also renews a token whose expiry is near.
        setting = self._configuration.auth_settings().get("BearerToken")
        return None if setting is None else str(setting["value"])


def _default_kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _proxy(configuration: Any) -> Any:
    host = urlsplit(configuration.host).hostname or ""
    return None if proxy_bypass(host) else configuration.proxy


def is_url(text: str) -> bool:
    """Whether a text is an http or https URL that can be asked."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # half of the brackets of an IPv6 address, or a port that is none
        return False


def _read_token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the ServiceAccount token cannot be read: {error}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigurationError(f"{path} holds no token")
    return token


def _build(files: Files) -> ssl.SSLContext | bool:
    if not files.paths:
        return files.verify  # aiohttp's own context, with or without verification
    context = client_context(cafile=files.ca)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


def client_context(cafile: Path | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts these authorities, PEM, or else the system's. Raises OSError and ValueError."""
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    # Python 3.13 demands extensions (RFC 5280) that the certificates of many clusters lack; client-go does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _names(files: Files) -> str:
    return ", ".join(map(str, files.paths))


def _path(value: str | Path | None) -> Path | None:
    return Path(value) if value else None
