"""Shared by all readers of public formats: rows, records, and the configuration of a source.

A reader has two halves. `records` walks the files and yields raw records with file and line: cheap and sequential.
`rows` turns a record into rows: expensive (RDKit), pure, run in parallel by the build. A record that cannot be parsed
raises RowError and is listed in rejected.jsonl; it does not stop the build by itself.

SMILES are in bigchem's notation: compounds are joined by `.`, fragments of one compound (a salt) by `~`, as in
Text+Chem T5's data.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, Protocol, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from bigchem.base.errors import UserError, nearest
from bigchem.base.toml import Fraction, Positive, Section
from bigchem.data.reading.delimited import Quoting
from bigchem.data.reading.lines import check_encoding
from bigchem.tasks import Task, Tasks, shipped


def _has_domains(pairs: tuple[tuple[str, str], ...], task: Task) -> bool:
    return (task.source_domain, task.target_domain) in pairs and not task.spans


Role = Literal["source", "target", "task", "smiles", "text", "reaction"]

_BY_DOMAINS: dict[frozenset[str], tuple[tuple[str, str], ...]] = {
    frozenset({"smiles", "text"}): (("chemistry", "text"), ("text", "chemistry")),
    frozenset({"reaction"}): (("reactants", "chemistry"), ("chemistry", "reactants")),
}
"""For columns of these roles: source and target domains of the tasks that they give rows for."""

LAYOUTS: dict[frozenset[str], Callable[[Task], bool]] = {
    frozenset({"source", "target"}): lambda task: not task.spans,
    frozenset({"source", "target", "task"}): lambda task: not task.spans,
    frozenset({"source"}): lambda task: task.target_domain == "labels",
    **{roles: partial(_has_domains, pairs) for roles, pairs in _BY_DOMAINS.items()},
    frozenset({"text"}): lambda task: task.name == "text_spans",
    frozenset({"smiles"}): lambda task: task.name == "smiles_spans",
}
"""For columns of these roles: whether they give rows for a task. `source` alone: the labels are columns."""

NAMED_COLUMNS = ("csv", "tsv", "jsonl", "datasets")
"""Formats to which `columns` applies."""
SPLIT_BY = ("random", "molecule", "scaffold", "file")
"""Values of `split_by` that are not a column."""
_REACTIONS = ("rsmi", "mapped_reactions", "reaction_csv", *NAMED_COLUMNS)
_LINES = ("text_lines", "smiles_lines")
_FILES = ("chebi20", "rsmi", "mapped_reactions", "reaction_csv", "parallel_text", "csv", "tsv", "jsonl", *_LINES)
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "target_path": ("parallel_text",),
    "encoding": _FILES,
    "quoting": ("csv", "tsv", "chebi20", "rsmi", "reaction_csv"),
    **dict.fromkeys(("task_names", "where", "split_column", "split_names"), NAMED_COLUMNS),
    "chunk_chars": ("text_lines", "csv", "tsv", "jsonl", "datasets"),
    "selfies": ("chebi20", "parallel_text", "smiles_lines", *NAMED_COLUMNS),
    "reagents": _REACTIONS,
    "products": _REACTIONS,
    "rows": ("synthetic",),
    "seed": ("synthetic",),
    **dict.fromkeys(("hub", "config_name", "hub_split"), ("datasets",)),
}
"""Formats to which a field applies; all others refuse it."""


@dataclass(frozen=True)
class Row:
    """One example, without the task's prompt.

    task: a task's name. target: "" for unlabelled rows. molecule: what the leak filter compares, see sides.molecules.
    repairs: of its texts, keys of bigchem.chemistry.REPAIRS. question: the original source, if this one is another
    spelling of it. group: the value of the source's `group_column`. fields: (column, text) for prompts that name other
    columns.
    """

    task: str
    source: str
    target: str
    molecule: str | None = None
    repairs: tuple[str, ...] = field(default=(), compare=False)
    question: str | None = field(default=None, compare=False)
    group: str | None = field(default=None, compare=False)
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """A stable hash of the content: 16 hexadecimal digits, equal on every machine and in every build."""
        text = "\x1f".join((self.task, self.source, self.target, *(part for field in self.fields for part in field)))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Record:
    """A raw record and its file and line, from 1."""

    file: str
    line: int
    fields: tuple[str, ...]


class RowError(Exception):
    """The record yields no row; the text says why. Counted and listed, not fatal."""


class SourceConfig(Section):
    """One `[[sources]]` table of a build's TOML."""

    format: str
    """A reader's name: see bigchem/data/sources/__init__.py."""
    split: Literal["train", "valid", "test"] | None = None
    """The split of all rows. Without it, a column names each row's split, or fractions are held out."""
    path: str | tuple[str, ...] | None = None
    """The file, or several: a list, or a pattern such as `parts/*.csv`. Plain, .gz, .bz2, .xz, .zst or .zip; relative
    to the TOML, or a URL (parallel text: the source side)."""
    target_path: str | tuple[str, ...] | None = None
    """parallel_text: the target side; as many files as `path` names, in the same order."""
    encoding: Annotated[str, AfterValidator(check_encoding)] | None = None
    """The files' encoding, if not UTF-8: utf-16, latin-1, cp1252, ..."""
    quoting: Quoting | None = None
    """Tables: `standard` if fields that contain a separator, a quote or a line end are in quotes, as csv and pandas
    write them; `none` if a quote is an ordinary character. Default: csv standard, the others by their content."""
    tasks: tuple[str, ...] = ()
    """The tasks to make rows for; empty: all of Text+Chem T5's that the format can give."""
    limit: Positive | None = None
    """Read only the first records."""
    license: str | None = None
    """The rows' licence, such as cc-by-4.0, for model cards; `private`: `bigchem push` then asks for --private. Stating
    it later needs no other build. Omitted: unknown."""
    columns: dict[Role, str] = Field(default_factory=dict)
    """csv, tsv, jsonl, datasets: the column of each role; empty: source, target and, if there is one, task. `source`
    alone, for a task with several labels: they are columns of their names."""
    task_names: dict[str, str] = Field(default_factory=dict)
    """Tasks by their names in the task column: {forward_synthesis = "forward"}; "" excludes such rows."""
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Only records whose columns have these values: {split = "train"}, or a list of values. Others are counted."""
    hub: str | None = None
    """datasets: owner/name on the Hugging Face hub, streamed, instead of a path."""
    config_name: str | None = None
    """datasets: the configuration (subset), if there are several."""
    hub_split: str = "train"
    """datasets: the split of the dataset to read."""
    chunk_chars: Positive = 2000
    """Unlabelled text: longer documents are cut at spaces into rows of at most this many characters."""
    selfies: bool = False
    """Texts such as `[C]`, which may be SELFIES or SMILES of a radical, are SELFIES. Other SELFIES are recognised."""
    reagents: Literal["keep", "drop"] = "keep"
    """Reactions: reagents stay among the reactants, or are dropped."""
    products: Literal["one", "all"] = "one"
    """Reactions with several products: refused, or all form the product side."""
    augment: Annotated[int, Field(ge=0)] = 0
    """Training rows: number of other spellings of each SMILES source, as extra rows."""
    rows: Positive = 1000
    """synthetic: number of rows."""
    seed: Annotated[int, Field(ge=0)] = 0
    """synthetic: which corpus."""
    split_column: str | None = None
    """csv, tsv, jsonl, datasets: the column of each row's split: train, valid, test, validation, dev, ..."""
    split_names: dict[str, Literal["train", "valid", "test", ""]] = Field(default_factory=dict)
    """Splits by other values of the split column: {holdout = "test"}; "" excludes such rows."""
    valid_fraction: Fraction = 0.0
    """Share of rows to hold out for validation."""
    test_fraction: Fraction = 0.0
    """Share of rows to hold out for testing."""
    split_by: str = "random"
    """Fractions: what stays in one split. `random`: equal rows; `molecule`: rows of one molecule, whatever its
    stereochemistry; `scaffold`: rows of one Bemis-Murcko scaffold, or of one molecule without a ring; `file`: files of
    one name; else the name of a column: rows with one value."""
    split_seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0
    """Fractions: another draw."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_split()
        if self.augment and self.split in ("valid", "test"):
            raise ValueError(f"augment is for split = 'train', not '{self.split}': held-out rows are not augmented")
        for name in self.model_fields_set & _ONLY_FOR.keys():
            if self.format not in _ONLY_FOR[name] and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {', '.join(_ONLY_FOR[name])}; it does not apply to '{self.format}'")
        if self.hub and self.path:
            raise ValueError("give path or hub, not both")
        if self.format == "parallel_text" and len(self.tasks) > 1:
            raise ValueError("parallel_text has one task; for another, add a source (with its paths swapped)")
        if self.columns:
            self._check_columns()
        if self.task_names and self.columns and "task" not in self.columns:
            raise ValueError("task_names needs a task column: columns = {source = ..., target = ..., task = ...}")
        return self

    @property
    def group_column(self) -> str | None:
        """The column by which rows are split."""
        named = self.split is None and self.split_column is None and self.split_by not in SPLIT_BY
        return self.split_by if named else self.split_column

    def _check_split(self) -> None:
        fractions = self.valid_fraction + self.test_fraction
        given = [self.split is not None, self.split_column is not None, fractions > 0]
        if not any(given):
            raise ValueError(
                "`split` is missing: give split = 'train', 'valid' or 'test'; or valid_fraction and test_fraction; "
                "or split_column"
            )
        if sum(given) > 1:
            raise ValueError("give one of split, split_column, and valid_fraction with test_fraction")
        if fractions > 1:
            raise ValueError(f"valid_fraction + test_fraction = {fractions:g}: should be at most 1")
        if not fractions and (self.split_by != "random" or self.split_seed):
            raise ValueError("split_by and split_seed are for valid_fraction and test_fraction")
        if self.split_names and self.split_column is None:
            raise ValueError("split_names is for split_column")
        if self.split_by not in SPLIT_BY and self.format not in NAMED_COLUMNS:
            raise ValueError(
                f"split_by = '{self.split_by}': format '{self.format}' has no such column; by {', '.join(SPLIT_BY)}"
            )

    def _check_columns(self) -> None:
        if self.format not in NAMED_COLUMNS:
            raise ValueError(f"columns is for {', '.join(NAMED_COLUMNS)}; format '{self.format}' has its own")
        roles = " + ".join(self.columns)
        if frozenset(self.columns) not in LAYOUTS:
            known = "; ".join(" + ".join(r for r in get_args(Role) if r in layout) for layout in LAYOUTS)
            raise ValueError(f"columns has the roles {roles}; a source has one of: {known}")

    def check_tasks(self, tasks: Tasks, gives: Callable[[Task], bool], where: str) -> None:
        """UserError for a task that is not defined, or for which the format or its columns give no rows."""
        layout = LAYOUTS[frozenset(self.columns)] if self.columns else gives
        for name in self.tasks:
            task = tasks.find(name, where)
            if not (gives(task) and layout(task)):
                by = f"columns {' + '.join(self.columns)}" if gives(task) else f"format '{self.format}'"
                able = [known for known, other in tasks.items() if gives(other) and layout(other)]
                raise UserError(f"{by} gives no rows for task '{name}'", where, f"it gives {' '.join(able)}")
        for name, known in self.task_names.items():
            if known and known not in tasks.scored:
                hint = nearest(known, list(tasks.scored))
                raise UserError(f"task_names maps '{name}' to '{known}', which is no task", where, hint)

    def only_task(self, tasks: Tasks) -> Task:
        """The task in `tasks`; if there is none, that of paragraph2actions, unless the recipe redefines it in another
        family: UserError."""
        wanted = self.chosen(tasks).values()
        task = next((task for task in wanted if self.tasks or task.family == "procedure"), None)
        if task is None:
            raise UserError(
                f"format '{self.format}' has no task", "sources", "add tasks = [...] to the [[sources]] table"
            )
        return task

    def chosen(self, tasks: Tasks) -> Tasks:
        """The tasks to make rows for: those of `tasks`, or else those that ship."""
        return tasks.only(self.tasks or shipped())


class Reader(Protocol):
    """A public format."""

    def gives(self, task: Task) -> bool:
        """Whether the format can give rows for a task."""

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Raw records in file order. UserError if a file is missing or is not of this format at all."""

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """The rows of one record, for the source's tasks. RowError if it cannot be parsed."""
