"""The cache of remote files, with real processes, a real HTTP server and real kills."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import forkserver
from http_server import Server, serving

from bigchem.base.errors import UserError
from bigchem.data.storage import remote
from bigchem.data.storage.cache import Cache
from bigchem.data.storage.index import File

SIZE = 300_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Ten files of SIZE bytes, named 0 to 9."""
    folder = tmp_path / "remote"
    folder.mkdir()
    for name in range(10):
        (folder / str(name)).write_bytes(random.Random(name).randbytes(SIZE))
    (folder / "roomy").symlink_to(folder)
    with serving(folder) as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.01, 0.01))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Room for three of the ten files."""
    return Cache(tmp_path / "cache", 3 * SIZE + 10)


@functools.cache
def file_of(name: object) -> File:
    content = random.Random(int(str(name))).randbytes(SIZE)
    return File(SIZE, hashlib.sha256(content).hexdigest())


def get(cache: Cache, server_url: str, name: object) -> None:
    """Reads a file through the cache; AssertionError unless its content is right."""
    content = cache.buffer(f"{server_url}/{name}", file_of(name))
    assert hashlib.sha256(content).hexdigest() == file_of(name).sha256


def cached(cache: Cache) -> list[str]:
    """Names of the files in the cache; "+" after one that is partial."""
    names = {file_of(n).sha256: str(n) for n in range(10)}
    return sorted(names[p.stem] + "+" * (p.suffix == ".partial") for p in (cache.path / "files").iterdir())


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Watch(threading.Thread):
    """Measures the cache's size on disk, partial files included, again and again, under the cache's own lock: a listing
    during a rename counts a file twice."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(daemon=True)
        self._cache, self._done, self.most, self.looks = cache, threading.Event(), 0, 0

    def run(self) -> None:
        while not self._done.wait(0.002):
            with (self._cache.path / "lock").open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                sizes = [p.stat() for p in (self._cache.path / "files").iterdir()]
                self.most = max(self.most, sum(max(s.st_size, 512 * s.st_blocks) for s in sizes))
            self.looks += 1

    def stop(self) -> None:
        self._done.set()
        self.join()


def hammer(root: Path, url: str, seed: int, barrier: object, reads: int) -> None:
    """First all processes read the same files at once with room for all, then random ones with room for three."""
    roomy, tight = Cache(root / "roomy", 10 * SIZE), Cache(root / "cache", 3 * SIZE + 10)
    barrier.wait(30)  # type: ignore[attr-defined]
    for name in range(10):
        get(roomy, f"{url}/roomy", name)
    draw = random.Random(seed)
    for _ in range(reads):
        get(tight, url, draw.randrange(10))


def start(count: int, root: Path, url: str, reads: int) -> list[multiprocessing.process.BaseProcess]:
    server = forkserver()
    barrier = server.Barrier(count + 1)
    processes = [server.Process(target=hammer, args=(root, url, i, barrier, reads), daemon=True) for i in range(count)]
    for process in processes:
        process.start()
    barrier.wait(60)
    return processes


def test_eight_processes_share_downloads_and_never_exceed_the_limit(
    tmp_path: Path, server: Server, cache: Cache
) -> None:
    watch = Watch(cache)
    watch.start()
    processes = start(8, tmp_path, server.url, reads=30)
    for process in processes:
        process.join(60)
    watch.stop()
    assert [process.exitcode for process in processes] == [0] * 8
    assert SIZE < watch.most <= cache.max_bytes + 3 * 4096  # blocks are of 4,096 bytes
    assert watch.looks > 50
    assert not [name for name in cached(cache) if "+" in name]
    assert len(cached(Cache(tmp_path / "roomy"))) == 10
    assert {server.requests[f"roomy/{name}"] for name in range(10)} == {1}
    assert 10 <= server.requests.total() - 10 < 8 * 30


def test_many_who_want_a_file_at_once_cause_one_download(server: Server, cache: Cache) -> None:
    server.faults["4"] = ["stall"]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(get, Cache(cache.path, cache.max_bytes), server.url, 4) for _ in range(8)]
        wait_until(lambda: server.requests["4"] == 1)
        time.sleep(0.2)
        assert server.requests["4"] == 1
        server.release.set()  # the stalled download breaks, and the process with the lock retries it
        for future in done:
            future.result(20)
    assert server.requests["4"] == 2


def test_killed_downloads_give_back_their_room_and_those_who_wait_go_on(
    tmp_path: Path, server: Server, cache: Cache
) -> None:
    for name in "012":
        server.faults[name] = ["stall"]
    processes = [forkserver().Process(target=get, args=(cache, server.url, name), daemon=True) for name in "012"]
    for process in processes:
        process.start()
    wait_until(lambda: cached(cache) == ["0+", "1+", "2+"] and server.requests.total() == 3)
    with ThreadPoolExecutor(2) as pool:
        same = pool.submit(get, cache, server.url, 0)  # waits for its downloader
        other = pool.submit(get, cache, server.url, 5)  # waits for room
        time.sleep(0.3)
        assert not same.done()
        assert not other.done()
        # The downloader of 0 last: if it dies first, 0 may be whole before other room is free, and makes room for 5.
        for process in reversed(processes):
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join(10)
        same.result(10)
        other.result(10)
    get(cache, server.url, 6)  # the next process that needs room reclaims the dead one's file
    assert cached(cache) == ["0", "5", "6"]


def test_processes_killed_anywhere_leave_only_whole_files_and_no_garbage(
    tmp_path: Path, server: Server, cache: Cache
) -> None:
    processes = start(6, tmp_path, server.url, reads=10**6)
    wait_until(lambda: len(cached(cache)) > 0)
    for process in processes:
        time.sleep(0.1)
        os.kill(process.pid or 0, signal.SIGKILL)
    for process in processes:
        process.join(10)
    for path in (cache.path / "files").iterdir():
        assert path.suffix == ".partial" or hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for name in range(10):
        get(cache, server.url, name)
    assert cached(cache) == ["7", "8", "9"]


def test_the_least_recently_used_file_goes_first(server: Server, cache: Cache) -> None:
    for name in (0, 1, 2, 0, 3):
        get(cache, server.url, name)
    assert cached(cache) == ["0", "2", "3"]


def test_an_evicted_file_stays_readable_for_those_who_have_it(server: Server, cache: Cache) -> None:
    content = cache.buffer(f"{server.url}/0", file_of(0))
    for name in (1, 2, 3):
        get(cache, server.url, name)
    assert "0" not in cached(cache)
    assert hashlib.sha256(content).hexdigest() == file_of(0).sha256
    get(cache, server.url, 0)
    assert server.requests["0"] == 2


@pytest.mark.parametrize("change", [lambda b: b[:100], lambda b: b"x" + b[1:]])
def test_a_cached_file_that_was_damaged_is_fetched_again(
    server: Server, cache: Cache, change: Callable[[bytes], bytes]
) -> None:
    get(cache, server.url, 0)
    path = cache.path / "files" / file_of(0).sha256
    path.write_bytes(change(path.read_bytes()))
    get(Cache(cache.path, cache.max_bytes), server.url, 0)
    assert server.requests["0"] == 2


@pytest.mark.parametrize("fault", ["503", "429", "short", "broken", "altered", "long"])
def test_a_passing_fault_is_overcome(server: Server, cache: Cache, fault: str) -> None:
    server.faults["0"] = [fault, fault]
    get(cache, server.url, 0)
    assert server.requests["0"] == 3


def test_a_download_that_falls_silent_is_tried_again(
    server: Server, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENCE_S", 0.3)
    server.faults["0"] = ["stall"]
    get(cache, server.url, 0)
    assert server.requests["0"] == 2


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        ("503", r"/0: cannot read: 503.*4 attempts", 4),
        ("short", r"/0: truncated, 150,000 of 300,000 bytes", 4),
        ("broken", r"/0: cannot read: ", 4),
        ("altered", r"/0: altered, sha256", 4),
        ("long", r"/0: altered, \d", 4),
        ("404", r"/0: missing", 1),
        ("403", r"/0: cannot read: 403", 1),
    ],
)
def test_a_lasting_fault_is_told_with_the_url_and_leaves_nothing(
    server: Server, cache: Cache, fault: str, message: str, requests: int
) -> None:
    server.faults["0"] = [fault] * 9
    with pytest.raises(UserError, match=server.url + message):
        get(cache, server.url, 0)
    assert server.requests["0"] == requests
    assert cached(cache) == []


def test_a_server_that_is_not_there_is_told(cache: Cache) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/0: cannot read"):
        get(cache, "http://127.0.0.1:9", 0)


def test_a_file_larger_than_the_cache_is_refused_before_the_download(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match="300,000 bytes do not fit a cache of 299,999"):
        get(Cache(tmp_path / "tiny", SIZE - 1), server.url, 0)
    assert server.requests.total() == 0


def test_the_default_folder_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGCHEM_CACHE", str(tmp_path / "there"))
    assert Cache().path == tmp_path / "there"


def test_a_small_folder_comes_under_its_own_names_and_is_mended(server: Server, cache: Cache) -> None:
    files = {"0": file_of(0), "1": file_of(1)}
    folder = cache.folder(server.url, files)
    (folder / "1").write_bytes(b"garbage")
    assert cache.folder(server.url, files) == folder
    assert [hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in "01"] == [f.sha256 for f in files.values()]
    assert server.requests.total() == 2
