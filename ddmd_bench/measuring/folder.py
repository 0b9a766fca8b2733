"""Score a folder of images from any generator: which file shows which prompt, then one pass."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from ddmd_bench.data.image_folders import (
    IMAGE_SUFFIXES,
    equal_files,
    images_below,
    metadata_of,
    name_in,
    others_below,
    some_of,
)
from ddmd_bench.data.tables import rows_of
from ddmd_bench.data.texts import as_text, stripped, text_column, text_of
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.lines import iter_lines
from ddmd_bench.files.records import seed_of, write_json
from ddmd_bench.files.tables import write_parquet
from ddmd_bench.measuring.aggregates import (
    aggregate,
    cell_of,
    counted,
    shortcomings,
)
from ddmd_bench.measuring.few_images import told_of_few
from ddmd_bench.measuring.reference import (
    build_command,
    extractors_of,
    find_statistics,
    load_reference,
    statistics_inputs,
    statistics_problems,
    told_of_reference,
)
from ddmd_bench.scorers import METRICS, SCORERS, needed_scorers, why_no_value

if TYPE_CHECKING:
    import torch

    from ddmd_bench.measuring.measure import Measured, Row

GROUP = "images"


def _natural(name: str) -> list[list[tuple[str, int]]]:
    """Numbers within a name count as numbers: 2.png stands before 10.png."""
    runs = (re.findall(r"([^0-9]*)([0-9]*)", part) for part in PurePosixPath(name).parts)
    return [[(text, int(digits or -1)) for text, digits in part] for part in runs]


# How file names are sorted where lines of a text file are meant for them.
ORDERS: dict[str, Callable[[str], Any]] = {
    "natural": _natural,
    "plain": lambda name: PurePosixPath(name).parts,
}


class _Listed(NamedTuple):
    file_name: str
    prompt: str
    group: str


class FolderImages(NamedTuple):
    """The images to score, those of one prompt beside each other."""

    folder: Path
    rows: list[Row]
    paths: list[Path]
    not_listed: tuple[str, ...]  # images of the folder that no prompt names


def folder_problems(metrics: Sequence[str], reference: str | None) -> list[str]:
    """Metrics that a folder of images cannot have, and what is wrong with the reference."""
    problems = [unknown("metric", name, METRICS) for name in metrics if name not in METRICS]
    known = [name for name in metrics if name in METRICS]
    extractors = extractors_of(known)
    if extractors and reference is None:
        problems.append(
            f"distances compare with real images: give --reference, statistics that "
            f"{build_command('NAME', extractors)} makes"
        )
    elif reference is not None:
        problems += statistics_problems(reference, known)
    if "saturation" in metrics:
        problems.append(
            "saturation is counted before values are clipped: a file does not have it; leave it out"
        )
    return problems


def read_folder(
    folder: Path, prompts: Path | None, metrics: Sequence[str], order: str | None = None
) -> FolderImages:
    """Pair images with prompts.

    A table (CSV, TSV, JSON lines, Parquet) names each `file_name` with its `prompt`, and may have a
    `category`; a text file has one prompt a line, for the images in the order of their names,
    one of `ORDERS`, which need not be told where both are the same; without either the folder's
    own metadata count. A listed file that is not there is missing.
    """
    found = images_below(folder)
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise BenchError(f"{folder}: no images; expected files in {kinds}")
    if prompts is None:
        prompts = metadata_of(folder)
    if prompts is not None and not prompts.is_file():
        raise BenchError(f"{prompts}: no such file of prompts")
    if order is not None and (prompts is None or prompts.suffix.lower() != ".txt"):
        raise BenchError("--order: of a text file's lines, and none is given; leave it out")
    names = [path.relative_to(folder).as_posix() for path in found]
    readers = [name for name in needed_scorers(metrics) if SCORERS[name].reads_prompts]
    if prompts is None:
        if readers:
            raise BenchError(
                f"{folder}: {', '.join(readers)} need each image's prompt. Give --prompts: a table "
                "with file_name and prompt, or a text file with a line for each image"
            )
        listed = [_Listed(name, "", GROUP) for name in names]
    elif prompts.suffix.lower() == ".txt":
        listed = _by_order(prompts, _in_order(folder, prompts, names, order))
    else:
        listed = _by_name(folder, prompts)
        if not any((folder / one.file_name).is_file() for one in listed):
            raise BenchError(
                f"{prompts}: none of its {len(listed)} images is there, e.g. "
                f"{folder / listed[0].file_name}. A file_name is relative to the folder of images"
            )
    without = [one.file_name for one in listed if not one.prompt]
    if readers and without:
        raise BenchError(
            f"{prompts}: {len(without)} of {len(listed)} images have an empty prompt, e.g. "
            f"{without[0]}, and {', '.join(readers)} need one. Leave out their rows"
        )
    for name in metrics:
        if reason := why_no_value(name, (one.prompt for one in listed)):
            raise BenchError(f"{prompts}: {name}: {reason}. Leave it out")
    # Without a prompt an image stands for itself.
    of_image = [one.prompt or one.file_name for one in listed]
    numbers = {text: k for k, text in enumerate(dict.fromkeys(of_image))}
    seen: Counter[str] = Counter()
    rows: list[Row] = []
    for one, text in sorted(zip(listed, of_image, strict=True), key=lambda pair: numbers[pair[1]]):
        rows.append(
            {
                "file_name": one.file_name,
                "prompt_id": f"{one.group}/{numbers[text]:05d}",
                "prompt_set": one.group,
                "prompt": one.prompt,
                "image_index": seen[text],
                "out_of_range": None,
            }
        )
        seen[text] += 1
    not_listed = tuple(sorted(set(names) - {one.file_name for one in listed}))
    return FolderImages(folder, rows, [folder / str(row["file_name"]) for row in rows], not_listed)


def _in_order(
    folder: Path, prompts: Path, names: Sequence[str], order: str | None
) -> Sequence[str]:
    """The names as a text file's lines are meant for them; an error where that is doubtful."""
    if order is not None and order not in ORDERS:
        raise BenchError("--order: " + unknown("order", order, ORDERS))
    found = {name: sorted(names, key=key) for name, key in ORDERS.items()}
    if order is None and found["natural"] != found["plain"]:
        first = next(
            k for k, pair in enumerate(zip(*found.values(), strict=True)) if pair[0] != pair[1]
        )
        shown = (
            f"{name}: {', '.join(of[max(0, first - 1) : first + 3])}" for name, of in found.items()
        )
        raise BenchError(
            f"{prompts}: which line belongs to which image of {folder} cannot be told, since their "
            f"names sort in two ways, from image {first + 1} on: {'; '.join(shown)}. Say which: "
            f"--order {' or --order '.join(ORDERS)}; or give a table with file_name and prompt"
        )
    return found[order or "plain"]


def _by_order(prompts: Path, names: Sequence[str]) -> list[_Listed]:
    texts = [text for line in iter_lines(prompts) if (text := stripped(line))]
    if len(texts) != len(names):
        raise BenchError(
            f"{prompts} has {len(texts)} prompts, and there are {len(names)} images: which belong "
            "together cannot be told. Give a table with file_name and prompt instead"
        )
    return [_Listed(name, text, GROUP) for name, text in zip(names, texts, strict=True)]


def _by_name(folder: Path, prompts: Path) -> list[_Listed]:
    listed, column = [], None
    for k, row in enumerate(rows_of(prompts)):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise BenchError(
                f"{prompts}: expected the columns file_name and prompt, found {', '.join(row)} in "
                f"row {k}"
            )
        name = name_in(folder, f"{prompts}: row {k}", name)
        column = column or text_column(str(prompts), list(row), None)
        group = stripped(as_text(row.get("category")) or "")
        text = text_of(str(prompts), column, k, row.get(column))
        listed.append(_Listed(name, text, group or GROUP))
    if not listed:
        raise BenchError(f"{prompts}: no rows")
    if any(one.group == "all" for one in listed):
        raise BenchError(f"{prompts}: the category 'all' stands for every image; rename it")
    counts = Counter(one.file_name for one in listed)
    if repeated := [f"{name} is named {k} times" for name, k in counts.items() if k > 1]:
        raise BenchError(f"{prompts}: {some_of(repeated)}; name each image once")
    return listed


def measured_folder(
    images: FolderImages,
    metrics: Sequence[str],
    output: Path,
    device: str,
    dtype: torch.dtype,
    progress: Callable[[int, int], None],
) -> Measured:
    """What the scorers say of the images, rows in their order; kept in the output folder."""
    from ddmd_bench.files.decoding import decoded
    from ddmd_bench.measuring.measure import Images, KeptAnswers, measure

    names = [str(path) for path in images.paths]
    source = Images(images.rows, names, lambda row: decoded(images.paths[row]))
    kept = KeptAnswers(output / "answers", output / "texts")
    return measure(source, metrics, "", kept=kept, progress=progress, device=device, dtype=dtype)


def score_folder(
    images: FolderImages,
    metrics: Sequence[str],
    output: Path,
    reference: str | None,
    device: str,
    dtype: torch.dtype,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write per_image.parquet and aggregates.json to the output folder; returns the latter."""
    from ddmd_bench.files.provenance import provenance
    from ddmd_bench.scorers import weights_sha256

    measured = measured_folder(images, metrics, output, device, dtype, progress)
    table = measured.table
    table.insert(0, "file_name", [row["file_name"] for row in images.rows])
    write_parquet(output / "per_image.parquet", table)
    record = {
        "metrics": {metric: _groups(metric, measured, reference) for metric in metrics},
        "reference": statistics_inputs(reference, metrics),
        **_of_others(reference, metrics),
        "n": len(images.rows),
        "not_listed": len(images.not_listed),
        "no_images": len(others_below(images.folder)),
        "not_there": sum(not path.is_file() for path in images.paths),
        "equal_images": sum(len(alike) - 1 for alike in equal_files(images.paths)),
        **shortcomings(measured),
        "weights_sha256": weights_sha256(needed_scorers(metrics)),
        "dtype": str(dtype).removeprefix("torch."),
        "provenance": provenance(str(dtype).removeprefix("torch.")),
    }
    write_json(output / "aggregates.json", record)
    return record


def _of_others(reference: str | None, metrics: Sequence[str]) -> dict[str, dict[str, str]]:
    """What is known, and what is not, of statistics that others published."""
    if reference is None or not (extractors := extractors_of(metrics)):
        return {}
    told = told_of_reference(find_statistics(reference), extractors)
    return {"imported_reference": told} if told else {}


def _groups(metric: str, measured: Measured, reference: str | None) -> dict[str, dict[str, Any]]:
    extractor, real = METRICS[metric].extractor, None
    if extractor is not None and reference is not None:
        real = load_reference(find_statistics(reference), extractor)
    groups = ["all", *dict.fromkeys(measured.table["prompt_set"])]
    found = {}
    for group in groups if len(groups) > 2 else groups[:1]:
        inside = counted(metric, measured.table, group)
        interval = aggregate(metric, measured, inside, real, seed_of("score", metric, group))
        found[group] = cell_of(interval, inside)
        if extractor is not None and real is not None:
            sizes = measured.features[extractor].shape[1], real.num_images
            found[group] |= told_of_few(metric, interval.n, *sizes)
    return found
