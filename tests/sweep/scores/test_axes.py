from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted_sweep import SIZES, TASKS, TRAINING, results_of, write_result

from bigchem.base.errors import UserError
from bigchem.sweep.scores.axes import setting
from bigchem.sweep.scores.results import load

LR = "optimizer.lr"


def write_axis(folder: Path, axis: str = LR, values: tuple[Any, ...] = (3e-4, 6e-4), **change: Any) -> Path:
    """Two sizes, all tasks together and captioning alone, for each value."""
    for value in values:
        for size in SIZES[:2]:
            for mixture in (TASKS, TASKS[:1]):
                content = results_of(size, mixture)
                training = TRAINING | {"sweep": {"axes": {axis: value}}} | ({"lr": value} if axis == LR else {})
                write_result(folder, content | {"run": f"{content['run']}-{value}", "training": training} | change)
    return folder


def test_an_axis_of_several_values_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs differ by optimizer\.lr: 0\.0003; 0\.0006") as error:
        load([write_axis(tmp_path)], allow_mixed=True, allow_unequal_budgets=True)
    assert "--at 'optimizer.lr=0.0003'" in str(error.value.hint)
    assert "and" in str(error.value.where)


def test_the_chosen_value_is_analysed_alone_and_every_value_is_kept_for_the_axis(tmp_path: Path) -> None:
    found = load([write_axis(tmp_path)], at=["optimizer.lr=6e-4"])
    assert {setting(run, LR) for run in found.runs} == {"0.0006"}
    assert len(found.runs) == 4
    assert {setting(score.run, LR) for score in found.by_axis[LR]} == {"0.0003", "0.0006"}
    assert "The claim is about optimizer.lr = 0.0006; not in it, but drawn against optimizer.lr: 0.0003." in found.notes


@pytest.mark.parametrize("at", ["lr=6e-4", "optimizer.lr", "optimizer.lr=1"])
def test_a_choice_that_no_run_has_is_refused(tmp_path: Path, at: str) -> None:
    with pytest.raises(UserError, match=r"names no axis|no run has"):
        load([write_axis(tmp_path)], at=[at])


def test_an_axis_of_one_value_needs_no_choice(tmp_path: Path) -> None:
    found = load([write_axis(tmp_path, values=(3e-4,))])
    assert found.by_axis == {}
    assert len(found.runs) == 4


def test_other_weights_of_the_same_tasks_are_an_axis(tmp_path: Path) -> None:
    for weight in (1.0, 3.0):
        content = results_of(SIZES[0], TASKS[:2]) | {"run": f"w{weight}"}
        write_result(tmp_path, content | {"mixture": {TASKS[0]: weight, TASKS[1]: 1.0}})
    with pytest.raises(UserError, match=r"runs differ by mixture: captioning 0\.5, generation 0\.5; captioning 0\.75"):
        load([tmp_path])
    found = load([tmp_path], at=["mixture=captioning 0.75, generation 0.25"])
    assert [run.name for run in found.runs] == ["w3.0"]


def test_within_a_value_runs_of_one_seed_are_still_refused(tmp_path: Path) -> None:
    write_axis(tmp_path / "a")
    training = TRAINING | {"sweep": {"axes": {LR: 3e-4}}, "lr": 3e-4}
    write_result(tmp_path / "b", results_of(SIZES[0], TASKS) | {"training": training})
    with pytest.raises(UserError, match="two runs of 204800 parameters"):
        load([tmp_path], at=["optimizer.lr=6e-4"])


def two_ways(folder: Path) -> Path:
    """Two sizes, all tasks together and each task alone, captioning in two ways."""
    for size in SIZES[:2]:
        for number, (mixture, alone) in enumerate(
            ((TASKS, None), (TASKS[:1], "examples"), (TASKS[:1], "compute"), (TASKS[1:2], "examples"))
        ):
            content = results_of(size, mixture)
            training = TRAINING | {"sweep": {"axes": {}, "alone": alone}}
            write_result(folder, content | {"run": f"{content['run']}-{number}", "training": training})
    return folder


def test_one_task_alone_matched_in_two_ways_is_an_axis(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs differ by alone: (compute; examples|examples; compute)"):
        load([two_ways(tmp_path)])
    found = load([tmp_path], at=["alone=examples"])
    assert len(found.runs) == 6
    assert {(setting(s.run, "alone"), s.task) for s in found.by_axis["alone"]} == {
        ("examples", TASKS[0]),
        ("examples", TASKS[1]),
        ("compute", TASKS[0]),
    }
    assert {setting(run, "alone") for run in load([tmp_path], at=["alone=compute"]).runs} == {"compute", None}
