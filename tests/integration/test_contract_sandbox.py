"""The sandbox keeps the contract that the real API keeps."""

from collections.abc import AsyncIterator

import pytest

from dynamic_toolset.sandbox import Sandbox
from tests.contract.suite import *  # noqa: F403 - the tests and their fixtures
from tests.contract.suite import Account, ApiAddress


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(token="secret", cluster_ip="127.96.0.0/16") as sandbox:
        yield sandbox


@pytest.fixture
def kubernetes_api(sandbox: Sandbox) -> ApiAddress:
    return ApiAddress(sandbox.url, token="secret")


@pytest.fixture
def account(sandbox: Sandbox) -> Account:
    account = Account("ann", {"on-call"}, "token-for-contract", "token-for-another")
    for token, audience in ((account.token, "contract"), (account.other_token, "another")):
        sandbox.add_token(token, account.username, groups=account.groups, audiences=[audience])
    sandbox.allow(account.username, "/contract/one", "get")
    sandbox.allow(account.username, "/contract/tree/*", "get")
    return account
