"""The server of the real program in the real cluster: who may call it, and what it says when the cluster is away."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dynamic_toolset.server.access import PREFIX
from tests.cluster.backends import prometheus
from tests.cluster.cluster import Cluster
from tests.cluster.http import Answer, request
from tests.e2e.program import Program
from tests.e2e.test_access import AUDIENCE, claims, signed
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Program]
Account = tuple[str, str]

API = PREFIX + "/api/v1"


class Caller:
    """Calls a program, with a token if there is one."""

    def __init__(self, program: Program, token: str | None = None) -> None:
        [serving] = eventually(lambda: program.events("serving"), 30)
        self.api, self.metrics = serving["api"], serving["metrics"]
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def get(self, path: str, *, method: str = "GET", at: str | None = None) -> Answer:
        return request(method, (at or self.api) + path, headers=self._headers)

    def until(self, path: str, status: int, within: float = 30) -> Answer:
        def asked() -> Answer | None:
            answer = self.get(path)
            return answer if answer.status == status else None

        found = eventually(asked, within, every=0.1)
        assert found
        return found


def problem(answer: Answer) -> Mapping[str, Any]:
    found: dict[str, Any] = answer.json
    assert found["status"] == answer.status
    assert found["requestId"]
    return found


def may_post(cluster: Cluster, account: Account, path: str) -> None:
    """Let an account POST to a path, besides what it may get."""
    namespace, name = account
    rule = [{"op": "add", "path": "/rules/-", "value": {"nonResourceURLs": [path], "verbs": ["post"]}}]
    cluster.kubectl("patch", "clusterrole", namespace, "--type=json", f"--patch={json.dumps(rule)}")
    question = {
        "user": f"system:serviceaccount:{namespace}:{name}",
        "nonResourceAttributes": {"path": path, "verb": "post"},
    }
    review = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    eventually(lambda: cluster.api("POST", review, {"spec": question}).json["status"]["allowed"])


def test_who_is_let_in(cluster: Cluster, program: Start, make_account: Callable[..., Account]) -> None:
    account = make_account(f"{API}/services", f"{API}/services/*")
    stranger = make_account("/elsewhere")
    token = cluster.token(*account, audience=AUDIENCE)
    header, content, signature = token.split(".")
    richer = claims(token) | {"sub": "system:serviceaccount:kube-system:default"}
    forged = base64.urlsafe_b64encode(json.dumps(richer).encode()).decode().rstrip("=")
    past = {"iat": time.time() - 7200, "nbf": time.time() - 7200, "exp": time.time() - 3600}
    expired = signed(
        cluster.folder / "service-accounts.key", header, claims(token) | {k: int(v) for k, v in past.items()}
    )
    subject = program()
    nobody = Caller(subject)
    nobody.until("/readyz", 200)

    caller = Caller(subject, token)
    assert caller.get("/api/v1/services").status == 200
    assert caller.get("/api/v1/services", method="HEAD").status == 200
    assert caller.get("/api/v1/services/nowhere/nothing").status == 404
    for path, method in (("toolset", "GET"), ("discover", "POST"), ("config", "GET"), ("nothing", "GET")):
        refused = caller.get(f"/api/v1/{path}", method=method)
        assert refused.status == 403, path
        assert f"cannot {method.lower()} path" in problem(refused)["detail"]
    assert Caller(subject, cluster.token(*stranger, audience=AUDIENCE)).get("/api/v1/services").status == 403
    for wrong in (
        None,
        "garbage",
        expired,
        cluster.token(*account),  # for the API server itself
        cluster.token(*account, audience="another"),
        cluster.admin_token,
        f"{header}.{forged}.{signature}",
        f"{header}.{content}.",
    ):
        refused = Caller(subject, wrong).get("/api/v1/services")
        assert refused.status == 401
        problem(refused)
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert nobody.get(path).status == 200
    assert nobody.get("/metrics", at=nobody.metrics).status == 200

    reasons = {event["reason"] for event in subject.events("request_unauthenticated")}
    assert {"no token"} < reasons
    assert subject.events("request_forbidden")
    assert token not in subject.log
    assert signature not in subject.log


def test_metrics_may_need_a_token_as_well(
    cluster: Cluster, program: Start, make_account: Callable[..., Account]
) -> None:
    scraper, other = (
        cluster.token(*make_account(path), audience=AUDIENCE) for path in ("/metrics", f"{PREFIX}/metrics")
    )
    subject = program({"server": {"metricsAuth": "token"}})
    for token, status in ((None, 401), (other, 403), (scraper, 200)):
        caller = Caller(subject, token)
        assert caller.get("/metrics", at=caller.metrics).status == status


def test_the_services_of_the_cluster_are_shown_and_looked_at_again_when_somebody_asks(
    cluster: Cluster, namespace: str, program: Start, make_account: Callable[..., Account]
) -> None:
    account = make_account(f"{API}/*")
    may_post(cluster, account, f"{API}/discover")
    with prometheus(cluster, namespace) as backend:
        subject = program()
        caller = Caller(subject, cluster.token(*account, audience=AUDIENCE))
        eventually(lambda: backend.host in str(subject.document("custom_toolset.yaml")), 30)
        listing = caller.get(f"/api/v1/services?namespace={namespace}&listed=true").json
        [item] = listing["items"]
        assert (item["type"], item["health"], item["decision"]) == ("prometheus", "healthy", "candidate")
        known = caller.get("/api/v1/statistics").json["services"]["known"]
        assert known == len(cluster.get("/api/v1/services")["items"])
        detail = caller.get(f"/api/v1/services/{namespace}/{item['name']}").json
        assert detail["toolsets"] == ["prometheus/metrics"]
        assert detail["checks"]
        toolset = caller.get("/api/v1/toolset").json
        published = subject.published()["data"]
        assert {one["key"]: one["text"] for one in toolset["documents"]} == {
            key: published[key] for key in ("custom_toolset.yaml", "toolset.json")
        }

        seen = len(list(cluster.audit()))
        assert caller.get("/api/v1/discover", method="POST").status == 202
        eventually(
            lambda: any(
                event.user == subject.user and (event.verb, event.resource) == ("list", "services")
                for event in cluster.audit(seen)
            )
        )


def test_a_standby_is_ready(cluster: Cluster, namespace: str, program: Start) -> None:
    leader = program(service_account="first")
    Caller(leader).until("/readyz", 200)
    eventually(lambda: leader.events("leading"), 30)
    standby = program(service_account="second")
    Caller(standby).until("/readyz", 200)
    assert not standby.events("leading")
    verbose = Caller(standby).get("/readyz?verbose").body.decode()
    assert "[+]leader or standby ok" in verbose


def test_while_the_api_server_is_away_the_service_is_alive_but_not_ready(
    cluster: Cluster, program: Start, make_account: Callable[..., Account]
) -> None:
    account = make_account(f"{API}/*")
    known, other = (cluster.token(*account, audience=AUDIENCE) for _ in range(2))
    subject = program()
    caller = Caller(subject, known)
    caller.until("/readyz", 200)
    before = caller.get("/api/v1/toolset")
    assert before.status == 200
    with cluster.without_apiserver():
        unready = caller.until("/readyz", 503)
        assert b"[-]" in unready.body
        assert caller.get("/healthz").status == 200
        after = caller.get("/api/v1/toolset")  # by a yes that is remembered
        assert (after.status, after.json["documents"]) == (200, before.json["documents"])
        assert Caller(subject, other).get("/api/v1/toolset").status == 503
    caller.until("/readyz", 200, within=60)
