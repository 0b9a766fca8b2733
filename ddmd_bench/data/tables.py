"""Files and datasets of the Hub, opened with `datasets`, and what is said where that fails.

Local files are always streamed: nothing of them is copied into a cache.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError
from ddmd_bench.suite.settings import DataSource

# Suffix -> the builder of `datasets` that reads it, with its options.
BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".txt": ("text", {}),
    # "NA" and "null" are words here.
    ".csv": ("csv", {"keep_default_na": False}),
    ".tsv": ("csv", {"keep_default_na": False, "sep": "\t"}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
}
TEXT_COLUMNS = ("prompt", "caption", "text")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
FETCH_OR_GIVE = (
    "Fetch it where there is a network: python -m ddmd_bench fetch SUITE. Or give a local file as "
    f"source ({', '.join(BUILDERS)})"
)


def is_local_source(source: str) -> bool:
    """Whether a source is meant as a file or folder, there or not."""
    path = Path(source)
    return path.suffix.lower() in BUILDERS or source.startswith((".", "/", "~")) or path.exists()


def is_hub_name(source: str) -> bool:
    """Whether a source has the form of a repository of the Hub, owner/name."""
    return _HUB_NAME.fullmatch(source) is not None


def refuse_hub_options(data: DataSource, what: str) -> None:
    """Config, split and revision say nothing of a local file or of a named source."""
    given = [name for name in ("config", "split", "revision") if getattr(data, name) is not None]
    if given:
        raise BenchError(f"{data.source}: {what} takes no {', '.join(given)}; leave it out")


def source_path(data: DataSource) -> Path:
    """The path of a local source, relative to the working directory, which must exist."""
    refuse_hub_options(data, "a local file or folder")
    path = Path(data.source).expanduser()
    if not path.exists():
        raise BenchError(f"{data.source}: no such file or folder (looked in {Path.cwd()})")
    return path


def rows_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of one local file in its order; a text file's only column is `text`."""
    return readable(str(path), open_file(path))


def open_file(path: Path) -> Any:
    """A local file as a dataset that streams."""
    if path.suffix.lower() not in BUILDERS:
        raise BenchError(f"{path}: expected a file that ends in one of {', '.join(BUILDERS)}")
    if path.stat().st_size == 0:
        raise BenchError(f"{path}: the file is empty")
    kind, options = BUILDERS[path.suffix.lower()]
    return open_builder(str(path), kind, data_files=exactly([path]), **options)


def exactly(paths: Sequence[Path]) -> list[str]:
    """Names of files for `datasets`, which would take * or [ in one for a pattern."""
    return [glob.escape(str(path)) for path in paths]


def open_builder(where: str, kind: str, **options: Any) -> Any:
    """One of the builders of `datasets` over local files, streaming its only split."""
    from datasets import load_dataset

    with explained(where):
        return load_dataset(kind, split="train", streaming=True, **options)


def readable(where: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The same rows; what cannot be parsed is said with the file's name."""
    with explained(where):
        yield from rows


@contextmanager
def explained(where: str) -> Iterator[None]:
    """What `datasets` and the Hub raise, as one sentence that says what to do."""
    import httpx2
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import errors
    from pyarrow import ArrowException

    try:
        yield
    except (errors.LocalEntryNotFoundError, ConnectionError, httpx2.TransportError) as error:
        raise BenchError(
            f"{where}: no network, and it is not in the cache. {FETCH_OR_GIVE}"
        ) from error
    except (DatasetNotFoundError, errors.RepositoryNotFoundError) as error:
        raise BenchError(
            f"{where}: no such repository or revision on the Hub, or no right to read it; "
            f"check the name, or log in with hf auth login ({_first(error)})"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BenchError(f"{where}: the repository has no such revision") from error
    except errors.EntryNotFoundError as error:
        raise BenchError(f"{where}: the repository has no such file: {_first(error)}") from error
    except (
        ValueError,  # bad UTF-8, CSV or JSON among them, a config or split that is not there
        OSError,  # the Hub's own errors among them
        ArrowException,
        DatasetGenerationError,
        RuntimeError,  # a repository that is a script
    ) as error:
        raise BenchError(f"{where}: cannot be read: {_first(error)}") from error


def _first(error: BaseException) -> str:
    cause = error.__cause__ or error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)


def open_hub(data: DataSource, streaming: bool) -> tuple[Any, str]:
    """A dataset of the Hub, its only split where none is given, and the commit that was read."""
    from datasets import load_dataset_builder

    if data.revision is not None and not _COMMIT.fullmatch(data.revision):
        raise BenchError(
            f"{data.source}: revision must be a commit, 40 hex digits, found {data.revision!r}: a "
            "branch moves, and cannot be told from another one without a network"
        )
    with explained(data.source):
        builder = load_dataset_builder(data.source, name=data.config, revision=data.revision)
        splits = list(builder.info.splits or builder.config.data_files or {})
        split = data.split or (splits[0] if len(splits) == 1 else None)
        if split is None or (splits and split not in splits):
            found = f"no split {split!r}" if split else "it has several splits"
            raise BenchError(f"{data.source}: {found}; give one of: {', '.join(map(str, splits))}")
        # Without a network `datasets` takes whatever commit it has.
        if data.revision not in (None, builder.hash):
            raise BenchError(
                f"{data.source}: revision {data.revision} is not in the cache, which has "
                f"{builder.hash}. {FETCH_OR_GIVE}"
            )
        if streaming:
            return builder.as_streaming_dataset(split=split), str(builder.hash)
        builder.download_and_prepare()
        return builder.as_dataset(split=split), str(builder.hash)


def hub_licence(repository: str, commit: str) -> str | None:
    """The licence that a dataset's card states, if it has a card and states one."""
    from huggingface_hub import DatasetCard, errors, hf_hub_download

    try:
        card = hf_hub_download(repository, "README.md", repo_type="dataset", revision=commit)
    except errors.EntryNotFoundError:
        return None
    licence = DatasetCard.load(card).data.to_dict().get("license")
    return ", ".join(licence) if isinstance(licence, list) else licence


def text_column(where: str, names: Sequence[str], asked: str | None) -> str:
    """The column of the text: the one asked for, else prompt, caption or text."""
    if asked is None:
        found = next((name for name in TEXT_COLUMNS if name in names), None)
        if found is None:
            raise BenchError(
                f"{where}: no column {', '.join(TEXT_COLUMNS)}; it has: {', '.join(names)}. Name "
                "one of them: column"
            )
        return found
    if asked not in names:
        raise BenchError(f"{where}: no column {asked!r}; it has: {', '.join(names)}")
    return asked


def text_of(where: str, column: str, position: int, value: Any) -> str:
    """A value as text without the white space around it; what is missing is ''."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BenchError(
            f"{where}: column {column!r} is not text: row {position} holds {value!r:.60}"
        )
    return value.strip()
