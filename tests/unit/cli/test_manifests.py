"""Reading manifests: whatever a person pipes in, each Service is read or named as wrong, and nothing hangs."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from dynamic_toolset.cli.manifests import MAX_DEPTH, ManifestError, Manifests, read
from tests.unit.cli.conftest import PROMETHEUS, WEB

Write = Callable[..., str]


def keys(manifests: Manifests) -> list[str]:
    return [str(service.metadata.key) for service in manifests.services]


def service(name: str, **metadata: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": name, "namespace": "n", **metadata}}


@pytest.mark.parametrize(
    "text",
    [
        PROMETHEUS + "---\n" + WEB,
        (PROMETHEUS + "---\n" + WEB).replace("\n", "\r\n"),
        "\ufeff" + PROMETHEUS + "---\n" + WEB,
        "---\n---\n" + PROMETHEUS + "---\n# nothing\n---\n" + WEB + "...\n",
    ],
    ids=["documents", "CRLF", "byte order mark", "empty documents"],
)
def test_several_documents(manifest: Write, text: str) -> None:
    found = read([manifest(text)])
    assert keys(found) == ["monitoring/prometheus", "shop/web"]
    assert found.problems == found.warnings == ()
    assert found.services[0].spec.ports is not None
    assert found.services[0].spec.ports[0].port == 9090


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_as_powershell_writes_it(manifest: Write, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    assert keys(read([manifest((mark + WEB).encode(encoding))])) == ["shop/web"]


A, B = service("a"), service("b")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"kind": "List", "apiVersion": "v1", "items": [A, B]}),
        json.dumps({"kind": "List", "apiVersion": "v1", "items": [A, B]}, indent="\t"),
        json.dumps(A) + "\n" + json.dumps(B) + "\n",
        json.dumps(A, indent=2) + json.dumps(B, indent=2),
        json.dumps({"kind": "ServiceList", "apiVersion": "v1", "items": [{"metadata": o["metadata"]} for o in (A, B)]}),
        json.dumps({"kind": "List", "items": [{"kind": "List", "items": [A]}, {"kind": "List", "items": [B]}]}),
        f"{json.dumps(A)}\n---\n{json.dumps(B)}\n",
        "kind: ServiceList\nitems:\n- metadata: {name: a, namespace: n}\n- metadata: {name: b, namespace: n}\n",
        """{kind: List, items: [{kind: Service, metadata: {name: a, namespace: n}}, null,
            {kind: Service, metadata: {name: b, namespace: n}}]}""",
    ],
    ids=["List", "tabs", "jq -c", "jq", "typed list", "Lists in a List", "documents", "YAML typed list", "flow style"],
)
def test_lists_and_json(manifest: Write, text: str) -> None:
    found = read([manifest(text)])
    assert keys(found) == ["n/a", "n/b"]
    assert found.problems == found.warnings == ()


def test_json_keeps_what_yaml_would_not_take(manifest: Write) -> None:
    text = json.dumps(service("a", annotations={"note": "\U0001f600"}))  # as a pair of surrogates, which YAML refuses
    assert read([manifest(text)]).services[0].metadata.annotations == {"note": "\U0001f600"}


@pytest.mark.parametrize(
    "text",
    ["", "\n", "# nothing\n", "kind: List\nitems: null\n", "kind: List\n", "kind: ServiceList\nitems: []\n", "null\n"],
)
def test_nothing_in_it_is_worth_a_word(manifest: Write, text: str) -> None:
    found = read([manifest(text, "empty.yaml")])
    assert found.services == found.problems == ()
    assert found.warnings == ("empty.yaml: there is no Service in it",)


@pytest.mark.parametrize(
    "text",
    [
        "kind: Deployment\nmetadata: {name: a}\n",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n",
        "apiVersion: serving.knative.dev/v1\nkind: ServiceList\nitems: [{metadata: {name: a}}]\n",
        "kind: PodList\nitems: [{metadata: {name: a}}]\n",
        "kind: 5\n",
        "kind: [Service]\n",
    ],
)
def test_other_kinds_are_passed_over(manifest: Write, text: str) -> None:
    found = read([manifest(text + "---\n" + WEB)])
    assert keys(found) == ["shop/web"]
    assert found.problems == found.warnings == ()


def test_without_a_namespace_it_is_the_default_one(manifest: Write) -> None:
    text = "kind: Service\nmetadata: {name: a}\n---\nkind: Service\nmetadata: {name: b, namespace: ''}\n"
    assert keys(read([manifest(text)])) == ["default/a", "default/b"]


def test_a_date_is_text_as_it_is_for_kubernetes(manifest: Write) -> None:
    text = "kind: Service\nmetadata: {name: a, labels: {since: 2024-01-31, never: 2024-13-45}}\n"
    assert read([manifest(text)]).services[0].metadata.labels == {"since": "2024-01-31", "never": "2024-13-45"}


def test_aliases_and_merge_keys_work(manifest: Write) -> None:
    text = (
        "kind: List\nitems:\n- kind: Service\n  metadata: {name: a, namespace: &n shop, labels: &l {app: x}}\n"
        "- kind: Service\n  metadata: {name: b, namespace: *n, labels: {<<: *l, tier: y}}\n"
    )
    found = read([manifest(text)])
    assert keys(found) == ["shop/a", "shop/b"]
    assert found.services[1].metadata.labels == {"app": "x", "tier": "y"}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("kind: Service\nmetadata: {name: x}\nspec: {ports: none}", "Service x: spec.ports: expected `array | null`"),
        ("kind: Service\nmetadata: {name: x}\nspec: {ports: [{port: http}]}", "Service x: spec.ports[0].port: exp"),
        ("kind: Service\nmetadata: {name: x, labels: {a: 1}}", "Service x: metadata.labels[...]: expected `str`"),
        ("kind: Service\nmetadata: {name: x, labels: [a]}", "Service x: metadata.labels: expected `object | null`"),
        ("kind: Service\nmetadata: {name: 5}", "Service 5: metadata.name: expected `str`, got `int`"),
        ("kind: Service\nmetadata: {name: ''}", "Service without a name: metadata.name is empty"),
        ("kind: Service\nmetadata: {}", "Service without a name: metadata: object missing required field `name`"),
        ("kind: Service\nmetadata: x", "Service without a name: metadata: expected `object`, got `str`"),
        ("kind: Service", "Service without a name: object missing required field `metadata`"),
        ("name: x", "an object without kind"),
        ("[1]", "an object is expected, not list"),
        ("just words", "an object is expected, not str"),
    ],
)
def test_a_bad_object_harms_only_itself(manifest: Write, bad: str, problem: str) -> None:
    found = read([manifest(f"{PROMETHEUS}---\n{bad}\n---\n{WEB}", "x.yaml")])
    assert keys(found) == ["monitoring/prometheus", "shop/web"]
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"x.yaml, document 2: {problem}")


def test_a_bad_item_is_named_by_its_number(manifest: Write) -> None:
    found = read([manifest("kind: List\nitems: [{kind: Service, metadata: {name: a}}, 5, {}]", "x.yaml")])
    assert keys(found) == ["default/a"]
    assert found.problems == (
        "x.yaml, document 1, item 2: an object is expected, not int",
        "x.yaml, document 1, item 3: an object without kind",
    )


def test_items_that_are_no_list(manifest: Write) -> None:
    assert keys(read([manifest("kind: List\nitems: {kind: Service, metadata: {name: a}}")])) == ["default/a"]


def test_the_same_service_twice_is_told(manifest: Write) -> None:
    found = read([manifest(WEB, "one.yaml"), manifest(PROMETHEUS + "---\n" + WEB, "two.yaml")])
    assert keys(found) == ["shop/web", "monitoring/prometheus", "shop/web"]
    assert found.warnings == (
        "two.yaml, document 2: Service shop/web is there already (one.yaml, document 1); the last one counts",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "x.yaml: not UTF-8 at byte 0"),
        (b"kind: Service # gr\xe4fana", "x.yaml: not UTF-8 at byte 18"),
        (b"\xff\xfea", "x.yaml: not UTF-8 at byte"),
        (b"kind: Service\n\tmetadata: x", "x.yaml:2: not YAML: while scanning a plain scalar, found a tab character"),
        (b"a: [", "x.yaml:2: not YAML: while parsing a flow node, did not find expected node content"),
        (b'{"kind": "Service", "metadata": {"na', "x.yaml:1: not YAML: while scanning a quoted scalar"),
        (b"a: {{ .Values.name }}", "x.yaml:1: not YAML: while constructing a mapping, found unhashable key"),
        (b"a: \x01", "x.yaml: not YAML: unacceptable character"),
        (b"a: !Ref b", "x.yaml:1: not YAML: could not determine a constructor for the tag '!Ref'"),
        (b"a: !!int b", "x.yaml: a value does not fit its tag: invalid literal for int()"),
        (b"a: !!bool b", "x.yaml: a value does not fit its tag: 'b'"),
        (b"a: 1" + b":1" * 180 + b".5", "x.yaml: a value does not fit its tag: int too large to convert to float"),
        (b"a: !!timestamp 2001-99-99", "x.yaml: a value does not fit its tag: month must be in 1..12"),
        (b"{" + b'"a": ' + b"1" * 5000 + b"}", "x.yaml: a value does not fit its tag: Exceeds the limit"),
    ],
)
def test_what_cannot_be_read_at_all(manifest: Write, content: bytes, message: str) -> None:
    with pytest.raises(ManifestError) as error:
        read([manifest(content, "x.yaml")])
    assert str(error.value).startswith(message)


def test_a_file_that_is_not_there_and_a_folder(manifest: Write) -> None:
    with pytest.raises(ManifestError, match=r"^nowhere\.yaml: No such file or directory$"):
        read(["nowhere.yaml"])
    with pytest.raises(ManifestError, match=r"^\.: Is a directory$"):
        read(["."])


def _grown(item: str, last: str) -> str:
    """Nine lines, each of which stands for ten times the one before."""
    lines = ["l0: &l0 " + item.format("x")]
    lines += [f"l{n}: &l{n} {item.format(', '.join([f'*l{n - 1}'] * 10))}" for n in range(1, 10)]
    return "\n".join(lines) + "\n" + last


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_grown("[{}]", "kind: Service\nmetadata: {name: a}\nspec: *l9\n"), "x.yaml:7: the aliases stand for more"),
        (_grown("{{kind: List, items: [{}]}}", "kind: List\nitems: *l9\n"), "x.yaml:7: the aliases stand for more"),
        (
            "m0: &m0 {a: 1}\n"
            + "\n".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 30)}]}}" for n in range(1, 9)),
            "x.yaml:5: the aliases stand for more",
        ),
        ("&me\nkind: List\nitems: [*me]\n", "x.yaml:3: the alias *me has no anchor before it"),
        ("a: &a b\n---\nc: *a\n", "x.yaml:3: the alias *a has no anchor before it"),
        ("[" * 200_000, "x.yaml: nested too deep"),
        ("a: " + "[" * 200_000, f"x.yaml:1: nested more than {MAX_DEPTH} deep"),
        ("- " * 200_000, f"x.yaml:1: nested more than {MAX_DEPTH} deep"),
        ('{"a":' * 200_000, "x.yaml: nested too deep"),
        ('{"kind": "List", "items": [' * 900 + "]}" * 900, "x.yaml: nested too deep"),
    ],
    ids=["bomb", "Lists", "merge", "itself", "other document", "[[[", "a: [[[", "- - -", "JSON", "Lists in Lists"],
)
def test_a_bomb_is_refused_and_does_not_go_off(manifest: Write, text: str, message: str) -> None:
    with pytest.raises(ManifestError) as error:
        read([manifest(text, "x.yaml")])
    assert str(error.value).startswith(message)


def test_a_large_cluster_is_read(manifest: Write) -> None:
    names = [f"s{number}" for number in range(20_000)]
    found = read([manifest(json.dumps({"kind": "List", "items": [service(name) for name in names]}))])
    assert keys(found) == [f"n/{name}" for name in names]
