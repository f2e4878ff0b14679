"""The forward kernel: one program per tile of queries and head, with online softmax (FlashAttention-2)."""

import triton
import triton.language as tl

from bigchem.model.kernels.device import LOG2E, bias_tile, dot, head_seed, load_rows, row_factors, store_rows


@triton.jit(do_not_specialize=["seed", "threshold", "num_rows"])
def forward(
    Q, K, V, TABLE, HASHES, COLUMNS, OUT, LSE, FACTORS, CU_Q, CU_K, WORK,
    seed, threshold, keep_scale, num_heads, num_rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    TABLE_SIZE: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """OUT [T, H, D]; LSE [H, T]: log2 of the softmax's denominator, from which the backward kernels recompute p; and
    FACTORS [H, T]: dropout's of the rows.

    WORK [items, 2]: (sequence, first query) of each tile. Arrays are contiguous.
    """
    head = tl.program_id(1)
    sequence, m0 = tl.load(WORK + 2 * tl.program_id(0)), tl.load(WORK + 2 * tl.program_id(0) + 1)
    if sequence < 0:
        return
    q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
    num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
    stride = num_heads * D
    table = TABLE + head * TABLE_SIZE + TABLE_SIZE // 2
    m = m0 + tl.arange(0, BLOCK_M)
    q_offset = q_start.to(tl.int64) * stride + head * D
    k_offset = k_start.to(tl.int64) * stride + head * D
    q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
    row_offset = head.to(tl.int64) * num_rows + q_start
    factors = m
    if DROPOUT:
        factors = row_factors(HASHES + q_start, m, m < num_q, head_seed(seed, head)).to(tl.int32, bitcast=True)
        tl.store(FACTORS + row_offset + m, factors, mask=m < num_q)
    top = tl.full([BLOCK_M], -1e30, tl.float32)  # not -inf: a tile may be all -inf, and -inf - -inf is NaN
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    end, whole = num_k, num_k
    if CAUSAL:
        end, whole = tl.minimum(num_k, m0 + BLOCK_M), tl.minimum(num_k, m0 + 1)
    whole = whole // BLOCK_N * BLOCK_N  # tiles before it need no mask
    for n0 in range(0, whole, BLOCK_N):
        top, total, acc = _attend(
            q, K + k_offset, V + k_offset, table, COLUMNS, factors, top, total, acc,
            m, m0, n0, num_k, stride, threshold,
            BLOCK_M, BLOCK_N, D, D_PAD, REACH, False, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    for n0 in range(whole, end, BLOCK_N):
        top, total, acc = _attend(
            q, K + k_offset, V + k_offset, table, COLUMNS, factors, top, total, acc,
            m, m0, n0, num_k, stride, threshold,
            BLOCK_M, BLOCK_N, D, D_PAD, REACH, True, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    scale = 1.0 / tl.where(total == 0.0, 1.0, total)  # queries without keys: zeros
    if DROPOUT:
        scale = scale * keep_scale
    store_rows(OUT + q_offset, acc * scale[:, None], m, num_q, stride, D, D_PAD)
    tl.store(LSE + row_offset + m, top + tl.log2(total), mask=m < num_q)


@triton.jit
def _attend(
    q, K, V, TABLE, COLUMNS, factors, top, total, acc, m, m0, n0, num_k, stride, threshold,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(top, total, acc) after the tile of keys at n0: maxima and sums of exp2 of the rows' scores, and their output."""
    n = n0 + tl.arange(0, BLOCK_N)
    k = load_rows(K, n, num_k, stride, D, D_PAD, MASKED)
    v = load_rows(V, n, num_k, stride, D, D_PAD, MASKED)
    s = dot(q, tl.trans(k), PRECISION)
    if HAS_BIAS:
        s = s * LOG2E + bias_tile(TABLE, m0, n0, REACH, BLOCK_M, BLOCK_N)
    if MASKED:
        exists = (n < num_k)[None, :]
        if CAUSAL and not HAS_BIAS:
            exists = exists & (n[None, :] <= m[:, None])
        s = tl.where(exists, s, float("-inf"))
    if HAS_BIAS:
        new_top = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new_top[:, None])
    else:  # scaled within the subtraction, as one fused multiply-add
        new_top = tl.maximum(top, tl.max(s, 1) * LOG2E)
        p = tl.exp2(s * LOG2E - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    if DROPOUT:
        bits = factors[:, None] * tl.load(COLUMNS + n)[None, :]
        p *= tl.where(bits >= threshold, 1.0, 0.0)
    return new_top, total, acc * shrink[:, None] + dot(p.to(v.dtype), v, PRECISION)
