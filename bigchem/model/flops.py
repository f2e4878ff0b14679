"""Floating-point operations of an encoder-decoder, from the real lengths of its sequences."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigchem.model.presets import Shape


def forward_flops_each(shape: Shape, source_lengths: ArrayLike, target_lengths: ArrayLike) -> NDArray[np.int64]:
    """Operations [n] (a multiply-add is two) of one forward pass over each of n examples of these lengths in tokens.

    Counted: every matrix product, over real tokens only; the two products of attention over the pairs of tokens that
    attend to each other, a causal triangle as T ** 2 / 2; the output projection. Not counted: embedding look-ups,
    norms, activations, softmax, biases, dropout, residuals, the loss itself, padding, and anything computed twice
    (activation checkpointing, attention kernels that recompute scores).
    """
    source = np.asarray(source_lengths, dtype=np.int64)
    target = np.asarray(target_lengths, dtype=np.int64)
    d, inner = shape.d_model, shape.inner_dim
    feed_forward = 2 * (3 if shape.gated else 2) * d * shape.d_ff
    num_encoder, num_decoder = shape.num_layers, shape.num_decoder_layers
    # Keys and values of cross-attention are computed per source token, by decoder layers.
    source_token = num_encoder * (8 * d * inner + feed_forward) + num_decoder * 4 * d * inner
    target_token = num_decoder * (12 * d * inner + feed_forward) + 2 * d * shape.vocab_size
    twice_pairs = 2 * num_encoder * source**2 + num_decoder * (target**2 + 2 * source * target)
    flops: NDArray[np.int64] = source_token * source + target_token * target + 2 * inner * twice_pairs
    return flops


def forward_flops(shape: Shape, source_lengths: ArrayLike, target_lengths: ArrayLike) -> float:
    """Operations of one forward pass over all the examples; see forward_flops_each."""
    return float(forward_flops_each(shape, source_lengths, target_lengths).sum(dtype=np.float64))


def training_flops(shape: Shape, source_lengths: ArrayLike, target_lengths: ArrayLike) -> float:
    """Operations of forward and backward: the backward pass of a matrix product is two matrix products."""
    return 3 * forward_flops(shape, source_lengths, target_lengths)
