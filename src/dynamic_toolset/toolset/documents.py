"""All documents of one pass."""

from collections.abc import Sequence

from msgspec import Struct

from dynamic_toolset.model import DiscoveredService, Document, Effect, Problem
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset import generic, holmesgpt, overrides
from dynamic_toolset.toolset.safety import refused


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
    """
    changes = overrides.parse(overrides_text)
    generated = holmesgpt.generate(services, settings.toolset, verify_tls=settings.health_check.verify_tls)
    documents = (
        Document(holmesgpt.KEY, holmesgpt.serialize(overrides.apply(generated, changes))),
        Document(generic.KEY, generic.render(services, settings.toolset)),
    )
    effects = overrides.effects(generated, changes)
    problems = (
        *refused(services),
        *(Problem("BaseInvalid", f"{why}; it is left out") for why in holmesgpt.base_problems(settings.toolset)),
        *(Problem("OverrideWaiting", effect.message) for effect in effects if effect.kind == "waiting"),
    )
    return Rendered(documents, problems, effects)
