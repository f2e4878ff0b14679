"""Weights, gradients and optimizer states of one rank, to the byte. Pure.

As DeepSpeed 0.19 allocates them, with padding. At stages 1 and 2 a parameter group is one flat tensor, a multiple of
2 * world_size elements long, partitioned equally (runtime/zero/stage_1_and_2.py, runtime/bf16_optimizer.py). At stage 3
each parameter is partitioned separately, and the last piece padded (stage3.py). Tests compare every figure with the
tensors of real ranks.
"""

from math import prod
from typing import NamedTuple

from bigchem.model.parameters import group_names, parameter_shapes
from bigchem.model.presets import Shape, num_parameters
from bigchem.plan.memory.setup import MemorySetup

ALIGNMENT = 2
"""DeepSpeed's nccl_start_alignment_factor: at stages 1 and 2 a rank's piece is padded to a multiple of this."""


class States(NamedTuple):
    """Bytes of one rank in one place. staging: copies in transit between host and device. hpz_weights: hpZ's second
    copy of the weights."""

    weights: int
    gradients: int
    masters: int
    moments: int
    staging: int = 0
    hpz_weights: int = 0


def groups(shape: Shape, setup: MemorySetup) -> list[list[int]]:
    """Elements of each parameter, by optimizer group: with and without decay."""
    sizes = {name: prod(dims) for name, dims in parameter_shapes(shape).items()}
    named = group_names((name, len(dims)) for name, dims in parameter_shapes(shape).items())
    return [[sizes[name] for name in names] for names in named if names]


def pieces(shape: Shape, setup: MemorySetup) -> list[int]:
    """Elements of each group that a rank owns, with padding; equal on all ranks."""
    found = groups(shape, setup)
    if setup.stage == 0:
        return [sum(sizes) for sizes in found]
    if setup.stage == 3:
        return [sum(-(-size // setup.world_size) for size in sizes) for sizes in found]
    return [ALIGNMENT * -(-sum(sizes) // (ALIGNMENT * setup.world_size)) for sizes in found]


def states(shape: Shape, setup: MemorySetup, rank: int | None = None) -> tuple[States, States]:
    """(on the device, in host memory or on NVMe) of a rank between two micro-batches of a step. rank: None: the one
    with the most. Ranks differ only at stage 2 with gradients accumulated in the weights' type."""
    n, own = num_parameters(shape), sum(pieces(shape, setup))
    flat = own if setup.stage == 0 else own * setup.world_size
    weights = setup.element * (own if setup.stage == 3 else n if setup.stage == 0 else flat)
    again = setup.element * hpz_piece(shape, setup)
    masters = 0 if setup.stage == 0 and setup.precision == "fp32" else 4 * own
    moments = factored(shape) if setup.optimizer == "adafactor" else 8 * own
    moments += 4 * own if setup.ema else 0
    gradients = _gradients(shape, setup, rank)
    if not setup.offloaded("optimizer"):
        return States(weights, gradients, masters, moments, hpz_weights=again), States(0, 0, 0, 0)
    if setup.stage == 3:
        # The accumulated pieces, and as many that the optimizer reads.
        away = setup.offloaded("param")
        read = (4 + setup.summed) * own
        host = States(weights if away else 0, read, masters, moments, hpz_weights=again if away else 0)
        return States(0 if away else weights, 0, 0, 0, hpz_weights=0 if away else again), host
    largest = max(max(sizes) for sizes in groups(shape, setup))
    # A piece is rounded in host memory before it goes to the device, and a gradient has a buffer on either side.
    device = States(weights, gradients, 0, 0, setup.element * largest)
    staging = setup.element * (own + largest)
    if not compact(setup):  # accumulated in host memory, whole if two ranks share a parameter
        return device._replace(gradients=0), States(0, 4 * own + gradients, masters, moments, staging)
    return device, States(0, 4 * own, masters, moments, staging)


def hpz_piece(shape: Shape, setup: MemorySetup) -> int:
    """Elements of hpZ's second copy on a rank: the weights that are repartitioned after use, padded for all ranks and
    partitioned within a group. It is created with them, and dropped by the optimizer's step."""
    if setup.hpz == 1:
        return 0
    return sum(-(-size // setup.world_size) * setup.world_size // setup.hpz for size in resharded(shape, setup))


def resharded(shape: Shape, setup: MemorySetup) -> list[int]:
    """Elements of each weight that stage 3 repartitions after use. Small ones stay whole, in the model's order, up to a
    total."""
    threshold = setup.size("stage3_param_persistence_threshold", 100_000)
    room = setup.size("stage3_model_persistence_threshold", 2**63)
    found = []
    for size in (prod(dims) for dims in parameter_shapes(shape).values()):
        if size <= min(threshold, room):
            room -= size
        else:
            found.append(size)
    return found


def _gradients(shape: Shape, setup: MemorySetup, rank: int | None) -> int:
    """Bytes of gradients while a step accumulates, in any place."""
    n, own = num_parameters(shape), sum(pieces(shape, setup))
    if setup.bf16_optimizer:  # the fp32 sum of all gradients, and the bf16 ones added to it
        return 4 * own * setup.world_size + 2 * n
    if setup.stage < 2:
        return setup.summed * n
    if setup.stage == 2 and not compact(setup):
        ranks = range(setup.world_size) if rank is None else [rank]
        return max(setup.element * _whole(shape, setup, r) for r in ranks)
    return setup.summed * own


def compact(setup: MemorySetup) -> bool:
    """Whether stage 2 accumulates gradients in one flat piece: in fp32, from another type."""
    return setup.precision != "fp32" and setup.summed == 4


def _whole(shape: Shape, setup: MemorySetup, rank: int) -> int:
    """Elements of all parameters, each whole, of which a rank owns any part at stage 2."""
    found = 0
    for sizes, piece in zip(groups(shape, setup), pieces(shape, setup), strict=True):
        start = 0
        for size in sizes:
            if start < (rank + 1) * piece and start + size > rank * piece:
                found += size
            start += size
    return found


def factored(shape: Shape) -> int:
    """Bytes of Adafactor's second moments in fp32: rows and columns of every matrix, elements of every vector."""
    return 4 * sum(sum(dims) for dims in parameter_shapes(shape).values())


def checkpoint_bytes(shape: Shape, setup: MemorySetup) -> int:
    """Size of a checkpoint, all ranks together: fp32 weights and moments. Without file metadata, a few kilobytes per
    rank."""
    n = num_parameters(shape)
    moments = factored(shape) if setup.optimizer == "adafactor" else 8 * n
    return 4 * n + moments + (4 * n if setup.ema else 0)


def staging_bytes(shape: Shape, setup: MemorySetup, rank: int = 0) -> int:
    """Host memory of a rank's copy of a checkpoint that is written while training goes on. At stage 0 only rank 0 has
    one. On a GPU with torch's pinned buffer of the largest tensor, which it rounds up to a power of two."""
    share = checkpoint_bytes(shape, setup) // (setup.world_size if setup.stage else 1)
    if not setup.stage and rank:
        return 0
    largest = 4 * max(pieces(shape, setup)) if setup.device == "cuda" else 0
    return share + ((1 << (largest - 1).bit_length()) if largest else 0)
