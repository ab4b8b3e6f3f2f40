"""Objects, their versions, and a bounded history of their changes: what etcd and the watch cache are to a cluster.

One revision counts all writes of all kinds, so that resourceVersions compare across them.
"""

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice

from msgspec import Struct

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox.resources import Object, Resource
from dynamic_toolset.sandbox.status import expired

Listener = Callable[["Change"], None]
"""Called with each change, right after it is made. Must not raise, wait or write."""


class Change(Struct, frozen=True, gc=False):
    """One write. ``old`` is None for a creation; ``new`` is None for a deletion."""

    revision: int
    resource: Resource
    key: ObjectKey
    old: Object | None
    new: Object | None


class Store:
    """Keeps the objects and the last ``history`` changes."""

    def __init__(self, history: int) -> None:
        self.revision = 0
        self._objects: dict[Resource, dict[ObjectKey, Object]] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._listeners: list[Listener] = []

    def objects(self, resource: Resource) -> Mapping[ObjectKey, Object]:
        """Return the objects of a kind."""
        return self._objects.setdefault(resource, {})

    def put(self, resource: Resource, key: ObjectKey, new: Object) -> Object:
        """Store an object under the next revision, and return it as stored."""
        objects = self._objects.setdefault(resource, {})
        self.revision += 1
        stored = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.revision)}}
        old, objects[key] = objects.get(key), stored
        self._record(Change(self.revision, resource, key, old, stored))
        return stored

    def remove(self, resource: Resource, key: ObjectKey) -> Object:
        """Delete an object that is there, and return it as it was, with the revision of its deletion."""
        old = self._objects[resource].pop(key)
        self.revision += 1
        self._record(Change(self.revision, resource, key, old, None))
        return {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.revision)}}

    def _record(self, change: Change) -> None:
        self._history.append(change)
        for listener in tuple(self._listeners):
            listener(change)

    def since(self, revision: int) -> list[Change]:
        """Return the changes after a revision. Raises StatusError (410) if not all of them are remembered."""
        missed = self.revision - revision
        if missed > len(self._history):
            raise expired(f"too old resource version: {revision} ({self.revision - len(self._history)})")
        return list(islice(reversed(self._history), max(missed, 0)))[::-1]

    def at(self, resource: Resource, revision: int) -> dict[ObjectKey, Object]:
        """Return the objects of a kind as they were at a revision. Raises StatusError (410) if that is forgotten."""
        objects = dict(self.objects(resource))
        for change in reversed(self.since(revision)):
            if change.resource == resource:
                if change.old is None:
                    del objects[change.key]
                else:
                    objects[change.key] = change.old
        return objects

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of every change from now on. Return what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
