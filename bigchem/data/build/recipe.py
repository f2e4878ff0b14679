"""A data recipe: which sources go to which split, and how they are tokenised."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from bigchem.base import toml
from bigchem.base.toml import Fraction, Positive, Section
from bigchem.data.reading.paths import expand
from bigchem.data.sources import reader
from bigchem.data.sources.base import SourceConfig
from bigchem.data.storage.remote import is_url
from bigchem.data.text.tokenizer import Smiles, Tokenizer
from bigchem.tasks import TaskConfig, TaskName, Tasks, merged, read_records


class TokenizerConfig(Section):
    """Where the vocabulary comes from."""

    t5: str | None = None
    """Folder of T5's own tokenizer, or a model's name on the hub; chemistry tokens are added. None: trained on the
    corpus."""
    folder: str | None = None
    """Folder whose tokenizer is used unchanged: an exported model to train on, or another data folder's `tokenizer`."""
    vocab_size: Annotated[int, Field(ge=300)] = 512
    """Embedding rows of a trained vocabulary."""
    smiles: Smiles = "pieces"
    """How a word that is SMILES is split: by the vocabulary alone, or at its atoms first."""

    @property
    def trained(self) -> bool:
        """Whether it is trained on the corpus."""
        return self.t5 is None and self.folder is None

    def make(self, texts: Iterable[str], sentinels: int = 0) -> Tokenizer:
        """The folder's, T5's, or one trained on the texts, with sentinels for span corruption."""
        if self.folder is not None:
            return Tokenizer.load(self.folder)
        if self.t5 is not None:
            return Tokenizer.from_t5(self.t5, self.smiles)
        return Tokenizer.train(texts, self.vocab_size, self.smiles, sentinels)


class BuildConfig(Section):
    """A data recipe: which sources go to which split, and how they are tokenised."""

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """One table per source."""
    tasks: dict[TaskName, TaskConfig] = Field(default_factory=dict)
    """One `[tasks.NAME]` table per task besides Text+Chem T5's five."""
    task_files: tuple[str, ...] = ()
    """TOML files of such tables."""
    root: str = "."
    """Folder that paths are relative to; itself relative to the recipe's folder."""
    limit: Positive | None = None
    """Read only the first records of every source: a quick look at a large corpus."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    shard_rows: Positive = 50000
    """Rows per shard."""
    max_rejected: Fraction = 0.05
    """A source with a larger share of unreadable records stops the build."""
    max_lossy: Fraction = 0.01
    """The build stops if a larger share of one task's source or target texts does not survive the tokenizer's round
    trip. The same command with a higher limit resumes it."""
    keep_out: Literal["exact", "skeleton", "none"] = "exact"
    """Training rows whose molecule is in a valid or test row of any task are dropped: compared by InChIKey (`exact`),
    by its part without stereochemistry, isotopes and protonation (`skeleton`), or not at all. Both are counted
    anyway."""

    @cached_property
    def known_tasks(self) -> Tasks:
        """Those of Text+Chem T5, of `tasks`, and span corruption."""
        return merged(self.tasks)


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> BuildConfig:
    """Reads a data recipe. Its `root` is relative to its own folder; in an override, to the working directory."""
    config = toml.load(BuildConfig, path, overrides)
    here = any(override.startswith("root=") for override in overrides)
    root = config.root if is_url(config.root) else (Path() if here else path.parent) / Path(config.root).expanduser()
    records: dict[str, TaskConfig] = {}
    for name in config.task_files:
        records |= read_records(path.parent / name)
    tasks = merged(records | config.tasks)
    for number, source in enumerate(config.sources):
        where = f"{path}: sources[{number}]"
        source.check_tasks(tasks, reader(source.format, where).gives, where)
    sources = tuple(
        s.model_copy(update={"path": _resolved(root, s.path), "target_path": _resolved(root, s.target_path)})
        for s in config.sources
    )
    named = {"t5": _resolve_tokenizer(root, config.tokenizer.t5), "folder": _resolve(root, config.tokenizer.folder)}
    tokenizer = config.tokenizer.model_copy(update=named)
    update = {"sources": sources, "tokenizer": tokenizer, "root": str(root), "tasks": records | config.tasks}
    return config.model_copy(update={**update, "task_files": ()})


def recipe_hash(config: BuildConfig) -> str:
    """Hash of a recipe (without max_lossy and licences, which change no row), of the vocabulary it names, and of the
    size and mtime of every local file that it names or that is in a folder it names."""
    without: dict[str, Any] = {"max_lossy": True, "sources": {"__all__": {"license"}}}
    digest = hashlib.sha256(config.model_dump_json(exclude_defaults=True, exclude=without).encode())
    if config.tokenizer.t5 is not None or config.tokenizer.folder is not None:
        digest.update(config.tokenizer.make(()).fingerprint.encode())
    for named in (n for source in config.sources for n in (source.path, source.target_path) if n is not None):
        for name in (name for name in expand(named) if not is_url(name)):
            for file in [Path(name), *sorted(Path(name).rglob("*"))]:
                if file.is_file():
                    stat = file.stat()
                    digest.update(f"{file}/{stat.st_size}/{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _resolved(root: Path | str, path: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(path, tuple):
        return tuple(filter(None, (_resolve(root, name) for name in path)))
    return _resolve(root, path)


def _resolve(root: Path | str, name: str | None) -> str | None:
    if name is None or is_url(name):
        return name
    if isinstance(root, str):
        return f"{root.rstrip('/')}/{name}"
    return str((root / Path(name).expanduser()).resolve())


def _resolve_tokenizer(root: Path | str, name: str | None) -> str | None:
    """A folder if it exists, otherwise the name of a tokenizer on the hub."""
    folder = _resolve(root, name)
    return folder if folder is not None and Path(folder).is_dir() else name
