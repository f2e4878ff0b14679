"""Shared by the kernels: products, a tile's bias, dropout masks, sums along diagonals."""

import triton
import triton.language as tl

# Shapes: BLOCK_M queries, BLOCK_N keys, D the head dimension, D_PAD = padded_head_dim(D).

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """a @ b, summed in fp32. PRECISION: of fp32 inputs; "interpreter" multiplies in fp32, as numpy has no bf16."""
    if PRECISION == "interpreter":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def load_rows(POINTER, rows, limit, stride, D: tl.constexpr, D_PAD: tl.constexpr):
    """Rows [len(rows), D_PAD] of one head; zero in rows from `limit` and columns from D on."""
    columns = tl.arange(0, D_PAD)
    exists = (rows < limit)[:, None]
    if D_PAD != D:
        exists = exists & (columns < D)[None, :]
    return tl.load(POINTER + rows[:, None] * stride + columns[None, :], mask=exists, other=0.0)


@triton.jit
def store_rows(POINTER, values, rows, limit, stride, D: tl.constexpr, D_PAD: tl.constexpr):
    """The inverse of load_rows; values are cast to the pointer's dtype."""
    columns = tl.arange(0, D_PAD)
    exists = (rows < limit)[:, None]
    if D_PAD != D:
        exists = exists & (columns < D)[None, :]
    tl.store(POINTER + rows[:, None] * stride + columns[None, :], values.to(POINTER.dtype.element_ty), mask=exists)


@triton.jit
def is_far(m0, n0, REACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Whether all the tile's distances (key minus query) are <= -REACH, or all are >= REACH."""
    return (n0 - (m0 + BLOCK_M - 1) >= REACH) | (m0 - (n0 + BLOCK_N - 1) >= REACH)


@triton.jit
def bias_tile(BIAS, distance, m0, n0, REACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """log2(e) * the bias at `distance`, in its shape. A far tile loads one number; in a near one, each warp instruction
    touches one or two cache lines."""
    if is_far(m0, n0, REACH, BLOCK_M, BLOCK_N):
        bias = tl.load(BIAS + tl.where(n0 > m0, 2 * REACH, 0)) * LOG2E + tl.zeros(distance.shape, tl.float32)
    else:
        bias = tl.load(BIAS + REACH + tl.minimum(tl.maximum(distance, -REACH), REACH)) * LOG2E
    return bias


@triton.jit
def mix(x):
    """A bijection of uint32 whose every output bit depends on every input bit (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * tl.full([], 0x7FEB352D, tl.uint32)
    x = (x ^ (x >> 15)) * tl.full([], 0x846CA68B, tl.uint32)
    return x ^ (x >> 16)


@triton.jit
def row_hash(seed, row, head, num_heads):
    """A hash per packed query row and head."""
    return mix(mix((row * num_heads + head).to(tl.uint32)) ^ seed.to(tl.uint32))


@triton.jit
def keep_mask(hashes, keys, n0, threshold):
    """Which elements dropout keeps. hashes: of rows; keys: numbers from n0 on; their shapes broadcast.

    Two keys eight apart share a hash, with sixteen bits each: a thread's columns of a matrix instruction's result are
    eight apart, so the compiler computes it once. The mask depends only on (seed, packed row, head, key): every kernel
    and every tile size draws the same.
    """
    column = keys - n0
    pair = (n0 + (column & 0x7FFFFFF7)).to(tl.uint32)
    x = mix(hashes ^ (pair * tl.full([], 0x9E3779B9, tl.uint32)))
    return tl.where((column & 8) != 0, x >> 16, x & 0xFFFF) >= threshold.to(tl.uint32)


@triton.jit
def store_diagonals(
    OUT, x, first, low_sum, high_sum, SIGN: tl.constexpr, REACH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Sums of x [ROWS, COLUMNS] along its diagonals, written to OUT [ROWS // COLUMNS + 1, COLUMNS].

    The diagonal column - row = c - k * COLUMNS goes to OUT[k, c] and has the distance first + SIGN * (column - row).
    Distances <= -REACH and >= REACH are added to low_sum and high_sum [COLUMNS], which are returned; their places in
    OUT are never read. Row r is rotated left by r, so that diagonals become columns, then columns are summed: no
    atomics.
    """
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)
    rotated = tl.gather(x, tl.broadcast_to((column[None, :] + row) % COLUMNS, (ROWS, COLUMNS)), 1)
    wraps = (column[None, :] + row) // COLUMNS
    for k in tl.static_range(ROWS // COLUMNS + 1):
        sums = tl.sum(tl.where(wraps == k, rotated, 0.0), 0)
        distance = first + SIGN * (column - k * COLUMNS)
        low_sum += tl.where(distance <= -REACH, sums, 0.0)
        high_sum += tl.where(distance >= REACH, sums, 0.0)
        tl.store(OUT + k * COLUMNS + column, sums)
    return low_sum, high_sum
