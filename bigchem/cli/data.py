"""`bigchem data`: build, inspect and verify training data."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bigchem.cli.options import values
from bigchem.cli.options.submission import Requested, cluster_options
from bigchem.cli.options.verbs import App
from bigchem.cli.program import Json, Set

SetRecipe = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe: --set root=raw (repeatable)."),
]

app = App(help="Build, inspect and verify training data.")


class Split(StrEnum):
    """A split of the data."""

    train = "train"
    valid = "valid"
    test = "test"


@app.command("build")
@cluster_options(shape=False)
def data_build(
    recipe: Annotated[str, values.config(values.RECIPES, "Recipe that names the sources")],
    out: Annotated[Path, typer.Argument(help="Data folder to create.")],
    requested: Requested,
    overrides: SetRecipe = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, per task with --cluster; default: all cores.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data built from another recipe.")] = False,
    cluster: Annotated[str | None, values.cluster("Build in jobs there; default: on this machine.")] = None,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="With --cluster: tasks that parse and write; default: 1.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With --cluster: wait until the data is complete.")] = False,
    as_json: Json = False,
) -> None:
    """Read sources, drop duplicates and leaks, tokenise, write shards. Resumes a killed build.

    With --cluster, job arrays parse and write, and a last task publishes the index. The result is the same byte for
    byte. If tasks fail, repeat the command: it does only the missing work.

    Example: bigchem data build demo-data data/demo

    Example: bigchem data build public-data data/full --cluster h100 --tasks 16 --partition cpu --time 2:00:00
    """
    from bigchem.base.errors import UserError
    from bigchem.base.installed import resources
    from bigchem.base.progress import Progress
    from bigchem.data.build.pipeline import build
    from bigchem.data.build.recipe import load_recipe
    from bigchem.data.build.report import print_report
    from bigchem.data.storage.shards import Data
    from bigchem.evaluate.protocol.definitions import check_metrics

    config = load_recipe(resources.find("recipes", recipe, ".toml"), tuple(overrides or ()))
    check_metrics(config.known_tasks.scored.values())
    if cluster is None:
        if tasks is not None or wait:
            raise UserError(
                "goes with --cluster", "--tasks" if tasks is not None else "--wait", "add --cluster PROFILE"
            )
        requested.refuse()
        index = build(config, out, Progress(), workers=workers, overwrite=overwrite)
    else:
        from bigchem.launch.workloads.build import build_in_tasks

        (profile, options), count, stay = requested.resolve(cluster), tasks or 1, wait or as_json
        if not build_in_tasks(
            *(config, out, profile, count, Progress()),
            workers=workers,
            overwrite=overwrite,
            stay=stay,
            options=options,
        ):
            return
        index = Data(out).index
    if as_json:
        rows = {split: index.rows(split) for split in index.shards}
        print(json.dumps({"data": str(out), "fingerprint": index.fingerprint, "rows": rows, **index.report}, indent=1))
        return
    print_report(index)
    print(f"{out}: fingerprint {index.fingerprint}")


@app.command("fetch")
def data_fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="What to fetch: public-data, the files of the recipe of that name.",
            autocompletion=values.completing(("public-data",)),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to put the files in.")] = Path("raw"),
    as_json: Json = False,
) -> None:
    """Fetch public files from their origins, and check sizes and hashes. Resumes; overwrites nothing.

    If a file cannot be fetched, says where to put it. Writes OUT/recipe.toml, the recipe without the sources whose
    files are missing.

    Example: bigchem data fetch public-data --out raw
    """
    from bigchem.base import atomic
    from bigchem.base.errors import UserError
    from bigchem.base.installed import resources
    from bigchem.base.progress import Progress, tables
    from bigchem.data.fetch import manifest, tree

    found = tree.fetch(manifest.load(name), out, Progress())
    text, left_out = tree.recipe_of(resources.find("recipes", name, ".toml"), out)
    if text is not None:
        atomic.write_atomically(out / "recipe.toml", text)
    if as_json:
        print(json.dumps(tree.to_json(found), indent=1))
    else:
        tables().print(tree.table(found))
        if text is not None:
            without = f", without the sources of {len(left_out)} missing files" if left_out else ""
            print(f"{out}/recipe.toml: the recipe {name}{without}; to build it with T5's vocabulary:")
            print(f"bigchem data build {out}/recipe.toml data/{name} --set tokenizer.t5=google-t5/t5-small")
    failed = [outcome for outcome in found if outcome.failed]
    if failed:
        what = f"{len(failed)} of {len(found)} files could not be fetched"
        raise UserError(what, str(out), "put them where the table says, or repeat the command: it resumes")


@app.command("init")
def data_init(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="CSV, TSV, JSON or Parquet files, or folders of datasets."),
    ],
    out: Annotated[Path, typer.Option(help="Recipe to write.")] = Path("recipe.toml"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing recipe.")] = False,
    as_json: Json = False,
) -> None:
    """Look at files, guess what their columns hold, and write a commented recipe that builds them.

    Example: bigchem data init solubility.csv --out solubility.toml
    """
    from bigchem.base.progress import tables
    from bigchem.data.init.summary import column_table, task_table
    from bigchem.data.init.write_recipe import write_recipe

    written = write_recipe(files, out, overwrite=overwrite)
    if as_json:
        print(json.dumps(written.to_json(), ensure_ascii=False, indent=1))
        return
    console = tables()
    for group in written.groups:
        console.print(column_table(group))
    console.print(task_table(written))
    print(f"wrote {out}: check it, then run bigchem data build {out} data/{out.stem}")


@app.command("show")
def data_show(
    data: Annotated[str, typer.Argument(help="Data folder, or its URL.")],
    task: Annotated[str | None, values.task("Only this task.")] = None,
    split: Annotated[Split, typer.Option(help="Split to show.")] = Split.train,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Rows per task.")] = 2,
    as_json: Json = False,
) -> None:
    """Show rows as text and tokens.

    Example: bigchem data show data/demo --task forward -n 3
    """
    from bigchem.data.inspect.show import rows_of

    found = rows_of(data, split.value, task, rows)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for row in found:
        print(f"{row['task']} #{row['row']} {row['key']}")
        print(f"  source ({len(row['source_tokens'])} tokens): {row['source']}")
        print(f"  target ({len(row['target_tokens'])} tokens): {row['target']}")


@app.command("preview")
def data_preview(
    config: Annotated[str, values.config(values.RUNS, "Run configuration")],
    start_step: Annotated[int, typer.Option(min=0, help="First step to show, counted from 0.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps.")] = 10,
    world_size: Annotated[int, typer.Option(min=1, help="Number of ranks.")] = 1,
    grad_accum: Annotated[
        int | None, typer.Option(min=1, help="Micro-batches per rank; default: as many as a step needs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per micro-batch.")] = False,
    overrides: Set = None,
) -> None:
    """Show which examples each step of a run trains on, and which rank computes them. Needs neither torch nor a GPU.

    Example: bigchem data preview demo --set data.path=data/demo --start-step 100 --steps 5 --world-size 8
    """
    from bigchem.base import toml
    from bigchem.base.installed import resources
    from bigchem.base.progress import Progress, tables
    from bigchem.config import RunConfig
    from bigchem.data.inspect.preview import Preview, table

    run = toml.load(RunConfig, resources.find("recipes", config, ".toml"), tuple(overrides or ()))
    preview = Preview(run, world_size, grad_accum)
    found = preview.steps(start_step, steps, Progress(), keys=as_json)
    if not as_json:
        tables().print(table(list(found), preview.plan, world_size))
        return
    for step in found:
        for micro_batch in step.micro_batches:
            print(json.dumps(vars(micro_batch)))


@app.command("verify")
def data_verify(
    data: Annotated[str, typer.Argument(help="Data folder, or its URL: s3://, https://, hf://.")],
    as_json: Json = False,
) -> None:
    """Read all data; list each file that is missing, truncated or altered, and the rows lost with it.

    Exits with 2 if a file is damaged. Streams URLs without caching them.

    Example: bigchem data verify data/demo
    """
    from dataclasses import asdict

    from bigchem.base.errors import UserError
    from bigchem.base.progress import Progress, tables
    from bigchem.data.storage.verify import verify

    report = verify(data, Progress())
    if as_json:
        print(json.dumps({"ok": report.ok, **asdict(report)}, indent=1))
    else:
        from rich.table import Table

        from bigchem.base.printable import markup

        verdict = "all intact" if report.ok else f"{len(report.damage):,} damaged"
        print(f"{data}: {report.files:,} files, {report.bytes:,} bytes, {report.rows:,} rows: {verdict}")
        if report.damage:
            table = Table("file", "damage", "of", "rows")
            for found in report.damage:
                rows = "" if found.rows is None else f"{found.rows[0]:,} to {found.rows[1]:,}"
                table.add_row(markup(found.path), markup(found.what), markup(found.of or ""), rows)
            tables().print(table)
    if not report.ok:
        files = len({found.path for found in report.damage})
        raise UserError(
            f"{files:,} of {report.files:,} files are damaged; {report.rows_lost:,} of {report.rows:,} rows need them",
            data,
            "copy these files again, or rebuild the data",
        )


@app.command("audit")
def data_audit(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Data folders or their URLs, recipes, or text files (.txt, .smi)."),
    ],
    tokenizer: Annotated[Path | None, typer.Option(help="Folder with a tokenizer.json to use instead, as is.")] = None,
    max_source_tokens: Annotated[int, typer.Option(min=1, help="Count longer sources as too long.")] = 512,
    max_target_tokens: Annotated[int, typer.Option(min=1, help="Count longer targets as too long.")] = 512,
    examples: Annotated[int, typer.Option(min=0, help="Number of lossy texts, and of longest texts, to show.")] = 3,
    overrides: SetRecipe = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    as_json: Json = False,
) -> None:
    """Count lossy texts, unknown tokens and token lengths under a tokenizer.

    Example: bigchem data audit public-data --set root=raw --set tokenizer.t5=t5
    """
    from bigchem.base.errors import UserError
    from bigchem.base.progress import Progress
    from bigchem.data.inspect.audit import audit, is_recipe, print_audit
    from bigchem.data.text.tally import Limits

    if overrides and not any(map(is_recipe, paths)):
        raise UserError("overrides a recipe's fields, but no recipe is given", "--set", "omit it")
    limits = Limits(max_source_tokens, max_target_tokens, examples)
    progress, found = Progress(), []
    for path in paths:
        found += audit(path, progress, limits, tokenizer=tokenizer, overrides=tuple(overrides or ()), workers=workers)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print_audit(found)
