"""The running service, asked over its API: by its URL, or through the API server's proxy for Services.

The proxy lets in whoever may use it by the caller's own kubeconfig, and needs no open port. It keeps the Authorization
header to itself, so a token for the service goes into a header of its own. It dials any ready Pod of the Service, so of
several replicas a different one may answer each time.

kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/
"""

import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from dynamic_toolset import __version__
from dynamic_toolset.cli.failures import RemoteError
from dynamic_toolset.cli.setup import TOKEN_VARIABLE
from dynamic_toolset.kube.answers import decode_refusal
from dynamic_toolset.kube.client import JSON, PROBLEM, Client, Passed
from dynamic_toolset.kube.connection import discover, static
from dynamic_toolset.kube.errors import ApiError, ConnectionFailed, Forbidden, NotFound
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.kube.resources import SERVICES
from dynamic_toolset.kube.tokens import request_token
from dynamic_toolset.server import answers
from dynamic_toolset.server.access import PREFIX, TOKEN_HEADER
from dynamic_toolset.server.problems import ProblemDetails

API = "/api/v1"

NAMESPACE = "kubernaut-system"
"""Where the Service is, unless somebody says otherwise."""

_ANSWERS: Mapping[str, Any] = {
    "/config": answers.ConfigAnswer,
    "/diff": answers.DiffAnswer,
    "/discover": answers.Accepted,
    "/history": answers.HistoryList,
    "/services": answers.ServiceList,
    "/statistics": answers.StatisticsAnswer,
    "/toolset": answers.ToolsetAnswer,
    "/toolsets": answers.ToolsetList,
}
"""What is to be said at each path: whoever says something else is somebody else, or of another version."""

_UNREACHABLE = "error trying to reach service: "

_PERMISSIONS = "docs/permissions.md shows the rules"


class Where(Struct, frozen=True):
    """Where the service is, and how to be let in, as the options of a command say it.

    Of ``token_file``, ``service_account`` and the environment the first that is given counts.
    """

    url: str | None = None
    ca_file: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    service: str = "kubernaut-system/dynamic-toolset"
    port: str = "8080"
    tls: bool = False
    token_file: str | None = None
    service_account: str | None = None
    audience: str = "dynamic-toolset"

    @property
    def key(self) -> ObjectKey:
        """Namespace and name of the Service."""
        namespace, slash, name = self.service.rpartition("/")
        return ObjectKey(namespace if slash else NAMESPACE, name)

    @property
    def account(self) -> ObjectKey | None:
        """The ServiceAccount whose token is to be asked for."""
        if self.service_account is None:
            return None
        namespace, slash, name = self.service_account.rpartition("/")
        return ObjectKey(namespace if slash else self.key.namespace, name)

    @property
    def target(self) -> str:
        """The path under which the API server passes a request on."""
        scheme = "https" if self.tls else "http"
        return SERVICES.path(self.key.namespace, f"{scheme}:{self.key.name}:{self.port}", "proxy")

    def __str__(self) -> str:
        return re.sub("//.*@", "//***@", self.url) if self.url else f"Service {self.key}"


class Remote:
    """The API of the service. ``target`` is what stands before its paths; ``has_token`` whether one is shown."""

    def __init__(
        self, client: Client, where: Where, *, target: str = "", token: str | None = None, headers: dict[str, str]
    ) -> None:
        self._client = client
        self._where = where
        self._target = target
        self._has_token = token is not None
        self._headers = headers

    async def get(self, path: str, query: Iterable[tuple[str, str]] = ()) -> Any:
        """Return what the API says, as plain data. Raises RemoteError."""
        return self._plain(await self._ask("GET", path, query), path)

    async def post(self, path: str) -> Any:
        """Let the service do something, and return what it says. Raises RemoteError."""
        return self._plain(await self._ask("POST", path), path)

    async def text(self, path: str, media_type: str) -> str:
        """Return what the API says in another form than JSON. Raises RemoteError."""
        answer = await self._ask("GET", path, accept=media_type)
        if answer.content_type != media_type:
            raise self._stranger(answer)
        return answer.body.decode(errors="replace")

    async def _ask(self, method: str, path: str, query: Iterable[tuple[str, str]] = (), accept: str = JSON) -> Passed:
        parameters = urlencode(list(query), quote_via=quote)
        target = f"{self._target}{API}{path}" + (f"?{parameters}" if parameters else "")
        try:
            answer = await self._client.pass_on(method, target, headers=self._headers | {"Accept": accept})
        except ConnectionFailed as error:
            if not self._where.url:
                raise
            namespace, name = self._where.key
            raise RemoteError(
                f"{error}. Is it the right address? `kubectl -n {namespace} port-forward service/{name} 8080` opens a "
                "way to http://127.0.0.1:8080"
            ) from None
        if answer.status < 300:
            return answer
        raise RemoteError(refused(answer, self._where, method, has_token=self._has_token))

    def _plain(self, answer: Passed, path: str) -> Any:
        if answer.content_type == JSON:
            try:
                msgspec.json.decode(answer.body, type=_ANSWERS[path])
                return msgspec.json.decode(answer.body)
            except (ValueError, RecursionError):
                pass
        raise self._stranger(answer)

    def _stranger(self, answer: Passed) -> RemoteError:
        kind = answer.content_type or "nothing"
        return RemoteError(f"what answers at {self._where} is no Dynamic Toolset of this version: it says {kind}")


@asynccontextmanager
async def reached(where: Where) -> AsyncIterator[Remote]:
    """Give the API of the service, with the token that the options name. Raises RemoteError and KubernetesError."""
    async with AsyncExitStack() as stack:
        cluster: Client | None = None
        if where.url is None or where.account is not None:
            cluster = await stack.enter_async_context(Client(discover(where.kubeconfig, where.context)))
        token = await _token(where, cluster)
        if where.url is not None:
            connection = static(where.url, token=token, ca_file=where.ca_file)
            client = await stack.enter_async_context(Client(connection))
            yield Remote(client, where, token=token, headers={})
        else:
            assert cluster is not None  # noqa: S101 - for mypy: it was made above
            headers = {} if token is None else {TOKEN_HEADER: token}
            yield Remote(cluster, where, target=where.target, token=token, headers=headers)


# --- The token --------------------------------------------------------------------------------------------------------


async def _token(where: Where, cluster: Client | None) -> str | None:
    if where.token_file is not None:
        return _read(where.token_file)
    if where.account is not None and cluster is not None:
        return await _requested(cluster, where.account, where.audience)
    given = os.environ.get(TOKEN_VARIABLE)
    return _usable(given, f"the variable {TOKEN_VARIABLE}") if given else None


def _read(file: str) -> str:
    try:
        text = Path(file).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise RemoteError(f"{file}: {error.strerror}") from None
    return _usable(text, file)


async def _requested(cluster: Client, account: ObjectKey, audience: str) -> str:
    try:
        return await request_token(cluster, account, audience)
    except NotFound:
        why = f"there is no ServiceAccount {account}: name one as --service-account NAMESPACE/NAME"
        raise RemoteError(why) from None
    except Forbidden as error:
        why = (
            f"{error.message}. It takes a Role in namespace {account.namespace} with the verb create on "
            f"serviceaccounts/token; or give a token with --token-file ({_PERMISSIONS})"
        )
        raise RemoteError(why) from None
    except ApiError as error:
        raise RemoteError(f"no token can be had for ServiceAccount {account}: {error}") from None


def _usable(text: str, place: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise RemoteError(f"{place} holds no token")
    return token


# --- What a refusal means ---------------------------------------------------------------------------------------------


def refused(answer: Passed, where: Where, method: str, *, has_token: bool) -> str:
    """Say why a request was refused, and what to do about it.

    The service says it in a problem (RFC 9457), the API server in a Status.
    """
    if answer.content_type == PROBLEM:
        try:
            problem = msgspec.json.decode(answer.body, type=ProblemDetails)
        except ValueError:
            return f"{where} answered {answer.status} with a problem that cannot be read"
        return _by_service(problem, where, has_token=has_token)
    if where.url is None and answer.content_type == JSON:
        status = decode_refusal(answer.status, answer.reason, answer.body, None)
        return _by_api_server(status, where, method)
    what = f"{answer.status} {answer.reason}".strip()
    return f"{where} answered {what}, and not as Dynamic Toolset does: is it the right address?"


def _by_service(problem: ProblemDetails, where: Where, *, has_token: bool) -> str:
    told = "; ".join([problem.detail, *(f"{one.field}: {one.message}" for one in problem.errors)])
    match problem.status:
        case 401 if has_token:
            return f"{told}. The service takes a valid token that was made for its audience (--audience)"
        case 401:
            return (
                f"the service asks for a token. Give --service-account [NAMESPACE/]NAME of an account that may read "
                f"its API, or --token-file FILE ({_PERMISSIONS})"
            )
        case 403 if f"{PREFIX}/" in told:
            return (
                f"{told}. It takes a ClusterRole with that verb on nonResourceURLs {PREFIX}{API}/*, bound to that user "
                f"({_PERMISSIONS})"
            )
        case 404 | 405:
            return f"{where}: {told}. It may be of another version than this program, which is {__version__}"
        case _:
            return f"{where}: {told}"


def _by_api_server(status: ApiError, where: Where, method: str) -> str:
    """Say it for the proxy of the API server (k8s.io/kubernetes pkg/registry/core/service/storage)."""
    namespace, name = where.key
    forward = f"or open a way with `kubectl -n {namespace} port-forward service/{name} 8080`, and give --url"
    message = status.message or status.reason
    match status.code:
        case 401:
            return "the API server does not know you: look at your kubeconfig (--kubeconfig, --context)"
        case 403:
            verb = "create" if method == "POST" else "get"
            return (
                f"{message}. It takes a Role in namespace {namespace} with the verb {verb} on services/proxy "
                f"({_PERMISSIONS}), {forward}"
            )
        case 404:
            return f"there is no {where}, or it has no endpoints: say where it is with --service NAMESPACE/NAME"
        case _ if message.startswith("no service port"):
            return f"{where} has no port {where.port}: say which with --port"
        case _ if message.startswith("no endpoints"):
            return (
                f"{where} has no ready Pod at port {where.port}: see `kubectl -n {namespace} get pods,endpointslices`, "
                "or give another --port"
            )
        case _ if message.startswith(_UNREACHABLE):
            return f"the API server does not get through to {where}: {_cause(message, where)}, {forward}"
        case _:
            return f"the API server answered {status}, {forward}"


def _cause(message: str, where: Where) -> str:
    cause = message.removeprefix(_UNREACHABLE)
    if where.tls and "TLS handshake" in cause:
        return f"{cause}. It speaks no TLS there: leave out --tls"
    if not where.tls and any(word in cause for word in ("EOF", "malformed HTTP", "reset by peer")):
        return f"{cause}. If it speaks TLS there, give --tls"
    return f"{cause}. Look at --port, and for a network policy that is in the way"
