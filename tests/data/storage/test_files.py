"""Lines of local files and of everything that fsspec opens."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import config, read

from bigchem.base.errors import UserError
from bigchem.data.reading.lines import open_text
from bigchem.data.storage.remote import is_url

TEXT = "CCO\tethanol\r\n\u2028é\n\nlast"
LINES = ["CCO\tethanol", "\u2028é", "", "last"]


@pytest.fixture
def server(tmp_path):
    """(folder, URL) of a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_same_lines_from_disk_gzip_memory_zip_and_file_urls(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(tmp_path / "a.txt", "in/a.txt")
        packed.write(tmp_path / "a.txt.gz", "in/a.txt.gz")
    fsspec.filesystem("memory").pipe("/lines/a.txt.gz", gzip.compress(TEXT.encode()))
    places = [
        f"{tmp_path}/a.txt",
        f"{tmp_path}/a.txt.gz",
        f"file://{tmp_path}/a.txt",
        f"file://{tmp_path}/a.txt.gz",
        f"zip://in/a.txt::{tmp_path}/a.zip",
        f"zip://in/a.txt.gz::file://{tmp_path}/a.zip",
        "memory://lines/a.txt.gz",
    ]
    assert {place: list(open_text(place)) for place in places} == dict.fromkeys(places, LINES)
    assert [is_url(place) for place in places] == [False, False, True, True, True, True, True]


def test_web_server_is_read_and_its_404_names_the_url(server):
    folder, url = server
    (folder / "a.smi.gz").write_bytes(gzip.compress(b"CCO\nCO\n"))
    assert [row.source for row in read(config("smiles_lines", f"{url}/a.smi.gz?download=1"))[0]] == ["CCO", "CO"]
    with pytest.raises(UserError, match=f"{url}/none.smi: no such file"):
        list(open_text(f"{url}/none.smi"))
    (folder / "cut.gz").write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(UserError, match=f"{url}/cut.gz: cannot read.*\nnext: the file is truncated"):
        list(open_text(f"{url}/cut.gz"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/a.txt", "http://127.0.0.1:9/a.txt: no such file, or no response"),
        ("memory://none.txt", "memory://none.txt: no such file"),
        ("nosuch://a.txt", "nosuch://a.txt: cannot open: Protocol not known"),
        ("zip://a.txt::/none/a.zip", "no such file"),
    ],
)
def test_url_that_cannot_be_opened_is_a_user_error(url, message):
    with pytest.raises(UserError, match=message):
        list(open_text(url))


def test_protocol_without_its_package_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://bucket/a.txt: cannot open: .*\nnext: .*pip install 'fsspec\[s3\]'"):
        list(open_text("s3://bucket/a.txt"))


def test_url_that_is_no_zip_is_a_user_error(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="cannot open"):
        list(open_text(f"zip://a.txt::{tmp_path}/a.zip"))


def test_local_file_is_read_without_importing_fsspec(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    code = (
        "import sys; from bigchem.data.reading.lines import open_text;"
        f"print(*open_text({str(tmp_path / 'a.txt')!r}), 'fsspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"a False\n"


@settings(deadline=None)
@given(st.lists(st.text(alphabet="aé\r\t ", max_size=12), max_size=8))
def test_long_lines_are_cut_and_the_next_one_is_whole(lines):
    fsspec.filesystem("memory").pipe("/cut.txt", "".join(f"{line}\n" for line in lines).encode())
    found = list(open_text("memory://cut.txt", 5))
    assert found == [line[:7].rstrip("\r") for line in lines]


def test_line_of_exactly_the_most_characters_is_whole_and_separate(tmp_path):
    (tmp_path / "a.txt").write_text("12345\n123456\n1234567\n12")
    assert list(open_text(str(tmp_path / "a.txt"), 5)) == ["12345", "123456", "1234567", "12"]


def test_byte_order_mark_is_dropped_and_hides_no_line_that_is_too_long(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff12345678901\n\ufeff1")
    assert list(open_text(str(tmp_path / "a.txt"), 5)) == ["1234567", "\ufeff1"]
