"""What is asked about a token and its owner, and what is taken for a yes."""

import json
from typing import Any

import pytest

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.connection import static
from dynamic_toolset.kube.errors import ConnectionFailed, Forbidden, InvalidAnswer, KubernetesError
from dynamic_toolset.kube.reviews import TokenIdentity, review_access, review_token
from tests.unit.kube.fault_server import FaultServer, answer, broken, hanging, refusal

USER = {
    "username": "system:serviceaccount:shop:dashboard",
    "uid": "7",
    "groups": ["system:serviceaccounts", "system:authenticated"],
    "extra": {"authentication.kubernetes.io/pod-name": ["dashboard-0"]},
}
IDENTITY = TokenIdentity(
    "system:serviceaccount:shop:dashboard",
    "7",
    ("system:serviceaccounts", "system:authenticated"),
    {"authentication.kubernetes.io/pod-name": ("dashboard-0",)},
)


def review(**status: Any) -> dict[str, Any]:
    return {"kind": "TokenReview", "metadata": {}, "spec": {"token": "t"}, "status": status}


async def test_a_token_is_reviewed_for_our_audience(api: FaultServer, client: Client) -> None:
    api.others.append(answer(review(authenticated=True, user=USER, audiences=["toolset"]), code=201))
    assert await review_token(client, "t", "toolset") == IDENTITY
    method, request = api.requests[-1]
    assert (method, request.path_qs) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
    assert json.loads(api.bodies[-1]) == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "t", "audiences": ["toolset"]},
    }


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False, "error": "token has expired"},
        {"user": USER, "audiences": ["toolset"]},
        {"authenticated": True, "user": USER},  # an API server that knows nothing of audiences
        {"authenticated": True, "user": USER, "audiences": None},
        {"authenticated": True, "user": USER, "audiences": []},
        {"authenticated": True, "user": USER, "audiences": ["https://kubernetes.default.svc", "toolset2"]},
        {"authenticated": True, "audiences": ["toolset"]},
        {"authenticated": True, "user": {"username": ""}, "audiences": ["toolset"]},
        {"authenticated": True, "user": {"username": "system:anonymous"}, "audiences": ["toolset"]},
    ],
)
async def test_what_is_not_said_in_so_many_words_is_a_no(
    api: FaultServer, client: Client, status: dict[str, Any]
) -> None:
    api.others.append(answer(review(**status), code=201))
    assert await review_token(client, "t", "toolset") is None


async def test_a_user_need_not_have_anything_but_a_name(api: FaultServer, client: Client) -> None:
    user = {"username": "ann", "groups": None, "extra": None}
    api.others.append(answer(review(authenticated=True, user=user, audiences=["toolset"])))
    assert await review_token(client, "t", "toolset") == TokenIdentity("ann")


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": True, "reason": "RBAC: allowed by ..."}, True),
        ({"allowed": False}, False),
        ({"allowed": False, "denied": True}, False),
        ({"allowed": True, "denied": True}, False),
        ({"evaluationError": "no such role"}, False),
        ({}, False),
    ],
)
async def test_access_is_reviewed(api: FaultServer, client: Client, status: dict[str, Any], *, allowed: bool) -> None:
    api.others.append(answer({"kind": "SubjectAccessReview", "status": status}, code=201))
    assert await review_access(client, IDENTITY, "/api/v1/services", "get") is allowed
    method, request = api.requests[-1]
    assert (method, request.path_qs) == ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews")
    assert json.loads(api.bodies[-1]) == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": USER["username"],
            "uid": "7",
            "groups": USER["groups"],
            "extra": USER["extra"],
            "nonResourceAttributes": {"path": "/api/v1/services", "verb": "get"},
        },
    }


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (answer({}), InvalidAnswer),
        (answer(b"<html>sign in</html>"), InvalidAnswer),
        (answer({"status": {"authenticated": "yes", "allowed": "yes"}}), InvalidAnswer),
        (refusal(403, "Forbidden", "cannot create resource"), Forbidden),
        (broken, ConnectionFailed),
        (hanging, ConnectionFailed),
    ],
)
async def test_an_answer_that_is_none_is_an_error(api: FaultServer, given: Any, error: type[KubernetesError]) -> None:
    patience = {"timeout": 1.0} if given is hanging else {}
    async with Client(static(api.url), **patience) as client:
        for question in (review_token(client, "t", "toolset"), review_access(client, IDENTITY, "/", "get")):
            api.others.append(given)
            with pytest.raises(error):
                await question
