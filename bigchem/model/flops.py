"""Floating-point operations of an encoder-decoder, from its sequences' real lengths; peak rates of devices."""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigchem.model.presets import Shape


def forward_flops_each(shape: Shape, source_lengths: ArrayLike, target_lengths: ArrayLike) -> NDArray[np.int64]:
    """Operations [n] (a multiply-add is two) of one forward pass over each of n examples, from lengths in tokens.

    Counted: every matrix product, over real tokens only; attention's two products over the pairs of tokens that attend
    to each other, a causal triangle as T ** 2 / 2; the output projection. Not counted: embedding look-ups, norms,
    activations, softmax, biases, dropout, residuals, the loss itself, padding, and anything computed twice (activation
    checkpointing, attention kernels that recompute scores).
    """
    source = np.asarray(source_lengths, dtype=np.int64)
    target = np.asarray(target_lengths, dtype=np.int64)
    d, inner = shape.d_model, shape.inner_dim
    feed_forward = 2 * (3 if shape.gated else 2) * d * shape.d_ff
    num_encoder, num_decoder = shape.num_layers, shape.num_decoder_layers
    # Decoder layers compute cross-attention's keys and values per source token.
    source_token = num_encoder * (8 * d * inner + feed_forward) + num_decoder * 4 * d * inner
    target_token = num_decoder * (12 * d * inner + feed_forward) + 2 * d * shape.vocab_size
    twice_pairs = 2 * num_encoder * source**2 + num_decoder * (target**2 + 2 * source * target)
    flops: NDArray[np.int64] = source_token * source + target_token * target + 2 * inner * twice_pairs
    return flops


def forward_flops(shape: Shape, source_lengths: ArrayLike, target_lengths: ArrayLike) -> float:
    """Operations of one forward pass over all examples; see forward_flops_each."""
    return float(forward_flops_each(shape, source_lengths, target_lengths).sum(dtype=np.float64))


def training_flops(shape: Shape, source_lengths: ArrayLike, target_lengths: ArrayLike) -> float:
    """Operations of forward and backward: a matrix product has two in its backward pass."""
    return 3 * forward_flops(shape, source_lengths, target_lengths)


_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"NVIDIA A100[- ].*", {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}),
    (r"NVIDIA H100.* HBM3", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}),
    (r"NVIDIA H100 PCIe", {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51}),
    (r"NVIDIA H[12]00 NVL", {"bf16": 835, "fp16": 835, "tf32": 417.5, "fp32": 60}),
    (r"NVIDIA H200", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}),
    (r"NVIDIA B200", {"bf16": 2250, "fp16": 2250, "tf32": 1125, "fp32": 75}),
    (r"NVIDIA RTX A6000", {"bf16": 154.8, "fp16": 154.8, "tf32": 77.4, "fp32": 38.7}),
    (r"NVIDIA L40S", {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6}),
    (r"NVIDIA A10", {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2}),
    (r"NVIDIA GeForce RTX 4090", {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6}),
    (r"Tesla V100-SXM\d.*", {"fp16": 125, "fp32": 15.7}),
    (r"Tesla V100-PCIE.*", {"fp16": 112, "fp32": 14}),
    (r"AMD Instinct MI300X.*", {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4}),
)
"""Patterns of torch.cuda.get_device_name -> 10^12 dense operations per second, accumulated in fp32.

From NVIDIA's data sheets of the A100 80GB, H100 PCIe, H100 NVL, H200, HGX B200 (an eighth of it), L40S, A10 and V100,
and its white papers on Hopper (H100 SXM), Ampere GA102 (RTX A6000) and Ada (RTX 4090); AMD's data sheet of the MI300X,
with its matrix cores' fp32, and xf32 as tf32. Where a source has only sparse figures, half of them. fp32 is plain fp32;
tf32 applies where torch may round fp32 products to it (`peak_of`).
"""


def peak_flops(device_name: str, precision: str, *, tf32: bool = False) -> float | None:
    """A device's peak operations per second, as in `peak_of`; None if unknown: a CPU, an unlisted GPU, a MIG slice, or
    a precision that the GPU has no units for."""
    for pattern, peaks in _PEAKS:
        if re.fullmatch(pattern, device_name) and "MIG" not in device_name:
            peak = peak_of(peaks, precision, tf32=tf32)
            return None if peak is None else peak * 1e12
    return None


def peak_of(peaks: Mapping[str, float], precision: str, *, tf32: bool) -> float | None:
    """The peak of products of matrices in bf16, fp16, tf32 or fp32. tf32: those in fp32 are computed in TF32 where the
    device has it (`train.tf32`)."""
    return peaks.get("tf32" if precision == "fp32" and tf32 and "tf32" in peaks else precision)
