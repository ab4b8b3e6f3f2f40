import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dynamic_toolset.sandbox import Sandbox
from tests.integration.sandboxed import NAMESPACE, TARGET, Cluster, Subject, settings
from tests.integration.serving import Served, serving


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def cluster(sandbox: Sandbox) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as backends:
        cluster = Cluster(sandbox, backends)
        for name in (NAMESPACE, TARGET.namespace):
            await cluster.add_namespace(name)
        yield cluster


@pytest.fixture
async def start(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Awaitable[Subject]]]:
    """Start the service with these settings; it is ended, in order, when the test is over.

    Its first publication waits for verdicts for longer than usual, so that on a busy machine, too, there is only one.
    """
    monkeypatch.setattr("dynamic_toolset.controller.controller.FIRST_PUBLICATION_WAIT", 10.0)
    async with AsyncExitStack() as cleanup:

        async def start(**changes: Any) -> Subject:
            subject = Subject(cluster, settings(**changes))
            await subject.start()
            cleanup.push_async_callback(subject.stop)
            return subject

        yield start
    gc.unfreeze()  # what the service has done for the life of its process


@pytest.fixture
async def serve(cluster: Cluster) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Start the service with its server, with these settings; it is ended, in order, when the test is over."""
    async with AsyncExitStack() as cleanup:

        async def serve(**changes: Any) -> Served:
            return await cleanup.enter_async_context(serving(cluster, **changes))

        yield serve


@pytest.fixture
async def served(serve: Callable[..., Awaitable[Served]]) -> Served:
    """The service with its server, as open as it gets: no token, no limit, no delay at the end."""
    return await serve()
