"""What scoring and predicting cost beside the straightforward way: the same numbers, the same libraries.

Scoring: one process, a pass over the pairs for each metric, as MolT5's evaluation scripts do it: nltk's corpus_bleu,
RDKit parsing again for each, Python's Levenshtein over strings one by one. FCD is left out of both: it is one call of
package fcd either way. Predicting: transformers' generate over rows as they come, in batches of a fixed number of rows.
Times are medians of runs in turn. Equal values are checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from bench_common import Figure, print_figures

from bigchem import program
from bigchem.config import EvaluateConfig
from bigchem.data.shards import Data, TaskRows
from bigchem.data.tokenizer import Tokenizer
from bigchem.errors import UserError
from bigchem.evaluate.generate import Part, batches_of, beam_search, load_generator, padded
from bigchem.tasks import TASK_NAMES

ONCE = Path(__file__).with_name("bench_metrics_once.py")
CPU = torch.device("cpu")


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
            command = [sys.executable, str(ONCE), task, str(file), str(processes)]
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


def generating(model_dir: Path, data: Data, rows: int, config: EvaluateConfig, fixed: int, turns: int) -> list[Figure]:
    """Seconds of beam search over the first rows of every task of the test split, both ways; outputs are compared."""
    model, tokenizer = load_generator(model_dir, CPU), Tokenizer.load(model_dir)
    parts = [(data.split("test", task), task) for task in TASK_NAMES if task in data.index.rows("test")]
    mixed = [(task_rows, row) for task_rows, _ in parts for row in range(min(rows, len(task_rows)))]
    order = np.random.default_rng(0).permutation(len(mixed))  # rows of tasks in any order, as in a shuffled loader
    unsorted = [mixed[i] for i in order]

    def loop() -> list[str]:
        return predicted(model, tokenizer, [unsorted[i : i + fixed] for i in range(0, len(unsorted), fixed)], config)

    def sorted_by_length() -> list[str]:
        made = {}
        for task_rows, _ in parts:
            own = [row for rows_of, row in unsorted if rows_of is task_rows]
            lengths = np.array([task_rows.lengths[row, 0] for row in range(len(task_rows))], dtype=np.int64)
            own.sort(key=lambda row: -int(lengths[row]))
            batches = [[(task_rows, row) for row in batch] for batch in batches_of(own, lengths, config.batch_tokens)]
            flat = [pair for batch in batches for pair in batch]
            made.update(
                {
                    (id(r), row): t
                    for (r, row), t in zip(flat, predicted(model, tokenizer, batches, config), strict=True)
                }
            )
        return [made[id(r), row] for r, row in unsorted]

    same = float(np.mean([a == b for a, b in zip(loop(), sorted_by_length(), strict=True)]))
    plain_s, ours_s = in_turn([loop, sorted_by_length], turns)
    return [
        Figure(f"beam search of {len(unsorted)} rows: unsorted, {fixed} a batch", plain_s, "s"),
        Figure("beam search: bigchem", ours_s, "s"),
        Figure("beam search: equal outputs", 100 * same, "%", 99.0, at_least=True),
        Figure("beam search: times faster", plain_s / ours_s, "x", 3.0, at_least=True),
    ]


def predicted(
    model: Any, tokenizer: Tokenizer, batches: list[list[tuple[TaskRows, int]]], config: EvaluateConfig
) -> list[str]:
    """The best prediction of each row, batch by batch."""
    texts: list[str] = []
    for batch in batches:
        ids = padded([Part({}, 512).source(rows, row) for rows, row in batch], CPU)
        texts += tokenizer.decode_batch(beam_search(model, ids, config).tolist())
    return texts


def in_turn(ways: list[Callable[[], Any]], turns: int) -> list[float]:
    """Median seconds of each way, run one after the other in each turn."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(turns):
        for way, taken in zip(ways, times, strict=True):
            begun = time.perf_counter()
            way()
            taken.append(time.perf_counter() - begun)
    return [float(np.median(taken)) for taken in times]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    generation: Annotated[Path | None, typer.Option(help="Predictions of molecules, as `bigchem score` reads.")] = None,
    captioning: Annotated[Path | None, typer.Option(help="Predictions of captions.")] = None,
    model: Annotated[Path | None, typer.Option(help="A consolidated model, for beam search; with --data.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data with a test split.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each task for beam search.")] = 100,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows of a batch of the unsorted loop.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    turns: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 3,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time scoring and predicting beside the straightforward way.

    Example: python tools/bench_metrics.py --generation molt5-small-caption2smiles.txt.gz
    """
    processes = workers or os.cpu_count() or 1
    figures = []
    if generation is not None:
        figures += scoring("generation", generation, processes, turns, 4.0)
    if captioning is not None:
        figures += scoring("captioning", captioning, processes, turns, 3.0)
    if model is not None and data is not None:
        config = EvaluateConfig(num_beams=5, max_new_tokens=max_new_tokens)
        figures += generating(model, Data(data), rows, config, batch_rows, turns)
    if not figures:
        raise UserError("nothing to time", None, "give --generation, --captioning, or --model with --data")
    print_figures(figures, as_json)


if __name__ == "__main__":
    program.run(app)
