"""What an evaluation is of: a run's consolidated model, or a model's folder alone, and the data."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import Count
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.step_plan import evaluated_tasks, open_data
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.evaluate.generation.respelled import Respelled
from bigchem.evaluate.trained import max_source_tokens
from bigchem.evaluate.training_set import TrainingData, training_data
from bigchem.train.checkpoint.store import PROOF

CONSOLIDATE = "bigchem export recreates the folder"


@dataclass(frozen=True)
class _Proof:
    """The fields that results.json takes from an exported model's proof file."""

    step: Count
    tokens: Count


@dataclass(frozen=True)
class Subject:
    """What to evaluate, and where results go. about: fields of results.json that the caller provides. forward_model: a
    model's folder, for the round trip of retrosynthesis. trained: the configuration of the model's run. training: what
    the model was trained on, if it is at hand."""

    model_dir: Path
    data: Data | Respelled
    tasks: tuple[str, ...]
    out: Path
    max_source_tokens: int
    about: dict[str, Any]
    forward_model: Path | None = None
    trained: RunConfig | None = None
    training: TrainingData | None = None


def run_subject(config: RunConfig, model_dir: Path, data: str | None = None, out: Path | None = None) -> Subject:
    """A run's consolidated model on the tasks it was trained on, or on evaluate.tasks. out: default RUN/results."""
    opened = open_data(config.data if data is None else config.data.model_copy(update={"path": data}))
    file = model_dir / PROOF
    proof = json_file.as_kind(_Proof, json_file.load(file, hint=CONSOLIDATE), str(file), hint=CONSOLIDATE)
    about = {
        "run": config.name,
        "preset": config.model.preset,
        "mixture": config.data.mixture,
        "seed": config.seed,
        "step": proof.step,
        "tokens": proof.tokens,
    }
    rows = opened.index.rows(config.evaluate.split)
    tasks = tuple(task for task in evaluated_tasks(config, opened) if task in rows)
    results, longest = out or config.run_dir / "results", config.data.max_source_tokens
    training = training_data(model_dir, lambda: opened, lambda: open_data(config.data))
    return Subject(model_dir, opened, tasks, results, longest, about, trained=config, training=training)


def model_subject(model_dir: Path, data: str, out: Path, config: EvaluateConfig) -> Subject:
    """A model's folder without its run, on the data's tasks with rows in the split, or on evaluate.tasks."""
    opened = Data(data)
    for task in config.tasks:
        opened.tasks.labelled(task, "evaluate.tasks")
    chosen = config.tasks or opened.index.rows(config.split)
    tasks = tuple(task for task in opened.tasks.scored if task in chosen)
    about = {"run": model_dir.name, "mixture": {}, "seed": 0, "step": 0, "tokens": 0}
    longest, training = max_source_tokens(model_dir), training_data(model_dir, lambda: opened)
    return Subject(model_dir, opened, tasks, out, longest, about, training=training)


def check(subject: Subject, config: EvaluateConfig) -> None:
    """UserError if there is nothing to evaluate, or if model and data have different tokenizers."""
    if not subject.tasks:
        raise UserError(f"no task of the model has rows in split '{config.split}'", str(subject.data.path))
    if Tokenizer.load(subject.model_dir).fingerprint != subject.data.index.tokenizer:
        raise UserError(
            f"the model's tokenizer is not that of the data in {subject.data.path}",
            str(subject.model_dir),
            "build the data with this model's tokenizer",
        )


def model_hash(model_dir: Path) -> str:
    """sha256 of a model folder's configuration and weights: the first 16 hexadecimal digits."""
    files = [model_dir / "config.json", *sorted(model_dir.glob("*.safetensors"))]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise UserError("no model here: config.json is missing", str(model_dir), "bigchem export makes one")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]
