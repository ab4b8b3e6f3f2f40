"""Which settings the ``spec`` of a ToolsetConfig takes, and what is wrong with one. Pure.

It takes all but those of the process: what it reads from files, which ToolsetConfig and which Lease are its own, where
it listens, and which clusters it has credentials for. Who may write a ToolsetConfig decides what is discovered and
published, not what the process may read, nor who may call it.
"""

from dynamic_toolset.settings.model import leaves
from dynamic_toolset.settings.problems import SettingProblem, problems_apart_from

PROCESS_SETTINGS = ("catalogFolder", "healthCheck.caFile", "toolsetConfig", "clusters", "leaderElection", "server")
"""The paths of the settings, and of the groups, that ``spec`` does not take."""

RESOURCE_FIELDS = tuple(
    path
    for path, _ in leaves()
    if path not in PROCESS_SETTINGS and not path.startswith(tuple(f"{group}." for group in PROCESS_SETTINGS))
)
"""The paths of the settings that ``spec`` takes, in the order of the model."""

_WHY_NOT = "belongs to the process: set it in its file, environment or options"


def problems_of_spec(spec: object) -> tuple[SettingProblem, ...]:
    """Return everything that is wrong with the ``spec`` of a ToolsetConfig, in its order; nothing if it can be used.

    The words are those for a settings file. A spec without problems can be a ``Resource``.
    """
    return problems_apart_from(spec, PROCESS_SETTINGS, _WHY_NOT)
