"""Which regular expressions may be matched against what a backend answers."""

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.discovery.expressions import LONGEST_TEXT, unfit


def _of_catalog() -> Iterator[tuple[str, str, bool]]:
    for service_type in load_catalog().types.values():
        for identity in service_type.health.identity:
            for expression in (*identity.json.values(), *identity.headers.values()):
                yield service_type.name, expression, False
            if identity.body is not None:
                yield service_type.name, identity.body, True


CATALOG = sorted(set(_of_catalog()))


@pytest.mark.parametrize(("name", "expression", "search"), CATALOG)
def test_the_expressions_of_the_catalog_are_fit(name: str, expression: str, search: bool) -> None:
    assert unfit(expression, search=search) is None


def _hostile_texts(expression: str) -> Iterator[str]:
    """Yield texts that come near to what the expression wants, as often as fits, and never get there."""
    words = re.findall(r"[A-Za-z0-9_\" .={-]+", expression.replace("\\", "")) or ["x"]
    for piece in (*words, *(word[:-1] for word in words), "".join(words), words[0] + " " * 200):
        yield (piece * LONGEST_TEXT)[:LONGEST_TEXT]
    for filler in (" ", "\n", "x", "1", ".", '"', "\x00"):
        yield words[0] + filler * (LONGEST_TEXT - len(words[0]) - 1) + "!"


@pytest.mark.parametrize(("name", "expression", "search"), CATALOG)
def test_no_hostile_answer_takes_an_expression_of_the_catalog_long(name: str, expression: str, search: bool) -> None:
    compiled = re.compile(expression, re.DOTALL)
    for text in _hostile_texts(expression):
        began = time.process_time()
        (compiled.search if search else compiled.fullmatch)(text)
        assert time.process_time() - began < 1, "the slowest takes 15 ms, one that blows up minutes"


@pytest.mark.parametrize(
    "expression",
    [
        *("", "success", ".*", "3\\..*", r"\d+\.\d+\.\d+", r"v?[0-9]+\.[0-9]+", "ok|failing", "(alpha|beta)-.*"),
        *(
            "[^:]*:[^:]*:.*",
            "[^:,]*:[^:,]*,.*",
            "[a-z]*A[a-z]*",
            r"(\d+\.){2}\d+",
            "a{3}",
            "x*+y",
            "(?>x*)y",
            r"\S+ \d*",
            "(?i)grafana.*",
            "(a|b|c)" * 10,
        ),
    ],
)
def test_ordinary_expressions_are_fit(expression: str) -> None:
    assert unfit(expression) is None


@pytest.mark.parametrize(
    "expression",
    ["", "VictoriaLogs", '"protocolVersion"', r"^echo\s*$", r"\Aok.*", r"build\{[^}]{0,200}version", "a|b", "colou?r"],
)
def test_ordinary_expressions_are_fit_for_a_search(expression: str) -> None:
    assert unfit(expression, search=True) is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        *[
            (expression, "it repeats a group")
            for expression in ("(a+)+b", "(a*)*b", "(a|ab)*c", "(.*x)*y", "(ab?){2,9}", "(ab){20}")
        ],
        *[(expression, "it refers back") for expression in (r"(a*)\1b", r"(?P<x>a)(?P=x)", "(a)?(?(1)b|c)")],
        *[(expression, "it looks ahead or behind") for expression in ("(?=.*x).*", "(?!x).*", "(?<=x)y", "(?<!x)y")],
        ("(?i:a)*b", "it repeats a group"),
        ("(?i:a*)a", "it changes its flags"),
        *[
            (expression, "it can take too long on a hostile answer: keep one of its repetitions")
            for expression in (".*x.*", ".*.*", "a*a*b", r"\w+\s\w+", "[a-z]*[x-z]*!", "(a*|b)(a*|c)", "a?" * 30 + "b")
        ],
        ("(aa|a)" * 40, "it can take too long"),
        ("((a?){10}){10}b", "it can take too long"),
        ("(?i)[a-z]*A[a-z]*", "it can take too long"),
        *[(expression, "not a regular expression: ") for expression in ("(", "[", "*", "a{9999999999}", "(" * 5000)],
    ],
)
def test_what_can_blow_up_is_unfit_for_a_reason(expression: str, reason: str) -> None:
    assert (unfit(expression) or "").startswith(reason)


@pytest.mark.parametrize("expression", ["a.*b", r"\s+x", "[^}]*}", "a{0,2000}b", "(?m)^a.*b", "(^a|b).*c", "x.*"])
def test_a_search_may_not_begin_anywhere_and_go_on_for_ever(expression: str) -> None:
    assert unfit(expression) is None
    assert (unfit(expression, search=True) or "").startswith(
        "it can take too long on a hostile answer: start it with ^"
    )


PIECES = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[ab]",
        "[^a]",
        r"\w",
        "a?",
        "a*",
        ".*",
        "b+",
        "(a|b)",
        "(a|ab)",
        "(a*)",
        "(ab)?",
        "a{2,3}",
        "(b?){3}",
    ]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join), st.booleans())
def test_what_is_fit_is_done_soon_whatever_the_text(expression: str, search: bool) -> None:
    if unfit(expression, search=search) is not None:
        return
    compiled = re.compile(expression, re.DOTALL)
    for text in ("a" * 100_000, "ab" * 50_000, "a" * 50_000 + "b" * 50_000, "b" * 99_999 + "c"):
        began = time.process_time()
        (compiled.search if search else compiled.fullmatch)(text)
        assert time.process_time() - began < 10  # half a second on an idle machine; what is not fit takes hours


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@given(st.text())
def test_any_text_is_judged(expression: str) -> None:
    reason = unfit(expression)
    try:
        re.compile(expression)
    except re.error:
        assert reason is not None
        assert reason.startswith("not a regular expression: ")
