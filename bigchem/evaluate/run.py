"""Predict, score, report: a consolidated model on a split of the data, into results.json."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import bigchem
from bigchem import strict
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.plan import open_data
from bigchem.data.shards import Data
from bigchem.data.tokenizer import Tokenizer
from bigchem.errors import UserError
from bigchem.evaluate.generate import part_of, predict, read_lines, sources_cut, token_loss
from bigchem.evaluate.protocol import Score, score_task
from bigchem.model import presets
from bigchem.progress import Progress
from bigchem.tasks import TASK_NAMES
from bigchem.train.checkpoint import PROOF

SCHEMA = 1


@dataclass(frozen=True)
class Subject:
    """What is evaluated and where its results go. about: fields of results.json that the caller knows."""

    model_dir: Path
    data: Data
    tasks: tuple[str, ...]
    out: Path
    max_source_tokens: int
    about: dict[str, Any]


def run_subject(config: RunConfig, model_dir: Path, data: str | None = None, out: Path | None = None) -> Subject:
    """A run's consolidated model on the tasks that it was trained on, into RUN/results unless said otherwise."""
    opened = open_data(config.data if data is None else config.data.model_copy(update={"path": data}))
    proof = json.loads((model_dir / PROOF).read_text(encoding="utf-8"))
    about = {
        "run": config.name,
        "preset": config.model.preset,
        "mixture": config.data.mixture,
        "seed": config.seed,
        "step": proof["step"],
        "tokens": proof["tokens"],
    }
    rows = opened.index.rows(config.evaluate.split)
    tasks = tuple(t for t in TASK_NAMES if t in config.data.mixture and t in rows)
    return Subject(model_dir, opened, tasks, out or config.run_dir / "results", config.data.max_source_tokens, about)


def evaluate(
    subject: Subject, config: EvaluateConfig, *, rank: int = 0, world_size: int = 1, progress: Progress | None = None
) -> Path:
    """Predicts this rank's rows; rank 0 then scores all of them and writes results.json. Every rank calls this."""
    progress = progress or Progress(quiet=rank != 0)
    if not subject.tasks:
        raise UserError(f"no task of the model has rows in split '{config.split}'", str(subject.data.path))
    _check_tokenizer(subject)
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    sha256 = model_hash(subject.model_dir)
    predictions = subject.out / "predictions"
    if rank == 0:
        _start_or_resume(predictions, _identity(subject, config, sha256))
    _barrier(world_size)
    losses: dict[str, tuple[float, int]] = {}
    cut: dict[str, int] = {}
    for task in subject.tasks:
        rows = subject.data.split(config.split, task)
        cut[task] = sources_cut(rows, config.max_rows, subject.max_source_tokens)
        if cut[task]:
            progress.say(f"{task}: {cut[task]:,} sources cut at {subject.max_source_tokens} tokens")
        part = part_of(rows, config.max_rows, subject.max_source_tokens, rank, world_size)
        predict(subject.model_dir, rows, part, config, predictions / f"{task}.rank{rank}.jsonl", device, progress)
        losses[task] = _summed(
            token_loss(subject.model_dir, rows, part, config.batch_tokens, device), device, world_size
        )
    _barrier(world_size)
    results = subject.out / "results.json"
    if rank == 0:
        scores = [score for task in subject.tasks for score in _score(predictions, task, losses[task], config)]
        table = _results(subject, config, sha256, scores, cut)
        strict.write_atomically(subject.out / "table.md", markdown(scores))
        strict.write_atomically(results, json.dumps(table, indent=1))
    return results


def _check_tokenizer(subject: Subject) -> None:
    """The data's token ids mean nothing to a model with another tokenizer."""
    if Tokenizer.load(subject.model_dir).fingerprint != subject.data.index.tokenizer:
        raise UserError(
            f"the model has another tokenizer than the data in {subject.data.path}",
            str(subject.model_dir),
            "build the data with this model's tokenizer",
        )


def model_hash(model_dir: Path) -> str:
    """sha256 over a model folder's configuration and weights: 16 hexadecimal digits."""
    files = [model_dir / "config.json", *sorted(model_dir.glob("*.safetensors"))]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise UserError("no model here: config.json is missing", str(model_dir), "tools/consolidate.py makes one")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def markdown(scores: list[Score]) -> str:
    """The scores as a Markdown table."""
    lines = ["| task | metric | value | 95 % interval | n | definition |", "|---|---|---|---|---|---|"]
    for s in scores:
        value = "n/a" if s.value is None else f"{s.value:.4f}"
        interval = "" if s.low is None or s.high is None else f"{s.low:.4f} - {s.high:.4f}"
        lines.append(f"| {s.task} | {s.metric} | {value} | {interval} | {s.n} | {s.note or s.definition} |")
    return "\n".join(lines) + "\n"


def _identity(subject: Subject, config: EvaluateConfig, sha256: str) -> dict[str, Any]:
    decoding = {"num_beams": config.num_beams, "num_return": config.num_return, "max_new_tokens": config.max_new_tokens}
    return {
        "model": sha256,
        "data_fingerprint": subject.data.index.fingerprint,
        "split": config.split,
        "max_rows": config.max_rows,
        "max_source_tokens": subject.max_source_tokens,
        "decoding": decoding,
    }


def _start_or_resume(predictions: Path, identity: dict[str, Any]) -> None:
    """Keeps predictions of an interrupted evaluation of the same model, data and settings; removes all others."""
    file = predictions / "identity.json"
    if not (file.is_file() and json.loads(file.read_text(encoding="utf-8")) == identity):
        shutil.rmtree(predictions, ignore_errors=True)
        predictions.mkdir(parents=True)
        strict.write_atomically(file, json.dumps(identity, indent=1))


def _score(predictions: Path, task: str, loss: tuple[float, int], config: EvaluateConfig) -> list[Score]:
    parts = sorted(predictions.glob(f"{task}.rank*.jsonl"))
    lines = {line["row"]: line for part in parts for line in read_lines(part)}
    listed = [lines[row] for row in sorted(lines)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in listed)
    strict.write_atomically(predictions / f"{task}.jsonl", text)
    scores = score_task(
        task,
        [line["source"] for line in listed],
        [line["target"] for line in listed],
        [line["predictions"] for line in listed],
        bootstrap=config.bootstrap,
    )
    total, count = loss
    return [Score(task, "loss", total / count, None, None, count, "loss/token-mean-v1"), *scores]


def _results(
    subject: Subject, config: EvaluateConfig, sha256: str, scores: list[Score], cut: dict[str, int]
) -> dict[str, Any]:
    shape = presets.read_shape(subject.model_dir)
    about = dict(subject.about)
    model = {"preset": about.pop("preset", None), "parameters": presets.num_parameters(shape), "sha256": sha256}
    identity = _identity(subject, config, sha256)
    return {
        "schema": SCHEMA,
        **about,
        "model": model,
        "data_fingerprint": identity["data_fingerprint"],
        "split": config.split,
        "decoding": identity["decoding"],
        "max_source_tokens": subject.max_source_tokens,
        "sources_cut": cut,
        "protocol": f"bigchem {bigchem.__version__}",
        "metrics": [asdict(score) for score in scores],
    }


def _summed(loss: tuple[float, int], device: torch.device, world_size: int) -> tuple[float, int]:
    if world_size == 1:
        return loss
    total = torch.tensor(loss, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total[0]), int(total[1])


def _barrier(world_size: int) -> None:
    if world_size > 1:
        dist.barrier()
