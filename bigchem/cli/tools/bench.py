"""`bigchem bench NAME`: benchmarks of the parts, each against a baseline. A benchmark is imported when it is called."""

import importlib
from typing import Any

import typer

from bigchem.cli import program
from bigchem.cli.options.verbs import App, Verbs

BENCHES = {
    "attention": ("model.attention", "Attention: errors against float64, speed against other implementations."),
    "checkpoint": ("checkpoint", "Saving against dd; resuming against a cold start."),
    "consolidate": ("consolidate", "`bigchem export` against DeepSpeed's zero_to_fp32.py."),
    "data": ("data", "The data path against Hugging Face datasets."),
    "equivalence": ("equivalence", "How far one run's losses differ between ZeRO stages, ranks and packings."),
    "gpu-check": ("gpu_check.check", "What only a GPU can answer, in two calls of minutes; needs little installed."),
    "kernels": ("model.kernels", "Registers, stack and shared memory of the attention kernels, without a GPU."),
    "loop": ("loop", "The training loop against bare DeepSpeed steps."),
    "metrics": ("metrics", "Scoring and beam search against straightforward implementations; outputs compared."),
    "plan": ("plan", "Planned against measured peak memory."),
    "tiles": ("model.tiles", "Which kernel tile sizes are fastest on this GPU."),
    "train-step": ("model.train_step", "A training step against transformers' T5 on the same rows."),
}
"""By name: the module below bigchem.bench with its `main`, and what it measures."""


class Benches(Verbs):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*BENCHES]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in BENCHES:
            return None
        module = importlib.import_module(f"bigchem.bench.{BENCHES[cmd_name][0]}")
        command = typer.main.get_command(program.app_of(module.main))
        command.name = cmd_name
        return command

    def summaries(self, ctx: Any) -> dict[str, str]:
        return {name: what for name, (_, what) in BENCHES.items()}


app = App(cls=Benches)


@app.callback()
def bench() -> None:
    """Measure a part of bigchem against a baseline.

    Example: bigchem bench equivalence --only 1rank
    """
