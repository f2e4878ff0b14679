"""Bytes that training takes on one rank, from shapes alone. Pure.

States (weights, gradients, optimizer) follow what DeepSpeed 0.19 allocates, activations what autograd keeps of
bigchem/model/t5.py; tests compare both with the real thing on the CPU. The figures for CUDA follow from the code as
well, and have not been measured. Not counted: the allocator's fragmentation, the driver's context, NCCL's buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from bigchem.model.presets import Shape, num_parameters

LOGITS_PER_CHUNK = {"cpu": 2**23, "cuda": 2**26}
"""As in model/functional.py."""


@dataclass(frozen=True)
class Setup:
    """What decides how much a rank holds, besides the model and the batch.

    zero: the `zero_optimization` table of the DeepSpeed configuration. device: "cpu" or "cuda".
    """

    zero: Mapping[str, object]
    world_size: int = 1
    precision: str = "bf16"
    optimizer: str = "adamw"
    ema: bool = False
    dropout: bool = True
    checkpoint_activations: bool = False
    device: str = "cuda"

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return int(str(self.zero.get("stage", 0)))

    @property
    def element(self) -> int:
        """Bytes of a weight and of an activation."""
        return 4 if self.precision == "fp32" else 2

    def offloaded(self, what: str) -> bool:
        """Whether the states `what` ("optimizer", "param") are kept off the device."""
        table = self.zero.get(f"offload_{what}")
        return isinstance(table, Mapping) and table.get("device", "none") != "none"

    def size(self, name: str, default: int) -> int:
        """A number of elements that the zero table names."""
        found = self.zero.get(name, default)
        return int(found) if isinstance(found, (int, float)) else default


@dataclass(frozen=True)
class Memory:
    """Bytes on the device of one rank at the peak of a micro-batch, but `host`: bytes in host memory.

    weights: as the model computes with them. gradients: between micro-batches. masters: fp32 weights. moments: the
    optimizer's estimates, with the running mean where there is one. activations: what autograd keeps. logits: the
    output projection's chunk and its fp32 gradient. buckets: DeepSpeed's buffers for collectives, with ZeRO-3 also the
    weights that are gathered. temporary: what the backward pass of the widest layer holds for a moment.
    """

    weights: int
    gradients: int
    masters: int
    moments: int
    activations: int
    logits: int
    buckets: int
    temporary: int
    host: int

    @property
    def total(self) -> int:
        """Bytes on the device."""
        everything: int = sum(getattr(self, field.name) for field in fields(self))
        return everything - self.host

    @property
    def batch(self) -> int:
        """The part that a micro-batch brings and takes away."""
        return self.activations + self.logits + self.temporary


def memory(shape: Shape, setup: Setup, source_lengths: ArrayLike, target_lengths: ArrayLike) -> Memory:
    """What one rank holds while it computes a micro-batch of examples of these lengths in tokens."""
    source = np.asarray(source_lengths, dtype=np.int64)
    target = np.asarray(target_lengths, dtype=np.int64)
    kept, temporary = activations(shape, setup, source, target)
    weights, gradients, masters, moments = states(shape, setup)
    host = 0
    if setup.offloaded("optimizer"):
        host, masters, moments = masters + moments + gradients, 0, 0
        gradients = 0 if setup.stage == 3 else gradients
    if setup.offloaded("param"):
        host, weights = host + weights, 0
    return Memory(
        weights=weights,
        gradients=gradients,
        masters=masters,
        moments=moments,
        activations=kept,
        logits=logits(shape, setup, int(target.sum())),
        buckets=buckets(shape, setup),
        temporary=temporary,
        host=host,
    )


def states(shape: Shape, setup: Setup) -> tuple[int, int, int, int]:
    """(weights, gradients, masters, moments) of a rank, wherever they are kept."""
    n, stage, fp32 = num_parameters(shape), setup.stage, setup.precision == "fp32"
    share = -(-n // setup.world_size)
    own = share if stage > 0 else n
    weights = setup.element * (share if stage == 3 else n)
    # bf16 is accumulated in fp32 from stage 1 on. Stage 1 keeps that for all weights, and their bf16 gradients besides.
    accumulated = 4 if stage > 0 else setup.element
    gradients = accumulated * (share if stage >= 2 else n) + (2 * n if stage == 1 and not fp32 else 0)
    masters = 0 if fp32 and stage == 0 else 4 * own
    moments = _factored(shape) if setup.optimizer == "adafactor" else 8 * own
    return weights, gradients, masters, moments + (4 * own if setup.ema else 0)


def checkpoint_bytes(shape: Shape, setup: Setup) -> int:
    """Size of a checkpoint, all ranks together: fp32 weights and moments, written once. Without what files say of
    themselves, a few kilobytes a rank."""
    n = num_parameters(shape)
    moments = _factored(shape) if setup.optimizer == "adafactor" else 8 * n
    return 4 * n + moments + (4 * n if setup.ema else 0)


def _factored(shape: Shape) -> int:
    """Adafactor's second moments: rows and columns of every matrix, elements of every vector, fp32."""
    d, inner, ff = shape.d_model, shape.inner_dim, shape.d_ff
    attention = 4 * (d + inner)
    feed_forward = (3 if shape.gated else 2) * (d + ff)
    layers = shape.num_layers * (attention + feed_forward + 2 * d)
    layers += shape.num_decoder_layers * (2 * attention + feed_forward + 3 * d)
    tables = (1 if shape.tied else 2) * (shape.vocab_size + d)
    tables += 2 * (shape.relative_attention_num_buckets + shape.num_heads)
    return 4 * (layers + tables + 2 * d)


def buckets(shape: Shape, setup: Setup) -> int:
    """DeepSpeed's buffers: gradients on their way to other ranks, and weights that ZeRO-3 has gathered.

    Stages 1 to 3 allocate contiguous buckets whole, however small the model; with overlap_comm two of them.
    """
    n, stage, element = num_parameters(shape), setup.stage, setup.element
    if stage == 0 or (stage == 1 and setup.precision == "bf16"):
        return 0
    if stage == 3:
        largest = max(shape.vocab_size * shape.d_model, shape.d_model * shape.d_ff)
        gathered = min(n, largest + setup.size("stage3_prefetch_bucket_size", 50_000_000))
        return element * (setup.size("reduce_bucket_size", 500_000_000) + gathered)
    contiguous = setup.zero.get("contiguous_gradients", True)
    doubled = 2 if setup.zero.get("overlap_comm", False) else 1
    gathered = min(n, setup.size("allgather_bucket_size", 500_000_000))
    return element * ((doubled * setup.size("reduce_bucket_size", 500_000_000) if contiguous else 0) + gathered)


def logits(shape: Shape, setup: Setup, target_tokens: int) -> int:
    """The output projection: a chunk's logits and probabilities in fp32, and the gradient of its weight in fp32."""
    chunk = min(target_tokens, max(1, LOGITS_PER_CHUNK[setup.device] // shape.vocab_size))
    held = (8 if setup.precision == "fp32" else 12) * chunk * shape.vocab_size
    return held + 2 * 4 * shape.vocab_size * shape.d_model


def activations(shape: Shape, setup: Setup, source: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """(bytes that autograd keeps of the blocks from forward to backward, bytes that one layer's backward adds).

    source, target: [n] tokens of each example. With checkpoint_activations: the blocks' inputs, and one block computed
    again.
    """
    num_source, num_target = int(source.sum()), int(target.sum())
    hidden, e = setup.element * shape.d_model, setup.element
    encoder = _attention(shape, setup, source, source) + _feed_forward(shape, setup, num_source)
    decoder = (
        _attention(shape, setup, target, target)
        + _attention(shape, setup, target, source)
        + _feed_forward(shape, setup, num_target)
    )
    ends = sum((_norm(shape, setup, t) + 2 * _mask(setup, t * shape.d_model)) for t in (num_source, num_target))
    ends += hidden * num_source  # the memory that cross-attention reads
    ends += hidden * num_target  # the gradient of the output projection's input
    if setup.checkpoint_activations:
        inputs = hidden * (shape.num_layers * num_source + shape.num_decoder_layers * num_target)
        blocks = inputs + max(encoder, decoder)
    else:
        blocks = shape.num_layers * encoder + shape.num_decoder_layers * decoder
    scores = max(_scores(setup, shape, q, k) for q, k in ((source, source), (target, target), (target, source)))
    widest = max(num_source, num_target) * e * (3 * shape.d_ff + 2 * shape.d_model)
    return ends + blocks, max(widest, 2 * scores * (4 // e) if setup.device == "cpu" else 0)


def _norm(shape: Shape, setup: Setup, tokens: int) -> int:
    """A norm keeps its input, which is the residual stream, and a scale a token."""
    return tokens * (setup.element * shape.d_model + 4)


def _mask(setup: Setup, elements: int) -> int:
    """What dropout keeps: on CUDA a byte an element, on the CPU a factor."""
    if not setup.dropout:
        return 0
    return elements * (setup.element if setup.device == "cpu" else 1)


def _scores(setup: Setup, shape: Shape, queries: np.ndarray, keys: np.ndarray) -> int:
    """Bytes of one matrix of scores for every example and head, in the activations' type."""
    return int((queries * keys).sum()) * shape.num_heads * setup.element


def _attention(shape: Shape, setup: Setup, queries: np.ndarray, keys: np.ndarray) -> int:
    """Norm, projections, attention, projection, dropout. The CPU's attention keeps probabilities, the GPU's kernels
    only a normaliser a row."""
    tokens, others, e = int(queries.sum()), int(keys.sum()), setup.element
    hidden, inner = e * shape.d_model, e * shape.inner_dim
    kept = _norm(shape, setup, tokens) + tokens * hidden  # the norm's, and its result: the projections' input
    kept += (2 * tokens + 2 * others) * inner  # queries and the output; keys and values
    if setup.device == "cpu":
        scores = _scores(setup, shape, queries, keys)
        kept += scores + (scores if setup.dropout else 0)
    else:
        kept += 4 * tokens * shape.num_heads
    return kept + _mask(setup, tokens * shape.d_model)


def _feed_forward(shape: Shape, setup: Setup, tokens: int) -> int:
    """Norm, feed-forward, dropout. ReLU keeps its result, which without dropout is the next product's input; the gate
    keeps both its sides, and what goes into the GELU."""
    e = setup.element
    wide = tokens * shape.d_ff
    kept = _norm(shape, setup, tokens) + tokens * e * shape.d_model
    kept += e * wide * ((4 if shape.gated else 1) + (0 if shape.gated or not setup.dropout else 1)) + _mask(setup, wide)
    return kept + _mask(setup, tokens * shape.d_model)
