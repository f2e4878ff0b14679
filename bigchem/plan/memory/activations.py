"""Memory that a micro-batch takes: activations, logits, workspaces. Pure.

Activations are what autograd saves for model/t5.py; tests compare them with its saved tensors on the CPU. The CUDA
figures also follow from the code, and have not been measured.
"""

import numpy as np

from bigchem.model.kernels import bias_gradient, tiles
from bigchem.model.presets import Shape
from bigchem.plan.memory.setup import MemorySetup

LOGITS_PER_CHUNK = {"cpu": 2**23, "cuda": 2**28}
"""As in model/functional.py, which uses the kernels on CUDA."""
CUBLAS = 2 * 32 * 2**20
"""Workspaces of cuBLAS and cuBLASLt in torch's memory: 32 MiB each on Hopper, less elsewhere (torch's
CUBLAS_WORKSPACE_CONFIG)."""
ARCHITECTURE = 90
"""GPU architecture whose tiles size the attention kernels' workspaces."""


def activations(shape: Shape, setup: MemorySetup, source: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """(bytes that autograd saves for the blocks, bytes that one layer's backward pass adds).

    source, target: [n] tokens of each example. With checkpoint_activations: the blocks' inputs, and one recomputed
    block.
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
    """Bytes of the output projection during the loss: a chunk's logits, which on the CPU are in fp32 and have their
    probabilities beside them, and the gradient of its weight, in fp32 and in the type in which it is accumulated."""
    tokens = min(target_tokens, max(1, LOGITS_PER_CHUNK[setup.device] // shape.vocab_size))
    each = setup.element if setup.device == "cuda" else 8 if setup.precision == "fp32" else 12
    return each * tokens * shape.vocab_size + (4 + setup.element) * shape.vocab_size * shape.d_model


def head_gradient(shape: Shape, setup: MemorySetup) -> int:
    """Bytes of the output projection's gradient at the start of the backward pass: in fp32, scaled, and rounded."""
    return (8 + (0 if setup.precision == "fp32" else setup.element)) * shape.vocab_size * shape.d_model


def attention_workspace(shape: Shape, setup: MemorySetup, queries: np.ndarray, keys: np.ndarray) -> int:
    """Bytes of one attention's backward pass in the Triton kernels: gradients of its inputs and output, one number per
    row, and each program's part of the bias gradient (model/kernels/varlen_attention.py)."""
    rows, columns, e = int(queries.sum()), int(keys.sum()), setup.element
    inner = shape.inner_dim
    grads = e * (2 * rows + 2 * columns) * inner + 2 * e * rows * shape.d_model
    longest = int(max(queries.max(initial=0), keys.max(initial=0)))
    chosen = tiles.all_tiles(longest, min(shape.d_kv, tiles.MAX_HEAD_DIM), ARCHITECTURE, fp32=e == 4)
    long, short = chosen.grad_bias, chosen.grad_short
    reach = shape.relative_attention_max_distance
    size = bias_gradient.partial_size(reach, long.block_m, long.block_n, causal=False, far=False)
    tiles_of_queries = -(-rows // long.block_m) + len(queries)
    parts = (tiles_of_queries // long.sequences + 1) * size + 2 * tiles_of_queries
    parts += max(2, len(queries) // short.sequences + 1) * (2 * short.block_m + 2)
    return grads + 4 * shape.num_heads * (rows + parts)


def workspaces(setup: MemorySetup) -> int:
    """Bytes of libraries' workspaces, allocated by the first matrix product."""
    return CUBLAS if setup.device == "cuda" else 0


def _norm(shape: Shape, setup: MemorySetup, tokens: int) -> int:
    """A norm saves its input, the residual stream, and one scale per token."""
    return tokens * (setup.element * shape.d_model + 4)


def _mask(setup: MemorySetup, elements: int) -> int:
    """Dropout saves a factor per element on the CPU. The kernels on CUDA compute it again."""
    return elements * setup.element if setup.dropout and setup.device == "cpu" else 0


def _scores(setup: MemorySetup, shape: Shape, queries: np.ndarray, keys: np.ndarray) -> int:
    """Bytes of the score matrices of all examples and heads, in the activations' type."""
    return int((queries * keys).sum()) * shape.num_heads * setup.element


def _attention(shape: Shape, setup: MemorySetup, queries: np.ndarray, keys: np.ndarray) -> int:
    """Norm, projections, attention, projection, dropout. Attention on the CPU saves probabilities, the GPU kernels only
    one normaliser per row, and dropout's factor of it."""
    tokens, columns, e = int(queries.sum()), int(keys.sum()), setup.element
    hidden, inner = e * shape.d_model, e * shape.inner_dim
    saved = _norm(shape, setup, tokens) + tokens * hidden  # the norm's, and its result: the projections' input
    saved += (2 * tokens + 2 * columns) * inner  # queries and the output; keys and values
    if setup.device == "cpu":
        scores = _scores(setup, shape, queries, keys)
        saved += scores + (scores if setup.dropout else 0)
    else:
        saved += 4 * tokens * shape.num_heads * (2 if setup.dropout else 1)
    return saved + _mask(setup, tokens * shape.d_model)


def _feed_forward(shape: Shape, setup: MemorySetup, tokens: int) -> int:
    """Norm, feed-forward, dropout. ReLU saves its result, which without dropout is the next product's input, as it is
    with dropout in the kernel on CUDA; the gate saves both sides and, on the CPU, the GELU's input."""
    e = setup.element
    wide = tokens * shape.d_ff
    saved = _norm(shape, setup, tokens) + tokens * e * shape.d_model
    if setup.device == "cpu":
        saved += e * wide * ((4 if shape.gated else 1) + (0 if shape.gated or not setup.dropout else 1))
    else:
        saved += e * wide * (3 if shape.gated else 1)
    return saved + _mask(setup, wide) + _mask(setup, tokens * shape.d_model)
