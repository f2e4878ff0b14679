"""Reading files: compressed, in other encodings, with other line ends, in parts, as JSON arrays."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import config, read, write

from bigchem.base.errors import UserError
from bigchem.data.reading.json_records import MISSING, json_texts, lookup
from bigchem.data.reading.lines import open_text
from bigchem.data.reading.paths import expand

TEXT = "CCO\tethanol, é\nCC\tethane\n"


def zipped(content: bytes, *names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names or ("in/a.txt",):
            archive.writestr(name, content)
    return made.getvalue()


def zstandard(content: bytes) -> bytes:
    """Two frames, as pzstd writes them."""
    codec = pa.Codec("zstd")
    return b"".join(codec.compress(part, asbytes=True) for part in (content[:5], content[5:]))


COMPRESSED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard, "zip": zipped}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_files_are_read_here_and_behind_urls_whatever_their_name(suffix, tmp_path):
    content = COMPRESSED[suffix](TEXT.encode())
    for name in (f"a.txt.{suffix}", "a.txt"):
        (tmp_path / name).write_bytes(content)
        fsspec.filesystem("memory").pipe(f"/packed/{suffix}/{name}", content)
        for place in (str(tmp_path / name), f"file://{tmp_path}/{name}", f"memory://packed/{suffix}/{name}"):
            assert list(open_text(place)) == ["CCO\tethanol, é", "CC\tethane"]


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_truncated_and_damaged_compression_is_a_user_error(suffix, tmp_path):
    whole = COMPRESSED[suffix](b"".join(f"{hash(str(i))}\n".encode() for i in range(5000)))
    file = tmp_path / f"a.{suffix}"
    damaged = whole[: len(whole) // 3] + bytes(100) + whole[len(whole) // 3 + 100 :]
    for content in (whole[: len(whole) // 2], damaged, b"plain text\n", b""):
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\.{suffix}: cannot read.*\nnext: the file is truncated"):
            list(open_text(str(file)))


def test_archive_of_several_files_is_refused_with_the_way_to_name_one(tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(zipped(b"C\n", "a.txt", "__MACOSX/a.txt"))
    assert list(open_text(str(file))) == ["C"]
    file.write_bytes(zipped(b"C\n", "a.txt", "b.txt"))
    with pytest.raises(UserError, match=r"an archive of 2 files, not one: a.txt, b.txt\nnext: .* zip://FILE::"):
        list(open_text(str(file)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "cp1252", "utf-8-sig"])
def test_encodings_are_read_where_they_are_named(encoding, tmp_path):
    file = tmp_path / "a.tsv.gz"
    file.write_bytes(gzip.compress("SMILES\tabout\r\nO\teau salée\r\n".encode(encoding)))
    rows, reasons = read(
        config("tsv", file, columns={"smiles": "SMILES", "text": "about"}, encoding=encoding, tasks=["captioning"])
    )
    assert ([row.target for row in rows], reasons) == (["eau salée"], [])


def test_other_encodings_are_refused_with_the_option_to_set(tmp_path):
    file = tmp_path / "a.smi"
    for name in ("utf-16", "utf-32"):
        file.write_bytes("CCO\n".encode(name))
        with pytest.raises(UserError, match=rf"not UTF-8 but {name.upper()}.*\nnext: set encoding = '{name}'"):
            list(open_text(str(file)))
    file.write_bytes("caf\xe9\nbar\n".encode("latin-1"))
    assert read(config("text_lines", file))[1] == [
        "not valid Unicode: where the file is not UTF-8, set `encoding` (latin-1, cp1252, utf-16, ...)"
    ]
    with pytest.raises(UserError, match=r"not ascii: .*\nnext: set another `encoding`"):
        list(open_text(str(file), encoding="ascii"))
    for wrong in ("nosuch", "zip", "rot13"):
        with pytest.raises(ValueError, match="unknown encoding"):
            config("text_lines", file, encoding=wrong)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_the_file_has_it(end, tmp_path):
    (tmp_path / "a.txt").write_bytes(end.join(["CCO", "a\u2028b\x0bc\x85", "", "last"]).encode())
    assert list(open_text(str(tmp_path / "a.txt"))) == ["CCO", "a\u2028b\x0bc\x85", "", "last"]


def test_patterns_and_lists_of_files_are_one_source_in_the_order_of_names(tmp_path):
    for name in ("b", "a", "[c]"):
        write(tmp_path, f"{name}.smi", "C" * (1 + "a b[c]".index(name)))
    found = read(config("smiles_lines", f"{tmp_path}/?.smi"))[0]
    assert [row.source for row in found] == ["C", "CCC"]
    listed = [f"{tmp_path}/b.smi", f"{tmp_path}/[c].smi", f"file://{tmp_path}/a*.smi"]
    assert expand(listed) == [*listed[:2], f"file://{tmp_path}/a.smi"]
    assert (
        len(
            read(
                config(
                    "smiles_lines",
                    None,
                ).model_copy(update={"path": tuple(listed)})
            )[0]
        )
        == 3
    )
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", "d.smi", "N")
    assert expand(f"{tmp_path}/**/*.smi")[-1] == f"{tmp_path}/deep/d.smi"
    with pytest.raises(UserError, match=r"none\*.smi: no file matches"):
        expand(f"{tmp_path}/none*.smi")
    with pytest.raises(UserError, match="named twice"):
        expand([f"{tmp_path}/a.smi", f"{tmp_path}/*.smi"])
    with pytest.raises(UserError, match="a folder, not a file\nnext: name its files"):
        read(config("smiles_lines", tmp_path))


ENTRIES = st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers(), st.text(max_size=8)), max_size=3)


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=6), st.sampled_from([None, 1]))
def test_an_array_holds_the_records_of_the_lines(entries, indent):
    memory = fsspec.filesystem("memory")
    memory.pipe("/a.json", json.dumps(entries, indent=indent).encode())
    memory.pipe("/a.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in entries).encode())
    array, lines = (list(json_texts(f"memory://{name}")) for name in ("a.json", "a.jsonl"))
    assert [json.loads(text) for _, text in array] == entries == [json.loads(text) for _, text in lines]
    if indent:
        text = json.dumps(entries, indent=indent).split("\n")
        assert all(text[line - 1].strip().startswith("{") for line, _ in array)


def test_large_array_on_one_line_streams(tmp_path):
    entry = json.dumps({"source": "C" * 1000, "target": "O"})
    with lzma.open(tmp_path / "a.json.xz", "wt", preset=0) as file:
        file.write("[" + f"{entry}, " * 30_000 + entry + "]")
    tracemalloc.start()
    assert sum(text == entry for _, text in json_texts(str(tmp_path / "a.json.xz"))) == 30_001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a": 2', ":2: not JSON"),
        ('[{"a": 1}\n {"a": 2}]', ":2: not JSON: expected"),
        ('[{"a": 1}] {"a": 2}', ":1: text after the end of the array"),
        ("[" * 100_000, ":1: "),
        ('[{"a": "' + "C" * 200_000 + '"}, {"a": "' + "C" * 200_000, "element of more than 100,000 characters"),
        ("[", ":1: not JSON"),
    ],
)
def test_broken_arrays_are_told_with_their_line(text, message, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        list(json_texts(str(tmp_path / "a.json")))


def test_nested_keys_are_found_and_a_key_with_a_dot_comes_first():
    entry = {"a": {"b": [{"c": 1}], "b.c": 2}, "a.b": 3}
    assert [lookup(entry, key) for key in ("a.b", "a.b.0.c")] == [3, 1]
    assert all(lookup(entry, key) is MISSING for key in ("a.d", "a.b.1", "a.b.c", "a.b.0.c.d"))


def test_a_key_that_an_object_has_twice_rejects_the_record(tmp_path):
    file = write(
        tmp_path, "a.jsonl", '{"source": "CC", "target": "a", "target": "b"}', '{"source": "CC", "target": "a"}'
    )
    rows, reasons = read(config("jsonl", file, tasks=["captioning"]))
    assert [row.target for row in rows] == ["a"]
    assert reasons == ["the key 'target' twice in one object"]
