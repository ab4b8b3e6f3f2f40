"""What is to be published, and the difference between the ConfigMap that is there and the one that should be."""

from collections.abc import Sequence

import msgspec
import pytest

from dynamic_toolset.kube.objects import ConfigMap, ManagedFields, OwnedMeta
from dynamic_toolset.model import Document
from dynamic_toolset.publication.configmap import (
    LABELS,
    MAX_BYTES,
    NEVER,
    TAKEN_OVER_BY,
    DocumentsTooLarge,
    application,
    changers,
    foreign_keys,
    manifest,
    owners,
    says,
)
from dynamic_toolset.settings import ConfigMapSettings

SETTINGS = ConfigMapSettings(name="target", namespace="here")
DOCUMENTS = (Document("a.yaml", "a: 1\n"), Document("b.json", "{}"))
SAME = {"a.yaml": "a: 1\n", "b.json": "{}"}
OURS = dict(LABELS)


def config_map(
    data: dict[str, str] | None,
    labels: dict[str, str] | None,
    *managed: ManagedFields,
    annotations: dict[str, str] | None = None,
) -> ConfigMap:
    metadata = OwnedMeta(
        "target",
        "here",
        uid="u-1",
        resource_version="7",
        labels=labels,
        annotations=annotations,
        managed_fields=managed or None,
    )
    return ConfigMap(metadata, data)


def managed(manager: str, *keys: str, operation: str = "Update", label: bool = False) -> ManagedFields:
    fields: dict[str, dict[str, object]] = {"f:data": {".": {}} | {f"f:{key}": {} for key in keys}}
    if label:
        fields["f:metadata"] = {"f:labels": {f"f:{name}": {} for name in LABELS}}
    return ManagedFields(manager, operation, fields)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(None, False, id="there is none"),
        pytest.param(config_map(None, None), False, id="it is empty"),
        pytest.param(config_map(SAME, OURS), True, id="it says the same"),
        pytest.param(config_map({**SAME, "x": "y"}, {**OURS, "team": "sre"}), True, id="and foreign things"),
        pytest.param(config_map(SAME, OURS, annotations={TAKEN_OVER_BY: "me"}), True, id="and a fence"),
        pytest.param(config_map({**SAME, "b.json": "{ }"}, OURS), False, id="a hand edit"),
        pytest.param(config_map({"a.yaml": "a: 1\n"}, OURS), False, id="a key was deleted"),
        pytest.param(config_map(SAME, {"team": "sre"}), False, id="our label was deleted"),
    ],
)
def test_nothing_is_written_only_if_the_configmap_says_it_already(present: ConfigMap | None, expected: bool) -> None:
    assert says(present, DOCUMENTS) is expected


def test_what_should_be_speaks_only_of_what_is_ours() -> None:
    assert manifest(SETTINGS, DOCUMENTS) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "target", "namespace": "here", "labels": OURS},
        "data": SAME,
    }


def test_what_is_applied_is_refused_unless_the_configmap_is_the_one_that_was_seen() -> None:
    present = config_map({"overrides.yaml": "theirs", "foreign": "theirs"}, {"team": "sre"})
    applied = application(SETTINGS, DOCUMENTS, present)
    desired = manifest(SETTINGS, DOCUMENTS)
    assert applied == desired | {"metadata": desired["metadata"] | {"resourceVersion": "7", "uid": "u-1"}}


def test_a_new_configmap_is_refused_if_there_is_one_already() -> None:
    metadata = application(SETTINGS, DOCUMENTS, None)["metadata"]
    assert metadata == {"name": "target", "namespace": "here", "labels": OURS, "resourceVersion": NEVER}


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(None, {TAKEN_OVER_BY: "me"}, id="there is none"),
        pytest.param(config_map(SAME, OURS), {TAKEN_OVER_BY: "me"}, id="first"),
        pytest.param(
            config_map(SAME, OURS, annotations={TAKEN_OVER_BY: "you", "note": "theirs"}),
            {TAKEN_OVER_BY: "me"},
            id="after another",
        ),
        pytest.param(config_map(SAME, OURS, annotations={TAKEN_OVER_BY: "me"}), None, id="the same again"),
    ],
)
def test_a_fence_always_changes_something(present: ConfigMap | None, expected: dict[str, str] | None) -> None:
    assert application(SETTINGS, DOCUMENTS, present, fence="me")["metadata"].get("annotations") == expected


def test_the_size_counts_what_is_there_already_and_bytes_not_characters() -> None:
    fits = Document("a.yaml", "ä" * ((MAX_BYTES - len("a.yaml")) // 2))
    application(SETTINGS, [fits], None)
    with pytest.raises(DocumentsTooLarge, match=r"would hold 900 KiB .*may hold 900 KiB; leave namespaces out"):
        application(SETTINGS, [fits], config_map({"overrides.yaml": "theirs"}, None))
    with pytest.raises(DocumentsTooLarge, match="would hold 900 KiB"):
        manifest(SETTINGS, [fits, Document("b.json", "{}")])


def test_a_document_that_shrinks_is_not_counted_twice() -> None:
    present = config_map({"a.yaml": "x" * (MAX_BYTES - 10)}, None)
    assert application(SETTINGS, [Document("a.yaml", "small")], present)["data"] == {"a.yaml": "small"}


MINE = managed("dynamic-toolset", "a.yaml", "b.json", operation="Apply", label=True)
EDITED = {**SAME, "a.yaml": "by hand"}


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(None, ("somebody who deletes it",), id="deleted"),
        pytest.param(config_map(EDITED, OURS, MINE, managed("kubectl-edit", "a.yaml")), ("kubectl-edit",), id="edited"),
        pytest.param(
            config_map(EDITED, OURS, managed("x", "notes"), managed("y", "b.json"), managed("z", "a.yaml")),
            ("z",),
            id="only who changed what differs",
        ),
        pytest.param(
            config_map({"a.yaml": "1", "b.json": "2"}, OURS, managed("b", "a.yaml"), managed("a", "b.json")),
            ("a", "b"),
            id="two of them",
        ),
        pytest.param(
            config_map(SAME, {next(iter(OURS)): "helm"}, MINE, managed("helm", label=True)),
            ("helm",),
            id="the label",
        ),
        pytest.param(
            config_map(EDITED, OURS, managed("dynamic-toolset", "a.yaml")), ("dynamic-toolset",), id="in our name"
        ),
        pytest.param(config_map(EDITED, OURS, MINE), ("another instance of this program",), id="as we do"),
        pytest.param(config_map({}, OURS, managed("x", "notes")), ("somebody who leaves no name",), id="removed"),
        pytest.param(config_map(EDITED, OURS), ("somebody who leaves no name",), id="nobody owns anything"),
        pytest.param(
            config_map(EDITED, OURS, ManagedFields("odd", "Update", {"f:data": 5}), ManagedFields("none")),
            ("somebody who leaves no name",),
            id="fields that make no sense",
        ),
    ],
)
def test_who_changed_it_is_named(present: ConfigMap | None, expected: tuple[str, ...]) -> None:
    assert changers(present, DOCUMENTS) == expected


def test_who_owns_what_is_read_as_the_api_writes_it_and_no_deeper_than_we_ask() -> None:
    deep = '{"f:x":' * 800 + "{}" + "}" * 800
    fields = f'{{"f:data":{{".":{{}},"f:a.yaml":{{}},"f:deep":{deep}}},"f:metadata":{{"f:labels":{{"f:ours":{{}}}}}}}}'
    text = f'{{"metadata":{{"name":"target","managedFields":[{{"manager":"helm","fieldsV1":{fields}}}]}}}}'
    one, other = (msgspec.json.decode(text, type=ConfigMap) for _ in range(2))

    def far_down(frames: int) -> bool:
        return far_down(frames - 1) if frames else one == other

    assert far_down(250)
    assert owners(one, ["a.yaml"]) == ("helm",)
    assert owners(one, ["b.json"]) == ()
    (entry,) = one.metadata.managed_fields or ()
    assert entry.owns("metadata", "labels", "ours")
    assert not entry.owns("metadata", "labels", "theirs")


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(config_map(EDITED, None, managed("helm", "a.yaml")), ["a.yaml"], id="other text"),
        pytest.param(config_map({"a.yaml": "x", "b.json": "y"}, None), ["a.yaml", "b.json"], id="both"),
        pytest.param(config_map(EDITED, {next(iter(OURS)): "somebody"}), ["a.yaml"], id="somebody else's label"),
        pytest.param(config_map(EDITED, OURS, managed("velero", "a.yaml")), [], id="restored: it has our label"),
        pytest.param(config_map(EDITED, None, managed("dynamic-toolset", "b.json")), [], id="we have applied to it"),
        pytest.param(config_map({"overrides.yaml": "theirs", "x": "y"}, None), [], id="prepared with overrides"),
        pytest.param(config_map({"a.yaml": "", "b.json": " \n"}, None), [], id="prepared with empty keys"),
        pytest.param(config_map(SAME, None), [], id="the very text"),
        pytest.param(config_map(None, None), [], id="empty"),
    ],
)
def test_a_text_of_somebody_else_is_found(present: ConfigMap, expected: Sequence[str]) -> None:
    assert list(foreign_keys(present, DOCUMENTS)) == expected


def test_the_owners_of_a_key_are_its_managers() -> None:
    present = config_map(SAME, None, managed("z", "a.yaml", "b.json"), managed("helm", "a.yaml"), managed("x", "c"))
    assert owners(present, ["a.yaml"]) == ("helm", "z")
    assert owners(config_map(SAME, None), ["a.yaml"]) == ()
