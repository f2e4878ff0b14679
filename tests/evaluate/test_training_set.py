"""The data that a model was trained on: by its fingerprint, and by the tasks of its mixture."""

from __future__ import annotations

import json
from pathlib import Path

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.storage.shards import Data
from bigchem.evaluate.subject import model_subject, run_subject
from bigchem.evaluate.training_set import training_data
from bigchem.tasks import Tasks, write_tasks
from bigchem.train.checkpoint.store import PROOF


def absent() -> Data:
    raise UserError("no such folder", "data")


def recorded(folder: Path, data: Data, tasks: Tasks, fingerprint: str | None = None) -> Path:
    """A model's folder, as far as it says what it was trained on."""
    record = {"data": {"fingerprint": fingerprint or data.index.fingerprint}, "recipe": None}
    (folder / "provenance.json").write_text(json.dumps(record))
    write_tasks(folder, tasks)
    return folder


def test_the_training_set_is_that_of_the_models_own_data_wherever_they_are(small_data: Path, tmp_path: Path) -> None:
    data = Data(small_data)
    model = recorded(tmp_path, data, data.tasks)
    rows = data.split("train", "generation")
    for places in ((lambda: data,), (absent, lambda: data)):
        found = training_data(model, *places)
        assert found is not None
        assert found.molecules() == [rows.text(row)[2] for row in range(len(rows))]


def test_tasks_outside_the_mixture_are_not_in_the_training_set(small_data: Path, tmp_path: Path) -> None:
    data = Data(small_data)
    found = training_data(recorded(tmp_path, data, data.tasks.only(("forward", "captioning"))), lambda: data)
    assert found is not None
    assert set(found.tasks.scored) == {"forward", "captioning"}
    assert found.molecules() is None


def test_an_evaluation_on_other_data_compares_with_the_runs_own(
    small_data: Path, unlabelled: Path, tmp_path: Path
) -> None:
    data = Data(small_data)
    model = recorded(tmp_path, data, data.tasks)
    (model / PROOF).write_text(json.dumps({"step": 1, "tokens": 2}))
    table = {"data": {"path": str(small_data), "mixture": {"generation": 1.0}}}
    subject = run_subject(toml.validate(RunConfig, table, ""), model, str(unlabelled), tmp_path)
    assert subject.data.path == unlabelled
    assert subject.training is not None
    assert subject.training.data.path == small_data
    assert model_subject(model, str(small_data), tmp_path, EvaluateConfig()).training is not None
    assert model_subject(model, str(unlabelled), tmp_path, EvaluateConfig()).training is None


def test_other_data_and_a_model_that_does_not_say_give_no_training_set(small_data: Path, tmp_path: Path) -> None:
    data = Data(small_data)
    assert training_data(tmp_path, lambda: data) is None
    assert training_data(recorded(tmp_path, data, data.tasks), absent) is None
    assert training_data(recorded(tmp_path, data, data.tasks, "another"), lambda: data) is None
