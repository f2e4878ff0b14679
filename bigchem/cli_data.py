"""The verbs of `bigchem data`: build and look at training data. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bigchem.program import Json, Set

app = typer.Typer(no_args_is_help=True, help="Build and look at training data.")


class Split(StrEnum):
    """A split of the data."""

    train = "train"
    valid = "valid"
    test = "test"


@app.command("build")
def data_build(
    recipe: Annotated[str, typer.Argument(help="TOML that names the sources; or a shipped one: demo-data.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    overrides: Set = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that parse; default: all cores.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data built from another recipe.")] = False,
) -> None:
    """Read sources, tokenise, write shards.

    Example: bigchem data build demo-data data/demo
    """
    from bigchem import shipped
    from bigchem.data.build import build, load_recipe
    from bigchem.progress import Progress

    config = load_recipe(shipped.find("recipes", recipe, ".toml"), tuple(overrides or ()))
    index = build(config, out, Progress(), workers=workers, overwrite=overwrite)
    rows = {split: index.rows(split) for split in index.shards}
    print(json.dumps({"data": str(out), "fingerprint": index.fingerprint, "rows": rows, **index.report}, indent=1))


@app.command("preview")
def data_preview(
    data: Annotated[Path, typer.Argument(help="A folder made by `data build`.")],
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    split: Annotated[Split, typer.Option(help="Which rows.")] = Split.train,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Rows of each task.")] = 2,
    as_json: Json = False,
) -> None:
    """Show rows as text and tokens.

    Example: bigchem data preview data/demo --task forward -n 3
    """
    from bigchem.data.preview import preview
    from bigchem.tasks import task_id

    if task is not None:
        task_id(task, "--task")
    found = preview(data, split.value, task, rows)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for row in found:
        print(f"{row['task']} #{row['row']} {row['key']}")
        print(f"  source ({len(row['source_tokens'])} tokens): {row['source']}")
        print(f"  target ({len(row['target_tokens'])} tokens): {row['target']}")


@app.command("audit")
def data_audit(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Data folders, recipes, or files of lines (.txt, .smi).")
    ],
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of another tokenizer.json, taken as it is.")] = None,
    max_source_tokens: Annotated[int, typer.Option(min=1, help="Sources above this are counted as too long.")] = 512,
    max_target_tokens: Annotated[int, typer.Option(min=1, help="Targets above this are counted as too long.")] = 512,
    examples: Annotated[int, typer.Option(min=0, help="Examples of texts that are lost, and of the longest.")] = 3,
    overrides: Set = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    as_json: Json = False,
) -> None:
    """Count what the tokenizer loses, what it does not know, and how long texts get.

    Example: bigchem data audit public-data --set root=raw --set tokenizer.t5=t5
    """
    from bigchem.data.audit import audit
    from bigchem.data.audit_table import print_audit
    from bigchem.data.audit_tally import Limits
    from bigchem.progress import Progress

    limits = Limits(max_source_tokens, max_target_tokens, examples)
    progress, found = Progress(), []
    for path in paths:
        found += audit(path, progress, limits, tokenizer=tokenizer, overrides=tuple(overrides or ()), workers=workers)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print_audit(found)
