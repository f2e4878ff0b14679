from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from bigchem.train.health.process_clock import ProcessClock


class Machine:
    """A machine's time and the main thread's CPU time, set by the test."""

    def __init__(self) -> None:
        self.now = self.cpu = 100.0
        self.clock = ProcessClock(1.0, lambda: self.now, lambda: self.cpu)

    def passes(self, seconds: float, cpu: float) -> float:
        self.now += seconds
        self.cpu += cpu
        self.clock.tick()
        return self.clock()


def test_time_in_which_nothing_ran_does_not_count_and_a_busy_thread_does() -> None:
    machine = Machine()
    assert machine.passes(1.5, 0.0) == 1.5  # waiting for a peer
    assert machine.passes(600.0, 0.4) == 2.5
    assert machine.clock.stopped_s == 599.0
    before = machine.clock()
    assert machine.passes(30.0, 29.0) == before + 30.0  # computing, with no other thread running


def test_a_process_that_is_stopped_and_goes_on_does_not_count_that() -> None:
    code = (
        "import sys, time; from bigchem.train.health.process_clock import ProcessClock\n"
        "c = ProcessClock(0.1)\n"
        "print('begun', flush=True)\n"
        "while not c.stopped_s and c() < 60: time.sleep(0.1); c.tick()\n"
        "print(c.stopped_s)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(process.pid, signal.SIGCONT)
        assert 1.5 < float(process.stdout.readline()) < 12.0
