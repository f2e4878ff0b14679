"""What a model was trained on, from what, how and for how long: in its folder, so that its card needs nothing else.

Nothing in it is a path, and nothing is guessed: what a run folder does not say is null.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import bigchem
from bigchem.base import atomic, json_file, jsonl, toml
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.config import RunConfig
from bigchem.data.step_plan import open_data
from bigchem.data.storage.index import Index
from bigchem.evaluate.trained import FILE
from bigchem.model.weights import hub
from bigchem.sharing.lineage import Base, Source, base_of_run, named
from bigchem.tasks import FILE as TASKS
from bigchem.tasks import Tasks, tasks_of
from bigchem.train.checkpoint.store import PROOF, Manifest

AS_TRAINED = "the weights after the last of these steps"


@dataclass(frozen=True)
class DataFacts:
    """The data. rows: {split: {task: rows}}. rows and sources are None if the data folder was not at hand."""

    fingerprint: str
    rows: dict[str, dict[str, int]] | None = None
    sources: list[Source] | None = None


@dataclass(frozen=True)
class Recipe:
    """How a run trained; fields as in RunConfig."""

    steps: int
    mixture: dict[str, float]
    temperature: float | None
    global_tokens: int
    max_source_tokens: int
    max_target_tokens: int
    over_caps: str
    precision: str
    optimizer: str
    lr: float
    schedule: str
    dropout: float
    seed: int


@dataclass(frozen=True)
class Provenance:
    """weights: which, such as AS_TRAINED. examples, tokens: consumed by step `step`. losses: of that step, by name in
    metrics.jsonl. proof: one line. recipe: None if the run's configuration is gone. license: of the model, by whoever
    shares it."""

    run: str
    bigchem: str
    step: int
    examples: int
    tokens: int
    weights: str
    proof: str
    data: DataFacts
    recipe: Recipe | None = None
    base: Base | None = None
    losses: dict[str, float] = field(default_factory=dict)
    license: str | None = None

    def write(self, model_dir: Path) -> None:
        """Writes it into a model's folder."""
        atomic.write_atomically(model_dir / FILE, json.dumps(asdict(self), indent=1, ensure_ascii=False))


def read(model_dir: Path) -> Provenance | None:
    """A model's provenance; None if its folder has none, as those of other programs. RecordError if it is damaged."""
    file = model_dir / FILE
    hint = "bigchem export makes the folder anew"
    if not file.is_file():
        return None
    return json_file.as_kind(Provenance, json_file.load(file, hint=hint), str(file), hint=hint)


def of_run(run_dir: Path, manifest: Manifest, weights: str, proof: str) -> Provenance:
    """The provenance of weights exported from a run's checkpoint."""
    config = _config(run_dir)
    return Provenance(
        run=run_dir.resolve().name,
        bigchem=bigchem.__version__,
        step=manifest.step,
        examples=manifest.position,
        tokens=manifest.tokens,
        weights=weights,
        proof=proof,
        data=_data(config, manifest.data_fingerprint),
        recipe=None if config is None else _recipe(config),
        base=base_of_run(run_dir, None if config is None else config.model.init_from),
        losses=losses_at(run_dir / "metrics.jsonl", manifest.step) if weights.startswith(AS_TRAINED) else {},
    )


def trained_tasks(run_dir: Path) -> Tasks | None:
    """The tasks with targets that a run trained; None if its folder does not say. Folders of earlier versions hold no
    records: then those of the mixture, not all that ship."""
    tasks, config = tasks_of(run_dir).scored, _config(run_dir)
    if (run_dir / TASKS).is_file():
        return tasks
    return tasks.only(config.data.mixture) if config is not None and config.data.mixture else None


def base_at(init_from: str) -> Base:
    """The base that a run is about to begin with. `init_from` must have been fetched."""
    base, folder = named(init_from), hub.fetched(init_from)
    try:
        known = read(folder)
    except RecordError:
        known = None
    if known is not None:
        name = base.name if base.on_hub else known.run
        facts = known.data
        base = replace(
            base,
            name=name,
            step=known.step,
            tokens=known.tokens,
            data=facts.fingerprint,
            sources=facts.sources,
            base=known.base,
        )
    return replace(base, revision=folder.name) if base.on_hub else base


def weights_hash(model_dir: Path) -> str | None:
    """evaluate.subject.model_hash of an exported folder, from the hashes in its proof; None without one."""
    try:
        files = json_file.as_kind(
            dict[str, tuple[int, str]], json_file.load_object(model_dir / PROOF).get("files"), str(model_dir / PROOF)
        )
        digest = hashlib.sha256(hashlib.sha256((model_dir / "config.json").read_bytes()).digest())
    except (OSError, RecordError):
        return None
    for name in sorted(files):
        digest.update(bytes.fromhex(files[name][1]))
    return digest.hexdigest()[:16]


def _config(run_dir: Path) -> RunConfig | None:
    """The run's configuration; None if it is missing or of another version, which the card then says."""
    try:
        return toml.load(RunConfig, run_dir / "config.toml")
    except (UserError, OSError):
        return None


def _data(config: RunConfig | None, fingerprint: str) -> DataFacts:
    """Rows and sources of the data, if the folder is still there and still the same."""
    found = DataFacts(fingerprint)
    if config is None:
        return found
    try:
        index = open_data(config.data).index
    except (UserError, OSError):
        return found
    if index.fingerprint != fingerprint:
        return found
    rows = {split: dict(index.rows(split)) for split in index.shards}
    return replace(found, rows=rows, sources=[_source(entry) for entry in _sources(index)])


def _sources(index: Index) -> list[dict[str, Any]]:
    listed = index.report.get("sources", [])
    return listed if isinstance(listed, list) else []


def _source(entry: dict[str, Any]) -> Source:
    return Source(str(entry["source"]), int(entry["rows"]), entry.get("hub"), entry.get("license"))


def _recipe(config: RunConfig) -> Recipe:
    data, train, optimizer = config.data, config.train, config.optimizer
    return Recipe(
        steps=train.steps,
        mixture=dict(data.mixture),
        temperature=data.temperature,
        global_tokens=data.global_tokens,
        max_source_tokens=data.max_source_tokens,
        max_target_tokens=data.max_target_tokens,
        over_caps=data.over_caps,
        precision=train.precision,
        optimizer=optimizer.kind,
        lr=optimizer.lr,
        schedule=config.schedule.kind,
        dropout=config.model.dropout,
        seed=config.seed,
    )


def losses_at(path: Path, step: int) -> dict[str, float]:
    """Losses by name in metrics.jsonl's last row of a step, which a restart may have repeated."""
    row: dict[str, Any] = {}
    for line in jsonl.lines(path, {"step": int}):
        if line.row is not None and line.row["step"] == step:
            row = line.row
    losses = {key: json_file.number(row[key]) for key in row if key.split("/")[0] in ("loss", "valid_loss")}
    return {key: value for key, value in losses.items() if value is not None}
