"""A Hugging Face hub on this machine: folders of files behind the endpoints that its clients ask for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The one commit of a repository, if no other is named; `main` is its branch."""
_REPOSITORY = r"(?P<id>[^/]+/[^/]+)"
_API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{_REPOSITORY}(?:/(?P<what>revision|tree|paths-info)/(?P<rev>[^/]+))?"
)
_FILE = re.compile(rf"/(?P<kind>datasets/)?{_REPOSITORY}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")


class Hub(ThreadingHTTPServer):
    """Serves `root/models/OWNER/NAME` and `root/datasets/OWNER/NAME`.

    commits: of repositories, by their names. asked: the requests so far, as `METHOD PATH`.
    """

    def __init__(self, root: Path, commits: Mapping[str, str]) -> None:
        self.root, self.commits, self.asked = root, commits, list[str]()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if found := _API.match(path):
            folder = self.server.root / found["kind"] / found["id"]
            if self._has(folder, found["rev"]):
                # Of a folder the whole tree is sent: so small are the repositories.
                self._json(_tree(folder) if found["what"] == "tree" else self._info(found["id"], folder))
        elif found := _FILE.match(path):
            folder = self.server.root / (found["kind"] or "models") / found["id"]
            if self._has(folder, found["rev"]):
                self._file(folder, found["path"])
        else:
            self._missing("Not found")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(f"POST {path}")
        found = _API.match(path)
        if found and found["what"] == "paths-info":
            folder = self.server.root / found["kind"] / found["id"]
            paths = json.loads(asked)["paths"]
            self._json([entry for entry in _tree(folder) if entry["path"] in paths])
        else:
            self._missing("Not found")

    def _has(self, folder: Path, revision: str | None) -> bool:
        """Whether that repository is there at that revision; else the refusal is sent that the hub would send."""
        if not folder.is_dir():
            self._missing("Repository not found", X_Error_Code="RepoNotFound")
        elif revision not in (None, "main", self._commit(folder)):
            self._missing(f"Invalid rev id: {revision}", X_Error_Code="RevisionNotFound")
        else:
            return True
        return False

    def _commit(self, folder: Path) -> str:
        return self.server.commits.get("/".join(folder.parts[-2:]), COMMIT)

    def _info(self, name: str, folder: Path) -> dict[str, Any]:
        files = [{"rfilename": entry["path"]} for entry in _tree(folder) if entry["type"] == "file"]
        told = {"private": False, "tags": [], "downloads": 0, "likes": 0}
        return {"id": name, "sha": self._commit(folder), "siblings": files, **told}

    def _file(self, folder: Path, path: str) -> None:
        if not (folder / path).is_file():
            return self._missing("Entry not found", X_Error_Code="EntryNotFound")
        content = (folder / path).read_bytes()
        self._send(200, content, ETag=f'"{_sha1(content)}"', X_Repo_Commit=self._commit(folder))

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), Content_Type="application/json")

    def _missing(self, why: str, **headers: str) -> None:
        self._send(404, json.dumps({"error": why}).encode(), X_Error_Message=why, **headers)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _tree(folder: Path) -> list[dict[str, Any]]:
    """All files and folders of a repository, as the hub lists them."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        kind = "file" if path.is_file() else "directory"
        named = {"type": kind, "path": path.relative_to(folder).as_posix()}
        found.append({**named, "oid": _sha1(content), "size": len(content)})
    return found


def _sha1(content: bytes) -> str:
    """The name of a file's content, as git has it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub(root: Path, commits: Mapping[str, str]) -> Iterator[Hub]:
    """A running one."""
    server = Hub(root, commits)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
