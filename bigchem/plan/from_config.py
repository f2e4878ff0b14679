"""From a run configuration or a preset to a plan: lengths from the data if available, the DeepSpeed configurations that
the run can use, and writing the recommended one. Needs no torch."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigchem.base import atomic, json_file, toml
from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.base.json_file import RecordError
from bigchem.base.progress import amount
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, open_data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.ds_config import QUIET, completed, ds_config_for
from bigchem.model import presets
from bigchem.model.presets import Shape, num_parameters
from bigchem.model.weights import hf_config, hub
from bigchem.plan.choices import Choice, Workload
from bigchem.plan.memory.buffers import REDUCE_BUCKET
from bigchem.plan.memory.states import checkpoint_bytes, staging_bytes
from bigchem.plan.memory.worst_case import longest_example, setup_of
from bigchem.plan.speed import hardware
from bigchem.plan.speed.step_time import Cluster

OFFERED = ("zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")
"""Shipped configurations to try. Not zero3_nvme, whose speed depends on the disk: name it in the run."""
BESIDE_ZERO = ("data_types", "communication_data_type", "aio", "timers")
"""Sections that a written configuration keeps, besides `zero_optimization`."""
WRITTEN = {"zero_optimization", *BESIDE_ZERO}
CONSOLIDATION = 64_000_000
"""Bytes that consolidation needs besides the largest parameter: pieces, and the logits of the proof. 32 to 39 MB were
measured (t5-small, -base and -large)."""


@dataclass(frozen=True)
class Planned:
    """A run to plan. lengths: their origin. left_out: configurations that the run cannot use, and why. tables: the
    remaining ones, completed, by name. notes: on the run's configuration, see ds_config.completed."""

    work: Workload
    config: RunConfig
    lengths: str
    left_out: dict[str, str]
    tables: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = ()

    def micro_tokens(self, given: Sequence[int], world_size: int) -> list[int]:
        """Micro-batch sizes to try: those given, or 0.5, 1, 2 and 4 times the run's, as far as a step fills them on all
        ranks. UserError for one that cannot hold the longest example, or that a run would refuse."""
        longest, data = int(self.work.longest.sum()), self.config.data
        for tokens in given:
            if tokens < longest:
                raise UserError(f"{tokens:,} tokens cannot hold the longest example, {longest:,}", "--micro-tokens")
            if tokens > data.global_tokens:
                what = f"{tokens:,} tokens are more than a step's {data.global_tokens:,}"
                raise UserError(what, "--micro-tokens", f"--set data.global_tokens={tokens} plans for larger steps")
        if given:
            return sorted(set(given))
        maximum = max(data.micro_tokens, data.global_tokens // world_size)
        sizes = {data.micro_tokens * times // 2 for times in (1, 2, 4, 8)}
        return sorted(size for size in sizes if longest <= size <= maximum)


def planned(name: str, overrides: Sequence[str], world_size: int) -> Planned:
    """The run `name`: a shipped configuration, a TOML file, or a preset, Hugging Face folder or hub model with default
    fields."""
    model = _model(name)
    if model is not None:
        config = toml.validate(RunConfig, _table(model, overrides), "--set")
    else:
        config = toml.load(RunConfig, resources.find("recipes", name, ".toml", also=presets.PRESETS), tuple(overrides))
    shape, longest, typical, lengths = _lengths(config, model is not None)
    tables: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    for ds_config in dict.fromkeys((*OFFERED, config.train.ds_config)):
        train = config.train.model_copy(update={"ds_config": ds_config})
        try:
            made = completed(config.model_copy(update={"train": train}), world_size)
        except UserError as error:
            if ds_config not in OFFERED:
                raise
            left_out[ds_config] = error.what
            continue
        tables[ds_config] = made.table
        notes = made.notes if ds_config == config.train.ds_config else notes
    setup = setup_of(config, {}, world_size, "cuda")
    work = Workload(shape, setup, longest, typical, config.data.global_tokens)
    return Planned(work, config, lengths, left_out, tables, notes)


def _model(name: str) -> dict[str, str] | None:
    """The [model] section for the name of a model; None for a run configuration."""
    if name in presets.PRESETS:
        return {"preset": name}
    path = Path(name)
    folder = path.parent if path.name == "config.json" else path
    is_shipped = (resources.folder("recipes") / f"{name}.toml").is_file()
    if folder.is_dir() and not is_shipped:
        return {"init_from": str(folder)}
    is_on_hub = "/" in name and not name.endswith((".toml", ".json")) and not hub.is_path(name)
    return {"init_from": name} if is_on_hub else None


def _table(model: dict[str, str], overrides: Sequence[str]) -> dict[str, Any]:
    table: dict[str, Any] = {"name": "planned", "model": model}
    for override in overrides:
        toml.apply_override(table, override)
    return table


def _lengths(config: RunConfig, model_alone: bool) -> tuple[Shape, NDArray[np.int64], NDArray[np.int64], str]:
    """(shape, longest example, a step's lengths, their origin)."""
    caps = np.array([config.data.max_source_tokens, config.data.max_target_tokens], dtype=np.int64)
    limits = f"the limits of {caps[0]}+{caps[1]} tokens"
    if model_alone:
        return _shape(config, None), caps, caps[None], f"{limits}: no run, so no data"
    try:
        data = open_data(config.data)
        plan = Plan(data, config.data, config.seed)
    except (UserError, OSError) as error:
        why = error.what if isinstance(error, UserError) else error.strerror
        return _shape(config, None), caps, caps[None], f"{limits}: no data at {config.data.path} ({why})"
    longest = longest_example(plan)
    typical = plan.steps.at(0).lengths
    mean = typical.mean(axis=0)
    origin = f"the data's: longest {longest[0]}+{longest[1]}, mean of a step {mean[0]:.0f}+{mean[1]:.0f}"
    return _shape(config, Tokenizer.load(data.tokenizer_dir).vocab_size), longest, typical, origin


def _shape(config: RunConfig, vocab_size: int | None) -> Shape:
    if config.model.init_from is None:
        return presets.shape(config.model.preset, vocab_size)
    name = config.model.init_from
    folder = hub.cached(name)
    if folder is None:
        hint = f"hf download {name} config.json; or plan with a preset of its size"
        raise UserError("neither a file or folder nor a model in the hub's cache", name, hint)
    return hf_config.read_shape(folder)


def cluster(gpu: str, gpus: int, nodes: int, between: str | None) -> Cluster:
    """Nodes of GPUs. gpu: a name, or a TOML file (see hardware.GpuFile). between: the interconnect of several nodes,
    as the user gives it. UserError if either is unknown, missing or superfluous."""
    own = None
    if gpu.endswith(".toml"):
        kind, own = hardware.load_gpu(Path(gpu))
    else:
        kind = hardware.gpu(gpu)
    if nodes == 1:
        if between is not None:
            raise UserError("--interconnect needs more than one node", "--nodes")
        return Cluster(kind, gpus)
    if between is None and own is None:
        what, known = "several nodes need an interconnect", ", ".join(hardware.INTERCONNECTS)
        raise UserError(what, "--interconnect", f"known: {known}")
    if between is not None:
        own = hardware.interconnect(between, kind, gpus)
    return Cluster(kind, gpus, nodes, own or 0.0)


def storage(shape: Shape, choice: Choice) -> dict[str, int]:
    """Bytes of a checkpoint; of a rank's host memory to write it while training goes on; of a rank's memory while it
    reshards one (a parameter's fp32 states); of the consolidated model in fp32; and of memory during consolidation,
    whatever the file sizes, besides the interpreter and its libraries (0.5 GB)."""
    largest = 4 * max(shape.vocab_size, shape.d_ff) * shape.d_model
    model = 4 * num_parameters(shape)
    return {
        "checkpoint": checkpoint_bytes(shape, choice.setup),
        "staging_per_rank": staging_bytes(shape, choice.setup),
        "conversion_scratch_per_rank": 3 * largest,
        "consolidated": model,
        "consolidation_scratch": largest + CONSOLIDATION,
    }


def fitted(zero: dict[str, object], shape: Shape) -> dict[str, object]:
    """The table with a bucket no larger than the model, as DeepSpeed allocates it whole."""
    size, maximum = zero.get("reduce_bucket_size", REDUCE_BUCKET), num_parameters(shape)
    too_large = zero.get("stage") and isinstance(size, (int, float)) and size > maximum
    return {**zero, "reduce_bucket_size": maximum} if too_large else zero


def write(choice: Choice, planned: Planned, path: Path) -> str:
    """Writes a choice's DeepSpeed configuration, checked like any run's; returns the fields to set in the run.

    UserError if `path` exists and is not such a file.
    """
    _refuse_another(path)
    zero = fitted(dict(choice.setup.zero), planned.work.shape)
    table = planned.tables[choice.ds_config]
    text = json.dumps({"zero_optimization": zero, **_beside_zero(table, planned.config)}, indent=2) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        tried = Path(folder) / path.name
        tried.write_text(text, encoding="utf-8")
        train = planned.config.train.model_copy(update={"ds_config": str(tried)})
        ds_config_for(planned.config.model_copy(update={"train": train}), choice.setup.world_size)
    atomic.write_atomically(path, text)
    cut = "".join(
        f"\n{name} is {value:,}, not {choice.setup.zero.get(name, REDUCE_BUCKET):,}: the size of the model"
        for name, value in zero.items()
        if value != choice.setup.zero.get(name)
    )
    sets = (
        f"train.ds_config={path}",
        f"data.micro_tokens={choice.micro_tokens}",
        f"train.checkpoint_activations={'true' if choice.setup.checkpoint_activations else 'false'}",
    )
    return f"wrote {path}; in the run: {' '.join(f'--set {one}' for one in sets)}{cut}"


def _beside_zero(table: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """The other sections of a completed configuration, except the defaults that every run gets."""
    found = {name: table[name] for name in BESIDE_ZERO if table.get(name)}
    if found.get("timers") == QUIET:
        del found["timers"]
    if config.train.precision == "bf16" and found.get("data_types") == {"grad_accum_dtype": "fp32"}:
        del found["data_types"]
    return found


def _refuse_another(path: Path) -> None:
    """UserError if writing would destroy another file, or no run could use it."""
    if path.suffix != ".json":
        raise UserError("DeepSpeed configurations end in .json", str(path), f"--write {path.with_suffix('.json')}")
    if not path.parent.is_dir():
        raise UserError("no such folder", str(path.parent), "create it first")
    if path.exists():
        try:
            there = json_file.load(path)
        except (OSError, RecordError):
            there = None
        if not isinstance(there, dict) or not {"zero_optimization"} <= there.keys() <= WRITTEN:
            raise UserError("exists, and was not written by bigchem plan", str(path), "choose another name")


def facts(planned: Planned, choice: Choice) -> dict[str, Any]:
    """Facts common to all rows: model, lengths, step, storage."""
    shape, data = planned.work.shape, planned.config.data
    return {
        "model": planned.config.model.init_from or planned.config.model.preset,
        "parameters": num_parameters(shape),
        "precision": planned.config.train.precision,
        "optimizer": planned.config.optimizer.kind,
        "lengths": planned.lengths,
        "global_tokens": data.global_tokens,
        "storage_bytes": storage(shape, choice),
        "left_out": planned.left_out,
        "notes": list(planned.notes),
    }


def summary(found: dict[str, Any]) -> str:
    """These facts in three lines."""
    stored = found["storage_bytes"]
    return (
        f"{found['model']}: {found['parameters']:,} parameters, {found['precision']}, {found['optimizer']}; "
        f"steps of {found['global_tokens']:,} tokens\n"
        f"lengths: {found['lengths']}\n"
        f"checkpoint: {amount(stored['checkpoint'])}; writing it while training goes on: "
        f"{amount(stored['staging_per_rank'])} of host memory per rank; resharding it: "
        f"{amount(stored['conversion_scratch_per_rank'])} per rank; consolidated: {amount(stored['consolidated'])}, "
        f"with {amount(stored['consolidation_scratch'])} of memory besides the interpreter's"
    )
