"""The published students as a page: what each is, how it is sampled, and where that was seen."""

from __future__ import annotations

from collections.abc import Iterable

from ddmd_bench.students.catalogue import PIPELINE, StudentWeights
from ddmd_bench.students.published import PUBLISHED

RESOLUTION = 1024  # of SDXL, which its students draw at
_INTRODUCTION = """\
# Published students

Written by `python -m ddmd_bench published`, from `ddmd_bench/students/published.py`. A suite takes
one by its name: `{source: published, published: dmd2}`. No real file of them was loaded here: each
setting was read in the text that stands beside it below.
"""


def settings_of(row: StudentWeights) -> list[str]:
    """The names of all that is set for a student, each of which needs a place where it was seen."""
    sampling, own = row.sampling, row.resolution not in (None, RESOLUTION)
    optional = {
        "timesteps": sampling.timesteps is not None,
        "sigmas": sampling.sigmas is not None,
        "embedded_guidance_scale": sampling.embedded_guidance_scale is not None,
        "resolution": own or row.format == PIPELINE,
        "base_revision": row.base_revision is not None,
        "adapters": bool(row.adapters),
        "max_sequence_length": row.max_sequence_length is not None,
    }
    always = ["revision", "scheduler", "num_inference_steps", "guidance_scale"]
    return [*always, *(name for name, given in optional.items() if given)]


def page() -> str:
    """Two tables in Markdown: the students, and where their settings were seen."""
    what = ("name", "student", "weights", "scheduler", "steps", "levels", "guidance", "pixels")
    return "\n".join(
        [
            _INTRODUCTION,
            *_table(what, (_row(name, row) for name, row in PUBLISHED.items())),
            "\n## Where the settings were seen\n",
            *_table(("name", "seen in"), ((n, _seen(row)) for n, row in PUBLISHED.items())),
            "",
        ]
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = tuple(head)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _row(name: str, row: StudentWeights) -> tuple[str, ...]:
    sampling, told = row.sampling, row.sampling.embedded_guidance_scale
    guidance = "none" if sampling.guidance_scale == 1 else f"{sampling.guidance_scale:g}"
    weights = f"{_place(row.repository, row.revision)} {row.file or ''}".strip()
    if row.component is not None:
        weights += f", as {row.component} of {_place(row.base or '', row.base_revision)}"
    for lora in row.adapters:
        weights += f", with {_place(lora.repository, lora.revision)} {lora.file or ''}".rstrip()
    return (
        f"`{name}`",
        row.title,
        weights,
        sampling.scheduler,
        str(sampling.num_inference_steps),
        ", ".join(map(str, sampling.timesteps or sampling.sigmas or ())),
        guidance if told is None else f"{told:g}, told to the network",
        str(row.resolution or "the suite's"),
    )


def _place(repository: str, revision: str | None) -> str:
    return f"{repository}@{revision[:12]}" if revision else f"{repository} (not pinned)"


def _seen(row: StudentWeights) -> str:
    """Each place once, after the settings that were seen there."""
    places: dict[str, list[str]] = {}
    for setting, place in row.seen_in.items():
        places.setdefault(place, []).append(setting)
    return "; ".join(f"*{', '.join(settings)}*: {place}" for place, settings in places.items())
