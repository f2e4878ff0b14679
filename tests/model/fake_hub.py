"""A fake Hugging Face hub: the four requests with which huggingface_hub finds and fetches a model's files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves folder/owner/model; `fetched` counts the files that were downloaded."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.fetched = folder, Counter[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        model = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = [p for p in (self.server.folder / model).glob("*") if p.is_file()]
        if not files:
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if parts[0] != "api":
            content = (self.server.folder / model / parts[-1]).read_bytes()
            self.server.fetched[parts[-1]] += self.command == "GET"
            return self._answer(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT})
        listed = [
            {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": _oid(p.read_bytes())} for p in files
        ]
        about = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
        return self._answer(200, json.dumps(listed if "tree" in parts else about).encode(), {})

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[FakeHub]:
    with FakeHub(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
