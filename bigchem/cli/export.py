"""`bigchem export`: from a ZeRO checkpoint to a Hugging Face folder."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bigchem.cli.program import Json


def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or one of its checkpoints.")],
    out: Annotated[Path, typer.Argument(help="Folder to create, which plain transformers can load.")],
    step: Annotated[
        str | None,
        typer.Option(help="A step, `best` or `latest`. Default: the best if the run keeps it, else the latest."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Type of the weights: fp32 or bf16.")] = "fp32",
    ema: Annotated[bool, typer.Option("--ema", help="Export the running mean of the weights (optimizer.ema).")] = False,
    average: Annotated[int, typer.Option(min=1, help="Average the newest N checkpoints, or the N up to --step.")] = 1,
    shard_size: Annotated[str, typer.Option(help="Maximum file size, such as 5GB or 200MB.")] = "5GB",
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Threads that read and verify; default: 2."),
    ] = None,
    hashes: Annotated[
        bool,
        typer.Option("--hashes/--no-hashes", help="Verify the hashes of what is read, or not."),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint of any ZeRO stage to a Hugging Face folder, and prove that its loss equals the engine's.

    If interrupted, repeat the command to resume.

    Example: bigchem export runs/demo/1m-together-s0 model --dtype bf16
    """
    from bigchem.base.errors import UserError
    from bigchem.base.progress import Progress
    from bigchem.export import export as export_model
    from bigchem.export.choose import read_which

    if dtype not in ("fp32", "bf16"):
        raise UserError(f"unknown dtype '{dtype}'", "--dtype", "fp32 or bf16")
    made = export_model(
        source,
        out,
        step=None if step is None else read_which(step),
        bf16=dtype == "bf16",
        overwrite=overwrite,
        ema=ema,
        average=average,
        shard_size=shard_size,
        workers=workers,
        hashes=hashes,
        progress=Progress(quiet=as_json),
    )
    print(json.dumps({"model": str(made.model_dir), **made.proof()}) if as_json else made.summary())
