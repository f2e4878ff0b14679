"""What a micro-batch brings and takes away: activations, logits, what kernels work in. Pure.

Activations are what autograd keeps of model/t5.py; tests compare them with its saved tensors on the CPU. The figures
for CUDA follow from the code as well, and have not been measured.
"""

from __future__ import annotations

import numpy as np

from bigchem.model.kernels import bias_gradient, tiles
from bigchem.model.presets import Shape
from bigchem.plan.memory.setup import MemorySetup

LOGITS_PER_CHUNK = {"cpu": 2**23, "cuda": 2**26}
"""As in model/functional.py."""
CUBLAS = 2 * 32 * 2**20
"""Workspaces of cuBLAS and cuBLASLt in torch's own memory: 32 MiB each on Hopper, less on others (torch's
CUBLAS_WORKSPACE_CONFIG)."""
ARCHITECTURE = 90
"""Whose tiles the workspaces of the attention kernels are counted for."""


def activations(shape: Shape, setup: MemorySetup, source: np.ndarray, target: np.ndarray) -> tuple[int, int]:
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
    pairs = ((source, source), (target, target), (target, source))
    widest = max(num_source, num_target) * e * (3 * shape.d_ff + 2 * shape.d_model)
    if setup.device == "cpu":
        scores = max(_scores(setup, shape, q, k) for q, k in pairs)
        return ends + blocks, max(widest, 2 * scores * (4 // e))
    return ends + blocks, max(widest, *(attention_workspace(shape, setup, q, k) for q, k in pairs))


def logits(shape: Shape, setup: MemorySetup, target_tokens: int) -> int:
    """Bytes of the output projection while the loss is computed: a chunk's logits and probabilities in fp32, and the
    gradient of its weight, in fp32 and as it is added."""
    chunk = min(target_tokens, max(1, LOGITS_PER_CHUNK[setup.device] // shape.vocab_size))
    held = (8 if setup.precision == "fp32" else 12) * chunk * shape.vocab_size
    return held + (4 + setup.element) * shape.vocab_size * shape.d_model


def head_gradient(shape: Shape, setup: MemorySetup) -> int:
    """Bytes of the output projection's gradient as the backward pass begins: in fp32, scaled, and rounded."""
    return (8 + (0 if setup.precision == "fp32" else setup.element)) * shape.vocab_size * shape.d_model


def attention_workspace(shape: Shape, setup: MemorySetup, queries: np.ndarray, keys: np.ndarray) -> int:
    """Bytes of one attention's backward pass through the Triton kernels: gradients of its inputs and output, a number a
    row, and each program's part of the bias's gradient (model/kernels/varlen_attention.py)."""
    rows, others, e = int(queries.sum()), int(keys.sum()), setup.element
    inner = shape.inner_dim
    grads = e * (2 * rows + 2 * others) * inner + 2 * e * rows * shape.d_model
    longest = int(max(queries.max(initial=0), keys.max(initial=0)))
    chosen = tiles.all_tiles(longest, min(shape.d_kv, tiles.MAX_HEAD_DIM), ARCHITECTURE, fp32=e == 4)
    long, short = chosen.grad_queries, chosen.grad_short
    reach = shape.relative_attention_max_distance
    size = bias_gradient.partial_size(reach, long.block_m, long.block_n, causal=False)
    programs = -(-rows // long.block_m) + len(queries)
    parts = programs * size + max(2, len(queries) // short.sequences + 1) * (2 * short.block_m + 2)
    return grads + 4 * shape.num_heads * (rows + parts)


def workspaces(setup: MemorySetup) -> int:
    """Bytes that libraries work in, from the first product on."""
    return CUBLAS if setup.device == "cuda" else 0


def _norm(shape: Shape, setup: MemorySetup, tokens: int) -> int:
    """A norm keeps its input, which is the residual stream, and a scale a token."""
    return tokens * (setup.element * shape.d_model + 4)


def _mask(setup: MemorySetup, elements: int) -> int:
    """What dropout keeps: on CUDA a byte an element, on the CPU a factor."""
    if not setup.dropout:
        return 0
    return elements * (setup.element if setup.device == "cpu" else 1)


def _scores(setup: MemorySetup, shape: Shape, queries: np.ndarray, keys: np.ndarray) -> int:
    """Bytes of one matrix of scores for every example and head, in the activations' type."""
    return int((queries * keys).sum()) * shape.num_heads * setup.element


def _attention(shape: Shape, setup: MemorySetup, queries: np.ndarray, keys: np.ndarray) -> int:
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


def _feed_forward(shape: Shape, setup: MemorySetup, tokens: int) -> int:
    """Norm, feed-forward, dropout. ReLU keeps its result, which without dropout is the next product's input; the gate
    keeps both its sides, and what goes into the GELU."""
    e = setup.element
    wide = tokens * shape.d_ff
    kept = _norm(shape, setup, tokens) + tokens * e * shape.d_model
    kept += e * wide * ((4 if shape.gated else 1) + (0 if shape.gated or not setup.dropout else 1)) + _mask(setup, wide)
    return kept + _mask(setup, tokens * shape.d_model)
