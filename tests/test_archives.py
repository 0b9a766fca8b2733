"""An archive is read without trust in what it says: names stay inside, files are plain ones."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ddmd_bench.errors import BenchError
from ddmd_bench.files.archives import Member, opened, write_archive
from ddmd_bench.files.inside import is_inside

NAMES = ["../out", "/out", "a/../../out", "a/./b", "a//b", "C:/out", "c:out", "..\\out", "a\nb", "",
         "a/", "\u202egnp.exe", "x" * 2000, ".."]  # fmt: skip


def written(path: Path, *infos: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return path


def info(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 3, link: str = ""
) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.size, found.linkname = kind, size, link
    return found


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    assert not is_inside(name)
    with pytest.raises(BenchError), opened(written(tmp_path / "a.tar", info(name))):
        pass
    with pytest.raises(BenchError, match="plain path"):
        write_archive(tmp_path / "b.tar", [Member(name, b"abc")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("name", ["a", "a/b.c", "unet/model-00001-of-00002.safetensors", "ä/ж z"])
def test_plain_names_are_inside(tmp_path: Path, name: str) -> None:
    write_archive(tmp_path / "a.tar", [Member(name, b"abc")])
    with opened(tmp_path / "a.tar") as archive:
        assert b"".join(archive.parts(name)) == b"abc"


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
     tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGLINK],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = written(tmp_path / "a.tar", info("a", kind, 0, "/etc/passwd"))
    with pytest.raises(BenchError, match="no plain file"), opened(path):
        pass


def test_twice_one_name_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", info("a"), info("A"))  # one file on many systems
    with pytest.raises(BenchError, match="twice"), opened(path):
        pass


@pytest.mark.parametrize("size", [-512, -1, 1 << 40, 1 << 62])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME])
def test_sizes_that_are_none(tmp_path: Path, size: int, kind: bytes) -> None:
    header = info("a", kind, size).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(header + bytes(10240))
    with pytest.raises(BenchError, match="cut"), opened(tmp_path / "a.tar"):
        pass


def test_sizes_beyond_8_gib_and_long_names(tmp_path: Path) -> None:
    size, name = 9 << 30, "/".join(["folder"] * 40)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(size)
    header = info(name, size=size).tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "a.tar"
    with path.open("wb") as file:  # as `write_archive` would, but for 9 GiB of zeros on the disk
        file.write(header)
        file.truncate(len(header) + size + 1024)
    with opened(path) as archive:
        assert archive.places == {name: (len(header), size)}
    assert Member(name, tmp_path / "hole").size >= len(header) + size


def test_nothing_stands_behind_the_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", info("a"))
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(BenchError, match="behind its end"), opened(path):
        pass


def test_any_length_is_read_again(tmp_path: Path) -> None:
    for blocks in range(22):  # a record is twenty
        write_archive(tmp_path / "a.tar", [Member("a", bytes(512 * blocks)), Member("b", b"abc")])
        with opened(tmp_path / "a.tar") as archive:
            assert archive.size("a") == 512 * blocks
            assert b"".join(archive.parts("b")) == b"abc"


def test_a_changed_file_stops_the_packing(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="changed while it was packed"):
        write_archive(tmp_path / "a.tar", [Member("a", b"abc", "0" * 64)])
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def members() -> object:
        yield Member("a", b"abc")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_archive(tmp_path / "a.tar", members())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_any_damage_is_a_refusal_or_read(tmp_path: Path) -> None:
    """No foreign error, nothing outside, and no end that does not come."""
    whole = tmp_path / "whole.tar"
    names = ["pack.json", "a/" + "long" * 40, "b"]
    write_archive(whole, [Member(name, bytes([k]) * 700) for k, name in enumerate(names)])
    data, draws = whole.read_bytes(), random.Random(0)

    def flipped(cut: bytearray) -> None:
        cut[draws.randrange(len(cut))] = draws.randrange(256)

    def truncated(cut: bytearray) -> None:
        del cut[draws.randrange(len(cut)) :]

    def repeated(cut: bytearray) -> None:
        at = draws.randrange(len(cut) // 512) * 512
        cut[at:at] = cut[: draws.randrange(2048)]

    def resummed(cut: bytearray) -> None:  # a header that is whole, and says another thing
        at = draws.choice([0, 1536, 2048, 3072, 4096])
        cut[at + draws.randrange(512)] = draws.randrange(256)
        cut[at + 148 : at + 156] = b" " * 8
        cut[at + 148 : at + 156] = b"%06o\0 " % sum(cut[at : at + 512])

    ways: list[Callable[[bytearray], None]] = [flipped, truncated, repeated, resummed]
    outside = set(tmp_path.iterdir())
    refused = 0
    for k in range(800):
        damaged = bytearray(data)
        ways[k % len(ways)](damaged)
        whole.write_bytes(damaged)
        try:
            with opened(whole) as archive:
                assert all(map(is_inside, archive.places))
                for name in archive.places:
                    assert sum(map(len, archive.parts(name))) == archive.size(name)
        except BenchError:
            refused += 1
    assert 200 < refused < 800
    assert set(tmp_path.iterdir()) == outside
