"""Files at a URL, over real HTTP: whole, on from where they broke off, with the hash announced."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddmd_bench.errors import BenchError
from ddmd_bench.hub.urls import download_url
from ddmd_bench.planning.downloads import fetch_weights
from ddmd_bench.scorers import SCORERS
from ddmd_bench.scorers.weights import OWN_FOLDER, Weights, folders, located, require
from tests.hub_server import in_thread

DATA = bytes(range(256)) * 20_000  # five chunks


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after: int | None = None
        self.ranges = True
        self.sent: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/network.pt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/network.pt":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        if asked == f"bytes={len(DATA)}-":
            self.send_error(416)
            return
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(DATA) - begin))
        self.end_headers()
        part = DATA[begin : self.server.cut_after]
        self.server.sent.append(len(part))
        self.wfile.write(part)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    with in_thread(running):
        yield running


def test_a_file_arrives_whole(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download_url(server.url, tmp_path / "a" / "b.pt", lambda *now: seen.append(now))
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert [p.name for p in path.parent.iterdir()] == ["b.pt"]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut_after = 2_000_000
    path = tmp_path / "network.pt"
    with pytest.raises(BenchError, match="Fetch again to go on"):
        download_url(server.url, path, lambda done, total: None)
    assert not path.exists()
    server.cut_after, server.ranges = None, ranges
    download_url(server.url, path, lambda done, total: None)
    assert path.read_bytes() == DATA
    assert server.sent[1] == (len(DATA) - 2_000_000 if ranges else len(DATA))


def test_a_whole_part_under_its_temporary_name_is_fetched_again(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "network.pt.incomplete").write_bytes(DATA)
    download_url(server.url, tmp_path / "network.pt", lambda done, total: None)
    assert (tmp_path / "network.pt").read_bytes() == DATA


def test_what_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"other\.pt: cannot be fetched: .*404"):
        download_url(server.url.replace("network", "other"), tmp_path / "a", lambda *now: None)


def test_weights_are_fetched_to_where_they_are_looked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(OWN_FOLDER, raising=False)
    digest = hashlib.sha256(DATA).hexdigest()
    folders = ("$TORCH_HOME/hub/checkpoints",)
    weights = Weights(
        "a network", ("network.pt",), url=server.url, elsewhere=folders, sha256=digest[:8]
    )
    assert not located(weights)
    paths = fetch_weights([weights, weights, Weights("on the Hub", ("x",), repository="a/b")])
    assert paths == [tmp_path / "torch/hub/checkpoints/network.pt"]
    assert require(weights) == {"network.pt": paths[0]}
    assert not fetch_weights([weights])
    assert len(server.sent) == 1
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path / "own"))
    wrong = Weights("a network", ("other.pt",), url=server.url, sha256="00000000")
    with pytest.raises(BenchError, match="expected 00000000"):
        fetch_weights([wrong])
    assert not located(wrong)


def test_weights_without_a_folder_of_their_own_go_into_the_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No scorer's row may leave `fetch` without a place to put a file."""
    monkeypatch.delenv(OWN_FOLDER, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = Weights("a network", ("weights.bin",), url=server.url)
    assert not located(weights)
    (path,) = fetch_weights([weights])
    assert path.is_relative_to(tmp_path / "cache")
    assert located(weights) == {"weights.bin": path}
    for row in SCORERS.values():
        assert all(next(folders(one), None) for one in row.weights if one.url is not None)
