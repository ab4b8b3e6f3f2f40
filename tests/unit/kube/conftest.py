from collections.abc import AsyncIterator

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from tests.unit.kube.fault_server import FaultServer


@pytest.fixture
async def api() -> AsyncIterator[FaultServer]:
    async with FaultServer() as server:
        yield server


@pytest.fixture
async def client(api: FaultServer) -> AsyncIterator[Client]:
    async with Client(static(api.url), timeout=10.0) as opened:
        yield opened
