"""The contract that the sandbox is held to, against the real Kubernetes API: what it asks is what Kubernetes does."""

from collections.abc import Callable

import pytest

from tests.cluster.cluster import Cluster
from tests.contract.suite import *  # noqa: F403, the tests of the contract
from tests.contract.suite import Account, ApiAddress

pytestmark = pytest.mark.e2e


@pytest.fixture
def kubernetes_api(cluster: Cluster) -> ApiAddress:
    return ApiAddress(cluster.url, cluster.admin_token, str(cluster.ca_file))


@pytest.fixture
def account(cluster: Cluster, make_account: Callable[..., tuple[str, str]]) -> Account:
    namespace, name = make_account("/contract/one", "/contract/tree/*")
    return Account(
        username=f"system:serviceaccount:{namespace}:{name}",
        groups={"system:serviceaccounts", f"system:serviceaccounts:{namespace}"},
        token=cluster.token(namespace, name, audience="contract"),
        other_token=cluster.token(namespace, name, audience="another"),
    )
