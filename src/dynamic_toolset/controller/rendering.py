"""The documents of a pass, and what stays as it was where there can be none."""

from collections.abc import Mapping

import structlog
from msgspec import Struct

from dynamic_toolset.kube.objects import ConfigMap
from dynamic_toolset.model import Candidate, DiscoveredService, Document, Effect, Problem
from dynamic_toolset.settings import Settings
from dynamic_toolset.toolset import documents, generic, holmesgpt, overrides

log = structlog.get_logger()


class Rendered(Struct, frozen=True):
    """The documents of one pass, what there is to say about them, and whether they are those of an earlier pass."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...] = ()
    effects: tuple[Effect, ...] = ()
    held: bool = False


NOTHING = Rendered(())


class Rendering:
    """Renders the documents, anew only where what they say may have changed.

    ``good`` are those that were published last. They stay while the overrides cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.good: tuple[Document, ...] = ()
        self._settings = settings
        self._source: tuple[tuple[Candidate, ...], str | None] | None = None
        self._outcome: documents.Rendered | Problem = documents.Rendered((), ())
        self._unusable: str | None = None

    def remember(self, present: ConfigMap | None) -> None:
        """Take what a ConfigMap holds for what is good."""
        data = data_of(present)
        self.good = tuple(Document(key, data[key]) for key in (holmesgpt.KEY, generic.KEY) if key in data)

    def render(self, discovered: tuple[DiscoveredService, ...], present: ConfigMap | None) -> Rendered:
        """Render the documents; with overrides that cannot be used, what was good last stays."""
        text = data_of(present).get(overrides.KEY)
        source = (tuple(one.candidate for one in discovered if one.listed), text)
        if source != self._source:  # most looks find nothing that an agent would read
            self._source, self._outcome = source, self._outcome_of(discovered, text)
        if isinstance(self._outcome, Problem):
            return Rendered(self.good, (self._outcome,), held=True)
        return Rendered(self._outcome.documents, self._outcome.problems, self._outcome.effects)

    def _outcome_of(self, discovered: tuple[DiscoveredService, ...], text: str | None) -> documents.Rendered | Problem:
        """Render the documents, or say what is wrong with the overrides."""
        try:
            return documents.render(discovered, self._settings, text)
        except overrides.OverridesError as error:
            why = str(error)
        except Exception as error:  # one text in one ConfigMap must not end the service for good
            documents.render(discovered, self._settings, None)  # raises what is not the overrides' fault
            if text != self._unusable:
                log.exception("overrides_unusable")
            self._unusable = text
            why = f"{overrides.KEY}: it cannot be used ({type(error).__name__}), for a reason that the log shows"
        return Problem("OverridesInvalid", f"{why}; what was published last stays until this is mended")


def data_of(present: ConfigMap | None) -> Mapping[str, str]:
    """Return what a ConfigMap holds by key: nothing, where there is none."""
    return (present.data if present is not None else None) or {}
