from __future__ import annotations

import os
import signal

import pytest

from bigchem.train.signals import StopFlag


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_is_remembered_and_nothing_else_happens(number: signal.Signals) -> None:
    with StopFlag() as flag:
        os.kill(os.getpid(), number)
        assert flag.received == number.name


def test_a_second_interrupt_quits() -> None:
    with StopFlag():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopFlag():
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before
