"""The stopwatch of the tests counts what passes, and not what the machine takes from all of them."""

import signal
import subprocess
import sys
import time

from tests.documentation import ROOT
from tests.waiting import Stopwatch

TIMED = """
import sys, time
from tests.waiting import Stopwatch
began = time.monotonic()
with Stopwatch() as watch:
    print("begun", flush=True)
    sys.stdin.readline()
print(watch.seconds, time.monotonic() - began)
"""


def test_time_that_passes_counts() -> None:
    with Stopwatch() as watch:
        time.sleep(0.5)
    assert watch.seconds > 0.1  # the rest may have been taken


def test_a_moment_in_which_everything_stands_still_does_not() -> None:
    command = [sys.executable, "-c", TIMED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as timed:
        assert timed.stdin
        assert timed.stdout
        assert timed.stdout.readline() == "begun\n"
        timed.send_signal(signal.SIGSTOP)
        time.sleep(1)
        timed.send_signal(signal.SIGCONT)
        said, _ = timed.communicate("\n", timeout=60)
    counted, passed = map(float, said.split())
    assert counted <= passed - 0.9
