"""Every reader of user files and of files in a run folder, each with a valid file.

To add a reader, add a line to READERS.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.file_lock import holder
from bigchem.bench.model.mix import lengths_of_tasks
from bigchem.config import RunConfig
from bigchem.data.sources import read_rows, reader
from bigchem.data.sources.base import RowError, SourceConfig
from bigchem.data.storage.columns import DamagedError, read_lengths
from bigchem.data.storage.index import Index
from bigchem.ds_config import completed
from bigchem.evaluate.generation import inputs
from bigchem.evaluate.generation.generate import PREDICTED, read_lines
from bigchem.evaluate.generation.predictor import Prediction
from bigchem.evaluate.run import _losses_of
from bigchem.evaluate.score import examples_of
from bigchem.evaluate.trained import trained
from bigchem.evaluate.training_set import read_training_set
from bigchem.export.consolidate import is_newest
from bigchem.launch import elastic_restart
from bigchem.launch.cluster import arrays
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.runs import history, owner
from bigchem.launch.runs.history import Attempt
from bigchem.launch.runs.status import statuses
from bigchem.launch.runs.status_table import summary, summary_lines, table, to_csv, to_json, to_markdown
from bigchem.model.presets import shape, to_hf_config
from bigchem.model.weights.files import weight_files
from bigchem.model.weights.hf_config import read_shape
from bigchem.run import ownership, state
from bigchem.run.ownership import Owner, Process
from bigchem.sharing import card, lineage, provenance
from bigchem.sweep import grid
from bigchem.sweep.report.output_folder import check_written
from bigchem.sweep.scores.results import load
from bigchem.tasks import shipped
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.health.watchdog import Heartbeat, read_heartbeats, verdict
from bigchem.train.logging import ledger
from bigchem.train.logging.tracker import _rows


@dataclass(frozen=True)
class Reader:
    """read: gets the path of a damaged file; may return anything or raise UserError. beside: other files in its folder,
    by name."""

    name: str
    file: str
    content: bytes
    read: Callable[[Path], object]
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name


def _json(table: Any) -> bytes:
    return json.dumps(table, indent=1).encode()


def _lines(*tables: Any) -> bytes:
    return b"".join(json.dumps(table).encode() + b"\n" for table in tables)


ATTEMPT = asdict(Attempt(1, "7", 0, "gpu01", 4, 0, 1000.0, 20, "preempted", "USR2", 60.0, "gpu01"))
OWNER = asdict(Owner("t", "here", "7", "ada", 1000.0, process=Process("host", "boot", "pid:[1]", 7, 5), world_size=4))
STATE = {"state": "failed", "time": 1000.0, "step": 20, "steps": 60, "end": "error", "reason": "ValueError: no"}
METRICS = [{"step": s, "time": 1.0, "tokens": 9, "loss": 2.5, "loss/forward": 2.5, "tokens_per_s": 3.0} for s in (1, 2)]
SAMPLES = [{"step": s, "task": "forward", "source": "CC", "reference": "C", "prediction": "C"} for s in (1, 2)]
RUN = {
    "config.toml": b'name = "run"\n',
    "state.json": _json(STATE),
    "owner.json": _json(OWNER),
    "attempt.json": _json(ATTEMPT),
    "history.jsonl": _lines(ATTEMPT, {**ATTEMPT, "attempt": 2}),
    "metrics.jsonl": _lines(*METRICS),
    "model.json": _json({"device": "NVIDIA H100", "parameters": 5}),
    "cancel.json": _json({"job": "7", "cluster": None, "by": "ada", "time": 1e9}),
}
"""The files of a run folder that `bigchem status` reads."""
CONFIG = b"""name = "tiny"
seed = 1
[model]
preset = "sweep-1m"
dropout = 0.1
[data]
path = "data/demo"
mixture = {forward = 1.0, captioning = 2.5}
micro_tokens = 4096
[train]
steps = 300
precision = "fp32"
[schedule]
warmup_steps = 10
[notify]
command = ["mail", "me"]
on = ["failure"]
"""
CLUSTER = b"""executor = "slurm"
partition = "gpu"
nodes = 2
nodes_max = 4
gpus_per_node = 8
tasks_per_node = 8
time_min = 600
setup = ["module load cuda"]
[env]
NCCL_DEBUG = "WARN"
[sbatch]
mail-type = "END"
"""
SWEEP = b"""name = "demo"
base = "demo"
sizes = ["sweep-1m", "sweep-4m"]
seeds = [0, 1]
[mixtures.together]
weights = {forward = 1.0, captioning = 1.0}
set = {"train.steps" = 200}
[mixtures.alone]
weights = {forward = 1.0}
[axes]
"optimizer.lr" = [0.001, 0.0003]
[per_size.sweep-1m]
"train.log_every" = 5
"""
SCORES = b"""parameters,task,regime,metric,value,low,high,seed,run
1000000,forward,together,top1,0.5,0.4,0.6,0,a
2.5e8,forward,alone,top1,0.6,,,1,b
"""
TABLE = [{"parameters": 5, "task": "forward", "regime": "alone", "metric": "top1", "value": 0.5, "run": "a"}]
METRIC = {
    "task": "forward",
    "metric": "top1",
    "value": 0.5,
    "low": 0.4,
    "high": 0.6,
    "n": 8,
    "definition": "d",
    "note": "",
}
RESULTS = {
    "schema": 1,
    "run": "a",
    "model": {"preset": "base", "parameters": 5, "sha256": "0"},
    "mixture": {"forward": 1.0, "solubility": 2.0},
    "seed": 0,
    "step": 2,
    "tokens": 9,
    "data_fingerprint": "f",
    "split": "test",
    "decoding": {"num_beams": 5},
    "max_source_tokens": 512,
    "protocol": "bigchem 1",
    "metrics": [METRIC, {**METRIC, "task": "solubility", "metric": "rmse", "higher_is_better": False}],
    "tasks": {
        "forward": {"source": "reactants", "target": "chemistry", "prompt": ["P: {source}"], "id": 2},
        "solubility": {"source": "chemistry", "target": "number", "prompt": "S: ", "decimals": 2},
    },
}
MANIFEST = {
    "format": 2,
    "step": 2,
    "position": 8,
    "tokens": 90,
    "world_size": 1,
    "zero_stage": 1,
    "precision": "fp32",
    "optimizer": "adamw",
    "data_fingerprint": "f",
    "model": {"vocab_size": 100},
    "probe": {"sources": [[1, 2]], "targets": [[3, 1]], "loss": 2.5},
    "state": {"health": {"streak": 0}},
    "files": {"a.pt": [3, "0" * 64]},
}
SHA = "0" * 64
INDEX = Index("t", {"train": {}}, recipe="r", report={"sources": []})
PREDICTIONS = [{"row": n, "key": "k", "source": "CC", "target": "C", "predictions": ["C", "CC"]} for n in (0, 1)]
WATCHED = asdict(Heartbeat(0, 5, "forward", 9, 1.5, "host", 7, "loop.py:3", ("backward", 3)))
TRAINED = {
    "run": "a",
    "bigchem": "1",
    "step": 2,
    "examples": 8,
    "tokens": 90,
    "weights": "w",
    "proof": "p",
    "data": {"fingerprint": "f", "rows": {"train": {"forward": 3}}, "sources": [{"name": "csv", "rows": 3}]},
}
PROOF = {"step": 2, "tokens": 90, "dtype": "fp32", "ema_loss": None, "averaged": []}


def shown(file: Path) -> str:
    """All output of `bigchem status` for a run folder."""
    rows = statuses([file.parent])
    out = io.StringIO()
    Console(file=out, width=200).print(table(rows), summary_lines(summary(rows)))
    text = out.getvalue() + to_markdown(rows) + to_csv(rows) + json.dumps(to_json(rows), allow_nan=False)
    text.encode()
    return text


def _moved(file: Path) -> None:
    state.move(file.parent, state.Writer.STARTER, state.State.PREPARED)


def _attempts(file: Path) -> None:
    rows = history.read(file.parent)
    history.why_not_requeue(rows, 3, 20)
    history.begin(file.parent, "8", 0, "gpu02", 4)
    history.close(file.parent)


def _cut_ledger(file: Path) -> None:
    ledger.cut_back(file.parent, 1)
    ledger.read(file.parent.parent)


def _hang(file: Path) -> None:
    if records := read_heartbeats(file.parent, 1):
        verdict(records, 1)


def _source(name: str, **fields: object) -> Callable[[Path], object]:
    """Reads a file as a source of data, rows and rejected records alike."""

    def read_all(file: Path) -> None:
        source = SourceConfig.model_validate({"format": name, "split": "train", "path": str(file), **fields})
        for record in reader(name).records(source, shipped()):
            with suppress(RowError):
                read_rows(record, source, shipped())

    return read_all


def _inputs(task: str) -> Callable[[Path], object]:
    """Reads a file as `predict` reads stdin, and prints what it would print."""

    def read_all(file: Path) -> None:
        with file.open("rb") as stream:
            for record in inputs.read_inputs(["-"], inputs.lines_of(stream), shipped()[task]):
                inputs.to_json(record, [Prediction("CC", -1.0, -0.5, True)], shipped()[task]).encode()

    return read_all


def _deepspeed(file: Path) -> None:
    completed(RunConfig.model_validate({"train": {"ds_config": str(file)}}), 2)


def _data_lengths(file: Path) -> None:
    try:
        read_lengths(pa.py_buffer(file.read_bytes()), 4)
    except DamagedError as error:  # callers add the file's name
        raise UserError(str(error)) from None


def _npy(rows: list[list[int]]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array(rows, dtype=np.uint16))
    return out.getvalue()


CAPTION = "The molecule is ethanol."
ROW = {"task": "captioning", "source": "CCO", "target": CAPTION}
SCORED = {"source": "CCO", "target": "CC", "predictions": ["CC", "C"]}
LOSS = {"rows": [1.0, 1.5], "tokens": [3, 4]}
DEEPSPEED = {
    "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 5e8, "allgather_bucket_size": "auto"},
    "bf16": {"enabled": "auto"},
    "communication_data_type": "fp32",
    "gradient_clipping": "auto",
}
T5 = to_hf_config(shape("sweep-1m"), 0.1)


STATUS = [
    Reader(f"status, {name}", name, content, shown, RUN) for name, content in RUN.items() if name != "config.toml"
]
READERS = [
    *STATUS,
    Reader("state", "state.json", RUN["state.json"], _moved),
    Reader("owner", "owner.json", RUN["owner.json"], lambda f: str(ownership.read(f.parent))),
    Reader("owner of an older version", "submission.json", _json({"executor": "slurm", "job": 7, "time": 1.0}),
           lambda f: str(ownership.read(f.parent))),
    Reader("cancel mark", "cancel.json", RUN["cancel.json"],
           lambda f: owner.cancelled_by(f.parent, ownership.parsed(OWNER, ""))),
    Reader("history", "history.jsonl", RUN["history.jsonl"], _attempts, {"state.json": RUN["state.json"]}),
    Reader("open attempt", "attempt.json", RUN["attempt.json"], _attempts, {"state.json": RUN["state.json"]}),
    Reader("metrics, resumed", "metrics.jsonl", RUN["metrics.jsonl"], lambda f: _rows(f, 1)),
    Reader("samples, resumed", "samples.jsonl", _lines(*SAMPLES), lambda f: _rows(f, 1)),
    Reader("ledger", "ledger/rank0.jsonl", _lines({"step": 1, "keys": ["a"]}, {"step": 2, "keys": ["b"]}), _cut_ledger),
    Reader("watcher", "elastic.json", _json({"watcher": "8", "job": "7", "cluster": None}),
           lambda f: elastic_restart.read(f.parent)),
    Reader("submitted array", "submission.json", _json({"jobs": []}), lambda f: arrays.refuse_active(f.parent, "x")),
    Reader("record of a hang", "health/rank0.json", _json(WATCHED), _hang),
    Reader("resolved configuration", "config.toml", CONFIG, lambda f: toml.load(RunConfig, f)),
    Reader("cluster profile", "cluster.toml", CLUSTER, lambda f: toml.load(ClusterProfile, f)),
    Reader("sweep", "sweep.toml", SWEEP, lambda f: grid.load_runs(str(f))),
    Reader("score table, CSV", "scores.csv", SCORES, lambda f: load([f], allow_mixed=True)),
    Reader("score table, JSON", "scores.json", _json(TABLE), lambda f: load([f], allow_mixed=True)),
    Reader("results", "results.json", _json(RESULTS), lambda f: load([f])),
    Reader("results, in a card", "results.json", _json(RESULTS), card.results_in),
    Reader("metrics, in a card", "metrics.jsonl", RUN["metrics.jsonl"], lambda f: provenance.losses_at(f, 2)),
    Reader("provenance", "provenance.json", _json(TRAINED), lambda f: (provenance.read(f.parent), trained(f.parent))),
    Reader("base of a run", "base.json", _json({"name": "a", "base": {"name": "b"}}),
           lambda f: lineage.base_of_run(f.parent, None)),
    Reader("manifest", "step_00000002/manifest.json", _json(MANIFEST), lambda f: Manifest.read(f.parent)),
    Reader("proof of a model", "model/bigchem.json", _json(PROOF),
           lambda f: is_newest(f.parent, f.parent.parent),
           {"checkpoints/step_00000002/manifest.json": _json(MANIFEST)}),
    Reader("index of data", "index.json", INDEX.to_json().encode(),
           lambda f: Index.from_json(f.read_text(errors="replace"), str(f))),
    Reader("predictions", "forward.rank0.jsonl", _lines(*PREDICTIONS), lambda f: read_lines(f, PREDICTED)),
    Reader("losses", "forward.rank0of1.loss.json", _json({"0": LOSS}), _losses_of),
    Reader("list of written files", "figures/.written.json", _json(["a.svg"]), lambda f: check_written(f.parent)),
    Reader("lock", "lock", _json({"host": "h", "pid": 7, "since": 1.0, "purpose": "builds"}),
           lambda f: str(holder(f))),
    Reader("lengths of rows", "lengths/train-forward.npy", _npy([[1, 2]] * 4), _data_lengths),
    Reader("lengths, for a benchmark", "lengths/train-forward.npy", _npy([[1, 2]] * 4),
           lambda f: lengths_of_tasks(f.parent.parent)),
    Reader("source, JSON Lines", "rows.jsonl", _lines(ROW, ROW), _source("jsonl")),
    Reader("source, CSV", "rows.csv", f"task,source,target\ncaptioning,CCO,{CAPTION}\n".encode(), _source("csv")),
    Reader("source, reactions", "rows.rsmi", b"ReactionSmiles\tId\nCCO.CC(=O)Cl>>CCOC(C)=O\t1\n", _source("rsmi")),
    Reader("source, lines of SMILES", "rows.smi", b"CCO\nc1ccccc1 benzene\n", _source("smiles_lines")),
    Reader("predictions to score, JSON Lines", "p.jsonl", _lines(SCORED, SCORED),
           lambda f: examples_of(shipped()["forward"], f)),
    Reader("predictions to score, CSV", "p.csv", b"source,target,prediction\nCCO,CC,C\nCCO,CC,\n",
           lambda f: examples_of(shipped()["forward"], f)),
    Reader("predictions to score, TSV", "p.txt", b"SMILES\tground truth\toutput\nCCO\ta\tb\n",
           lambda f: examples_of(shipped()["captioning"], f)),
    Reader("training molecules", "train.csv", b'name,smiles\n"an alcohol, a\nsolvent",CCO\n',
           read_training_set),
    Reader("inputs of predict, SMILES", "in.txt", _lines({"source": "CCO", "id": 7}) + b"c1ccccc1 benzene\n",
           _inputs("captioning")),
    Reader("inputs of predict, texts", "in.txt", _lines({"source": CAPTION, "id": "7"}) + b"It is an acid.\n",
           _inputs("generation")),
    Reader("DeepSpeed's configuration", "ds.json", _json(DEEPSPEED), _deepspeed),
    Reader("configuration of a model", "config.json", _json(T5), lambda f: read_shape(f.parent)),
    Reader("index of weights", "model.safetensors.index.json", _json({"weight_map": {"a": "b.safetensors"}}),
           lambda f: weight_files(f.parent)),
]  # fmt: skip
