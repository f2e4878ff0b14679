"""Evaluates a consolidated model on a split: predicts, scores, writes results.json."""

import json
import shutil
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch.distributed as dist

import bigchem
from bigchem.base import atomic, environment, json_file, toml
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig
from bigchem.evaluate.generation.generate import (
    PRECISION,
    BatchLoss,
    Part,
    part_of,
    predict,
    predicted_keys,
    read_lines,
    sources_cut,
    token_loss,
)
from bigchem.evaluate.generation.label_scores import LABEL_SCORES, has_labels
from bigchem.evaluate.generation.round_trip import ROUND_TRIP, products
from bigchem.evaluate.prediction_files.answers import as_scored
from bigchem.evaluate.prediction_files.columns import LOSS_AND_TOKENS
from bigchem.evaluate.prediction_files.tables import Examples
from bigchem.evaluate.protocol.score_task import Score, score_task
from bigchem.evaluate.published import comparison_tables
from bigchem.evaluate.score import label_log_probabilities, losses_of
from bigchem.evaluate.score_tables import markdown
from bigchem.evaluate.subject import Subject, check, model_hash
from bigchem.evaluate.training_record import training_record
from bigchem.model import presets
from bigchem.model.weights import hf_config
from bigchem.tasks import Task
from bigchem.train.logging.scores import share_scores

SCHEMA = 1
AGAIN = "run the same command again"


def evaluate(
    subject: Subject, config: EvaluateConfig, *, rank: int = 0, world_size: int = 1, progress: Progress | None = None
) -> Path:
    """Predicts this rank's part; rank 0 then scores all parts and writes results.json. Call on every rank."""
    check(subject, config)
    if rank == 0:
        begin(subject, config)
    _barrier(world_size)
    predict_part(subject, config, rank, world_size, progress or Progress(quiet=rank != 0))
    _barrier(world_size)
    return score_parts(subject, config) if rank == 0 else subject.out / "results.json"


def begin(subject: Subject, config: EvaluateConfig) -> None:
    """Creates the folder of predictions. Those of an interrupted evaluation of the same model, data and settings are
    kept; any others are removed."""
    identity = _identity(subject, config, model_hash(subject.model_dir))
    if _begun(subject) != identity:
        predictions = subject.out / "predictions"
        shutil.rmtree(predictions, ignore_errors=True)
        predictions.mkdir(parents=True)
        atomic.write_atomically(predictions / "identity.json", json.dumps(identity, indent=1))


def refuse_to_discard(subject: Subject, config: EvaluateConfig) -> None:
    """UserError if predictions of this very model would be removed because the settings differ."""
    begun = _begun(subject)
    if begun is None or not any((subject.out / "predictions").glob("*.jsonl")):
        return
    old, new = (toml.flat(table) for table in (begun, _identity(subject, config, begun["model"])))
    differing = [name for name in new if old.get(name) != new[name]]
    if differing and begun["model"] == model_hash(subject.model_dir):
        changes = ", ".join(f"{name.removeprefix('decoding.')}: {old.get(name)} -> {new[name]}" for name in differing)
        raise UserError(
            f"holds predictions of this model with other settings: {changes}",
            str(subject.out),
            "--out ANOTHER, or remove this folder first",
        )


def predict_part(subject: Subject, config: EvaluateConfig, part: int, parts: int, progress: Progress) -> None:
    """Predicts one part of every task, into files. Existing predictions are kept."""
    device = environment.device()
    predictions = subject.out / "predictions"
    for task in subject.tasks:
        rows = subject.data.split(config.split, task)
        if cut := sources_cut(rows, config.max_rows, subject.max_source_tokens):
            progress.say(f"{task}: {cut:,} sources cut at {subject.max_source_tokens} tokens")
        own = _part(subject, config, task, part, parts)
        predict(subject.model_dir, rows, own, config, predictions / f"{task}.rank{part}.jsonl", device, progress)
        if not (file := _losses(subject, task, part, parts)).is_file():
            losses = token_loss(subject.model_dir, rows, own, device)
            atomic.write_atomically(file, json.dumps({number: asdict(loss) for number, loss in losses.items()}))


def parts_left(subject: Subject, config: EvaluateConfig, parts: int) -> list[int]:
    """Numbers of the parts still to predict, judged without reading the model."""
    begun = _begun(subject)
    if begun is None or begun != _identity(subject, config, begun["model"]):
        return list(range(parts))
    return [n for n in range(parts) if not all(_losses(subject, t, n, parts).is_file() for t in subject.tasks)]


def score_parts(subject: Subject, config: EvaluateConfig) -> Path:
    """Merges and scores all parts, writes results.json and returns its path. Also scores tasks that an earlier command
    predicted completely with this model and settings. UserError if predictions are missing."""
    sha256 = model_hash(subject.model_dir)
    if _begun(subject) != _identity(subject, config, sha256):
        raise UserError("predictions are from another model or other settings", str(subject.out), AGAIN)
    complete = {path.stem for path in (subject.out / "predictions").glob("*.jsonl")}
    tasks = [task for task in subject.data.tasks.scored if task in subject.tasks or task in complete]
    texts: dict[str, dict[str, int]] = {}
    precisions: set[str] = set()
    scores = [score for task in tasks for score in _score(subject, task, config, texts, precisions)]
    cut = {
        task: sources_cut(subject.data.split(config.split, task), config.max_rows, subject.max_source_tokens)
        for task in tasks
    }
    name = str(subject.about.get("run", subject.model_dir.name))
    atomic.write_atomically(
        subject.out / "table.md", markdown(scores) + _repairs(texts) + "\n" + comparison_tables(scores, name)
    )
    results = subject.out / "results.json"
    table = _results(subject, config, sha256, scores, cut, texts) | {"precision": ", ".join(sorted(precisions))}
    atomic.write_atomically(results, json.dumps(table, indent=1))
    run_dir = subject.model_dir.parent
    if subject.trained is not None and subject.out.resolve() == (run_dir / "results").resolve():
        share_scores(subject.trained, run_dir, table)
    return results


def _identity(subject: Subject, config: EvaluateConfig, sha256: str) -> dict[str, Any]:
    decoding = {"num_beams": config.num_beams, "num_return": config.num_return, "max_new_tokens": config.max_new_tokens}
    return {
        "model": sha256,
        "data_fingerprint": subject.data.index.fingerprint,
        "split": config.split,
        "max_rows": config.max_rows,
        "precision": config.precision,
        "max_source_tokens": subject.max_source_tokens,
        "batch_tokens": config.batch_tokens,
        "decoding": decoding,
    }


def _begun(subject: Subject) -> dict[str, Any] | None:
    """The identity (model, data, settings) of the existing predictions; None if there are none."""
    file = subject.out / "predictions" / "identity.json"
    try:
        table = json_file.load_object(file)
        table["model"]
    except FileNotFoundError:
        return None
    except (RecordError, KeyError):
        hint = f"remove {file.parent} and predict again"
        raise UserError("damaged: cannot identify the predictions beside it", str(file), hint) from None
    return {"precision": "auto", **table}  # earlier versions did not say


def _part(subject: Subject, config: EvaluateConfig, task: str, part: int, parts: int) -> Part:
    """Each task starts at another part, so that tasks of a single batch do not all fall to part 0."""
    rows = subject.data.split(config.split, task)
    turn = part - list(subject.data.tasks).index(task)
    return part_of(rows, config.max_rows, subject.max_source_tokens, config.batch_tokens, turn, parts)


def _losses(subject: Subject, task: str, part: int, parts: int) -> Path:
    """Written after the predictions of a part's task: if it exists, they are complete."""
    return subject.out / "predictions" / f"{task}.rank{part}of{parts}.loss.json"


def _losses_of(file: Path) -> dict[int, BatchLoss]:
    """The loss of each batch; UserError if the file is damaged or from an older version."""
    hint = f"remove it and {AGAIN}: predictions are kept"
    found = json_file.as_kind(dict[str, BatchLoss], json_file.load(file, hint=hint), str(file), hint=hint)
    if not all(number.isdecimal() and len(loss.rows) == len(loss.tokens) for number, loss in found.items()):
        raise RecordError("a batch without a number, or a row without a loss", str(file), hint)
    return {int(number): loss for number, loss in found.items()}


def _repairs(texts: dict[str, dict[str, int]]) -> str:
    """A list of the repairs made to each task's texts."""
    found = [f"- {task}: {count} {what}" for task, counts in texts.items() for what, count in counts.items()]
    return "\n" + "\n".join(found) + "\n" if found else ""


def _score(
    subject: Subject, task: str, config: EvaluateConfig, texts: dict[str, dict[str, int]], precisions: set[str]
) -> list[Score]:
    """Scores of one task. texts: receives the counts of repaired texts. precisions: those of the predictions."""
    predictions = subject.out / "predictions"
    parts = predictions.glob(f"{task}.rank*.jsonl")
    about = subject.data.tasks[task]
    lines = {line["row"]: line for part in parts for line in read_lines(part, predicted_keys(about))}
    losses: dict[int, BatchLoss] = {}
    for file in predictions.glob(f"{task}.rank*.loss.json"):
        losses |= _losses_of(file)
    batches = _part(subject, config, task, 0, 1).batches
    rows = [row for batch in batches.values() for row in batch]
    if missing := [row for row in rows if row not in lines] or batches.keys() - losses.keys():
        raise UserError(f"{task}: {len(missing)} of {len(rows)} predictions are missing", str(predictions), AGAIN)
    for number, batch in batches.items():
        for row, loss, tokens in zip(batch, losses[number].rows, losses[number].tokens, strict=True):
            lines[row][LOSS_AND_TOKENS] = [round(loss, 6), tokens]
    listed = [lines[row] for row in sorted(rows)]
    precisions |= {line.get(PRECISION, "fp32") for line in listed}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in listed)
    atomic.write_atomically(predictions / f"{task}.jsonl", text)
    read = as_scored(
        about,
        Examples(
            [line["source"] for line in listed],
            [[line["target"]] for line in listed],
            [line["predictions"] for line in listed],
            None,
            {},
            [line[LABEL_SCORES] for line in listed] if has_labels(about) else None,
            [line[LOSS_AND_TOKENS] for line in listed],
        ),
    )
    texts[task] = read.counts
    return score_task(
        about,
        read.sources,
        read.single(str(predictions)),
        read.predictions,
        similarity=config.similarity,
        bootstrap=config.bootstrap,
        **_beside(subject, config, about, read),
    )


def _beside(subject: Subject, config: EvaluateConfig, task: Task, read: Examples) -> dict[str, Any]:
    """What some metrics need beside the texts: arguments of score_task."""
    predictions = subject.out / "predictions"
    training = subject.training if task.family == "molecule" else None
    return {
        "products": _products(subject, config, task, read.predictions),
        "training": training and training.molecules(),
        "label_log_probabilities": label_log_probabilities(task, read, predictions),
        "losses": losses_of(read, predictions),
    }


def _products(subject: Subject, config: EvaluateConfig, task: Task, ranked: list[list[str]]) -> list[list[str]] | None:
    """The forward model's products of the predictions of retrosynthesis, in a file for each inverse. Without a forward
    model: the saved products of the one that results.json names, if complete for all predictions or for the best
    ones."""
    sha256 = _forward_model(subject)
    if task.inverse is None or task.target_domain != "reactants" or sha256 is None:
        return None
    file = subject.out / "predictions" / f"round_trip.{sha256}.{task.inverse}.jsonl"
    if subject.forward_model is not None:
        return products(subject.forward_model, task.inverse, ranked, config, file, Progress())
    known = {line["source"]: line["prediction"] for line in read_lines(file, ROUND_TRIP)}
    for listed in (ranked, [texts[:1] for texts in ranked]):
        if known.keys() >= set(chain.from_iterable(listed)):
            return [[known[text] for text in texts] for texts in listed]
    return None


def _forward_model(subject: Subject) -> str | None:
    """Hash of the round trip's model: the requested one, else that of the existing results."""
    if subject.forward_model is not None:
        return model_hash(subject.forward_model)
    try:
        recorded = json_file.load_object(subject.out / "results.json").get("forward_model")
    except (OSError, RecordError):
        return None
    return None if recorded is None else str(recorded)


def _results(
    subject: Subject,
    config: EvaluateConfig,
    sha256: str,
    scores: list[Score],
    cut: dict[str, int],
    texts: dict[str, dict[str, int]],
) -> dict[str, Any]:
    shape = hf_config.read_shape(subject.model_dir)
    about = dict(subject.about)
    model = {
        "preset": about.pop("preset", None),
        "parameters": presets.num_parameters(shape),
        "non_embedding_parameters": presets.num_parameters(shape) - presets.num_embeddings(shape),
        "sha256": sha256,
    }
    trained, tokenizer = subject.trained, {"tokenizer": subject.data.index.tokenizer}
    identity = _identity(subject, config, sha256)
    is_used = subject.forward_model is not None or any(s.metric == "round_trip" and s.value is not None for s in scores)
    return {
        "schema": SCHEMA,
        **about,
        "model": model,
        "training": trained and tokenizer | training_record(trained, subject.model_dir.parent, about, shape),
        "data_fingerprint": identity["data_fingerprint"],
        "split": config.split,
        "decoding": identity["decoding"],
        "max_source_tokens": subject.max_source_tokens,
        "sources_cut": cut,
        "texts": texts,
        "forward_model": _forward_model(subject) if is_used else None,
        "tasks": subject.data.tasks.only(score.task for score in scores).to_json(),
        "protocol": f"bigchem {bigchem.__version__}",
        "metrics": [asdict(score) for score in scores],
    }


def _barrier(world_size: int) -> None:
    if world_size > 1:
        dist.barrier()
