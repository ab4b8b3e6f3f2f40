"""What the fault tests use: the real cluster and the real program of the end-to-end tests, and proxies in between."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.e2e.conftest import cluster, make_namespace, namespace, program, service
from tests.faults.api_proxy import ApiProxy

__all__ = ["cluster", "make_namespace", "namespace", "program", "proxy", "service"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes, and begins first, so that no worker is left alone with it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.get_closest_marker("long"))


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[ApiProxy]:
    """A proxy in front of the API server: ``program(server=proxy)``."""
    with ApiProxy(cluster) as running:
        yield running
