"""Datasets of the Hub, opened with `datasets`, and what is said where that fails."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ddmd_bench.data.tables import FORMATS
from ddmd_bench.errors import BenchError
from ddmd_bench.suite.settings import DataSource

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
FETCH_OR_GIVE = (
    "Fetch it where there is a network: python -m ddmd_bench fetch SUITE. Or give a local file as "
    f"source ({', '.join(FORMATS)})"
)


def is_hub_name(source: str) -> bool:
    """Whether a source has the form of a repository of the Hub, owner/name."""
    return _HUB_NAME.fullmatch(source) is not None


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


def stream_hub(data: DataSource) -> tuple[Any, list[str]]:
    """The rows of a dataset of the Hub as they come, and its columns."""
    rows, _ = open_hub(data, streaming=True)
    if rows.features is not None:
        return rows, list(rows.features)
    first = next(readable(data.source, rows), None)  # a text format says them with its first row
    if first is None:
        raise BenchError(f"{data.source}: holds no row")
    return rows, list(first)


def hub_licence(repository: str, commit: str) -> str | None:
    """The licence that a dataset's card states, if it has a card and states one."""
    from huggingface_hub import DatasetCard, errors, hf_hub_download

    try:
        card = hf_hub_download(repository, "README.md", repo_type="dataset", revision=commit)
    except errors.EntryNotFoundError:
        return None
    licence = DatasetCard.load(card).data.to_dict().get("license")
    return ", ".join(licence) if isinstance(licence, list) else licence
