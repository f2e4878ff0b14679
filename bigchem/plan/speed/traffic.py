"""What a rank sends in one optimizer step, by ZeRO stage. Pure.

The ZeRO paper (arXiv 1910.02054, section 7) has 2N elements for stages 0 to 2 (an all-reduce, or a reduce-scatter and
an all-gather) and 3N for stage 3, for a step of one micro-batch. DeepSpeed 0.19 differs: stages 1 and 2 all-reduce
gradients by default (`use_multi_rank_bucket_allreduce`), 2N, then gather the weights, N; stage 2 reduces in every
micro-batch; so does stage 3, which also gathers weights in both passes. Tests count what real ranks pass to the
collectives.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigchem.model.presets import Shape, num_parameters
from bigchem.plan.memory.buffers import gathered, persistent
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.states import pieces


@dataclass(frozen=True)
class Traffic:
    """Elements that a rank passes to the collectives in one optimizer step, and bytes that it sends.

    all_reduced, reduced (each to one rank), reduce_scattered: of gradients. gathered: of weights, whole.
    gathered_in_group: part of gathered, from hpZ's second copy. sent: bytes. Parts of sent: in_backward: during the
    backward pass, with overlap_comm; in_passes: weights prefetched in both passes. in_group: part of in_passes, within
    hpZ's group of ranks.
    """

    all_reduced: int
    reduced: int
    reduce_scattered: int
    gathered: int
    gathered_in_group: int
    sent: float
    in_backward: float
    in_passes: float
    in_group: float


def traffic(shape: Shape, setup: MemorySetup, micro_batches: int) -> Traffic:
    """Traffic of one optimizer step with this many micro-batches per rank.

    In a ring of W ranks each sends 2 (W - 1) / W of an all-reduce's elements, and half of that for a reduce-scatter or
    an all-gather (Patarasuk and Yuan 2009).
    """
    n, stage, ranks = num_parameters(shape), setup.stage, setup.world_size
    own, part = sum(pieces(shape, setup)), (ranks - 1) / ranks
    if stage == 3:
        return _of_stage_3(shape, setup, micro_batches)
    elements = n * (micro_batches if stage == 2 else 1)
    to_one = setup.reduces_to_one
    weights = own * ranks if stage > 0 else 0
    gradients = (1 if to_one else 2) * part * setup.sent * elements
    return Traffic(
        all_reduced=0 if to_one else elements,
        reduced=elements if to_one else 0,
        reduce_scattered=0,
        gathered=weights,
        gathered_in_group=0,
        sent=gradients + part * setup.element * weights,
        in_backward=gradients if stage == 2 and setup.zero.get("overlap_comm", False) else 0.0,
        in_passes=0.0,
        in_group=0.0,
    )


def _of_stage_3(shape: Shape, setup: MemorySetup, micro_batches: int) -> Traffic:
    """With hpZ a weight is gathered from all ranks once per step, then within its group."""
    n, ranks, hpz = num_parameters(shape), setup.world_size, setup.hpz
    part, small = (ranks - 1) / ranks, persistent(shape, setup)
    scatters = sum(pieces(shape, setup)) * ranks * micro_batches
    times = _gathers(shape, setup) * micro_batches
    near = (n - small) * (times - 1) if hpz > 1 else 0
    far = (n - small) * times + small - near
    in_group = setup.element * near * (hpz - 1) / hpz
    gathered_bytes = setup.element * part * far + in_group
    gradients = part * setup.sent * scatters
    return Traffic(
        all_reduced=0,
        reduced=0,
        reduce_scattered=scatters,
        gathered=far + near,
        gathered_in_group=near,
        sent=gradients + gathered_bytes,
        in_backward=gradients if setup.zero.get("overlap_comm", False) else 0.0,
        in_passes=gathered_bytes,
        in_group=in_group,
    )


def _gathers(shape: Shape, setup: MemorySetup) -> int:
    """Maximum times that stage 3 gathers a weight in a micro-batch: once if all stay between forward and backward pass,
    else twice; three times with activation checkpointing and without prefetching."""
    if gathered(shape, setup) == num_parameters(shape):
        return 1
    return 3 if setup.checkpoint_activations and not setup.size("stage3_prefetch_bucket_size", 50_000_000) else 2
