"""The backward kernels. Long sequences: one for the gradients of queries and bias, then one for keys and values. Short
sequences: one for all, with five matrix products instead of seven."""

import triton
import triton.language as tl

from bigchem.model.kernels.device import (
    LOG2E,
    bias_tile,
    dot,
    is_far,
    keep_mask,
    load_rows,
    row_hash,
    store_diagonals,
    store_rows,
)


@triton.jit(do_not_specialize=["seed", "threshold", "num_rows"])
def grad_queries(
    Q, K, V, BIAS, OUT, GRAD_OUT, LSE, DELTA, GRAD_Q, PARTIAL, CU_Q, CU_K, WORK,
    seed, threshold, keep_scale, num_heads, num_rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    FIRST_SLOT: tl.constexpr, NUM_SLOTS: tl.constexpr, PARTIAL_SIZE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """GRAD_Q, DELTA [H, T] = sum(out * grad_out) for grad_keys, and the tile's part of the bias gradient.

    PARTIAL [items, H, PARTIAL_SIZE]: see `bias_gradient.py`. Each program writes its whole part, zeros included, so the
    sum over programs needs neither atomics nor a cleared buffer, and its order is fixed.
    """
    item, head = tl.program_id(0), tl.program_id(1)
    sequence, m0 = tl.load(WORK + 2 * item), tl.load(WORK + 2 * item + 1)
    partial = PARTIAL + (item.to(tl.int64) * num_heads + head) * PARTIAL_SIZE
    slot_size: tl.constexpr = (BLOCK_M // BLOCK_N + 1) * BLOCK_N
    column = tl.arange(0, BLOCK_N)
    idle = sequence < 0
    sequence = tl.maximum(sequence, 0)
    q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
    num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
    end = num_k
    if CAUSAL:
        end = tl.minimum(num_k, m0 + BLOCK_M)
    end = tl.where(idle, 0, end)
    if HAS_BIAS:
        for slot in tl.static_range(NUM_SLOTS):
            slot_n0 = m0 + (FIRST_SLOT + slot) * BLOCK_N
            if (slot_n0 < 0) | (slot_n0 >= end):
                for k in tl.static_range(BLOCK_M // BLOCK_N + 1):
                    tl.store(partial + slot * slot_size + k * BLOCK_N + column, tl.zeros([BLOCK_N], tl.float32))
    num_q = tl.where(idle, 0, num_q)
    stride = num_heads * D
    m = m0 + tl.arange(0, BLOCK_M)
    q_offset = q_start.to(tl.int64) * stride + head * D
    k_offset = k_start.to(tl.int64) * stride + head * D
    q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
    grad_out = load_rows(GRAD_OUT + q_offset, m, num_q, stride, D, D_PAD)
    out = load_rows(OUT + q_offset, m, num_q, stride, D, D_PAD)
    delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
    row_offset = head.to(tl.int64) * num_rows + q_start
    lse = tl.load(LSE + row_offset + m, mask=m < num_q, other=0.0)
    tl.store(DELTA + row_offset + m, delta, mask=m < num_q)
    if DROPOUT:
        hashes = row_hash(seed, q_start + m, head, num_heads)
    grad_q = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    low_sum, high_sum = tl.zeros([BLOCK_N], tl.float32), tl.zeros([BLOCK_N], tl.float32)
    for n0 in range(0, end, BLOCK_N):
        n = n0 + column
        k = load_rows(K + k_offset, n, num_k, stride, D, D_PAD)
        v = load_rows(V + k_offset, n, num_k, stride, D, D_PAD)
        s = dot(q, tl.trans(k), PRECISION) * LOG2E
        distance = n[None, :] - m[:, None]
        if HAS_BIAS:
            s += bias_tile(BIAS + head * (2 * REACH + 1), distance, m0, n0, REACH, BLOCK_M, BLOCK_N)
        exists = (n < num_k)[None, :] & (m < num_q)[:, None]
        if CAUSAL:
            exists = exists & (distance <= 0)
        p = tl.where(exists, tl.exp2(s - lse[:, None]), 0.0)
        dp = dot(grad_out, tl.trans(v), PRECISION)
        if DROPOUT:
            dp = tl.where(keep_mask(hashes[:, None], n[None, :], n0, threshold), dp * keep_scale, 0.0)
        ds = p * (dp - delta[:, None])
        if HAS_BIAS:
            if is_far(m0, n0, REACH, BLOCK_M, BLOCK_N):
                sums = tl.sum(ds, 0)
                low_sum += tl.where(n0 < m0, sums, 0.0)
                high_sum += tl.where(n0 < m0, 0.0, sums)
            else:
                slot_partial = partial + ((n0 - m0) // BLOCK_N - FIRST_SLOT) * slot_size
                low_sum, high_sum = store_diagonals(
                    slot_partial, ds, n0 - m0, low_sum, high_sum, 1, REACH, BLOCK_M, BLOCK_N
                )
        grad_q += dot(ds.to(k.dtype), k, PRECISION)
    if HAS_BIAS:
        tl.store(partial + NUM_SLOTS * slot_size, tl.sum(low_sum))
        tl.store(partial + NUM_SLOTS * slot_size + 1, tl.sum(high_sum))
    store_rows(GRAD_Q + q_offset, grad_q, m, num_q, stride, D, D_PAD)


@triton.jit
def _transposed(
    q, k, v, grad_out, lse, delta, m, n, m0, n0, num_k, BIAS, hashes, threshold, keep_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, REACH: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(dropped p, ds), both [BLOCK_N, BLOCK_M]: keys down, queries across, as the gradients of k and v need them.

    The dropped p still lacks its factor 1 / (1 - dropout_p). Missing queries have an lse of inf.
    """
    s = dot(k, tl.trans(q), PRECISION) * LOG2E
    distance = n[:, None] - m[None, :]
    if HAS_BIAS:
        s += bias_tile(BIAS, distance, m0, n0, REACH, BLOCK_M, BLOCK_N)
    exists = (n < num_k)[:, None]
    if CAUSAL:
        exists = exists & (distance <= 0)
    p = tl.where(exists, tl.exp2(s - lse[None, :]), 0.0)
    dp = dot(v, tl.trans(grad_out), PRECISION)
    dropped = p
    if DROPOUT:
        keep = keep_mask(hashes[None, :], n[:, None], n0, threshold)
        dropped = tl.where(keep, p, 0.0)
        dp = tl.where(keep, dp * keep_scale, 0.0)
    return dropped, p * (dp - delta[None, :])


@triton.jit(do_not_specialize=["seed", "threshold", "num_rows"])
def grad_keys(
    Q, K, V, BIAS, GRAD_OUT, LSE, DELTA, GRAD_K, GRAD_V, CU_Q, CU_K, WORK,
    seed, threshold, keep_scale, num_heads, num_rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """GRAD_K and GRAD_V: one program per tile of keys and head, over the queries. WORK as in `forward`, for keys."""
    head = tl.program_id(1)
    sequence = tl.load(WORK + 2 * tl.program_id(0))
    n0 = tl.load(WORK + 2 * tl.program_id(0) + 1)
    if sequence < 0:
        return
    q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
    num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
    stride = num_heads * D
    n = n0 + tl.arange(0, BLOCK_N)
    q_offset = q_start.to(tl.int64) * stride + head * D
    k_offset = k_start.to(tl.int64) * stride + head * D
    row_offset = head.to(tl.int64) * num_rows + q_start
    k = load_rows(K + k_offset, n, num_k, stride, D, D_PAD)
    v = load_rows(V + k_offset, n, num_k, stride, D, D_PAD)
    grad_k = tl.zeros([BLOCK_N, D_PAD], tl.float32)
    grad_v = tl.zeros([BLOCK_N, D_PAD], tl.float32)
    begin = 0
    if CAUSAL:
        begin = n0
    for m0 in range(begin, num_q, BLOCK_M):
        m = m0 + tl.arange(0, BLOCK_M)
        q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
        grad_out = load_rows(GRAD_OUT + q_offset, m, num_q, stride, D, D_PAD)
        lse = tl.load(LSE + row_offset + m, mask=m < num_q, other=float("inf"))
        delta = tl.load(DELTA + row_offset + m, mask=m < num_q, other=0.0)
        hashes = m
        if DROPOUT:
            hashes = row_hash(seed, q_start + m, head, num_heads)
        dropped, ds = _transposed(
            q, k, v, grad_out, lse, delta, m, n, m0, n0, num_k, BIAS + head * (2 * REACH + 1),
            hashes, threshold, keep_scale, BLOCK_M, BLOCK_N, REACH, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
        grad_v += dot(dropped.to(grad_out.dtype), grad_out, PRECISION)
        grad_k += dot(ds.to(q.dtype), q, PRECISION)
    if DROPOUT:
        grad_v = grad_v * keep_scale
    store_rows(GRAD_K + k_offset, grad_k, n, num_k, stride, D, D_PAD)
    store_rows(GRAD_V + k_offset, grad_v, n, num_k, stride, D, D_PAD)


@triton.jit(do_not_specialize=["seed", "threshold", "num_rows"])
def grad_short(
    Q, K, V, BIAS, OUT, GRAD_OUT, LSE, GRAD_Q, GRAD_K, GRAD_V, PARTIAL, CU_Q, CU_K, WORK,
    seed, threshold, keep_scale, num_heads, num_rows,
    SEQUENCES: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of sequences with at most BLOCK queries and keys, computing nothing twice.

    WORK [items * SEQUENCES]: sequences, -1 for none. ds is added over the program's sequences, so that its diagonals
    are summed only once, into PARTIAL [items, H, 2 * BLOCK + 2].
    """
    item, head = tl.program_id(0), tl.program_id(1)
    stride = num_heads * D
    m = tl.arange(0, BLOCK)
    sum_ds = tl.zeros([BLOCK, BLOCK], tl.float32)
    for i in range(SEQUENCES):
        sequence = tl.load(WORK + item * SEQUENCES + i)
        if sequence >= 0:
            q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
            num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
            q_offset = q_start.to(tl.int64) * stride + head * D
            k_offset = k_start.to(tl.int64) * stride + head * D
            q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
            k = load_rows(K + k_offset, m, num_k, stride, D, D_PAD)
            v = load_rows(V + k_offset, m, num_k, stride, D, D_PAD)
            grad_out = load_rows(GRAD_OUT + q_offset, m, num_q, stride, D, D_PAD)
            out = load_rows(OUT + q_offset, m, num_q, stride, D, D_PAD)
            delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
            lse_row = head.to(tl.int64) * num_rows + q_start
            lse = tl.load(LSE + lse_row + m, mask=m < num_q, other=float("inf"))
            hashes = m
            if DROPOUT:
                hashes = row_hash(seed, q_start + m, head, num_heads)
            dropped, ds = _transposed(
                q, k, v, grad_out, lse, delta, m, m, 0, 0, num_k, BIAS + head * (2 * REACH + 1),
                hashes, threshold, keep_scale, BLOCK, BLOCK, REACH, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
            grad_v = dot(dropped.to(grad_out.dtype), grad_out, PRECISION)
            if DROPOUT:
                grad_v = grad_v * keep_scale
            store_rows(GRAD_V + k_offset, grad_v, m, num_k, stride, D, D_PAD)
            rounded = ds.to(q.dtype)
            store_rows(GRAD_K + k_offset, dot(rounded, q, PRECISION), m, num_k, stride, D, D_PAD)
            store_rows(GRAD_Q + q_offset, dot(tl.trans(rounded), k, PRECISION), m, num_q, stride, D, D_PAD)
            if HAS_BIAS:
                sum_ds += ds
    if HAS_BIAS:
        partial = PARTIAL + (item.to(tl.int64) * num_heads + head) * (2 * BLOCK + 2)
        zeros = tl.zeros([BLOCK], tl.float32)
        low_sum, high_sum = store_diagonals(partial, sum_ds, 0, zeros, zeros, -1, REACH, BLOCK, BLOCK)
        tl.store(partial + 2 * BLOCK, tl.sum(low_sum))
        tl.store(partial + 2 * BLOCK + 1, tl.sum(high_sum))
