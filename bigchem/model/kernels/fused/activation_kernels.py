"""The kernels of `activate`."""

import triton
import triton.language as tl

from bigchem.model.kernels.device import row_factors
from bigchem.model.kernels.fused.device import column_factors, dropped, kernel, load_tile, store_tile


@triton.jit
def activated(a, ACTIVATION: tl.constexpr):
    """(activation(a), its derivative). SiLU is a * sigmoid(a); GELU's tanh approximation is a * sigmoid(z), where z is
    2 sqrt(2 / pi) (a + 0.044715 a^3)."""
    if ACTIVATION == "relu":
        value = tl.where(a < 0, 0.0, a)  # unlike a maximum, it keeps NaN
        slope = tl.where(a > 0, 1.0, 0.0)
    else:
        if ACTIVATION == "gelu_new":
            z = 1.5957691216057308 * (a + 0.044715 * a * a * a)
            dz = 1.5957691216057308 * (1 + 3 * 0.044715 * a * a)
        else:
            z = a
            dz = 1.0
        s = tl.sigmoid(z)
        value = a * s
        slope = s + value * (1 - s) * dz
    return value, slope


@kernel
def forward(
    A,
    B,
    HASHES,
    OUT,
    num_rows,
    seed,
    threshold,
    scale,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """OUT = dropout(activation(A) * B), or without B."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_row = rows < num_rows
    exists = is_row[:, None] & (columns < WIDTH)[None, :]
    out, _ = activated(load_tile(A, rows, columns, exists, WIDTH), ACTIVATION)
    if B is not None:
        out *= load_tile(B, rows, columns, exists, WIDTH)
    if DROPOUT:
        out = dropped(out, row_factors(HASHES, rows, is_row, seed), column_factors(columns), threshold, scale)
    store_tile(OUT, out, rows, columns, exists, WIDTH)


@kernel
def backward(
    A,
    B,
    HASHES,
    GRAD_OUT,
    GRAD_A,
    GRAD_B,
    num_rows,
    seed,
    threshold,
    scale,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """Gradients of A and B, from A and B."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_row = rows < num_rows
    exists = is_row[:, None] & (columns < WIDTH)[None, :]
    grad = load_tile(GRAD_OUT, rows, columns, exists, WIDTH)
    if DROPOUT:
        grad = dropped(grad, row_factors(HASHES, rows, is_row, seed), column_factors(columns), threshold, scale)
    value, slope = activated(load_tile(A, rows, columns, exists, WIDTH), ACTIVATION)
    if B is not None:
        store_tile(GRAD_B, grad * value, rows, columns, exists, WIDTH)
        grad *= load_tile(B, rows, columns, exists, WIDTH)
    store_tile(GRAD_A, grad * slope, rows, columns, exists, WIDTH)


@kernel
def relu_backward(OUT, GRAD_OUT, GRAD_A, num_rows, scale, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Gradient of A, from dropout(relu(A)): it is zero where A is not positive or was dropped."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    out = load_tile(OUT, rows, columns, exists, WIDTH)
    grad = load_tile(GRAD_OUT, rows, columns, exists, WIDTH)
    store_tile(GRAD_A, tl.where(out > 0, grad * scale, 0.0), rows, columns, exists, WIDTH)
