"""A folder of images made elsewhere: which file shows which prompt, or has which caption.

Its own metadata say so, one of `METADATA` with a row for each image: `file_name`, relative to the
folder, and `prompt`, `caption` or `text`. Without metadata each image's caption is the text file
beside it, `0001.txt` of `0001.png`. No name of a file or folder means anything else.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ddmd_bench.data.headers import Header, headers_of
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.data.tables import rows_of
from ddmd_bench.data.texts import stripped, text_column, text_of
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Undecodable, upright
from ddmd_bench.files.lines import read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
)
NAMED = 5  # items that a sentence names


class Listed(NamedTuple):
    """One image that a folder lists."""

    position: int  # of its row, from 0
    file_name: str
    text: str  # '' where there is none


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files with these suffixes in a folder and its subfolders, by path; hidden ones are no part.

    Hidden is what begins with a dot: thumbnails, and what other systems leave beside each file.
    """
    wanted, found = tuple(suffixes), []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (name for name in names if not name.startswith("."))
        found += [Path(place, name) for name in shown if name.lower().endswith(wanted)]
    return sorted(found)


def equal_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Files of the same bytes, those of each content together; what cannot be read is none."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        with suppress(OSError):
            by_size[path.stat().st_size].append(path)
    by_bytes: dict[bytes, list[Path]] = defaultdict(list)
    for path in (path for alike in by_size.values() if len(alike) > 1 for path in alike):
        with suppress(OSError), path.open("rb") as file:
            by_bytes[hashlib.file_digest(file, "sha256").digest()].append(path)
    return [alike for alike in by_bytes.values() if len(alike) > 1]


def metadata_of(folder: Path) -> Path | None:
    """The folder's own metadata, if it has any."""
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise BenchError(f"{folder}: has {names}; which counts cannot be told. Keep one")
    return found[0] if found else None


def list_images(folder: Path, column: str | None = None) -> Iterator[Listed]:
    """The images of a folder in the order of its metadata, else of their paths."""
    if (table := metadata_of(folder)) is not None:
        return _of_table(table, column)
    return _of_sidecars(folder)


def _of_table(table: Path, column: str | None) -> Iterator[Listed]:
    found = None
    for position, row in enumerate(rows_of(table)):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise BenchError(
                f"{table}: row {position} has no file_name; it has: {', '.join(row) or 'nothing'}"
            )
        if name.startswith("/") or ".." in name.split("/"):
            raise BenchError(f"{table}: row {position}: {name} leads out of the folder")
        found = found or text_column(str(table), list(row), column)
        yield Listed(position, name, text_of(str(table), found, position, row.get(found)))


def _of_sidecars(folder: Path) -> Iterator[Listed]:
    images = files_below(folder, IMAGE_SUFFIXES)
    texts = {path: path.with_suffix(".txt") for path in images}
    if not any(text.is_file() for text in texts.values()):
        nested = [path for name in METADATA for path in sorted(folder.rglob(name))]
        hint = f". Did you mean {nested[0].parent}, which has {nested[0].name}?" if nested else ""
        raise BenchError(
            f"{folder}: expected images with one of {', '.join(METADATA)}, a row for each: "
            '{"file_name": "0001.png", "prompt": "a red cat"}; or a text file beside each image'
            f"{hint}"
        )
    for position, (path, text) in enumerate(texts.items()):
        caption = stripped(read_text(text)) if text.is_file() else ""
        yield Listed(position, path.relative_to(folder).as_posix(), caption)


def require_images(where: Path, paths: Iterable[Path]) -> dict[Path, Header]:
    """The header of each file; or an error that names those that are no whole images."""
    headers = headers_of(dict.fromkeys(paths))
    if faults := [f"{path}: {header.fault}" for path, header in headers.items() if header.fault]:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise BenchError(
            f"{where}: {len(faults)} of {len(headers)} images cannot be read: "
            f"{'; '.join(faults[:NAMED])}{more}. Mend them, or leave out their rows"
        )
    return headers


def captioned_images(folder: Path, column: str | None) -> list[tuple[str, Path, Header]]:
    """Each image that has a caption; all are whole images."""
    place = os.fspath(folder)
    listed = [one for one in list_images(folder, column) if one.text]
    images = [(one.text, Path(f"{place}/{one.file_name}")) for one in listed]
    headers = require_images(folder, (path for _, path in images))
    return [(text, path, headers[path]) for text, path in images]


def read_listing(
    folder: Path, prompts: Sequence[Prompt], images_per_prompt: Mapping[str, int]
) -> dict[tuple[str, int], Path]:
    """File by prompt id and image index; the k-th row of a prompt's text is its k-th image.

    Prompts of the same text have a row of their own for each image, in the order of their ids.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder of images")
    by_text: dict[str, list[Path]] = defaultdict(list)
    for one in list_images(folder):
        by_text[one.text].append(folder / one.file_name)
    needed: Counter[str] = Counter()
    files: dict[tuple[str, int], Path] = {}
    for prompt in sorted(prompts, key=lambda prompt: prompt.prompt_id):
        first = needed[prompt.text]
        needed[prompt.text] += images_per_prompt[prompt.prompt_set]
        own = by_text[prompt.text][first : needed[prompt.text]]
        files |= {(prompt.prompt_id, k): path for k, path in enumerate(own)}
    if lacking := [text for text, number in needed.items() if len(by_text[text]) < number]:
        first_text = lacking[0]
        raise BenchError(
            f"{folder}: {len(lacking)} of {len(needed)} prompts lack images, e.g. {first_text!r} "
            f"has {len(by_text[first_text])} of {needed[first_text]}"
        )
    if len(set(files.values())) < len(files):
        twice, _ = Counter(files.values()).most_common(1)[0]
        raise BenchError(f"{folder}: {twice.name} stands for two images; name each image once")
    _require_one_size(require_images(folder, files.values()))
    return files


def _require_one_size(headers: Mapping[Path, Header]) -> None:
    """Images of one student are measured together, as those of every other."""
    seen: dict[tuple[int, int], Path] = {}
    for path, header in headers.items():
        seen.setdefault((header.width, header.height), path)
    if len(seen) > 1:
        sizes = [f"{path} has {w} x {h} pixels" for (w, h), path in seen.items()]
        raise BenchError(f"{', '.join(sizes[:2])}: expected one size. Resize or crop them alike")


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 [H, W, 3]."""
    import numpy as np

    try:
        return np.asarray(upright(path).convert("RGB"))
    except Undecodable as error:
        raise BenchError(f"{path}: cannot be read as an image: {error}") from error
