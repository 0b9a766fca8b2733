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
from ddmd_bench.data.tables import FORMATS, rows_of
from ddmd_bench.data.texts import stripped, text_column, text_of
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Unusable, upright
from ddmd_bench.files.lines import read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
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
    Links to folders are followed; a folder that several names lead to is read once.
    """
    wanted, found, seen = tuple(suffixes), list[Path](), set[str]()
    starts = [os.fspath(folder)]
    for start in starts:  # which grows: links after all that lies in the folder itself
        for place, folders, names in os.walk(start):
            real = os.path.realpath(place)
            shown = [] if real in seen else sorted(n for n in folders if not n.startswith("."))
            if real not in seen:
                files = (name for name in names if not name.startswith("."))
                found += [Path(place, name) for name in files if name.lower().endswith(wanted)]
            seen.add(real)
            folders[:] = shown
            below = (os.path.join(place, name) for name in shown)
            starts += [path for path in below if os.path.islink(path)]
    return sorted(found)


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, by path."""
    found = files_below(folder, IMAGE_SUFFIXES)
    for path in found:
        try:
            path.relative_to(folder).as_posix().encode()
        except UnicodeEncodeError:
            raise BenchError(
                f"{os.fspath(path)!a}: the name of this image is not UTF-8, and no table can hold "
                "it; rename it, or set PYTHONUTF8=1 where the locale is another"
            ) from None
    return found


def others_below(folder: Path) -> list[Path]:
    """Files beside a folder's images that are neither images nor texts or tables by their names."""
    known = (*IMAGE_SUFFIXES, *FORMATS)
    return [path for path in files_below(folder, [""]) if not path.name.lower().endswith(known)]


def left_out(folder: Path) -> str:
    """A sentence on them; '' where there is none."""
    if not (names := [path.relative_to(folder).as_posix() for path in others_below(folder)]):
        return ""
    kinds = ", ".join(sorted(IMAGE_SUFFIXES))
    return f"{len(names)} files are no images by their names ({kinds}): {some_of(names)}"


def some_of(items: Sequence[str]) -> str:
    """The first items of a sentence, and how many more there are."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def is_text(name: str) -> bool:
    """Whether a name can be written down: half a surrogate pair is no character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_in(folder: Path, where: str, name: str) -> str:
    """The name of a row's image as a path within the folder, one for each file.

    As it may stand in a table: with `./`, absolute, or with Windows' separators.
    """
    if "\0" in name or not is_text(name):
        raise BenchError(f"{where}: {name!r} is no file's name")
    plain = name.replace("\\", "/") if "\\" in name and not (folder / name).exists() else name
    path = os.path.normpath(plain)
    if os.path.isabs(path):
        for own in (os.path.abspath(folder), os.path.realpath(folder)):
            if path.startswith(own + os.sep):
                path = os.path.relpath(path, own)
    if os.path.isabs(path) or path.split(os.sep)[0] in ("..", "."):
        raise BenchError(f"{where}: {name} leads out of the folder of images")
    return Path(path).as_posix()


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
        name = name_in(table.parent, f"{table}: row {position}", name)
        found = found or text_column(str(table), list(row), column)
        yield Listed(position, name, text_of(str(table), found, position, row.get(found)))


def _of_sidecars(folder: Path) -> Iterator[Listed]:
    images = images_below(folder)
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
    except Unusable as error:
        raise BenchError(f"{path}: cannot be read as an image: {error}") from error
