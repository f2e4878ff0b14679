"""The kernels of `add_norm`."""

import triton.language as tl

from bigchem.model.kernels.device import row_factors
from bigchem.model.kernels.fused.device import column_factors, dropped, kernel, load_tile, store_tile

# A program has ROWS rows at a time and all WIDTH columns, padded to BLOCK, a power of two. A pointer may be None.


@kernel
def forward(
    X,
    UPDATE,
    WEIGHT,
    HASHES,
    SUM,
    NORMED,
    RSTD,
    num_rows,
    eps,
    update_seed,
    normed_seed,
    threshold,
    scale,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    DROP_UPDATE: tl.constexpr,
    DROP_NORMED: tl.constexpr,
):
    """SUM = X + dropout(UPDATE), NORMED = rms_norm(SUM) * WEIGHT, RSTD = 1 / sqrt(mean(SUM^2) + eps).

    Without X, SUM is dropout(UPDATE); without UPDATE, the sum is X and is not written.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    is_row, is_column = rows < num_rows, columns < WIDTH
    exists = is_row[:, None] & is_column[None, :]
    if UPDATE is not None:
        x = load_tile(UPDATE, rows, columns, exists, WIDTH)
        if DROP_UPDATE:
            x = dropped(x, row_factors(HASHES, rows, is_row, update_seed), column_factors(columns), threshold, scale)
        if X is not None:
            x += load_tile(X, rows, columns, exists, WIDTH)
        # The norm of what is stored, not of the exact sum: the backward pass reads the stored one.
        x = x.to(SUM.dtype.element_ty).to(tl.float32)
        store_tile(SUM, x, rows, columns, exists, WIDTH)
    else:
        x = load_tile(X, rows, columns, exists, WIDTH)
    rstd = tl.rsqrt(tl.sum(x * x, 1) / WIDTH + eps)
    weight = tl.load(WEIGHT + columns, mask=is_column, other=0.0).to(tl.float32)
    normed = x * rstd[:, None] * weight[None, :]
    if DROP_NORMED:
        normed = dropped(
            normed, row_factors(HASHES, rows, is_row, normed_seed), column_factors(columns), threshold, scale
        )
    store_tile(NORMED, normed, rows, columns, exists, WIDTH)
    tl.store(RSTD + rows, rstd, mask=is_row)


@kernel
def backward(
    SUM,
    WEIGHT,
    HASHES,
    RSTD,
    GRAD_SUM,
    GRAD_NORMED,
    GRAD_X,
    GRAD_UPDATE,
    PARTIAL,
    num_rows,
    rows_per_program,
    update_seed,
    normed_seed,
    threshold,
    scale,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    DROP_UPDATE: tl.constexpr,
    DROP_NORMED: tl.constexpr,
):
    """Gradients of X, of UPDATE where dropout makes it another, and this program's part of WEIGHT's."""
    first = tl.program_id(0) * rows_per_program
    columns = tl.arange(0, BLOCK)
    is_column = columns < WIDTH
    weight = tl.load(WEIGHT + columns, mask=is_column, other=0.0).to(tl.float32)
    column_factor = column_factors(columns)
    grad_weight = tl.zeros([BLOCK], tl.float32)
    for start in range(first, tl.minimum(first + rows_per_program, num_rows), ROWS):
        rows = start + tl.arange(0, ROWS)
        is_row = rows < tl.minimum(first + rows_per_program, num_rows)
        exists = is_row[:, None] & is_column[None, :]
        rstd = tl.load(RSTD + rows, mask=is_row, other=0.0)
        normed = load_tile(SUM, rows, columns, exists, WIDTH) * rstd[:, None]
        grad = load_tile(GRAD_NORMED, rows, columns, exists, WIDTH)
        if DROP_NORMED:
            grad = dropped(grad, row_factors(HASHES, rows, is_row, normed_seed), column_factor, threshold, scale)
        grad_weight += tl.sum(grad * normed, 0)
        grad *= weight[None, :]
        mean = tl.sum(grad * normed, 1) / WIDTH
        grad = (grad - normed * mean[:, None]) * rstd[:, None]
        if GRAD_SUM is not None:
            grad += load_tile(GRAD_SUM, rows, columns, exists, WIDTH)
        if GRAD_X is not None:
            store_tile(GRAD_X, grad, rows, columns, exists, WIDTH)
        if DROP_UPDATE:
            grad = dropped(grad, row_factors(HASHES, rows, is_row, update_seed), column_factor, threshold, scale)
            store_tile(GRAD_UPDATE, grad, rows, columns, exists, WIDTH)
    tl.store(PARTIAL + tl.program_id(0) * WIDTH + columns, grad_weight, mask=is_column)


@kernel
def sum_partials(PARTIAL, OUT, num_rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Column sums of PARTIAL fp32 [num_rows, WIDTH], in a fixed order, in OUT's dtype."""
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < WIDTH
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, num_rows, ROWS):
        rows = start + tl.arange(0, ROWS)
        sums += load_tile(PARTIAL, rows, columns, (rows < num_rows)[:, None] & is_column[None, :], WIDTH)
    tl.store(OUT + columns, tl.sum(sums, 0).to(OUT.dtype.element_ty), mask=is_column)


@kernel
def add_dropped(
    X,
    UPDATE,
    HASHES,
    SUM,
    num_rows,
    seed,
    threshold,
    scale,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """SUM = X + dropout(UPDATE), or without X dropout(UPDATE)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_row = rows < num_rows
    exists = is_row[:, None] & (columns < WIDTH)[None, :]
    x = load_tile(UPDATE, rows, columns, exists, WIDTH)
    x = dropped(x, row_factors(HASHES, rows, is_row, seed), column_factors(columns), threshold, scale)
    if X is not None:
        x += load_tile(X, rows, columns, exists, WIDTH)
    store_tile(SUM, x, rows, columns, exists, WIDTH)
