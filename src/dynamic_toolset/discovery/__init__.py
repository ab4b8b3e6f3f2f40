"""From Services to candidates: pure functions over immutable values."""
