"""The documents that are published, which an agent can load at any time."""

import json
from collections.abc import Mapping

import yaml

from tests.e2e.program import Program


def documents(subject: Program) -> dict[str, str]:
    """Return the documents that are published, after ``check_documents``."""
    return check_documents((subject.published() or {}).get("data") or {})


def check_documents(data: Mapping[str, str]) -> dict[str, str]:
    """Return the documents of a ConfigMap after a check that there are both or none, and that each can be loaded."""
    found = {key: data[key] for key in ("custom_toolset.yaml", "toolset.json") if key in data}
    if "custom_toolset.yaml" in found:
        assert isinstance(yaml.load(found["custom_toolset.yaml"], yaml.CSafeLoader)["toolsets"], dict)
    if "toolset.json" in found:
        assert isinstance(json.loads(found["toolset.json"])["tools"], list)
    assert len(found) in (0, 2), "both documents are written at once"
    return found
