"""A run's TensorBoard files and Weights & Biases page. Rank 0 only."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bigchem.base import atomic, toml
from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install_extra
from bigchem.base.masking import mask, mask_values
from bigchem.config import RunConfig
from bigchem.train.logging.hparams import HParams
from bigchem.train.logging.schema import board_name

if TYPE_CHECKING:
    from bigchem.train.samples import Sample


class Board:
    """Writes a run's TensorBoard files, and its Weights & Biases page if train.wandb is set."""

    def __init__(self, config: RunConfig, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(config.run_dir / "tensorboard"), purge_step=step + 1)
        self._hparams = HParams(config)
        self._writer.add_text("configuration", f"```toml\n{mask(toml.dump(config))}```", step)
        self._wandb = None if config.train.wandb is None else _wandb_run(config, config.train.wandb)

    def show(self, step: int, row: Mapping[str, float], samples: list[Sample]) -> None:
        """Adds a row of metrics and sample predictions."""
        values = {board: value for name, value in row.items() if (board := board_name(name)) is not None}
        for board, value in values.items():
            self._writer.add_scalar(board, value, step)
        for task in dict.fromkeys(sample.task for sample in samples):
            self._writer.add_text(f"samples/{task}", _as_table([s for s in samples if s.task == task]), step)
        self._writer.flush()
        self._hparams.show(step, row)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def close(self, *, failed: bool = False) -> None:
        """Closes both. failed: Weights & Biases shows the run as failed."""
        self._writer.close()
        self._hparams.close(failed=failed)
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(failed))


def check_wandb(project: str | None) -> None:
    """UserError if a project is given but wandb is not installed."""
    if project is not None and find_spec("wandb") is None:
        raise UserError("wandb is not installed", "train.wandb", f"{install_extra('wandb')}, or remove train.wandb")


def _wandb_run(config: RunConfig, project: str) -> Any:
    import wandb

    # One id per run folder: a resumed run continues its page, and another run of the same name gets its own.
    file = config.run_dir / "wandb_id"
    if not file.is_file():
        atomic.write_atomically(file, uuid4().hex)
    id = file.read_text(encoding="utf-8")
    settings = _resolved(config)
    return wandb.init(project=project, name=config.name, id=id, resume="allow", dir=config.run_dir, config=settings)


def _resolved(config: RunConfig) -> dict[str, Any]:
    found: dict[str, Any] = mask_values(toml.flat(config.model_dump(mode="json", exclude_none=True)))
    return found


def _as_table(samples: list[Sample]) -> str:
    """A Markdown table with the texts escaped."""
    rows = [[sample.source, sample.reference, sample.prediction] for sample in samples]
    lines = ["| source | reference | prediction |", "|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(map(_verbatim, row)) + " |" for row in rows])


def _verbatim(text: str) -> str:
    """Replaces each character that could be Markdown or HTML markup by a character reference."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)
