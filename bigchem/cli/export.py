"""Verbs of a model that others will use: export, card, push."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from bigchem.cli.program import Json


def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or one of its checkpoints.")],
    out: Annotated[Path, typer.Argument(help="Folder to create, which plain transformers can load.")],
    step: Annotated[
        str | None,
        typer.Option(
            metavar="N|best|latest", help="Checkpoint; default: the best if the run keeps it, else the latest."
        ),
    ] = None,
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="Type of the weights.")] = "fp32",
    ema: Annotated[bool, typer.Option("--ema", help="Export the running mean of the weights (optimizer.ema).")] = False,
    average: Annotated[int, typer.Option(min=1, help="Average the newest N checkpoints, or the N up to --step.")] = 1,
    shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Maximum file size, such as 5GB or 200MB.")] = "5GB",
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Threads that read and verify; default: 2."),
    ] = None,
    hashes: Annotated[
        bool,
        typer.Option("--hashes/--no-hashes", help="Verify the hashes of the files that are read."),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint of any ZeRO stage to a Hugging Face folder, and prove that its loss equals the engine's.

    If interrupted, repeat the command to resume.

    Example: bigchem export runs/demo/1m-together-s0 model --dtype bf16
    """
    from bigchem.base.progress import Progress
    from bigchem.export import export as export_model
    from bigchem.export.choose import read_which

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


def card(
    model: Annotated[Path, typer.Argument(help="Run folder, or a folder made by bigchem export.")],
    scores: Annotated[Path | None, typer.Option(help="results.json of these weights, to show on the card.")] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="The model's licence, as the hub calls it, such as apache-2.0.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also replace a card that was edited.")] = False,
) -> None:
    """Write a model's card (README.md) anew: tasks, data and licences, training, base model, scores, limits.

    Export and evaluation write it by themselves. Licences of the data come from `license` in its recipe.

    Example: bigchem card model --license cc-by-4.0
    """
    from bigchem.export import model_folder
    from bigchem.sharing import card as writing
    from bigchem.sharing.push import problems

    folder = model_folder(model)
    if scores is not None:
        writing.take_scores(folder, scores)
    if license_id is not None:
        writing.state_license(folder, license_id)
    writing.write_card(folder, overwrite=overwrite)
    print(folder / writing.FILE)
    for problem in problems(writing.card_of(folder)):
        print(f"note: {problem}")


def push(
    model: Annotated[Path, typer.Argument(help="Run folder, or a folder made by bigchem export.")],
    repo: Annotated[str, typer.Argument(help="Repository, as OWNER/NAME; created if it does not exist.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make it visible only to you and your organisation.")
    ] = False,
    unknown_data: Annotated[
        bool, typer.Option("--unknown-data", help="Send it although nothing says what it was trained on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent, and the problems.")] = False,
) -> None:
    """Send a model to the Hugging Face hub, in one commit: weights, configuration, tokenizer, tasks, card.

    Checkpoints, logs, predictions and anything else in the folder stay here. Needs a token that may write: hf auth
    login, or HF_TOKEN. HF_ENDPOINT names another hub.

    Example: bigchem push runs/demo/1m-together-s0 ada/chemistry-t5 --dry-run

    Example: bigchem push model ada/chemistry-t5 --private
    """
    from bigchem.base.progress import Progress, amount
    from bigchem.export import model_folder
    from bigchem.sharing import push as pushing

    plan = pushing.plan(model_folder(model), repo)
    for file in plan.files:
        print(f"{amount(file.size):>10}  {file.name}{'' if file.content is None else ', written for the hub'}")
    if plan.stays:
        print(f"stays here: {', '.join(plan.stays)}")
    for problem in plan.problems:
        print(f"note: {problem}")
    pushing.check(plan, private=private, unknown_data=unknown_data, dry_run=dry_run)
    if not dry_run:
        print(pushing.send(plan, private=private, progress=Progress()))
