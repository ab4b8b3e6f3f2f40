"""Who wrote while who held the lease, as the API server's audit log tells it. Pure.

A write that succeeded took effect at some moment between ``received`` and ``logged``. The program makes each write
conditional on the state that it has seen. So of two of one object that succeeded the one that was received first took
effect first, and between writes of the Lease and of the ConfigMap only those that overlap leave a doubt.

A write of the ConfigMap is *late* if somebody else had written the Lease, surely, before the write was received, and
its sender had not written the Lease again by the time when it was answered. It is one of two things:

- ``second``: the new holder has written the ConfigMap in its term before. There were two writers at one time.
- Otherwise it was sent in time and arrived late: from a process that was paused in the middle of sending, over a wire
  that was held up. No lease can prevent that; the new holder's first write, its fence, ends it.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from tests.cluster.cluster import AuditEvent


class Late(NamedTuple):
    """A write of the ConfigMap by somebody who did not hold the lease, and who did; nobody is None."""

    write: AuditEvent
    holder: str | None
    second: bool


def succeeded(events: Iterable[AuditEvent], resource: str, name: str) -> list[AuditEvent]:
    """Return the successful writes of an object, in the order in which they took effect."""
    found = [one for one in events if one.is_write and (one.resource, one.name) == (resource, name) and one.code < 300]
    return sorted(found, key=lambda one: one.received)


def acquisitions(leases: Iterable[AuditEvent]) -> list[AuditEvent]:
    """Return those writes of the Lease by which it came to somebody else than before."""
    found: list[AuditEvent] = []
    for write in leases:
        if not found or found[-1].user != write.user:
            found.append(write)
    return found


def late_writes(events: Iterable[AuditEvent], name: str, users: Collection[str]) -> list[Late]:
    """Return the late writes of the ConfigMap ``name`` by ``users``, where its Lease is called the same."""
    events = list(events)
    leases = succeeded(events, "leases", name)
    writes = [one for one in succeeded(events, "configmaps", name) if one.user in users]
    late = []
    for number, write in enumerate(writes):
        before = [one for one in leases if one.logged < write.received]
        meanwhile = [one for one in leases if one not in before and one.received <= write.logged]
        if write.user in {one.user for one in (*before[-1:], *meanwhile)}:
            continue
        term = acquisitions(before)[-1:]
        second = any(one.user == term[0].user and one.received > term[0].received for one in writes[:number] if term)
        late.append(Late(write, term[0].user if term else None, second))
    return late
