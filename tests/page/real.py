"""The real program, on the cluster of the demo, as a page's test needs it: with a say in what happens to both.

::

    with Real(tmp_path) as real:
        ...  # real.base_url
        real.put(service("shop", "tempo"))
        real.kill()
        real.start()

The cluster is a sandbox in a thread of its own; every method may be called from any thread, and returns when it is
done. ``python -m tests.page.real`` serves it on a port, to look at.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox import Backend, Sandbox
from dynamic_toolset.sandbox.scenario import Scenario, Step
from dynamic_toolset.settings import ConfigMapSettings
from tests.cluster.cluster import free_ports
from tests.cluster.process import Process
from tests.waiting import eventually

TOKEN = "sesame"
AUDIENCE = "dynamic-toolset"
NAMESPACE = "holmes"
TOOLSET = "kubernaut.io/toolset"

# Nothing but loopback is there to be dialled, and no test waits half a minute, or shares 100 requests with the others.
_SETTINGS = {
    "configMap": {"namespace": NAMESPACE},
    "policy": {"allowedRanges": ["127.0.0.0/8"]},
    "healthCheck": {"interval": "1s", "timeout": "5s", "failureThreshold": 2},
    "massFailure": {"hold": "0s"},  # a machine that is busy is no network that is down
    "leaderElection": {"leaseDuration": "8s", "renewDeadline": "6s", "retryPeriod": "500ms"},
}
_SERVER = {"metricsPort": 0, "shutdownDelay": "0s", "rateLimit": 100_000}


_QUIET = 1.5
"""Seconds after which the program looks at a change at once; while much changes it waits for up to 5 s."""

T = TypeVar("T")


class Real:
    """The cluster, and the program at work on it, as long as the ``with`` block. ``auth`` is ``server.auth``."""

    def __init__(self, folder: Path, *, auth: str = "none") -> None:
        self._folder = folder
        self._server = _SERVER | {"address": "127.0.0.1", "auth": auth} | free_ports("port")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)
        self._cluster = AsyncExitStack()
        self._cleanup = ExitStack()
        self._process: Process | None = None
        self.sandbox = Sandbox()
        self.base_url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._thread.start()
            stack.callback(self._end_thread)
            self._do(self._set_up())
            stack.callback(lambda: self._do(self._cluster.aclose()))
            self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.sandbox.url)))
            stack.callback(self.kill)
            self.start()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    # --- The program -------------------------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        return self._folder / "kubeconfig.yaml"

    def start(self) -> None:
        """Start the program, at the same port each time; return when it serves."""
        file, log = self._folder / "settings.yaml", self._folder / "program.log"
        file.write_text(yaml.safe_dump(_SETTINGS | {"server": self._server}))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DYNAMIC_TOOLSET")}
        command = [sys.executable, "-m", "dynamic_toolset", "run", f"--config={file}"]
        self._process = Process([*command, f"--kubeconfig={self.kubeconfig}", "--log-format=json"], log, environment)
        self._process.wait_until(lambda: bool(self._addresses()), within=60)
        self.base_url = self._addresses()[0]

    def kill(self) -> None:
        """End the program as a lost node does: nothing is finished, nobody is told."""
        if self._process:
            self._process.stop(signal.SIGKILL)
            self._process = None

    def _addresses(self) -> list[str]:
        assert self._process
        *lines, _unfinished = self._process.output.split("\n")
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event["api"] for event in events if event["event"] == "serving"]

    def get(self, path: str) -> Any:
        """Return what the API answers."""
        wanted = urllib.request.Request(f"{self.base_url}/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(wanted, timeout=10) as answer:
            return json.load(answer)

    # --- The cluster -------------------------------------------------------------------------------------------------

    def tell_the_story(self) -> None:
        """Let everything happen that happens in the demo, one after the other."""
        for step in self.scenario.steps:
            self.take(step)
            time.sleep(_QUIET)

    def take(self, step: Step) -> None:
        """Take one step of the story, and wait for what comes of it."""
        self._do(step.change())
        eventually(lambda: self._do(self.scenario.reached(step)), within=60, every=0.05)

    def put(self, obj: dict[str, Any]) -> None:
        """Create an object, or replace it, with the checks that a real API server makes."""
        self._do(self.sandbox.put(obj, manager="kubectl"))

    def put_many(self, objects: list[dict[str, Any]]) -> None:
        async def put() -> None:
            for obj in objects:
                await self.sandbox.put(obj, manager="kubectl")

        self._do(put())

    def delete(self, namespace: str, *names: str) -> None:
        """Delete Services."""

        async def delete() -> None:
            for name in names:
                await self.sandbox.delete("Service", namespace, name)

        self._do(delete())

    def override(self, text: str) -> None:
        """Write the key overrides.yaml, as a person does."""
        patch = {"data": {"overrides.yaml": text}}
        self._do(self.sandbox.patch("ConfigMap", NAMESPACE, "kubernaut-toolset-config", patch, manager="kubectl-edit"))

    def backend(self, kind: str) -> Backend:
        """Start a backend, which goes on to the end."""
        return self._do(self._cluster.enter_async_context(Backend(kind)))

    def heal(self, namespace: str, name: str, *, healthy: bool) -> None:
        """Let a backend of the story answer, or fail."""

        async def change() -> None:
            self.scenario.backends[ObjectKey(namespace, name)].healthy = healthy

        self._do(change())

    def allow(self, path: str, *verbs: str) -> None:
        """Give the user of TOKEN a right."""

        async def grant() -> None:
            self.sandbox.allow("sre", path, *verbs)

        self._do(grant())

    # --- How it works ------------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _set_up(self) -> None:
        await self._cluster.enter_async_context(self.sandbox)
        self.sandbox.add_token(TOKEN, "sre", audiences=[AUDIENCE])
        target = ConfigMapSettings(namespace=NAMESPACE)
        self.scenario = await self._cluster.enter_async_context(Scenario(self.sandbox, target))

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "me"}}],
    }


def service(
    namespace: str, name: str, kind: str = "", port: int = 80, *, port_name: str = "http", **more: Any
) -> dict[str, Any]:
    """Return a Service of a product, as its chart makes it. ``more`` becomes part of its metadata."""
    labels = {"app.kubernetes.io/name": kind} if kind else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": labels, **more},
        "spec": {"selector": {"app": name}, "ports": [{"name": port_name, "port": port}]},
    }


def main() -> None:
    """Serve until interrupted."""
    with tempfile.TemporaryDirectory() as folder, Real(Path(folder), auth=os.environ.get("AUTH", "none")) as real:
        real.tell_the_story()
        print(real.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
