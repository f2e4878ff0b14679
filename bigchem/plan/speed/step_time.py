"""Estimates what a rank sends in a step, and its time on GPUs, from operations, bytes and stated assumptions. Pure.

Nothing here was measured on a GPU: use it to compare configurations and for orders of magnitude. Replace `Assumptions`
with a cluster's measurements.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigchem.config import HEADROOM
from bigchem.data.order.steps import accumulation
from bigchem.model.flops import training_flops
from bigchem.model.presets import Shape, num_parameters
from bigchem.plan.memory.buffers import REDUCE_BUCKET, gathered, persistent
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.states import hpz_piece, pieces
from bigchem.plan.speed.hardware import Gpu


@dataclass(frozen=True)
class Traffic:
    """Elements that a rank passes to the collectives in one optimizer step, and bytes that it sends.

    The ZeRO paper (arXiv 1910.02054, section 7) has 2N elements for stages 0 to 2 (an all-reduce, or a reduce-scatter
    and an all-gather) and 3N for stage 3, for a step of one micro-batch. DeepSpeed 0.19 differs: stages 1 and 2
    all-reduce gradients by default (`use_multi_rank_bucket_allreduce`), 2N, then gather the weights, N; stage 2 reduces
    in every micro-batch; so does stage 3, which also gathers weights in both passes. Tests count what real ranks pass
    to the collectives.

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


KERNELS = 38, 59
"""Launches of an encoder block and a decoder block, forward and backward, with the fused kernels. tests/model/
test_launches.py counts those of a step on the meta device (t5-base 1,149) and compares."""
ADAM_BYTES = {"adamw": 28, "adamw_rms": 44, "adafactor": 28}
"""An optimizer's traffic per element in fp32. AdamW reads weight, gradient and two moments, and writes all but the
gradient; adamw_rms also scales the weights before and after."""


@dataclass(frozen=True)
class Assumptions:
    """mfu: fraction of the peak reached over forward and backward. link, memory: fractions of the data sheets'
    bandwidths. launch: seconds from kernel to kernel, which limits small micro-batches. host: bytes per second that a
    node's CPUs read and write in AdamW."""

    mfu: float = 0.35
    link: float = 0.7
    memory: float = 0.7
    launch: float = 6e-6
    host: float = 100e9

    def summary(self) -> str:
        """One line."""
        return (
            f"MFU {100 * self.mfu:.0f} %, {100 * self.link:.0f} % of link and {100 * self.memory:.0f} % of memory "
            f"bandwidth, {1e6 * self.launch:.0f} us per kernel, AdamW on hosts at {self.host / 1e9:.0f} GB/s per node"
        )


@dataclass(frozen=True)
class Cluster:
    """Nodes of `gpus` GPUs each. between: bytes per second that a node sends to other nodes."""

    gpu: Gpu
    gpus: int = 1
    nodes: int = 1
    between: float = 0.0

    @property
    def world_size(self) -> int:
        """GPUs in all."""
        return self.gpus * self.nodes


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step. compute: forward and backward of all micro-batches. exposed: communication that is
    not hidden. optimizer: its update, including transfers to and from the host with offload. tokens_per_s: real tokens,
    all GPUs. between_nodes: bytes that leave a node: each of NCCL's rings leaves it once, and together they carry what
    a GPU sends."""

    micro_batches: int
    compute: float
    communication: float
    exposed: float
    optimizer: float
    tokens_per_s: float
    traffic: Traffic
    between_nodes: float

    @property
    def total(self) -> float:
        """Seconds."""
        return self.compute + self.exposed + self.optimizer


def step_time(
    shape: Shape,
    setup: MemorySetup,
    cluster: Cluster,
    lengths: NDArray[np.int64],
    micro_tokens: int,
    global_tokens: int,
    assumed: Assumptions,
) -> StepTime:
    """Time of one step. lengths: [n, 2] of representative examples, whose operations per token are used for all."""
    count = accumulation(setup.world_size, micro_tokens, global_tokens)
    tokens = global_tokens * (1 - HEADROOM)
    operations = training_flops(shape, lengths[:, 0], lengths[:, 1]) * tokens / float(lengths.sum())
    again = 4 / 3 if setup.checkpoint_activations else 1.0
    peak = cluster.gpu.peak(setup.precision, tf32=setup.tf32)
    at_peak = again * operations / (setup.world_size * peak * assumed.mfu)
    kernels = KERNELS[0] * shape.num_layers + KERNELS[1] * shape.num_decoder_layers
    compute = max(at_peak, count * again * kernels * assumed.launch)
    sent = traffic(shape, setup, count)
    rate = assumed.link * (cluster.gpu.link if cluster.nodes == 1 else min(cluster.gpu.link, cluster.between))
    inside = cluster.gpus % setup.hpz == 0  # hpZ's groups, of consecutive ranks, lie within a node
    near = assumed.link * cluster.gpu.link if inside else rate
    passes = (sent.in_passes - sent.in_group) / rate + sent.in_group / near
    backward, rest = sent.in_backward / rate, (sent.sent - sent.in_backward - sent.in_passes) / rate
    communication = passes + backward + rest
    exposed = rest + _exposed(passes, backward, compute, buckets(shape, setup))
    optimizer = _optimizer(shape, setup, cluster, assumed) + _fetching(shape, setup, cluster, assumed, count, compute)
    speed = tokens / (compute + exposed + optimizer)
    leaving = sent.sent - (sent.in_group if inside else 0.0) if cluster.nodes > 1 else 0.0
    return StepTime(count, compute, communication, exposed, optimizer, speed, sent, leaving)


def buckets(shape: Shape, setup: MemorySetup) -> int:
    """Buckets in which stages 2 and 3 send the gradients of a micro-batch. The tied embedding, and any weight that is
    larger than a bucket, is sent by itself."""
    return -(-num_parameters(shape) // setup.size("reduce_bucket_size", REDUCE_BUCKET))


def _exposed(passes: float, backward: float, compute: float, parts: int) -> float:
    """Seconds of communication that compute does not hide. Gradients are sent in `parts` buckets: while the backward
    pass, two thirds of compute, computes one, it hides the sending of the one before, so the last is never hidden. Both
    passes hide prefetching."""
    hidden = min(backward, compute * 2 / 3) * (1 - 1 / parts)
    return backward - hidden + max(0.0, passes - (compute - hidden))


def _optimizer(shape: Shape, setup: MemorySetup, cluster: Cluster, assumed: Assumptions) -> float:
    own = sum(pieces(shape, setup))
    if not setup.offloaded("optimizer"):
        return ADAM_BYTES[setup.optimizer] * own / (assumed.memory * cluster.gpu.memory_bandwidth)
    transfer = (4 + setup.element) * own / (assumed.link * cluster.gpu.pcie)
    return transfer + ADAM_BYTES[setup.optimizer] * own * cluster.gpus / assumed.host


def _fetching(
    shape: Shape, setup: MemorySetup, cluster: Cluster, assumed: Assumptions, count: int, compute: float
) -> float:
    """Seconds by which fetching offloaded weights, twice per micro-batch, exceeds compute."""
    if not setup.offloaded("param"):
        return 0.0
    own = hpz_piece(shape, setup) or sum(pieces(shape, setup))
    fetched = 2 * count * setup.element * own / (assumed.link * cluster.gpu.pcie)
    return max(0.0, fetched - compute)
