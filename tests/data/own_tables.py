"""Tables of one's own for `bigchem data init`: columns of every kind, and the recipe and data that a table becomes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigchem.base.progress import Progress
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.init.write_recipe import Written, write_recipe
from bigchem.data.storage.index import Index

QUIET = Progress(quiet=True)
N = 60
SMILES = [f"{'C' * (n % 12 + 1)}{end}" for n, end in enumerate(["O", "N", "Cl", "c1ccccc1", "C1CCNCC1"] * (N // 5))]
TEXTS = [f"The molecule is an organic compound of {n} parts." for n in range(N)]
NAMES_OF = [f"{n}-methyl-{n}-propylheptan-{n}-ol" for n in range(1, N + 1)]
FORMULAS = [f"C{n}H{2 * n + 2}O" for n in range(1, N + 1)]
REACTANTS = [f"CC(=O)O.{s}.[Na+].[OH-]" for s in SMILES]
PRODUCTS = [f"CC(=O)N{s}" for s in SMILES]
PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def table(path: Path, columns: Mapping[str, Any]) -> str:
    """The path of a table that is written: of tabs if its name says so, otherwise of commas."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix in (".tsv", ".tab") else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def jsonl(path: Path, rows: Sequence[object], *, array: bool = False) -> str:
    """The path of a file of JSON lines, or of one array."""
    path.write_text(json.dumps(rows) if array else "".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def made(tmp_path: Path, *paths: str) -> tuple[Written, Index]:
    """The recipe of some files, and the data that it builds."""
    written = write_recipe(paths, tmp_path / "recipe.toml")
    return written, build(load_recipe(tmp_path / "recipe.toml"), tmp_path / "data", QUIET, workers=1)


def records(written: Written) -> dict[str, dict[str, Any] | None]:
    """The record of each task that is found; None: a task that ships."""
    return {task.name: task.record for group in written.groups for task in group.proposal.tasks}
