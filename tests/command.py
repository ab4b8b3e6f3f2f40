"""A command of the program, as a test sees it."""

import io
import json
from typing import Any

import pytest
from msgspec import Struct

from dynamic_toolset.cli import main


class Ended(Struct, frozen=True):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str, stdin: str | bytes = b""
) -> Ended:
    """Call the program in this process, as its entry point does, and return how it ended."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    monkeypatch.setattr("sys.argv", ["dynamic-toolset", *arguments])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    status = 0
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return Ended(status, said.out, said.err)
