"""The forward kernel: one program per tile of queries and head, with online softmax (FlashAttention-2)."""

import triton
import triton.language as tl

from bigchem.model.kernels.device import LOG2E, bias_tile, dot, keep_mask, load_rows, row_hash, store_rows


@triton.jit(do_not_specialize=["seed", "threshold", "num_rows"])
def forward(
    Q, K, V, BIAS, OUT, LSE, CU_Q, CU_K, WORK,
    seed, threshold, keep_scale, num_heads, num_rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """OUT [T, H, D] and LSE [H, T]: log2 of the softmax's denominator, from which the backward kernels recompute p.

    WORK [items, 2]: (sequence, first query) of each tile, sequence -1 for none. Arrays are contiguous.
    """
    head = tl.program_id(1)
    sequence = tl.load(WORK + 2 * tl.program_id(0))
    m0 = tl.load(WORK + 2 * tl.program_id(0) + 1)
    if sequence < 0:
        return
    q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
    num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
    stride = num_heads * D
    m = m0 + tl.arange(0, BLOCK_M)
    q_offset = q_start.to(tl.int64) * stride + head * D
    k_offset = k_start.to(tl.int64) * stride + head * D
    q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
    if DROPOUT:
        hashes = row_hash(seed, q_start + m, head, num_heads)
    top = tl.full([BLOCK_M], -1e30, tl.float32)  # not -inf: a tile may be all -inf, and -inf - -inf is NaN
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    end = num_k
    if CAUSAL:
        end = tl.minimum(num_k, m0 + BLOCK_M)
    for n0 in range(0, end, BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        k = load_rows(K + k_offset, n, num_k, stride, D, D_PAD)
        v = load_rows(V + k_offset, n, num_k, stride, D, D_PAD)
        s = dot(q, tl.trans(k), PRECISION) * LOG2E
        distance = n[None, :] - m[:, None]
        if HAS_BIAS:
            s += bias_tile(BIAS + head * (2 * REACH + 1), distance, m0, n0, REACH, BLOCK_M, BLOCK_N)
        exists = (n < num_k)[None, :]
        if CAUSAL:
            exists = exists & (distance <= 0)
        s = tl.where(exists, s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        shrink = tl.exp2(top - new_top)
        p = tl.exp2(s - new_top[:, None])
        total = total * shrink + tl.sum(p, 1)
        if DROPOUT:
            p = tl.where(keep_mask(hashes[:, None], n[None, :], n0, threshold), p, 0.0)
        acc = acc * shrink[:, None] + dot(p.to(v.dtype), v, PRECISION)
        top = new_top
    scale = 1.0 / tl.where(total == 0.0, 1.0, total)  # queries without keys: zeros
    if DROPOUT:
        scale = scale * keep_scale
    store_rows(OUT + q_offset, acc * scale[:, None], m, num_q, stride, D, D_PAD)
    tl.store(LSE + head.to(tl.int64) * num_rows + q_start + m, top + tl.log2(total), mask=m < num_q)
