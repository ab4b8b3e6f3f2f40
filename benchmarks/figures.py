"""The rows that come out."""

import json
import statistics
from typing import Any

from tests.cluster import cache


def figure(name: str, unit: str, values: list[float], floor: list[float]) -> None:
    """Print the medians, and tell a person how far apart the values are."""
    row: dict[str, Any] = {
        "name": name,
        "value": round(statistics.median(values), 4),
        "unit": unit,
        "floor": round(statistics.median(floor), 4),
    }
    print(json.dumps(row), flush=True)
    times = f"{row['value'] / row['floor']:.2f} times the floor" if row["floor"] else f"{row['value']:g}"
    spread = f"{min(values):.4g} to {max(values):.4g}, floor {min(floor):.4g} to {max(floor):.4g}"
    cache.progress(f"{name}: {times} ({spread} {unit})")
