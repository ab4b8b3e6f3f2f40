"""The commands that speak to the running service, by its URL and through the API server's proxy for Services."""

import logging
import sys
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import structlog
import yaml
from yarl import URL

from dynamic_toolset.cli import get
from dynamic_toolset.server.access import PREFIX, TOKEN_HEADER
from tests.command import Ended, called
from tests.integration.sandboxed import TARGET, until
from tests.integration.serving import AUDIENCE, Background, in_thread

Run = Callable[..., Ended]

WAYS = ("url", "proxy")


@pytest.fixture(scope="module", autouse=True)
def without_its_log() -> Iterator[None]:
    """What a command says stands alone: the service writes its log to the same standard output here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call a command on a service, by its URL or through the API server: ``run(served, "proxy", "diff")``."""
    for name in ("KUBERNETES_SERVICE_HOST", "DYNAMIC_TOOLSET_TOKEN", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(served: Background, way: str, *arguments: str) -> Ended:
        where = ("--url", served.base_url) if way == "url" else _through_the_api_server(served, tmp_path)
        words = list(takewhile(lambda word: not word.startswith("-"), arguments))
        return called(monkeypatch, capsys, *words, *where, *arguments[len(words) :])

    return run


def _through_the_api_server(served: Background, folder: Path) -> tuple[str, ...]:
    config = {
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": served.cluster.sandbox.url}}],
        "users": [{"name": "me", "user": {"token": "the-callers-own"}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "me"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return ("--kubeconfig", str(folder / "kubeconfig"), "--port", "http")


def populate(served: Background) -> None:
    """Create some Services, and one that leads to the service itself."""
    cluster = served.cluster
    for name in ("a", "b"):
        served.run(cluster.add(name))
    served.run(cluster.add("metrics", kind="prometheus"))
    served.run(cluster.add("sick", mode="fail"))
    served.run(
        cluster.sandbox.put(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "dynamic-toolset", "namespace": TARGET.namespace},
                "spec": {"ports": [{"name": "http", "port": URL(served.base_url).port}]},
            }
        )
    )
    settle(served, {"a", "b", "metrics"})


def settle(served: Background, listed: set[str]) -> None:
    def settled() -> bool:
        report = served.served.source.snapshot.report
        known = all(one.health.reason != "not checked yet" for one in report.discovered)
        return report.published and known and len(report.discovered) >= len(listed) and served.cluster.listed == listed

    served.run(until(settled))


@pytest.fixture(scope="module")
def shared() -> Iterator[Background]:
    """A service that is only read from."""
    with in_thread() as served:
        populate(served)
        yield served


@pytest.fixture
def served() -> Iterator[Background]:
    """A service of this test alone."""
    with in_thread() as served:
        populate(served)
        yield served


@pytest.fixture(scope="module")
def guarded() -> Iterator[Background]:
    """A service that asks for tokens. Ann may read, Bob may nothing."""
    with in_thread(server={"auth": "token"}) as served:
        for name in ("ann", "bob"):
            served.cluster.sandbox.add_token(f"{name}-1", name, audiences=[AUDIENCE])
        served.cluster.sandbox.allow("ann", f"{PREFIX}/api/v1/*", "get")
        populate(served)
        yield served


# --- get --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_services_in_every_form(shared: Background, run: Run, way: str) -> None:
    ended = run(shared, way, "get", "services", "-o", "json")
    assert (ended.status, ended.err) == (0, "")
    rows = {row["name"]: row for row in ended.json["services"]}
    assert list(rows) == ["a", "b", "metrics", "sick"]  # nothing speaks for the one that is not shown
    assert [row["listed"] for row in rows.values()] == [True, True, True, False]
    assert rows["metrics"]["health"] == "healthy"
    assert rows["sick"]["reason"]
    assert yaml.safe_load(run(shared, way, "get", "services", "-o", "yaml").out) == ended.json
    names = run(shared, way, "get", "services", "-o", "name").out.splitlines()
    assert names == ["shop/a", "shop/b", "shop/metrics", "shop/sick"]
    header, *table, empty, summary = run(shared, way, "get", "services").out.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "TYPE", "ENDPOINT", "HEALTH", "LISTED", "WHY"]
    assert [line.split()[1] for line in table] == list(rows)
    assert (empty, summary) == ("", "3 in the toolset, of 4 shown.")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--type", "prometheus"], ["metrics"]),
        (["--type", "prometheus", "--type", "orders"], ["a", "b", "metrics", "sick"]),
        (["-n", TARGET.namespace, "--all"], ["dynamic-toolset"]),
        (["-n", "nowhere"], []),
        (["--health", "unhealthy"], ["sick"]),
        (["--decision", "ignored"], ["dynamic-toolset"]),
        (["--all"], ["dynamic-toolset", "a", "b", "metrics", "sick"]),
    ],
)
def test_which_services_are_shown(shared: Background, run: Run, options: list[str], names: list[str]) -> None:
    ended = run(shared, "proxy", "get", "services", "-o", "json", *options)
    assert [row["name"] for row in ended.json["services"]] == names


def test_all_pages_are_read(shared: Background, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(shared, "url", "get", "services", "--all", "-o", "json")
    for size in (1, 2, 3, 5):
        monkeypatch.setattr(get, "PAGE", size)
        assert run(shared, "url", "get", "services", "--all", "-o", "json") == whole


@pytest.mark.parametrize("way", WAYS)
def test_the_toolset_is_what_is_published(shared: Background, run: Run, way: str) -> None:
    published = shared.cluster.data
    assert run(shared, way, "get", "toolset", "-o", "yaml").out == published["custom_toolset.yaml"]
    found = run(shared, way, "get", "toolset", "-o", "json").json
    assert {one["key"]: one["text"] for one in found["documents"]} == published
    header, *rows = run(shared, way, "get", "toolset").out.splitlines()
    assert header.split() == ["NAME", "SECTION", "ENABLED", "FROM", "OVERRIDDEN", "SERVICES"]
    assert ["prometheus/metrics", "toolsets", "yes", "services", "no", "shop/metrics"] in [row.split() for row in rows]


@pytest.mark.parametrize("way", WAYS)
def test_the_settings_in_force(shared: Background, run: Run, way: str) -> None:
    found = run(shared, way, "get", "config", "-o", "json").json
    assert yaml.safe_load(run(shared, way, "get", "config", "-o", "yaml").out) == found
    header, *rows = run(shared, way, "get", "config").out.splitlines()
    assert header.split() == ["SETTING", "VALUE", "FROM"]
    said = {row.split()[0]: row.split()[1] for row in rows}
    assert list(said) == [one["name"] for one in found["settings"]]
    assert said["healthCheck.interval"] == "300ms"
    assert said["policy.allowedRanges"] == '["127.0.0.0/8"]'
    assert said["paused"] == "false"
    assert said["server.address"] == "127.0.0.1"
    assert said["catalogFolder"] == "-"


# --- diff -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_no_difference_is_status_0_and_nothing_on_standard_output(shared: Background, run: Run, way: str) -> None:
    ended = run(shared, way, "diff")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"ConfigMap {TARGET} says what it should.\n"
    found = run(shared, way, "diff", "-o", "json")
    assert (found.status, found.json["changes"]) == (0, [])


@pytest.mark.parametrize("way", WAYS)
def test_a_difference_is_status_1_and_says_why_it_is_not_written(served: Background, run: Run, way: str) -> None:
    served.run(served.cluster.sandbox.patch("ConfigMap", *TARGET, {"immutable": True}))
    served.run(served.cluster.delete("metrics"))
    served.run(until(lambda: "ConfigMapImmutable" in str(served.served.source.snapshot.report.problems)))
    ended = run(served, way, "diff")
    assert ended.status == 1
    assert ended.err.startswith(f"ConfigMapImmutable: ConfigMap {TARGET} is marked immutable")
    lines = ended.out.splitlines()
    assert lines[:2] == ["--- custom_toolset.yaml as it is", "+++ custom_toolset.yaml as it would be"]
    assert any(line.startswith("-") and "prometheus/metrics" in line for line in lines)
    assert "\x1b" not in ended.out
    found = run(served, way, "diff", "-o", "json")
    assert (found.status, [one["key"] for one in found.json["changes"]]) == (1, ["custom_toolset.yaml", "toolset.json"])


def test_on_a_terminal_a_difference_has_colours(
    served: Background, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served.run(served.cluster.sandbox.patch("ConfigMap", *TARGET, {"immutable": True}))
    served.run(served.cluster.delete("metrics"))
    served.run(until(lambda: "ConfigMapImmutable" in str(served.served.source.snapshot.report.problems)))
    plain = run(served, "url", "diff")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    coloured = run(served, "url", "diff")
    assert "\x1b[31m-" in coloured.out
    assert coloured.out.count("\n") == plain.out.count("\n")


# --- refresh ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_everything_is_looked_at_again(served: Background, run: Run, way: str) -> None:
    before = served.cluster.sandbox.requests["list", "services"]
    ended = run(served, way, "refresh")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "All Services are looked at again, and every candidate is checked.\n"
    served.run(until(lambda: served.cluster.sandbox.requests["list", "services"] > before))


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_hears_what_came_of_it(served: Background, run: Run, way: str) -> None:
    before = served.served.supervisor.statistics().checks.healthy
    ended = run(served, way, "refresh", "--wait")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("5 Services, 4 candidates: 3 healthy, 1 unhealthy, 0 not known. 3 in the toolset.\n")
    assert served.served.supervisor.statistics().checks.healthy >= before + 3


# --- Who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_token_from_a_file_or_the_environment_lets_in(
    guarded: Background, run: Run, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ann").write_text("ann-1\n")
    assert run(guarded, way, "get", "services", "--token-file", "ann").status == 0
    monkeypatch.setenv("DYNAMIC_TOOLSET_TOKEN", "bob-1")
    assert "'bob'" in run(guarded, way, "get", "services").err
    assert run(guarded, way, "get", "services", "--token-file", "ann").status == 0  # an option beats the environment
    monkeypatch.setenv("DYNAMIC_TOOLSET_TOKEN", "ann-1")
    assert run(guarded, way, "diff").status == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("token", "command", "said"),
    [
        (None, ["get", "services"], "--service-account"),
        ("nobody-1", ["get", "toolset"], "--audience"),
        ("bob-1", ["get", "config"], "nonResourceURLs /dynamic-toolset/api/v1/*"),
        ("ann-1", ["refresh"], "user 'ann' cannot post path '/dynamic-toolset/api/v1/discover'"),
    ],
)
def test_who_is_not_let_in_is_told_what_it_takes(
    guarded: Background,
    run: Run,
    way: str,
    token: str | None,
    command: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if token:
        monkeypatch.setenv("DYNAMIC_TOOLSET_TOKEN", token)
    ended = run(guarded, way, *command)
    assert (ended.status, ended.out) == (1, "")
    assert said in ended.err
    assert run(guarded, way, "diff").status == (0 if token == "ann-1" else 2)


def test_the_proxy_keeps_authorization_and_two_tokens_are_one_too_many(guarded: Background) -> None:
    both = {"authorization": "Bearer ann-1", TOKEN_HEADER: "ann-1"}
    answer = guarded.get("/api/v1/services", headers=both)
    assert (answer.status, answer.json["status"]) == (400, 400)
    assert guarded.get("/api/v1/services", headers={TOKEN_HEADER: "ann-1"}).status == 200


# --- On the way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--service", "nowhere/dynamic-toolset"], "there is no Service nowhere/dynamic-toolset"),
        (["--port", "81"], "has no port 81"),
        (["--port", "web"], "no ready Pod at port web"),
        (["--tls"], "does not get through"),
    ],
)
def test_a_service_that_is_not_reached_is_named(shared: Background, run: Run, options: list[str], said: str) -> None:
    ended = run(shared, "proxy", "get", "services", *options)
    assert (ended.status, ended.out) == (1, "")
    assert said in ended.err


def test_what_is_no_dynamic_toolset_is_said_not_to_be_one(shared: Background, run: Run) -> None:
    another = shared.cluster.endpoints["metrics"].rpartition(":")[2]
    ended = run(shared, "url", "get", "services", "--url", f"http://127.0.0.1:{another}")
    assert (ended.status, ended.out) == (1, "")
    assert "not as Dynamic Toolset does" in ended.err
