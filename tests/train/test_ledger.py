from __future__ import annotations

from pathlib import Path

from bigchem.train.ledger import cut_back, read


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
