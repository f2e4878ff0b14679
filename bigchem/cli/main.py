"""`bigchem`: the command line, one subcommand per verb. Each verb imports what it needs when it runs."""

import json
from pathlib import Path
from typing import Annotated, ClassVar

import typer

import bigchem
from bigchem.cli import data, evaluate, program, runs, sweep
from bigchem.cli.export import card, export, push
from bigchem.cli.fine_tune import fine_tune
from bigchem.cli.options import values
from bigchem.cli.options.verbs import App, Verbs
from bigchem.cli.program import Set
from bigchem.cli.runs import run_config
from bigchem.cli.tools import bench, testbed
from bigchem.cli.tools.doctor import doctor
from bigchem.cli.tools.files import files
from bigchem.cli.tools.plan import plan


class Program(Verbs):
    """All verbs, in the order in which one needs them."""

    sections: ClassVar = {
        "First steps": ("demo", "fine-tune", "doctor"),
        "Data and training": (
            "data",
            "plan",
            "train",
            "submit",
            "status",
            "show",
            "logs",
            "cancel",
            "resume",
            "requeue",
        ),
        "Models": ("evaluate", "score", "predict", "serve", "export", "card", "push"),
        "Many runs": ("sweep",),
        "Tools": ("bench", "testbed", "files"),
    }


app = App(cls=Program, add_completion=True)
app.add_typer(data.app, name="data")
app.add_typer(sweep.app, name="sweep")
app.add_typer(runs.app)
app.add_typer(evaluate.app)
app.add_typer(bench.app, name="bench")
app.add_typer(testbed.app, name="testbed")
app.command()(doctor)
app.command()(export)
app.command()(card)
app.command()(push)
app.command()(files)
app.command()(plan)
app.command("fine-tune")(fine_tune)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bigchem {bigchem.__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; accepted anywhere.")] = False,
) -> None:
    """One T5 for chemistry and language: data, training, Slurm, evaluation, sweeps."""


@app.command()
def train(
    config: Annotated[str, values.config(values.RUNS, "Run configuration")],
    profile: Annotated[
        str | None,
        typer.Option(metavar="START:STOP", help="Profile these steps; traces go to RUN/profile (train.profile)."),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Start from these weights, such as an exported model (model.init_from)."),
    ] = None,
    overrides: Set = None,
) -> None:
    """Train in this process, resuming from the run folder. Under torchrun or srun: one rank of the run.

    Exit codes: 0 finished; 2 user error; 3 stopped by the user; 75 to be restarted, after preemption, the time limit, a
    hang or a lost rank; 1 anything else.

    Example: bigchem train demo --set data.path=data/demo --set train.steps=100
    """
    from bigchem.launch.job import run_here
    from bigchem.run.lifecycle import exit_code

    if profile is not None:
        overrides = [*(overrides or ()), f"train.profile={json.dumps(profile)}"]
    if init_from is not None:
        overrides = [*(overrides or ()), f"model.init_from={json.dumps(init_from)}"]
    raise typer.Exit(exit_code(run_here(run_config(config, overrides))))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier demo first.")] = False,
) -> None:
    """Run everything on this machine with the embedded corpus, in minutes: data, a sweep of twelve runs, a report.

    Example: bigchem demo --out demo
    """
    from bigchem.cli.demo import run_demo

    run_demo(out, fresh=fresh)


def main() -> None:
    """Entry point of `bigchem`."""
    program.run(app, "bigchem")
