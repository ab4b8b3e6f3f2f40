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

MAX_BYTES = 900 * 1024
"""The most that the ConfigMap may hold in all: the API's own limit is 1 MiB for the whole object (core/v1, ConfigMap
``data``), and the difference leaves room for metadata."""


class DocumentsTooLarge(ValueError):
    """The documents do not fit into one ConfigMap. The message says how much there is and how much may be."""


def manifest(
    settings: ConfigMapSettings, documents: Sequence[Document], present: ConfigMap | None = None
) -> dict[str, Any]:
    """Return the object to apply.

    It carries the resourceVersion of ``present``, so that the API refuses it (409) if somebody, a person with an
    override say, has written in between.

    Raises DocumentsTooLarge.
    """
    data = {document.key: document.text for document in documents}
    _check_size(data, present)
    metadata: dict[str, Any] = {
        "name": settings.name,
        "namespace": settings.namespace,
        "labels": dict(LABELS),
    }
    if present is not None:
        metadata["resourceVersion"] = present.metadata.resource_version
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def says(present: ConfigMap | None, documents: Sequence[Document]) -> bool:
    """Whether the ConfigMap holds exactly these documents and our label already."""
    if present is None:
        return False
    data, labels = present.data or {}, present.metadata.labels or {}
    return all(data.get(document.key) == document.text for document in documents) and all(
        labels.get(name) == value for name, value in LABELS.items()
    )


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
