"""Published prompt lists by name, and any list of one's own: a local file, a dataset of the Hub.

What a list is, where it lies and how it is read is a row of `PROMPT_SOURCES`. A published list is
used whole, repeated prompts included, since values of others are over all of it; of a list of
one's own a repeated prompt is kept once, at its first position. Both are counted. Empty prompts
are left out and counted. Texts lose the white space around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddmd_bench.data.prompt_downloads import files_of_github, files_of_hub
from ddmd_bench.data.prompt_readers import CATEGORY_COLUMN, READERS, Row, table_rows
from ddmd_bench.data.prompts import PromptList
from ddmd_bench.data.tables import (
    BUILDERS,
    hub_licence,
    is_hub_name,
    is_local_source,
    open_hub,
    readable,
    refuse_hub_options,
    rows_of,
    source_path,
    text_column,
)
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.hub import Remote
from ddmd_bench.suite.settings import DataSource


@dataclass(frozen=True)
class PromptSource:
    """A published list of prompts."""

    title: str
    host: Literal["dataset", "model", "github"]  # the first two are kinds of the Hub's repositories
    repository: str  # or a local folder with the same files
    revision: str | None  # a commit; None: the newest, whose commit is recorded
    files: tuple[str, ...]  # in the list's order; on GitHub patterns, files of one by name
    reader: str  # of READERS
    num_prompts: int | None  # as published; held where the row is verified
    source: str  # where these facts come from
    column: str | None = None
    category: str | None = None  # its column
    category_after: str | None = None  # or the file's name without suffix, after this
    licence: str | None = None
    sha256: str | None = None  # over the texts
    images: str | None = None  # those of the prompts, members of the only file, which is a zip
    verified: bool = True  # files, format and number were seen in a source that can be named

    @property
    def remote(self) -> Remote | None:
        """What must be fetched of the Hub."""
        if self.host == "github":
            return None
        return Remote(self.repository, self.revision, self.files, self.host, f"{self.title}, list")


PROMPT_SOURCES: dict[str, PromptSource] = {
    "hpdv2": PromptSource(
        "HPDv2 benchmark",
        host="dataset",
        repository="zhwang/HPDv2",
        revision="b9517430f34b1080d4f741118d2a440155a165cd",
        files=tuple(f"benchmark/{s}.json" for s in ("anime", "concept-art", "paintings", "photo")),
        reader="table",
        column="text",  # what `datasets` calls the items of a JSON list
        category_after="",
        num_prompts=3200,
        licence="Apache-2.0",  # of the same authors' ymhao/HPDv2; this repository states none
        source="The hpsv2 package takes its benchmark from these files; their listing is on the "
        "Hub, each a list of 800 prompts.",
    ),
    "hpdv3": PromptSource(
        "HPSv3 benchmark",
        host="dataset",
        repository="MizzenAI/HPDv3",
        revision=None,
        files=tuple(
            f"benchmark/benchmark_{category}.json"
            for category in (
                *("Animals", "Architecture", "Arts", "Characters", "Design", "Food"),
                *("Natural Scenery", "Others", "Plants", "Products", "Science", "Transportation"),
            )
        ),
        reader="table",
        column="caption",
        category_after="benchmark_",
        num_prompts=None,
        licence="MIT",
        source="File names and column as LakonLab's AsymFLUX configuration reads them; licence "
        "from the dataset's card.",
        verified=False,  # neither the number of prompts nor the files themselves were seen
    ),
    "coco2014_10k": PromptSource(
        "COCO 2014 val, DMD2's 10k captions",
        host="model",
        repository="tianweiy/DMD2",
        revision="6743dc8939e91295295a67a0c4b59ca062010dba",
        files=("data/coco/coco10k.zip",),  # 1.9 GB: the images of the captions are in it
        images="coco10k/subset/*",
        reader="pickle_in_zip",
        num_prompts=10_000,
        licence="CC BY-NC 4.0",
        source="DMD2's scripts/download_sdxl.sh and experiments/sdxl/README.md; the file is in "
        "the Hub's listing of that commit.",
        # The file itself was not seen: by how DMD2 reads it a list of texts, and real images below
        # `subset`, its reference folder.
        verified=False,
    ),
    "coco2014_30k": PromptSource(
        "COCO 2014 val, DMD2's 30k captions",
        host="github",
        repository="tianweiy/DMD2",
        revision="8d8fa55633d47cfb81bbc7a892e7248f9518763f",
        files=("main/coco_eval/captions_coco14_test.txt",),
        reader="table",
        num_prompts=30_000,
        licence="CC BY-NC-SA 4.0",
        sha256="9644fff829054902877863ed0936eb7bdf72c837d9a8ff19f610996d76abdf21",
        source="Read at that commit; DMD2 evaluates Stable Diffusion 1.5 on it.",
    ),
    "parti_prompts": PromptSource(
        "PartiPrompts",
        host="dataset",
        repository="nateraw/parti-prompts",
        revision="944b156abfdad7627c3221b5ec4f6a6fb060a197",
        files=("PartiPrompts.tsv",),
        reader="table",
        column="Prompt",
        category="Category",
        num_prompts=1632,
        licence="Apache-2.0",
        source="The Hub's listing and card at that commit; columns as in the prompt generations "
        "that diffusers published from it.",
        verified=False,  # the card says 1.63k rows, no more exactly
    ),
    "drawbench": PromptSource(
        "DrawBench",
        host="dataset",
        repository="sayakpaul/drawbench",
        revision="ad794cba698c253ffdb6d18eff3fc87b004c1135",
        files=("DrawBench Prompts - Sheet1.csv",),
        reader="table",
        column="Prompts",
        category="Category",
        num_prompts=200,
        # The Hub has DrawBench with 'unknown' too (shunk031/DrawBench); this card was not seen.
        licence=None,
        source="File, commit and columns as public evaluation scripts read them; 200 prompts in "
        "11 categories in Imagen's paper (arXiv:2205.11487).",
    ),
    "geneval": PromptSource(
        "GenEval",
        host="github",
        repository="djghosh13/geneval",
        revision="af4902f24d3ca90ebbb446dd9891a59e0f82725f",
        files=("prompts/evaluation_metadata.jsonl",),
        reader="table",
        column="prompt",
        category="tag",
        num_prompts=553,
        licence="MIT",
        sha256="796329269c59583957896a455ddf188c0e0cbc5c7bc2dd6c9bad2da4e8f2212a",
        source="Read at that commit.",
    ),
    "dpg_bench": PromptSource(
        "DPG-Bench",
        host="github",
        repository="TencentQQGYLab/ELLA",
        revision="3c228f1dc6c4d3cad0a47493816151a419f14db3",
        files=("dpg_bench/prompts/*.txt",),
        reader="document",
        num_prompts=1065,
        licence="Apache-2.0",
        sha256="e59655da4c640998e4b68010d3e99a01336ddb6296effe1e2cc0a162f58eb1ba",
        source="Read at that commit.",
    ),
    "mjhq_30k": PromptSource(
        "MJHQ-30K",
        host="dataset",
        repository="playgroundai/MJHQ-30K",
        revision="15b0a659e066e763d0e9a6cd8f00e25f8af5e084",
        files=("meta_data.json",),
        reader="json_mapping",
        column="prompt",
        category="category",
        num_prompts=30_000,
        licence=None,  # its card states none
        source="The Hub's listing and card at that commit; format as public evaluation scripts "
        "(VQLLM's among them) read it.",
    ),
}


def find_prompts(
    data: DataSource, prompt_sets: Mapping[str, Callable[[], Sequence[str]]]
) -> PromptList:
    """The prompts of a suite's source: the backend's own, or any that `load_prompts` knows."""
    if data.source in prompt_sets:
        _refuse_options(data, "a backend's own source")
        texts = tuple(prompt_sets[data.source]())
        return PromptList(
            source=data.source,
            texts=texts,
            positions=tuple(range(len(texts))),
            categories=(None,) * len(texts),
            n_duplicates=len(texts) - len(set(texts)),
        )
    return load_prompts(data, others=prompt_sets)


def prompt_remotes(sources: Iterable[DataSource]) -> list[Remote]:
    """What must be fetched of the Hub for the published lists among the sources."""
    rows = (PROMPT_SOURCES.get(data.source) for data in sources)
    return [row.remote for row in rows if row is not None and row.remote is not None]


def images_of_prompts(source: str) -> tuple[Path, str] | None:
    """The zip that holds a published list's real images, and their pattern in it; if it has any."""
    row = PROMPT_SOURCES.get(source)
    if row is None or row.remote is None or row.images is None:
        return None
    ((path,), _) = files_of_hub(row.remote)
    return path, row.images


def load_prompts(data: DataSource, others: Iterable[str] = ()) -> PromptList:
    """All prompts of a named list, a local file, or a dataset of the Hub (which needs `column`).

    `others` are names that a message about an unknown one should list too.
    """
    if data.source in PROMPT_SOURCES:
        _refuse_options(data, "a named source")
        return read_source(data.source, PROMPT_SOURCES[data.source])
    if is_local_source(data.source):
        path = source_path(data)
        if path.suffix.lower() not in BUILDERS:
            raise BenchError(f"{path}: expected a file that ends in one of {', '.join(BUILDERS)}")
        rows = table_rows(str(path), rows_of(path), data.column, None)
        return _listed(data.source, rows, repeats=False)
    if is_hub_name(data.source) and data.column is not None:
        dataset, commit = open_hub(data, streaming=False)
        text_column(data.source, dataset.column_names, data.column)
        wanted = [c for c in (data.column, CATEGORY_COLUMN) if c in dataset.column_names]
        columns = readable(data.source, dataset.select_columns(wanted))  # without any images
        rows = table_rows(data.source, columns, data.column, None)
        facts = (data.source, commit, hub_licence(data.source, commit))
        return _listed(data.source, rows, False, *facts)
    known = unknown("prompt source", data.source, [*PROMPT_SOURCES, *others])
    raise BenchError(
        f"{known} Or a local file ({', '.join(BUILDERS)}), or owner/name of a dataset on the Hub "
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
) -> PromptList:
    kept: list[tuple[str, int, str | None]] = []
    seen: set[str] = set()
    n_duplicates = n_empty = 0
    for position, (text, category) in enumerate(rows):
        repeated = text in seen
        n_empty += not text
        n_duplicates += repeated
        if text and (repeats or not repeated):
            kept.append((text, position, category))
            seen.add(text)
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
    )
