"""`bigchem evaluate`: a run, or a consolidated model on any data."""

from __future__ import annotations

from pathlib import Path

from bigchem import strict
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.shards import Data
from bigchem.errors import UserError
from bigchem.evaluate.run import Subject, evaluate, run_subject
from bigchem.export import export, is_newest
from bigchem.tasks import TASK_NAMES, check_labelled


def evaluate_path(
    subject: Path, data: str | None, tasks: tuple[str, ...], out: Path | None, overrides: tuple[str, ...]
) -> Path:
    """Evaluates a run folder (consolidated first if it is not yet) or a model folder; the path of results.json."""
    for task in tasks:
        check_labelled(task, "--task")
    if (subject / "config.toml").is_file():
        config = strict.load(RunConfig, subject / "config.toml", [f"evaluate.{o}" for o in overrides])
        model_dir = subject / "model"
        if not is_newest(model_dir, subject):
            export(subject, model_dir, overwrite=True)
        chosen = run_subject(config, model_dir, data, out)
        return evaluate(_only(chosen, tasks), config.evaluate)
    if data is None:
        raise UserError("a model's folder does not say which data to use", str(subject), "add --data FOLDER")
    settings: dict[str, object] = {}
    for override in overrides:
        strict.apply_override(settings, override)
    evaluation = strict.validate(EvaluateConfig, settings, "--set")
    opened = Data(data)
    rows = opened.index.rows(evaluation.split)
    about = {"run": subject.name, "mixture": {}, "seed": 0, "step": 0, "tokens": 0}
    chosen = Subject(subject, opened, tuple(t for t in TASK_NAMES if t in rows), out or subject / "results", 512, about)
    return evaluate(_only(chosen, tasks), evaluation)


def _only(subject: Subject, tasks: tuple[str, ...]) -> Subject:
    if not tasks:
        return subject
    return Subject(subject.model_dir, subject.data, tasks, subject.out, subject.max_source_tokens, subject.about)
