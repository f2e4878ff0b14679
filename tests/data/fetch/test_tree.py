"""A tree of public files from a local server: complete, resumed, corrupted, absent; and the manifest that ships."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from http_server import Server, serving
from huggingface_hub import file_download
from real_files import REAL_DATA

from bigchem.base.installed import resources
from bigchem.base.progress import Progress
from bigchem.data.fetch import manifest, tree
from bigchem.data.fetch.download import PIECE
from bigchem.data.fetch.manifest import Group, Origin, Wanted

TEXT = b"".join(b"row %d\n" % n for n in range(20_000))
CSV = b"class,reactants>reagents>production\r\n1,CC.O>>CCO\r\n10,C>>[nH]\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Four origins: a file, a zip, a tar.gz, and two files of tokens."""
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / "plain.txt").write_bytes(TEXT)
    with zipfile.ZipFile(folder / "data.zip", "w") as zipped:
        zipped.writestr("data/one.txt", b"one")
        zipped.writestr("data/two.txt", b"two")
        zipped.writestr("__MACOSX/data/two.txt", b"")
    with tarfile.open(folder / "data.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("three.txt")
        member.size = len(TEXT)
        tar.addfile(member, io.BytesIO(TEXT))
    (folder / "sources").write_text("<RX_1> C C O\n<RX_10> [ n H ]\n")
    (folder / "targets").write_text("C C . O\nC\n")
    with serving(folder) as served:
        yield served


def files(url: str) -> list[Wanted]:
    def origin(name: str, content: bytes, **how: object) -> Origin:
        return Origin(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), **how)

    own = (
        origin("plain.txt", TEXT, url="plain.txt"),
        origin("one.txt.gz", b"one", url="data.zip", member="one.txt"),
        origin("two.txt.gz", b"two", url="data.zip", member="two.txt"),
        origin("three.txt", TEXT, url="data.tar.gz", member="three.txt"),
        origin("four.csv", CSV, tokens=("sources", "targets")),
    )
    by_hand = Group(folder="hand", origin="unknown", licence="not stated", hint="ask", files=(origin("x.txt", b"x"),))
    return manifest.wanted((Group(folder="a", origin="here", licence="MIT", base=f"{url}/", files=own), by_hand))


def states(url: str, root: Path) -> dict[str, str]:
    return {Path(o.file.path).name: o.state for o in tree.fetch(files(url), root, Progress(quiet=True))}


def test_a_tree_is_assembled_once_and_only_what_has_no_origin_is_missing(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    fetched = states(server.url, root)
    assert fetched.pop("x.txt") == "missing"
    assert set(fetched.values()) == {"fetched"}
    assert (root / "a/plain.txt").read_bytes() == (root / "a/three.txt").read_bytes() == TEXT
    assert [gzip.decompress((root / "a" / name).read_bytes()) for name in ("one.txt.gz", "two.txt.gz")] == [
        b"one",
        b"two",
    ]
    assert (root / "a/four.csv").read_bytes() == CSV
    assert server.requests["data.zip"] == 1
    assert not (root / tree.DOWNLOADS).exists()
    before = server.requests.total()
    assert set(states(server.url, root).values()) == {"here", "missing"}
    assert server.requests.total() == before


def test_a_folder_of_downloads_that_was_there_before_stays(server: Server, tmp_path: Path) -> None:
    own = tmp_path / "raw" / "downloads" / "thesis.pdf"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    for expected in ("fetched", "here"):
        assert set(states(server.url, tmp_path / "raw").values()) == {expected, "missing"}
        assert own.read_bytes() == b"mine"


def test_an_interrupted_download_resumes_where_it_ended(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    part = root / tree.DOWNLOADS / "a-plain.txt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(TEXT[:1000])
    server.faults["plain.txt"] = ["broken"]
    assert states(server.url, root)["plain.txt"] == "fetched"
    assert server.ranges["plain.txt"] == ["bytes=1000-", f"bytes={1000 + PIECE}-"]


def test_corrupted_bytes_are_fetched_again_and_never_kept(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    server.faults["plain.txt"] = ["altered"]
    server.faults["data.tar.gz"] = ["altered"] * 2
    found = {Path(o.file.path).name: o for o in tree.fetch(files(server.url), root, Progress(quiet=True))}
    assert found["plain.txt"].state == "fetched"
    assert found["three.txt"].state == "missing"
    assert not (root / "a/three.txt").exists()
    (root / "a/plain.txt").write_bytes(b"mine")
    (outcome, *_) = tree.fetch(files(server.url), root, Progress(quiet=True))
    assert outcome.state == "differs"
    assert (root / "a/plain.txt").read_bytes() == b"mine"


def test_without_its_server_each_file_says_what_to_copy_where(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))  # between its retries
    root, wanted = tmp_path / "raw", files("http://127.0.0.1:9")
    first, second, *_ = tree.fetch(wanted, root, Progress(quiet=True))
    place = root / tree.DOWNLOADS / "a-plain.txt"
    assert first.why.endswith(f"copy http://127.0.0.1:9/plain.txt to {place}")
    assert second.why.startswith("no answer")
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(TEXT)
    assert tree.fetch(wanted, root, Progress(quiet=True))[0].state == "fetched"
    server.faults["plain.txt"] = ["404"]
    (absent, *others) = tree.fetch(files(server.url), tmp_path / "other", Progress(quiet=True))
    assert absent.why.startswith("the server answers 404; copy ")
    assert {o.state for o in others if o.file.urls} == {"fetched"}


def test_the_manifest_has_every_file_of_the_recipe_and_the_recipe_leaves_out_what_is_missing(tmp_path: Path) -> None:
    shipped = resources.find("recipes", "public-data", ".toml")
    sources = tomllib.loads(shipped.read_text())["sources"]
    named = {path for source in sources for path in (source["path"], source.get("target_path")) if path}
    assert named == {file.path for file in manifest.load("public-data")}
    assert tree.recipe_of(shipped, tmp_path) == (None, sorted(named))
    (tmp_path / "chebi20").mkdir()
    (tmp_path / "chebi20" / "test.txt").touch()
    text, left_out = tree.recipe_of(shipped, tmp_path)
    assert [source["path"] for source in tomllib.loads(text or "")["sources"]] == ["chebi20/test.txt"]
    assert len(left_out) == len(named) - 1


@pytest.mark.data
def test_the_manifest_describes_the_files() -> None:
    wrong = {file.path: why for file in manifest.load("public-data") if (why := file.damage(REAL_DATA)) is not None}
    assert not wrong


def test_the_recipe_states_the_licences_of_what_is_fetched() -> None:
    groups = tomllib.loads(Path(manifest.__file__).with_name("public-data.toml").read_text())["groups"]
    licences = {group["folder"]: group["licence"] for group in groups}
    recipe = tomllib.loads(resources.find("recipes", "public-data", ".toml").read_text())
    for source in recipe["sources"]:
        stated = licences[source["path"].split("/")[0]]
        assert source.get("license") == (None if stated.startswith("not stated") else stated), source["path"]
