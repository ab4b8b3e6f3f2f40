"""The sandbox keeps the contract that the real API keeps."""

from collections.abc import AsyncIterator

import pytest

from dynamic_toolset.sandbox import Sandbox
from tests.contract.suite import *  # noqa: F403 - the tests and their fixtures
from tests.contract.suite import ApiAddress


@pytest.fixture
async def kubernetes_api() -> AsyncIterator[ApiAddress]:
    async with Sandbox(token="secret", cluster_ip="127.96.0.0/16") as sandbox:
        yield ApiAddress(sandbox.url, token="secret")
