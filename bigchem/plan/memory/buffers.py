"""DeepSpeed's buffers for gradients and weights in transit. Pure.

From the code of DeepSpeed 0.19: runtime/zero/stage_1_and_2.py, stage3.py, partitioned_param_coordinator.py, engine.py.
"""

from math import prod

from bigchem.model.parameters import parameter_shapes
from bigchem.model.presets import Shape, num_parameters
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.states import compact, groups, pieces, resharded

REDUCE_BUCKET = 500_000_000
"""DeepSpeed's default reduce_bucket_size, and the size of its all-reduce at stage 0, in elements."""


def resident(shape: Shape, setup: MemorySetup) -> int:
    """Bytes allocated from the first forward pass on: at stage 3 the gradient bucket, in full even for a small model,
    and gathered weights."""
    if setup.stage != 3:
        return 0
    bucket = _bucket(shape, setup) if setup.zero.get("contiguous_gradients", True) else 0
    return setup.sent * bucket + setup.element * gathered(shape, setup)


def _bucket(shape: Shape, setup: MemorySetup) -> int:
    """Elements of a bucket. In host memory only pages that gradients were written to count."""
    size = setup.size("reduce_bucket_size", REDUCE_BUCKET)
    return min(size, num_parameters(shape)) if setup.device == "cpu" else size


def gathered(shape: Shape, setup: MemorySetup) -> int:
    """Maximum elements that stage 3 has gathered at a time.

    A weight stays if it is used again within stage3_max_reuse_distance elements: between forward and backward pass,
    the last half of that distance. Weights that prefetching skips because they are present stay too. So with any
    prefetching all weights stay until stage3_max_live_parameters are present: by DeepSpeed's default of 10^9, all of a
    smaller model. Tests count it on ranks.
    """
    n, largest = num_parameters(shape), max(prod(dims) for dims in parameter_shapes(shape).values())
    ahead = setup.size("stage3_prefetch_bucket_size", 50_000_000)
    reused = setup.size("stage3_max_reuse_distance", 1_000_000_000) // 2
    live = setup.size("stage3_max_live_parameters", 1_000_000_000) if ahead else 0
    block = 4 * shape.d_model * shape.inner_dim if setup.checkpoint_activations else 0  # one is recomputed
    return min(n, max(live, reused) + largest + block + persistent(shape, setup))


def persistent(shape: Shape, setup: MemorySetup) -> int:
    """Elements of the small weights that stage 3 does not repartition once they are gathered."""
    return num_parameters(shape) - sum(resharded(shape, setup))


def backward(shape: Shape, setup: MemorySetup) -> int:
    """Bytes in the backward pass only: buckets, and a copy of the one being reduced.

    Stages 1 and 2 allocate contiguous buckets in full even for a small model, and two of them with overlap_comm, in the
    type in which stage 1 accumulates gradients and stage 2 computes them. Stage 1 in bf16 with fp32 accumulation has
    none: gradients stay in place until the step.
    """
    n, stage = num_parameters(shape), setup.stage
    if stage == 0 or setup.bf16_optimizer:
        return 0
    bucket = _bucket(shape, setup)
    copy = min(bucket, n)
    if stage == 3:
        return setup.sent * copy
    whole = bucket if setup.zero.get("contiguous_gradients", True) or setup.offloaded("optimizer") else 0
    again = _accumulated(shape, setup) if stage == 2 and not compact(setup) else 0
    buckets = (2 if setup.zero.get("overlap_comm", False) else 1) * whole
    return (setup.summed if stage == 1 else setup.element) * buckets + setup.sent * copy + again


def step(shape: Shape, setup: MemorySetup) -> int:
    """Bytes during the optimizer's step only, when activations are freed."""
    n, stage, bf16 = num_parameters(shape), setup.stage, setup.precision == "bf16"
    fp32_sums = setup.summed == 4
    if setup.offloaded("optimizer"):
        return 0
    once = 4 * sum(pieces(shape, setup)) if setup.ema else 0  # the first step copies weights into the running mean
    flat = setup.sent * min(n, REDUCE_BUCKET)  # the all-reduce's, for stages that reduce once per step
    if stage == 0:
        return max(flat, 4 * n if bf16 else 0) + once
    if setup.bf16_optimizer:
        return (4 + setup.sent) * min(n, REDUCE_BUCKET) + once  # fp32, and as it is sent
    largest = 4 * max(pieces(shape, setup))
    if stage == 3:
        return min(largest, 4 * setup.size("sub_group_size", 1_000_000_000)) + once
    return (0 if setup.precision != "fp32" and fp32_sums else largest) + once


def _accumulated(shape: Shape, setup: MemorySetup) -> int:
    """Bytes of a second set of a rank's own gradients, before they are added to the first."""
    return setup.element * (sum(pieces(shape, setup)) + max(max(sizes) for sizes in groups(shape, setup)))
