"""Fetching from a Hub and doing without one, over real HTTP against a server on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from ddmd_bench.errors import BenchError
from ddmd_bench.hub import (
    Remote,
    Size,
    download,
    folder_of,
    hashes,
    look,
    remote_identity,
)
from ddmd_bench.planning import downloads
from tests.hub_server import TOKEN, Hub, Repository, client_of

NAME = "tiny/unet"
WEIGHTS = "unet/model.safetensors"
UNET = Remote(NAME, None, ("unet/*",), "model", "the tiny UNet")
FILES = {
    "README.md": b"not wanted",
    "unet/config.json": b'{"sample_size": 8}',
    WEIGHTS: save({"w": np.arange(200_000, dtype=np.float32)}),
}
TOTAL = len(FILES["unet/config.json"]) + len(FILES[WEIGHTS])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one repository; the client is pointed at it, with an empty cache and no token."""
    with client_of(Hub(), tmp_path, monkeypatch) as hub:
        hub.add(NAME, dict(FILES))
        yield hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's address, where nothing listens."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def _repository(hub: Hub) -> Repository:
    return hub.repositories[NAME]


def _blob(repository: Repository, file: str = WEIGHTS) -> Path:
    return Path(constants.HF_HUB_CACHE, "models--tiny--unet", "blobs", repository.sha256(file))


def test_what_was_fetched_needs_no_network(hub: Hub) -> None:
    assert look(UNET).size == Size(TOTAL, TOTAL)
    seen: list[tuple[int, int]] = []
    folder = download(UNET, lambda done, total: seen.append((done, total)))
    for name in ("unet/config.json", WEIGHTS):
        assert (folder / name).read_bytes() == FILES[name]
    assert not (folder / "README.md").exists()
    assert seen[0] == (0, TOTAL)
    assert seen[-1] == (TOTAL, TOTAL)
    assert seen == sorted(seen)
    assert not [request for request in hub.requests if "xet" in request.path]

    asked = len(hub.requests)
    assert download(UNET) == folder_of(UNET) == folder
    assert remote_identity(UNET) == f"{NAME}@{_repository(hub).commit}"
    assert look(UNET).problems == ()
    assert look(UNET).size == Size(TOTAL, 0)
    assert len(hub.requests) == asked


def test_the_hubs_own_client_finds_offline_what_was_fetched(hub: Hub) -> None:
    folder = download(UNET)
    code = (
        "import huggingface_hub as h, ddmd_bench.hub as d\n"
        f"remote = d.Remote({NAME!r}, None, ('unet/*',), 'model', 'UNet')\n"
        "print(d.download(remote))\n"
        f"print(h.snapshot_download({NAME!r}, allow_patterns=['unet/*']))\n"
        f"print(h.hf_hub_download({NAME!r}, {WEIGHTS!r}))\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.stdout.splitlines() == [str(folder), str(folder), str(folder / WEIGHTS)], result


def test_a_line_that_breaks_costs_only_what_was_on_it(hub: Hub) -> None:
    _repository(hub).cut_once[WEIGHTS] = 300_000
    folder = download(UNET)
    assert (folder / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    again = hub.bytes_served(WEIGHTS) - len(FILES[WEIGHTS])
    assert 0 <= again < constants.DOWNLOAD_CHUNK_SIZE


def test_a_process_that_ends_in_the_middle_leaves_what_it_had(hub: Hub) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 400_000:
            raise Stopped

    with pytest.raises(Stopped):
        download(UNET, stop)
    with pytest.raises(BenchError, match="ddmd_bench fetch"):
        folder_of(UNET)
    missing = look(UNET).size.missing
    assert missing is not None
    assert missing < TOTAL - 300_000

    hub.requests.clear()
    assert (download(UNET) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert hub.bytes_served(WEIGHTS) < len(FILES[WEIGHTS]) - 300_000
    assert not list(_blob(_repository(hub)).parent.glob("*.incomplete"))


@pytest.mark.parametrize("file", [WEIGHTS, "unet/config.json"])
def test_other_bytes_than_announced_never_stay_in_the_cache(hub: Hub, file: str) -> None:
    wrong = bytearray(FILES[file])
    wrong[-1] ^= 1
    _repository(hub).served_instead[file] = bytes(wrong)
    with pytest.raises(BenchError, match=r"the tiny UNet: .*announced"):
        download(UNET)
    _repository(hub).served_instead.clear()
    assert (download(UNET) / file).read_bytes() == FILES[file]


@pytest.mark.parametrize("file", [WEIGHTS, "unet/config.json"])
def test_a_file_that_changed_in_the_cache_is_fetched_again(hub: Hub, file: str) -> None:
    path = download(UNET) / file
    path.resolve().write_bytes(FILES[file][:-1] + b"\0")
    assert (download(UNET) / file).read_bytes() == FILES[file]


def test_a_corrupted_file_without_network_is_named_and_kept(
    hub: Hub, request: pytest.FixtureRequest
) -> None:
    path = download(UNET) / WEIGHTS
    path.resolve().write_bytes(FILES[WEIGHTS][:-1] + b"\1")
    request.getfixturevalue("offline")
    with pytest.raises(BenchError, match="no network") as caught:
        download(UNET)
    assert str(path) in str(caught.value)
    assert path.is_file()


def test_a_truncated_safetensors_is_found_without_reading_weights(hub: Hub, tmp_path: Path) -> None:
    path = download(UNET) / WEIGHTS
    path.resolve().write_bytes(FILES[WEIGHTS][:-10])
    [problem] = look(UNET).problems
    assert str(path) in problem
    assert f"{len(FILES[WEIGHTS]) - 10} bytes, expected {len(FILES[WEIGHTS])}" in problem

    (tmp_path / "own" / "unet").mkdir(parents=True)
    shutil.copyfile(path, tmp_path / "own" / WEIGHTS)  # no listing tells its size: its header does
    own = Remote(str(tmp_path / "own"), None, (WEIGHTS,), "model", "my UNet")
    [problem] = look(own).problems
    assert problem.startswith("my UNet: ")
    assert "no whole safetensors file" in problem
    (tmp_path / "own" / WEIGHTS).write_bytes(FILES[WEIGHTS])
    assert look(own).problems == ()


def test_a_gated_repository_says_where_to_accept_its_terms(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _repository(hub).gated = True
    for said in (lambda: look(UNET).problems[0], lambda: str(_error(UNET))):
        assert f"terms at {hub.endpoint}/{NAME}" in said()
        assert "hf auth login" in said()
        assert "no token on this machine" in said()

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert look(UNET).problems == ()
    hub.requests.clear()
    download(UNET)
    stored = [
        request
        for request in hub.requests
        if not request.path.startswith(("/api", "/tiny/unet/resolve"))
    ]
    assert stored
    assert not any(request.has_token for request in stored)  # the store is not the Hub


def _error(remote: Remote) -> BenchError:
    with pytest.raises(BenchError) as caught:
        download(remote)
    return caught.value


def _like(**changes: object) -> Remote:
    return Remote(**{**vars(UNET), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        (_like(repository="tiny/gone"), "found no model repository at .*/tiny/gone: renamed, or"),
        (_like(revision="v9"), "has no revision 'v9'"),
        (_like(revision="0" * 40), "has no revision '0{40}'"),
        (_like(files=("unet/konfig.json",)), "no file 'unet/konfig.json'; .*unet/config.json"),
        (_like(files=("unet/*", "vae/*")), r"no file 'vae/\*'; it has README.md"),
    ],
)
def test_what_the_hub_has_not_is_a_problem_before_and_while_fetching(
    hub: Hub, remote: Remote, said: str
) -> None:
    [problem] = look(remote).problems
    for text in (problem, str(_error(remote))):
        assert text.startswith("the tiny UNet: ")
        assert len(text.splitlines()) == 1
        assert re.search(said, text)


@pytest.mark.usefixtures("hub", "offline")
def test_without_network_and_cache_everything_says_so() -> None:
    assert look(UNET).size == Size(None, None)
    [problem] = look(UNET).problems
    assert "no network to http://127.0.0.1:9" in problem
    assert "no network" in str(_error(UNET))
    with pytest.raises(BenchError, match=r"tiny/unet@main is not on this machine.*fetch SUITE"):
        folder_of(UNET)
    with pytest.raises(BenchError, match="which commit tiny/unet@main is"):
        remote_identity(UNET)


@pytest.mark.usefixtures("hub", "offline")
def test_a_pinned_commit_has_an_identity_without_network_or_files() -> None:
    assert remote_identity(_like(revision="a" * 40)) == f"{NAME}@{'a' * 40}"


def test_a_half_downloaded_file_is_named_without_network(
    hub: Hub, request: pytest.FixtureRequest
) -> None:
    partial = _blob(_repository(hub)).with_suffix(".incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(FILES[WEIGHTS][:1000])
    assert look(UNET).size == Size(TOTAL, TOTAL - 1000)
    request.getfixturevalue("offline")
    assert any("half downloaded (1000 bytes)" in problem for problem in look(UNET).problems)


_LOGIN_PAGE = (200, {"Content-Type": "text/html"}, b"<html>Welcome to the hotel</html>")
_BAD_TOKEN = (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, {}, b""), "answered 503: .*Try again later"),
        (_BAD_TOKEN, "refused this machine's token.*hf auth login"),
        (_LOGIN_PAGE, "did not answer as a Hub does"),
    ],
)
def test_what_else_a_server_may_answer(
    hub: Hub, answer: tuple[int, dict[str, str], bytes], said: str
) -> None:
    hub.answer_to_all = answer
    [problem] = look(UNET).problems
    assert re.search(said, problem)
    assert re.search(said, str(_error(UNET)))


@pytest.mark.usefixtures("hub")
def test_what_is_not_here_while_offline_is_asked_for_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    [problem] = look(UNET).problems
    assert "HF_HUB_OFFLINE is set" in problem


def test_two_that_fetch_at_once_fetch_once(hub: Hub) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(download, [UNET, UNET])
    assert one == two
    assert (one / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert hub.bytes_served(WEIGHTS) == len(FILES[WEIGHTS])


def test_a_branch_that_moved_keeps_its_commit_until_fetched_files_are_missing(hub: Hub) -> None:
    before = remote_identity(download(UNET) and UNET)
    _repository(hub).files["unet/config.json"] = b"{}"
    assert remote_identity(UNET) == before
    download(UNET)
    assert remote_identity(UNET) == before
    more = _like(files=("unet/*", "README.md"))
    assert (download(more) / "unet/config.json").read_bytes() == b"{}"
    assert remote_identity(UNET) != before


def test_a_data_set_is_another_repository_than_a_model(hub: Hub) -> None:
    hub.add("datasets/tiny/prompts", {"prompts.txt": b"a cat\n"})
    remote = Remote("tiny/prompts", None, ("prompts.txt",), "dataset", "prompts")
    assert (download(remote) / "prompts.txt").read_bytes() == b"a cat\n"
    assert "found no model repository" in look(_like(repository="tiny/prompts")).problems[0]


def test_a_snapshot_of_the_cache_is_known_by_its_blobs_names(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was downloaded was hashed then, and is not read again.
    monkeypatch.setattr(hashes, "file_sha256", lambda path: pytest.fail(f"{path} is read"))
    folder = download(UNET)
    snapshot = Remote(str(folder), None, (WEIGHTS,), "model", "x")
    known = remote_identity(snapshot)
    # A blob that is itself a link into a store of other names is still known by its own.
    blob = (folder / WEIGHTS).resolve()
    stored = Path(constants.HF_HUB_CACHE, "blobs", "ff", "f" * 64)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    assert remote_identity(snapshot) == known


def test_what_a_suite_needs_is_fetched_as_a_whole(hub: Hub) -> None:
    hub.add("tiny/vae", {"vae.safetensors": save({"w": np.ones(3)})})
    vae = Remote("tiny/vae", None, ("vae.safetensors",), "model", "the VAE")
    gone = _like(repository="tiny/gone", what="a student")
    late = _like(revision="v9", what="another")
    lines = downloads.download_lines([UNET, vae])
    assert lines[0] == f"the tiny UNet: tiny/unet@main  to download {TOTAL / 1e6:.3f} MB"
    with pytest.raises(BenchError) as caught:
        downloads.fetch_remotes([gone, UNET, late, vae])
    said = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in said] == ["a student", "another"]
    assert downloads.download_lines([UNET, vae]) == [
        "the tiny UNet: tiny/unet@main  complete",
        "the VAE: tiny/vae@main  complete",
    ]
    seen: set[str] = set()
    folders = downloads.fetch_remotes(
        [UNET, vae], lambda remote, done, total: seen.add(remote.what)
    )
    assert folders == [folder_of(UNET), folder_of(vae)]
    assert seen == set()  # nothing was left to fetch


def test_a_full_disk_stops_before_the_first_byte(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        downloads.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    with pytest.raises(BenchError, match=rf"{TOTAL / 1e6:.3f} MB are to be .* 0.001 MB are free"):
        downloads.fetch_remotes([UNET])
    assert hub.bytes_served("resolve") == 0


@pytest.mark.usefixtures("hub", "offline")
def test_without_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Remote] = []

    def ask(remote: Remote) -> object:
        asked.append(remote)
        return ask_hub(remote)

    from ddmd_bench.hub import online

    ask_hub = online.ask_hub
    monkeypatch.setattr(online, "ask_hub", ask)
    lines = downloads.download_lines([UNET, _like(repository="tiny/vae"), UNET])
    assert [line.split("  ")[1] for line in lines] == ["size unknown: no network"] * 3
    assert len(asked) == 1
