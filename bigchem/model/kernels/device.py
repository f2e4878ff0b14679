"""What the kernels share: products, the bias of a tile, masks of dropout, sums along diagonals."""

import triton
import triton.language as tl

# Names of shapes: BLOCK_M queries, BLOCK_N keys, D the head dimension, D_PAD the same as a power of two.

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """a @ b, summed in fp32. PRECISION: of fp32 inputs; "interpreter" multiplies as fp32, for numpy has no bf16."""
    if PRECISION == "interpreter":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def load_rows(POINTER, rows, limit, stride, D: tl.constexpr, D_PAD: tl.constexpr):
    """Rows [len(rows), D_PAD] of one head; zero from `limit` on and in columns from D on."""
    columns = tl.arange(0, D_PAD)
    exists = (rows < limit)[:, None]
    if D_PAD != D:
        exists = exists & (columns < D)[None, :]
    return tl.load(POINTER + rows[:, None] * stride + columns[None, :], mask=exists, other=0.0)


@triton.jit
def store_rows(POINTER, values, rows, limit, stride, D: tl.constexpr, D_PAD: tl.constexpr):
    """Writes what load_rows would read, in the pointer's dtype."""
    columns = tl.arange(0, D_PAD)
    exists = (rows < limit)[:, None]
    if D_PAD != D:
        exists = exists & (columns < D)[None, :]
    tl.store(POINTER + rows[:, None] * stride + columns[None, :], values.to(POINTER.dtype.element_ty), mask=exists)


@triton.jit
def is_far(m0, n0, REACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Whether all distances (key minus query) of the tile are -REACH and less, or all are REACH and more."""
    return (n0 - (m0 + BLOCK_M - 1) >= REACH) | (m0 - (n0 + BLOCK_N - 1) >= REACH)


@triton.jit
def bias_tile(BIAS, distance, m0, n0, REACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """log2(e) * the bias at `distance`, in its shape. A far tile loads one number; in a near one each instruction of a
    warp touches one or two lines of the cache."""
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
    """A number for each packed row of queries and head."""
    return mix(mix((row * num_heads + head).to(tl.uint32)) ^ seed.to(tl.uint32))


@triton.jit
def kept(hashes, keys, n0, threshold):
    """Which elements dropout keeps; hashes of rows and numbers of keys, from n0 on, are shaped to broadcast.

    A hash for every two keys eight apart, sixteen bits for each: the columns of a matrix instruction's result that a
    thread holds are eight apart, so the compiler computes it once. The mask
    depends on nothing but (seed, packed row, head, key): every kernel and every tile size draws the same.
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

    The diagonal column - row = c - k * COLUMNS goes to OUT[k, c], and has the distance first + SIGN * that. Distances
    of -REACH and less, or REACH and more, are added to low_sum and high_sum [COLUMNS], which are returned; nobody
    reads their places in OUT.
    Every row is rotated left by its number, so that diagonals become columns; then columns are summed: no atomics.
    """
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)
    turned = tl.gather(x, tl.broadcast_to((column[None, :] + row) % COLUMNS, (ROWS, COLUMNS)), 1)
    wraps = (column[None, :] + row) // COLUMNS
    for k in tl.static_range(ROWS // COLUMNS + 1):
        sums = tl.sum(tl.where(wraps == k, turned, 0.0), 0)
        distance = first + SIGN * (column - k * COLUMNS)
        low_sum += tl.where(distance <= -REACH, sums, 0.0)
        high_sum += tl.where(distance >= REACH, sums, 0.0)
        tl.store(OUT + k * COLUMNS + column, sums)
    return low_sum, high_sum
