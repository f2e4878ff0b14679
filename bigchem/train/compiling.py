"""Whether a run's blocks are compiled. Needs no torch."""

from bigchem.config import RunConfig


def compiles(config: RunConfig, device: str, stage: int) -> tuple[bool, str]:
    """(whether `train.compile` compiles the blocks, one line that says so and why). device: "cuda" or "cpu"; stage: of
    ZeRO."""
    wanted = config.train.compile
    if wanted != "auto":
        return wanted, f"train.compile = {str(wanted).lower()}"
    if device == "cpu":
        return False, "train.compile = auto: off, because a CPU gains nothing"
    if stage == 3:
        return False, "train.compile = auto: off, because ZeRO-3's hooks break the graph around every module"
    return True, "train.compile = auto: on, because the device is a GPU"
