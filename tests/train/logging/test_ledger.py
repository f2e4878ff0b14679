from __future__ import annotations

from pathlib import Path

import pytest
from runs import config_of

from bigchem.base.errors import UserError
from bigchem.train.logging import ledger
from bigchem.train.logging.ledger import Ledger, cut_back, read


def test_a_resumed_run_cuts_the_files_of_all_ranks_also_of_a_larger_world(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    row = '{{"step": {0}, "keys": ["{1}{0}"]}}\n'
    for rank, name in enumerate("abc"):
        (folder / f"rank{rank}.jsonl").write_text("".join(row.format(step, name) for step in range(1, 6)))
    with (folder / "rank2.jsonl").open("a") as torn:
        torn.write('{"step": 6, "ke')
    cut_back(folder, 2)
    assert read(tmp_path) == {1: ["a1", "b1", "c1"], 2: ["a2", "b2", "c2"]}


def test_a_power_cut_in_the_ledger_is_not_read_as_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    rows = [f'{{"step": {step}, "keys": ["a{step}"]}}\n'.encode() for step in range(1, 6)]
    damaged = b"".join([*rows[:2], b"\0" * 40 + b"\n", *rows[3:]])
    (folder / "rank0.jsonl").write_bytes(damaged)
    with pytest.raises(UserError, match=r"rank0\.jsonl: damaged, skipped: line 3: NUL bytes"):
        read(tmp_path)
    cut_back(folder, 4)
    assert (folder / "rank0.jsonl.damaged").read_bytes() == damaged
    with pytest.raises(UserError, match=r"incomplete.*rank0\.lacks_from_3"):
        read(tmp_path)
    cut_back(folder, 2)
    assert read(tmp_path) == {1: ["a1"], 2: ["a2"]}


class Step:
    """Stand-in for a loader and a loaded step of one example, whose key is the step's number."""

    chosen = (0,)

    def __init__(self, number: int) -> None:
        self.step = number

    def keys(self, step: int, chosen: int) -> list[str]:
        return [str(step)]


def test_a_ledger_on_a_full_disk_says_so_and_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ledger, "on_rank0", lambda function: function())
    config = config_of(tmp_path, tmp_path, "run", train={"ledger": True})
    config.run_dir.mkdir()
    ledger_1, file = Ledger(config, 1, 0), config.run_dir / "ledger" / "rank1.jsonl"
    file.symlink_to("/dev/full")
    for number in (1, 2):
        ledger_1.add(number, Step(number), Step(number))
    assert capsys.readouterr().out.count("cannot write ledger/rank1.jsonl: No space left on device") == 1
    with pytest.raises(UserError, match=r"the disk was full.*: rank1\.lacks_from_1"):
        read(config.run_dir)
    file.unlink()
    ledger_1.add(3, Step(3), Step(3))
    assert read(config.run_dir) == {1: ["1"], 2: ["2"], 3: ["3"]}
    (config.run_dir / "ledger" / "rank4.lacks_from_3").touch()
    cut_back(config.run_dir / "ledger", 2)
    assert read(config.run_dir) == {1: ["1"], 2: ["2"]}
