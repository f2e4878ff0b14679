"""`bigchem testbed`: a real Slurm on one machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bigchem.base.errors import UserError
from bigchem.cli.options.verbs import App

HELP = """Start a real Slurm on this machine, to try things without a cluster.

Nodes with four CPUs and two fake GPUs each, a partition `test`, and a partition `high` that preempts it. Needs the
programs of slurmctld, slurmd and slurm-client, and munge; neither root nor a database.

Example: bigchem testbed run bigchem submit small --cluster testbed
"""
app = App(help=HELP)
Folder = Annotated[Path, typer.Option("--folder", help="The testbed's folder; several may run side by side.")]
HERE = Path(".slurm-testbed")
Name = Annotated[str, typer.Argument(help="A node, such as node1.")]


@app.command()
def start(
    folder: Folder = HERE,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Number of nodes: node1, node2 and so on.")] = 2,
    port: Annotated[int | None, typer.Option(help="First of nodes + 1 ports; default: chosen automatically.")] = None,
) -> None:
    """Start a testbed, without jobs of an earlier one.

    Example: bigchem testbed start --nodes 3
    """
    from bigchem.launch.slurm.testbed import conf
    from bigchem.launch.slurm.testbed.bed import Bed, missing

    if (why_not := missing()) is not None:
        raise UserError("no testbed can run here", why_not)
    names = tuple(f"node{number}" for number in range(1, nodes + 1))
    bed = Bed(folder.resolve(), names, conf.free_port(nodes) if port is None else port)
    bed.start()
    print(bed.status())
    print(f"\nTo use it from a shell:\n  export SLURM_CONF={bed.folder}/slurm.conf PATH={bed.folder}/bin:$PATH")


@app.command()
def stop(folder: Folder = HERE) -> None:
    """Stop a testbed and all its jobs; its logs stay.

    Example: bigchem testbed stop
    """
    from bigchem.launch.slurm.testbed.bed import Bed

    Bed.at(folder.resolve()).stop()


@app.command()
def status(folder: Folder = HERE) -> None:
    """Show nodes and jobs.

    Example: bigchem testbed status
    """
    from bigchem.launch.slurm.testbed.bed import Bed

    print(Bed.at(folder.resolve()).status())


@app.command()
def kill_node(name: Name, folder: Folder = HERE) -> None:
    """Kill a node and everything on it.

    Example: bigchem testbed kill-node node2
    """
    from bigchem.launch.slurm.testbed.bed import Bed

    Bed.at(folder.resolve()).kill_node(name)


@app.command()
def start_node(name: Name, folder: Folder = HERE) -> None:
    """Start a node that was killed.

    Example: bigchem testbed start-node node2
    """
    from bigchem.launch.slurm.testbed.bed import Bed

    Bed.at(folder.resolve()).start_node(name)


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="A program and its arguments.")], folder: Folder = HERE
) -> None:
    """Run a program against the testbed.

    Example: bigchem testbed run srun -N2 hostname
    """
    from bigchem.launch.slurm.testbed.bed import Bed

    env = {**os.environ, **Bed.at(folder.resolve()).environment()}
    try:
        os.execvpe(command[0], command, env)  # noqa: S606  its exit code and signals are those of this program
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}", "run") from None
