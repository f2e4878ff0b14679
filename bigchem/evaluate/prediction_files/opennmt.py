"""Predictions as OpenNMT writes them: one file of lines each for sources, references and predictions."""

from collections.abc import Collection
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.data.reading.lines import open_text
from bigchem.evaluate.prediction_files.cells import read_list


def read_parallel(
    file: Path,
    sources: Path,
    references: Path,
    limit: int,
    encoding: str | None,
    separator: str | None,
    labels: Collection[str] = (),
) -> tuple[list[str], list[str], list[list[str]]]:
    """Sources, references and the k best predictions of each.

    Line n of sources and of references is example n. The file of predictions has one line per example, with candidates
    split at the separator (default: a tab) or in a list, or k lines per example. limit: characters of a line.
    labels: as in read_list. UserError if the numbers of lines do not match.
    """
    given, wanted, made = (_lines(path, limit, encoding) for path in (sources, references, file))
    if len(given) != len(wanted):
        blank = [
            str(path) for path, lines in ((sources, given), (references, wanted)) if lines and not lines[-1].strip()
        ]
        hint = f"the last line of {blank[0]} is empty: remove it" if blank else "which are parallel?"
        raise UserError(f"{number_of('line', len(wanted))}, but {len(given)} in {sources}", str(references), hint)
    if not given:
        raise UserError("no lines", str(sources))
    k, rest = divmod(len(made), len(given))
    if not k or rest:
        hint = f"one line per source, or k lines: {len(given)}, {2 * len(given)}, ..."
        if made and not made[-1].strip() and len(made) > 1 and not (len(made) - 1) % len(given):
            hint = f"the last line of {file} is empty: remove it"
        raise UserError(
            f"{number_of('line', len(made))} for {number_of('source', len(given))} in {sources}", str(file), hint
        )
    if k > 1:
        return given, wanted, [made[k * number : k * (number + 1)] for number in range(len(given))]
    return (
        given,
        wanted,
        [
            [made[number]] if separator == "none" else _split(made[number], separator, labels)
            for number in range(len(given))
        ],
    )


def _split(line: str, separator: str | None, labels: Collection[str]) -> list[str]:
    listed = read_list(line, labels) if separator is None else None
    if listed:
        return listed
    found = [text.strip() for text in line.split(separator or "\t")]
    while len(found) > 1 and not found[-1]:
        found.pop()
    return found


def _lines(path: Path, limit: int, encoding: str | None) -> list[str]:
    if not path.is_file():
        raise UserError("no such file", str(path))
    lines = list(open_text(str(path), limit, encoding))
    for number, line in enumerate(lines, 1):
        if len(line) > limit:
            raise UserError(f"longer than {limit:,} characters", f"{path}:{number}")
    return lines
