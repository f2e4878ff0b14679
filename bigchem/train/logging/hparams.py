"""A run's row in TensorBoard's HParams tab: what decides its outcome, its last losses and its scores.

The row is a TensorBoard run of its own, tensorboard/hparams, because the tab shows every scalar of a row's run. It has
no list of columns: with one, the tab shows the first run's columns for all runs; without, all runs' columns, and those
that differ first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bigchem.base import json_file
from bigchem.base.json_file import RecordError
from bigchem.base.masking import mask_values
from bigchem.base.toml import flat
from bigchem.config import RunConfig, tokens_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch.utils.tensorboard import SummaryWriter

FOLDER = "hparams"
LAST = {"loss": "last/loss", "valid_loss": "last/validation_loss"}
"""Fields of metrics.jsonl that the tab shows, by their names there."""


class HParams:
    """Writes the row of a run in training, replacing an earlier attempt's, but for its scores."""

    def __init__(self, config: RunConfig) -> None:
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo

        folder = _folder(config.run_dir)
        for file in folder.glob("events.out.tfevents.*"):  # TensorBoard reads only the first description of a row
            file.unlink(missing_ok=True)
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in fields_of(config).items():
            if isinstance(value, str):
                info.hparams[name].string_value = value
            else:
                info.hparams[name].number_value = value
        self._writer = _writer(folder)
        _describe(self._writer, SESSION_START_INFO_TAG, session_start_info=info)
        with suppress(OSError, RecordError):
            _add(self._writer, json_file.load_object(config.run_dir / "results" / "results.json"))
        self._writer.flush()

    def show(self, step: int, row: Mapping[str, float]) -> None:
        """Shows the losses of a row of metrics.jsonl."""
        for field, name in LAST.items():
            if field in row:
                self._writer.add_scalar(name, row[field], step)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """Ends the row. failed: as failed."""
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

        status = Status.Value("STATUS_FAILURE" if failed else "STATUS_SUCCESS")
        end = SessionEndInfo(status=status, end_time_secs=time.time())
        _describe(self._writer, SESSION_END_INFO_TAG, session_end_info=end)
        self._writer.close()


def add_scores(run_dir: Path, results: Mapping[str, Any]) -> None:
    """Adds the scores of a table as in results.json to the row of a run that has one."""
    folder = _folder(run_dir)
    if not folder.is_dir():
        return
    with _writer(folder) as writer:
        _add(writer, results)


def scores_of(results: Mapping[str, Any]) -> dict[str, float]:
    """The scores in a table as in results.json, by SPLIT/TASK/METRIC; not those of classes, nor n/a."""
    split, rows = results.get("split"), results.get("metrics")
    return {
        f"{split}/{row['task']}/{row['metric']}": value
        for row in (rows if isinstance(rows, list) else ())
        if not row.get("group") and (value := json_file.number(row.get("value"))) is not None
    }


def fields_of(config: RunConfig) -> dict[str, str | float]:
    """What decides a run's outcome, by the names of results.json, and its value on each axis of its sweep.

    tokens: of the whole run, as planned. parameters are unknown before its first attempt.
    """
    shape: dict[str, Any] = {}
    with suppress(OSError, RecordError):
        shape = json_file.load_object(config.run_dir / "model.json")
    found = {
        "parameters": shape.get("parameters"),
        "non_embedding_parameters": shape.get("non_embedding_parameters"),
        "preset": config.model.preset if config.model.init_from is None else None,
        "init_from": config.model.init_from,
        "tokens": round(tokens_of(config)),
        "steps": config.train.steps,
        "mixture": ", ".join(f"{task} {weight:.3g}" for task, weight in config.data.mixture.items()) or "all tasks",
        "global_tokens": config.data.global_tokens,
        "lr": config.optimizer.lr,
        "schedule": config.schedule.kind,
        "warmup_steps": config.schedule.warmup_steps,
        "optimizer": config.optimizer.kind,
        "weight_decay": config.optimizer.weight_decay,
        "dropout": config.model.dropout,
        "precision": config.train.precision,
        "seed": config.seed,
        **flat(config.sweep.axes),
    }
    masked: dict[str, Any] = mask_values(found)
    number_or_text = (str, int, float)
    return {k: v if isinstance(v, number_or_text) else str(v) for k, v in masked.items() if v is not None}


def _folder(run_dir: Path) -> Path:
    return run_dir / "tensorboard" / FOLDER


def _writer(folder: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _add(writer: SummaryWriter, results: Mapping[str, Any]) -> None:
    for name, value in scores_of(results).items():
        writer.add_scalar(name, value, results.get("step"))


def _describe(writer: SummaryWriter, tag: str, **info: Any) -> None:
    """Adds a description of the row, which TensorBoard keeps in a tag's metadata."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import create_summary_metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    described = create_summary_metadata(HParamsPluginData(**info))
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, metadata=described)]))
