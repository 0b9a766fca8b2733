"""Folders that stand in for a repository: what they are known by, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ddmd_bench.errors import BenchError
from ddmd_bench.files import remembered
from ddmd_bench.hub import Remote, folder_of, hashes, is_local, look, remote_identity


def test_what_is_local_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "here").mkdir(parents=True)
    assert all(map(is_local, ["/x", "./x", "../x", "~/x", "owner/here", "owner"]))
    assert not is_local("owner/name")
    for wrong in ("", "name", "a/b/c", "https://huggingface.co/a/b", "a b/c"):
        with pytest.raises(BenchError, match="expected owner/name"):
            is_local(wrong)


def test_a_folder_is_known_by_its_files_and_not_by_its_place(tmp_path: Path) -> None:
    identities = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.bin").write_bytes(b"a")
        (tmp_path / place / "notes").write_text(place)
        identities.append(
            remote_identity(Remote(str(tmp_path / place), None, ("*.bin",), "model", "x"))
        )
    assert identities[0] == identities[1]
    (tmp_path / "two" / "a.bin").rename(tmp_path / "two" / "b.bin")
    assert (
        remote_identity(Remote(str(tmp_path / "two"), None, ("*.bin",), "model", "x"))
        != identities[0]
    )
    with pytest.raises(BenchError, match=r"no file 'c.bin'; the nearest: "):
        folder_of(Remote(str(tmp_path / "two"), None, ("c.bin",), "model", "x"))
    with pytest.raises(BenchError, match="is no folder"):
        remote_identity(Remote(str(tmp_path / "three"), None, ("*",), "model", "x"))


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were hashed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    read: list[Path] = []
    hash_file = hashes.file_sha256

    def counted(path: Path) -> str:
        read.append(path)
        return hash_file(path)

    monkeypatch.setattr(hashes, "file_sha256", counted)
    return read


def test_hashes_of_a_folder_are_remembered_at_once(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is read and written a few times for a folder, not for each of its files."""
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(40):
        (folder / f"{k:02}.png").write_bytes(bytes([k]))
    uses: list[str] = []
    for name in ("read_json", "write_json"):
        use = getattr(remembered, name)
        monkeypatch.setattr(remembered, name, lambda *a, n=name, f=use: (uses.append(n), f(*a))[1])
    remote = Remote(str(folder), None, ("*",), "dataset", "x")
    first = remote_identity(remote)
    assert len(reads) == 40
    assert uses.count("write_json") == 1
    assert len(uses) <= 3
    uses.clear()
    assert remote_identity(remote) == first
    assert len(reads) == 40
    assert uses == ["read_json"]


def test_a_folder_is_read_once_and_again_when_it_changed(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "own" / "a.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"first")
    remote = Remote(str(path.parent), None, ("*",), "model", "x")
    before = remote_identity(remote)
    assert remote_identity(remote) == before
    assert reads == [path]

    times = path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copying tool may
    assert remote_identity(remote) != before
    assert reads == [path, path]

    (tmp_path / "xdg" / "ddmd_bench" / "sha256.json").write_text("no JSON")
    path.write_bytes(b"first")
    assert remote_identity(remote) == before


def test_an_index_without_its_shards_is_found(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.index.json").write_text('{"weight_map": {"a": "m-1.safetensors"}}')
    remote = Remote(str(tmp_path), None, ("m*",), "model", "weights")
    [problem] = look(remote).problems
    assert "m-1.safetensors" in problem
    (tmp_path / "m-1.safetensors").write_bytes(save({"a": np.zeros(1)}))
    assert look(remote).problems == ()
