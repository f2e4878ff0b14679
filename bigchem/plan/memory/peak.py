"""Memory of training on one rank, from shapes alone: at each moment of a step, and at the peak. Pure.

States are exactly DeepSpeed 0.19's (states.py), buffers follow its code (buffers.py), and activations are what autograd
saves (activations.py). `Memory.total` is what torch's allocator hands out at the peak; `footprint` adds the GPU's
context and fragmentation.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from bigchem.model.parameters import parameter_shapes
from bigchem.model.presets import Shape
from bigchem.plan.memory import buffers
from bigchem.plan.memory.activations import activations, head_gradient, logits, workspaces
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.states import States, pieces, states

CONTEXT = 1_000_000_000
"""Bytes of a GPU outside torch's allocator: the driver's context with its loaded kernels (some 0.5 GB on A100 and
H100), and NCCL's channels. An assumption; measure it as nvidia-smi minus torch.cuda.memory_reserved()."""
FRAGMENTATION = 0.05
"""Memory reserved between blocks, as a fraction of allocated memory. An assumption: micro-batches differ in every step,
and their blocks never fit exactly. torch's expandable_segments lower it."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank, on the device except `host`.

    device, host: states by place. rounding: host memory lost because torch rounds pinned memory up to a power of two
    (pytorch issue 150517). buffers: ZeRO-3's, permanent. workspaces: libraries', permanent. activations: saved by
    autograd. logits: on top of them during the loss. head: on top of them at the start of the backward pass. temporary:
    in the widest layer's backward pass, with the gradient of tied embeddings. buckets: of gradients, in the backward
    pass. step: during the optimizer's step only. building: host memory that making the model takes, before its states.
    """

    device: States
    host: States
    rounding: int
    buffers: int
    workspaces: int
    activations: int
    logits: int
    head: int
    temporary: int
    buckets: int
    step: int
    building: int

    @property
    def constant(self) -> dict[str, int]:
        """Permanent bytes on the device, by item."""
        return {**self.device._asdict(), "ZeRO-3 buffers": self.buffers, "workspaces": self.workspaces}

    @property
    def moments(self) -> dict[str, dict[str, int]]:
        """Temporary bytes on the device, by moment and item."""
        saved = {"activations": self.activations}
        return {
            "loss": {**saved, "logits": self.logits},
            "start of the backward pass": {**saved, "gradient of the head": self.head},
            "backward pass": {**saved, "a layer's backward pass": self.temporary, "buckets": self.buckets},
            "optimizer's step": {"the step's copies": self.step},
        }

    @property
    def moment(self) -> str:
        """The moment of the peak."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def items(self) -> dict[str, int]:
        """Bytes on the device at the peak, by item, largest first."""
        found = {**self.constant, **self.moments[self.moment]}
        return dict(sorted(((k, v) for k, v in found.items() if v), key=lambda item: -item[1]))

    @property
    def batch(self) -> int:
        """Temporary bytes on the device at the peak."""
        return sum(self.moments[self.moment].values())

    @property
    def total(self) -> int:
        """Bytes on the device at the peak."""
        return sum(self.constant.values()) + self.batch

    @property
    def footprint(self) -> int:
        """`total` with the assumed context and fragmentation."""
        return int((1 + FRAGMENTATION) * self.total) + CONTEXT

    @property
    def growth(self) -> int:
        """Bytes by which a CPU process grows in its first step. Weights and masters exist before it; offloaded moments
        do not exist yet."""
        made = self.device.gradients + self.device.moments + self.host.gradients
        return made + self.buffers + self.batch

    @property
    def on_host(self) -> int:
        """Bytes in host memory."""
        return sum(self.host) + self.rounding


def memory(shape: Shape, setup: MemorySetup, source_lengths: ArrayLike, target_lengths: ArrayLike) -> Memory:
    """Memory of one rank for a micro-batch of examples of these lengths, in tokens."""
    source = np.asarray(source_lengths, dtype=np.int64)
    target = np.asarray(target_lengths, dtype=np.int64)
    saved, temporary = activations(shape, setup, source, target)
    device, host = states(shape, setup)
    tied = setup.element * shape.vocab_size * shape.d_model if shape.tied else 0
    return Memory(
        device=device,
        host=in_memory(host, shape, setup),
        rounding=_rounding(host, setup),
        buffers=buffers.resident(shape, setup),
        workspaces=workspaces(setup),
        activations=saved,
        logits=logits(shape, setup, int(target.sum())),
        head=head_gradient(shape, setup),
        temporary=temporary + tied,
        buckets=buffers.backward(shape, setup),
        step=buffers.step(shape, setup),
        building=_building(shape, setup, device),
    )


def _building(shape: Shape, setup: MemorySetup, device: States) -> int:
    """Host memory of a rank that makes the model: the whole in fp32, or at stage 3 one parameter at a time, and then
    its parts, which DeepSpeed passes through host memory to lay them side by side (`defragment`)."""
    sizes = [4 * prod(dims) for dims in parameter_shapes(shape).values()]
    return sum(sizes) if setup.stage < 3 else max(*sizes, device.weights)


def in_memory(host: States, shape: Shape, setup: MemorySetup) -> States:
    """Host memory of offloaded states. With NVMe: only the configured number of swap buffers, each the size of the
    largest group's piece; gradients stay in memory."""
    if setup.offload("optimizer") == "nvme":
        table = setup.zero["offload_optimizer"]
        count = int(table.get("buffer_count", 4)) if isinstance(table, dict) else 4
        largest = 4 * max(pieces(shape, setup))
        host = host._replace(masters=0, moments=0, staging=host.staging + count * largest)
    if setup.offload("param") == "nvme":
        table = setup.zero["offload_param"]
        fields = table if isinstance(table, dict) else {}
        swapped = int(fields.get("buffer_count", 5)) * int(fields.get("buffer_size", 100_000_000))
        host = host._replace(weights=0, staging=host.staging + setup.element * swapped)
    return host


def _rounding(host: States, setup: MemorySetup) -> int:
    """Bytes lost by rounding pinned tensors, assuming one each for weights, gradients, masters and staging."""
    pinned = []
    if setup.device == "cuda" and setup.pinned("optimizer"):
        pinned += [host.gradients, *(() if setup.stage == 3 else (host.masters, host.staging))]
    if setup.device == "cuda" and setup.pinned("param"):
        pinned.append(host.weights)
    return sum((1 << (size - 1).bit_length()) - size for size in pinned if size)
