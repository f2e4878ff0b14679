"""Without a GPU: events are stand-ins that a fake device reaches one after another."""

from __future__ import annotations

import torch

from bigchem.train.health.device_progress import DeviceProgress, device_progress_of


class Device:
    """A device's queue. done: number of events reached."""

    def __init__(self) -> None:
        self.queue: list[Stand] = []
        self.done = 0


class Stand:
    """Stand-in for torch.cuda.Event."""

    def __init__(self, device: Device) -> None:
        self._device, self._number = device, 0

    def record(self) -> None:
        self._device.queue.append(self)
        self._number = len(self._device.queue)

    def query(self) -> bool:
        return self._number <= self._device.done


def test_the_device_is_where_its_last_event_is_and_not_where_the_host_is() -> None:
    device = Device()
    beats = DeviceProgress(lambda: Stand(device))
    assert beats.reached() == ("prepare", 0)
    for number, phase in enumerate(("data", "forward", "backward", "reduce"), 1):
        beats.beat(phase, number)
    assert beats.reached() == ("prepare", 0)
    device.done = 2
    assert beats.reached() == ("forward", 2)
    beats.beat("optimizer", 5)
    assert beats.reached() == ("forward", 2)
    device.done = 5
    assert beats.reached() == ("optimizer", 5)


def test_a_cpu_has_none() -> None:
    assert device_progress_of(torch.device("cpu")) is None
