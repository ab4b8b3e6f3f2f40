"""Access with the real client and the reviews of the sandbox: how a test, or the demo, lets somebody in."""

from collections.abc import AsyncIterator

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.server.access import PREFIX, Access, Forbidden, Unauthenticated, Unavailable

AUDIENCE = "dynamic-toolset"


@pytest.fixture
async def access(sandbox: Sandbox) -> AsyncIterator[Access]:
    async with Client(static(sandbox.url)) as client:
        access = Access(client, audience=AUDIENCE)
        yield access
        await access.close()


async def test_who_was_made_known_comes_in(sandbox: Sandbox, access: Access) -> None:
    sandbox.add_token("ann-1", "ann", audiences=[AUDIENCE])
    sandbox.add_token("ann-2", "ann", audiences=["another"])
    sandbox.allow("ann", f"{PREFIX}/api/v1/*", "get")
    for _ in range(3):
        assert (await access.admit("ann-1", "/api/v1/services", "GET")).username == "ann"
    with pytest.raises(Forbidden):
        await access.admit("ann-1", "/api/v1/discover", "POST")
    for token in ("ann-2", "bob-1", None):
        with pytest.raises(Unauthenticated):
            await access.admit(token, "/api/v1/services", "GET")
    assert sandbox.requests == {("create", "tokenreviews"): 3, ("create", "subjectaccessreviews"): 2}


async def test_a_token_that_is_removed_is_void(sandbox: Sandbox, access: Access) -> None:
    sandbox.add_token("ann-1", "ann", audiences=[AUDIENCE])
    sandbox.remove_token("ann-1")
    sandbox.remove_token("ann-1")
    with pytest.raises(Unauthenticated):
        await access.authenticate("ann-1", "/", "get")


async def test_an_api_that_does_not_let_us_in_lets_nobody_in() -> None:
    async with Sandbox(token="secret") as sandbox, Client(static(sandbox.url, token="wrong")) as client:
        sandbox.add_token("ann-1", "ann", audiences=[AUDIENCE])
        with pytest.raises(Unavailable):
            await Access(client, audience=AUDIENCE).admit("ann-1", "/", "get")
