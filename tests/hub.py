"""A hub on this machine: as much of the Hugging Face hub as its libraries ask for."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = re.compile(
    r"(?:/api)?(?:/(?P<kind>datasets|models))?/(?P<name>[\w.-]+/[\w.-]+)"
    r"(?:/(?P<action>resolve|tree|revision)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)


class Hub(ThreadingHTTPServer):
    """Serves `repositories`: files by their paths, by `models/OWNER/NAME` or `datasets/...`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.stop_after: list[int] = []  # bytes of the next files, before the connection is cut
        self.fetched: list[tuple[str, str | None]] = []  # files and ranges
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        found = PATH.fullmatch(unquote(urlsplit(self.path).path))
        name = f"{found['kind'] or 'models'}/{found['name']}" if found else ""
        files = self.server.repositories.get(name)
        if files is None:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif found["action"] == "resolve":
            self.send_file(name, files, found["path"])
        elif found["action"] == "tree":
            recursive = "recursive=true" in self.path
            entries = list(listed(files, found["path"] or "", recursive))
            self.answer(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": path} for path in files]
            told = {"id": found["name"], "sha": COMMIT, "siblings": siblings, "tags": []}
            self.answer(200, json.dumps(told).encode())

    do_HEAD = do_GET

    def send_file(self, name: str, files: dict[str, bytes], path: str) -> None:
        commit = {"X-Repo-Commit": COMMIT}
        if name in self.server.gated:
            return self.answer(403, b"", commit | {"X-Error-Code": "GatedRepo"})
        if path not in files:
            return self.answer(404, b"", commit | {"X-Error-Code": "EntryNotFound"})
        body = files[path]
        headers = commit | {"ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        asked = self.headers["Range"]
        start = int(asked[6:].split("-")[0]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if self.command == "GET":
            self.server.fetched.append((path, asked))
        self.answer(206 if start else 200, body[start:], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            file = "ETag" in (headers or {}) and self.server.stop_after
            self.wfile.write(body[: self.server.stop_after.pop(0)] if file else body)

    def log_message(self, *_):
        pass


def listed(files: dict[str, bytes], under: str, recursive: bool) -> Iterator[dict]:
    """The entries of a folder."""
    folders = set()
    for path, content in files.items():
        inside = path.removeprefix(f"{under}/") if under else path
        if under and inside == path:
            continue
        folder, is_deeper, _ = inside.partition("/")
        if recursive or not is_deeper:
            oid = hashlib.sha1(content).hexdigest()
            yield {"type": "file", "path": path, "size": len(content), "oid": oid}
        elif folder not in folders:
            folders.add(folder)
            path = f"{under}/{folder}" if under else folder
            yield {"type": "directory", "path": path, "size": 0, "oid": "0"}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


def command(endpoint: str, home: Path, *arguments: object, **more: str):
    """Run fairseq-scl with this hub, and with `home` for its cache."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"} | more
    return subprocess.run(
        [sys.executable, "-m", "fairseq_scl.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
