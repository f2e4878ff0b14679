"""Hours and disk of a sweep, from the speed of runs of the same size, or from the plan's."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.progress import amount, duration
from bigchem.config import HEADROOM, RunConfig
from bigchem.data.step_plan import Plan, open_data
from bigchem.ds_config import ds_config_for
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.fit_check import disk_needed, shape_of
from bigchem.launch.runs.status import RunStatus, last_row, statuses
from bigchem.plan.memory.worst_case import setup_of
from bigchem.plan.speed import hardware
from bigchem.plan.speed.step_time import Assumptions, Cluster, step_time
from bigchem.run import ownership

Planned = tuple[RunConfig, ClusterProfile]


@dataclass(frozen=True)
class Speed:
    """Real tokens per second of all ranks. source: what says so."""

    tokens_per_s: float
    source: str


@dataclass(frozen=True)
class _Measured:
    """A run folder with a measured speed. overhead_s: seconds of a finished run besides training: starts, checkpoints,
    validation, evaluation; None: it is not finished."""

    run_dir: Path
    config: RunConfig
    ranks: int | None
    tokens_per_s: float
    overhead_s: float | None


@dataclass(frozen=True)
class Cost:
    """Of a whole run, and of what is left of it. seconds, left_s: None if its speed is unknown. disk: bytes, at most;
    None if the data or the model are not here."""

    config: RunConfig
    profile: ClusterProfile
    speed: Speed | None
    seconds: float | None
    left_s: float | None
    disk: int | None


@dataclass(frozen=True)
class Estimate:
    """Costs of runs. overhead: how many finished runs it comes from; 0: it is not included."""

    costs: list[Cost]
    overhead: int


def estimate(runs: Sequence[Planned], gpu: str | None = None) -> Estimate:
    """What runs cost. gpu: its name in `bigchem plan`, for planned speeds; None: by the profile.

    A run's speed is its own so far; else that of a run of its size and precision on as many ranks, in the sweep's
    folder or beside it: of those, one of its mixture and step size if there is one; else the plan's, on GPUs of one
    node. Overhead is the median of finished runs of its size; else of any.
    """
    known = _measured(sorted({Path(config.runs) for config, _ in runs}))
    finished = [one for one in known if one.overhead_s is not None]
    found = zip(runs, statuses([config.run_dir for config, _ in runs]), strict=True)  # one squeue for all
    costs = [_cost(config, profile, status, known, finished, gpu) for (config, profile), status in found]
    return Estimate(costs, len(finished))


def _cost(
    config: RunConfig,
    profile: ClusterProfile,
    status: RunStatus,
    known: Sequence[_Measured],
    finished: Sequence[_Measured],
    gpu: str | None,
) -> Cost:
    speed = _speed(config, profile, known) or _planned(config, profile, gpu)
    seconds = left_s = None
    if speed is not None:
        alike = [one for one in finished if _size(one.config) == _size(config)] or finished
        overhead = median(one.overhead_s or 0.0 for one in alike) if alike else 0.0
        step_s = config.data.global_tokens * (1 - HEADROOM) / speed.tokens_per_s
        seconds = config.train.steps * step_s + overhead
        left_s = max(0, config.train.steps - status.step) * step_s + overhead
    if status.is_done(config.train.steps):
        left_s = 0.0
    disk = None
    with suppress(UserError, OSError):
        shape = shape_of(config, open_data(config.data))
        disk = None if shape is None else disk_needed(config, profile, shape)[0]
    return Cost(config, profile, speed, seconds, left_s, disk)


def _measured(folders: Sequence[Path]) -> list[_Measured]:
    """Run folders with a speed, in these folders of runs and beside them."""
    files = {
        file
        for folder in folders
        for pattern in ("*", "*/*")
        for file in folder.parent.glob(f"{pattern}/metrics.jsonl")
    }
    rows = dict[Path, tuple[RunConfig, int | None, dict[str, float]]]()
    for run_dir in sorted(file.parent for file in files):
        with suppress(UserError, OSError):  # not a run, or another version's
            config, owner, (row, _) = _config(run_dir), ownership.read(run_dir), last_row(run_dir / "metrics.jsonl")
            if row.get("training_s") and row.get("tokens"):
                rows[run_dir] = config, None if owner is None else owner.world_size, row
    found = []
    for (run_dir, (config, ranks, row)), status in zip(rows.items(), statuses([*rows]), strict=True):
        overhead = max(0.0, status.seconds - row["training_s"]) if status.state == "finished" else None
        found.append(_Measured(run_dir, config, ranks, row["tokens"] / row["training_s"], overhead))
    return found


def _config(run_dir: Path) -> RunConfig:
    return toml.load(RunConfig, run_dir / "config.toml")


def _size(config: RunConfig) -> tuple[object, ...]:
    return config.model.init_from or config.model.preset, config.train.precision


def _speed(config: RunConfig, profile: ClusterProfile, known: Sequence[_Measured]) -> Speed | None:
    def likeness(one: _Measured) -> tuple[bool, ...]:
        own = one.run_dir.resolve() == config.run_dir.resolve()
        return own, one.config.data.mixture == config.data.mixture, _step(one.config) == _step(config)

    alike = [one for one in known if _size(one.config) == _size(config) and one.ranks == profile.world_size]
    if not alike:
        return None
    best = max(alike, key=likeness)
    return Speed(best.tokens_per_s, f"measured by {best.run_dir.name}")


def _step(config: RunConfig) -> tuple[int, int]:
    return config.data.global_tokens, config.data.micro_tokens


def _planned(config: RunConfig, profile: ClusterProfile, gpu: str | None) -> Speed | None:
    name = gpu or _gpu_of(profile)
    if name is None or not profile.gpus_per_node or profile.nodes > 1:
        return None
    kind = hardware.gpu(name)
    with suppress(UserError, OSError):
        data = open_data(config.data)
        shape = shape_of(config, data)
        if shape is None or not kind.peak(config.train.precision):
            return None
        setup = setup_of(config, ds_config_for(config, profile.world_size), profile.world_size, "cuda")
        lengths = Plan(data, config.data, config.seed).steps.at(0).lengths
        cluster, sizes = Cluster(kind, profile.gpus_per_node), (config.data.micro_tokens, config.data.global_tokens)
        found = step_time(shape, setup, cluster, lengths, *sizes, Assumptions())
        return Speed(found.tokens_per_s, f"planned for {name}")
    return None


def _gpu_of(profile: ClusterProfile) -> str | None:
    """The only GPU of `bigchem plan` with the profile's gpu_type and gpu_memory_gb; None: unknown."""
    kind, memory = (profile.gpu_type or "").lower(), profile.gpu_memory_gb
    named = [name for name in hardware.GPUS if kind and (name == kind or name.startswith(f"{kind}-"))]
    fits = [n for n in named if memory is None or abs(hardware.GPUS[n].memory / 1e9 - memory) < 0.15 * memory]
    return fits[0] if len(fits) == 1 else None


def summary(found: Estimate, at_a_time: int | None) -> str:
    """The design's hours, GPU-hours and disk: a line for each size, and one for all. at_a_time: runs; None: all."""
    sizes: dict[str, list[Cost]] = {}
    for cost in found.costs:
        sizes.setdefault(cost.config.model.init_from or cost.config.model.preset, []).append(cost)
    lines = [f"# {size}: {_line(costs)}; {_sources(costs)}" for size, costs in sizes.items()]
    lines.append(f"# the whole design: {_line(found.costs)}{_wall(found.costs, at_a_time)}")
    if found.overhead:
        lines.append(f"# with starts, checkpoints and evaluation as measured in {found.overhead} finished runs")
    elif any(cost.speed for cost in found.costs):
        lines.append(
            "# training alone: starts, checkpoints and evaluation come on top, unknown before a run has finished"
        )
    return "\n".join(lines)


def _line(costs: Sequence[Cost]) -> str:
    tokens = sum(c.config.train.steps * c.config.data.global_tokens * (1 - HEADROOM) for c in costs)
    text = f"{len(costs)} runs, {tokens:,.3g} tokens, "
    unknown = [cost for cost in costs if cost.seconds is None]
    if unknown:
        text += f"hours unknown for {len(unknown)} of them"
    else:
        text += ", ".join(f"{hours:,.3g} {what}" for what, hours in _hours(costs).items())
    disks = [cost.disk for cost in costs if cost.disk is not None]
    return f"{text}, disk " + (f"up to {amount(sum(disks))}" if len(disks) == len(costs) else "unknown")


def _hours(costs: Sequence[Cost]) -> dict[str, float]:
    found = {"hours": 0.0}
    for cost in costs:
        hours, unit = (cost.seconds or 0.0) / 3600, "GPU-hours" if cost.profile.gpus_per_node else "process-hours"
        found["hours"] += hours
        found[unit] = found.get(unit, 0.0) + hours * cost.profile.world_size
    return found


def _sources(costs: Sequence[Cost]) -> str:
    if not any(cost.speed for cost in costs):
        or_plan = ", or name a GPU with --gpu" if costs[0].profile.gpus_per_node else ""
        return f"no run of this size has been measured: train one as a pilot{or_plan}"
    speeds = dict.fromkeys(f"{c.speed.tokens_per_s:,.0f} tokens/s, {c.speed.source}" for c in costs if c.speed)
    first, *more = speeds
    return first + (f", and {len(more)} more" if more else "")


def _wall(costs: Sequence[Cost], at_a_time: int | None) -> str:
    """How long all runs and those that are left take, each in the next free place."""

    def wall(seconds: Callable[[Cost], float | None]) -> str:
        places = [0.0] * min(len(costs), at_a_time or len(costs))
        for cost in costs:
            places = sorted([places[0] + (seconds(cost) or 0.0), *places[1:]])
        return duration(places[-1])

    if any(cost.seconds is None for cost in costs):
        return ""
    whole, left = wall(lambda cost: cost.seconds), wall(lambda cost: cost.left_s)
    return f"; {min(len(costs), at_a_time or len(costs))} at a time: {whole}" + (
        f", {left} left" if left != whole else ""
    )
