"""``dynamic-toolset generate``: the documents for the Services of manifests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dynamic_toolset.cli.failures import tell
from dynamic_toolset.cli.manifests import ManifestError, read
from dynamic_toolset.cli.setup import prepare
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.model import DiscoveredService, Document, Health, Outcome, Verdict
from dynamic_toolset.publication import configmap
from dynamic_toolset.toolset import documents, generic, holmesgpt

_UNTESTED = Health(Verdict.HEALTHY, "taken for healthy: nothing is checked without a cluster")


def run(
    files: Sequence[str], output: str, overrides: Path | None, config: Path | None, assignments: Sequence[str]
) -> None:
    """Print what would be published if every candidate answered. Exit status 1 if an object could not be used."""
    setup = prepare(config, assignments)
    manifests = read(files)
    decisions = Detector(setup.catalog, setup.settings, manifests.namespaces).discover(manifests.services)
    services = [
        DiscoveredService(decision.candidate, _UNTESTED, listed=True)
        for _key, decision in sorted(decisions.items())
        if decision.outcome is Outcome.CANDIDATE and decision.candidate
    ]
    rendered = documents.render(services, setup.settings, _text(overrides))
    texts = {document.key: document.text for document in rendered.documents}
    if output == "holmesgpt":
        print(texts[holmesgpt.KEY], end="")
    elif output == "generic":
        print(texts[generic.KEY], end="")
    elif output == "configmap":
        print(_block_style(configmap.manifest(setup.settings.config_map, rendered.documents)), end="")
    else:
        print("".join(_as_stream(document) for document in rendered.documents), end="")
    tell(manifests.warnings, (*manifests.problems, *(problem.message for problem in rendered.problems)))


def _text(file: Path | None) -> str | None:
    try:
        return file.read_text(encoding="utf-8") if file else None
    except OSError as error:
        raise ManifestError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file}: not UTF-8 at byte {error.start}") from None


def _as_stream(document: Document) -> str:
    end = "" if document.text.endswith("\n") else "\n"
    return f"---\n# {document.key}\n{document.text}{end}"


def _block_style(manifest: dict[str, Any]) -> str:
    """Render YAML with every text of several lines as a block, as a person would write it."""

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump(manifest, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000)
