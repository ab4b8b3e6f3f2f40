"""One server process of the harness, from its start to its end."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.programs import system_program


class StartFailed(Exception):
    """A process ended, or was not ready, before its deadline. The text holds the end of its log."""


def tied(command: Sequence[str | Path]) -> list[str]:
    """Return the command such that the kernel kills it when the thread that started it ends.

    Whatever way a test run dies, nothing that it started survives (prctl(2), PR_SET_PDEATHSIG). So start processes
    from a thread that lives as long as they shall: the main one.
    """
    return [str(part) for part in (system_program("setpriv"), "--pdeathsig", "KILL", "--", *command)]


class Process:
    """A running program. ``log`` holds its output since this start."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                tied(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,  # Ctrl-C ends the test run only, which then ends its processes in the right order
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with; None while it runs, negative for a signal."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def memory(self) -> float:
        """The resident memory in MB (10^6 bytes)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        kibibytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return kibibytes * 1024 / 1e6

    def catches(self, number: signal.Signals) -> bool:
        """Whether the process has a handler of its own for a signal by now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(caught >> (number - 1) & 1)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def wait_until(self, ready: Callable[[], bool], within: float) -> None:
        """Wait until the program is ready. Raises StartFailed if it ends, or is not ready in time."""
        deadline = time.monotonic() + within
        while not ready():
            if self.exit_code is not None:
                raise StartFailed(f"{self.name} ended with {self.exit_code}:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} was not ready within {within} s:\n{self._last_lines()}")
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 10.0) -> int:
        """End the process, by force if it takes longer than ``within`` seconds, and return its exit code."""
        if self.exit_code is None:
            self._popen.send_signal(number)
            self._popen.send_signal(signal.SIGCONT)  # one that is paused could not end
            try:
                self._popen.wait(within)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        return self._popen.wait(10)

    def _last_lines(self) -> str:
        return "\n".join(self.output.splitlines()[-20:])
