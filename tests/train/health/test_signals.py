from __future__ import annotations

import os
import signal
import time

import pytest

from bigchem.train.health import signals
from bigchem.train.health.signals import StopFlag, StopRequest


@pytest.mark.parametrize(
    ("number", "stop"),
    [
        (signal.SIGUSR1, StopRequest.PREEMPTED),
        (signal.SIGUSR2, StopRequest.PREEMPTED),
        (signal.SIGTERM, StopRequest.USER),
        (signal.SIGINT, StopRequest.USER),
    ],
)
def test_a_stop_signal_is_remembered_and_nothing_else_happens(number: signal.Signals, stop: StopRequest) -> None:
    with StopFlag() as flag:
        assert flag.request is StopRequest.NONE
        os.kill(os.getpid(), number)
        assert (flag.received, flag.request) == (number.name, stop)


def test_in_a_slurm_step_sigterm_is_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with StopFlag() as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.request is StopRequest.PREEMPTED
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.request is StopRequest.USER


def test_the_first_signal_counts_and_a_persons_interrupt_before_all() -> None:
    with StopFlag() as flag:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.received == "SIGUSR2"
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.received == "SIGINT"


def test_a_second_interrupt_quits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ECHO_S", 0.01)
    with StopFlag():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_that_a_launcher_passes_on_is_the_same_one() -> None:
    with StopFlag():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopFlag():
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_first_signal_is_answered_with_what_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    with StopFlag(announce=True):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err == "SIGINT: saving after this step; press again to quit at once\n"


def test_a_process_that_an_error_ends_is_not_killed_while_it_says_why() -> None:
    before = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    try:
        with pytest.raises(RuntimeError, match="a peer is gone"), StopFlag() as flag:
            raise RuntimeError("a peer is gone")
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.received == "SIGTERM"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
