"""Settings over the API: what is in force, what comes into force, and what is wrong with a text."""

import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.configuration.sources import Sources
from dynamic_toolset.server import answers
from dynamic_toolset.server.problems import ProblemDetails
from tests.integration.sandboxed import NO_HOLD, POLICY, QUICK, Cluster, until
from tests.integration.serving import SERVER, Answer, Served

Serve = Callable[..., Awaitable[Served]]

V1 = "/api/v1"

SHARED: dict[str, Any] = {"healthCheck": QUICK, "policy": POLICY, "massFailure": NO_HOLD, "server": dict(SERVER)}


class File:
    """The file of settings of a service at work."""

    def __init__(self, path: Path, served: Served) -> None:
        self._path = path
        self._served = served

    def write(self, **changes: Any) -> None:
        self._path.write_text(yaml.safe_dump(SHARED | changes))

    async def reload(self) -> Answer:
        return await self._served.ask("POST", f"{V1}/config/reload")

    async def reloaded(self) -> answers.ReloadAnswer:
        answer = await self.reload()
        assert answer.status == 200, answer.body
        return msgspec.json.decode(answer.body, type=answers.ReloadAnswer)


@pytest.fixture
async def served(cluster: Cluster, serve: Serve) -> Served:
    for name in ("a", "b"):
        await cluster.add(name)
    served = await serve()
    await until(lambda: cluster.listed == {"a", "b"})
    return served


@pytest.fixture
def file(served: Served, tmp_path: Path) -> File:
    path = tmp_path / "settings.yaml"
    file = File(path, served)
    file.write()
    sources = Sources(path, os.environ)
    basis = sources.read()
    served.supervisor.settings = basis.alone.settings
    Configuration.__init__(served.configuration, sources, basis, served.supervisor)
    return file


# --- What is in force ------------------------------------------------------------------------------------------------


async def test_every_setting_is_shown_with_its_source(
    served: Served, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMIC_TOOLSET_HEALTH_CHECK_TIMEOUT", "4s")
    assert (await file.reloaded()).changed == ("healthCheck.timeout",)
    answer = await served.get(f"{V1}/config")
    found = msgspec.json.decode(answer.body, type=answers.ConfigAnswer)
    assert found.file is not None
    assert found.file.endswith("settings.yaml")
    rows = {one.name: (one.value, one.source) for one in found.settings}
    assert rows["healthCheck.timeout"] == ("4s", "environment")
    assert rows["healthCheck.interval"] == (QUICK["interval"], "file")
    assert rows["clusterDomain"] == ("cluster.local", "default")


async def test_no_secret_is_shown(served: Served, file: File) -> None:
    file.write(toolset={"base": {"x": {"type": "http", "config": {"headers": {"Authorization": "Bearer hunter2"}}}}})
    await file.reloaded()
    answer = await served.get(f"{V1}/config")
    assert b"toolset.base" in answer.body
    assert b"hunter2" not in answer.body


# --- What comes into force -------------------------------------------------------------------------------------------


async def test_a_change_comes_into_force_without_a_restart(served: Served, file: File, cluster: Cluster) -> None:
    file.write(requireAnnotations=False, namespaces={"exclude": ["shop"]})
    assert await file.reloaded() == answers.ReloadAnswer(("namespaces.exclude",), ())
    await until(lambda: cluster.listed == set())
    file.write()
    assert (await file.reloaded()).changed == ("namespaces.exclude",)
    await until(lambda: cluster.listed == {"a", "b"})


async def test_what_is_as_it_was_disturbs_nobody(served: Served, file: File) -> None:
    before = served.supervisor.controller
    assert await file.reloaded() == answers.ReloadAnswer((), ())
    assert served.supervisor.controller is before


async def test_what_counts_from_a_start_only_is_named_and_left_as_it_is(served: Served, file: File) -> None:
    before = served.supervisor.controller
    file.write(server={**SERVER, "port": 18080}, leaderElection={"leaseDuration": "20s"})
    found = await file.reloaded()
    assert found.changed == found.need_restart == ("leaderElection.leaseDuration", "server.port")
    assert served.supervisor.controller is before
    assert served.supervisor.settings.server.port == 0
    assert (await served.get(f"{V1}/config")).status == 200


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"healthCheck": {"timeout": "soon"}}, "healthCheck.timeout: expected a duration"),
        ({"catalogFolder": "/nowhere"}, "/nowhere"),
        ({"noSuch": 1}, "noSuch"),
        ({"policy": {"trustedTypes": ["grafanna"]}}, "grafanna"),
    ],
)
async def test_what_is_wrong_changes_nothing_and_is_told(
    served: Served, file: File, cluster: Cluster, changes: dict[str, Any], told: str
) -> None:
    file.write(namespaces={"exclude": ["shop"]}, **changes)
    answer = await file.reload()
    assert answer.status == 400
    problem = msgspec.json.decode(answer.body, type=ProblemDetails)
    assert any(told in error.message for error in problem.errors), problem
    await cluster.add("c")
    await until(lambda: cluster.listed == {"a", "b", "c"})


async def test_every_mistake_of_the_file_is_told_at_once(served: Served, file: File) -> None:
    file.write(noSuch=1, healthCheck={"timeout": "soon", "failureThreshold": 99})
    problem = msgspec.json.decode((await file.reload()).body, type=ProblemDetails)
    assert len(problem.errors) == 3


# --- What is wrong with a text ---------------------------------------------------------------------------------------


async def validate(served: Served, kind: str, text: str | bytes, media_type: str = "application/yaml") -> Answer:
    body = text if isinstance(text, bytes) else text.encode()
    headers = {"Content-Type": media_type}
    return await served.ask("POST", f"{V1}/validate?kind={kind}", data=io.BytesIO(body), headers=headers)


@pytest.mark.parametrize(
    ("kind", "text", "mistakes"),
    [
        ("overrides", "internet: {enabled: false}\n", []),
        ("overrides", "", []),
        ("settings", "healthCheck: {timeout: 3s}\n", []),
        ("overrides", "a:\n  enabled: 'no'\nb: 3\n", [(2, "a.enabled"), (3, "b")]),
        ("settings", "healthCheck:\n  timeout: soon\nnoSuch: 1\n", [(2, "healthCheck.timeout"), (3, "noSuch")]),
        ("settings", "policy:\n  trustedTypes: [grafanna]\n", [(2, "policy.trustedTypes")]),
        ("overrides", "a: [", [(2, "")]),
    ],
)
async def test_every_mistake_is_told_by_line_and_field(
    served: Served, cluster: Cluster, kind: str, text: str, mistakes: list[tuple[int, str]]
) -> None:
    writes = len(cluster.writes)
    answer = await validate(served, kind, text)
    found = msgspec.json.decode(answer.body, type=answers.ValidationAnswer)
    assert [(one.line, one.field) for one in found.problems] == mistakes
    assert found.valid is not bool(mistakes)
    assert all(one.message for one in found.problems)
    assert len(cluster.writes) == writes


@pytest.mark.parametrize(
    ("kind", "text", "media_type", "status"),
    [
        ("overrides", "a: 1", "application/json", 415),
        ("overrides", b"\xff\xfe", "text/plain", 400),
        ("nothing", "a: 1", "text/yaml", 400),
        ("settings", "x" * (1024 * 1024 + 1), "text/yaml", 413),
    ],
)
async def test_what_cannot_be_looked_at_is_refused(
    served: Served, kind: str, text: str | bytes, media_type: str, status: int
) -> None:
    answer = await validate(served, kind, text, media_type)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_text_that_takes_long_holds_up_nobody(served: Served) -> None:
    text = "a: &a\n" + "".join(f"  k{n}: v\n" for n in range(9_000)) + "b:\n  <<: [" + ", ".join(["*a"] * 3000) + "]\n"
    found = msgspec.json.decode((await validate(served, "overrides", text)).body, type=answers.ValidationAnswer)
    assert not found.valid
    assert (await served.get("/healthz")).status == 200
