"""Scoring and predicting against a straightforward implementation with the same libraries.

Scoring: one process and a pass over the pairs per metric, as in MolT5's evaluation scripts: nltk's corpus_bleu, RDKit
parsing again for each metric, Levenshtein string by string. FCD is excluded: both make one call of package fcd.
Predicting: transformers' generate over unsorted rows, in batches of a fixed number of rows. Runs take turns; times are
medians, of wall time for scoring and CPU time for predicting. Outputs must be equal.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bigchem.base.errors import UserError
from bigchem.bench.common import Figure, print_figures
from bigchem.cli import program
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data, TaskRows
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.evaluate.generation.generate import Part, beam_search, decoded, load_generator, padded, part_of
from bigchem.evaluate.generation.label_scores import encoded, has_labels, label_scores
from bigchem.tasks import Task

CPU = torch.device("cpu")
LONGEST = 512
"""Limit of source tokens."""


def scoring(task: str, file: Path, workers: int, turns: int, target: float) -> list[Figure]:
    """Seconds of both implementations over a file of predictions, and the speed-up in one process and with `workers`.

    Each run is a separate process, like a script, and times itself: reading, libraries' data (WordNet) and worker
    processes count, the interpreter's start and imports do not.
    """
    variants = {"straightforward": 0, "bigchem, 1 process": 1, f"bigchem, {workers} processes": workers}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(turns):
        values = {}
        for name, processes in variants.items():
            command = [sys.executable, "-m", "bigchem.bench.metrics_once", task, str(file), str(processes)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken, values[name] = json.loads(done.stdout.splitlines()[-1])
            times[name].append(taken)
        expected, *results = values.values()
        for found in results:
            if found.keys() != expected.keys() or any(abs(found[n] - expected[n]) > 1e-4 for n in expected):
                raise UserError(f"{task}: got {found}, expected {expected}", str(file))
    plain_s, one_s, all_s = (float(np.median(taken)) for taken in times.values())
    return [
        *(Figure(f"{task}: {name}", float(np.median(taken)), "s") for name, taken in times.items()),
        Figure(f"{task}: speed-up in 1 process", plain_s / one_s, "x"),
        Figure(f"{task}: speed-up in {workers} processes", plain_s / all_s, "x", target, at_least=True),
    ]


Row = tuple[TaskRows, int]
Search = Callable[[torch.Tensor], torch.Tensor]
"""Padded sources [rows, longest] -> the best prediction of each [rows, tokens]."""


def generating(model_dir: Path, data: Data, rows: int, config: EvaluateConfig, turns: int) -> list[Figure]:
    """CPU seconds of beam search over the first rows of each task of the test split: as in `evaluate`, and with plain
    transformers over shuffled rows in batches of a fixed size.

    The fixed size is first the largest at which a batch of the split's longest rows still fits `evaluate`'s tokens per
    batch, as a loop that ignores lengths must assume; then the mean of `evaluate`'s own batches. Outputs are compared.
    """
    ours, plain = load_generator(model_dir, CPU), plain_generator(model_dir)
    tokenizer = Tokenizer.load(model_dir)
    parts = [data.split("test", task) for task in data.tasks.scored if task in data.index.rows("test")]
    mixed = [(task_rows, row) for task_rows in parts for row in range(min(rows, len(task_rows)))]
    mixed = [mixed[i] for i in np.random.default_rng(0).permutation(len(mixed))]
    whole = [part_of(task_rows, rows, LONGEST, config.batch_tokens, 0, 1) for task_rows in parts]
    batches = [
        [(task_rows, row) for row in batch]
        for task_rows, part in zip(parts, whole, strict=True)
        for batch in part.batches.values()
    ]
    longest = max(len(source((task_rows, int(task_rows.lengths[:, 0].argmax())))) for task_rows in parts)
    few, mean = max(1, config.batch_tokens // longest), -(-len(mixed) // len(batches))

    def searched(ids: torch.Tensor) -> torch.Tensor:
        return beam_search(ours, ids, config)

    def looped(ids: torch.Tensor) -> torch.Tensor:
        return decoded(plain, ids, config.num_beams, config.max_new_tokens)[:, 0]

    variants: dict[str, tuple[Search, list[list[Row]]]] = {
        "bigchem": (searched, batches),
        f"unsorted, {few} a batch: equal memory": (looped, fixed(mixed, few)),
        f"unsorted, {mean} a batch: equal rows": (looped, fixed(mixed, mean)),
    }
    found: dict[str, dict[tuple[str, int], str]] = {}

    def predict(name: str) -> None:
        found[name] = predicted(variants[name][0], tokenizer, variants[name][1])

    seconds = in_turn([partial(predict, name) for name in variants], turns)
    expected, *results = found.values()
    same = [float(np.mean([made[row] == expected[row] for row in expected])) for made in results]
    times = zip(variants, seconds, strict=True)
    return [
        *(Figure(f"beam search, {len(mixed)} rows: {name}", s, "CPU s") for name, s in times),
        Figure("beam search: equal outputs", 100 * min(same), "%", 99.0, at_least=True),
        Figure("beam search: speed-up, equal memory", seconds[1] / seconds[0], "x", 3.0, at_least=True),
        Figure("beam search: speed-up, equal rows", seconds[2] / seconds[0], "x"),
    ]


def labelling(model_dir: Path, data: Data, rows: int, config: EvaluateConfig, turns: int) -> list[Figure]:
    """CPU seconds of scoring every label of the first rows of each task with labels, and of generating them by beam
    search: the same encoded sources in the same batches. The encoder's time, equal for both, is apart."""
    model, tokenizer = load_generator(model_dir, CPU), Tokenizer.load(model_dir)
    figures = []
    for name in [name for name in data.index.rows("test") if has_labels(data.tasks[name])]:
        task_rows = data.split("test", name)
        part = part_of(task_rows, rows, LONGEST, config.batch_tokens, 0, 1)
        batches = [padded([part.source(task_rows, row) for row in batch], CPU) for batch in part.batches.values()]
        encoding, scores, search = in_turn(_on_batches(model, tokenizer, task_rows.about, batches, config), turns)
        what = f"{name}, {sum(map(len, batches))} rows"
        figures += [
            Figure(f"{what}: encoder", encoding, "CPU s"),
            Figure(f"{what}: scores of {len(task_rows.about.labels)} labels", scores, "CPU s"),
            Figure(f"{what}: beam search, {config.num_beams} beams", search, "CPU s"),
            Figure(f"{name}: speed-up of decoding", search / scores, "x", 5.0, at_least=True),
            Figure(f"{name}: speed-up with the encoder", (encoding + search) / (encoding + scores), "x"),
        ]
    return figures


def _on_batches(
    model: Any, tokenizer: Tokenizer, task: Task, batches: list[torch.Tensor], config: EvaluateConfig
) -> list[Callable[[], Any]]:
    """Calls that encode all batches of a task, score their labels, and generate."""
    pairs = [(ids, encoded(model, ids)) for ids in batches]
    return [
        lambda: [encoded(model, ids) for ids in batches],
        lambda: [label_scores(model, tokenizer, task, ids, config.batch_tokens, memory) for ids, memory in pairs],
        lambda: [beam_search(model, ids, config, memory=memory) for ids, memory in pairs],
    ]


def plain_generator(model_dir: Path) -> Any:
    """transformers' model as it loads it."""
    from transformers import T5ForConditionalGeneration

    return T5ForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()


def source(row: Row) -> list[int]:
    """Token ids of a row's source, cut as in `evaluate`."""
    return Part({}, LONGEST).source(*row)


def fixed(rows: list[Row], size: int) -> list[list[Row]]:
    """Batches of `size` rows, in the given order."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def predicted(search: Search, tokenizer: Tokenizer, batches: list[list[Row]]) -> dict[tuple[str, int], str]:
    """The best prediction of each row, by task and row."""
    texts = {}
    for batch in batches:
        made = tokenizer.decode_batch(search(padded([source(row) for row in batch], CPU)).tolist())
        texts.update({(rows.task, row): text for (rows, row), text in zip(batch, made, strict=True)})
    return texts


def in_turn(calls: list[Callable[[], Any]], turns: int) -> list[float]:
    """Median CPU seconds of each call; every turn runs all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(turns):
        for call, taken in zip(calls, times, strict=True):
            begun = time.process_time()
            call()
            taken.append(time.process_time() - begun)
    return [float(np.median(taken)) for taken in times]


def main(
    generation: Annotated[
        Path | None, typer.Option(help="Predicted molecules, in any format that `bigchem score` reads.")
    ] = None,
    captioning: Annotated[Path | None, typer.Option(help="Predicted captions, likewise.")] = None,
    model: Annotated[Path | None, typer.Option(help="Exported model, for beam search; needs --data.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder with a test split, for --model.")] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="With --model: time scores of labels instead, for tasks with labels.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, help="Rows per task for beam search.")] = 100,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens per prediction.")] = 256,
    turns: Annotated[int, typer.Option(min=1, help="Timed runs of each variant.")] = 3,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    as_json: program.Json = False,
) -> None:
    """Time scoring and beam search against straightforward implementations; outputs must be equal.

    Example: bigchem bench metrics --generation molt5-small-caption2smiles.txt.gz

    Example: bigchem bench metrics --model runs/demo/1m-together-s0/model --data data/demo

    Example: bigchem bench metrics --model model --data data/trials --labels --rows 200
    """
    processes = workers or os.cpu_count() or 1
    figures = []
    if generation is not None:
        figures += scoring("molecule", generation, processes, turns, 4.0)
    if captioning is not None:
        figures += scoring("caption", captioning, processes, turns, 3.0)
    if model is not None and data is not None:
        config = EvaluateConfig(num_beams=5, max_new_tokens=max_new_tokens)
        figures += (labelling if labels else generating)(model, Data(data), rows, config, turns)
    if not figures:
        raise UserError("nothing to time", None, "give --generation, --captioning, or --model with --data")
    print_figures(figures, as_json)
