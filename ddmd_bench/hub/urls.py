"""Files that are at a URL and in no repository: fetched whole, on from where an attempt stopped."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ddmd_bench.errors import BenchError

TIMEOUT_S = 60
_CHUNK = 1 << 20


def download_url(url: str, path: Path, progress: Callable[[int, int], None]) -> Path:
    """Fetch a file to a path; progress is of (bytes here, bytes wanted).

    What has come of it lies beside the path until all has, and is not fetched again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.incomplete")
    begun = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            # A server that knows no ranges sends all of it, with 200 for 206.
            done = begun if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
            total = done + int(answer.headers.get("Content-Length", 0))
            with partial.open("ab" if done else "wb") as file:
                while chunk := answer.read(_CHUNK):
                    done += file.write(chunk)
                    progress(done, total)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise BenchError(f"{url}: cannot be fetched: {error}. Fetch again to go on") from error
    if done < total:
        raise BenchError(f"{url}: broke off at {done} of {total} bytes. Fetch again to go on")
    partial.replace(path)
    return path
