from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from bigchem.base.errors import UserError
from bigchem.base.toml import LISTED, Section, overridden, validate
from bigchem.config import RunConfig, steps_for


class Part(Section):
    """A part."""

    size: Annotated[int, Field(gt=0)]
    """Its size."""
    path: str | tuple[str, ...] = ""
    """Its files."""
    ends: tuple[float, float] = (0.0, 1.0)
    """Two numbers."""


class Whole(Section):
    """A whole."""

    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """Its parts."""
    named: dict[str, Part] = Field(default_factory=dict)
    """More of them."""


def error(table: dict[str, object]) -> str:
    with pytest.raises(UserError) as caught:
        validate(Whole, table, "whole.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "whole.toml: `parts` is missing\nnext: parts: Its parts."),
        ({"parts": [{}]}, "whole.toml: parts[0]: `size` is missing\nnext: size: Its size."),
        ({"parts": [{"size": 1}, {"size": 0}]}, "parts[1].size = 0: should be greater than 0\nnext: size: Its size."),
        ({"parts": [{"size": 1, "sise": 2}]}, "parts[0]: unknown key `sise`\nnext: did you mean 'size'?"),
        ({"parts": [{"size": 1, "ends": [0.0]}]}, "whole.toml: `parts[0].ends[1]` is missing"),
        ({"parts": [{"size": 1, "path": 3}]}, "parts[0].path = 3: should be a valid string or a valid "),
        ({"parts": [{"size": 1}], "named": {"a b": {}}}, 'named."a b": `size` is missing\nnext: size: Its size.'),
        ({"parts": [{"size": 1}], "named": {"a": {"size": 1, "pth": ""}}}, "`pth`\nnext: did you mean 'path'?"),
        ({"parts": []}, "parts = []: should"),
    ],
)
def test_an_error_names_the_place_and_the_key(table: dict[str, object], message: str) -> None:
    assert message in error(table)


def test_every_error_has_a_line_and_a_refused_element_does_not_make_its_list_empty() -> None:
    assert error({"parts": [{"size": 1, "x": 1}, {}], "nmed": {}}).splitlines() == [
        "whole.toml: 3 errors",
        "  parts[0]: unknown key `x` (known: ends, path, size)",
        "  parts[1]: `size` is missing",
        "  unknown key `nmed` (did you mean 'named'?)",
    ]
    assert "errors" not in error({"parts": [{}]})


def test_at_most_ten_errors_are_listed_and_the_others_counted() -> None:
    lines = error({"parts": [{}] * (LISTED + 4)}).splitlines()
    assert len(lines) == LISTED + 2
    assert lines[-1] == "  and 4 more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["size", "path", "ends", "parts", "x", "[key]", ""]), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["parts", "named", "x"]), JSON))
def test_whatever_a_table_holds_its_errors_are_listed(table: dict[str, object]) -> None:
    lines = ""
    try:
        validate(Whole, table, "whole.toml")
    except UserError as refused:
        lines = str(refused)
    assert len(lines.splitlines()) <= LISTED + 2


def test_an_override_replaces_the_field_that_excludes_it() -> None:
    """As of the settings that fine-tune chooses."""
    config = validate(RunConfig, {"train": {"steps": 2000}}, "fine-tune")
    changed = overridden(config, ["train.tokens=1e9"])
    assert changed.train.tokens == 1e9
    assert changed.train.steps == steps_for(1e9, config.data.global_tokens)
    assert overridden(config, ["train.steps=3000"]).train.steps == 3000
