"""Cross-entropy of a chunk's logits, and their gradient in their place, in one kernel."""

from torch import Tensor

from bigchem.model.kernels.fused.cross_entropy_kernel import cross_entropy
from bigchem.model.kernels.fused.launch import on_device, power_of_2

BLOCK, NUM_WARPS = 4096, 8


def cross_entropy_(
    logits: Tensor,
    labels: Tensor,
    losses: Tensor,
    objective: Tensor | None,
    *,
    z_loss: float,
    smoothing: float,
    ignored: int,
    gradient: bool,
) -> None:
    """Writes each row's cross-entropy to losses (fp32 [t]) and, if given, its objective with z-loss and label smoothing
    to objective (fp32 [t]); both are 0 where the label is `ignored`.

    logits [t, V] are changed: with gradient, to the gradient of the objective or, without one, of the losses.
    labels int64 [t].
    """
    vocabulary = logits.shape[1]
    with on_device(logits):
        cross_entropy[(len(logits),)](
            logits, labels, losses, objective, z_loss, smoothing, ignored,
            VOCABULARY=vocabulary, BLOCK=min(BLOCK, power_of_2(vocabulary)), GRADIENT=gradient,
            num_warps=NUM_WARPS,
        )  # fmt: skip
