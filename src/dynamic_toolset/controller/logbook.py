"""What a pass has changed, and what led to it: pure. The same words go into the log, the history and the stream."""

import difflib
from collections.abc import Collection, Iterator
from difflib import Match

import structlog

from dynamic_toolset.model import Change, Decision, DiscoveredService, Document, EventName, Report, ServiceKey
from dynamic_toolset.toolset import holmesgpt

log = structlog.get_logger()

MAX_DIFF_LINES = 400
"""Lines of a diff that are kept; it says how many there are more."""

MAX_COMPARED_LINES = 20_000
"""Lines of both texts together up to which a diff is made: comparing takes longer than in proportion."""

MAX_COMPARISONS = 5_000_000
"""Lines, and pairs of equal ones, that are looked at for one diff, in less than a second. Texts of 10,000 lines of
which each is there a hundred times would take more than a minute, in which the event loop stands still."""

MAX_DIFF_CHARACTERS = 40_000
"""Characters of a diff that are kept: a line may be as long as whoever wrote it liked."""

START = "the start"
"""The cause of what is found when the service begins to look."""

_NAMED = 3
"""How many Services the cause of a publication names."""


def changes(
    old: Report | None, new: Report, events: Collection[ServiceKey] = (), *, is_first: bool = False
) -> tuple[Change, ...]:
    """Return a change for each service whose listing or health changed, and for each problem that came or went.

    ``events`` are the Services of which an event has arrived since the pass before: where one changed, that is why. In
    the first pass there is one of each, of which nothing follows but that we have just begun to look.
    """
    return (*_services(old, new, () if is_first else events, is_first=is_first), *_problems(old, new))


def publication(old: Report | None, new: Report, led_by: Collection[Change], written: str) -> Change:
    """Return the change that a publication is; ``led_by`` are the other changes of its pass."""
    before = _text(old.documents if old else ())
    return Change(
        "published",
        message=written,
        cause=_cause_of_publication(old, new, led_by),
        diff=diff(before, _text(new.documents)),
    )


def diff(before: str, after: str, was: str = "before", now: str = "after") -> str:
    """Return the unified diff of two texts, of bounded length; empty if no line changed. ``was``, ``now`` name them."""
    if before == after:
        return ""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > MAX_COMPARED_LINES:
        return f"(from {len(old)} to {len(new)} lines: too many to compare)"
    try:
        lines = list(_unified(old, new, was, now))
    except _TooMany:
        return f"(from {len(old)} to {len(new)} lines, too often alike: too many to compare)"
    if len(lines) > MAX_DIFF_LINES:
        lines = [*lines[:MAX_DIFF_LINES], f"... and {len(lines) - MAX_DIFF_LINES} lines more"]
    text = "\n".join(lines)
    if len(text) > MAX_DIFF_CHARACTERS:
        text = f"{text[:MAX_DIFF_CHARACTERS]}...\n... and {len(text) - MAX_DIFF_CHARACTERS} characters more"
    return text


class _TooMany(Exception):
    pass


class _Comparison(difflib.SequenceMatcher[str]):
    """Compares lines as difflib does. Raises _TooMany when that has taken MAX_COMPARISONS."""

    b2j: dict[str, list[int]]
    """Where each line is in ``new``, save those that are there so often that difflib passes over them."""

    def __init__(self, old: list[str], new: list[str]) -> None:
        self._left = MAX_COMPARISONS
        super().__init__(None, old, new)
        self._costs = [1 + len(self.b2j.get(line, ())) for line in old]

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        self._left -= sum(self._costs[alo:ahi])
        if self._left < 0:
            raise _TooMany
        return super().find_longest_match(alo, ahi, blo, bhi)


def _unified(old: list[str], new: list[str], was: str, now: str) -> Iterator[str]:
    """Yield the lines of ``difflib.unified_diff``, which takes as long as it takes."""
    groups = list(_Comparison(old, new).get_grouped_opcodes(3))
    if groups:
        yield from (f"--- {was}", f"+++ {now}")
    for group in groups:
        (_, old_start, _, new_start, _), (_, _, old_end, _, new_end) = group[0], group[-1]
        yield f"@@ -{_range(old_start, old_end)} +{_range(new_start, new_end)} @@"
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                yield from (f" {line}" for line in old[old_from:old_to])
            else:
                yield from (f"-{line}" for line in old[old_from:old_to])
                yield from (f"+{line}" for line in new[new_from:new_to])


def _range(start: int, end: int) -> str:
    """Return lines as a unified diff names them: the first, counted from 1, and how many if that is not one."""
    length = end - start
    return f"{start + 1}" if length == 1 else f"{start + (length > 0)},{length}"


def write(changes: Collection[Change]) -> None:
    """Log changes: one event for each, at the level of a warning for a problem."""
    for change in changes:
        if change.event == "problem":
            log.warning("problem", reason=change.reason, message=change.message)
        elif change.event == "problem_solved":
            log.info("problem_solved", reason=change.reason)
        elif change.service is not None:
            log.info(
                change.event,
                service=str(change.service),
                namespace=change.service.namespace,
                type=change.type,
                endpoint=change.endpoint,
                health=change.health,
                reason=change.reason,
                cause=change.cause,
            )


def _services(old: Report | None, new: Report, events: Collection[ServiceKey], *, is_first: bool) -> Iterator[Change]:
    before = {one.candidate.key: one for one in old.discovered} if old else {}
    for one in new.discovered:
        was = before.pop(one.candidate.key, None)
        if was is None or (was.listed, was.health.verdict) != (one.listed, one.health.verdict):
            event: EventName = "service_listed" if one.listed else "service_not_listed"
            yield _change(event, one, START if is_first else _cause(was, one, events))
    for gone in before.values():
        yield _change("service_gone", gone, _cause_of_end(gone, new.decisions.get(gone.candidate.key), events))


def _problems(old: Report | None, new: Report) -> Iterator[Change]:
    for problem in new.problems:
        if old is None or problem not in old.problems:
            yield Change("problem", reason=problem.reason, message=problem.message)
    solved = {problem.reason: problem.message for problem in (old.problems if old else ())}
    for problem in new.problems:
        solved.pop(problem.reason, None)
    for reason, message in solved.items():
        yield Change("problem_solved", reason=reason, message=message)


def _change(event: EventName, one: DiscoveredService, cause: str) -> Change:
    return Change(
        event,
        one.candidate.key,
        one.candidate.type,
        one.candidate.endpoint.url,
        one.health.verdict.value,
        one.health.reason,
        cause=cause,
    )


def _cause(was: DiscoveredService | None, now: DiscoveredService, events: Collection[ServiceKey]) -> str:
    key = now.candidate.key
    if key in events:
        return f"Service {key} was {'created' if was is None else 'changed'}"
    if was is None:
        return f"what else is in namespace {key.namespace} changed"
    if was.health != now.health:
        return f"a health check of Service {key}"
    return "how many services fail at once"


def _cause_of_end(gone: DiscoveredService, decision: Decision | None, events: Collection[ServiceKey]) -> str:
    key = gone.candidate.key
    if decision is None:
        return f"Service {key} was deleted"
    return f"Service {key} was changed: {decision.reason}" if key in events else decision.reason


def _cause_of_publication(old: Report | None, new: Report, led_by: Collection[Change]) -> str:
    causes = list(dict.fromkeys(change.cause for change in led_by if change.cause))
    if old is not None and old.overrides != new.overrides:
        causes.insert(0, "overrides.yaml was changed")
    if not causes:
        return START if old is None else "the ConfigMap did not say what it should"
    more = f", and {len(causes) - _NAMED} more" if len(causes) > _NAMED else ""
    return "; ".join(causes[:_NAMED]) + more


def _text(documents: Collection[Document]) -> str:
    return next((one.text for one in documents if one.key == holmesgpt.KEY), "")
