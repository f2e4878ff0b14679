"""Shared by the kernels: a tile's rows and columns, and dropout (`bigchem.model.dropout` defines which elements)."""

import triton
import triton.language as tl

from bigchem.model.kernels.device import mix

kernel = triton.jit(
    do_not_specialize=["num_rows", "rows_per_program", "seed", "update_seed", "normed_seed", "threshold", "ignored"]
)
"""`triton.jit` that compiles once for all numbers of tokens and seeds."""


@triton.jit
def column_factors(columns):
    """Odd uint32 factors of columns."""
    return mix(columns.to(tl.uint32) + tl.full([], 0x9E3779B9, tl.uint32)) | 1


@triton.jit
def dropped(x, row_factor, column_factor, threshold, scale):
    """x [rows, columns] after dropout: zero, or times scale."""
    bits = (row_factor[:, None] * column_factor[None, :]).to(tl.int32, bitcast=True)
    return tl.where(bits >= threshold, x * scale, 0.0)


@triton.jit
def load_tile(POINTER, rows, columns, exists, WIDTH: tl.constexpr):
    """fp32 [rows, columns] of a matrix of WIDTH columns; zero where nothing exists."""
    place = rows[:, None].to(tl.int64) * WIDTH + columns[None, :]
    return tl.load(POINTER + place, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def store_tile(POINTER, x, rows, columns, exists, WIDTH: tl.constexpr):
    """The inverse of load_tile: casts to the pointer's dtype."""
    place = rows[:, None].to(tl.int64) * WIDTH + columns[None, :]
    tl.store(POINTER + place, x.to(POINTER.dtype.element_ty), mask=exists)
