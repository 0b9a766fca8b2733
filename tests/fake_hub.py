"""A Hub on this machine: the answers that `huggingface_hub` asks of the real one, from folders."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_server import git_sha1

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub(root: Path) -> Iterator[str]:
    """Serves the folders `root/{datasets,models}/owner/name` at `COMMIT`; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            api = path.startswith("api/")
            parts = path.removeprefix("api/").split("/")
            kind = parts.pop(0) if parts[0] in ("datasets", "models") else "models"
            if len(parts) < 2:
                return self._send(404, b"", {})
            folder, rest = root / kind / parts[0] / parts[1], parts[2:]
            if not folder.is_dir():
                return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            if not api:  # resolve/REVISION/FILE
                if rest[1] not in ("main", COMMIT):
                    return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
                return self._file(folder / "/".join(rest[2:]))
            if rest[:1] == ["tree"]:
                return self._json(_entries(folder, "/".join(rest[2:])))
            if rest[:1] == ["paths-info"]:
                asked = set(json.loads(self.body)["paths"])
                return self._json([e for e in _entries(folder, "") if e["path"] in asked])
            if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            files = [{"rfilename": e["path"]} for e in _entries(folder, "") if e["type"] == "file"]
            name = "/".join(parts[:2])
            return self._json({"id": name, "sha": COMMIT, "siblings": files, "tags": []})

        def _file(self, path: Path) -> None:
            if not path.is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            data = path.read_bytes()
            return self._send(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1(data)}"'})

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _entries(folder: Path, under: str) -> list[dict[str, Any]]:
    """Files and folders below a folder, as the Hub lists them."""
    return [
        {
            "type": "directory" if path.is_dir() else "file",
            "path": str(path.relative_to(folder)),
            "oid": git_sha1(path.read_bytes() if path.is_file() else b""),
            "size": path.stat().st_size if path.is_file() else 0,
        }
        for path in sorted((folder / under).rglob("*"))
    ]
