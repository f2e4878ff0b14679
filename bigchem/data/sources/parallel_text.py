"""Two parallel text files: procedures and their actions, as from paragraph2actions, or the src and tgt files of any
task, as in OpenNMT."""

import re
from collections.abc import Iterator
from dataclasses import replace

from bigchem.base.errors import UserError
from bigchem.data.reading.lines import open_text
from bigchem.data.reading.paths import expand
from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.columns import labelled_row
from bigchem.data.sources.files import source_files
from bigchem.data.sources.rows import checked_fields
from bigchem.tasks import Task, Tasks

_SEPARATED = re.compile(r"\A([^<>]*)(?<!-)>([^<>]*)\Z")
"""`reactants > reagents`; -> is a dative bond."""


class ParallelText:
    """`path` has the sources, `target_path` the targets, matched line by line.

    The task is the one in `tasks`. For retrosynthesis from files of product prediction, `path` is the tgt file and
    `target_path` the src file. A line of a reaction may be `reactants > reagents`, as in Molecular
    Transformer's separated setting: all of them become reactants, which is counted.
    """

    def gives(self, task: Task) -> bool:
        return not task.spans

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: source line, target line. UserError if the files differ in length, since any pair could be wrong."""
        paths = source_files(source)
        if not source.target_path:
            raise UserError("parallel_text needs two files", paths[0], "add target_path = ... to the [[sources]] table")
        targets = expand(source.target_path)
        if len(paths) != len(targets):
            raise UserError(f"{len(paths)} files, but {len(targets)} in target_path", paths[0], "name them in pairs")
        for path, target in zip(paths, targets, strict=True):
            lengths = [sum(1 for _ in open_text(file, encoding=source.encoding)) for file in (path, target)]
            if lengths[0] != lengths[1]:
                raise UserError(f"{lengths[0]} lines, but {lengths[1]} in {target}", path, "the two must be parallel")
        for path, target in zip(paths, targets, strict=True):
            pairs = zip(*(open_text(file, encoding=source.encoding) for file in (path, target)), strict=True)
            for number, (text, wanted) in enumerate(pairs, start=1):
                yield Record(path, number, (text, wanted))

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """One row. RowError if a side that should be SMILES cannot be read by RDKit."""
        text, target = checked_fields(record, 2)
        task = source.only_task(tasks)
        sides = _mixed(text, task.source_domain), _mixed(target, task.target_domain)
        row = labelled_row(task, *sides, source)
        return [row if sides == (text, target) else replace(row, repairs=("reagents", *row.repairs))]


def _mixed(text: str, domain: str) -> str:
    """A side with its reagents among the reactants; in any other domain a `>` is the text's own."""
    return _SEPARATED.sub(_joined, text) if domain == "reactants" else text


def _joined(found: re.Match[str]) -> str:
    reactants, reagents = found[1].strip(), found[2].strip()
    spaced = " " in reactants or " " in reagents
    return (" . " if spaced else ".").join(filter(None, (reactants, reagents)))
