"""ZeRO checkpoint -> Hugging Face folder: a thin program over bigchem.export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bigchem import program

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def consolidate(
    source: Annotated[Path, typer.Argument(help="A run folder, or one of its checkpoints.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; plain transformers loads it.")],
    step: Annotated[
        int | None,
        typer.Option(help="The checkpoint after this step; default: the best that is kept, or the newest."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    ema: Annotated[bool, typer.Option("--ema", help="The running mean of the weights (optimizer.ema).")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Merge the pieces of a checkpoint of any ZeRO stage into one model, and prove that its loss is the engine's.

    Example: python tools/consolidate.py runs/demo/1m-together-s0 model
    """
    from bigchem.errors import UserError
    from bigchem.export import export

    if dtype not in ("fp32", "bf16"):
        raise UserError(f"unknown dtype '{dtype}'", "--dtype", "fp32 or bf16")
    made = export(source, out, step=step, bf16=dtype == "bf16", overwrite=overwrite, ema=ema)
    print(json.dumps({"model": str(made.model_dir), **made.proof()}) if as_json else made.told())


if __name__ == "__main__":
    program.run(app)
