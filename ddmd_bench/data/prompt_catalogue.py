"""Published prompt lists: what each is, where it lies, how it is read, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddmd_bench.hub import Remote


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
    "flow_grpo_ocr": PromptSource(
        "Flow-GRPO's texts on images, test",
        host="github",
        repository="yifan123/flow_grpo",
        revision="ac4c86e8cae021841f1fde853d340e0db67690dd",
        files=("dataset/ocr/test.txt",),
        reader="table",
        num_prompts=1018,
        licence="MIT",
        sha256="e2fb3fae7100d9a4b758e6e6b8815c36b97acd4a0f2a2e08058cf038d50ee711",
        source="Read at that commit; each prompt quotes one text.",
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
