r"""For a paper: a paragraph on what was measured how, and BibTeX of all that it names.

\input{methods.tex}, with references.bib.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ddmd_bench.files.yaml_text import parse_yaml
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.reporting.latex import escaped
from ddmd_bench.reporting.sequential import said
from ddmd_bench.scorers import METRICS

WORKS = Path(__file__).with_name("citations.yaml")
_FID = ("fid", "clean_fid")
_DPG = ("ella", "blip")
# The works behind a metric; one whose name begins so has them too.
OF_METRICS: dict[str, tuple[str, ...]] = {
    "hps_v2": ("hpsv2",), "hps_v3": ("hpsv3",), "image_reward": ("image_reward",),
    "pick_score": ("pick_score",), "clip_score": ("clip_score", "clip"),
    "aesthetic": ("laion", "clip"), "fid_infinity": (*_FID, "fid_infinity"),
    "fid_dmd2": (*_FID, "dmd2"), "fid": _FID, "patch_fid": (*_FID, "patch_fid"),
    "mifid": (*_FID, "mifid"),
    "kid": ("kid", "clean_fid"), "precision": ("precision_recall",),
    "recall": ("precision_recall",), "density": ("density_coverage",),
    "coverage": ("density_coverage",), "dpg_bench": _DPG,
    "lpips": ("lpips",), "fd_dinov2": ("fd_dinov2", "dinov2"), "cmmd": ("cmmd", "clip"),
    "vendi_dinov2": ("vendi", "dinov2"), "distance_dinov2": ("dinov2",),
    "frechet_efficientnet": ("fid", "efficientnet"), "frechet": ("fid",),
    "distance_efficientnet": ("efficientnet",), "ocr": ("flow_grpo",),
    "near_duplicates": ("sscd",),
}  # fmt: skip
OF_PROMPTS = {
    "hpdv2": "hpsv2", "hpdv3": "hpsv3", "coco2014": "coco", "parti_prompts": "parti",
    "drawbench": "drawbench", "geneval": "geneval", "dpg_bench": "ella", "mjhq_30k": "playground",
    "flow_grpo_ocr": "flow_grpo",
}  # fmt: skip
OF_BACKENDS = {"sdxl": "sdxl", "lumina2": "lumina2"}


def _first(table: Mapping[str, Any], name: str) -> Any:
    """The entry of the longest key that the name begins with."""
    keys = [key for key in table if name.startswith(key)]
    return table[max(keys, key=len)] if keys else None


def works_of_metric(metric: str) -> tuple[str, ...]:
    """Keys of the works behind a metric; none of one that is a plain statistic of pixels."""
    return _first(OF_METRICS, metric) or ()


@cache
def _works() -> dict[str, dict[str, Any]]:
    text = WORKS.read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = parse_yaml(text, str(WORKS)).data
    return found


def methods_tex(record: dict[str, Any]) -> str:
    """The paragraph, LaTeX with citations."""
    return " ".join(_sentences(record)) + "\n"


def _sentences(record: dict[str, Any]) -> Iterator[str]:
    suite, students = record["suite"], record["students"]
    sets = suite["prompts"]
    prompts = sum(one["num_prompts"] for one in sets.values())
    seeds = len(suite["seeds"])
    sources = _joined(
        f"{escaped(name)}{_cited([_first(OF_PROMPTS, one['source'])])}"
        for name, one in sets.items()
    )
    each = f" with each of {seeds} seeds" if seeds > 1 else ""
    real = any(student["source"] == "real" for student in students.values())
    num = f"up to {prompts:,}" if "sequential" in record else f"{prompts:,}"
    yield (
        f"We compare {len(students)} students on {num} prompts ({sources}), {_images(record)} "
        f"images of each{each}; image $k$ of a prompt starts from the same noise for all"
        f"{', real images share the prompts alone' if real else ''}."
    )
    yield from _trained(record)
    measured = [
        f"{escaped(METRICS[m].title)}{_cited(works_of_metric(m))}" for m in suite["metrics"]
    ]
    yield f"Measured are {_joined(measured)}."
    told = said(record)
    yield escaped(" ".join(filter(None, [told["values"], told["differences"]])))
    if "sequential" in record:
        yield escaped(told["family"])
    elif tested := sum(row["p_value"] is not None for row in record["differences"]):
        yield f"The $p$-values of the {tested} comparisons are corrected together by Holm's method."
    if claims := len(suite["claims"]):
        yield f"{claims} claims were stated before the run."
    common = record["provenance"]["common"]
    packages = common.get("packages") or {}
    named = [f"{name} {packages[name]}" for name in ("torch", "diffusers") if name in packages]
    made = [f"ddmd\\_bench {packages.get('ddmd_bench', '')}".strip(), *map(escaped, named)]
    yield f"All was computed by {_joined(made)}; protocol {escaped(record['fingerprint'])}."


def _images(record: dict[str, Any]) -> str:
    """How many of a student: of all prompts, or what was drawn until comparisons were settled."""
    if "sequential" not in record:
        sets = record["suite"]["prompts"].values()
        return f"{sum(one['num_prompts'] * one['images_per_prompt'] for one in sets):,}"
    drawn = [num for num in record["sequential"]["images"].values() if num]
    ends = sorted({min(drawn, default=0), max(drawn, default=0)})
    return " to ".join(f"{num:,}" for num in ends)


def _trained(record: dict[str, Any]) -> Iterator[str]:
    suite = record["suite"]
    rows = [row for row in record["students"].values() if row["method"]]
    if not rows:
        return
    methods = list(dict.fromkeys(row["method"] for row in rows))
    named = _joined(f"{escaped(METHODS[m].title)}{_cited(_of_method(m))}" for m in methods)
    teacher = _cited([OF_BACKENDS.get(suite["backend"])])
    updates = {row["facts"].get("num_iterations") for row in rows} - {None}
    often = f" for {_joined(f'{n:,}' for n in sorted(updates))} updates" if updates else ""
    own = [suite["students"][n]["train"] for n, row in record["students"].items() if row["method"]]
    samples = {train.get("batch_size", suite["train"]["batch_size"]) for train in own}
    yield (
        f"Trained from one teacher{teacher} under classifier-free guidance{_cited(['cfg'])} are "
        f"{named},{often} of {_joined(map(str, sorted(samples)))} samples."
    )


def _of_method(method: str) -> list[str]:
    row = METHODS[method]
    works = ["dmd"] if method == "dmd" else []
    return [*works, *(["dmd2"] if row.gan else []), "decoupled_dmd"]


def _joined(parts: Iterable[str]) -> str:
    named = list(parts)
    return f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)


def _cited(keys: Iterable[str | None]) -> str:
    named = [key for key in keys if key]
    return rf"~\cite{{{','.join(named)}}}" if named else ""


def bibtex(record: dict[str, Any]) -> str:
    """An entry for each work that the paragraph names."""
    text = methods_tex(record)
    return "\n".join(
        f"@misc{{{key},\n  author = {{{row['author']}}},\n  title = {{{{{row['title']}}}}},\n"
        f"  year = {{{row['year']}}},\n  eprint = {{{row['arxiv']}}},\n"
        "  archivePrefix = {arXiv}\n}\n"
        for key, row in _works().items()
        if any(key in cited.split("}")[0].split(",") for cited in text.split(r"\cite{")[1:])
    )
