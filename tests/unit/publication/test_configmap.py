"""The difference between the ConfigMap that is there and the one that should be."""

import pytest

from dynamic_toolset.kube.objects import ConfigMap, ObjectMeta
from dynamic_toolset.model import Document
from dynamic_toolset.publication.configmap import LABELS, MAX_BYTES, DocumentsTooLarge, manifest, says
from dynamic_toolset.settings import ConfigMapSettings

SETTINGS = ConfigMapSettings(name="target", namespace="here")
DOCUMENTS = (Document("a.yaml", "a: 1\n"), Document("b.json", "{}"))


def config_map(data: dict[str, str] | None, labels: dict[str, str] | None) -> ConfigMap:
    return ConfigMap(ObjectMeta("target", "here", resource_version="7", labels=labels), data)


SAME = {"a.yaml": "a: 1\n", "b.json": "{}"}


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(None, False, id="there is none"),
        pytest.param(config_map(None, None), False, id="it is empty"),
        pytest.param(config_map(SAME, dict(LABELS)), True, id="it says the same"),
        pytest.param(config_map({**SAME, "x": "y"}, {**LABELS, "team": "sre"}), True, id="and foreign things"),
        pytest.param(config_map({**SAME, "b.json": "{ }"}, dict(LABELS)), False, id="a hand edit"),
        pytest.param(config_map({"a.yaml": "a: 1\n"}, dict(LABELS)), False, id="a key was deleted"),
        pytest.param(config_map(SAME, {"team": "sre"}), False, id="our label was deleted"),
    ],
)
def test_nothing_is_written_only_if_the_configmap_says_it_already(present: ConfigMap | None, expected: bool) -> None:
    assert says(present, DOCUMENTS) is expected


def test_the_applied_object_speaks_only_of_what_is_ours() -> None:
    present = config_map({"overrides.yaml": "theirs", "foreign": "theirs"}, {"team": "sre"})
    assert manifest(SETTINGS, DOCUMENTS, present) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "target", "namespace": "here", "labels": dict(LABELS), "resourceVersion": "7"},
        "data": SAME,
    }


def test_a_new_configmap_carries_no_precondition() -> None:
    assert "resourceVersion" not in manifest(SETTINGS, DOCUMENTS)["metadata"]


def test_the_size_counts_what_is_there_already_and_bytes_not_characters() -> None:
    fits = Document("a.yaml", "ä" * ((MAX_BYTES - len("a.yaml")) // 2))
    manifest(SETTINGS, [fits])
    with pytest.raises(DocumentsTooLarge, match=r"would hold 900 KiB .*may hold 900 KiB; leave namespaces out"):
        manifest(SETTINGS, [fits], config_map({"overrides.yaml": "theirs"}, None))


def test_a_document_that_shrinks_is_not_counted_twice() -> None:
    present = config_map({"a.yaml": "x" * (MAX_BYTES - 10)}, None)
    assert manifest(SETTINGS, [Document("a.yaml", "small")], present)["data"] == {"a.yaml": "small"}
