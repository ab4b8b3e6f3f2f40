"""What is said of writers notices two of them: otherwise the failover tests would pass whatever happens."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.cluster import AuditEvent
from tests.faults.writers import acquisitions, late_writes, succeeded

pytestmark = pytest.mark.faults


def story(text: str) -> list[AuditEvent]:
    """Tell a story: ``aL`` is a write of the Lease by a, ``aC`` one of the ConfigMap, each takes two ticks of time.

    ``!`` after it: refused. ``|`` before it: it begins one tick earlier, while the one before it is under way.
    """
    events, tick = [], 0
    for word in text.split():
        tick -= word.startswith("|")
        user, kind = word.strip("|!")
        events.append(
            AuditEvent(
                user=user,
                verb="patch",
                resource={"L": "leases", "C": "configmaps"}[kind],
                namespace="holmes",
                name="toolset",
                code=409 if word.endswith("!") else 200,
                user_agent="",
                stage="ResponseComplete",
                received=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=tick),
                logged=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=tick + 1),
            )
        )
        tick += 2
    return events


@pytest.mark.parametrize(
    ("text", "late"),
    [
        ("aL aC aL aC", []),
        ("aL aC aL bL bC bL bC aL aC", []),
        ("aC aL", [("a", None, False)]),
        ("aL bL aC", [("a", "b", False)]),
        ("aL bL bC aC", [("a", "b", True)]),
        ("aL bL bC bL aC", [("a", "b", True)]),
        ("aL bL bC aL bL aC", [("a", "b", False)]),
        ("aL bL aC!", []),
        ("aL bL! aC", []),
        ("aL bL |aC", []),  # it may have come first
        ("aL bL aL |aC", []),
        ("aL bL cL aC bC cC", [("a", "c", False), ("b", "c", False)]),
        ("aL sL aC", [("a", "s", False)]),  # s is a stranger
    ],
)
def test_who_writes_after_another_one_has_the_lease_is_late(text: str, late: list[tuple[str, str, bool]]) -> None:
    found = late_writes(story(text), "toolset", {"a", "b", "c"})
    assert [(one.write.user, one.holder, one.second) for one in found] == late


def test_a_lease_is_acquired_by_who_did_not_write_it_before() -> None:
    leases = succeeded(story("aL aC aL bL bL! bL aL cC"), "leases", "toolset")
    assert [one.user for one in acquisitions(leases)] == ["a", "b", "a"]
