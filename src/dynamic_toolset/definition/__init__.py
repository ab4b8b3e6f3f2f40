"""What is made from the settings for others to read: the CustomResourceDefinition, its reference page, a JSON Schema.

``files`` names all of it; ``python -m dynamic_toolset.definition FOLDER`` (``make generate``) writes it. All of it is
committed, for whoever installs or reads without running anything.
"""

import json
from collections.abc import Mapping

from dynamic_toolset.definition import crd, reference
from dynamic_toolset.settings.schema import json_schema


def files() -> Mapping[str, str]:
    """Return the text of each file by its path in the repository."""
    return {
        "deploy/crd.yaml": crd.manifest(),
        "docs/settings.schema.json": schema_text(),
        "docs/toolsetconfig.md": reference.page(),
    }


def schema_text() -> str:
    """Return the JSON Schema of the settings file as text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
