"""A run's TensorBoard files. Rank 0 only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bigchem.base import toml
from bigchem.base.masking import mask
from bigchem.base.printable import markdown_table
from bigchem.config import RunConfig
from bigchem.train.logging.hparams import HParams
from bigchem.train.logging.schema import on_board

if TYPE_CHECKING:
    from bigchem.train.samples import Sample


class Board:
    """Writes a run's TensorBoard files."""

    def __init__(self, config: RunConfig, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(config.run_dir / "tensorboard"), purge_step=step + 1)
        self._hparams = HParams(config)
        self._writer.add_text("configuration", f"```toml\n{mask(toml.dump(config))}```", step)

    def show(self, step: int, row: Mapping[str, float], samples: list[Sample]) -> None:
        """Adds a row of metrics and sample predictions."""
        for board, value in on_board(row).items():
            self._writer.add_scalar(board, value, step)
        for task in dict.fromkeys(sample.task for sample in samples):
            self._writer.add_text(f"samples/{task}", _as_table([s for s in samples if s.task == task]), step)
        self._writer.flush()
        self._hparams.show(step, row)

    def close(self, *, failed: bool = False) -> None:
        """Closes the files. failed: the HParams tab shows the run as failed."""
        self._writer.close()
        self._hparams.close(failed=failed)


def _as_table(samples: list[Sample]) -> str:
    """A Markdown table with the texts escaped."""
    rows = [[sample.source, sample.reference, sample.prediction] for sample in samples]
    return markdown_table(("source", "reference", "prediction"), rows, cell=_verbatim)


def _verbatim(text: str) -> str:
    """Replaces each character that could be Markdown or HTML markup by a character reference."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)
