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
def load_rows(POINTER, rows, limit, stride, D: tl.constexpr, D_PAD: tl.constexpr, MASKED: tl.constexpr = True):
    """Rows [len(rows), D_PAD] of one head; zero in columns from D on and, if MASKED, in rows from `limit`."""
    columns = tl.arange(0, D_PAD)
    addresses = POINTER + rows[:, None] * stride + columns[None, :]
    if MASKED:
        exists = (rows < limit)[:, None]
        if D_PAD != D:
            exists = exists & (columns < D)[None, :]
        x = tl.load(addresses, mask=exists, other=0.0)
    elif D_PAD != D:
        x = tl.load(addresses, mask=(columns < D)[None, :], other=0.0)
    else:
        x = tl.load(addresses)
    return x


@triton.jit
def load_vector(POINTER, rows, limit, other, MASKED: tl.constexpr = True):
    """One number per row; `other`, if MASKED, from `limit` on."""
    return tl.load(POINTER + rows, mask=rows < limit, other=other) if MASKED else tl.load(POINTER + rows)


@triton.jit
def store_rows(POINTER, values, rows, limit, stride, D: tl.constexpr, D_PAD: tl.constexpr):
    """The inverse of load_rows; values are cast to the pointer's dtype."""
    columns = tl.arange(0, D_PAD)
    exists = (rows < limit)[:, None]
    if D_PAD != D:
        exists = exists & (columns < D)[None, :]
    tl.store(POINTER + rows[:, None] * stride + columns[None, :], values.to(POINTER.dtype.element_ty), mask=exists)


@triton.jit
def bias_tile(TABLE, m0, n0, REACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """log2(e) * the bias of a tile [BLOCK_M, BLOCK_N]. TABLE: of the head, at distance 0; see
    `bias_gradient.table`.

    Beyond REACH all distances have one bias, so a tile's first distance is clamped as a whole, and the table's margin
    holds what such a tile reads. No element is clamped, and its address is a constant away from its thread's first:
    with a gather by clamped distance the loop had 176 more instructions. A causal bias is -inf for keys after a query,
    so that it needs no other mask.
    """
    first = tl.minimum(tl.maximum(n0 - m0, 1 - REACH - BLOCK_N), REACH + BLOCK_M - 1)
    rows = TABLE + first - tl.arange(0, BLOCK_M)
    return tl.load(rows[:, None] + tl.arange(0, BLOCK_N)[None, :])


@triton.jit
def bias_tile_t(TABLE, m0, n0, REACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """bias_tile with keys down and queries across: [BLOCK_N, BLOCK_M]."""
    first = tl.minimum(tl.maximum(n0 - m0, 1 - REACH - BLOCK_N), REACH + BLOCK_M - 1)
    rows = TABLE + first + tl.arange(0, BLOCK_N)
    return tl.load(rows[:, None] - tl.arange(0, BLOCK_M)[None, :])


@triton.jit
def mix(x):
    """`dropout.mix`, of uint32."""
    x = (x ^ (x >> 16)) * tl.full([], 0x7FEB352D, tl.uint32)
    x = (x ^ (x >> 15)) * tl.full([], 0x846CA68B, tl.uint32)
    return x ^ (x >> 16)


@triton.jit
def row_factors(HASHES, rows, exists, seed):
    """`dropout.row_factors` of rows, by their tokens' hashes, as uint32."""
    hashes = tl.load(HASHES + rows, mask=exists, other=0).to(tl.uint32, bitcast=True)
    return mix(hashes ^ seed.to(tl.uint32)) | 1


@triton.jit
def head_seed(seed, head):
    """`dropout.head_seeds` of a place's seed."""
    return mix(seed.to(tl.uint32) + head.to(tl.uint32) * tl.full([], 0x9E3779B9, tl.uint32))


@triton.jit
def store_diagonals(OUT, x, first, low_sum, high_sum, REACH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of x [ROWS, COLUMNS] along its diagonals, written to OUT [ROWS // COLUMNS + 1, COLUMNS].

    The diagonal column - row = c - k * COLUMNS goes to OUT[k, c] and has the distance first + column - row. Distances
    <= -REACH and >= REACH are added to low_sum and high_sum [COLUMNS], which are returned; nothing reads their places
    in OUT. Row r is rotated left by r, so that diagonals become columns, then columns are summed: no atomics.
    """
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)
    rotated = tl.gather(x, tl.broadcast_to((column[None, :] + row) % COLUMNS, (ROWS, COLUMNS)), 1)
    wraps = (column[None, :] + row) // COLUMNS
    for k in tl.static_range(ROWS // COLUMNS + 1):
        sums = tl.sum(tl.where(wraps == k, rotated, 0.0), 0)
        distance = first + column - k * COLUMNS
        low_sum += tl.where(distance <= -REACH, sums, 0.0)
        high_sum += tl.where(distance >= REACH, sums, 0.0)
        tl.store(OUT + k * COLUMNS + column, sums)
    return low_sum, high_sum
