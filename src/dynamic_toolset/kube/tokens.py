"""Tokens of ServiceAccounts, made for somebody other than the API server.

kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from msgspec import Struct

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.kube.resources import SERVICE_ACCOUNTS

LIFETIME = 600
"""Seconds for which a token is asked for: the shortest that the API server makes."""


class _Status(Struct, frozen=True):
    token: str


class _TokenRequest(Struct, frozen=True):
    status: _Status


async def request_token(client: Client, account: ObjectKey, audience: str) -> str:
    """Return a fresh token of a ServiceAccount, good for ``audience`` only, and for ten minutes.

    Needs the right to create ``serviceaccounts/token``. Raises KubernetesError.
    """
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": LIFETIME},
    }
    answer = await client.create_subresource(SERVICE_ACCOUNTS, account, "token", body, _TokenRequest)
    return answer.status.token
