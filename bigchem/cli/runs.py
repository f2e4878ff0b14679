"""Verbs on runs and their jobs: submit, resume, status, show, logs, cancel, requeue."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bigchem.cli.options import values
from bigchem.cli.options.submission import Requested, cluster_options
from bigchem.cli.options.verbs import App
from bigchem.cli.program import Json, Set

app = App()

Cluster = Annotated[str, values.cluster("Where to run.")]
Run = Annotated[Path, typer.Argument(help="Run folder.")]
Summary = Annotated[bool, typer.Option("--summary", help="Print only totals: states, steps, GPU-hours, time left.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with all fields of --json.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the run has ended.")]


@app.command()
@cluster_options()
def submit(
    config: Annotated[str, values.config(values.RUNS, "Run configuration")],
    requested: Requested,
    cluster: Cluster = "local",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the configuration, sbatch script and verdicts; write nothing.")
    ] = False,
    wait: Wait = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    overrides: Set = None,
) -> None:
    """Submit a run through submitit, to Slurm or as processes on this machine.

    Leaves active and finished runs alone. --dry-run shows whether the run fits in memory, how much disk its checkpoints
    need and, if its speed has been measured, how long it takes.

    Example: bigchem submit base --cluster h100 --nodes 2-4 --time 8:00:00 --dry-run

    Example: bigchem submit base --cluster h100 --after runs/small --set-cluster sbatch.mail-type=END
    """
    from bigchem.base.errors import UserError

    if as_json and not dry_run:
        raise UserError("--json goes with --dry-run", None, "`bigchem status RUN --json` shows a submitted run")
    read, (profile, options) = run_config(config, overrides), requested.resolve(cluster)
    if dry_run:
        from bigchem.launch.dry_run import dry_run as dry_run_of
        from bigchem.launch.dry_run import dry_run_text

        if as_json:
            print(json.dumps(dry_run_of(read, profile, options), indent=1))
        else:
            print(dry_run_text(read, profile, options))
        return
    from bigchem.launch import submit as launch

    _submitted(launch.submit(read, profile, options=options), wait)


@app.command()
@cluster_options()
def resume(
    run: Run,
    requested: Requested,
    cluster: Annotated[str | None, values.cluster("Default: the one the run was submitted with.")] = None,
    wait: Wait = False,
    overrides: Set = None,
) -> None:
    """Submit a run again with the configuration and cluster profile in its folder. Continues from its last checkpoint.

    Keeps the profile changes of earlier submissions, except sbatch.begin, deadline, dependency, hold and reservation.

    Example: bigchem resume runs/base --set train.steps=60000

    Example: bigchem resume runs/base --nodes 2 --qos long
    """
    from bigchem.launch import submit as launch

    if cluster is None and (run / "cluster.toml").is_file():
        cluster = str(run / "cluster.toml")
    if cluster is None:
        requested.refuse()
    profile, options = (None, None) if cluster is None else requested.resolve(cluster)
    _submitted(launch.resume(run, profile, tuple(overrides or ()), options=options), wait)


@app.command()
def status(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders of run folders; default: runs.")
    ] = None,
    as_json: Json = False,
    summary: Summary = False,
    markdown: Markdown = False,
    as_csv: Csv = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until interrupted.")] = False,
) -> None:
    """Show runs: state, step, loss, speed, time left, GPU-hours, last checkpoint, restarts, nodes.

    Queries Slurm once for all runs. If Slurm does not answer, shows the run folders' records and their age.

    Example: bigchem status runs --watch
    """
    from bigchem.launch.runs.status import all_runs

    while True:
        rows = all_runs(runs or [Path("runs")])
        show_status(rows, as_json=as_json, summary=summary, markdown=markdown, as_csv=as_csv, clear=watch)
        if not watch:
            return
        try:
            time.sleep(2)
        except KeyboardInterrupt:
            return


@app.command()
def show(
    runs: Annotated[list[Path], typer.Argument(help="Run folder; several are compared.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: RUN/report.html, or comparison.html for several runs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the page's content as JSON; write no page.")] = False,
) -> None:
    """Write a page on a run: learning curves, attempts, events, sample predictions, scores, links to its files.

    Works at any time, on unfinished and failed runs too. The page is one HTML file that needs no network. For several
    runs: their curves over each other, the fields of the configuration in which they differ, and their scores.

    Example: bigchem show runs/base

    Example: bigchem show runs/base runs/large --out base-and-large.html
    """
    from bigchem.show import contents, write_page
    from bigchem.show.record import read_records

    records = read_records(runs)
    if as_json:
        found = contents.to_json(records[0]) if len(records) == 1 else contents.comparison_to_json(records)
        print(json.dumps(found, indent=1))
        return
    if len(records) == 1:
        page = out or runs[0] / "report.html"
        write_page.write_run(records[0], page)
    else:
        page = out or Path("comparison.html")
        write_page.write_comparison(records, page)
    show_status([record.status for record in records], as_json=False, summary=False, markdown=False, as_csv=False)
    print(page)


@app.command()
def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until the run has ended.")] = False,
    rank: Annotated[
        str, typer.Option(metavar="N|all", help="Rank to show; all: all ranks' logs, merged by time.")
    ] = "0",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Number of last lines to show first.")] = 20,
) -> None:
    """Show a run's log. -f waits for it to appear, and follows it across requeues until the run has ended.

    --rank all prefixes each line with its time and rank.

    Example: bigchem logs runs/base -f
    """
    import sys

    from bigchem.base.errors import UserError
    from bigchem.launch.runs import logs as launch

    if rank != "all" and not (rank.isascii() and rank.isdigit()):
        raise UserError(f"not a rank: {rank}", "--rank", "give a number from 0, or `all`")
    number = None if rank == "all" else int(rank)
    try:
        launch.show(run, sys.stdout.buffer, rank=number, lines=lines, follow=follow)
    except KeyboardInterrupt:
        return


@app.command()
def cancel(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    now: Annotated[bool, typer.Option("--now", help="End the jobs at once; unsaved steps are lost.")] = False,
) -> None:
    """Make runs save and stop. `bigchem resume` continues them.

    Example: bigchem cancel runs/base
    """
    from bigchem.launch.cancel import cancel_each

    cancel_each(runs, print, now=now)


@app.command()
def requeue(
    run: Run,
    code: Annotated[int, typer.Option(min=0, help="Exit code of srun or torchrun: $? right after it.")],
    max_requeues: Annotated[int, typer.Option(min=0, help="Maximum number of requeues.")] = 20,
) -> None:
    """Requeue this job if the run should continue: the last line of your own batch script.

    Decides by the run folder, because srun returns 137 for killed ranks, whatever the others return. Exits with --code.
    Jobs of `bigchem submit` do not need this: they requeue themselves.

    Example: bigchem requeue runs/base --code $?
    """
    import os

    from bigchem.base.errors import UserError
    from bigchem.launch.requeue import settle
    from bigchem.run.lifecycle import EXIT_REQUEUE

    if "SLURM_JOB_ID" not in os.environ:
        raise UserError("not inside a Slurm job", "bigchem requeue", "`bigchem resume RUN` starts a run again")
    if not (run / "config.toml").is_file() and code != EXIT_REQUEUE:  # written after the rendezvous
        raise UserError("not a run folder: no config.toml", str(run), "name the run that this script trains")
    settle(run, code, max_requeues, os.environ)
    raise typer.Exit(code)


def run_config(name: str, overrides: list[str] | None) -> Any:
    """A run configuration by its shipped name or path."""
    from bigchem.base import toml
    from bigchem.base.installed import resources
    from bigchem.config import RunConfig

    return toml.load(RunConfig, resources.find("recipes", name, ".toml"), tuple(overrides or ()))


def show_status(rows: Any, *, as_json: bool, summary: bool, markdown: bool, as_csv: bool, clear: bool = False) -> None:
    """Prints runs in one format. clear: clear the terminal before a table."""
    from dataclasses import asdict

    from bigchem.base.errors import UserError
    from bigchem.base.progress import tables
    from bigchem.launch.runs import status_table as shown

    if as_json + markdown + as_csv > 1 or (summary and (markdown or as_csv)):
        raise UserError("these formats exclude each other", None, "give one of --json, --markdown, --csv, --summary")
    if as_json:
        print(json.dumps(asdict(shown.summary(rows)) if summary else shown.to_json(rows), indent=1), flush=True)
    elif markdown or as_csv:
        print(shown.to_markdown(rows) if markdown else shown.to_csv(rows), end="", flush=True)
    else:
        console = tables()
        if clear:
            console.clear()
        console.print(shown.summary_lines(shown.summary(rows)) if summary else shown.table(rows), highlight=False)


def print_status(row: Any) -> None:
    """Prints a line on a run whose status has changed."""
    loss = "" if row.loss is None else f"  loss {row.loss:.4f}"
    reason = f"  {row.reason}" if row.reason else ""
    print(f"{time.strftime('%H:%M:%S')}  {row.run}  {row.state}  {row.step}/{row.steps}{loss}{reason}", flush=True)


def _submitted(submitted: Any, wait: bool) -> None:
    from bigchem.launch import submit as launch

    print(f"{submitted.run_dir}: {submitted.note}")
    if wait:
        launch.wait(submitted, print_status)
