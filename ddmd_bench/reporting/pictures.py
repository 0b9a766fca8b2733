"""Which pictures a report shows, and the pictures themselves as data URIs."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ddmd_bench.files.decoding import open_image
from ddmd_bench.reporting.ranking import Table, challenger_of, headline_metric
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, trained_in
from ddmd_bench.scorers import METRICS

PICTURE_RULE = (
    "Strip: 8 prompts spread evenly over the suite. Inside the page: the {num} prompts where the "
    "best {student} other than the baseline loses most to the baseline on the first image metric, "
    "and those where it gains most, as many; ties by prompt id."
)
NUM_STRIP, NUM_EMBEDDED = 8, 24  # prompts
NUM_PER_PROMPT = 4  # images of a student that are shown of one prompt, at most


def chosen_prompts(run: RunFiles, table: Table, embedded: int = NUM_EMBEDDED) -> dict[str, Any]:
    """Which prompts the page shows, by `PICTURE_RULE`; embedded: with pictures inside it."""
    seeds = run.suite.seeds
    of_seed = f" Pictures and gains are those of seed {seeds[0]}." if len(seeds) > 1 else ""
    ids = _of_all(run)
    picks = np.linspace(0, len(ids) - 1, min(NUM_STRIP, len(ids))).round().astype(int)
    challenger = challenger_of(run.suite, table)
    student = "trained student" if challenger in trained_in(run.suite) else "student"
    gains = _gains(run, challenger) if challenger else dict.fromkeys(ids, 0.0)
    if len(ids) < len(run.prompts):
        gains = {p: gains[p] for p in ids if p in gains}
    order = sorted(gains, key=lambda p: (gains[p], p))
    each = (embedded + 1) // 2
    ends = order[:each] + order[max(each, len(order) - embedded // 2) :]
    return {
        "rule": PICTURE_RULE.format(num=each, student=student) + of_seed,
        "embedded": embedded,
        "challenger": challenger,
        "strip": [ids[k] for k in picks],
        "grid": [{"prompt_id": p, "gain": gains[p]} for p in ends],
    }


def _of_all(run: RunFiles) -> list[str]:
    """Prompts that every student with pictures has; all, where all were drawn."""
    drawn = [{p for p, _ in run.first_seed(name).images} for name in run.students]
    if run.suite.until_settled is None or not any(drawn):
        return list(run.prompts)
    shared = set.intersection(*filter(None, drawn))
    return [p for p in run.prompts if p in shared]


def _gains(run: RunFiles, challenger: str) -> dict[str, float]:
    """Challenger minus baseline for each prompt, positive = the challenger is better."""
    metric = headline_metric(run.suite, "image")
    frames = [run.first_seed(name).per_image for name in (challenger, run.suite.baseline)]
    known = [frame for frame in frames if frame is not None]
    if metric is None or len(known) < 2:
        return dict.fromkeys(run.prompts, 0.0)
    ours, theirs = (frame.groupby("prompt_id")[metric].mean() for frame in known)
    sign = -1.0 if METRICS[metric].better == "lower" else 1.0
    gains = (sign * (ours - theirs)).dropna()
    return {str(p): float(gain) for p, gain in gains.items()}


LARGEST = 96  # pixels; a page holds some hundreds of pictures


def small_picture(path: Path) -> tuple[str, bytes]:
    """A picture's format and bytes: as it is where it is small, else a thumbnail."""
    with open_image(path) as image:
        if max(image.size) <= LARGEST:
            return image.format or "PNG", path.read_bytes()
        image.thumbnail((LARGEST, LARGEST))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=85)
    return "JPEG", buffer.getvalue()


def data_uri(path: Path) -> str:
    """The same for a page."""
    kind, data = small_picture(path)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def shown_files(chosen: dict[str, Any], run: RunFiles) -> list[Path]:
    """The image files that a page with these pictures shows, each once."""
    asked = [(prompt_id, 1) for prompt_id in chosen["strip"]]
    asked += [(row["prompt_id"], NUM_PER_PROMPT) for row in chosen["grid"]]
    found = (
        run.first_seed(name).images.get((prompt_id, index))
        for name in run.students
        for prompt_id, num in asked
        for index in range(num)
    )
    return list(dict.fromkeys(path for path in found if path is not None))


def pictures_of(
    files: StudentFiles, prompt_id: str, num: int, metric: str | None
) -> list[dict[str, Any]]:
    """The first `num` pictures of a prompt: {uri, right}; right is None where it is not known."""
    pictures = []
    for index in range(num):
        path = files.images.get((prompt_id, index))
        if path is not None and path.is_file():
            right = _value(files, prompt_id, index, metric)
            with suppress(OSError, SyntaxError, ValueError):  # it is no whole image
                uri = data_uri(path)
                pictures.append({"uri": uri, "right": None if right is None else right > 0})
    return pictures


def _value(files: StudentFiles, prompt_id: str, index: int, metric: str | None) -> float | None:
    frame = files.per_image
    if frame is None or metric is None or metric not in frame:
        return None
    rows = frame[(frame["prompt_id"] == prompt_id) & (frame["image_index"] == index)]
    value = float(rows[metric].iloc[0]) if len(rows) else float("nan")
    return None if np.isnan(value) else value
