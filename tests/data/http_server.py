"""A real HTTP server of one folder that on request fails, or truncates, alters, extends or stalls its responses."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """faults[name]: faults of a file's next requests, one each: "503", "404", "403", "short" (fewer bytes),
    "broken" (fewer than announced), "altered", "long", "stall" (half, then nothing until `release`). ranges[name]:
    those that were asked for."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        self.ranges: defaultdict[str, list[str]] = defaultdict(list)
        self.posted: list[tuple[str, bytes]] = []
        self.release = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Ignores clients that were killed."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        with self.server.lock:
            self.server.requests[name] += 1
            faults = self.server.faults[name]
            fault = faults.pop(0) if faults else ""
        path = self.server.folder / name
        if fault.isdigit() or not path.is_file():
            self.send_error(int(fault or 404))
            return
        content = path.read_bytes()
        half = len(content) // 2
        if fault == "short":
            content = content[:half]
        elif fault == "long":
            content *= 3
        elif fault == "altered":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        if asked := self.headers.get("Range"):
            self.server.ranges[name].append(asked)
            begin, size = int(asked.removeprefix("bytes=").rstrip("-")), len(content)
            if begin >= size:
                self.send_error(416)
                return
            content = content[begin:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault in {"broken", "stall"}:
            self.wfile.write(content[:half])
            self.wfile.flush()
            if fault == "stall":
                self.server.release.wait(30)
            return
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Records the body; a numeric fault is the response's status."""
        name = self.path.lstrip("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.posted.append((name, body))
            faults = self.server.faults[name]
            fault = faults.pop(0) if faults else ""
        if fault == "stall":
            self.server.release.wait(30)
        if fault.isdigit():
            self.send_error(int(fault))
            return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()
