from __future__ import annotations

import pytest
from rich.table import Table

from bigchem.base.progress import amount, tables


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (9_310_000, "9.31 MB"), (2.67e9, "2.67 GB"), (999.6e9, "1 TB"), (5e12, "5 TB")],
)
def test_bytes_are_told_in_three_digits(size: float, words: str) -> None:
    assert amount(size) == words


def test_a_table_that_goes_to_a_file_has_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    table, reason = Table(box=None), "a reason " * 60
    for name in ("run", "reason"):
        table.add_column(name, no_wrap=name == "reason")
    table.add_row("base", reason)
    tables().print(table)
    assert f"base  {reason.strip()}" in capsys.readouterr().out.splitlines()[1]
