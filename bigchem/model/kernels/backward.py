"""The backward kernels. Long sequences: one for the gradients of queries, one for keys and values, one for the bias.
Short sequences: one for all, with five matrix products instead of seven."""

import triton
import triton.language as tl

from bigchem.model.kernels.device import (
    LOG2E,
    bias_tile,
    bias_tile_t,
    dot,
    load_rows,
    load_vector,
    store_diagonals,
    store_rows,
)


@triton.jit(do_not_specialize=["threshold", "num_rows"])
def grad_queries(
    Q, K, V, TABLE, FACTORS, COLUMNS, OUT, GRAD_OUT, LSE, DELTA, GRAD_Q, FAR, CU_Q, CU_K, WORK,
    threshold, keep_scale, num_heads, num_rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    TABLE_SIZE: tl.constexpr, NEAR_BEGIN: tl.constexpr, NEAR_END: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """GRAD_Q; DELTA [H, T] = sum(out * grad_out) for the other kernels; and FAR [items, H, 2]: the sums of ds over keys
    before and after those that `grad_bias` sums by distance, keys m0 + NEAR_BEGIN to m0 + NEAR_END.
    """
    item, head = tl.program_id(0), tl.program_id(1)
    sequence, m0 = tl.load(WORK + 2 * item), tl.load(WORK + 2 * item + 1)
    far = FAR + 2 * (item * num_heads + head)
    if sequence < 0:
        if HAS_BIAS:
            tl.store(far, 0.0)
            tl.store(far + 1, 0.0)
        return
    q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
    num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
    stride = num_heads * D
    table = TABLE + head * TABLE_SIZE + TABLE_SIZE // 2
    m = m0 + tl.arange(0, BLOCK_M)
    q_offset = q_start.to(tl.int64) * stride + head * D
    k_offset = k_start.to(tl.int64) * stride + head * D
    q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
    grad_out = load_rows(GRAD_OUT + q_offset, m, num_q, stride, D, D_PAD)
    out = load_rows(OUT + q_offset, m, num_q, stride, D, D_PAD)
    delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
    row_offset = head.to(tl.int64) * num_rows + q_start
    lse = load_vector(LSE + row_offset, m, num_q, float("inf"))  # missing queries: p = 0
    tl.store(DELTA + row_offset + m, delta, mask=m < num_q)
    factors = m
    if DROPOUT:
        factors = load_vector(FACTORS + row_offset, m, num_q, 0)
    grad_q = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    low, high = tl.zeros([BLOCK_M, BLOCK_N], tl.float32), tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    end, whole = num_k, num_k
    if CAUSAL:
        end, whole = tl.minimum(num_k, m0 + BLOCK_M), tl.minimum(num_k, m0 + 1)
    whole = whole // BLOCK_N * BLOCK_N  # tiles before it need no mask
    for n0 in range(0, whole, BLOCK_N):
        grad_q, low, high = _add_queries(
            K + k_offset, V + k_offset, q, grad_out, lse, delta, grad_q, low, high, table, COLUMNS, factors, m, m0, n0,
            num_k, stride, threshold, keep_scale, BLOCK_M, BLOCK_N, D, D_PAD, REACH, NEAR_BEGIN, NEAR_END,
            False, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    for n0 in range(whole, end, BLOCK_N):
        grad_q, low, high = _add_queries(
            K + k_offset, V + k_offset, q, grad_out, lse, delta, grad_q, low, high, table, COLUMNS, factors, m, m0, n0,
            num_k, stride, threshold, keep_scale, BLOCK_M, BLOCK_N, D, D_PAD, REACH, NEAR_BEGIN, NEAR_END,
            True, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    if HAS_BIAS:
        tl.store(far, tl.sum(low))
        tl.store(far + 1, tl.sum(high))
    store_rows(GRAD_Q + q_offset, grad_q, m, num_q, stride, D, D_PAD)


@triton.jit
def _add_queries(
    K, V, q, grad_out, lse, delta, grad_q, low, high, table, COLUMNS, factors, m, m0, n0, num_k, stride,
    threshold, keep_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    NEAR_BEGIN: tl.constexpr, NEAR_END: tl.constexpr, MASKED: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """grad_q, low and high plus those from the tile of keys at n0. MASKED: it may have fewer than BLOCK_N."""
    n = n0 + tl.arange(0, BLOCK_N)
    k = load_rows(K, n, num_k, stride, D, D_PAD, MASKED)
    v = load_rows(V, n, num_k, stride, D, D_PAD, MASKED)
    _, ds = _grad_scores(
        q, k, v, grad_out, lse, delta, table, COLUMNS, factors, m, n, m0, n0, num_k,
        threshold, keep_scale, BLOCK_M, BLOCK_N, REACH, MASKED, False, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
    )  # fmt: skip
    grad_q += dot(ds.to(k.dtype), k, PRECISION)
    if HAS_BIAS:
        low += ds * tl.where(n0 < m0 + NEAR_BEGIN, 1.0, 0.0)
        high += ds * tl.where(n0 < m0 + NEAR_END, 0.0, 1.0)
    return grad_q, low, high


@triton.jit
def _grad_scores(
    q, k, v, grad_out, lse, delta, TABLE, COLUMNS, factors, m, n, m0, n0, num_k, threshold, keep_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, REACH: tl.constexpr, MASKED: tl.constexpr, NEEDS_P: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(p, ds), both [BLOCK_M, BLOCK_N]: a tile's probabilities, after dropout if NEEDS_P, and its scores' gradient.
    Missing queries have an lse of inf."""
    s = dot(q, tl.trans(k), PRECISION) * LOG2E
    if HAS_BIAS:
        s += bias_tile(TABLE, m0, n0, REACH, BLOCK_M, BLOCK_N)
    p = tl.exp2(s - lse[:, None])
    if MASKED:
        exists = (n < num_k)[None, :]
        if CAUSAL and not HAS_BIAS:
            exists = exists & (n[None, :] <= m[:, None])
        p = tl.where(exists, p, 0.0)
    dp = dot(grad_out, tl.trans(v), PRECISION)
    if DROPOUT:
        bits = factors[:, None] * tl.load(COLUMNS + n)[None, :]
        scale = tl.where(bits >= threshold, keep_scale, 0.0)
        if NEEDS_P:  # for the registers: in this form dp and scale need not wait for each other
            dropped = p * scale
            return dropped, dropped * dp - p * delta[:, None]
        dp *= scale
    return p, p * (dp - delta[:, None])


@triton.jit(do_not_specialize=["threshold", "num_rows"])
def grad_bias(
    Q, K, V, TABLE, FACTORS, COLUMNS, GRAD_OUT, LSE, DELTA, PARTIAL, CU_Q, CU_K, WORK,
    threshold, keep_scale, num_heads, num_rows,
    SEQUENCES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    REACH: tl.constexpr, TABLE_SIZE: tl.constexpr, FIRST_SLOT: tl.constexpr, NUM_SLOTS: tl.constexpr,
    PARTIAL_SIZE: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """PARTIAL [chunks, H, PARTIAL_SIZE]: see `bias_gradient.py`. One program per chunk of query tiles, head and slot.

    All of a program's tiles have the same distances, so that their ds add up element by element, and only the sum is
    reduced along diagonals. Two more products per near tile cost less than a reduction in each: 20 barriers and 48
    shuffles in the loop of `grad_queries`. WORK [chunks, SEQUENCES, 2]: (sequence, first query), sequence -1 for none.
    Programs past the slots, if any, sum all keys before and all after the slots.
    """
    chunk, head, slot = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    stride = num_heads * D
    table = TABLE + head * TABLE_SIZE + TABLE_SIZE // 2
    sum_ds = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for i in range(SEQUENCES):
        item = WORK + 2 * (chunk * SEQUENCES + i)
        sequence, m0 = tl.load(item), tl.load(item + 1)
        if sequence >= 0:
            q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
            num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
            begin = m0 + (FIRST_SLOT + slot) * BLOCK_N
            end = begin + BLOCK_N
            if slot == NUM_SLOTS:
                begin, end = 0, m0 + FIRST_SLOT * BLOCK_N
            if slot > NUM_SLOTS:
                begin, end = tl.maximum(m0 + (FIRST_SLOT + NUM_SLOTS) * BLOCK_N, 0), num_k
            if (begin >= 0) & (begin < tl.minimum(num_k, end)):
                m = m0 + tl.arange(0, BLOCK_M)
                q_offset = q_start.to(tl.int64) * stride + head * D
                k_offset = k_start.to(tl.int64) * stride + head * D
                row_offset = head.to(tl.int64) * num_rows + q_start
                q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
                grad_out = load_rows(GRAD_OUT + q_offset, m, num_q, stride, D, D_PAD)
                lse = load_vector(LSE + row_offset, m, num_q, float("inf"))
                delta = load_vector(DELTA + row_offset, m, num_q, 0.0)
                factors = m
                if DROPOUT:
                    factors = load_vector(FACTORS + row_offset, m, num_q, 0)
                for n0 in range(begin, tl.minimum(num_k, end), BLOCK_N):
                    n = n0 + tl.arange(0, BLOCK_N)
                    k = load_rows(K + k_offset, n, num_k, stride, D, D_PAD)
                    v = load_rows(V + k_offset, n, num_k, stride, D, D_PAD)
                    _, ds = _grad_scores(
                        q, k, v, grad_out, lse, delta, table, COLUMNS, factors, m, n, m0, n0, num_k,
                        threshold, keep_scale, BLOCK_M, BLOCK_N, REACH, True, False, False, True, DROPOUT, PRECISION,
                    )  # fmt: skip
                    sum_ds += ds
    slot_size: tl.constexpr = BLOCK_M + BLOCK_N + 2
    partial = PARTIAL + (chunk.to(tl.int64) * num_heads + head) * PARTIAL_SIZE
    if slot < NUM_SLOTS:
        partial += slot * slot_size
        zeros = tl.zeros([BLOCK_N], tl.float32)
        first = (FIRST_SLOT + slot) * BLOCK_N
        low_sum, high_sum = store_diagonals(partial, sum_ds, first, zeros, zeros, REACH, BLOCK_M, BLOCK_N)
        tl.store(partial + BLOCK_M + BLOCK_N, tl.sum(low_sum))
        tl.store(partial + BLOCK_M + BLOCK_N + 1, tl.sum(high_sum))
    else:
        tl.store(partial + NUM_SLOTS * slot_size + slot - NUM_SLOTS, tl.sum(sum_ds))


@triton.jit
def _grad_scores_t(
    q, k, v, grad_out, lse, delta, TABLE, COLUMNS, factors, m, n, m0, n0, threshold, keep_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, REACH: tl.constexpr, MASK_FUTURE: tl.constexpr,
    HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """_grad_scores with keys down and queries across, [BLOCK_N, BLOCK_M], as the gradients of k and v need them."""
    s = dot(k, tl.trans(q), PRECISION) * LOG2E
    if HAS_BIAS:
        s += bias_tile_t(TABLE, m0, n0, REACH, BLOCK_M, BLOCK_N)
    p = tl.exp2(s - lse[None, :])
    if MASK_FUTURE:
        p = tl.where(n[:, None] <= m[None, :], p, 0.0)
    dp = dot(v, tl.trans(grad_out), PRECISION)
    if DROPOUT:
        bits = tl.load(COLUMNS + n)[:, None] * factors[None, :]
        dropped = p * tl.where(bits >= threshold, keep_scale, 0.0)
        return dropped, dropped * dp - p * delta[None, :]
    return p, p * (dp - delta[None, :])


@triton.jit(do_not_specialize=["threshold", "num_rows"])
def grad_keys(
    Q, K, V, TABLE, FACTORS, COLUMNS, GRAD_OUT, LSE, DELTA, GRAD_K, GRAD_V, CU_Q, CU_K, WORK,
    threshold, keep_scale, num_heads, num_rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    TABLE_SIZE: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """GRAD_K and GRAD_V: one program per tile of keys and head, over the queries. WORK as in `forward`, for keys.

    Missing keys need no mask: they change only their own rows, which are not stored.
    """
    head = tl.program_id(1)
    sequence, n0 = tl.load(WORK + 2 * tl.program_id(0)), tl.load(WORK + 2 * tl.program_id(0) + 1)
    if sequence < 0:
        return
    q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
    num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
    stride = num_heads * D
    table = TABLE + head * TABLE_SIZE + TABLE_SIZE // 2
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
    if CAUSAL and not HAS_BIAS:
        begin = n0 + (BLOCK_N + BLOCK_M - 1) // BLOCK_M * BLOCK_M  # from here on, queries see all of the tile's keys
        for m0 in range(n0, tl.minimum(begin, num_q), BLOCK_M):
            grad_k, grad_v = _add_keys(
                Q + q_offset, GRAD_OUT + q_offset, LSE + row_offset, DELTA + row_offset, FACTORS + row_offset, k, v,
                grad_k, grad_v, table, COLUMNS, n, m0, n0, num_q, stride, threshold, keep_scale,
                BLOCK_M, BLOCK_N, D, D_PAD, REACH, True, True, HAS_BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
    whole = begin + tl.maximum(num_q - begin, 0) // BLOCK_M * BLOCK_M
    for m0 in range(begin, whole, BLOCK_M):
        grad_k, grad_v = _add_keys(
            Q + q_offset, GRAD_OUT + q_offset, LSE + row_offset, DELTA + row_offset, FACTORS + row_offset, k, v,
            grad_k, grad_v, table, COLUMNS, n, m0, n0, num_q, stride, threshold, keep_scale,
            BLOCK_M, BLOCK_N, D, D_PAD, REACH, False, False, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    for m0 in range(whole, num_q, BLOCK_M):
        grad_k, grad_v = _add_keys(
            Q + q_offset, GRAD_OUT + q_offset, LSE + row_offset, DELTA + row_offset, FACTORS + row_offset, k, v,
            grad_k, grad_v, table, COLUMNS, n, m0, n0, num_q, stride, threshold, keep_scale,
            BLOCK_M, BLOCK_N, D, D_PAD, REACH, True, False, HAS_BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
    store_rows(GRAD_K + k_offset, grad_k, n, num_k, stride, D, D_PAD)
    store_rows(GRAD_V + k_offset, grad_v, n, num_k, stride, D, D_PAD)


@triton.jit
def _add_keys(
    Q, GRAD_OUT, LSE, DELTA, FACTORS, k, v, grad_k, grad_v, TABLE, COLUMNS, n, m0, n0, num_q, stride,
    threshold, keep_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    MASKED: tl.constexpr, MASK_FUTURE: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """grad_k and grad_v plus those from the tile of queries at m0. MASKED: it may have fewer than BLOCK_M."""
    m = m0 + tl.arange(0, BLOCK_M)
    q = load_rows(Q, m, num_q, stride, D, D_PAD, MASKED)
    grad_out = load_rows(GRAD_OUT, m, num_q, stride, D, D_PAD, MASKED)
    lse = load_vector(LSE, m, num_q, float("inf"), MASKED)
    delta = load_vector(DELTA, m, num_q, 0.0, MASKED)
    factors = m
    if DROPOUT:
        factors = load_vector(FACTORS, m, num_q, 0, MASKED)
    dropped, ds = _grad_scores_t(
        q, k, v, grad_out, lse, delta, TABLE, COLUMNS, factors, m, n, m0, n0, threshold, keep_scale,
        BLOCK_M, BLOCK_N, REACH, MASK_FUTURE, HAS_BIAS, DROPOUT, PRECISION,
    )  # fmt: skip
    grad_v += dot(dropped.to(grad_out.dtype), grad_out, PRECISION)
    grad_k += dot(ds.to(q.dtype), q, PRECISION)
    return grad_k, grad_v


@triton.jit(do_not_specialize=["threshold", "num_rows"])
def grad_short(
    Q, K, V, TABLE, FACTORS, COLUMNS, OUT, GRAD_OUT, LSE, GRAD_Q, GRAD_K, GRAD_V, PARTIAL, CU_Q, CU_K, WORK,
    threshold, keep_scale, num_heads, num_rows,
    SEQUENCES: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, REACH: tl.constexpr,
    TABLE_SIZE: tl.constexpr, CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of sequences with at most BLOCK queries and keys, computing nothing twice.

    WORK [items * SEQUENCES]: sequences, -1 for none. ds is added over the program's sequences, so that its diagonals
    are summed only once, into PARTIAL [items, H, 2 * BLOCK + 2].
    """
    item, head = tl.program_id(0), tl.program_id(1)
    stride = num_heads * D
    table = TABLE + head * TABLE_SIZE + TABLE_SIZE // 2
    m = tl.arange(0, BLOCK)
    sum_ds = tl.zeros([BLOCK, BLOCK], tl.float32)
    for i in range(SEQUENCES):
        sequence = tl.load(WORK + item * SEQUENCES + i)
        if sequence >= 0:
            q_start, k_start = tl.load(CU_Q + sequence), tl.load(CU_K + sequence)
            num_q, num_k = tl.load(CU_Q + sequence + 1) - q_start, tl.load(CU_K + sequence + 1) - k_start
            q_offset = q_start.to(tl.int64) * stride + head * D
            k_offset = k_start.to(tl.int64) * stride + head * D
            grad_out = load_rows(GRAD_OUT + q_offset, m, num_q, stride, D, D_PAD)
            out = load_rows(OUT + q_offset, m, num_q, stride, D, D_PAD)
            delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
            q = load_rows(Q + q_offset, m, num_q, stride, D, D_PAD)
            k = load_rows(K + k_offset, m, num_k, stride, D, D_PAD)
            v = load_rows(V + k_offset, m, num_k, stride, D, D_PAD)
            row_offset = head.to(tl.int64) * num_rows + q_start
            lse = load_vector(LSE + row_offset, m, num_q, float("inf"))
            factors = m
            if DROPOUT:
                factors = load_vector(FACTORS + row_offset, m, num_q, 0)
            dropped, ds = _grad_scores(
                q, k, v, grad_out, lse, delta, table, COLUMNS, factors, m, m, 0, 0, num_k,
                threshold, keep_scale, BLOCK, BLOCK, REACH, True, True, CAUSAL, HAS_BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
            grad_v = dot(tl.trans(dropped.to(grad_out.dtype)), grad_out, PRECISION)
            store_rows(GRAD_V + k_offset, grad_v, m, num_k, stride, D, D_PAD)
            rounded = ds.to(q.dtype)
            store_rows(GRAD_K + k_offset, dot(tl.trans(rounded), q, PRECISION), m, num_k, stride, D, D_PAD)
            store_rows(GRAD_Q + q_offset, dot(rounded, k, PRECISION), m, num_q, stride, D, D_PAD)
            if HAS_BIAS:
                sum_ds += ds
    if HAS_BIAS:
        partial = PARTIAL + (item.to(tl.int64) * num_heads + head) * (2 * BLOCK + 2)
        zeros = tl.zeros([BLOCK], tl.float32)
        low_sum, high_sum = store_diagonals(partial, sum_ds, 0, zeros, zeros, REACH, BLOCK, BLOCK)
        tl.store(partial + 2 * BLOCK, tl.sum(low_sum))
        tl.store(partial + 2 * BLOCK + 1, tl.sum(high_sum))


@triton.jit
def sum_partials(
    SHORT, SHORT_PLACES, NEAR, NEAR_PLACES, FAR, GRAD, num_short, num_near, num_far, num_heads, num_distances,
    SHORT_SIZE: tl.constexpr, NEAR_SIZE: tl.constexpr, NEAR_PARTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """GRAD [H, distances]: the sum of all partials.

    SHORT [n, H, SHORT_SIZE] of grad_short and NEAR [n, H, NEAR_SIZE] of grad_bias, with their `bias_gradient.places`
    [parts, distances]; FAR [n, H, 2] of grad_queries belongs to the first and last distance. The order of the sum is
    fixed: no atomics.
    """
    head = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < num_distances
    total = _sum_rows(SHORT, tl.load(SHORT_PLACES + column, mask=inside, other=-1), num_short, head, num_heads,
                      SHORT_SIZE, ROWS, COLUMNS)  # fmt: skip
    for part in range(NEAR_PARTS):
        place = tl.load(NEAR_PLACES + part * num_distances + column, mask=inside, other=-1)
        total += _sum_rows(NEAR, place, num_near, head, num_heads, NEAR_SIZE, ROWS, COLUMNS)
    place = tl.where(column == 0, 0, tl.where(column == num_distances - 1, 1, -1))
    total += _sum_rows(FAR, place, num_far, head, num_heads, 2, ROWS, COLUMNS)
    tl.store(GRAD + head * num_distances + column, total, mask=inside)


@triton.jit
def _sum_rows(PARTIAL, place, num_rows, head, num_heads, SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[COLUMNS]: the sum over PARTIAL [rows, H, SIZE] of the head's numbers at these places, -1 for none."""
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, num_rows, ROWS):
        row = first + tl.arange(0, ROWS)
        offsets = (row * num_heads + head).to(tl.int64)[:, None] * SIZE + place[None, :]
        sums += tl.load(PARTIAL + offsets, mask=(row < num_rows)[:, None] & (place >= 0)[None, :], other=0.0)
    return tl.sum(sums, 0)
