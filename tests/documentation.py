"""The documentation as tests read it: fenced blocks, commands with their output, tables, links."""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = (README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

ANYTHING = "..."
"""A line that stands for any number of lines that are left out."""


class Block(Struct, frozen=True):
    """A fenced block. ``line`` is the line of the page at which its text starts."""

    language: str
    text: str
    line: int


class Command(Struct, frozen=True):
    """A command, and what the page shows of its output; None where it shows none."""

    line: str
    output: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in re.finditer(r"^```([a-z]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of the ``sh`` blocks, without their comments, and those of the ``console`` blocks."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.splitlines():
                yield Command(re.sub(r"\s+#.*", "", line))
        elif block.language == "console":
            for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                line, _, output = session.partition("\n")
                yield Command(line, output)


def shows(expected: str, real: str) -> bool:
    """Whether a page shows real output: every line in its order and as it is, but for what ``...`` stands for.

    How far columns stand apart does not count, nor do ports and seconds that differ from one run to the next.
    """
    pattern = "".join(
        r"(?:.*\n)*?" if line == ANYTHING else re.escape(_plain(line)) + r"\n" for line in expected.splitlines()
    )
    return re.fullmatch(pattern, "".join(_plain(line) + "\n" for line in real.splitlines())) is not None


def _plain(line: str) -> str:
    line = re.sub(r"\b\d+\.\d\d s\b", "0.00 s", line)
    line = re.sub(r"(?<=local:)\d+|(?<=port service )\d+", "80", line)
    line = re.sub(r"(?<=^  ports     )\d+", "80", line)
    return re.sub(r"(?<=\S) +", " ", line).rstrip()


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page: Path, title: str) -> list[list[str]]:
    """Return the rows, below the header, of the table whose first column has this title."""
    lines = page.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {title} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
