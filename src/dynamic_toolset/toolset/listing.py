"""Which candidates are in the toolset."""

from dynamic_toolset.model import Candidate, Health, Verdict
from dynamic_toolset.settings import ToolsetSettings
from dynamic_toolset.toolset.generic import Published
from dynamic_toolset.toolset.holmesgpt import has_credentials


def is_listed(candidate: Candidate, health: Health, published: Published, settings: ToolsetSettings) -> bool:
    """Whether a candidate is in the toolset.

    Healthy ones are. One whose verdict is not known yet counts as it was last published. One that asks for
    credentials is listed when the operator named the credentials that the agent has for it: we have none ourselves.
    """
    if health.verdict is Verdict.UNKNOWN:
        return (candidate.key, candidate.type) in published
    return health.verdict is Verdict.HEALTHY or (health.needs_credentials and has_credentials(candidate, settings))
