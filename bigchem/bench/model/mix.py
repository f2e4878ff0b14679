"""Lengths of the real mix of the five tasks, and micro-batches of it: grouped and padded, or packed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigchem.base.errors import UserError

Rows = NDArray[np.int64]
"""Source and target tokens of each row, [rows, 2]."""

LONGEST = 512
BUILT_IN = Path(__file__).with_name("real_mix.json")


def lengths_of_tasks(data: Path | None) -> dict[str, Rows]:
    """Lengths of each task's training rows, from a built data folder or from the packaged 256 pairs per task.

    UserError for a folder without lengths.
    """
    if data is None:
        pairs: dict[str, Any] = json.loads(BUILT_IN.read_text(encoding="utf-8"))
        return {task: np.asarray(found, dtype=np.int64) for task, found in pairs.items()}
    from bigchem.tasks import shipped  # brings pydantic, which the packaged lengths do not need

    files = {task: data / "lengths" / f"train-{task}.npy" for task in shipped().scored}
    found = {task: read_lengths(file) for task, file in files.items() if file.exists()}
    if not found:
        raise UserError("no lengths of training rows", str(data), "give a folder made by `bigchem data build`")
    return {task: np.minimum(rows, LONGEST) for task, rows in found.items()}


def read_lengths(file: Path) -> Rows:
    """[rows, 2] from a file of lengths; UserError if it is not one."""
    try:
        rows = np.load(file, mmap_mode="r")  # so a header that overstates the size does not fill memory
        if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu":
            raise ValueError(f"{rows.shape} {rows.dtype}")
        found: Rows = rows.astype(np.int64)
    except Exception as error:  # numpy's header parser raises several kinds
        raise UserError(f"not row lengths: {str(error)[:200]}", str(file), "build or copy the data again") from None
    return found


def mixed(lengths: dict[str, Rows], tokens: int, seed: int) -> Rows:
    """Random rows, tasks in rotation, up to `tokens` tokens."""
    rng = np.random.default_rng(seed)
    per_task = 1 + tokens // sum(int(rows.sum(1).mean()) for rows in lengths.values())
    drawn = np.stack([rows[rng.integers(len(rows), size=2 * per_task)] for rows in lengths.values()], axis=1)
    rows = drawn.reshape(-1, 2)
    return rows[: int(np.searchsorted(rows.sum(1).cumsum(), tokens))]


def grouped(rows: Rows, budget: int) -> list[Rows]:
    """Padded micro-batches of rows of similar length: sorted by the longer side, as many as fit the budget of padded
    tokens. Of the orders tried, this one pads least (22 % of the real mix; 37 % by the source alone, as transformers'
    Trainer sorts)."""
    batches = []
    begin, longest = 0, np.zeros(2, np.int64)
    ordered = rows[np.argsort(-rows.max(1), kind="stable")]
    for end, row in enumerate(ordered):
        longest = np.maximum(longest, row)
        if (end + 1 - begin) * longest.sum() > budget and end > begin:
            batches.append(ordered[begin:end])
            begin, longest = end, row
    return [*batches, ordered[begin:]]


def packed(rows: Rows, budget: int, seed: int) -> list[Rows]:
    """As few equally full micro-batches of real tokens as the budget allows (at most a row over), in random order."""
    ordered = np.random.default_rng(seed).permutation(rows)
    ends = ordered.sum(1).cumsum()
    parts = -(-int(ends[-1]) // budget)
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts)
    return [part for part in np.split(ordered, cuts) if len(part)]


def padded_tokens(batch: Rows) -> int:
    """Tokens of a padded micro-batch, padding included."""
    return len(batch) * int(batch.max(0).sum())


def spread(lengths: dict[str, Rows], pairs: int) -> Iterator[tuple[str, list[list[int]]]]:
    """`pairs` pairs of each task, evenly spaced in the order of their sums."""
    for task, rows in lengths.items():
        ordered = rows[np.lexsort((rows[:, 0], rows.sum(1)))]
        yield task, ordered[((np.arange(pairs) + 0.5) * len(ordered) / pairs).astype(int)].tolist()


if __name__ == "__main__":  # python -m bigchem.bench.model.mix data/full
    print(
        json.dumps(dict(spread(lengths_of_tasks(Path(sys.argv[1])), 256)), separators=(",", ":")).replace(
            "]],", "]],\n"
        )
    )
