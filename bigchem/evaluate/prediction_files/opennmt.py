"""Predictions as OpenNMT writes them: lines of a file, beside a file of sources and one of references."""

from __future__ import annotations

from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.data.reading.lines import open_text


def read_parallel(
    file: Path, sources: Path, references: Path, most: int, encoding: str | None, separator: str | None
) -> tuple[list[str], list[str], list[list[str]]]:
    """Sources, references and the k best predictions of each.

    Line n of sources and of references is example n. A file of predictions has one line for each, its candidates
    behind one another with the separator (default: a tab) between, or k lines for each. most: characters of a line.
    UserError for numbers of lines that do not fit.
    """
    asked, wanted, made = (_lines(path, most, encoding) for path in (sources, references, file))
    if len(asked) != len(wanted):
        raise UserError(f"{len(wanted)} lines, but {len(asked)} in {sources}", str(references), "which are parallel?")
    if not asked:
        raise UserError("no lines", str(sources))
    k, left = divmod(len(made), len(asked))
    if not k or left:
        hint = f"one line for each source, or the same number: {len(asked)}, {2 * len(asked)}, ..."
        raise UserError(f"{len(made)} lines for {len(asked)} sources in {sources}", str(file), hint)
    if k > 1:
        return asked, wanted, [made[k * number : k * (number + 1)] for number in range(len(asked))]
    return (
        asked,
        wanted,
        [[made[number]] if separator == "none" else _split(made[number], separator) for number in range(len(asked))],
    )


def _split(line: str, separator: str | None) -> list[str]:
    found = [one.strip() for one in line.split(separator or "\t")]
    while len(found) > 1 and not found[-1]:
        found.pop()
    return found


def _lines(path: Path, most: int, encoding: str | None) -> list[str]:
    if not path.is_file():
        raise UserError("no such file", str(path))
    lines = list(open_text(str(path), most, encoding))
    for number, line in enumerate(lines, 1):
        if len(line) > most:
            raise UserError(f"longer than {most:,} characters", f"{path}:{number}")
    return lines
