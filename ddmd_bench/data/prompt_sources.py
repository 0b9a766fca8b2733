"""Prompt lists, found and read: a published one by name, a local file, a dataset of the Hub.

A published list, a row of `data.prompt_catalogue`, is used whole, repeated prompts included, since
values of others are over all of it; of a list of one's own a repeated prompt is kept once, at its
first position, or, where one category is asked for, at its first in each. Both are counted. Empty
prompts are left out and counted. Texts lose the white space around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ddmd_bench.data.hub_tables import hub_licence, is_hub_name, open_hub, readable
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES, PromptSource
from ddmd_bench.data.prompt_downloads import files_of_github, files_of_hub
from ddmd_bench.data.prompt_readers import CATEGORY_COLUMN, READERS, Row, table_rows
from ddmd_bench.data.prompts import PromptList
from ddmd_bench.data.tables import (
    FORMATS,
    is_local_source,
    refuse_hub_options,
    rows_of,
    source_path,
)
from ddmd_bench.data.texts import text_column
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.hub import Remote
from ddmd_bench.suite.settings import DataSource


def find_prompts(
    data: DataSource,
    prompt_sets: Mapping[str, Callable[[], Sequence[str]]],
    category: str | None = None,
) -> PromptList:
    """The prompts of a suite's source, of one category where one is named: the backend's own, or
    any that `load_prompts` knows."""
    if data.source in prompt_sets:
        _refuse_options(data, "a backend's own source")
        texts = tuple(prompt_sets[data.source]())
        found = PromptList(
            source=data.source,
            texts=texts,
            positions=tuple(range(len(texts))),
            categories=(None,) * len(texts),
            n_duplicates=len(texts) - len(set(texts)),
        )
    else:
        found = load_prompts(data, prompt_sets, by_category=category is not None)
    return found.of_category(category)


def prompt_remotes(sources: Iterable[DataSource]) -> list[Remote]:
    """What must be fetched of the Hub for the published lists among the sources."""
    rows = (PROMPT_SOURCES.get(data.source) for data in sources)
    return [row.remote for row in rows if row is not None and row.remote is not None]


def images_of_prompts(data: DataSource) -> tuple[Path, str] | None:
    """The zip that holds a published list's real images, and their pattern in it; if it has any."""
    row = PROMPT_SOURCES.get(data.source)
    if row is None or row.remote is None or row.images is None:
        return None
    _refuse_options(data, "a named source")
    ((path,), _) = files_of_hub(row.remote)
    return path, row.images


def load_prompts(
    data: DataSource, others: Iterable[str] = (), *, by_category: bool = False
) -> PromptList:
    """All prompts of a named list, a local file, or a dataset of the Hub (which needs `column`).

    `others` are names that a message about an unknown one should list too. With `by_category` a
    text of two categories is in both, and no repetition.
    """
    if data.source in PROMPT_SOURCES:
        _refuse_options(data, "a named source")
        return read_source(data.source, PROMPT_SOURCES[data.source])
    if is_local_source(data.source):
        path = source_path(data)
        rows = table_rows(str(path), rows_of(path), data.column, None)
        return _listed(data.source, rows, False, by_category=by_category)
    if is_hub_name(data.source) and data.column is not None:
        dataset, commit = open_hub(data, streaming=False)
        text_column(data.source, dataset.column_names, data.column)
        wanted = [c for c in (data.column, CATEGORY_COLUMN) if c in dataset.column_names]
        columns = readable(data.source, dataset.select_columns(wanted))  # without any images
        rows = table_rows(data.source, columns, data.column, None)
        facts = (data.source, commit, hub_licence(data.source, commit))
        return _listed(data.source, rows, False, *facts, by_category=by_category)
    known = unknown("prompt source", data.source, [*PROMPT_SOURCES, *others])
    raise BenchError(
        f"{known} Or a local file ({', '.join(FORMATS)}), or owner/name of a dataset on the Hub "
        "with the column of its prompts: column"
    )


def read_source(name: str, row: PromptSource) -> PromptList:
    """A published list by its row; a verified row must find what it says."""
    if row.remote is not None:
        paths, commit = files_of_hub(row.remote)
    else:
        assert row.revision is not None, f"{name}: a row on GitHub names its commit"
        paths, commit = files_of_github(row.repository, row.revision, row.files)
    rows: list[Row] = []
    for path, text, category in READERS[row.reader](paths, row.column, row.category):
        after = row.category_after
        rows.append((text, category if after is None else path.stem.removeprefix(after)))
    if row.verified and row.num_prompts is not None and len(rows) != row.num_prompts:
        raise BenchError(
            f"{name}: {row.repository} holds {len(rows)} prompts, {row.title} has {row.num_prompts}"
        )
    listed = _listed(name, rows, True, row.repository, commit, row.licence)
    if row.sha256 is not None and listed.sha256 != row.sha256:
        raise BenchError(
            f"{name}: the prompts in {row.repository} are not those of {row.title}: sha256 "
            f"{listed.sha256}, expected {row.sha256}. Remove them from the cache and fetch again"
        )
    return listed


def _refuse_options(data: DataSource, what: str) -> None:
    refuse_hub_options(data, what)
    if data.column is not None:
        raise BenchError(f"{data.source}: {what} takes no column; leave it out")


def _listed(
    source: str,
    rows: Iterable[Row],
    repeats: bool,
    repository: str | None = None,
    revision: str | None = None,
    licence: str | None = None,
    by_category: bool = False,
) -> PromptList:
    kept: list[tuple[str, int, str | None]] = []
    seen: set[tuple[str, str | None]] = set()
    num_rows = n_duplicates = n_empty = 0
    for position, (text, category) in enumerate(rows):
        num_rows += 1
        key = text, category if by_category else None
        repeated = key in seen
        n_empty += not text
        n_duplicates += repeated
        if text and (repeats or not repeated):
            kept.append((text, position, category))
            seen.add(key)
    if not kept:
        raise BenchError(f"{source}: holds no prompt")
    texts, positions, categories = zip(*kept, strict=True)
    return PromptList(
        source=source,
        texts=texts,
        positions=positions,
        categories=categories,
        repository=repository,
        revision=revision,
        licence=licence,
        n_duplicates=n_duplicates,
        n_empty=n_empty,
        n_left_out=num_rows - len(kept),
    )
