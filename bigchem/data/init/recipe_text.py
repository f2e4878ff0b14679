"""A proposed recipe as TOML with comments. Pure."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from bigchem.base.printable import printable
from bigchem.data.init.groups import Group
from bigchem.data.init.proposals import SourceGuess
from bigchem.data.init.samples import Sample

_WIDTH = 110


def recipe_text(groups: list[Group], out: Path, limits: Mapping[str, tuple[Any, str]], draw: Mapping[str, Any]) -> str:
    """The recipe, to be written to `out`. limits: fields at its top, and why. draw: fields of sources that are split
    by fractions."""
    blocks = [_header(groups, out)]
    if limits:
        blocks.append([field(name, found, why) for name, (found, why) in limits.items()])
    blocks.append(_tokenizer(sum(file.records for group in groups for file in group.files)))
    tasks = {task.name: task for group in groups for task in group.proposal.tasks}
    blocks += [_task(task.name, task.record, task.why) for task in tasks.values()]
    for group in groups:
        blocks += _sources(group, out, draw)
        blocks[-1] += _notes(group)
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def value(found: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(found, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {value(inner)}" for name, inner in found.items()) + " }"
    if isinstance(found, list | tuple):
        return "[" + ", ".join(map(value, found)) + "]"
    return tomli_w.dumps({"x": found}).removeprefix("x = ").rstrip("\n")


def field(name: str, found: Any, why: str | None = None) -> str:
    """`name = value  # why`; a long comment is on the line above."""
    line = f"{_key(name)} = {value(found)}"
    if why is None:
        return line
    note = _comment(why)
    return f"{line}  {note}" if len(line) + len(note) + 2 <= _WIDTH else f"{note}\n{line}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else value(name)


def _comment(text: str) -> str:
    return f"# {printable(text)}"


def _header(groups: list[Group], out: Path) -> list[str]:
    files = list(dict.fromkeys(file.path for group in groups for file in group.files))
    named = " ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    return [
        _comment(f"Written by `bigchem data init` from {named}. Comments say what each guess rests on."),
        _comment(f"Correct what is wrong; then: bigchem data build {out} data/{out.stem}"),
        _comment('For model cards, state the licence of your data in each [[sources]]: license = "cc-by-4.0"'),
    ]


def _tokenizer(records: int) -> list[str]:
    size = 512 if records < 5000 else 2048
    return [
        "[tokenizer]",
        field("vocab_size", size, "trained on these files; for T5's vocabulary, t5 = 'FOLDER' instead"),
    ]


def _task(name: str, record: Mapping[str, Any] | None, why: Mapping[str, str]) -> list[str]:
    if record is None:
        return [_comment(f"Task {name} ships with bigchem. {'; '.join(dict.fromkeys(why.values()))}")]
    return [f"[tasks.{name}]", *(field(key, found, why.get(key)) for key, found in record.items())]


def _sources(group: Group, out: Path, draw: Mapping[str, Any]) -> list[list[str]]:
    return [
        _source(
            file,
            source,
            {**splits, **(draw if {"valid_fraction", "test_fraction"} & splits.keys() else {})},
            group.why,
            out,
        )
        for file, splits in zip(group.files, group.splits, strict=True)
        for source in group.proposal.sources
    ]


def _source(file: Sample, source: SourceGuess, splits: Mapping[str, Any], why: str, out: Path) -> list[str]:
    fields = {
        "format": file.format,
        "path": _relative(file.path, out),
        **file.options,
        "columns": source.columns,
        "tasks": list(source.tasks),
        **({"task_names": source.task_names} if source.task_names else {}),
    }
    lines = ["[[sources]]", *(field(name, found) for name, found in fields.items())]
    return [*lines, *(field(name, found, why if n == 0 else None) for n, (name, found) in enumerate(splits.items()))]


def _notes(group: Group) -> list[str]:
    """What the guesses about some files leave out."""
    unused = group.proposal.unused
    notes = ["Columns that are not used:", *(f"  {name}: {why}" for name, why in unused.items())] if unused else []
    for file in group.files:
        if not file.whole:
            notes.append(f"{file.path} has more than the {file.records:,} records that were looked at.")
        if file.options.get("encoding") == "cp1252":
            notes.append(f"{file.path} is not UTF-8; read as cp1252 (Windows): check letters such as ö and µ.")
        if file.skipped:
            notes.append(f"{file.path}: {file.skipped:,} records with other columns were not looked at.")
    return list(map(_comment, notes))


def _relative(path: str, out: Path) -> str:
    """A path as the recipe names it: relative to the recipe's folder if it is inside, else absolute."""
    whole, folder = Path(path).resolve(), out.resolve().parent
    return os.path.relpath(whole, folder) if whole.is_relative_to(folder) else str(whole)
