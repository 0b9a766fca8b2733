"""Prompt lists: each format gives the same prompts, each row reads what its repository holds."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.data import prompt_downloads
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES, PromptSource
from ddmd_bench.data.prompt_readers import READERS, ZIP_MEMBER
from ddmd_bench.data.prompt_sources import find_prompts, load_prompts, read_source
from ddmd_bench.data.prompts import choose
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import canonical_json, seed_of
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import PromptSet
from ddmd_bench.suite.settings import DataSource
from tests.hub_server import Hub, in_thread, serving

PROMPTS = ["a red star", 'a "blue" one, é', "", "NA", "a red star", "the last one  "]
KEPT = ("a red star", 'a "blue" one, é', "NA", "the last one")
POSITIONS = (0, 1, 3, 5)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def _csv(path: Path, separator: str = ",") -> None:
    pd.DataFrame({"n": range(6), "prompt": PROMPTS}).to_csv(path, index=False, sep=separator)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "lines.txt": lambda path: path.write_text("\n".join(PROMPTS)),
    "windows.txt": lambda path: path.write_bytes("\r\n".join(PROMPTS).encode()),
    "table.csv": _csv,
    "table.tsv": partial(_csv, separator="\t"),
    "records.jsonl": lambda path: path.write_text(
        "".join(json.dumps({"n": 1, "caption": text}) + "\n" for text in PROMPTS)
    ),
    "records.json": lambda path: path.write_text(
        json.dumps([{"text": text or None} for text in PROMPTS], indent=1)
    ),
    "strings.json": lambda path: path.write_text(json.dumps(PROMPTS)),
    "table.parquet": lambda path: pd.DataFrame({"prompt": PROMPTS}).to_parquet(path),
    "odd [1]*.txt": lambda path: path.write_text("\n".join(PROMPTS)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    WRITERS[name](tmp_path / name)
    monkeypatch.chdir(tmp_path)  # a relative path is relative to the working directory
    found = load_prompts(DataSource(source=name))
    assert found.texts == KEPT
    assert found.positions == POSITIONS
    assert found.sha256 == sha256(canonical_json(list(KEPT)).encode()).hexdigest()
    facts = {"source": name, "n": 4, "n_duplicates": 1, "n_empty": 1, "sha256": found.sha256}
    assert found.facts().items() >= facts.items()


def test_a_column_by_name_and_its_category(tmp_path: Path) -> None:
    rows = {"title": ["a", "b"], "prompt": ["c", "d"], "category": ["x", "y"]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    source = str(tmp_path / "t.csv")
    assert load_prompts(DataSource(source=source)).texts == ("c", "d")
    named = load_prompts(DataSource(source=source, column="title"))
    assert named.texts == ("a", "b")
    assert named.categories == ("x", "y")


def test_a_category_has_the_prompts_that_another_has_too(tmp_path: Path) -> None:
    """Read whole the list keeps a text once, as ever, and so its key."""
    rows = {"prompt": ["a", "b", "a", "a"], "category": ["x", "x", "y", "y"]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    source = DataSource(source=str(tmp_path / "t.csv"))
    of_y = find_prompts(source, {}, "y")
    assert (of_y.texts, of_y.positions, of_y.categories) == (("a",), (2,), ("y",))
    assert find_prompts(source, {}, "x").texts == ("a", "b")
    whole = find_prompts(source, {})
    assert (whole.texts, whole.positions, whole.n_duplicates) == (("a", "b"), (0, 1), 2)


# Ids and the subset


@pytest.mark.parametrize(("n", "digits"), [(7, 4), (10_000, 4), (10_001, 5), (30_000, 5)])
def test_an_id_is_the_position_with_four_digits_or_more(n: int, digits: int) -> None:
    texts = [f"text {k}" for k in range(n)]
    chosen = choose("set", texts, n)
    for prompt in chosen[:100]:
        k = int(prompt.prompt_id.removeprefix("set/"))
        assert prompt.prompt_id == f"set/{k:0{digits}d}"
        assert prompt.text == texts[k]
    assert len({prompt.prompt_id for prompt in chosen}) == n


def test_the_subset_is_still_the_head_of_the_same_shuffle() -> None:
    texts = make_backend().prompt_sets["shapes/seen"]()
    order = list(range(len(texts)))
    random.Random(seed_of("prompts", "seen")).shuffle(order)
    chosen = choose("seen", texts, 20)
    assert [p.prompt_id for p in chosen] == [f"seen/{k:04d}" for k in order[:20]]
    assert [p.text for p in chosen] == [texts[k] for k in order[:20]]


def test_ids_refer_to_the_position_in_the_source(tmp_path: Path) -> None:
    rows = {"prompt": PROMPTS, "category": list("uvwxyz")}
    pd.DataFrame(rows).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    found = load_prompts(DataSource(source=str(tmp_path / "t.jsonl")))
    chosen = choose("set", found.texts, 4, found.positions, found.categories)
    for prompt in chosen:
        k = int(prompt.prompt_id.removeprefix("set/"))
        assert (prompt.text, prompt.category) == (PROMPTS[k].strip(), "uvwxyz"[k])
    assert choose("set", found.texts, 2, found.positions, found.categories) == chosen[:2]
    with pytest.raises(BenchError, match="asks for 5 prompts, its source has 4, without 2 empty"):
        choose("set", found.texts, 5, found.positions, n_left_out=found.n_left_out)


def test_prompts_of_other_categories_are_none_that_were_left_out(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    """Nor are those that follow the last one kept forgotten where the list is read whole."""
    rows = {"prompt": [f"a red star {k}" for k in range(6)] + [""], "category": [*"xxyyyyy"]}
    pd.DataFrame(rows).to_json(tmp_path / "t.jsonl", orient="records", lines=True)

    def refused(**more: str) -> str:
        source = {"source": str(tmp_path / "t.jsonl"), "num_prompts": 9, **more}
        tiny["prompts"] = {"seen": source}
        with pytest.raises(BenchError) as error:
            make_plan(load_suite(write_suite(tiny)), tmp_path, tmp_path)
        return str(error.value)

    assert refused(category="y").endswith("prompts.seen: asks for 9 prompts, its source has 4")
    assert "its source has 6, without 1 empty or repeated ones" in refused()


def test_a_backends_own_source_comes_first_and_as_it_is() -> None:
    texts = ["b", "", "b"]
    found = find_prompts(DataSource(source="world/seen"), {"world/seen": lambda: texts})
    assert found.texts == ("b", "", "b")
    assert found.positions == (0, 1, 2)
    assert found.n_duplicates == 1
    assert find_prompts(PromptSet(source="s", num_prompts=1), {"s": lambda: texts}).n_empty == 0


# Published lists


def test_every_row_is_whole() -> None:
    assert len(PROMPT_SOURCES) == 10
    for name, row in PROMPT_SOURCES.items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repository)
        assert row.reader in READERS
        assert (row.remote is None) == (row.host == "github")
        assert row.title
        assert row.source.endswith(".")
        assert row.files
        assert len(set(row.files)) == len(row.files)
        assert row.revision is None or re.fullmatch(r"[0-9a-f]{40}", row.revision)
        assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", row.sha256)
        # A pinned list of a known number, or a row that says that it was not seen.
        assert not row.verified or (row.revision and row.num_prompts)
        if row.host == "github":
            assert row.revision  # its archive is of a commit
        else:
            assert not set("*?[") & set("".join(row.files))  # the Hub is asked for whole names


def _zip_of_pickle(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("coco10k/subset/image.png", b"\x89PNG")
        archive.writestr(ZIP_MEMBER, data)


def _tsv(path: Path) -> None:
    path.write_text(
        "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology-inspired concepts\n"
        'a sign that says "NA"\tArtifacts\tWriting & Symbols\t\n'
    )


# What the real repositories hold, two prompts of it: file -> writer; then the prompts, categories.
STAND_INS: dict[str, tuple[dict[str, Callable[[Path], Any]], list[str], list[str | None]]] = {
    "hpdv2": (
        {
            f"benchmark/{style}.json": lambda path: path.write_text(
                json.dumps([f"one of {path.stem}", "the same in each"])
            )
            for style in ("photo", "anime", "paintings", "concept-art")
        },
        [
            text
            for style in ("anime", "concept-art", "paintings", "photo")
            for text in (f"one of {style}", "the same in each")
        ],
        ["anime"] * 2 + ["concept-art"] * 2 + ["paintings"] * 2 + ["photo"] * 2,
    ),
    "hpdv3": (
        {
            file: lambda path: path.write_text(
                json.dumps([{"caption": f"of {path.stem}", "image_file": "images/a.jpg"}])
            )
            for file in PROMPT_SOURCES["hpdv3"].files
        },
        [f"of {Path(file).stem}" for file in PROMPT_SOURCES["hpdv3"].files],
        [
            *("Animals", "Architecture", "Arts", "Characters", "Design", "Food"),
            *("Natural Scenery", "Others", "Plants", "Products", "Science", "Transportation"),
        ],
    ),
    "coco2014_10k": (
        {
            "data/coco/coco10k.zip": lambda path: _zip_of_pickle(
                path, pickle.dumps(["A dog on grass. ", "Two cats"])
            )
        },
        ["A dog on grass.", "Two cats"],
        [None, None],
    ),
    "coco2014_30k": (
        {
            "main/coco_eval/captions_coco14_test.txt": lambda path: path.write_text(
                "A small kitchen with low a ceiling \n A man sitting.\n"
            )
        },
        ["A small kitchen with low a ceiling", "A man sitting."],
        [None, None],
    ),
    "parti_prompts": (
        {"PartiPrompts.tsv": _tsv},
        ["bond", 'a sign that says "NA"'],
        ["Abstract", "Artifacts"],
    ),
    "drawbench": (
        {
            "DrawBench Prompts - Sheet1.csv": lambda path: path.write_text(
                "Prompts,Category\nA red car.,Colors\n\"A sign that says 'Hello, World'.\",Text\n"
            )
        },
        ["A red car.", "A sign that says 'Hello, World'."],
        ["Colors", "Text"],
    ),
    "geneval": (
        {
            "prompts/evaluation_metadata.jsonl": lambda path: path.write_text(
                '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], '
                '"prompt": "a photo of a bench"}\n'
                '{"tag": "position", "include": [{"class": "couch", "count": 1}, {"class": "bird", '
                '"count": 1, "position": ["left of", 0]}], "prompt": "a photo of a bird left of a '
                'couch"}\n'
            )
        },
        ["a photo of a bench", "a photo of a bird left of a couch"],
        ["single_object", "position"],
    ),
    "dpg_bench": (
        {
            "dpg_bench/prompts/partiprompts10.txt": lambda path: path.write_text("of parti"),
            "dpg_bench/prompts/COCOval2014000000000285.txt": lambda path: path.write_text(
                "two\nlines\n"
            ),
            "dpg_bench/prompts/0.txt": lambda path: path.write_text("An expansive field."),
        },
        ["An expansive field.", "two\nlines", "of parti"],
        [None, None, None],
    ),
    "flow_grpo_ocr": (
        {
            "dataset/ocr/test.txt": lambda path: path.write_text(
                'A ring with the words "Forever Yours".\nA sign that says "Slow, Dogs\' Home"\n'
            )
        },
        [
            'A ring with the words "Forever Yours".',
            'A sign that says "Slow, Dogs\' Home"',
        ],
        [None, None],
    ),
    "mjhq_30k": (
        {
            "meta_data.json": lambda path: path.write_text(
                json.dumps(
                    {
                        "64be4d44": {"category": "people", "prompt": "a portrait"},
                        "06a2b3c4": {"category": "food", "prompt": "a pie "},
                    }
                )
            )
        },
        ["a portrait", "a pie"],
        ["people", "food"],
    ),
}


def stand_in(name: str, folder: Path) -> PromptSource:
    """The row with a small repository of the same files in the place of the real one."""
    for file, write in STAND_INS[name][0].items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write(folder / file)
    num_prompts = len(STAND_INS[name][1])
    return replace(
        PROMPT_SOURCES[name], repository=str(folder), num_prompts=num_prompts, sha256=None
    )


@pytest.mark.parametrize("name", PROMPT_SOURCES)
def test_every_row_reads_its_files(tmp_path: Path, name: str) -> None:
    found = read_source(name, stand_in(name, tmp_path / "repository"))
    _, texts, categories = STAND_INS[name]
    assert list(found.texts) == texts
    assert list(found.categories) == categories
    assert found.positions == tuple(range(len(texts)))  # repeated ones stay
    assert found.n_duplicates == len(texts) - len(set(texts))


def test_a_list_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    row = stand_in("geneval", tmp_path / "repository")
    with pytest.raises(BenchError, match="holds 2 prompts, GenEval has 553"):
        read_source("geneval", replace(row, num_prompts=553))
    with pytest.raises(BenchError, match="are not those of GenEval: sha256"):
        read_source("geneval", replace(row, sha256="0" * 64))
    with pytest.raises(BenchError, match=r"has no file gone\.json"):
        read_source("geneval", replace(row, files=("gone.json",)))
    with pytest.raises(BenchError, match="no column 'tags'; it has: tag, include, prompt"):
        read_source("geneval", replace(row, category="tags"))


class _Program:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_a_program_is_refused(tmp_path: Path, protocol: int) -> None:
    row = stand_in("coco2014_10k", tmp_path / "repository")
    touched = tmp_path / "touched"
    data = pickle.dumps(["a", _Program(touched)], protocol)
    _zip_of_pickle(tmp_path / "repository/data/coco/coco10k.zip", data)
    with pytest.raises(BenchError, match="refused: a pickle can run any program"):
        read_source("coco2014_10k", row)
    assert not touched.exists()
    pickle.loads(data)  # it is the refusal that kept it from running
    assert touched.exists()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pickle.dumps(["a"])[:-2], "refused"),
        (b"", "refused"),
        (pickle.dumps({"a": "b"}), "expected a list, found dict"),
        (pickle.dumps(["a", [7]]), r"row 1 holds \[7\]"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    row = stand_in("coco2014_10k", tmp_path / "repository")
    _zip_of_pickle(tmp_path / "repository/data/coco/coco10k.zip", data)
    with pytest.raises(BenchError, match=expected):
        read_source("coco2014_10k", row)


def test_a_file_of_github_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = stand_in("dpg_bench", tmp_path / "repository")
    name, top = "TencentQQGYLab/ELLA", f"ELLA-{row.revision}"
    archive = tmp_path / f"served/{name}/archive/{row.revision}.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.mkdir(top)
        file.writestr(f"{top}/README.md", "not asked for")
        file.writestr(f"{top}/../dpg_bench/prompts/../../out.txt", "out")
        for path in sorted((tmp_path / "repository").rglob("*.txt")):
            file.write(path, f"{top}/{path.relative_to(tmp_path / 'repository')}")
    handler = partial(_Quiet, directory=str(tmp_path / "served"))
    there = replace(row, repository=name)
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        monkeypatch.setattr(prompt_downloads, "GITHUB", address)
        fetched = read_source("dpg_bench", there)
        with pytest.raises(BenchError, match=r"cannot be had: HTTP Error 404.*ddmd_bench fetch"):
            read_source("dpg_bench", replace(there, repository="some/other"))
    assert fetched.texts == read_source("dpg_bench", row).texts
    assert fetched.revision == row.revision
    assert read_source("dpg_bench", there) == fetched  # nobody serves any more
    names = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert names >= {"0.txt", "partiprompts10.txt"}
    assert not names & {"README.md", "out.txt"}
    with pytest.raises(BenchError, match="cannot be had"):
        read_source("dpg_bench", replace(there, revision="f" * 40))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


# The Hub: `huggingface_hub` reads its address when it is imported, so another process asks.

_ASK = """
import json, sys
from dataclasses import replace
from ddmd_bench.errors import BenchError
from ddmd_bench.hub import download
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.data.prompt_sources import load_prompts, read_source
from ddmd_bench.suite.settings import DataSource
from ddmd_bench.data.image_sources import iter_encoded_images
from ddmd_bench.data.streams import iter_captions

def say(ask):
    try:
        print(json.dumps(ask()))
    except BenchError as error:
        print(json.dumps(str(error)))

commit = sys.argv[1]
def of_hub(**given):
    found = load_prompts(DataSource(**given))
    return [found.texts, found.categories, found.facts()]
def of_row(name, n):
    row = replace(PROMPT_SOURCES[name], revision=commit, num_prompts=n, sha256=None)
    download(row.remote)
    found = read_source(name, row)
    return [found.texts, found.revision]
say(lambda: of_hub(source="some/prompts", column="prompt", revision=commit))
say(lambda: of_hub(source="some/prompts", column="prmpt"))
say(lambda: of_hub(source="some/prompts", column="prompt", split="val"))
say(lambda: of_hub(source="some/other", column="prompt"))
say(lambda: of_hub(source="some/prompts", column="prompt", revision="1" * 40))
say(lambda: of_hub(source="some/prompts", column="prompt", revision="main"))
say(lambda: of_row("drawbench", 2))
say(lambda: of_row("hpdv2", 8))
say(lambda: of_row("coco2014_10k", 2))
say(lambda: of_row("mjhq_30k", 2))
data = DataSource(source="some/prompts", column="prompt", split="test")
say(lambda: list(iter_captions(data, skip=1)))
data = DataSource(source="some/photographs", revision=commit)
say(lambda: [[name, encoded.hex()] for name, encoded in iter_encoded_images(data, skip=1)])
for split in (None, "test"):
    data = DataSource(source="some/splits", column="prompt", split=split, revision=commit)
    say(lambda: list(iter_captions(data)))
"""


def _ask(tmp_path: Path, url: str, **environment: str) -> list[Any]:
    # `datasets` loads torch where it finds it, which takes longer than all the rest.
    own = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "USE_TORCH": "0"}
    result = subprocess.run(
        [sys.executable, "-c", _ASK, COMMIT],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.long
def test_what_the_hub_has_and_what_the_cache_keeps_of_it(tmp_path: Path) -> None:
    hub = Hub()
    card, rows = b"---\nlicense: cc0-1.0\n---\n", b"prompt,category\none,x\ntwo,y\none,z\n"
    files = {"README.md": card, "test.csv": rows}
    hub.add("datasets/some/prompts", files, known_as=COMMIT)
    splits = {f"{split}.csv": f"prompt\nof {split}\n".encode() for split in ("train", "test")}
    hub.add("datasets/some/splits", splits, known_as=COMMIT)
    for k in range(2):
        Image.new("RGB", (3, 3), (k, 0, 0)).save(tmp_path / f"{k}.png")
    photographs = {f"{k}.png": (tmp_path / f"{k}.png").read_bytes() for k in range(2)}
    metadata = {"metadata.csv": b"file_name,caption\n0.png,one\n1.png,two\n"}
    hub.add("datasets/some/photographs", photographs | metadata, known_as=COMMIT)
    for name in ("drawbench", "hpdv2", "mjhq_30k", "coco2014_10k"):
        row = PROMPT_SOURCES[name]
        stand_in(name, tmp_path / name)
        place = f"datasets/{row.repository}" if row.host == "dataset" else row.repository
        hub.add_folder(place, tmp_path / name, known_as=COMMIT)
    with serving(hub):
        online = _ask(tmp_path, hub.endpoint)
    offline = _ask(tmp_path, hub.endpoint, HF_HUB_OFFLINE="1")

    texts, categories, facts = online[0]
    assert (texts, categories) == (["one", "two"], ["x", "y"])
    expected = {"repository": "some/prompts", "revision": COMMIT, "licence": "cc0-1.0"}
    assert facts.items() >= expected.items()
    assert online[1] == "some/prompts: no column 'prmpt'; it has: prompt, category"
    assert online[2] == "some/prompts: no split 'val'; give one of: test"
    assert "no such repository or revision on the Hub" in online[3]
    assert "no such repository or revision on the Hub" in online[4]
    assert "revision must be a commit" in online[5]
    for k, name in enumerate(("drawbench", "hpdv2", "coco2014_10k", "mjhq_30k"), start=6):
        assert online[k] == [STAND_INS[name][1], COMMIT]
    assert online[10] == [[1, "two"], [2, "one"]]
    assert online[11] == [["some/photographs, row 1", photographs["1.png"].hex()]]

    assert online[12] == "some/splits: it has several splits; give one of: train, test"
    assert online[13] == [[0, "of test"]]

    assert [offline[k] for k in (0, *range(6, 11))] == [online[k] for k in (0, *range(6, 11))]
    assert "no network, and it is not in the cache" in offline[3]
    assert "python -m ddmd_bench fetch SUITE" in offline[3]
    assert f"revision {'1' * 40} is not in the cache" in offline[4]  # never another one instead


# What is refused

BAD: dict[str, tuple[dict[str, str], str]] = {
    "a name with a slip": ({"source": "partiprompts"}, "Did you mean 'parti_prompts'?"),
    "a backend's name with a slip": ({"source": "shapes/sen"}, "Did you mean 'shapes/seen'?"),
    "a dataset of the Hub without column": ({"source": "some/prompts"}, "owner/name of a dataset"),
    "no such file": ({"source": "gone.txt"}, r"gone\.txt: no such file or folder"),
    "a folder": ({"source": "."}, "expected a file that ends in one of"),
    "no such column": (
        {"source": "t.csv", "column": "promt"},
        "t.csv: no column 'promt'; it has: n, title",
    ),
    "no usual column": (
        {"source": "t.csv"},
        "no column prompt, caption, text; it has: n, title. Name one of them: column",
    ),
    "not text": ({"source": "n.jsonl"}, r"column 'prompt' is not text: row 1 holds \["),
    "half a character": ({"source": "half.jsonl"}, "row 0 of column 'prompt' holds half of a"),
    "UTF-16": ({"source": "bytes.txt"}, r"bytes\.txt: cannot be read: it begins as UTF-16 does"),
    "not UTF-8": ({"source": "latin.txt"}, r"line 2 is not UTF-8 \(.* at its byte 4\)"),
    "a comma too many": ({"source": "comma.csv"}, "line 3 has 3 values, its header names 2"),
    "a quote too few": ({"source": "quote.csv"}, "line 2 is not CSV: unexpected end of data"),
    "a quote too few in a TSV": ({"source": "quote.tsv"}, "line 2 opens a quote that it does not"),
    "a column twice": ({"source": "twice.csv"}, "two columns are called prompt; rename one"),
    "old Macs' lines": ({"source": "mac.csv"}, "line 1 is not CSV: a carriage return that ends"),
    "neither record nor text": ({"source": "numbers.json"}, "item 0 is neither a record nor"),
    "not CSV": ({"source": "bytes.csv"}, r"bytes\.csv: cannot be read"),
    "not JSON": ({"source": "broken.jsonl"}, r"broken\.jsonl: cannot be read: line 2 is not JSON"),
    "not Parquet": ({"source": "bytes.parquet"}, r"bytes\.parquet: cut, or no Parquet table"),
    "no byte": ({"source": "empty.jsonl"}, "the file is empty"),
    "white space alone": ({"source": "white.json"}, r"white\.json: holds no prompt"),
    "no prompt": ({"source": "blank.txt"}, r"blank\.txt: holds no prompt"),
    "a file has no split": ({"source": "t.csv", "split": "test"}, "takes no split"),
    "a file has no commit": (
        {"source": "t.csv", "revision": "a" * 40, "config": "c"},
        "a local file or folder takes no config, revision",
    ),
    "a named list has its own": (
        {"source": "geneval", "revision": "a" * 40},
        "a named source takes no revision",
    ),
    "a named list has its own column": (
        {"source": "geneval", "column": "prompt"},
        "a named source takes no column",
    ),
    "a backend's list has no column": (
        {"source": "shapes/seen", "column": "prompt"},
        "a backend's own source takes no column",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("n,title\n1,a\n2,b\n")
    Path("broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    for suffix in ("txt", "csv", "parquet"):
        Path(f"bytes.{suffix}").write_bytes(b"\xff\xfe\x81\n\xff")
    Path("n.jsonl").write_text('{"prompt": "7"}\n{"prompt": [7]}\n')
    Path("half.jsonl").write_text('{"prompt": "\\ud83d"}\n')
    Path("latin.txt").write_bytes("first\ncaf\u00e9\n".encode("latin-1"))
    Path("comma.csv").write_text("n,prompt\n1,a cat\n2,a dog, sitting\n")
    Path("quote.csv").write_text('n,prompt\n1,"a cat\n')
    Path("quote.tsv").write_text('n\tprompt\n1\t"a cat\n')
    Path("twice.csv").write_text("prompt, prompt\na,b\n")
    Path("mac.csv").write_bytes(b"prompt\ra\rb\r")
    Path("numbers.json").write_text("[[1], 2]")
    Path("empty.jsonl").touch()
    Path("white.json").write_text("\n\n")
    Path("blank.txt").write_text("\n \n\n")
    given, expected = BAD[case]
    with pytest.raises(BenchError, match=expected):
        find_prompts(DataSource(**given), make_backend().prompt_sets)


# A suite's keys


def test_a_suite_names_its_prompts_and_training_data(
    tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    tiny["prompts"]["own"] = {"source": "o/n", "column": "c", "split": "test", "num_prompts": 3}
    tiny["train_data"] = {
        "prompts": {"source": "captions.txt", "num_prompts": 9},
        "images": {"source": "folder", "column": "caption", "num_images": 8},
    }
    suite = load_suite(write_suite(tiny))
    assert suite.prompts["own"].split == "test"
    assert suite.prompts["seen"].column is None
    assert suite.train_data is not None
    assert suite.train_data.images is not None
    assert suite.train_data.images.num_images == 8


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("prompts", {"source": "a.txt", "num_prompt": 1}, "Did you mean 'num_prompts'?"),
        ("images", {"source": "a", "num_images": 0}, "train_data.images.num_images"),
        ("images", {"source": "a", "num_prompts": 3}, "train_data.images: unknown key"),
        ("prompt", {}, "train_data: unknown key 'prompt'"),
    ],
)
def test_bad_training_data_is_refused(
    tiny: dict[str, Any],
    write_suite: Callable[[Any], str],
    key: str,
    value: dict[str, Any],
    expected: str,
) -> None:
    tiny["train_data"] = {key: value}
    with pytest.raises(BenchError, match=re.escape(expected)):
        load_suite(write_suite(tiny))
