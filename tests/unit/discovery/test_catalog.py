"""The service types: what is built in, what a user adds, and what he is told about his mistakes."""

import os
import re
import time
from pathlib import Path
from textwrap import dedent

import pytest

from dynamic_toolset.discovery.catalog import MAX_FILE_BYTES, CatalogError, load_catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.model import HttpBinding, InstancesBinding, McpBinding, Outcome
from dynamic_toolset.settings import Settings

from .building import catalog, service

BUILT_IN = [
    *("alertmanager", "custom", "elasticsearch", "grafana", "jaeger", "loki", "mcp", "mimir", "opensearch"),
    *("prometheus", "rabbitmq", "tempo", "thanos", "victorialogs", "victoriametrics"),
]

# HolmesGPT 0.45.0, its built-in toolsets.
TOOLSETS = {
    "prometheus/metrics": ("prometheus_url", {"prometheus", "thanos", "victoriametrics", "mimir"}),
    "grafana/dashboards": ("api_url", {"grafana"}),
    "grafana/loki": ("api_url", {"loki"}),
    "grafana/tempo": ("api_url", {"tempo"}),
    "elasticsearch/data": ("api_url", {"elasticsearch", "opensearch"}),
    "elasticsearch/cluster": ("api_url", {"elasticsearch", "opensearch"}),
    "rabbitmq/core": ("api_url", {"rabbitmq"}),
    "victorialogs": ("api_url", {"victorialogs"}),
}


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(dedent(text), encoding="utf-8")
    return folder


MINIMAL = """\
name: mine
title: Mine
description: A thing of mine
holmesgpt: {kind: mcp}
"""


def complaints(folder: Path) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        load_catalog(folder)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_the_built_in_types():
    assert list(catalog().types) == BUILT_IN


@pytest.mark.parametrize("toolset", TOOLSETS)
def test_what_holmesgpt_serves_itself(toolset):
    url, names = TOOLSETS[toolset]
    types = [one for one in catalog().types.values() if isinstance(one.holmesgpt, InstancesBinding)]
    assert {one.name for one in types if toolset in one.holmesgpt.toolsets} == names
    assert {one.holmesgpt.url for one in types if toolset in one.holmesgpt.toolsets} == {url}


def test_what_it_does_not():
    kinds = {name: type(one.holmesgpt) for name, one in catalog().types.items()}
    assert {name for name, kind in kinds.items() if kind is HttpBinding} == {"jaeger", "alertmanager", "custom"}
    assert {name for name, kind in kinds.items() if kind is McpBinding} == {"mcp"}


def test_every_product_proves_its_identity():
    assert [name for name, one in catalog().types.items() if not one.health.identity] == ["custom"]


def test_loading_takes_next_to_no_time():
    load_catalog()
    best = min(_seconds(load_catalog) for _ in range(5))
    assert best < 0.025 * 12, "25 ms on an idle machine"


def _seconds(action):
    start = time.process_time()  # what others do on the machine meanwhile does not count
    action()
    return time.process_time() - start


def test_a_user_adds_a_type(tmp_path):
    types = load_catalog(write(tmp_path, MINIMAL)).types
    assert list(types) == sorted([*BUILT_IN, "mine"])


def test_a_user_replaces_a_type(tmp_path):
    types = load_catalog(write(tmp_path, MINIMAL.replace("mine", "grafana"), "x.yml")).types
    assert types["grafana"].title == "Mine"
    assert list(types) == BUILT_IN


def test_other_files_are_left_alone(tmp_path):
    write(tmp_path, "not: yaml: at all", "README.md")
    write(tmp_path, "not: yaml: at all", ".hidden.yaml")
    assert list(load_catalog(tmp_path).types) == BUILT_IN


def test_all_problems_of_all_files_are_told_with_file_line_and_field(tmp_path):
    write(
        tmp_path,
        """\
        name: Mine
        title: Mine
        descripton: A thing of mine
        ports: [9090, "web:", 70000]
        detect:
          - source: a chart
            lables: {app: mine}
          - labels: {app: mine}
            scheme: ftp
        health:
          identity:
            - json: [1]
        holmesgpt:
          kind: instances
          toolsets: [a]
        """,
        "a.yaml",
    )
    write(tmp_path, "name: [", "b.yaml")
    write(tmp_path, "", "c.yaml")
    assert [re.sub(r"allowed are .*", "...", line) for line in complaints(tmp_path)] == [
        "a.yaml:3: descripton: there is no such field; did you mean 'description'? ...",
        "a.yaml:1: name: Expected `str` matching regex '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'",
        "a.yaml:1: file: the field 'description' is missing",
        "a.yaml:13: holmesgpt: Object missing required field `url`",
        "a.yaml:12: health.identity[0].json: Expected `object`, got `array`",
        "a.yaml:7: detect[0].lables: there is no such field; did you mean 'labels'? ...",
        "a.yaml:8: detect[1]: the field 'source' is missing",
        "a.yaml:9: detect[1].scheme: Invalid enum value 'ftp'",
        "b.yaml:2: file: not valid YAML: while parsing a flow node, did not find expected node content",
        "c.yaml:1: file: it is empty; a mapping is expected",
    ]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("ports: ['web:']", "5: ports[0]: 'web:' is not a port"),
        ("ports: [70000]", "5: ports[0]: 70000 is not a port"),
        ("detect: [{source: x, ports: [80]}]", "5: detect[0]: a rule needs labels, selector or names"),
        (
            "detect: [{source: x, labels: {app: ''}, ports: [80]}]",
            "5: detect[0]: a rule needs labels, selector or names",
        ),
        ("detect: [{source: x, labels: {app: mine}}]", "5: detect[0]: a rule needs ports"),
        ("detect: [{source: x, names: [mine], ports: [web]}]", "5: detect[0].ports: a rule by Service name needs"),
        ("detect: [{source: x, labels: {app: 'a*b'}, ports: [80]}]", "5: detect[0].labels.app: '*' may stand only at"),
        ("detect: 7", "5: detect: Expected `array`, got `int`"),
        ("health: {identity: [{body: '('}]}", "5: health.identity[0].body: not a regular expression"),
        ("health: {identity: [{json: {version: x}}]}", "5: health.identity[0].json: 'version' is not a JSON pointer"),
        ("health: {identity: [{absent: [version]}]}", "5: health.identity[0].absent: 'version' is not a JSON pointer"),
        ("health: {identity: [{headers: {x: '['}}]}", "5: health.identity[0].headers.x: not a regular expression"),
        ("health: {identity: [{path: 'x y'}]}", "5: health.identity[0].path: 'x y' is not a path"),
        ("health: {path: ready}", "5: health.path: 'ready' is not a path"),
        ("path: /x/", "5: path: Expected `str` matching regex"),
        ("peers: maybe", "5: peers: Expected `bool`"),
    ],
)
def test_contradictions(tmp_path, more, complaint):
    (line,) = complaints(write(tmp_path, MINIMAL + more + "\n"))
    assert line.startswith(f"mine.yaml:{complaint}")


@pytest.mark.parametrize(
    ("binding", "complaint"),
    [
        ("{kind: http, instructions: 'Ask {url}'}", "holmesgpt.instructions: only {base} is replaced"),
        ("{kind: http, instructions: '{{ env.SECRET }}'}", "holmesgpt.instructions: '{{' and '{%'"),
        ("{kind: http, instructions: x, healthPath: up}", "holmesgpt.healthPath: 'up' is not a path"),
        ("{kind: instances, toolsets: [], url: api_url}", "holmesgpt.toolsets: at least one"),
        ("{kind: stdio}", "holmesgpt.kind: Invalid value 'stdio'"),
    ],
)
def test_contradictions_in_the_use(tmp_path, binding, complaint):
    (line,) = complaints(write(tmp_path, MINIMAL.replace("{kind: mcp}", binding)))
    assert line.startswith(f"mine.yaml:4: {complaint}")


def test_a_name_twice_in_one_folder(tmp_path):
    write(tmp_path, MINIMAL, "a.yaml")
    assert complaints(write(tmp_path, MINIMAL, "b.yaml")) == ["b.yaml:1: name: 'mine' is also the name in a.yaml"]


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert complaints(tmp_path) == ["folder.yaml:1: file: Is a directory"]


def test_a_file_that_is_too_large(tmp_path):
    (line,) = complaints(write(tmp_path, "#" * (MAX_FILE_BYTES + 1)))
    assert line.startswith("mine.yaml:1: file: ")


def test_characters_that_are_no_yaml(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"name: \xff\xfe\x00")
    assert complaints(tmp_path) == ["a.yaml:1: file: this is not UTF-8"]


@pytest.mark.parametrize("value", ["2001-99-99", "!!bool x", ":".join(["1"] * 180) + ".5"])
def test_a_value_that_does_not_fit_its_type(tmp_path, value):
    (line,) = complaints(write(tmp_path, f"name: {value}\n"))
    assert line.startswith("mine.yaml:1: name: ")
    assert "in quotes" in line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested more than 32 deep"),
        ("{a: " * 50_000, "nested more than 32 deep"),
        (
            "a0: &a0 {a: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{f'*a{n}, ' * 9}]}}\n" for n in range(9)),
            "more than",
        ),
        ("a: &a [*a]\n", "the alias *a has no anchor before it, or stands in it"),
        ("name: a\nname: b\n", "this name is there twice"),
    ],
    ids=["lists", "mappings", "merged", "in itself", "twice"],
)
def test_a_file_is_read_in_bounded_time_whatever_it_holds(tmp_path, text, why):
    began = time.monotonic()
    assert why in complaints(write(tmp_path, text))[0]
    assert time.monotonic() - began < 5


def test_nobody_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert complaints(tmp_path) == [
        "loop.yaml:1: file: Too many levels of symbolic links",
        "pipe.yaml:1: file: not a regular file",
        "zero.yaml:1: file: not a regular file",
    ]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CatalogError, match="there is no such folder"):
        load_catalog(tmp_path / "missing")
    with pytest.raises(CatalogError, match="catalogFolder: File name too long"):
        load_catalog(tmp_path / ("a" * 256))


GUIDE = Path(__file__).parents[3] / "docs" / "service-types.md"


def test_the_example_of_the_guide_works(tmp_path):
    guide = GUIDE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(# catalog/.*?)```", guide, re.DOTALL)
    types = load_catalog(write(tmp_path, example))
    detector = Detector(types, Settings())
    own = ".name=pyroscope .component=all .instance=p"
    found = detector.detect(service("pyroscope", own, "http2:4040>http2 grpc:9095", own))
    assert (found.outcome, found.type) == (Outcome.CANDIDATE, "pyroscope")
    assert found.endpoint == "http://pyroscope.shop.svc.cluster.local:4040"
    inner = ".name=pyroscope .component=ingester .instance=p"
    assert detector.detect(service("pyroscope-ingester", inner, "http2:4040", inner)).outcome is Outcome.IGNORED


def test_the_guide_names_every_field():
    from msgspec.structs import fields

    from dynamic_toolset.discovery.catalog import Rule, ServiceType
    from dynamic_toolset.model import HealthCheck, Identity

    guide = GUIDE.read_text(encoding="utf-8")
    structs = (ServiceType, Rule, HealthCheck, Identity, InstancesBinding, HttpBinding, McpBinding)
    names = {field.encode_name for struct in structs for field in fields(struct)}
    assert [name for name in sorted(names) if f"`{name}`" not in guide] == []


def test_the_guide_lists_every_type():
    guide = GUIDE.read_text(encoding="utf-8")
    assert [name for name in BUILT_IN if f"| `{name}` |" not in guide] == []
