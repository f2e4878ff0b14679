"""What a rank sends to others in one optimizer step, by ZeRO stage. Pure.

The ZeRO paper (arXiv 1910.02054, section 7) has 2N elements for stages 0 to 2 (an all-reduce, or a reduce-scatter and
an all-gather) and 3N for stage 3, when a step is one micro-batch. What DeepSpeed 0.19 sends differs: stages 1 and 2
all-reduce gradients by default (`use_multi_rank_bucket_allreduce`), which is 2N, and then gather the weights, N; stage
2 reduces in every micro-batch; and so does stage 3, which besides gathers weights in both passes. Tests count what real
ranks hand to the collectives.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigchem.model.presets import Shape, num_parameters
from bigchem.plan.buffers import gathered, persistent
from bigchem.plan.setup import Setup
from bigchem.plan.states import pieces


@dataclass(frozen=True)
class Traffic:
    """Elements handed to the collectives in one optimizer step by a rank, and bytes that it sends for them.

    all_reduced, reduce_scattered: of gradients; gathered: of weights, whole. in_backward: share of `sent` that travels
    while the backward pass computes, if overlap_comm lets it; in_passes: share that is gathered ahead in both passes.
    """

    all_reduced: int
    reduce_scattered: int
    gathered: int
    sent: float
    in_backward: float
    in_passes: float


def traffic(shape: Shape, setup: Setup, micro_batches: int) -> Traffic:
    """Of one optimizer step of so many micro-batches a rank.

    A ring of W ranks sends 2 (W - 1) / W of an all-reduce's elements from each of them, and half of that for a
    reduce-scatter or an all-gather (Patarasuk and Yuan 2009).
    """
    n, stage, ranks, bytes_each = num_parameters(shape), setup.stage, setup.world_size, setup.element
    own, part = sum(pieces(shape, setup)), (setup.world_size - 1) / setup.world_size
    if stage == 3:
        small = persistent(shape, setup)
        whole = own * ranks
        gathers = (n - small) * _gathers(shape, setup) * micro_batches + small
        scatters = whole * micro_batches
        sent = part * bytes_each * (gathers + scatters)
        overlapping = bool(setup.zero.get("overlap_comm", False))
        backward = part * bytes_each * scatters / sent if sent and overlapping else 0.0
        ahead = part * bytes_each * gathers / sent if sent else 0.0
        return Traffic(0, scatters, gathers, sent, backward, ahead)
    reduced = n * (micro_batches if stage == 2 else 1)
    weights = own * ranks if stage > 0 else 0
    sent = part * bytes_each * (2 * reduced + weights)
    overlapping = stage == 2 and bool(setup.zero.get("overlap_comm", False))
    return Traffic(
        reduced, 0, weights, sent, 2 * part * bytes_each * reduced / sent if sent and overlapping else 0.0, 0.0
    )


def _gathers(shape: Shape, setup: Setup) -> int:
    """Times that stage 3 gathers a weight in a micro-batch, at most: once where all stay from the forward to the
    backward pass, else twice, and with activation checkpointing but without prefetching once more."""
    if gathered(shape, setup) == num_parameters(shape):
        return 1
    return 3 if setup.checkpoint_activations and not setup.size("stage3_prefetch_bucket_size", 50_000_000) else 2
