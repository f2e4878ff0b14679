"""Checks a run before it is queued: whether it fits in memory, how long it takes, how much disk it needs.

Arithmetic over the data's index, the configuration and the cluster profile; nothing is run or written.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bigchem.base.progress import amount, duration
from bigchem.config import HEADROOM, RunConfig
from bigchem.data.step_plan import Plan, open_data
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.ds_config import ds_config_for
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.runs.status import last_row
from bigchem.model import presets
from bigchem.model.presets import Shape, num_parameters
from bigchem.model.weights import hf_config, hub
from bigchem.plan.choices import fits
from bigchem.plan.memory.peak import CONTEXT, Memory, memory
from bigchem.plan.memory.states import checkpoint_bytes
from bigchem.plan.memory.worst_case import longest_batch, setup_of
from bigchem.run import ownership
from bigchem.train.checkpoint.store import disk_room

TIGHT = 0.9
"""Share of host memory above which the uncounted may not fit: Python, libraries, the page cache's minimum."""


@dataclass(frozen=True)
class Verdict:
    """One verdict. message: one line of reasons. figures: its basis, in bytes, seconds, tokens, processes."""

    name: str
    verdict: Literal["ok", "tight", "no", "unknown"]
    message: str
    figures: Mapping[str, float] = field(default_factory=dict)


def judge(config: RunConfig, profile: ClusterProfile) -> list[Verdict]:
    """Memory, time and disk of a run on a cluster. The configuration has passed `preflight`."""
    data = open_data(config.data)
    plan = Plan(data, config.data, config.seed)
    shape = shape_of(config, data)
    if shape is None:
        unknown = f"the shape of {config.model.init_from} is unknown until it is fetched"
        return [
            Verdict("memory", "unknown", unknown),
            _time(config, profile, plan),
            Verdict("disk", "unknown", unknown),
        ]
    return [*_memory(config, profile, plan, shape), _time(config, profile, plan), _disk(config, profile, shape)]


def shape_of(config: RunConfig, data: Data) -> Shape | None:
    """The model's shape; None for a hub model that has not been fetched."""
    if config.model.init_from is None:
        return presets.shape(config.model.preset, Tokenizer.load(data.tokenizer_dir).vocab_size)
    folder = hub.cached(config.model.init_from)
    return None if folder is None else hf_config.read_shape(folder)


def _memory(config: RunConfig, profile: ClusterProfile, plan: Plan, shape: Shape) -> list[Verdict]:
    device = "cuda" if profile.gpus_per_node else "cpu"
    setup = setup_of(config, ds_config_for(config, profile.world_size), profile.world_size, device)
    lengths = longest_batch(plan, config.data.micro_tokens)
    planned = memory(shape, setup, lengths[:, 0], lengths[:, 1])
    batch = f"in the worst case, {int(lengths.sum()):,} tokens in examples of {lengths[0, 0]}+{lengths[0, 1]}"
    found = []
    if profile.gpus_per_node:
        found.append(_on_gpu(planned, profile, batch))
    host = profile.tasks_per_node * (planned.on_host + (0 if profile.gpus_per_node else planned.total))
    if host:
        what = "for offloaded states" if profile.gpus_per_node else batch
        room = _node_memory(profile)
        found.append(_fits("host memory", host, room, f"per node, {what}", "mem_gb", "raise it, or use more nodes"))
    return found


def _on_gpu(planned: Memory, profile: ClusterProfile, batch: str) -> Verdict:
    """The same arithmetic as bigchem plan, with the context and the fragmentation that it assumes."""
    figures: dict[str, float] = {"needed": planned.footprint, "allocated": planned.total}
    if profile.gpu_memory_gb is None:
        message = f"{amount(planned.footprint)} {batch}; the profile gives no gpu_memory_gb"
        return Verdict("GPU memory", "unknown", message, figures)
    figures["room"] = room = int(profile.gpu_memory_gb * 1e9)
    verdict = fits(planned, room)
    message = f"{amount(planned.footprint)} of {amount(room)} {batch}"
    largest = ", ".join(f"{name} {amount(size)}" for name, size in list(planned.items.items())[:3])
    advice = "lower data.micro_tokens, set train.checkpoint_activations, or use a higher ZeRO stage or offload"
    detail = {
        "ok": "",
        "tight": f": of which {amount(planned.footprint - planned.total - CONTEXT)} assumed for fragmentation",
        "no": f": {largest}; {advice} (bigchem plan compares them)",
    }
    return Verdict("GPU memory", verdict, message + detail[verdict], figures)


def _node_memory(profile: ClusterProfile) -> int | None:
    """Bytes of a node's memory that a job may use, if the profile says; this machine's for the local executor."""
    if profile.executor == "local":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if profile.mem_per_gpu_gb is not None:
        return int(profile.mem_per_gpu_gb * profile.gpus_per_node * 2**30)
    return None if profile.mem_gb is None else int(profile.mem_gb * 2**30)


def _fits(name: str, needed: int, room: int | None, what: str, field_name: str, advice: str) -> Verdict:
    figures: dict[str, float] = {"needed": needed}
    if room is None:
        return Verdict(name, "unknown", f"{amount(needed)} {what}; the profile gives no {field_name}", figures)
    message, figures["room"] = f"{amount(needed)} of {amount(room)} {what}", room
    if needed > room:
        return Verdict(name, "no", f"{message}: {advice}", figures)
    if needed > TIGHT * room:
        return Verdict(name, "tight", f"{message}: Python and libraries come on top", figures)
    return Verdict(name, "ok", message, figures)


def _time(config: RunConfig, profile: ClusterProfile, plan: Plan) -> Verdict:
    steps, per_step = config.train.steps, config.data.global_tokens * (1 - HEADROOM)
    data_tokens = sum(rows.tokens() for rows in plan.rows.values())
    row, _ = last_row(config.run_dir / "metrics.jsonl")
    left = max(0, steps - int(row.get("step", 0)))
    figures: dict[str, float] = {"steps": left, "tokens": left * per_step, "data_tokens": data_tokens}
    passes = f"the whole run reads the data {steps * per_step / data_tokens:,.1f} times"
    message = f"{left:,} steps, {left * per_step:,.0f} tokens; {passes}"
    speed = row.get("tokens_per_s")
    if not speed:
        return Verdict("time", "unknown", f"{message}; its speed is unknown before its first steps", figures)
    owner = ownership.read(config.run_dir)
    before = None if owner is None else owner.world_size
    seconds, limit = left * per_step / speed, 60 * profile.time_min
    jobs = max(1, math.ceil(seconds / limit))
    where = "" if before in (None, profile.world_size) else f" on {before} processes, not {profile.world_size}"
    figures |= {"tokens_per_s": speed, "seconds": seconds, "jobs": jobs}
    message += f"; at {speed:,.0f} tokens/s, measured so far{where}: {duration(seconds)}, in {jobs} job"
    message += f"{'s' if jobs > 1 else ''} of at most {duration(limit)}"
    return Verdict("time", "ok" if jobs <= profile.max_requeues + 1 else "no", message, figures)


def _disk(config: RunConfig, profile: ClusterProfile, shape: Shape) -> Verdict:
    free, _ = disk_room(config.run_dir / "checkpoints")
    needed, count, each = disk_needed(config, profile, shape)
    message = f"{amount(needed)} of {amount(free)} free: up to {count} checkpoints of {amount(each)}"
    figures = {"needed": needed, "free": free, "checkpoint": each, "checkpoints": count}
    advice = ": lower checkpoint.keep, raise checkpoint.keep_every, or free some space"
    return Verdict("disk", "no" if needed > free else "ok", message + (advice if needed > free else ""), figures)


def disk_needed(config: RunConfig, profile: ClusterProfile, shape: Shape) -> tuple[int, int, int]:
    """(bytes that the run takes at most, its checkpoints at most, bytes of each)."""
    setup = setup_of(config, ds_config_for(config, profile.world_size), profile.world_size, "cpu")
    _, last = disk_room(config.run_dir / "checkpoints")
    each = last or checkpoint_bytes(shape, setup)
    rules = config.checkpoint
    permanent = config.train.steps // rules.keep_every if rules.keep_every else 0
    best = 1 if config.validation.every and config.validation.keep_best else 0
    count = rules.keep + best + permanent + 1  # the one being written
    return count * each + (4 * num_parameters(shape) if config.evaluate.at_end else 0), count, each


def as_json(found: list[Verdict]) -> dict[str, Any]:
    """Verdicts by name, as plain data."""
    return {v.name: {"verdict": v.verdict, "message": v.message, **v.figures} for v in found}
