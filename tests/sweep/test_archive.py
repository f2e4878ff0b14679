from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from planted_sweep import SIZES, TASKS, results_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.runs.status import RunStatus, run_status
from bigchem.launch.submit import why_not_submit
from bigchem.run.log_files import BAD_STEPS
from bigchem.sweep import archive
from bigchem.sweep.scores.results import load

RUN = {
    "name": "r-s0",
    "runs": "runs/study",
    "model": {"preset": "sweep-1m"},
    "data": {"path": "data/full"},
    "train": {"steps": 300},
}
ATTEMPT = {
    "attempt": 1,
    "job": "77",
    "restart": 0,
    "nodes": "secret-node",
    "ranks": 1,
    "from_step": 0,
    "time": 5.0,
    "to_step": 300,
    "end": "finished",
    "seconds": 9.0,
}


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run with absolute paths in its folder, as `bigchem submit` leaves them, below the working directory."""
    monkeypatch.chdir(tmp_path)
    config = toml.validate(RunConfig, RUN, "test")
    absolute = {**RUN, "runs": str(tmp_path / "runs/study"), "data": {"path": str(tmp_path / "data/full")}}
    folder = config.run_dir
    (folder / "results/predictions").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/weights").write_bytes(bytes(1000))
    (folder / "config.toml").write_text(toml.dump(toml.validate(RunConfig, absolute, "test")))
    (folder / "state.json").write_text(json.dumps({"state": "finished", "time": 14.0, "step": 300, "steps": 300}))
    (folder / "history.jsonl").write_text(json.dumps(ATTEMPT) + "\n")
    rows: list[dict[str, float]] = [{"step": step, "loss": 2.0} for step in (100, 200, 300)]
    rows[1]["valid_loss"] = 1.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = results_of(SIZES[0], TASKS)
    results["metrics"][0]["note"] = f"{tmp_path}/bin/python3.11 -m pip install 'bert-score>=0.3.13'"
    (folder / "results/results.json").write_text(json.dumps(results))
    for name in ("captioning", "captioning.rank0"):
        (folder / f"results/predictions/{name}.jsonl").write_text("{}\n")
    return config


def unpack(file: Path, folder: Path) -> Path:
    with tarfile.open(file) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_an_unpacked_archive_tells_submit_that_the_run_is_done(finished: RunConfig, tmp_path: Path) -> None:
    archive.write([finished], tmp_path / "study.tar.xz")
    unpack(tmp_path / "study.tar.xz", tmp_path / "elsewhere")
    there = finished.model_copy(update={"runs": str(tmp_path / "elsewhere/study")})
    status = run_status(there.run_dir)
    assert (status.state, status.step, status.active, status.seconds) == ("finished", 300, False, 9.0)
    assert why_not_submit(there) == "already finished: nothing to do"


def test_neither_weights_nor_names_of_machines_are_packed(finished: RunConfig, tmp_path: Path) -> None:
    archive.write([finished], tmp_path / "study.tar.xz")
    found = unpack(tmp_path / "study.tar.xz", tmp_path / "elsewhere") / "study/r-s0"
    assert sorted(str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()) == [
        "config.toml",
        "history.jsonl",
        "metrics.jsonl",
        "results/predictions/captioning.jsonl",
        "results/results.json",
        "state.json",
    ]
    text = "".join(path.read_text() for path in found.rglob("*") if path.is_file())
    assert "secret-node" not in text
    assert str(tmp_path) not in text
    assert "\"python -m pip install 'bert-score>=0.3.13'" in text
    assert [json.loads(line)["step"] for line in (found / "metrics.jsonl").read_text().splitlines()] == [200, 300]


def test_paths_are_packed_as_the_sweep_has_them_and_a_hub_name_as_a_name(finished: RunConfig, tmp_path: Path) -> None:
    folder, cached = finished.run_dir, f"{tmp_path}/cache/hub/models--t5-base"
    named = {**RUN, "model": {"init_from": "t5-base"}, "checkpoint": {"copy_to": "copies"}}
    named["train"] = {"steps": 300, "ds_config": "own.json"}
    moved = {**named, "checkpoint": {"copy_to": f"{tmp_path}/copies"}, "runs": f"{tmp_path}/runs/study"}
    moved["train"] = {"steps": 300, "ds_config": f"{tmp_path}/own.json"}
    (folder / "config.toml").write_text(toml.dump(toml.validate(RunConfig, moved, "test")))
    (folder / "model.json").write_text(json.dumps({"init_from": cached}))
    (folder / "events.jsonl").write_text(json.dumps({"action": f"copy to {tmp_path}/copies failed"}) + "\n")
    archive.write([toml.validate(RunConfig, named, "test")], tmp_path / "study.tar.xz")
    found = unpack(tmp_path / "study.tar.xz", tmp_path / "elsewhere") / "study/r-s0"
    config = toml.load(RunConfig, found / "config.toml")
    assert (config.runs, config.checkpoint.copy_to, config.train.ds_config) == ("runs/study", "copies", "own.json")
    assert json.loads((found / "model.json").read_text()) == {"init_from": "t5-base"}
    assert json.loads((found / "events.jsonl").read_text()) == {"action": "copy to copies failed"}


def test_a_report_names_the_archive_instead_of_a_folder_that_is_gone(finished: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "study.tar.xz"
    archive.write([finished], file)
    with archive.unpacked([file]) as found:
        (run,) = load(found, shown=found).runs
    assert run.source == f"{file}: study/r-s0/results/results.json"


def test_a_name_by_which_no_archive_is_known_is_refused() -> None:
    archive.check_name(Path("demo.tar.xz"))
    with pytest.raises(UserError, match=r"ends with \.tar\.xz"):
        archive.check_name(Path("demo.xz"))


def test_the_same_runs_give_the_same_bytes(finished: RunConfig, tmp_path: Path) -> None:
    archive.write([finished], tmp_path / "a.tar.xz")
    archive.write([finished], tmp_path / "b.tar.xz")
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()


def test_an_archive_is_read_as_its_folder_is(finished: RunConfig, tmp_path: Path) -> None:
    archive.write([finished], tmp_path / "study.tar.xz")
    with archive.unpacked([tmp_path / "study.tar.xz", Path("table.csv")]) as (folder, other):
        assert other == Path("table.csv")
        found, direct = load([folder]), load([Path(finished.runs)])
        assert [(s.task, s.metric, s.estimate) for s in found.scores] == [
            (s.task, s.metric, s.estimate) for s in direct.scores
        ]
        assert found.runs[0].predictions.keys() == {"captioning"}
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "link"])
def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "bad.tar.xz"
    with tarfile.open(file, "w:xz") as tar:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry, io.BytesIO())
    with pytest.raises(UserError, match="is not a file inside it"), archive.unpacked([file]):
        pass


def test_a_damaged_archive_is_refused(finished: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "study.tar.xz"
    archive.write([finished], file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be unpacked"), archive.unpacked([file]):
        pass


@pytest.mark.parametrize(
    ("state", "step", "active", "at_end", "done"),
    [
        ("finished", 300, False, True, True),
        ("finished", 200, False, True, False),
        ("trained", 300, False, True, False),
        ("trained", 300, False, False, True),
        ("finished", 300, None, True, True),
        ("finished", 300, True, True, False),
    ],
)
def test_what_counts_as_done(
    finished: RunConfig, state: str, step: int, active: bool | None, at_end: bool, done: bool
) -> None:
    config = finished.model_copy(update={"evaluate": finished.evaluate.model_copy(update={"at_end": at_end})})
    assert archive.is_done(config, RunStatus("r", state, active, step, 300)) is done


@pytest.mark.parametrize(("at_end", "done"), [(False, True), (True, False)])
def test_a_short_run_that_diverged_is_done(finished: RunConfig, at_end: bool, done: bool) -> None:
    config = finished.model_copy(update={"evaluate": finished.evaluate.model_copy(update={"at_end": at_end})})
    state = {"state": "failed", "step": 9, "steps": 300, "reason": f"5 {BAD_STEPS} up to step 10"}
    (config.run_dir / "state.json").write_text(json.dumps(state))
    assert archive.is_done(config, run_status(config.run_dir)) is done
