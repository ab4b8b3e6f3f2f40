"""The last look at a candidate before it is written where an agent reads it.

Detection lets nothing through that could harm. This is the second lock on the same door: a text that reached a
document could make the agent hand out a secret (``{{ env.X }}`` in any value), open a new heading in its prompt (a
line break in a name), or cost it the whole file (a ``.`` in a key). Such a Service is left out, and named.
"""

import re
from collections.abc import Iterable, Iterator

from dynamic_toolset.model import Candidate, DiscoveredService, HttpBinding, InstancesBinding, Problem
from dynamic_toolset.strict_yaml import scalar_problem
from dynamic_toolset.toolset.loadable import key_problem

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[a-z0-9.-]{1,253}|[0-9a-f:.]{2,45}")
_BASE_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def refusal(candidate: Candidate) -> str | None:
    """Return what in a candidate must not reach a document; None if all of it is harmless.

    Parts that come from the Service are held against an allow-list. The catalog's words may say what they like in
    one line (instructions: in several), but for ``{{``.
    """
    return next(_refusals(candidate), None)


def is_safe(candidate: Candidate) -> bool:
    """Whether nothing in a candidate would have to be refused."""
    return refusal(candidate) is None


def listed(services: Iterable[DiscoveredService]) -> list[Candidate]:
    """Return the candidates to render, sorted by key: those that are listed and safe."""
    chosen = (one.candidate for one in services if one.listed and is_safe(one.candidate))
    return sorted(chosen, key=lambda candidate: candidate.key)


def refused(services: Iterable[DiscoveredService]) -> tuple[Problem, ...]:
    """Return a problem for each service that is listed but not safe, sorted by key."""
    found = sorted((one.candidate.key, refusal(one.candidate) or "") for one in services if one.listed)
    return tuple(
        Problem("ServiceUnsafe", f"Service {ascii(str(key))[1:-1]} is left out of the documents: {why}")
        for key, why in found
        if why
    )


def _refusals(candidate: Candidate) -> Iterator[str]:
    endpoint, agent = candidate.endpoint, candidate.agent
    for what, pattern, value in (
        ("namespace", _LABEL, candidate.key.namespace),
        ("name", _LABEL, candidate.key.name),
        ("cluster", _LABEL, candidate.key.cluster or "own"),
        ("name for the agent", _LABEL, candidate.name),
        ("type", _LABEL, candidate.type),
        ("host", _HOST, endpoint.host),
        ("path", _BASE_PATH, endpoint.path),
    ):
        if not pattern.fullmatch(value):
            yield f"its {what} {_shown(value)} holds what is not allowed there"
    if endpoint.scheme not in {"http", "https"} or not 0 < endpoint.port < 65536:
        yield "its scheme or port does not exist"
    for what, text in (("title", candidate.title), ("description", candidate.description)):
        yield from _in_words(what, text)
    if isinstance(agent, HttpBinding):
        yield from _in_words("instructions", re.sub("[\n\t]", " ", agent.instructions))
        for path in (*agent.paths, agent.health_path or ""):
            yield from _in_words("path", path)
    elif isinstance(agent, InstancesBinding):
        keys = (agent.list, agent.name, agent.url, *agent.options, *agent.credentials.values(), agent.headers or "-")
        for key in (*agent.toolsets, *keys):
            why = key_problem(key)
            if why:
                yield why
        for option in agent.options.values():
            why = scalar_problem(option)
            if why:
                yield f"an option of its type: {why}"
            elif isinstance(option, str):
                yield from _in_words("option", option)


def _in_words(what: str, text: str) -> Iterator[str]:
    if "{{" in text or _CONTROL.search(text):
        yield f"the {what} {_shown(text)} of its type holds '{{{{' or a control character"


def _shown(text: str) -> str:
    """Return text for a message: in ASCII, in quotes, cut short, and without anything that a template engine reads."""
    return ascii(text[:40]).replace("{", "?").replace("}", "?")
