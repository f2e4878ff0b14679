"""`bigchem plan CONFIG --tune CLUSTER`: tries the best rows of a plan in short runs on the cluster."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from bigchem.base import json_file, jsonl
from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.base.progress import tables
from bigchem.config import RunConfig
from bigchem.data.step_plan import open_data
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.runs.prepare import absolute, preflight, refuse_changed_run
from bigchem.launch.runs.status import RunStatus, statuses
from bigchem.launch.workloads.sweep import Say, SweepRun, submit_sweep, wait_for_all
from bigchem.plan import from_config
from bigchem.plan.choices import Choice
from bigchem.plan.from_config import Planned
from bigchem.plan.table import rounded, speed

STEPS = 20
"""Optimizer steps of each run."""
WARM = 5
"""First steps, not counted: they compile kernels and fill caches."""
TRIED = 4
"""Number of the plan's rows to try."""


@dataclass(frozen=True)
class Trial:
    """A row of the plan and its short run. tokens_per_s: measured, real tokens of all processes; None if the run did
    not finish. reason: why not."""

    choice: Choice
    config: RunConfig
    tokens_per_s: float | None = None
    reason: str | None = None


def best_rows(found: Sequence[Choice], count: int = TRIED) -> list[Choice]:
    """The rows to try: those that fit, the fastest by the plan first; among equal printed speeds, the simplest first.
    UserError if none fits."""
    fitting = [choice for choice in found if choice.verdict == "ok"]
    if not fitting:
        raise UserError("nothing in the plan fits, so there is nothing to try", "--tune", "see the plan without it")

    def order(choice: Choice) -> tuple[float, tuple[bool, bool, int, int]]:
        return -rounded(choice.time.tokens_per_s), choice.simplicity

    return sorted(fitting, key=order)[:count]


def short_run(choice: Choice, planned: Planned) -> RunConfig:
    """A row's run: the planned one, shorter, without evaluation, in a separate folder, with the row's DeepSpeed file,
    which this writes."""
    config = planned.config
    folder = folder_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    name = _name(choice)
    file = (folder / f"{name}.json").resolve()
    from_config.write(choice, planned, file)
    train = {
        "steps": STEPS,
        "log_every": 1,
        "profile": None,
        "wandb": None,
        "mlflow": None,
        "ledger": False,
        "ds_config": str(file),
        "checkpoint_activations": choice.setup.checkpoint_activations,
    }
    schedule = {"kind": "constant", "warmup_steps": min(config.schedule.warmup_steps, WARM), "decay_steps": 0}
    updates = {
        "train": config.train.model_copy(update=train),
        "data": config.data.model_copy(update={"micro_tokens": choice.micro_tokens}),
        "schedule": config.schedule.model_copy(update=schedule),
        "checkpoint": config.checkpoint.model_copy(update={"every": STEPS, "keep": 1, "copy_to": None}),
        "validation": config.validation.model_copy(update={"every": 0}),
        "evaluate": config.evaluate.model_copy(update={"at_end": False}),
        "notify": config.notify.model_copy(update={"command": (), "webhook_env": None}),
    }
    return config.model_copy(update={"name": name, "runs": str(folder), **updates})


def folder_of(config: RunConfig) -> Path:
    """The folder of a run's tuning, beside the run's."""
    return Path(config.runs) / f"{config.name}-tune"


def tune(planned: Planned, rows: Sequence[Choice], profile: ClusterProfile, say: Say) -> list[Trial]:
    """Submits a short run of each row, waits for all, and returns their speeds, the fastest first. Rows measured before
    are not run again. UserError if none finished."""
    if len(profile.world_sizes) > 1:
        what = "the number of nodes is a range, so speeds would not be comparable"
        raise UserError(what, "nodes_max", "--tune needs a profile with a fixed number of nodes")
    open_data(planned.config.data)  # before any folder is made
    configs = [short_run(choice, planned) for choice in rows]
    for config in configs:  # errors that concern all of them, before single runs may fail
        refuse_changed_run(absolute(config))
        preflight(absolute(config), profile.world_size)
    runs = [SweepRun(config, profile) for config in configs]
    folders = [config.run_dir for config in configs]
    failed: UserError | None = None
    try:
        submit_sweep(runs, f"{planned.config.name}-tune", say)
        wait_for_all(folders, say)
    except UserError as error:  # some runs failed: one may run out of memory, the others still count
        failed = error
    tried = [
        Trial(choice, config, measured(config.run_dir) if row.state in ("trained", "finished") else None, row.reason)
        for choice, config, row in zip(rows, configs, statuses(folders), strict=True)
    ]
    if failed is not None and all(trial.tokens_per_s is None for trial in tried):
        raise failed
    return sorted(tried, key=lambda trial: -(trial.tokens_per_s or 0.0))


def measured(run_dir: Path) -> float | None:
    """Median real tokens per second of all processes after the first steps; None for a run that has not finished."""
    rows = jsonl.read(run_dir / "metrics.jsonl", {"step": int}).rows
    speeds = [s for row in rows if row["step"] > WARM and (s := json_file.number(row.get("tokens_per_s"))) is not None]
    return median(speeds) if len(speeds) >= STEPS - WARM else None


def table(tried: Sequence[Trial], world_size: int) -> Table:
    """For a terminal."""
    made = Table("", "ds_config", "micro_tokens", "checkpointing", "tokens/s/GPU", "planned", "", box=None)
    for column in (2, 4, 5):
        made.columns[column].justify = "right"
    for number, trial in enumerate(tried):
        made.add_row(
            ">" if number == 0 else "",
            markup(trial.choice.ds_config),
            f"{trial.choice.micro_tokens:,}",
            "yes" if trial.choice.setup.checkpoint_activations else "no",
            "" if trial.tokens_per_s is None else f"{trial.tokens_per_s / world_size:,.0f}",
            speed(trial.choice.time.tokens_per_s / world_size),
            "" if trial.tokens_per_s is not None else markup(f"failed: {trial.reason or 'no reason was recorded'}"),
        )
    return made


def rows_of(tried: Sequence[Trial], world_size: int) -> list[dict[str, Any]]:
    """The same as plain data."""
    return [
        {
            "ds_config": trial.choice.ds_config,
            "micro_tokens": trial.choice.micro_tokens,
            "checkpoint_activations": trial.choice.setup.checkpoint_activations,
            "tokens_per_s_per_gpu": None if trial.tokens_per_s is None else trial.tokens_per_s / world_size,
            "planned_tokens_per_s_per_gpu": trial.choice.time.tokens_per_s / world_size,
            "run": str(trial.config.run_dir),
            "reason": trial.reason if trial.tokens_per_s is None else None,
        }
        for trial in tried
    ]


def show(
    planned: Planned, found: Sequence[Choice], profile: ClusterProfile, write: Path | None, *, as_json: bool
) -> None:
    """Tries the plan's best rows, prints their speeds, and writes the fastest one's DeepSpeed configuration to `write`,
    or beside the short runs."""
    tried = tune(planned, best_rows(found), profile, _say)
    path = write or folder_of(planned.config) / "best.json"
    written = from_config.write(tried[0].choice, planned, path)
    if as_json:
        print(json.dumps({"rows": rows_of(tried, profile.world_size), "written": str(path)}, indent=1))
        return
    tables().print(table(tried, profile.world_size))
    processes = (
        f"{profile.nodes} x {profile.tasks_per_node} {'GPUs' if profile.gpus_per_node else 'processes on the CPU'}"
    )
    print(f"tokens/s/GPU: the median of steps {WARM + 1} to {STEPS}, on {processes}; planned: an estimate")
    print(f"{written}\nthe short runs are in {folder_of(planned.config)}: remove it when you are done")


def _say(row: RunStatus) -> None:
    """On stderr: stdout has the result."""
    reason = f"  {row.reason}" if row.reason else ""
    print(f"{row.run}  {row.state}  {row.step}/{row.steps}{reason}", file=sys.stderr, flush=True)


def _name(choice: Choice) -> str:
    """The name of a row's run and DeepSpeed file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(choice.ds_config).stem).lstrip("._-") or "own"
    return f"{name}-{choice.micro_tokens}{'-checkpointed' if choice.setup.checkpoint_activations else ''}"
