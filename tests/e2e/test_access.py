"""Who is let in, as the real API server says: tokens of real ServiceAccounts, and all that is not quite one."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import Forbidden as ApiForbidden
from dynamic_toolset.kube.reviews import TokenIdentity, review_access, review_token
from dynamic_toolset.server.access import PREFIX, Access, Forbidden, Unauthenticated, Unavailable
from tests.cluster.cluster import Cluster
from tests.cluster.programs import system_program
from tests.e2e.program import SERVICE_ACCOUNT, grant
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.e2e

AUDIENCE = "dynamic-toolset"
SERVICES = "/api/v1/services"


@pytest.fixture
async def client(cluster: Cluster, namespace: str) -> AsyncIterator[Client]:
    """A client with the rights that the program is documented to need."""
    grant(cluster, namespace, "kubernaut-toolset-config")
    token = cluster.token(namespace, SERVICE_ACCOUNT)
    async with Client(static(cluster.url, token=token, ca_file=cluster.ca_file)) as client:
        await allowed(client)
        yield client
    await connections_closed()


async def connections_closed() -> None:
    """Wait for the TLS connections: one is closed only when the server has answered that, and else it is a warning."""
    open_files = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
    async with asyncio.timeout(PATIENCE):
        while len(open_files) > 1:  # the loop's own
            await asyncio.sleep(0.01)


async def allowed(client: Client) -> None:
    """Wait until the API server's authorizer has heard of the rights of the program."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await review_token(client, "x", AUDIENCE)
                await review_access(client, TokenIdentity("somebody"), "/", "get")
            except ApiForbidden:
                await asyncio.sleep(0.05)
            else:
                return


class Clock:
    """Seconds that can be skipped."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def access(client: Client, clock: Clock) -> AsyncIterator[Access]:
    access = Access(client, audience=AUDIENCE, clock=clock)
    yield access
    await access.close()


Account = tuple[str, str]


@pytest.fixture
def account(make_account: Callable[..., Account]) -> Account:
    return make_account(PREFIX + SERVICES, f"{PREFIX}{SERVICES}/*", "/metrics")


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(key: Path, header: str, content: dict[str, Any]) -> str:
    """Return a token with this content, as whoever holds the key can make it (RS256)."""
    text = f"{header}.{encoded(json.dumps(content).encode())}"
    command = [str(system_program("openssl")), "dgst", "-sha256", "-sign", str(key)]
    signature = subprocess.run(command, input=text.encode(), check=True, capture_output=True, timeout=60).stdout
    return f"{text}.{encoded(signature)}"


# --- Let in ----------------------------------------------------------------------------------------------------------


async def test_a_token_for_us_opens_what_its_rules_say(cluster: Cluster, access: Access, account: Account) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    for path in (SERVICES, "/api/v1/services/shop/orders"):
        caller = await access.admit(token, path, "GET")
        assert caller.username == "system:serviceaccount:" + ":".join(account)
        assert not caller.anonymous
    for path, verb in (("/api/v1/toolset", "get"), (SERVICES, "POST"), (SERVICES + "x", "get"), ("/", "get")):
        with pytest.raises(Forbidden):
            await access.admit(token, path, verb)


async def test_what_every_cluster_opens_to_everybody_opens_nothing_of_ours(
    cluster: Cluster, client: Client, access: Access, make_account: Callable[..., Account]
) -> None:
    stranger = cluster.token(*make_account("/elsewhere"), audience=AUDIENCE)
    identity = await review_token(client, stranger, AUDIENCE)
    assert identity is not None
    assert await review_access(client, identity, "/api/v1/services", "get")  # ClusterRole system:discovery
    for path in ("/api/v1/services", "/openapi.json", "/version", "/healthz", "/"):
        with pytest.raises(Forbidden):
            await access.admit(stranger, path, "get")


async def test_metrics_have_the_path_that_scrapers_have_rules_for(
    cluster: Cluster, client: Client, access: Access, account: Account
) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    metrics = Access(client, audience=AUDIENCE, prefix="")
    await metrics.admit(token, "/metrics", "get")
    await metrics.close()
    with pytest.raises(Forbidden):
        await access.admit(token, "/metrics", "get")


async def test_the_api_server_is_asked_once(cluster: Cluster, access: Access, account: Account) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    seen = len(list(cluster.audit()))
    await asyncio.gather(*(access.admit(token, SERVICES, "get") for _ in range(100)))

    def asked() -> list[str]:
        return sorted(event.resource for event in cluster.audit(seen) if event.resource.endswith("reviews"))

    await asyncio.to_thread(eventually, lambda: len(asked()) >= 2)  # it is in the audit log once it is answered
    await asyncio.sleep(0.2)
    assert asked() == ["subjectaccessreviews", "tokenreviews"]


# --- Not let in ------------------------------------------------------------------------------------------------------


async def test_a_token_for_somebody_else_is_none(cluster: Cluster, access: Access, account: Account) -> None:
    for token in (cluster.token(*account), cluster.token(*account, audience="another"), cluster.admin_token):
        with pytest.raises(Unauthenticated, match="audience dynamic-toolset"):
            await access.admit(token, SERVICES, "get")


async def test_a_forged_token_is_none(cluster: Cluster, access: Access, account: Account, tmp_path: Path) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    header, content, signature = token.split(".")
    richer = claims(token) | {"sub": "system:serviceaccount:kube-system:default"}
    key = tmp_path / "key"
    subprocess.run(
        [str(system_program("openssl")), "genrsa", "-out", str(key), "2048"], check=True, capture_output=True
    )
    forgeries = [
        f"{header}.{encoded(json.dumps(richer).encode())}.{signature}",
        f"{header}.{content}.{encoded(b'x' * 256)}",
        f"{header}.{content}.",
        f"{encoded(json.dumps({'alg': 'none'}).encode())}.{content}.",
        f"{encoded(json.dumps({'alg': 'HS256'}).encode())}.{content}.{signature}",
        signed(key, header, claims(token)),
        token[:-10],
        "garbage",
    ]
    for forgery in forgeries:
        with pytest.raises(Unauthenticated):
            await access.admit(forgery, SERVICES, "get")
    # What is compared: the same content under the real key is as good as the real one.
    await access.admit(signed(cluster.folder / "service-accounts.key", header, claims(token)), SERVICES, "get")


async def test_an_expired_token_is_none(cluster: Cluster, access: Access, account: Account) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    now = int(time.time())
    times = {"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600}
    expired = signed(cluster.folder / "service-accounts.key", token.split(".")[0], claims(token) | times)
    with pytest.raises(Unauthenticated):
        await access.admit(expired, SERVICES, "get")
    await access.admit(token, SERVICES, "get")


async def test_a_token_that_begins_with_a_blank_is_nobodys(cluster: Cluster, client: Client, access: Access) -> None:
    for token in (" ", " x", " " + cluster.admin_token):
        assert await review_token(client, token, AUDIENCE) is None
        with pytest.raises(Unauthenticated):
            await access.admit(token, "/healthz", "get")  # open to system:anonymous in a cluster


async def test_without_its_service_account_a_token_is_none(
    cluster: Cluster, access: Access, clock: Clock, account: Account
) -> None:
    namespace, name = account
    token = cluster.token(*account, audience=AUDIENCE)
    await access.admit(token, SERVICES, "get")
    cluster.kubectl("delete", "serviceaccount", name, f"--namespace={namespace}")
    await access.admit(token, SERVICES, "get")  # for as long as a yes is remembered
    await refused_within(access, clock, token)


async def test_without_the_secret_that_it_is_bound_to_a_token_is_none(
    cluster: Cluster, access: Access, clock: Clock, account: Account
) -> None:
    namespace, _ = account
    path = f"/api/v1/namespaces/{namespace}/secrets"
    secret = cluster.api("POST", path, {"metadata": {"name": "session"}}).json
    token = cluster.token(*account, audience=AUDIENCE, bound_to=secret)
    await access.admit(token, SERVICES, "get")
    assert cluster.api("DELETE", f"{path}/session").status == 200
    await refused_within(access, clock, token)


async def test_a_right_that_is_taken_away_is_gone(
    cluster: Cluster, access: Access, clock: Clock, account: Account
) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    await access.admit(token, SERVICES, "get")
    cluster.kubectl("patch", "clusterrole", account[0], "--type=merge", '--patch={"rules": []}')
    await refused_within(access, clock, token, Forbidden)


async def refused_within(
    access: Access, clock: Clock, token: str, refusal: type[Exception] = Unauthenticated, seconds: float = 40
) -> None:
    """Wait until a token is refused. The API server itself remembers one for ten seconds."""
    async with asyncio.timeout(seconds):
        while True:
            clock.skipped += 60
            try:
                await access.admit(token, SERVICES, "get")
            except refusal:
                return
            await asyncio.sleep(0.2)


# --- The API server cannot be asked ----------------------------------------------------------------------------------


async def test_without_the_right_to_ask_nobody_comes_in(cluster: Cluster, account: Account) -> None:
    token = cluster.token(*account, audience=AUDIENCE)
    connection = static(cluster.url, token=cluster.token(*account), ca_file=cluster.ca_file)
    async with Client(connection) as client:
        access = Access(client, audience=AUDIENCE)
        with pytest.raises(Unavailable):
            await access.admit(token, SERVICES, "get")
        await access.close()
    await connections_closed()


async def test_without_the_api_server_only_those_come_in_who_did_lately(
    cluster: Cluster, access: Access, clock: Clock, account: Account
) -> None:
    known, other = (cluster.token(*account, audience=AUDIENCE) for _ in range(2))
    await access.admit(known, SERVICES, "get")
    with cluster.without_apiserver():
        await access.admit(known, SERVICES, "get")
        with pytest.raises(Unavailable):
            await access.admit(other, SERVICES, "get")
        with pytest.raises(Unavailable):
            await access.admit(known, "/api/v1/services/shop/orders", "get")
        clock.skipped += 60
        with pytest.raises(Unavailable):
            await access.admit(known, SERVICES, "get")
    clock.skipped += 1
    await access.admit(known, SERVICES, "get")
