"""The Services of other clusters: found, checked and published, and kept while their cluster is away."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.model import ServiceKey
from dynamic_toolset.sandbox import Sandbox
from dynamic_toolset.sandbox.resources import CONFIG_MAPS
from dynamic_toolset.settings import ConfigMapSettings
from dynamic_toolset.toolset import generic
from tests.integration.sandboxed import CATALOG, NAMESPACE, TARGET, TOOLSET, Cluster, Elsewhere, Subject, until
from tests.integration.serving import Served

Start = Callable[..., Awaitable[Subject]]


@pytest.fixture
async def eu(cluster: Cluster) -> AsyncIterator[Elsewhere]:
    """A cluster whose API lets in whoever shows its token."""
    sandbox = Sandbox(token="sesame")
    async with sandbox:
        found = Elsewhere(cluster, sandbox)
        await found.cluster.add_namespace(NAMESPACE)
        yield found


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is away is asked again soon."""
    monkeypatch.setattr("dynamic_toolset.kube.reflector.BACKOFF_CAP", 0.3)


def clusters(*some: Elsewhere, **more: Any) -> dict[str, Any]:
    return {"clusters": [one.setting for one in some], **more}


async def test_services_of_both_are_published_each_under_a_name_of_its_own(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    await cluster.add("metrics", kind="prometheus")
    there = await eu.add("metrics", kind="prometheus")
    await eu.add("orders")
    await eu.hand_over()
    await start(**clusters(eu))
    await until(lambda: cluster.known == {"shop/metrics", "eu:shop/metrics", "eu:shop/orders"})
    file = cluster.documents["custom_toolset.yaml"]
    assert '"name": "shop.metrics"' in file
    assert '"name": "shop.eu-metrics"' in file
    assert f'"prometheus_url": "http://127.0.0.1:{there.port}"' in file
    assert '"orders-shop-eu-orders":' in file
    assert "of Service orders in namespace shop of cluster eu" in file

    await eu.cluster.delete("metrics")
    await until(lambda: cluster.known == {"shop/metrics", "eu:shop/orders"})
    await eu.add("late")
    await until(lambda: cluster.known == {"shop/metrics", "eu:shop/orders", "eu:shop/late"})


async def test_without_a_load_balancer_a_service_is_not_taken_until_it_has_one(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    await eu.add("orders", balanced=False)
    await eu.hand_over()
    subject = await start(**clusters(eu))
    decided = await until(lambda: [one for one in subject.reports[-1:] if one.decisions])
    ((key, decision),) = decided[0].decisions.items()
    assert str(key) == "eu:shop/orders"
    assert decision.outcome == "rejected"
    assert "a load balancer" in decision.reason
    await eu.sandbox.balance(NAMESPACE, "orders", "127.0.0.1")
    await until(lambda: cluster.known == {"eu:shop/orders"})


async def test_a_backend_that_fails_is_taken_out_while_its_cluster_answers(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    await cluster.add("ours")
    await eu.add("other")
    backend = await eu.add("orders")
    await eu.hand_over()
    await start(**clusters(eu), massFailure={"hold": "0s"})
    await until(lambda: cluster.known == {"shop/ours", "eu:shop/other", "eu:shop/orders"})
    backend.healthy = False
    await until(lambda: cluster.known == {"shop/ours", "eu:shop/other"})


async def test_a_cluster_that_is_lost_as_a_whole_leaves_its_part_in_place(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    ours = await cluster.add("ours")
    there = [await eu.add(name) for name in ("a", "b", "c")]
    await eu.hand_over()
    subject = await start(**clusters(eu), massFailure={"hold": "0s"})
    await until(lambda: cluster.known == {"shop/ours", "eu:shop/a", "eu:shop/b", "eu:shop/c"})
    await eu.away()
    for backend in there:
        backend.healthy = False
    await until(lambda: "ClusterUnreachable" in subject.problems)
    assert "cluster eu" in subject.problems["ClusterUnreachable"]
    await until(lambda: subject.controller.checks(ServiceKey(NAMESPACE, "a", "eu"))[0].health.failures >= 3)
    assert all(one.holds for one in subject.controller.readiness())
    assert cluster.known == {"shop/ours", "eu:shop/a", "eu:shop/b", "eu:shop/c"}

    ours.healthy = False  # what fails at home goes as ever
    await until(lambda: cluster.known == {"eu:shop/a", "eu:shop/b", "eu:shop/c"})

    there[0].healthy = True
    await eu.back()  # it answers: now what still fails is taken out, and what changed meanwhile is known
    await until(lambda: cluster.known == {"eu:shop/a"})
    await until(lambda: "ClusterUnreachable" not in subject.problems)


async def test_restarted_while_a_cluster_is_away_it_leaves_what_was_published(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    await cluster.add("ours")
    await eu.add("metrics", kind="prometheus")
    await eu.add("orders", health_path="/healthz")
    await eu.cluster.annotate("orders", {f"{TOOLSET}-name": "shop-api"})
    await eu.add("runbooks", kind="mcp")
    await eu.hand_over()
    first = await start(**clusters(eu))
    all_of_them = {"shop/ours", "eu:shop/metrics", "eu:shop/orders", "eu:shop/runbooks"}
    await until(lambda: cluster.known == all_of_them and "shop-api" in cluster.documents["custom_toolset.yaml"])
    before, writes = cluster.documents, len(cluster.writes)
    await first.stop()
    await eu.away()
    await eu.cluster.delete("orders")

    second = await start(**clusters(eu))
    await until(lambda: "ClusterUnreachable" in second.problems)
    assert cluster.documents == before
    found = second.found("metrics")
    assert found is not None
    assert found.listed
    assert (found.health.verdict, found.candidate.title) == ("unknown", "Prometheus")
    assert len(cluster.writes) == writes
    await cluster.add("new")  # what happens at home goes on
    await until(lambda: cluster.known == {*all_of_them, "shop/new"})

    await eu.back()
    await until(lambda: cluster.known == {"shop/ours", "shop/new", "eu:shop/metrics", "eu:shop/runbooks"})
    await until(lambda: second.verdict("metrics") == "healthy")


@pytest.mark.parametrize("wrong", ["\ud800", "A" * 300, "a\n"], ids=["half a pair", "long", "two lines"])
async def test_what_is_edited_while_a_cluster_is_away_is_in_nobodys_way(
    cluster: Cluster, eu: Elsewhere, start: Start, wrong: str
) -> None:
    await cluster.add("ours")
    await eu.add("metrics", kind="prometheus")
    await eu.hand_over()
    first = await start(**clusters(eu))
    await until(lambda: cluster.known == {"shop/ours", "eu:shop/metrics"})
    await first.stop()
    await eu.away()
    document = json.loads(cluster.documents["toolset.json"])
    there = next(tool for tool in document["tools"] if tool["metadata"].get("cluster"))
    path = there["endpoint"] + "/" + wrong
    document["tools"] += [
        there | change for change in ({"namespace": wrong}, {"type": wrong}, {"name": "a", "endpoint": path})
    ]
    document["tools"] += [there | {"metadata": there["metadata"] | {field: wrong}} for field in ("service", "name")]
    await cluster.sandbox.patch("ConfigMap", *TARGET, {"data": {"toolset.json": json.dumps(document)}})

    second = await start(**clusters(eu))
    await until(lambda: "ClusterUnreachable" in second.problems)
    known = {str(one.candidate.key) for one in second.reports[-1].discovered}
    assert known <= {"shop/ours", "eu:shop/metrics"}
    assert not {key for key in second.reports[-1].decisions if key.cluster} - {ServiceKey("shop", "metrics", "eu")}


async def test_other_settings_and_another_config_map_leave_the_part_of_a_cluster_that_is_away(
    cluster: Cluster, eu: Elsewhere, serve: Callable[..., Awaitable[Served]]
) -> None:
    await cluster.add("ours")
    await eu.add("orders")
    await eu.hand_over()
    served = await serve(**clusters(eu))
    await until(lambda: cluster.known == {"shop/ours", "eu:shop/orders"})
    await eu.away()
    how = msgspec.structs.replace(served.settings, require_annotations=True)
    served.supervisor.replace(how, CATALOG)
    await until(lambda: "ClusterUnreachable" in problems(served))
    assert cluster.known == {"shop/ours", "eu:shop/orders"}
    moved = msgspec.structs.replace(how, config_map=ConfigMapSettings("moved", TARGET.namespace))
    served.supervisor.replace(moved, CATALOG)
    written = await until(lambda: cluster.sandbox._store.objects(CONFIG_MAPS).get(ObjectKey(TARGET.namespace, "moved")))
    assert {str(tool.service) for tool in generic.tools(written["data"]["toolset.json"])} == cluster.known
    await eu.back()
    await until(lambda: "ClusterUnreachable" not in problems(served))


def problems(served: Served) -> set[str]:
    report = served.supervisor.controller.report
    return {one.reason for one in report.problems} if report else set()


async def test_an_address_that_must_not_be_dialled_is_not_kept_either(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    await eu.add("orders")
    await eu.add("payments")
    await eu.hand_over()
    first = await start(**clusters(eu))
    await until(lambda: cluster.known == {"eu:shop/orders", "eu:shop/payments"})
    await first.stop()
    await eu.away()
    forged = json.loads(cluster.data["toolset.json"])
    forged["tools"][0]["endpoint"] = "http://169.254.169.254:80"
    await cluster.edit({"toolset.json": json.dumps(forged)})
    await start(**clusters(eu))
    await until(lambda: cluster.known == {"eu:shop/payments"})
    assert "169.254" not in str(cluster.documents)


async def test_back_and_empty_it_leaves_nothing_behind(cluster: Cluster, eu: Elsewhere, start: Start) -> None:
    await eu.add("orders")
    await eu.hand_over()
    first = await start(**clusters(eu))
    await until(lambda: cluster.known == {"eu:shop/orders"})
    await first.stop()
    await eu.away()
    for name in ("orders", "kubernetes"):
        if await eu.sandbox.get("Service", NAMESPACE, name):
            await eu.cluster.delete(name)
    second = await start(**clusters(eu))
    await until(lambda: "ClusterUnreachable" in second.problems)
    assert cluster.known == {"eu:shop/orders"}
    await eu.back()
    await until(lambda: not cluster.known)


async def test_a_cluster_that_is_taken_out_of_the_settings_goes_with_its_part(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    await cluster.add("ours")
    await eu.add("orders")
    await eu.hand_over()
    first = await start(**clusters(eu))
    await until(lambda: cluster.known == {"shop/ours", "eu:shop/orders"})
    await first.stop()
    await start()
    await until(lambda: cluster.known == {"shop/ours"})


async def test_another_kubeconfig_is_taken_up_without_a_restart(cluster: Cluster, eu: Elsewhere, start: Start) -> None:
    await eu.add("orders")
    await eu.hand_over(eu.kubeconfig(token="old"))
    subject = await start(**clusters(eu))
    await until(lambda: "401" in subject.problems.get("ClusterUnreachable", ""))
    await eu.hand_over()
    await until(lambda: cluster.known == {"eu:shop/orders"})
    await until(lambda: not subject.problems)

    async with Sandbox() as moved:
        other = Elsewhere(cluster, moved)
        await other.cluster.add_namespace(NAMESPACE)
        await other.add("payments")
        await other.hand_over()
        await until(lambda: cluster.known == {"eu:shop/payments"})


@pytest.mark.parametrize(
    ("kubeconfig", "why"),
    [
        ({"users": []}, "current-context is missing"),
        ("nothing of the kind", "it is no kubeconfig"),
        ({"token": "sesame\n", "current-context": 5}, "current-context of the kubeconfig is no text"),
        (
            {
                "contexts": [{"name": "c", "context": {"cluster": "c"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://a..example.com"}}],
            },
            "server of the cluster is no http or https URL",
        ),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_named_and_the_last_one_stays(
    cluster: Cluster, eu: Elsewhere, start: Start, kubeconfig: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    await eu.add("orders")
    await eu.hand_over()
    subject = await start(**clusters(eu))
    await until(lambda: cluster.known == {"eu:shop/orders"})
    await eu.hand_over(kubeconfig)
    said = await until(lambda: subject.problems.get("ClusterUnusable", ""))
    assert said.startswith("cluster eu cannot be used: kubeconfig of Secret kubernaut-system/cluster-eu: ")
    assert why in said
    await eu.add("late")
    await until(lambda: cluster.known == {"eu:shop/orders", "eu:shop/late"})
    await cluster.sandbox.delete("Secret", TARGET.namespace, "cluster-eu")
    await until(lambda: "does not exist" in subject.problems["ClusterUnusable"])
    assert cluster.known == {"eu:shop/orders", "eu:shop/late"}
    await eu.hand_over(key="config")
    await until(lambda: "has no key kubeconfig" in subject.problems["ClusterUnusable"])
    await eu.hand_over()
    await until(lambda: not subject.problems)


async def test_what_another_cluster_says_is_told_in_one_line_of_bounded_length(
    cluster: Cluster, eu: Elsewhere, start: Start
) -> None:
    async def talkative(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": "a\n\x1b" * 10_000}, status=403)

    app = web.Application()
    app.router.add_get("/{path:.*}", talkative)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = eu.kubeconfig()
    host, port = runner.addresses[0][:2]
    kubeconfig["clusters"][0]["cluster"]["server"] = f"http://{host}:{port}"
    await eu.hand_over(kubeconfig)
    subject = await start(**clusters(eu))
    said = await until(lambda: subject.problems.get("ClusterUnreachable"))
    assert "403" in said
    assert said.isprintable()
    assert len(said) < 700
    await runner.cleanup()


async def test_no_secret_is_asked_for_without_another_cluster(cluster: Cluster, start: Start) -> None:
    await cluster.add("ours")
    await start()
    await until(lambda: cluster.known == {"shop/ours"})
    assert not [key for key in cluster.sandbox.requests if key[1] == "secrets"]


async def test_the_api_shows_whose_a_service_is(
    cluster: Cluster, eu: Elsewhere, serve: Callable[..., Awaitable[Served]]
) -> None:
    await cluster.add("orders")
    await eu.add("orders")
    await eu.hand_over()
    served = await serve(**clusters(eu))
    await until(lambda: cluster.known == {"shop/orders", "eu:shop/orders"})

    async def found(query: str) -> list[tuple[str, str]]:
        answer = (await served.get(f"/api/v1/services?{query}")).json
        return [(one["cluster"], one["name"]) for one in answer["items"]]

    both = [("", "orders"), ("eu", "orders")]
    assert await found("") == both
    assert await found("cluster=eu") == await found("search=eu:shop") == [("eu", "orders")]
    assert await found("cluster=") == [("", "orders")]
    first = (await served.get("/api/v1/services?limit=1")).json
    assert (first["continue"], await found(f"limit=1&continue={first['continue']}")) == ("shop/orders", both[1:])
    assert await found("continue=eu:shop/orders") == []

    ours, theirs = [(await served.get(f"/api/v1/services/shop/orders{query}")).json for query in ("", "?cluster=eu")]
    assert (ours["cluster"], theirs["cluster"]) == ("", "eu")
    assert ours["toolsets"] == ["orders-shop-orders"]
    assert theirs["toolsets"] == ["orders-shop-eu-orders"]
    assert theirs["endpoint"].startswith("http://127.0.0.1:")
    assert (await served.get("/api/v1/services/shop/orders?cluster=us")).status == 404
    history = (await served.get("/api/v1/history")).json["items"]
    assert {one["service"]["cluster"] for one in history if one["service"]} == {"", "eu"}
    assert {"Services of eu", "Secret of eu"} <= (await served.get("/api/v1/statistics")).json["watches"].keys()


async def test_one_cluster_takes_nothing_from_another(cluster: Cluster, eu: Elsewhere, start: Start) -> None:
    async with Sandbox() as sandbox:
        us = Elsewhere(cluster, sandbox, "us")
        await us.cluster.add_namespace(NAMESPACE)
        await eu.add("orders")
        await us.add("orders")
        await eu.hand_over()
        await us.hand_over()
        subject = await start(**clusters(eu, us))
        await until(lambda: cluster.known == {"eu:shop/orders", "us:shop/orders"})
        await eu.away()
        await until(lambda: "ClusterUnreachable" in subject.problems)
        await us.cluster.delete("orders")
        await us.add("payments")
        await until(lambda: cluster.known == {"eu:shop/orders", "us:shop/payments"})
        await eu.back()
        await asyncio.sleep(0)
