"""Files that are at a URL and in no repository: fetched whole, on from where an attempt stopped."""

from __future__ import annotations

import http
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import file_sha256
from ddmd_bench.hub.hashes import remember_sha256
from ddmd_bench.hub.transfer import OnBytes

TIMEOUT_S = 60
_CHUNK = 1 << 20


def download_url(url: str, path: Path, progress: OnBytes, sha256: str = "") -> Path:
    """Fetch a file to a path, where its hash begins as it should.

    What has come of it lies beside the path until all has, and is not fetched again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.incomplete")
    try:
        _append(url, partial, progress)
    except (http.client.HTTPException, OSError) as error:  # urllib's own are OSErrors
        raise BenchError(f"{url}: cannot be fetched: {error}. Fetch again to go on") from error
    if not (arrived := file_sha256(partial)).startswith(sha256):
        partial.unlink()
        raise BenchError(
            f"{url}: arrived with sha256 {arrived}, expected {sha256}; it was removed. Fetch "
            "again; if it stays so, look at the proxy or the disk"
        )
    partial.replace(path)
    remember_sha256(path, arrived)
    return path


def _append(url: str, partial: Path, progress: OnBytes) -> None:
    """Bring the rest of a file, or all of it from a server that knows no ranges."""
    begun = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if not begun or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        partial.unlink()  # all that there is, or more: of another file, as far as we know
        return _append(url, partial, progress)
    with answer:
        done = begun if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = done + int(answer.headers.get("Content-Length", 0))
        with partial.open("ab" if done else "wb") as file:
            while chunk := answer.read(_CHUNK):
                done += file.write(chunk)
                progress(done, total)
    if done < total:
        raise OSError(f"broke off at {done} of {total} bytes")
    return None
