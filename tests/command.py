"""A command of the program, as a test sees it."""

import json
from typing import Any

from msgspec import Struct


class Ended(Struct, frozen=True):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)
