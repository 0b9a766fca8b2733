"""A Hub on 127.0.0.1: the parts of its protocol that its client uses, over real HTTP.

Large files (as on the Hub: those with a sha256) are redirected to a store of another origin, which
serves ranges; they are also offered by xet, which no one here serves. A test makes repositories,
of models and of data sets, breaks things, and reads what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

TOKEN = "hf_good"


@dataclass
class Repository:
    files: dict[str, bytes]
    large: frozenset[str]
    branches: frozenset[str] = frozenset({"main"})
    known_as: str = ""  # a commit that a test did not make
    gated: bool = False
    cut_once: dict[str, int] = field(default_factory=dict)  # bytes before the line breaks
    served_instead: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        if self.known_as:
            return self.known_as
        rows = sorted((name, git_sha1(data)) for name, data in self.files.items())
        return hashlib.sha1(json.dumps(rows).encode()).hexdigest()

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()


@dataclass
class Request:
    method: str
    path: str
    has_token: bool
    num_bytes: int = 0


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """Repositories by owner/name (datasets/owner/name for a data set), and what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.answer_to_all: tuple[int, dict[str, str], bytes] | None = None
        self.endpoint = self.store = ""

    def add(self, name: str, files: dict[str, bytes], **options: object) -> Repository:
        large = frozenset(f for f in files if f.endswith((".safetensors", ".bin")))
        self.repositories[name] = Repository(files, large, **options)  # type: ignore[arg-type]
        return self.repositories[name]

    def add_folder(self, name: str, folder: Path, **options: object) -> Repository:
        """What lies in a folder, as it is now."""
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        contents = {file: files[file].read_bytes() for file in sorted(files)}
        return self.add(name, contents, **options)

    def bytes_served(self, part: str) -> int:
        return sum(request.num_bytes for request in self.requests if part in request.path)


@contextmanager
def in_thread(server: ThreadingHTTPServer) -> Iterator[str]:
    """The address of a server that answers until the end of the block."""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub and its store in two threads, until the end of the block."""
    api, store = (
        ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "answer": answer})
        )
        for answer in (_answer, _answer_of_store)
    )
    with in_thread(api) as hub.endpoint, in_thread(store) as hub.store:
        yield hub


@contextmanager
def client_of(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A served hub to which this process's client is pointed, with an empty cache and no token."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(hub):
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_HUB_DISABLE_TELEMETRY": True,  # it would ask the Hub who runs this
            "DOWNLOAD_CHUNK_SIZE": 1 << 14,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield hub
    close_session()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    asked: dict[str, list[str]]  # the body of a POST

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.request_seen = Request(self.command, self.path, "Authorization" in self.headers)
        self.hub.requests.append(self.request_seen)
        self.answer(self)  # type: ignore[attr-defined]

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def send(self, status: int, headers: dict[str, str], data: bytes = b"", cut: int = -1) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            sent = data if cut < 0 else data[:cut]
            self.wfile.write(sent)
            self.wfile.flush()
            self.request_seen.num_bytes += len(sent)
            self.close_connection = cut >= 0

    def refuse(self, status: int, code: str) -> None:
        self.send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")


def _answer(handler: _Handler, _: object = None) -> None:
    hub = handler.hub
    if hub.answer_to_all is not None:
        return handler.send(*hub.answer_to_all)
    parts = [unquote(part) for part in urlsplit(handler.path).path.strip("/").split("/")]
    is_api = parts[0] == "api"
    if is_api:
        parts = parts[1:]
        parts = parts[1:] if parts[0] == "models" else parts
    size = 3 if parts[0] == "datasets" else 2
    name, rest = "/".join(parts[:size]), parts[size:]
    repository = hub.repositories.get(name)
    if repository is None:
        return handler.refuse(401, "RepoNotFound")
    revision = rest[1] if len(rest) > 1 else "main"
    if revision not in repository.branches | {repository.commit}:
        return handler.refuse(404, "RevisionNotFound")
    if is_api:
        rows = _listing(handler, name, repository, rest)
        return handler.send(200, {"Content-Type": "application/json"}, json.dumps(rows).encode())
    if repository.gated and handler.headers.get("Authorization") != f"Bearer {TOKEN}":
        return handler.refuse(403, "GatedRepo")
    file = "/".join(rest[2:])
    headers = {"X-Repo-Commit": repository.commit}
    if file not in repository.files:
        return handler.refuse(404, "EntryNotFound")
    if file not in repository.large:
        data = repository.served_instead.get(file, repository.files[file])
        return handler.send(200, {**headers, "ETag": f'"{git_sha1(repository.files[file])}"'}, data)
    headers |= {
        "Location": f"{hub.store}/{name}/{file}",
        "X-Linked-Etag": f'"{repository.sha256(file)}"',
        "X-Linked-Size": str(len(repository.files[file])),
        "X-Xet-Hash": _xet_hash(repository, file),
        "X-Xet-Refresh-Route": f"{hub.endpoint}/api/models/{name}/xet-read-token/{revision}",
    }
    return handler.send(302, headers)


def _answer_of_store(handler: _Handler, _: object = None) -> None:
    path = unquote(handler.path).strip("/")
    name = next(name for name in handler.hub.repositories if path.startswith(f"{name}/"))
    repository, file = handler.hub.repositories[name], path.removeprefix(f"{name}/")
    data = repository.served_instead.get(file, repository.files[file])
    cut = repository.cut_once.pop(file, -1) if handler.command == "GET" else -1
    if wanted := handler.headers.get("Range"):
        begin = int(wanted.removeprefix("bytes=").split("-")[0])
        span = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
        return handler.send(206, span, data[begin:], cut)
    return handler.send(200, {}, data, cut)


def _xet_hash(repository: Repository, file: str) -> str:
    return hashlib.sha256(repository.sha256(file).encode()).hexdigest()


def _large(repository: Repository, file: str, hash_name: str) -> dict[str, object]:
    if file not in repository.large:
        return {}
    size = len(repository.files[file])
    return {"lfs": {"size": size, hash_name: repository.sha256(file), "pointerSize": 134}}


def _listing(handler: _Handler, name: str, repository: Repository, rest: list[str]) -> object:
    match rest:
        case ["tree", _, *under]:
            return [row for row in _tree(repository) if _is_under(str(row["path"]), under)]
        case ["paths-info", _]:
            return [row for row in _tree(repository) if row["path"] in handler.asked["paths"]]
        case _:
            return _info(name.removeprefix("datasets/"), repository)


def _is_under(path: str, folder: list[str]) -> bool:
    return path.split("/")[: len(folder)] == folder and path != "/".join(folder)


def _info(name: str, repository: Repository) -> dict[str, object]:
    siblings = [
        {
            "rfilename": file,
            "size": len(data),
            "blobId": git_sha1(data),
            **_large(repository, file, "sha256"),
        }
        for file, data in repository.files.items()
    ]
    gated = "manual" if repository.gated else False
    facts = {"id": name, "sha": repository.commit, "gated": gated, "tags": []}
    return {**facts, "siblings": siblings}


def _tree(repository: Repository) -> list[dict[str, object]]:
    folders = {str(p) for file in repository.files for p in PurePosixPath(file).parents} - {"."}
    return [
        {"type": "directory", "path": folder, "size": 0, "oid": git_sha1(folder.encode())}
        for folder in sorted(folders)
    ] + [
        {
            "type": "file",
            "path": file,
            "size": len(data),
            "oid": git_sha1(data),
            **_large(repository, file, "oid"),
            **({"xetHash": _xet_hash(repository, file)} if file in repository.large else {}),
        }
        for file, data in repository.files.items()
    ]
