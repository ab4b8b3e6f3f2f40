"""What a pass has changed, as log events."""

import structlog

from dynamic_toolset.model import DiscoveredService, Report

log = structlog.get_logger()


def log_changes(old: Report | None, new: Report) -> None:
    """Log one event for each service whose listing or health changed, and for each problem that came or went."""
    before = {one.candidate.key: one for one in old.discovered} if old else {}
    for one in new.discovered:
        was = before.pop(one.candidate.key, None)
        if was is None or (was.listed, was.health.verdict) != (one.listed, one.health.verdict):
            log.info("service_listed" if one.listed else "service_not_listed", **_fields(one))
    for gone in before.values():
        log.info("service_gone", **_fields(gone))
    for problem in new.problems:
        if old is None or problem not in old.problems:
            log.warning("problem", reason=problem.reason, message=problem.message)
    for problem in old.problems if old else ():
        if all(problem.reason != still.reason for still in new.problems):
            log.info("problem_solved", reason=problem.reason)


def _fields(one: DiscoveredService) -> dict[str, str]:
    return {
        "service": str(one.candidate.key),
        "type": one.candidate.type,
        "endpoint": one.candidate.endpoint.url,
        "health": one.health.verdict.value,
        "reason": one.health.reason,
    }
