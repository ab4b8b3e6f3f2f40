"""The contract that the sandbox is held to, against the real Kubernetes API: what it asks is what Kubernetes does."""

import pytest

from tests.cluster.cluster import Cluster
from tests.contract.suite import *  # noqa: F403, the tests of the contract
from tests.contract.suite import ApiAddress

pytestmark = pytest.mark.e2e


@pytest.fixture
def kubernetes_api(cluster: Cluster) -> ApiAddress:
    return ApiAddress(cluster.url, cluster.admin_token, str(cluster.ca_file))
