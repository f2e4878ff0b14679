"""A stand-in for the Hugging Face hub: the requests with which huggingface_hub makes a repository and commits to it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stand_in"


class StandIn(ThreadingHTTPServer):
    """repositories: name -> whether it is private. files: of the last commit. requests: methods and paths."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body, path = self._body(), self.path.partition("?")[0]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if "/commit/" in path:
            return self._commit(path.split("/commit/")[0].removeprefix("/api/models/"), body)
        return self._answer(200, self._about_upload(path, json.loads(body)))

    def _about_upload(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        if "/preupload/" in path:
            modes = {
                file["path"]: "lfs" if file["path"].endswith(".safetensors") else "regular" for file in asked["files"]
            }
            return {
                "files": [{"path": p, "uploadMode": m, "shouldIgnore": False, "oid": None} for p, m in modes.items()]
            }
        if path.endswith("/info/lfs/objects/batch"):
            places = {one["oid"]: {"href": f"{self.server.url}/store/{one['oid']}"} for one in asked["objects"]}
            objects = [{**one, "actions": {"upload": places[one["oid"]]}} for one in asked["objects"]]
            return {"transfer": "basic", "objects": objects}
        return {"warnings": []}  # of validate-yaml

    def do_PUT(self) -> None:
        content = self._body()
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, {})

    def do_GET(self) -> None:
        self._body()
        name = self.path.partition("?")[0].removeprefix("/api/models/")
        known = name in self.server.repositories
        about = {"id": name, "private": self.server.repositories.get(name), "siblings": []}
        self._answer(200 if known else 404, about if known else {"error": "no such repository"})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        address = {"url": f"{self.server.url}/{name}", "name": name}
        if name in self.server.repositories:
            return self._answer(409, address)
        self.server.repositories[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
        return self._answer(200, address)

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.stored[value["oid"]]
        self._answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/0", "commitOid": "0" * 40, "success": True})

    def _body(self) -> bytes:
        self.server.requests.append(f"{self.command} {self.path.partition('?')[0]}")
        if self.headers["Transfer-Encoding"] == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _answer(self, status: int, table: dict[str, Any]) -> None:
        content = json.dumps(table).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def serving() -> Iterator[StandIn]:
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
