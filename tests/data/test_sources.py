"""Readers: what each public format becomes, and what they do with files that are not of their format."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.data.sources import READERS, reader
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.data.sources.molecules import canonical, without_maps
from bigchem.data.sources.reactions import split_reaction
from bigchem.errors import UserError
from bigchem.tasks import TASKS

DATA = Path(os.environ.get("BIGCHEM_DATA", Path(__file__).parents[2] / "../shared/data"))
FILE_FORMATS = sorted(set(READERS) - {"synthetic"})
HEADERS = {"chebi20": "CID\tSMILES\tdescription", "rsmi": "ReactionSmiles\tYear"}
HEADERS["reaction_csv"] = "class,reactants>reagents>production"


def config(name: str, path: Path | str, **fields: object) -> SourceConfig:
    return SourceConfig.model_validate({"format": name, "split": "train", "path": str(path), **fields})


def write(folder: Path, name: str, *lines: str) -> Path:
    file = folder / name
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def read(source: SourceConfig, limit: int | None = None) -> tuple[list[Row], list[str]]:
    """Rows and reasons of rejection."""
    rows, reasons = [], []
    for number, record in enumerate(reader(source.format).records(source)):
        if limit is not None and number >= limit:
            break
        try:
            rows += reader(source.format).rows(record, source)
        except RowError as error:
            reasons.append(str(error))
    return rows, reasons


def test_unknown_format_is_told_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'chebi20'"):
        reader("chebi_20", "recipe.toml: sources.0")


def test_chebi20_gives_both_directions_and_repairs_doubled_backslashes(tmp_path):
    file = write(tmp_path, "c.txt", HEADERS["chebi20"], 'C1\tF/C=C\\\\F\tThe molecule is "trans\tor not", \\\\ kept.')
    rows, reasons = read(config("chebi20", file))
    text = 'The molecule is "trans\tor not", \\\\ kept.'
    assert rows == [Row("captioning", "F/C=C\\F", text, "F/C=C\\F"), Row("generation", text, "F/C=C\\F", "F/C=C\\F")]
    assert reasons == []
    only, _ = read(config("chebi20", file, tasks=["generation"]))
    assert only == rows[1:]


def test_chebi20_refuses_unreadable_smiles_short_lines_and_empty_texts(tmp_path):
    file = write(tmp_path, "c.txt", HEADERS["chebi20"], "1\tC(C\ta", "2\tCC", "", "3\tCC\t ", "4\tC\tmethane")
    rows, reasons = read(config("chebi20", file))
    assert len(rows) == 2
    assert reasons == ["RDKit cannot read 'C(C'", "wrong number of columns", "empty text"]


@pytest.mark.parametrize(
    ("reaction", "precursors", "product"),
    [
        ("OCC.[CH3:1][OH:2]>>[CH3:1][O:2]CC", "CCO.CO", "CCOC"),
        ("CO.CO>O>COC", "CO.CO.O", "COC"),
        ("[Na+].CBr.[OH-]>CO>CO |f:0.2|", "CBr.CO.[Na+]~[OH-]", "CO"),
        ("CBr>[Br-].[Cu+2].[Br-]>CO |^1:4,f:1.2.3|", "CBr.[Br-]~[Br-]~[Cu+2]", "CO"),
        ("CC(=O)OC>>CC(=O)[O-].[Na+] |f:1.2|", "COC(C)=O", "CC(=O)[O-]~[Na+]"),
        ("CN.Cl>>Cl.CNC", "CN.Cl", "CNC"),
        ("CN>>Cl.CNC", "CN", "CNC"),
        ("CN>>CN", "CN", "CN"),
    ],
)
def test_reaction_becomes_sorted_canonical_compounds_and_one_product(reaction, precursors, product):
    assert split_reaction(reaction) == (precursors, product)


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        ("CO", "two '>'"),
        ("CO>>", "0 products"),
        ("CC>>CN.CO", "2 products"),
        ("CC.CN>>CC.CN", "0 products"),
        (">>CO", "no reactants"),
        ("CC..C>>CO", "cannot read ''"),
        ("c1cc>>CO", "cannot read 'c1cc'"),
        ("CC.C>>CO |f:1.2|", "across '>'"),
        ("CC.C>>CO |f:0.9|", "across '>'"),
        ("CC.C>>CO |f:7.9|", "across '>'"),
        ("CC.C.C>>CO |f:0.1,1.2|", "twice"),
    ],
)
def test_reaction_that_is_no_row_says_why(reaction, reason):
    with pytest.raises(RowError, match=reason):
        split_reaction(reaction)


def test_reagents_are_left_out_by_section_or_by_atom_maps():
    assert split_reaction("CBr>O>CO", drop_reagents=True)[0] == "CBr"
    mapped = "[CH3:1][Br:2].[OH2:3].[CH3:7][CH3:8]>>[CH3:1][OH:3]"
    assert split_reaction(mapped, drop_reagents=True, own_section=False) == ("CBr.O", "CO")
    with pytest.raises(RowError, match="no atom maps"):
        split_reaction("[CH3:1][Br:2]>>CO", drop_reagents=True, own_section=False)
    with pytest.raises(RowError, match="no reactants"):
        split_reaction("[CH3:1][Br:2]>>[OH2:9]", drop_reagents=True, own_section=False)


def test_reaction_formats_find_their_reaction(tmp_path):
    files = {
        "rsmi": write(tmp_path, "a.rsmi", "ReactionSmiles\tYear", "[Na+].[OH-].CBr>>CO |f:0.1|\t1976"),
        "mapped_reactions": write(tmp_path, "b.txt", "[Na+].[OH-].CBr>>CO 1-2;2-3"),
        "reaction_csv": write(tmp_path, "c.csv", HEADERS["reaction_csv"] + "\r", "1,[Na+].[OH-].CBr>>CO\r"),
    }
    sources = {name: read(config(name, file))[0][0].source for name, file in files.items()}
    apart = "CBr.[Na+].[OH-]"
    assert sources == {"rsmi": "CBr.[Na+]~[OH-]", "mapped_reactions": apart, "reaction_csv": apart}


def test_reaction_rows_go_both_ways_and_their_molecule_is_the_product(tmp_path):
    file = write(tmp_path, "a.rsmi", "ReactionSmiles", "CC(=O)OC>O>CC(=O)[O-].[Na+] |f:2.3|")
    rows, _ = read(config("rsmi", file))
    salt, plain = "CC(=O)[O-]~[Na+]", "CC(=O)[O-].[Na+]"
    assert rows == [
        Row("forward", "COC(C)=O.O", salt, plain),
        Row("retrosynthesis", salt, "COC(C)=O.O", plain),
    ]


def test_maps_are_dropped_before_parsing_so_that_they_leave_no_stereo():
    assert canonical(without_maps("[CH3:1][C@H:2]([CH3:3])[OH:4]")) == "CC(C)O"


def test_parallel_text_needs_equally_long_files(tmp_path):
    source = write(tmp_path, "src.txt", "Stir.", "", "Filter.")
    target = write(tmp_path, "tgt.txt", "STIR.", "WAIT.", "FILTER.")
    rows, reasons = read(config("parallel_text", source, target_path=str(target)))
    assert rows == [Row("actions", "Stir.", "STIR."), Row("actions", "Filter.", "FILTER.")]
    assert reasons == ["empty text"]
    target = write(tmp_path, "short.txt", "STIR.")
    with pytest.raises(UserError, match=r"src.txt: 3 lines, but 1 in .*short.txt"):
        read(config("parallel_text", source, target_path=str(target)))
    with pytest.raises(UserError, match="target_path"):
        read(config("parallel_text", source))


def test_jsonl_takes_the_task_from_key_prompt_or_source(tmp_path):
    actions, forward = TASKS["actions"].prompt, TASKS["forward"].prompt
    lines = [
        {"source": f"{actions}Stir.", "target": "STIR."},
        {"source": f"{forward}[Na+]~[OH-]", "target": "O", "task": "forward"},
        {"source": "Stir.", "target": "STIR.", "task": "actions", "year": 1998},
        {"source": "Wait.", "target": "WAIT."},
        {"source": "Wait.", "target": "WAIT.", "task": ["actions"]},
        {"source": "Wait."},
        {"source": f"{forward}CQ", "target": "O"},
        ["source", "target"],
        {"source": "a\0b", "target": "O", "task": "actions"},
        {"source": "a\ud800b", "target": "O", "task": "actions"},
    ]
    file = write(tmp_path, "a.jsonl", *map(json.dumps, lines), "{", "[" * 50_000)
    rows, reasons = read(config("jsonl", file))
    assert rows == [
        Row("actions", "Stir.", "STIR."),
        Row("forward", "[Na+]~[OH-]", "O", "O"),
        Row("actions", "Stir.", "STIR."),
    ]
    assert [reason.split(":")[0].split(" under")[0] for reason in reasons] == [
        "no task",
        "unknown task \"['actions']\"",
        "no text",
        "RDKit cannot read 'CQ'",
        "not a JSON object",
        "NUL byte",
        "not valid Unicode",
        "not JSON",
        "not JSON",
    ]
    rows, _ = read(config("jsonl", file, tasks=["actions"]))
    assert rows[-1] == Row("actions", "Wait.", "WAIT.")
    assert len(rows) == 3


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_missing_or_unnamed_file_is_a_user_error(name, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(config(name, tmp_path / "none", target_path=str(tmp_path / "none")))
    with pytest.raises(UserError, match="needs a file"):
        read(SourceConfig(format=name, split="train"))


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_table_without_its_columns_is_a_user_error(name, tmp_path):
    with pytest.raises(UserError, match="no column"):
        read(config(name, write(tmp_path, "a.txt", "some,other\tfile", "CC")))
    with pytest.raises(UserError, match="no column"):
        read(config(name, write(tmp_path, "empty.txt")))


@pytest.mark.parametrize("name", FILE_FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_garbage_is_rejected_and_never_crashes(name, seed, tmp_path):
    rng = random.Random(seed)
    file = tmp_path / "garbage"
    noise = bytes(rng.choice(b'\x00\n\t,.>|\\"{}[]()=#:~CNOcno019\xff\xe2\x82') for _ in range(20_000))
    file.write_bytes(
        HEADERS.get(name, "").encode() + b"\n" + noise + b"\n" + b"C" * 1_000_000 + b"\n" + rng.randbytes(5000)
    )
    rows, reasons = read(config(name, file, target_path=str(file), tasks=["actions"] if name == "jsonl" else []))
    assert reasons
    if name != "parallel_text":
        assert len(rows) <= 2 * len(reasons)
    assert all(row.key and row.source and row.target for row in rows)


@pytest.mark.parametrize("name", FILE_FORMATS)
@given(text=st.text(alphabet="CNO[]()=#>|f:.,01~{}\"' \t\\\x00\u2581é", max_size=40))
def test_any_line_is_rows_or_a_row_error(name, text):
    source = config(name, "file", tasks=["forward"] if name == "jsonl" else [])
    for fields in ((text,), (text, text), ()):
        rows, reason = [], "rows"
        try:
            rows = READERS[name].rows(Record("file", 1, fields), source)
        except RowError as error:
            reason = str(error)
        assert 0 < len(reason) < 120
        assert all(row.task in READERS[name].tasks for row in rows)


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_truncated_or_corrupt_gzip_is_a_user_error(name, tmp_path):
    lines = "".join(f"{random.Random(i).random()}\n" for i in range(5000))
    whole = gzip.compress(f"{HEADERS.get(name, '')}\n{lines}".encode())
    damaged = whole[:2000] + bytes(200) + whole[2200:]
    for content in (whole[: len(whole) // 2], damaged, b"plain text\n"):
        file = tmp_path / "a.gz"
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.gz: cannot read"):
            read(config(name, file, target_path=str(file)))


def published(*parts: str) -> str:
    file = DATA.joinpath(*parts)
    if not file.is_file():
        pytest.skip(f"no {'/'.join(parts)}: set BIGCHEM_DATA")
    return str(file)


@pytest.mark.data
def test_every_chebi20_row_is_read_and_no_backslash_stays_doubled():
    found = {split: read(config("chebi20", published("chebi20", f"{split}.txt"))) for split in ("validation", "test")}
    assert {split: (len(rows), reasons) for split, (rows, reasons) in found.items()} == {
        "validation": (6602, []),
        "test": (6600, []),
    }
    smiles = [r.source for rows, _ in found.values() for r in rows if r.task == "captioning"]
    assert sum("\\" in s for s in smiles) == 986
    assert not any("\\\\" in s for s in smiles)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "rows", "rejected"),
    [
        ("rsmi", "uspto_lowe/train.rsmi.gz", 2000, 0),
        ("mapped_reactions", "uspto_mit/valid.txt.gz", 1990, 5),
        ("mapped_reactions", "uspto_15k/valid.txt.gz", 2000, 0),
        ("reaction_csv", "uspto_50k/test.csv", 2000, 0),
    ],
)
def test_first_thousand_published_reactions_are_read(name, file, rows, rejected):
    found, reasons = read(config(name, published(file)), limit=1000)
    assert (len(found), len(reasons)) == (rows, rejected)
    for row in found[::20]:
        chemistry = (row.source, row.target)
        for side in chemistry:
            assert ":" not in side
            assert side == ".".join(sorted("~".join(sorted(map(canonical, c.split("~")))) for c in side.split(".")))


@pytest.mark.data
def test_papers_own_sample_is_already_in_our_form():
    found = [
        row
        for split in ("train", "valid", "test")
        for row in read(config("jsonl", published("text_chem_t5_sample", f"{split}.jsonl")))[0]
    ]
    assert len(found) == 30
    # RDKit wrote Cl[Sn]Cl when the sample was made, and writes [Cl][Sn][Cl] now.
    reactions = [row for row in found if row.task == "forward" and "[Sn]" not in row.source]
    assert len(reactions) == 5
    for row in reactions:
        assert split_reaction(with_note(row.source, row.target)) == (row.source, row.target)


def with_note(*sides: str) -> str:
    """A reaction SMILES whose `~` became a fragment note."""
    groups, first = [], 0
    for compound in ".".join(sides).split("."):
        last = first + compound.count("~")
        groups += [".".join(map(str, range(first, last + 1)))] if last > first else []
        first = last + 1
    return ">>".join(sides).replace("~", ".") + f" |f:{','.join(groups)}|"


@pytest.mark.data
def test_published_procedures_are_read():
    sentences = config(
        "parallel_text",
        published("lowe_actions", "src-test.txt.gz"),
        target_path=published("lowe_actions", "tgt-test.txt.gz"),
    )
    paragraphs = config("jsonl", published("lowe_actions", "paragraph-test.jsonl.gz"), tasks=["actions"])
    for source, count in ((sentences, 1500), (paragraphs, 1000)):
        rows, reasons = read(source)
        assert (len(rows), reasons) == (count, [])
        assert {row.task for row in rows} == {"actions"}
