"""Which of the media types that are offered is answered with."""

import pytest

from dynamic_toolset.server.api import negotiate
from dynamic_toolset.server.problems import Refusal

JSON, YAML, TEXT = "application/json", "application/yaml", "text/yaml"
OFFERS = (JSON, YAML, TEXT)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/*", TEXT),
        ("application/yaml", YAML),
        ("APPLICATION/YAML", YAML),
        (" application/yaml ; charset=utf-8 ", YAML),
        ("application/yaml, application/json", JSON),  # equally good: the first offer
        ("application/json;q=0.5, application/yaml", YAML),
        ("application/json;q=0.5, application/yaml;q=0.4", JSON),
        ("application/json; Q=0.2, application/yaml;q=0.3", YAML),
        ("*/*;q=0.1, application/yaml", YAML),
        ("*/*, application/json;q=0", YAML),  # the more specific range counts (RFC 9110, section 12.5.1)
        ("application/*;q=0, */*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),  # a browser
        ("application/json;q=x, application/yaml;q=0.1", YAML),
        ("application/json;q=nan, application/yaml;q=0.1", YAML),
        ("application/json;q=7, application/yaml;q=0.1", YAML),
        (",, ,application/yaml", YAML),
        ("*, application/yaml", YAML),
    ],
)
def test_what_suits_best(accept: str | None, expected: str) -> None:
    assert negotiate(accept, OFFERS) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "image/*", "*/*;q=0", "application/json;q=0", "application", ";", "application/json;q=-1"]
)
def test_what_suits_nobody_is_refused(accept: str) -> None:
    with pytest.raises(Refusal, match="offered as application/json or") as refused:
        negotiate(accept, OFFERS)
    assert refused.value.status == 406
