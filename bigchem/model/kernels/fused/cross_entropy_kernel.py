"""The kernel of `cross_entropy_`."""

import triton.language as tl

from bigchem.model.kernels.fused.device import kernel

LOG2E = tl.constexpr(1.4426950408889634)


@kernel
def cross_entropy(
    LOGITS,
    LABELS,
    LOSSES,
    OBJECTIVE,
    z_loss,
    smoothing,
    ignored,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    """One row: LOSSES, the cross-entropy; OBJECTIVE, which adds z-loss and label smoothing, unless it is None; with
    GRADIENT, the gradient of the one or the other overwrites LOGITS.

    Memory traffic a logit of two bytes: read 2 and, with GRADIENT, once more out of the cache (a row of 32,128 is 64
    KB), written 2. Rows of ignored labels are only written.
    """
    row = tl.program_id(0)
    label = tl.load(LABELS + row)
    logits_of_row = LOGITS + row.to(tl.int64) * VOCABULARY
    if label == ignored:
        tl.store(LOSSES + row, 0.0)
        if OBJECTIVE is not None:
            tl.store(OBJECTIVE + row, 0.0)
        if GRADIENT:
            for start in range(0, VOCABULARY, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                zeros = tl.zeros([BLOCK], LOGITS.dtype.element_ty)
                tl.store(logits_of_row + columns, zeros, mask=columns < VOCABULARY)
    else:
        of_label = tl.load(logits_of_row + label).to(tl.float32)
        top = -float("inf")
        sums = tl.zeros([BLOCK], tl.float32)  # of exp(logit - top), lane by lane
        total = tl.zeros([BLOCK], tl.float32)  # of logits
        for start in range(0, VOCABULARY, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            exists = columns < VOCABULARY
            logits = tl.load(logits_of_row + columns, mask=exists, other=-float("inf")).to(tl.float32)
            higher = tl.maximum(top, tl.max(logits, 0))
            sums = sums * tl.exp2((top - higher) * LOG2E) + tl.exp2((logits - higher) * LOG2E)
            top = higher
            if OBJECTIVE is not None:
                total += tl.where(exists, logits, 0.0)
        log_normalizer = top + tl.log2(tl.sum(sums, 0)) / LOG2E
        tl.store(LOSSES + row, log_normalizer - of_label)
        if OBJECTIVE is not None:
            mean = tl.sum(total, 0) / VOCABULARY
            extra = z_loss * log_normalizer * log_normalizer + smoothing * (of_label - mean)
            tl.store(OBJECTIVE + row, log_normalizer - of_label + extra)
        if GRADIENT:
            tl.debug_barrier()  # all threads have read the label's logit
            factor = 1 + 2 * z_loss * log_normalizer
            for start in range(0, VOCABULARY, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                exists = columns < VOCABULARY
                logits = tl.load(logits_of_row + columns, mask=exists, other=-float("inf")).to(tl.float32)
                grad = tl.exp2((logits - log_normalizer) * LOG2E)
                if OBJECTIVE is not None:
                    grad = grad * factor - smoothing / VOCABULARY
                grad -= tl.where(columns == label, 1 - smoothing, 0.0)
                tl.store(logits_of_row + columns, grad.to(LOGITS.dtype.element_ty), mask=exists)
