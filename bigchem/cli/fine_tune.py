"""`bigchem fine-tune`: from one's own files to predictions in one command."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bigchem.cli.options import values
from bigchem.cli.options.submission import Requested, cluster_options
from bigchem.cli.program import Json, Set


@cluster_options(after=False)
def fine_tune(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="CSV, TSV, JSON or Parquet files, or one recipe (.toml).")
    ],
    requested: Requested,
    out: Annotated[
        Path | None, typer.Option(help="Folder for recipe, data and run; default: runs/NAME of the first file.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Weights to start from: an exported model, or a hub name: t5-small."
        ),
    ] = None,
    preset: Annotated[str, values.preset("Model without --from.")] = "sweep-1m",
    cluster: Annotated[str, values.cluster("Where to train.")] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only build the data and show the settings.")] = False,
    as_json: Json = False,
    overrides: Set = None,
) -> None:
    """Train a model on your own files: guesses the columns, builds the data, chooses settings, trains, evaluates.

    Writes OUT/recipe.toml with its guesses: correct it and repeat the command if one is wrong. Learning rate, steps,
    warm-up, caps, micro-batches, augmentation and validation follow from the data; --set overrides a field of the run.

    Example: bigchem fine-tune solubility.csv

    Example: bigchem fine-tune pairs.csv --from t5-small --cluster a100 --set train.steps=2000
    """
    from bigchem.base import toml
    from bigchem.base.progress import Progress
    from bigchem.launch.submit import submit, wait
    from bigchem.launch.workloads import fine_tune as tuning
    from bigchem.model import presets

    progress, folder = Progress(), out or Path("runs") / Path(files[0]).name.split(".")[0]
    profile, options = requested.resolve(cluster)
    if init_from is None:
        presets.shape(preset)  # refuses an unknown one before the data is built
    data = tuning.prepare_data(files, folder, init_from, progress)
    config = tuning.settings(data, folder, preset=preset, init_from=init_from, gpu=profile.gpus_per_node > 0)
    config = toml.overridden(config, overrides or ())
    choice = tuning.chosen(config, data)
    if not as_json:
        for name, value in choice.items():
            progress.say(f"  {name}: {value}")
    results = config.run_dir / "results" / "results.json"
    if not dry_run:
        progress.say(f"training in {config.run_dir}; progress: bigchem logs {config.run_dir} -f")
        submitted = submit(config, profile, options)
        wait(submitted, lambda row: progress.say(f"{row.state}, step {row.step} of {row.steps}"))
    if as_json:
        scores = json.loads(results.read_text(encoding="utf-8"))["metrics"] if results.is_file() else []
        print(json.dumps({"run": str(config.run_dir), "chosen": choice, "metrics": scores}, indent=1))
    elif results.is_file():
        scores_file = results.parent / "table.md"  # it goes on with published scores, of another test set
        print(scores_file.read_text(encoding="utf-8").partition("\n## ")[0])
        print(f"scores: {scores_file}")
        task = next(iter(data.tasks.scored.only(data.index.rows("train"))), None)
        print(f"predict: bigchem predict {config.run_dir} --task {task} INPUT")
