"""Text of others: shown safely on a terminal and in Markdown."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.printable import markdown_table, markup, one_line, printable, printable_lines


def test_text_of_others_moves_no_cursor_and_turns_no_line_around() -> None:
    assert printable("a\x1b[31mb\0c\u202ed\ud800e\r\nf\tg") == "a\ufffd[31mb\ufffdc\ufffdd\ufffde  f g"
    assert printable_lines("a\nb\x07") == "a\nb\ufffd"
    assert printable("long" * 9, limit=10) == "longlon..."
    assert markup("[red]x[/red]\n") == "\\[red]x\\[/red] "


def test_an_error_is_told_in_one_line_even_without_a_text() -> None:
    assert one_line(OSError()) == "OSError"
    assert one_line(RuntimeError("\n \n")) == "RuntimeError"
    assert one_line(ValueError("\nno such key\nhere\n")) == "no such key"
    assert len(one_line(ValueError("x" * 999))) == 200


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
def test_no_cell_ends_a_row_or_column_of_a_markdown_table_or_begins_html(rows: list[list[str]]) -> None:
    text = markdown_table(("a|b", "<i>c"), rows)
    assert text.startswith("| a\\|b | &lt;i>c |\n| --- | --- |\n")
    assert text.endswith("\n")
    assert "<" not in text
    lines = text[:-1].split("\n")
    assert len(lines) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
