"""The labels of namespaces, for the setting that selects by them."""

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType

from dynamic_toolset.kube import selectors
from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.objects import Namespace
from dynamic_toolset.kube.reflector import Reflector, unchanged
from dynamic_toolset.kube.resources import NAMESPACES


class NamespaceLabels:
    """Keeps ``labels``, of each namespace by its name, if ``selector`` needs them; otherwise nothing is asked for.

    ``synced`` is set once they are known. ``on_change`` is called, from then on, when other namespaces are selected.
    """

    def __init__(self, client: Client, selector: str, on_change: Callable[[], None]) -> None:
        self.needed = bool(selector)
        self._selects = selectors.parse(selector)
        self._on_change = on_change
        self._labels: dict[str, Mapping[str, str]] = {}
        self._selected: frozenset[str] = frozenset()
        self.labels: Mapping[str, Mapping[str, str]] = MappingProxyType(self._labels)
        self.synced = asyncio.Event()
        self.reflector = Reflector(client, NAMESPACES, Namespace, transform=unchanged, on_change=self._take)

    async def run(self) -> None:
        """Follow the namespaces, for ever."""
        if not self.needed:
            self.synced.set()
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reflector.run())
            await self.reflector.synced.wait()
            self._take()
            self.synced.set()

    def _take(self) -> None:
        for key in self.reflector.take_changed():
            namespace = self.reflector.store.get(key)
            if namespace is None:
                self._labels.pop(key.name, None)
            else:
                self._labels[key.name] = namespace.metadata.labels or {}
        selected = frozenset(name for name, labels in self._labels.items() if self._selects(labels))
        if selected != self._selected:
            self._selected = selected
            if self.synced.is_set():
                self._on_change()
