"""Verbs on predictions: evaluate, score, predict, serve."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bigchem.cli.options import values
from bigchem.cli.options.submission import Requested, cluster_options
from bigchem.cli.options.verbs import App
from bigchem.cli.program import Json

if TYPE_CHECKING:
    from rich.table import Table

app = App()

AnyTask = Annotated[
    str, values.task("A task of the model's: captioning, generation, forward, or what it was trained on.")
]
SetEvaluate = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Override a field of [evaluate]: --set num_beams=4 (repeatable)."
    ),
]


@app.command()
@cluster_options(shape=False)
def evaluate(
    subject: Annotated[Path, typer.Argument(help="Run folder, or an exported model's folder (with --data).")],
    requested: Requested,
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Data folder or its URL; default: the run's.")
    ] = None,
    task: Annotated[list[str] | None, values.task("Only this task (repeatable).")] = None,
    split: Annotated[Literal["valid", "test"] | None, typer.Option(help="Default: the run's, else test.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; default: RUN/results or MODEL/results.")] = None,
    forward_model: Annotated[
        Path | None,
        typer.Option(help="Forward model for retrosynthesis round trips: model or run folder, even SUBJECT itself."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="SPELLINGS",
            help="Also evaluate respelled molecules: canonical,random,kekule,explicit-h, or some of them.",
        ),
    ] = None,
    probe_seed: Annotated[int, typer.Option(min=0, help="Seed of --probe's random spellings.")] = 0,
    cluster: Annotated[str | None, values.cluster("Evaluate in jobs there; default: in this process.")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="With --cluster: tasks that predict; default: 1.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With --cluster: wait for the results.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results.json instead of a table. With --cluster: waits for it.")
    ] = False,
    overrides: SetEvaluate = None,
) -> None:
    """Predict and score a split. [evaluate] has the settings: --set num_beams=4, --set max_rows=100.

    Keeps results of other tasks with the same model and settings. Never replaces predictions of the same model with
    other settings: give another --out.

    With --cluster, a job array of --tasks tasks predicts (that many per spelling of --probe), and a last task scores.
    The results equal those of one process. If tasks fail, repeat the command: it keeps finished predictions.

    Example: bigchem evaluate runs/demo/1m-together-s0 --set num_beams=4 --out beams4

    Example: bigchem evaluate model --data data/demo --split valid --json

    Example: bigchem evaluate model --data data/demo --task captioning --probe canonical,random

    Example: bigchem evaluate runs/base --cluster a100 --tasks 8 --after runs/base --time 1:00:00
    """
    if cluster is None:
        requested.refuse()
    from bigchem.base.errors import UserError
    from bigchem.base.progress import Progress
    from bigchem.evaluate.spelling_probe import parse_spellings
    from bigchem.launch.workloads import evaluate as launch

    if cluster is None and (tasks is not None or wait):
        raise UserError("goes with --cluster", "--tasks" if tasks is not None else "--wait", "add --cluster PROFILE")
    spellings = () if probe is None else parse_spellings(probe)
    settings = (*(overrides or ()), *(() if split is None else (f"split={split}",)))
    request = launch.Request(subject, data, tuple(task or ()), out, settings, forward_model, spellings, probe_seed)
    if cluster is None:
        results: Path | None = launch.evaluate_here(request)
    else:
        profile, options = requested.resolve(cluster)
        stay = wait or as_json
        results = launch.evaluate_in_tasks(request, profile, tasks or 1, Progress(), stay=stay, options=options)
    if results is not None and as_json:
        print(results.read_text(encoding="utf-8"))
    elif results is not None:
        print((results.parent / "table.md").read_text(encoding="utf-8"))
        if spellings:
            print((results.parent / "probe.md").read_text(encoding="utf-8"))
        print(results)


@app.command()
def score(
    task: Annotated[str, values.task(f"{', '.join(values.TASKS)}, or one that --tasks defines.")],
    file: Annotated[
        Path | None, typer.Argument(help="Predictions: MolT5's TSV, CSV, JSONL or JSON; plain or compressed.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Compare two files instead: B - A.")
    ] = None,
    forward_model: Annotated[
        Path | None, typer.Option(help="Forward model for retrosynthesis round trips: model or run folder.")
    ] = None,
    train_set: Annotated[
        Path | None,
        typer.Option(help="For generation's novelty: a data folder, or a file of SMILES (one per line, or a column)."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="CSV of reactions with a column `class`, such as USPTO-50k's; also scores each class."),
    ] = None,
    similarity: Annotated[
        bool, typer.Option("--similarity", help="Also MACCS, RDK and Morgan fingerprint similarity of reactions; slow.")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for 95 % intervals; 0: no intervals.")] = 1000,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="Where the task is defined: TOML with [tasks.NAME], data folder, run or model."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME", help="Repeatable. Roles: source, target, prediction (k best: prediction_*), key."
        ),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Separator of candidates in a column, such as ';'; default: one candidate.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="File encoding, if not UTF-8, such as latin-1 or utf-16.")
    ] = None,
    quoting: Annotated[
        Literal["standard", "none"] | None, typer.Option(help="Quoting of tables; default: detected.")
    ] = None,
    strip: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS", help="Strip from texts: special, tags, fences, prose, all, none; default: special,tags."
        ),
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(help="File of sources, if FILE has only predictions: one or k lines per source.")
    ] = None,
    references: Annotated[Path | None, typer.Option(help="With --sources: file of references, one per line.")] = None,
    as_json: Json = False,
) -> None:
    """Score a file of predictions by the published protocol, or compare two files on the same examples.

    --compare pairs the examples of both files: differences of shares have Bonett and Price's interval, others that of a
    paired bootstrap. If the interval of a difference excludes 0, the choice of examples does not explain it.

    Example: bigchem score predictions/captioning.jsonl --task captioning

    Example: bigchem score --task captioning --compare old.jsonl new.jsonl

    Predictions for ChEBI-20's test split also get the published numbers, printed and re-scored.

    Example: bigchem score reactants.jsonl --task retrosynthesis --forward-model runs/base

    Example: bigchem score beams.csv --task forward --column target=product --column "prediction=beam_*"

    Example: bigchem score pred.txt --task forward --sources src-test.txt --references tgt-test.txt

    Example: bigchem score reactants.jsonl --task retrosynthesis --classes uspto_50k/test.csv

    Example: bigchem score molecules.jsonl --task generation --train-set chebi20/train.txt

    Example: bigchem score solubility.csv --task solubility --tasks recipe.toml
    """
    from rich.console import Group

    from bigchem.base.errors import UserError
    from bigchem.base.progress import tables
    from bigchem.data.storage.tasks_at import tasks_at
    from bigchem.evaluate import compare as comparing
    from bigchem.evaluate import score as scoring
    from bigchem.evaluate import score_tables as showing
    from bigchem.evaluate.prediction_files.tables import ReadAs
    from bigchem.evaluate.published import EXAMPLES, comparison_tables

    about = tasks_at(tasks).labelled(task, "--task")
    if (file is None) == (compare is None):
        raise UserError("takes one FILE, or --compare A B", "score", "bigchem score --help shows examples")
    processes = workers or len(os.sched_getaffinity(0))
    read_as = ReadAs.of(column or (), separator, encoding, quoting, strip, sources, references)
    below = ""
    if compare is not None:
        given = {"--forward-model": forward_model, "--train-set": train_set, "--classes": classes}
        if alone := [option for option, value in given.items() if value is not None]:
            raise UserError("goes with one FILE, not with --compare", alone[0], "score each file separately")
        found = comparing.compare_files(
            about, *compare, how=read_as, similarity=similarity, bootstrap=bootstrap, workers=processes
        )
        shown: Group | Table = comparing.table(found, *map(str, compare))
        listed = comparing.to_json(found)
    else:
        predictions = file or Path()
        if forward_model is not None:
            from bigchem.export import model_folder

            scoring.check_round_trip(about, predictions, read_as)
            forward_model = model_folder(forward_model)
        scores = scoring.score_file(
            about,
            predictions,
            read_as,
            forward_model=forward_model,
            training=train_set,
            classes=classes,
            similarity=similarity,
            bootstrap=bootstrap,
            workers=processes,
        )
        shown = Group(*filter(None, (showing.table(scores), showing.class_table(scores))))
        listed = showing.to_json(scores)
        if max(score.n for score in scores) == EXAMPLES:
            below = comparison_tables(scores, predictions.name)
    if as_json:
        print(json.dumps(listed, indent=1))
    else:
        tables().print(shown)
        print(below, end="")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Exported model's folder, or a run folder.")],
    task: AnyTask,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help='Texts or SMILES, JSON objects with "source", or - for stdin.'),
    ] = None,
    num_return: Annotated[int, typer.Option("--num-return", "-k", min=1, help="Predictions per input.")] = 1,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams; default: 5, or -k if that is larger.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens per prediction.")] = 512,
    precision: Annotated[
        Literal["auto", "fp32", "tf32", "bf16"], typer.Option(help="auto: bf16 on GPUs, fp32 on a CPU.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per input.")] = False,
) -> None:
    """Predict for your own inputs: the k best, with log-probabilities. RDKit checks SMILES.

    For a task with labels, also the probability of each label, whether or not it is among the k best.

    Adds the task's prompt. Repairs SMILES as in training data, with a notice, and refuses those that RDKit cannot read.
    Stdin has one input per line: text, or a JSON object, whose other fields are kept. If they include "target",
    `bigchem score` reads the output of --json.

    Example: bigchem predict runs/demo/1m-together-s0 --task captioning "CC(=O)O" -k 3

    Example: bigchem predict model --task forward --json - < reactions.txt > predictions.jsonl
    """
    import sys

    from bigchem.base.errors import UserError
    from bigchem.base.printable import number_of
    from bigchem.base.progress import Progress, tables
    from bigchem.base.toml import validate
    from bigchem.config import EvaluateConfig
    from bigchem.evaluate.generation import inputs as reading

    if not inputs:
        raise UserError("no input", "predict", "give texts, or - to read them from stdin, one per line")
    beams = num_beams or max(5, num_return)
    if beams < num_return:
        hint = f"--num-beams {num_return}, or omit it"
        raise UserError(f"{beams} beams cannot give -k {num_return} predictions", "--num-beams", hint)
    settings: dict[str, int | str] = {"num_return": num_return, "num_beams": beams, "max_new_tokens": max_new_tokens}
    settings["precision"] = precision
    config = validate(EvaluateConfig, settings, "predict")

    from bigchem.evaluate.generation.label_scores import has_labels
    from bigchem.evaluate.generation.predictor import Predictor
    from bigchem.export import model_folder
    from bigchem.tasks import tasks_of

    folder = model_folder(model)
    about = tasks_of(folder).labelled(task, "--task")
    predictor, progress = Predictor(folder, precision=precision), Progress()
    noticed: Counter[str] = Counter()
    records = reading.read_inputs(inputs, reading.lines_of(sys.stdin.buffer), about, noticed)
    while chunk := list(islice(records, 1000)):
        texts = [record["source"] for record in chunk]
        predicted = predictor.predict(task, texts, config, progress, fields=chunk)
        scores = predictor.label_scores(task, texts, config, fields=chunk) if has_labels(about) else []
        if as_json:
            for record, predictions, own in zip_longest(chunk, predicted, scores):
                print(reading.to_json(record, predictions, about, own), flush=True)
            continue
        tables().print(reading.table(chunk, predicted))
        if scores:
            tables().print(reading.label_table(about, chunk, scores))
    for what, count in noticed.items():
        progress.say(f"{number_of('input', count)}: {what}")


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Exported model's folder, or a run folder.")],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 serves anyone who can reach this machine.",
        ),
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
) -> None:
    """Serve a web page and an HTTP API that predict: k best, drawn molecules. Needs the extra `serve` (gradio).

    The API: POST /predict with {"task": "forward", "inputs": ["CCO"], "num_return": 1}; GET /tasks.

    Example: bigchem serve runs/demo/1m-together-s0
    """
    from bigchem.base.progress import Progress
    from bigchem.evaluate.serve import page
    from bigchem.export import model_folder

    page.check(host, port)
    page.serve(model_folder(model), host, port, Progress())
