"""Notations: recognised by their syntax, repaired by one set of rules, every repair named."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.chemistry import (
    REPAIRS,
    STRIP,
    NotationError,
    Reading,
    is_selfies,
    joined,
    parse,
    read,
    read_answer,
    try_parse,
)
from bigchem.chemistry.tokens import atom_starts


def split_at(smiles: str, starts: list[int]) -> str:
    return " ".join(smiles[a:b] for a, b in zip(starts, [*starts[1:], len(smiles)], strict=True))


@pytest.mark.parametrize("smiles", ["CC(=O)Cl.OCC", "c1ccc(Br)cc1", "[Na+].[Cl-]", "C%12CC%12", r"F/C=C\F"])
def test_smiles_that_were_split_for_a_tokenizer_are_joined_by_token_and_by_character(smiles: str) -> None:
    assert joined(split_at(smiles, atom_starts(smiles))) == smiles
    assert joined(" ".join(smiles)) == smiles
    assert read(" ".join(smiles), "chemistry").repairs == ("joined",)


@pytest.mark.parametrize("text", ["CCO ethanol", "C 1", "CC O", "C", "", "CCO CCN"])
def test_a_name_or_two_molecules_are_not_joined(text: str) -> None:
    assert joined(text) is None


@pytest.mark.parametrize(
    ("text", "names", "smiles", "repairs"),
    [
        ("CCO ethanol", True, "CCO", ("name",)),
        ("CCO\t17", True, "CCO", ("name",)),
        ("CCO |$a;b;c$|", False, "CCO", ("extension",)),
        ("CCO |$a;b;c$| ethanol", True, "CCO", ("extension",)),
        (r"C/C=C\\C", False, r"C/C=C\C", ("backslashes",)),
        ("<SMILES> CCO </SMILES>", False, "CCO", ("tags",)),
        ("[START_SMILES]CCO[END_SMILES]", False, "CCO", ("tags",)),
        ("<pad> <SMILES>C C O</SMILES></s>", False, "CCO", ("special_tokens", "tags", "joined")),
        ("InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", False, "CCO", ("inchi",)),
        (" CCO\n", False, "CCO", ()),
        ("[O][O]", False, "[O][O]", ("doubtful",)),
        ("[H][H]", False, "[H][H]", ()),
        ("[Na+].[Cl-]", False, "[Na+].[Cl-]", ()),
    ],
)
def test_smiles_are_repaired_and_the_repairs_named(
    text: str, names: bool, smiles: str, repairs: tuple[str, ...]
) -> None:
    reading = read(text, "chemistry", names=names)
    assert (reading.text, reading.repairs) == (smiles, repairs)
    assert set(repairs) <= REPAIRS.keys()


@pytest.mark.parametrize(
    ("text", "smiles"),
    [
        ("[CH3:1][CH2:2][OH:3]", "CCO"),
        ("[CH3:1][OH:2].[CH3:3][CH2:4][Br:5]", "CO.CCBr"),
        ("OCC.[CH3:1][OH:2]", "CCO.CO"),
        ("[Na+:1]~[OH-:2].[CH4:3]", "[Na+]~[OH-].C"),
        ("[CH3:1][C@H:2]([CH3:3])[OH:4]", "CC(C)O"),
        ("[CH3:1]1.[CH3:2]1", "[CH3]1.[CH3]1"),
    ],
)
def test_atom_maps_are_removed_with_the_brackets_that_held_them(text: str, smiles: str) -> None:
    reading = read(text, "chemistry")
    assert (reading.text, reading.repairs) == (smiles, ("maps",))
    assert read(smiles, "chemistry") == Reading(smiles)
    assert read_answer(text, "chemistry") == Reading(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("</s>", "empty"),
        ("CCO ethanol", "a space in SMILES"),
        ("CCO |a", "a space in SMILES"),
        ("C?C", "lost"),
        ("CC<unk>C", "lost"),
        ("c1ccnc1", "RDKit cannot read"),
        ("C1CC", "RDKit cannot read"),
        ("InChI=1S/nothing", "cannot read the InChI"),
        ("C\0", "RDKit cannot read|a space"),
    ],
)
def test_what_is_no_smiles_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(NotationError, match=reason):
        read(text, "chemistry")


@pytest.mark.parametrize(
    "missing", ["", "  ", "NaN", "nan", "<NA>", "None", "none", "NULL", "null", "N/A", "#N/A", "-", "--", "</s> ."]
)
def test_a_missing_caption_is_no_text(missing: str) -> None:
    with pytest.raises(NotationError, match=r"empty|missing"):
        read(missing, "text")


@pytest.mark.parametrize("text", ["None of the atoms is charged.", "nano", "5", "\u6c34"])
def test_a_short_caption_is_a_text(text: str) -> None:
    assert read(text, "text") == Reading(text)


def test_characters_that_were_lost_in_a_caption_are_noticed_and_stay() -> None:
    reading = read("The <unk> acid.</s>", "text")
    assert (reading.text, reading.repairs) == ("The <unk> acid.", ("special_tokens", "lost"))


@pytest.mark.parametrize("text", ["[C][C][O]", "[C][=C]", "[C][Branch1][C][O][C]", "[C][C].[O][Ring1]", "[#N][nop]"])
def test_selfies_are_recognised(text: str) -> None:
    assert is_selfies(text)


@pytest.mark.parametrize("text", ["[C]", "[O][O]", "[13CH3][OH]", "[NH4+].[OH-]", "[H][H]", "[C-]#[O+]", "CC", ""])
def test_smiles_of_brackets_are_no_selfies(text: str) -> None:
    assert not is_selfies(text)


def test_selfies_are_decoded_by_the_package_and_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("selfies")
    reading = read("[C][C][=C][C][=C][C][=C][Ring1][=Branch1]", "chemistry")
    assert (reading.text, reading.repairs) == ("CC1=CC=CC=C1", ("selfies",))
    with pytest.raises(NotationError, match="cannot decode"):
        read("[C][nonsense]", "chemistry")
    monkeypatch.setitem(sys.modules, "selfies", None)
    with pytest.raises(NotationError, match=r"pip install 'selfies"):
        read("[C][C][O]", "chemistry")


@pytest.mark.parametrize(
    ("text", "smiles"),
    [("[C]", "C"), ("[O]", "O"), ("[O][O]", "OO"), ("[N][N]", "NN"), ("[Cl]", "Cl"), ("[C].[O]", "C.O")],
)
def test_a_text_that_is_selfies_or_smiles_is_in_doubt_until_the_caller_decides(text: str, smiles: str) -> None:
    pytest.importorskip("selfies")
    assert read(text, "chemistry") == Reading(text, ("doubtful",))
    assert read_answer(text, "chemistry") == Reading(text, ("doubtful",))
    assert read(text, "chemistry", selfies=True) == Reading(smiles, ("selfies",))
    assert read_answer(text, "chemistry", selfies=True) == Reading(smiles, ("selfies",))


@pytest.mark.parametrize("text", ["[13CH3][OH]", "[Na+].[Cl-]", "[H][H]", "[Na]", "[C-]#[O+]", "CC", "Cl"])
def test_smiles_that_selfies_cannot_change_are_not_in_doubt(text: str) -> None:
    assert read(text, "chemistry", selfies=True) == read(text, "chemistry") == Reading(text)


@pytest.mark.parametrize(
    ("answer", "by_default", "with_all"),
    [
        ("CC </s>", "CC", "CC"),
        ("<pad> CC</s>", "CC", "CC"),
        ("<extra_id_0>CC<extra_id_1>", "CC", "CC"),
        ("<SMILES> CC </SMILES>", "CC", "CC"),
        ("```CC```", None, "CC"),
        ("```smiles\nCC\n```", None, "CC"),
        ("CCO is the answer.", None, "CCO"),
        ("Sure. It's <SMILES> CC </SMILES> .", None, "CC"),
        ("The product is `CC`.", None, "CC"),
        ("CCO or CCN.", None, None),
        ("CC(C)=O<unk>CCN", None, None),
        ("C?C", None, None),
    ],
)
def test_special_tokens_and_tags_around_an_answer_are_stripped_and_prose_on_request(
    answer: str, by_default: str | None, with_all: str | None
) -> None:
    for strip, right in ((("special", "tags"), by_default), (STRIP, with_all)):
        reading = read_answer(answer, "chemistry", strip)
        molecule = try_parse(reading.text)
        assert (None if molecule is None else reading.text) == right
        assert (reading.text == answer) == (not set(reading.repairs) - {"lost"})
    assert try_parse(read_answer(answer, "chemistry", ()).text) is None


def test_doubled_backslashes_of_an_answer_stay_for_published_string_metrics() -> None:
    assert read_answer(r"F/C=C\\F", "chemistry").text == r"F/C=C\\F"


@pytest.mark.parametrize("text", ["C" * 20_000, "C" * 1_001, "C(" * 1_200 + ")" * 1_200, "[CH2]" * 1_100, "C%99" * 500])
def test_what_is_too_large_never_reaches_rdkit(text: str) -> None:
    with pytest.raises(NotationError, match=r"longer than|more than"):
        parse(text)


@given(st.text(alphabet="CNOcn()[]=#123456789%@/\\.+-H <>|sS_pad~?*{}`", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for names in (False, True):
        try:
            reading = read(text, "chemistry", names=names)
        except NotationError:
            continue
        assert not any(map(str.isspace, reading.text))
        assert try_parse(reading.text.replace("~", ".")) is not None
    for strip in ((), ("special", "tags"), STRIP):
        answer = read_answer(text, "chemistry", strip)
        assert read_answer(answer.text, "chemistry", strip).text == answer.text or "prose" in strip
