"""All documents of one pass."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from dynamic_toolset.model import DiscoveredService, Document, Effect, Problem
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset import generic, holmesgpt, overrides
from dynamic_toolset.toolset.safety import refused

NOT_APPLIED = "the setting configMap.preserveOverrides is false"
"""Why overrides that are there are not applied."""


class Rendered(Struct, frozen=True):
    """The documents, and what a person should know about them: whatever had to be left out, and why.

    ``effects`` says what each of the overrides did.
    """

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]
    effects: tuple[Effect, ...] = ()


def render(services: Sequence[DiscoveredService], settings: Settings, overrides_text: str | None) -> Rendered:
    """Return every document for the services that are listed, with the overrides applied.

    ``overrides_text`` is the content of the ConfigMap's key ``overrides.yaml``, or None without one. The same input
    in any order gives the same bytes. Raises OverridesError if the overrides cannot be used.

    Without the setting ``configMap.preserveOverrides`` they are not applied, whatever they are, and it is said so.
    """
    generated = holmesgpt.generate(services, settings.toolset, verify_tls=settings.health_check.verify_tls)
    ignored: tuple[Problem, ...] = ()
    if settings.config_map.preserve_overrides:
        changes = overrides.parse(overrides_text)
        effects = overrides.effects(generated, changes)
    else:
        changes = overrides.Overrides()
        effects, ignored = _ignored(generated, overrides_text)
    documents = (
        Document(holmesgpt.KEY, holmesgpt.serialize(overrides.apply(generated, changes))),
        Document(generic.KEY, generic.render(services, settings.toolset)),
    )
    problems = (
        *refused(services),
        *(Problem("BaseInvalid", f"{why}; it is left out") for why in holmesgpt.base_problems(settings.toolset)),
        *(Problem("OverrideWaiting", effect.message) for effect in effects if effect.kind == "waiting"),
        *ignored,
    )
    return Rendered(documents, problems, effects)


def _ignored(generated: dict[str, Any], text: str | None) -> tuple[tuple[Effect, ...], tuple[Problem, ...]]:
    """Return what whoever wrote overrides should know where none are applied, and that of each of them."""
    try:
        effects = overrides.not_applied(generated, overrides.parse(text), NOT_APPLIED)
    except overrides.OverridesError:
        effects = ()
    else:
        if not effects:
            return (), ()
    return effects, (Problem("OverridesIgnored", f"{overrides.KEY} is kept as it is, but not applied: {NOT_APPLIED}"),)
