"""The fuzzer finds what there is to be found, and shows it."""

import json
import random
from importlib.util import find_spec

import msgspec
import pytest

from tests.cluster.cache import Missing
from tests.fuzz import __main__ as fuzz
from tests.fuzz.fuzz_pipeline import SETTINGS, Input, check, detectors, mutated, seeds


def unchanged(text: bytes, _most: int) -> bytes:
    return text


def test_every_seed_passes_and_most_get_as_far_as_a_document() -> None:
    listed = 0
    for data in seeds():
        check(data)
        decisions = detectors()[1].discover(msgspec.json.decode(data, type=Input).services)
        listed += any(decision.candidate for decision in decisions.values())
    assert listed > len(seeds()) / 3


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[]", b'{"services": 1}', b'{"services": [{}]}'])
def test_what_the_api_would_not_send_is_passed_over(data: bytes) -> None:
    check(data)


def test_a_change_makes_another_input_which_the_api_might_send() -> None:
    choice = random.Random(1)
    changed = [mutated(choice.choice(seeds()), number, 65536, unchanged) for number in range(300)]
    assert len(set(changed)) > 250
    assert sum(decodes(data) for data in changed) > 150
    assert {json.loads(data).get("settings") for data in changed if decodes(data)} >= set(range(len(SETTINGS)))


def decodes(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=Input)
    except msgspec.DecodeError:
        return False
    return True


def test_an_input_that_grew_too_long_is_not_taken() -> None:
    data = seeds()[0]
    assert mutated(data, 1, 10, unchanged) == data


def test_a_finding_is_shown_with_its_input_and_ends_the_run(monkeypatch, capsys) -> None:
    def broken(data: bytes) -> None:
        assert b"ExternalName" not in data, "an alias"

    monkeypatch.setattr(fuzz, "check", broken)
    monkeypatch.setattr(fuzz, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.argv", ["fuzz", "--seconds", "60"])
    assert fuzz.main() == 1
    shown = capsys.readouterr().out
    assert "AssertionError: an alias" in shown
    assert "ExternalName" in shown.partition("input: ")[2]
    assert "1 findings (undirected: there is no atheris here)" in shown


def test_one_input_can_be_tried(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "input").write_bytes(seeds()[0])
    monkeypatch.setattr("sys.argv", ["fuzz", "--input", str(tmp_path / "input")])
    assert fuzz.main() == 0
    assert capsys.readouterr().out == "no finding\n"


def test_atheris_looks_for_as_long_as_it_is_told() -> None:
    if not find_spec("atheris"):
        raise Missing("atheris", "pip install atheris (Linux on x86-64)")
    outcome = fuzz._directed(seconds=3, seed=1)
    assert outcome.findings == ()
    assert int(outcome.executions) > len(seeds())
    assert int(outcome.coverage) > 300
