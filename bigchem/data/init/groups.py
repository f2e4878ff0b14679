"""Files that belong together, such as train.csv and test.csv, and what is proposed for them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bigchem.data.init.columns import Column, examine
from bigchem.data.init.proposals import TaskGuess
from bigchem.data.init.samples import READ, Sample
from bigchem.data.init.tables import Proposal, propose


@dataclass(frozen=True)
class Group:
    """Files with the same columns, and one proposal for them. columns: by name. splits: of each file, fields of its
    `[[sources]]` table, and why."""

    files: tuple[Sample, ...]
    columns: dict[str, Column]
    proposal: Proposal
    splits: tuple[dict[str, Any], ...]
    why: str


def grouped(samples: Sequence[Sample]) -> list[Group]:
    """One group per subject and layout, in the order of the files. Tasks of one name and different records get the
    subject's name too."""
    together: dict[tuple[str, str, tuple[str, ...]], list[Sample]] = {}
    for sample in _without_wholes(samples):
        together.setdefault((sample.subject, sample.format, tuple(sample.cells)), []).append(sample)
    return _distinct([_group(tuple(files)) for files in together.values()])


def _without_wholes(samples: Iterable[Sample]) -> list[Sample]:
    """All but splits that repeat others: LPM-24 has `split_train` and `split_valid` beside `train`, which is both."""
    parts = {(sample.path, sample.part) for sample in samples}
    return [sample for sample in samples if (sample.path, f"split_{sample.part}") not in parts]


def _group(files: tuple[Sample, ...]) -> Group:
    most = max(1, READ // len(files))
    cells = {name: [cell for file in files for cell in file.cells[name][:most]] for name in files[0].cells}
    columns = {name: examine(name, column) for name, column in cells.items()}
    proposal = propose(columns, cells, files[0].subject)
    for name in files[0].lists:
        proposal.unused[name] = "lists"
    splits, why = _splits(files, proposal)
    if proposal.splits and all("split_column" not in own for own in splits):
        proposal.unused[proposal.splits.name] = f"{proposal.splits.why}; so do the files"
    return Group(files, columns, proposal, splits, why)


def _splits(files: tuple[Sample, ...], proposal: Proposal) -> tuple[tuple[dict[str, Any], ...], str]:
    named = [file.split for file in files]
    if all(named) and "train" in named:
        missing = "valid" not in named
        if set(named) == {"train"}:
            return tuple({**_fractions(files), **_by(proposal)} for _ in files), "only a file for training is given"
        own: list[dict[str, Any]] = [
            {"valid_fraction": 0.1, **_by(proposal)} if missing and split == "train" else {"split": split}
            for split in named
        ]
        return tuple(own), "by the names of the files" + ("; none is for validation" if missing else "")
    if proposal.splits is not None and "train" in {value.lower() for value in proposal.splits.values}:
        return tuple({"split_column": proposal.splits.name} for _ in files), proposal.splits.why
    why = "rows of one molecule stay together; split_by = 'scaffold' is harder" if proposal.molecules else "at random"
    fractions = {**_fractions(files), **_by(proposal)}
    return tuple(fractions for _ in files), f"no file and no column names a split; {why}"


def _fractions(files: tuple[Sample, ...]) -> dict[str, float]:
    """Shares to hold out: of few rows more, and no validation rows of very few."""
    total = sum(file.records for file in files)
    valid, test = (0.1, 0.1) if total >= 200 else (0.1, 0.2) if total >= 50 else (0.0, 0.2)
    return {**({"valid_fraction": valid} if valid else {}), "test_fraction": test}


def _by(proposal: Proposal) -> dict[str, str]:
    return {"split_by": "molecule"} if proposal.molecules else {}


def _distinct(groups: list[Group]) -> list[Group]:
    """The groups, with tasks renamed that have the name of another group's and another record."""
    records: dict[str, dict[str, Any] | None] = {}
    found = []
    for group in groups:
        names = {}
        for task in group.proposal.tasks:
            if records.setdefault(task.name, task.record) != task.record:
                names[task.name] = f"{group.files[0].subject}_{task.name}"[:64]
                records[names[task.name]] = task.record
        found.append(replace(group, proposal=_renamed(group.proposal, names)) if names else group)
    return found


def _renamed(proposal: Proposal, names: dict[str, str]) -> Proposal:
    def rename(task: TaskGuess) -> TaskGuess:
        record = task.record
        if record is not None and "inverse" in record:
            record = {**record, "inverse": names.get(record["inverse"], record["inverse"])}
        return replace(task, name=names.get(task.name, task.name), record=record)

    sources = tuple(
        replace(
            source,
            tasks=tuple(names.get(name, name) for name in source.tasks),
            task_names={value: names.get(name, name) for value, name in source.task_names.items()}
            | {name: names[name] for name in source.tasks if name in names and "task" in source.columns},
        )
        for source in proposal.sources
    )
    return replace(proposal, tasks=tuple(map(rename, proposal.tasks)), sources=sources)
