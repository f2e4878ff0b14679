"""Computes the largest micro-batch of the longest examples once, before the first step, to run out of memory early.

Its gradients are dropped: weights, moments and the loss curve do not change.
"""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from bigchem.base.errors import UserError
from bigchem.base.progress import amount
from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep
from bigchem.data.order.steps import Step, accumulation
from bigchem.data.packing import pack
from bigchem.data.ragged import IntArray
from bigchem.data.step_plan import Plan
from bigchem.model.presets import Shape
from bigchem.plan.memory.peak import Memory, memory
from bigchem.plan.memory.worst_case import longest_batch, setup_of
from bigchem.train.collectives import say
from bigchem.train.engine import Engine


@dataclass(frozen=True)
class Peak:
    """Peak memory of the micro-batch, the maximum over ranks.

    peak: bytes; on a GPU all allocated memory, on a CPU the growth of resident memory. room: bytes of a GPU. plan: the
    estimate of bigchem/plan/memory/peak.py.
    """

    lengths: IntArray
    seconds: float
    peak: int
    room: int | None
    plan: int

    def summary(self) -> str:
        """The log line."""
        room = "" if self.room is None else f" of {amount(self.room)}"
        return (
            f"worst-case batch: {_describe(self.lengths)} in {self.seconds:.1f} s, "
            f"peak {amount(self.peak)}{room} (plan: {amount(self.plan)})"
        )


def check(engine: Engine, config: RunConfig, plan: Plan, shape: Shape) -> None:
    """Computes the worst case and logs its peak, if train.worst_case is set. Collective."""
    if config.train.worst_case:
        say(compute(engine, config, longest_batch(plan, config.data.micro_tokens), shape).summary())


def compute(engine: Engine, config: RunConfig, lengths: IntArray, shape: Shape) -> Peak:
    """Forward, backward and an optimizer step without effect, on examples of these lengths [n, 2]. Collective.
    UserError if memory runs out.

    If steps accumulate, the micro-batch is computed twice, as the second meets the gradients of the first. Unallocated
    moments are reserved.
    """
    setup = setup_of(config, engine.ds_config, engine.world_size, engine.device.type)
    expected = memory(shape, setup, lengths[:, 0], lengths[:, 1])
    on_gpu = engine.device.type == "cuda"
    count = min(2, accumulation(engine.world_size, config.data.micro_tokens, config.data.global_tokens))
    before = _restart_peak(engine.device)
    begun = time.monotonic()
    try:
        missing = 0 if engine.has_moments else expected.device.moments
        reserved = torch.ones(missing, dtype=torch.uint8, device=engine.device)
        engine.forward_backward(step_of(lengths, shape.vocab_size, count, engine.world_size), 0)
        engine.optimizer_step(0.0, skip=True)
        del reserved
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises a plain one
        if not no_memory(str(error)):
            raise
        raise _out_of_memory(lengths, expected, _room(engine.device)) from error
    reached = torch.cuda.max_memory_allocated(engine.device) if on_gpu else _status_bytes("VmHWM")
    peak = torch.tensor([reached - before], dtype=torch.float64, device=engine.device)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    planned = expected.total if on_gpu else expected.growth
    return Peak(lengths, time.monotonic() - begun, int(peak), _room(engine.device), planned)


def no_memory(error: str) -> bool:
    """Whether an error's text means out of memory. cuBLAS allocates its workspace outside torch's allocator and reports
    it differently."""
    return re.search("out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED", error) is not None


def step_of(lengths: IntArray, vocab_size: int, count: int, world_size: int) -> LoadedStep:
    """A step of `count` such micro-batches on every rank, with arbitrary token ids."""
    n = len(lengths)
    ids = [np.arange(length) % vocab_size for length in lengths.ravel().tolist()]
    batch = pack(ids[0::2], ids[1::2], np.zeros(n, dtype=np.int64))
    none = np.zeros(n, dtype=np.int64)
    whole = np.tile(lengths, (count * world_size, 1))
    return LoadedStep(Step(0, 0, none, none, none, whole), [batch] * count)


def _out_of_memory(lengths: IntArray, expected: Memory, room: int | None) -> UserError:
    of_room = "" if room is None else f" of {amount(room)}"
    return UserError(
        f"out of memory{of_room} in the worst-case batch: {_describe(lengths)}, planned {amount(expected.total)}, "
        f"of which {amount(expected.batch)} for the batch",
        "data.micro_tokens",
        "lower it, set train.checkpoint_activations = true, or use a higher ZeRO stage or offload (train.ds_config)",
    )


def _describe(lengths: IntArray) -> str:
    full = int((lengths == lengths[0]).all(axis=1).sum())
    rest = "" if full == len(lengths) else f" and {lengths[-1, 0]}+{lengths[-1, 1]}"
    return f"{int(lengths.sum()):,} tokens ({full} x {lengths[0, 0]}+{lengths[0, 1]}{rest})"


def _restart_peak(device: torch.device) -> int:
    """Resets the peak. Returns the bytes to subtract from it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    with suppress(OSError):  # forbidden in some containers: the peak may then be an earlier one
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_bytes("VmRSS")


def _room(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status that is in kB, as bytes; 0 if there is none."""
    with suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
