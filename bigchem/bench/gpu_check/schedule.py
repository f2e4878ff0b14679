"""What a check does, in order, and when each stage must have ended. Needs neither torch nor numpy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage of a part. ends: minutes after the part's start, at its full length; what: for the heading; interpreted:
    whether a dry run needs Triton's interpreter."""

    name: str
    ends: float
    what: str
    interpreted: bool = False


PARTS = {
    1: (
        Stage("versions", 0.5, "Versions, and a bf16 product"),
        Stage("kernels", 2.0, "Kernels against float64, and compute-sanitizer", interpreted=True),
        Stage("profile", 3.0, "Profile of a training step"),
        Stage("steps", 5.0, "Training steps against transformers"),
        Stage("attention", 6.5, "Attention against its peers"),
        Stage("tiles", 7.5, "Tiles", interpreted=True),
    ),
    2: (
        Stage("zero", 1.7, "ZeRO on one rank: planned against measured"),
        Stage("offload", 2.5, "The same with the optimizer offloaded"),
        Stage("checkpoint", 4.2, "A save and a resume"),
    ),
}
"""Part 1 needs torch, triton and transformers, part 2 also DeepSpeed."""

MINUTES = {1: 8.0, 2: 4.5}
"""The full length of each part. What the last stage leaves is for starting Python and for killing a stage."""


def limits(stages: tuple[Stage, ...], scale: float, elapsed_s: float, at: int) -> float:
    """Seconds that stage number `at` may take, `elapsed_s` after the start: what earlier ones leave goes to the next.
    scale: of the schedule."""
    return 60 * scale * stages[at].ends - elapsed_s
