"""The ConfigMap as it should be, and the difference to the one that is there. Pure.

Owned are the keys of the documents and one label, nothing else: ``overrides.yaml``, foreign keys, labels and
annotations stay as they are, because server-side apply only speaks of what is in the applied object
(kubernetes.io/docs/reference/using-api/server-side-apply/).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dynamic_toolset.kube.objects import ConfigMap
from dynamic_toolset.model import Document
from dynamic_toolset.settings import ConfigMapSettings

FIELD_MANAGER = "dynamic-toolset"

LABELS: Mapping[str, str] = {"kubernaut.io/managed-by": "dynamic-toolset"}

TAKEN_OVER_BY = "kubernaut.io/taken-over-by"
"""Annotation: the instance that wrote first after another one had lost the lease without giving it back."""

MAX_BYTES = 900 * 1024
"""The most that the ConfigMap may hold in all: the API's own limit is 1 MiB for the whole object (core/v1, ConfigMap
``data``), and the difference leaves room for metadata."""

NEVER = "1"
"""A resourceVersion that no object can have: it is that of the empty etcd, whose first write makes 2."""


class DocumentsTooLarge(ValueError):
    """The documents do not fit into one ConfigMap. The message says how much there is and how much may be."""


def manifest(settings: ConfigMapSettings, documents: Sequence[Document]) -> dict[str, Any]:
    """Return the ConfigMap as it should be.

    Raises DocumentsTooLarge.
    """
    data = _data(documents)
    _check_size(data, None)
    metadata = {"name": settings.name, "namespace": settings.namespace, "labels": dict(LABELS)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def application(
    settings: ConfigMapSettings, documents: Sequence[Document], present: ConfigMap | None, *, fence: str | None = None
) -> dict[str, Any]:
    """Return the object to apply, which the API refuses (409) unless the ConfigMap is still what ``present`` says.

    The resourceVersion refuses it when somebody has written since, a person with an override say. The API disregards
    it when the object is gone, and would create one; the uid refuses that too. If there is none yet, a version that
    no object has lets the API create it, and refuses to touch one that somebody else has created meanwhile.

    With a ``fence`` the write changes something even if the documents are there already, so that no write that
    builds on ``present`` can land after it.

    Raises DocumentsTooLarge.
    """
    body = manifest(settings, documents)
    metadata = body["metadata"]
    if present is None:
        metadata["resourceVersion"] = NEVER
    else:
        _check_size(body["data"], present)
        metadata["resourceVersion"] = present.metadata.resource_version
        metadata["uid"] = present.metadata.uid
    # An apply that changes nothing would leave the resourceVersion as it is. If this very fence is there already,
    # it is left out, which removes it.
    if fence is not None and (present is None or (present.metadata.annotations or {}).get(TAKEN_OVER_BY) != fence):
        metadata["annotations"] = {TAKEN_OVER_BY: fence}
    return body


def says(present: ConfigMap | None, documents: Sequence[Document]) -> bool:
    """Whether the ConfigMap holds exactly these documents and our label already."""
    return present is not None and not any(differences(present, documents))


def changers(present: ConfigMap | None, documents: Sequence[Document]) -> tuple[str, ...]:
    """Return who made the ConfigMap differ from these documents: field managers, or in words where none is left."""
    if present is None:
        return ("somebody who deletes it",)
    keys, labels = differences(present, documents)
    fields = [*(("data", key) for key in keys), *(("metadata", "labels", label) for label in labels)]
    owners = [one for one in present.metadata.managed_fields or () if any(one.owns(*field) for field in fields)]
    if names := sorted({one.manager for one in owners if (one.manager, one.operation) != (FIELD_MANAGER, "Apply")}):
        return tuple(names)
    # What is removed has no owner, and whoever applies as we do is called as we are.
    return ("another instance of this program",) if owners else ("somebody who leaves no name",)


def differences(present: ConfigMap | None, documents: Sequence[Document]) -> tuple[list[str], list[str]]:
    """Return the keys and the labels of ours that are missing or say something else."""
    data, labels = (present.data or {}, present.metadata.labels or {}) if present is not None else ({}, {})
    return (
        [document.key for document in documents if data.get(document.key) != document.text],
        [name for name, value in LABELS.items() if labels.get(name) != value],
    )


def foreign_keys(present: ConfigMap, documents: Sequence[Document]) -> tuple[str, ...]:
    """Return the keys of a ConfigMap that we have never written to, whose text is somebody else's work.

    None of them is if the ConfigMap has our label, as a restored one has, or if we have ever applied to it.
    """
    labels = present.metadata.labels or {}
    if all(labels.get(name) == value for name, value in LABELS.items()):
        return ()
    if any(one.manager == FIELD_MANAGER for one in present.metadata.managed_fields or ()):
        return ()
    data = present.data or {}
    return tuple(key for key, text in _data(documents).items() if data.get(key, "").strip() and data[key] != text)


def owners(present: ConfigMap, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the field managers that own any of these keys."""
    managed = present.metadata.managed_fields or ()
    return tuple(sorted({one.manager for one in managed if any(one.owns("data", key) for key in keys)}))


def _data(documents: Sequence[Document]) -> dict[str, str]:
    return {document.key: document.text for document in documents}


def _check_size(data: Mapping[str, str], present: ConfigMap | None) -> None:
    merged = {**((present and present.data) or {}), **data}
    size = sum(len(key) + len(text.encode()) for key, text in merged.items())
    if size > MAX_BYTES:
        ours = sum(len(text.encode()) for text in data.values())
        raise DocumentsTooLarge(
            f"the ConfigMap would hold {size // 1024} KiB (documents {ours // 1024} KiB, other keys "
            f"{(size - ours) // 1024} KiB), and may hold {MAX_BYTES // 1024} KiB; leave namespaces out with "
            "namespaces.exclude, or opt Services out with the annotation kubernaut.io/toolset: disabled"
        )
