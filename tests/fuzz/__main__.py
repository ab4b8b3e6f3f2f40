"""Looks for an input that breaks detection or the documents: ``python -m tests.fuzz --seconds 30``.

Atheris (libFuzzer for Python) does it where it can be had: Linux on x86-64. It prefers inputs that reach code which no
other has reached. Elsewhere the same changes are made undirected. A finding is shown, and the exit status is 1.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from tests.fuzz.fuzz_pipeline import check, mutated, seeds

LONGEST = 64 * 1024
"""Bytes of an input."""

HANGS = 5
"""Seconds after which one execution is a finding."""

_DONE = re.compile(r"#(?P<executions>\d+)\s+DONE\s+cov: (?P<coverage>\d+)")


class Outcome(Struct, frozen=True):
    """What a run has to show: how much was tried, what code that reached, and what was found, in words."""

    executions: str
    coverage: str
    findings: tuple[str, ...] = ()


class FuzzerFailed(Exception):
    """The fuzzer itself did not work. The message is what it said last."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="how long to look (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="goes the same way again (default: another way each time)")
    parser.add_argument("--input", type=Path, help="a file with one input to try, such as a finding")
    given = parser.parse_args()
    if given.input is not None:
        why = _failure(given.input.read_bytes())
        print(why or "no finding")
        return 1 if why else 0
    look = _directed if find_spec("atheris") else _undirected
    try:
        outcome = look(given.seconds, given.seed)
    except FuzzerFailed as error:
        print(f"error: the fuzzer failed:\n{error}", file=sys.stderr)
        return 2
    for finding in outcome.findings:
        print(f"finding: {finding}\n")
    how = "directed by atheris" if look is _directed else "undirected: there is no atheris here"
    print(f"{outcome.executions} executions, {outcome.coverage} branches, {len(outcome.findings)} findings ({how})")
    return 1 if outcome.findings else 0


def _failure(data: bytes) -> str | None:
    """Try one input. Return the traceback and the input if it is a finding."""
    try:
        check(data)
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding
        return _finding(data, traceback.format_exc())
    return None


def _finding(data: bytes, why: str) -> str:
    return f"{why.strip()}\ninput: {data.decode(errors='replace')}"


def _directed(seconds: int, seed: int) -> Outcome:
    """Let libFuzzer look."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, found = Path(folder, "corpus"), Path(folder, "found")
        corpus.mkdir()
        found.mkdir()
        for number, data in enumerate(seeds()):
            (corpus / f"seed-{number:04}").write_bytes(data)
        options = {
            "max_total_time": seconds,
            "seed": seed,
            "max_len": LONGEST,
            "timeout": HANGS,
            "rss_limit_mb": 1024,
            "artifact_prefix": f"{found}/",
        }
        command = [sys.executable, "-m", "tests.fuzz.worker", *(f"-{name}={value}" for name, value in options.items())]
        done = subprocess.run(
            [*command, str(corpus)], capture_output=True, text=True, timeout=seconds + 120, check=False
        )
        last_words = done.stderr[-4000:]
        reached = _DONE.search(done.stderr)
        findings = []
        for file in sorted(found.iterdir()):
            kind, data = file.name.partition("-")[0], file.read_bytes()
            again = _failure(data) if kind == "crash" else None  # what takes too long is not tried again
            findings.append(again or _finding(data, f"{kind}: {last_words}"))
        if not findings and (done.returncode or not reached):
            raise FuzzerFailed(f"status {done.returncode}: {last_words}")
    return Outcome(*(reached.groups() if reached else ("?", "?")), tuple(findings))


def _undirected(seconds: int, seed: int) -> Outcome:
    """Change the seeds at random, and what came of them."""
    choice = random.Random(seed or None)
    inputs = list(seeds())
    end = time.monotonic() + seconds
    executions = 0
    while time.monotonic() < end:
        data = mutated(choice.choice(inputs), choice.getrandbits(64), LONGEST, lambda text, _most: text[::-1])
        executions += 1
        why = _failure(data)
        if why:
            return Outcome(str(executions), "?", (why,))
        if executions % 10 == 0 and len(data) < 4096:
            inputs.append(data)
    return Outcome(str(executions), "?")


if __name__ == "__main__":
    sys.exit(main())
