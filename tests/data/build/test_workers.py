"""Workers that die: the error names their current records."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.data.build.workers import cores, in_order, naming_the_current_record, noting_the_current_record, pool


def work(desk: Path, lines: list[int]) -> int:
    with noting_the_current_record(desk) as note:
        for line in lines:
            note("molecules.smi", line)
            if line == 12:
                os.kill(os.getpid(), signal.SIGKILL)
    return len(lines)


def test_a_worker_that_dies_names_the_file_and_the_line_that_it_had() -> None:
    with (
        pytest.raises(UserError, match=r"died, at molecules\.smi:12\n"),
        pool(1, "out") as processes,
        naming_the_current_record() as desk,
    ):
        list(in_order(processes, partial(work, desk), [([1, 2],), ([11, 12, 13],)], 2))


def test_the_cores_are_those_that_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    assert cores() == 3
    for given, expected in (("2", 2), ("64", 3)):
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
        assert cores() == expected


def test_notes_go_when_the_work_is_done(tmp_path: Path) -> None:
    assert work(tmp_path, [9, 10, 3]) == 3
    assert list(tmp_path.iterdir()) == []
