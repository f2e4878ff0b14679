"""What a column of a table holds, from its cells alone. Pure.

Every guess says what it rests on. The order of the checks decides between readings: few values are labels before they
are numbers or SMILES (`0`, `C`), formulas come before names.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rdkit import Chem

from bigchem.base.printable import printable
from bigchem.chemistry import NotationError, is_missing, is_selfies, read
from bigchem.data.build.splits import NAMES
from bigchem.data.sources.sides import finite

Kind = Literal[
    "smiles",
    "reaction",
    "number",
    "label",
    "formula",
    "name",
    "protein",
    "text",
    "split",
    "identifier",
    "constant",
    "empty",
    "other",
]
KINDS: dict[Kind, str] = {
    "smiles": "SMILES",
    "reaction": "reaction SMILES",
    "number": "numbers",
    "formula": "molecular formulas",
    "name": "systematic names",
    "protein": "protein sequences",
    "text": "texts",
}
"""In words, for kinds of which a share of the cells is counted."""
MAX_LABELS = 20
"""Different values of a label."""
PER_LABEL = 5
"""Mean cells per value from which few values are labels."""
_FEW = 5
"""Different whole numbers that are labels even if the column's name does not say so."""
_LONGEST_LABEL = 40
_WORDS = 4
"""Mean words of a cell from which a column is text."""
TRIED = 500
"""Cells that a slow check, such as RDKit's, looks at, evenly spread."""
_BELOW = 20
"""Records that decide whether a word above them is the name of a column or a SMILES."""
SURE, LIKELY = 0.95, 0.8
"""Shares of the cells. SMILES and names are accepted at the lower: of either, RDKit and rules miss some."""

_REACTION = re.compile(r"[^\s>]+>[^\s>]*>[^\s>]+")
_ELEMENT = re.compile(r"[A-Z][a-z]?")
_ELEMENTS = {Chem.GetPeriodicTable().GetElementSymbol(number) for number in range(1, 119)}
_FORMULA = re.compile(r"(?:[A-Z][a-z]?(?:[1-9]\d{0,3})?)+(?:[+-]\d*)?")
_PROTEIN = re.compile(r"[ABCDEFGHIKLMNOPQRSTUVWXYZ]{20,}\*?")
_ALMOST_NUMBER = re.compile(
    r"[<>=~≤≥≈]{0,2}\s*[+−-]?\d[\d.,' ]*(?:e[+−-]?\d+)?\s*(?:[±–−-]\s*\d[\d., ]*)?(?:[^\W\d_]|[%°µ/·^²³ -])*",
    re.IGNORECASE,
)
"""With a unit, thousands separators, a decimal comma, an error, a sign for a bound, or a range."""
_LOCANT = re.compile(r"\d['a-zA-Z]{0,2}(?:,\d+['a-zA-Z]{0,2})*-|[\[(][^\s)\]]+[)\]]|yl|hydroxy|oxo")
_NAME_ENDS = re.compile(
    r"(?:[ae]ne|yne|an|ol|one|al|amin|amine|amide|imide|ate|ide|ine|ite|acid|ium|yl|oxide|ether|ole|nitrile|urea|ose"
    r"|hyde|thiol|ane|arin|in|lin|azide|acetal|oxime)$"
)
_ID_NAME = re.compile(
    r"(?:^|[\W_])(?:id|cid|sid|index|idx|num|nr|no|key|inchikey|cas|uuid)$|^unnamed|^#$|^$", re.IGNORECASE
)
_CLASS_NAME = re.compile(r"class|label|categor|type", re.IGNORECASE)
_POSITIVE = ("1", "yes", "true", "active", "positive", "toxic", "pass", "high", "y", "t")
_BINARY = {"0", "1", "yes", "no", "true", "false", "active", "inactive"}


@dataclass(frozen=True)
class Column:
    """A column's kind and the evidence. missing: share of empty cells. values: of labels and splits, the positive or
    largest last. decimals: digits after the point that a number needs. several: share of SMILES of several compounds.
    """

    name: str
    kind: Kind
    why: str
    missing: float = 0.0
    values: tuple[str, ...] = ()
    decimals: int | None = None
    several: float = 0.0

    @property
    def binary(self) -> bool:
        """Whether it is a label of two values that mean no and yes."""
        return self.kind == "label" and len(self.values) == 2 and {value.lower() for value in self.values} <= _BINARY


def examine(name: str, cells: Sequence[str]) -> Column:
    """The kind of a column, from its cells as text."""
    given = [cell.strip() for cell in cells if not is_missing(cell)]
    missing = 1 - len(given) / max(1, len(cells))
    column = _kind(name, given)
    if not missing or not given:
        return column
    return replace(column, missing=missing, why=f"{column.why}; {_share(missing)} of {len(cells):,} are empty")


def is_record(names: Sequence[str], records: Sequence[Sequence[str]]) -> bool:
    """Whether what should be the names of columns is a record: a SMILES or a decimal number among them. A word such as
    CONC is one if the records have SMILES below it."""
    return any(
        ("." in name and finite(name) is not None)
        or (len(name) > 3 and _is_smiles(name) and not (name.isalpha() and _are_no_smiles(cells)))
        for name, *cells in zip(names, *records[:_BELOW], strict=True)
    )


def _are_no_smiles(cells: Sequence[str]) -> bool:
    given = [cell for cell in cells if not is_missing(cell)]
    return sum(map(_is_smiles, given)) < LIKELY * max(1, len(given))


def _kind(name: str, given: list[str]) -> Column:
    counts = Counter(given)
    if len(counts) < 2:
        return _without_values(name, given)
    if {value.lower() for value in counts} <= NAMES.keys():
        listed = ", ".join(f"{count:,} {value}" for value, count in counts.most_common())
        return Column(name, "split", f"its values name splits: {listed}", values=tuple(counts))
    numbers = [value for cell in given if (value := finite(cell)) is not None]
    if len(numbers) >= SURE * len(given):
        return _numeric(name, given, numbers)
    if all(map(_is_protein, counts)):
        return Column(name, "protein", f"all of {len(given):,} cells are {KINDS['protein']}")
    if len(counts) <= MAX_LABELS and len(given) >= PER_LABEL * len(counts) and max(map(len, counts)) <= _LONGEST_LABEL:
        return _label(name, counts, len(given))
    return _by_tests(name, given) or _no_smiles(name, given) or _words(name, given)


def _without_values(name: str, given: list[str]) -> Column:
    if not given:
        return Column(name, "empty", "no cell has a value")
    return Column(name, "constant", f"every cell is {_shown(given[0])}", values=(given[0],))


def _by_tests(name: str, given: list[str]) -> Column | None:
    for kind, test, least, slow in _TESTS:
        tried = spread(given) if slow else given
        found = sum(map(test, tried)) / len(tried)
        if found >= least:
            why = f"{_share(found)} of {len(tried):,} cells are {KINDS[kind]}"
            several = sum("." in cell for cell in tried) / len(tried) if kind == "smiles" else 0.0
            return Column(name, kind, why, several=several)
    return None


def _no_smiles(name: str, given: list[str]) -> Column | None:
    """A column that is called SMILES and holds others: why it is not used."""
    if "smiles" not in name.lower():
        return None
    tried = spread(given)
    others = [cell for cell in tried if not _is_smiles(cell)]
    share = _share(1 - len(others) / len(tried))
    why = f"only {share} of {len(tried):,} cells are SMILES that RDKit reads; not {_shown(others[0])}"
    return Column(name, "other", why)


def _words(name: str, given: list[str]) -> Column:
    words = sum(len(cell.split()) for cell in given) / len(given)
    if words >= _WORDS:
        return Column(name, "text", f"texts of {words:.0f} words on average")
    if len(almost := [cell for cell in given if _ALMOST_NUMBER.fullmatch(cell)]) >= LIKELY * len(given):
        first = next((cell for cell in almost if finite(cell) is None), almost[0])
        why = f"{_share(len(almost) / len(given))} of {len(given):,} cells are numbers with a unit, a comma or a sign"
        return Column(name, "other", f"{why}, such as {_shown(first)}: write plain numbers, with a decimal point")
    different = len(set(given))
    if different > 0.5 * len(given):
        return Column(name, "identifier", f"short texts, {_share(different / len(given))} of them different")
    return Column(name, "other", f"{different:,} short texts")


def spread(cells: Sequence[str], count: int = TRIED) -> list[str]:
    """At most `count` of the cells, evenly spread."""
    step = max(1.0, len(cells) / count)
    return [cells[int(n * step)] for n in range(min(count, len(cells)))]


def _numeric(name: str, given: list[str], numbers: list[float]) -> Column:
    """A column of numbers: labels if they are few whole ones, identifiers if they count or are called so."""
    whole, distinct = all(value == int(value) for value in numbers), sorted(set(numbers))
    most = MAX_LABELS if _CLASS_NAME.search(name) else _FEW
    if len(numbers) == len(given) and whole and len(distinct) <= most and len(given) >= PER_LABEL * len(distinct):
        counts = Counter(str(int(value)) for value in numbers)
        return _label(name, counts, len(given))
    share = f"{_share(len(numbers) / len(given))} of {len(given):,} cells are numbers"
    if (
        whole
        and len(distinct) == len(numbers)
        and (_ID_NAME.search(name) or distinct[-1] - distinct[0] == len(distinct) - 1)
    ):
        return Column(name, "identifier", "whole numbers, all different")
    return Column(
        name, "number", f"{share}, from {distinct[0]:g} to {distinct[-1]:g}", decimals=_decimals(given, numbers)
    )


def _decimals(given: list[str], numbers: list[float]) -> int | None:
    """Digits after the point that resolve a hundredth of the numbers' spread, and two digits of all but the smallest
    where none is negative: 0.012 among IC50 values up to 1000 is not 0. At most as many as are written. None for
    numbers written with exponents. given: the cells, of which some may be no numbers."""
    texts = [cell for cell in given if finite(cell) is not None]
    if any("e" in text.lower() for text in texts):
        return None
    written = max(len(text.partition(".")[2]) for text in texts)
    mean = sum(numbers) / len(numbers)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in numbers) / len(numbers))
    if not deviation:
        return written
    digits = max(0, math.ceil(2 - math.log10(deviation)))
    above = sorted(filter(None, numbers))
    small = above[len(above) // 20]
    return min(written, digits if above[0] < 0 else max(digits, 1 - math.floor(math.log10(small))))


def _label(name: str, counts: Counter[str], cells: int) -> Column:
    values = sorted(counts, key=lambda value: (_positive(value), not _denies(value, counts), *_order(value)))
    listed = ", ".join(f"{_shown(value)} ({counts[value]:,})" for value in values[:6])
    more = f" and {len(values) - 6} more" if len(values) > 6 else ""
    why = f"{cells:,} cells have {len(values)} values: {listed}{more}"
    spelled = Counter(value.lower() for value in values)
    if same := [_shown(value) for value in values if spelled[value.lower()] > 1]:
        why += f"; {', '.join(same[:6])} differ only in case and are learnt as different"
    return Column(name, "label", why, values=tuple(values))


def _positive(value: str) -> bool:
    """Whether it goes last: a word for yes, or BBB+."""
    return finite(value) is None and (value.lower() in _POSITIVE or value.endswith("+"))


def _denies(value: str, values: Iterable[str]) -> bool:
    """Whether it is another value with a no before it: nonmutagenic, not toxic."""
    bare = _bare(value)
    return any(bare == no + other for other in map(_bare, values) for no in ("non", "not", "no", "in", "im", "un"))


def _bare(value: str) -> str:
    return "".join(filter(str.isalnum, value.lower()))


def _order(value: str) -> tuple[float, str]:
    """Numbers by size, others by name."""
    number = finite(value)
    return math.inf if number is None else number, value


def _share(share: float) -> str:
    """A percentage that is 100 or 0 only if it is exactly."""
    percent = 100 * share
    return (
        f"{percent:.0f} %"
        if percent in (0, 100)
        else f"{min(99.9, max(0.1, percent)):.{int(not 1 <= percent <= 99)}f} %"
    )


def _shown(value: str) -> str:
    return f"'{printable(value, limit=30)}'"


def _is_smiles(cell: str) -> bool:
    if is_selfies(cell):
        return True
    try:
        read(cell, "chemistry")
    except NotationError:
        return False
    return True


def _is_formula(cell: str) -> bool:
    """Hill or not: elements with counts, none twice, not only letters that are SMILES too, and no CHEMBL25."""
    if not _FORMULA.fullmatch(cell) or not any(map(str.isdigit, cell)):
        return False
    symbols = _ELEMENT.findall(cell)
    return len(set(symbols)) == len(symbols) and _ELEMENTS.issuperset(symbols)


def _is_protein(cell: str) -> bool:
    return _PROTEIN.fullmatch(cell) is not None and len(set(cell)) >= 8


def _is_name(cell: str) -> bool:
    """As IUPAC's rules make them: an ending for the class, and locants, brackets or substituents."""
    return _NAME_ENDS.search(cell.lower()) is not None and _LOCANT.search(cell) is not None and len(cell.split()) < 8


_TESTS: tuple[tuple[Kind, Callable[[str], bool], float, bool], ...] = (
    ("reaction", lambda cell: _REACTION.match(cell) is not None, SURE, False),
    ("formula", _is_formula, SURE, False),
    ("protein", _is_protein, SURE, False),
    ("smiles", _is_smiles, LIKELY, True),
    ("name", _is_name, LIKELY, False),
)
"""Kind, its test, the least share of cells that pass, and whether it is slow."""
