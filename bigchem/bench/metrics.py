"""What scoring and predicting cost beside the straightforward way: the same numbers, the same libraries.

Scoring: one process, a pass over the pairs for each metric, as MolT5's evaluation scripts do it: nltk's corpus_bleu,
RDKit parsing again for each, Python's Levenshtein over strings one by one. FCD is left out of both: it is one call of
package fcd either way. Predicting: transformers' generate over rows as they come, in batches of a fixed number of rows.
Times are medians of runs in turn, on the clock for scoring, of the processor for predicting. Equal values are checked.
"""

from __future__ import annotations

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
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data, TaskRows
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.evaluate.generation.generate import Part, beam_search, decoded, load_generator, padded, part_of
from bigchem.tasks import TASK_NAMES

CPU = torch.device("cpu")
LONGEST = 512
"""Tokens that sources are cut at."""


def scoring(task: str, file: Path, workers: int, turns: int, asked: float) -> list[Figure]:
    """Seconds of both ways over a file of predictions, and their ratios in one process and on `workers`.

    Each run is a process of its own, as a script's is, and times itself: reading, libraries' data (WordNet) and worker
    processes count, the interpreter's start and imports do not.
    """
    ways = {"straightforward": 0, "bigchem, 1 process": 1, f"bigchem, {workers} processes": workers}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        values = {}
        for name, processes in ways.items():
            command = [sys.executable, "-m", "bigchem.bench.metrics_once", task, str(file), str(processes)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken, values[name] = json.loads(done.stdout.splitlines()[-1])
            times[name].append(taken)
        expected, *others = values.values()
        for other in others:
            if other.keys() != expected.keys() or any(abs(other[n] - expected[n]) > 1e-4 for n in expected):
                raise UserError(f"{task}: {other} is not {expected}", str(file))
    plain_s, one_s, all_s = (float(np.median(taken)) for taken in times.values())
    return [
        *(Figure(f"{task}: {name}", float(np.median(taken)), "s") for name, taken in times.items()),
        Figure(f"{task}: times faster in 1 process", plain_s / one_s, "x"),
        Figure(f"{task}: times faster in {workers} processes", plain_s / all_s, "x", asked, at_least=True),
    ]


Row = tuple[TaskRows, int]
Search = Callable[[torch.Tensor], torch.Tensor]
"""From padded sources [rows, longest] to the best of each, [rows, tokens]."""


def generating(model_dir: Path, data: Data, rows: int, config: EvaluateConfig, turns: int) -> list[Figure]:
    """Processor seconds of beam search over the first rows of every task of the test split: as `evaluate` does it, and
    by plain transformers over rows in no order, in batches of a fixed number of rows.

    That number: first what fits `evaluate`'s memory, so many tokens a batch, if a batch of the split's longest rows
    comes, which a loop that does not look at lengths has to reckon with; then the mean of `evaluate`'s own batches.
    Outputs are compared.
    """
    ours, plain = load_generator(model_dir, CPU), plain_generator(model_dir)
    tokenizer = Tokenizer.load(model_dir)
    parts = [data.split("test", task) for task in TASK_NAMES if task in data.index.rows("test")]
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

    ways: dict[str, tuple[Search, list[list[Row]]]] = {
        "bigchem": (searched, batches),
        f"unsorted, {few} a batch: equal memory": (looped, fixed(mixed, few)),
        f"unsorted, {mean} a batch: equal rows": (looped, fixed(mixed, mean)),
    }
    found: dict[str, dict[tuple[str, int], str]] = {}

    def way(name: str) -> None:
        found[name] = predicted(ways[name][0], tokenizer, ways[name][1])

    seconds = in_turn([partial(way, name) for name in ways], turns)
    expected, *others = found.values()
    same = [float(np.mean([made[row] == expected[row] for row in expected])) for made in others]
    return [
        *(Figure(f"beam search, {len(mixed)} rows: {name}", s, "CPU s") for name, s in zip(ways, seconds, strict=True)),
        Figure("beam search: equal outputs", 100 * min(same), "%", 99.0, at_least=True),
        Figure("beam search: times faster, equal memory", seconds[1] / seconds[0], "x", 3.0, at_least=True),
        Figure("beam search: times faster, equal rows", seconds[2] / seconds[0], "x"),
    ]


def plain_generator(model_dir: Path) -> Any:
    """transformers' model as it loads it."""
    from transformers import T5ForConditionalGeneration

    return T5ForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()


def source(row: Row) -> list[int]:
    """Token ids of a row's source, cut as `evaluate` cuts it."""
    return Part({}, LONGEST).source(*row)


def fixed(rows: list[Row], size: int) -> list[list[Row]]:
    """Rows as they come, so many a batch."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def predicted(search: Search, tokenizer: Tokenizer, batches: list[list[Row]]) -> dict[tuple[str, int], str]:
    """The best prediction of each row, by task and row."""
    texts = {}
    for batch in batches:
        made = tokenizer.decode_batch(search(padded([source(row) for row in batch], CPU)).tolist())
        texts.update({(rows.task, row): text for (rows, row), text in zip(batch, made, strict=True)})
    return texts


def in_turn(ways: list[Callable[[], Any]], turns: int) -> list[float]:
    """Median seconds of processor time of each way, run one after the other in each turn."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(turns):
        for way, taken in zip(ways, times, strict=True):
            begun = time.process_time()
            way()
            taken.append(time.process_time() - begun)
    return [float(np.median(taken)) for taken in times]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    generation: Annotated[Path | None, typer.Option(help="Predictions of molecules, as `bigchem score` reads.")] = None,
    captioning: Annotated[Path | None, typer.Option(help="Predictions of captions.")] = None,
    model: Annotated[Path | None, typer.Option(help="A consolidated model, for beam search; with --data.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data with a test split.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each task for beam search.")] = 100,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    turns: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 3,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time scoring and predicting beside the straightforward way.

    Example: bigchem bench metrics --generation molt5-small-caption2smiles.txt.gz

    Example: bigchem bench metrics --model runs/demo/1m-together-s0/model --data data/demo
    """
    processes = workers or os.cpu_count() or 1
    figures = []
    if generation is not None:
        figures += scoring("generation", generation, processes, turns, 4.0)
    if captioning is not None:
        figures += scoring("captioning", captioning, processes, turns, 3.0)
    if model is not None and data is not None:
        config = EvaluateConfig(num_beams=5, max_new_tokens=max_new_tokens)
        figures += generating(model, Data(data), rows, config, turns)
    if not figures:
        raise UserError("nothing to time", None, "give --generation, --captioning, or --model with --data")
    print_figures(figures, as_json)
