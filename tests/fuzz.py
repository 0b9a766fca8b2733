"""Valid files, damaged at random, through the command line: each ends in words, whatever they say.

    python tests/fuzz.py --inputs 100000 --processes 2      # counted, by target and exit code
    python tests/fuzz.py --only suites --first 412 --inputs 1 --verbose   # one of them again

An input is known by its target and number, on which its damage depends alone.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import yaml
from conftest import TINY
from mutations import ODD, damaged

CODES = {0, 1, 2, 3, 4, 64}  # that a command may end with
CPU_SECONDS = 30  # more than any of these inputs can be worth
OUTPUT = "output"  # what commands write; whole, or as it was


class Target(NamedTuple):
    """Files to damage, and the command that reads them."""

    share: int  # of the inputs
    prepare: Callable[[], None]  # writes them, and what they need, into the working folder
    files: tuple[str, ...]
    command: Callable[[random.Random], list[str]]


class Finding(NamedTuple):
    """An input that ended otherwise than in words."""

    target: str
    number: int
    told: str


# What there is to damage


def _suite(**changes: Any) -> None:
    Path("tiny.yaml").write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))


def _suites() -> None:
    shutil.copyfile(Path(__file__).parents[1] / "suites/shapes.yaml", "shapes.yaml")
    evaluation = {"at": [0, 3], "num_prompts": 2, "metrics": ["std"]}
    claims = [
        {"claim": "worst", "student": "ca_only", "metric": "prompt_accuracy", "paper": "Fig. 3"}
    ]
    gate = {"std": {"margin": 0.1}}
    _suite(evaluation=evaluation, claims=claims, gate=gate, trackers=["tensorboard"])


def _overrides(random: random.Random) -> list[str]:
    """A value of the suite that is another, or a key that there is not."""
    key, part = [], TINY
    while isinstance(part, dict):
        key.append(random.choice([*part, *part, "x", ""]))
        part = part.get(key[-1]) if random.random() < 0.9 else None
    odd = random.choice(ODD)
    text = odd if isinstance(odd, str) else json.dumps(odd)
    given = random.choice([f"{'.'.join(key)}={text}", f"{'.'.join(key)}", text])
    return ["plan", "tiny.yaml", f"--set={given}"]


PROMPTS = {
    "a.txt": "a small red star\na large blue star\n\n  a green star \n",
    "b.csv": 'prompt,category\n"a red star",x\n"a ""small"" star",y\na blue star,x\n',
    "c.tsv": "prompt\tcategory\na red star\tx\na blue star\ty\n",
    "d.jsonl": '{"prompt": "a red star"}\n{"prompt": "a blue star"}\n',
    "e.json": '["a red star", "a blue star"]',
}


def _prompts() -> None:
    for name, text in PROMPTS.items():
        Path(name).write_text(text)
        # Nothing of it needs the embedded world's own scenes.
        suite = {key: TINY[key] for key in ("name", "title", "backend")}
        suite["students"] = {"teacher": TINY["students"]["teacher_2"]}
        suite |= {"baseline": "teacher", "metrics": ["mean", "std"]}
        suite["prompts"] = {"own": {"source": name, "num_prompts": 2}}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(suite))


def _pictures() -> None:
    from PIL import Image

    folder = Path("pictures")
    (folder / "more").mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(("0.png", "1.jpg", "more/2.webp", "more/3.gif")):
        image = Image.effect_mandelbrot((9, 7 + k), (-2.0, -1.0, 1.0, 1.0), 50 + k)
        image.convert("RGB").save(folder / name)
    rows = [(f"{path.relative_to(folder)}", f"prompt {path.stem}") for path in folder.rglob("*.*")]
    table = [{"file_name": name, "prompt": text, "category": "x"} for name, text in rows]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    Path("table.csv").write_text("\n".join(["file_name,prompt", *map(",".join, rows)]) + "\n")
    Path("lines.txt").write_text("".join(f"{text}\n" for _, text in rows))


def _score(random: random.Random) -> list[str]:
    given = random.choice([[], ["--prompts", "table.csv"], ["--prompts", "lines.txt"]])
    return ["score", "pictures", "--metrics", "mean,std", *given, "--output", OUTPUT]


def _run() -> None:
    """A finished run of made-up numbers with its report, and an expectation of it."""
    import numpy as np
    from fake_run import write_images, write_scores, write_train

    from ddmd_bench.files.records import DONE, mark_done, read_json, write_jsonl
    from ddmd_bench.planning.plan import make_plan
    from ddmd_bench.reporting.expected import write_expected
    from ddmd_bench.stages.report import report
    from ddmd_bench.suite.files import load_suite

    _suite(seeds=[0, 1], metrics=["prompt_accuracy", "mean", "std", "diversity"])
    plan = make_plan(load_suite("tiny.yaml"), Path("runs"), Path("reports"))
    for k, task in enumerate(plan.tasks.values()):
        draws = np.random.default_rng(k)
        task.folder.mkdir(parents=True, exist_ok=True)
        ids = [(prompt, index) for prompt in plan.prompts for index in range(2)]
        match task.stage:
            case "reference":
                write_jsonl(task.folder / "metadata.jsonl", [])
                mark_done(task.folder, {})
            case "train":
                write_train(task.folder, task.student, draws)
            case "generate":
                write_images(task.folder, ids, draws)
            case "score":
                write_scores(task.folder, task.student, ids, draws, plan.suite)
        record = read_json(task.folder / DONE)
        record.pop("schema")
        mark_done(task.folder, {**record, "key": task.key})
    record = report(plan)
    Path("expected.json").unlink(missing_ok=True)
    write_expected([record], Path("expected.json"))
    for name in ("a.json", "b.json"):
        shutil.copyfile("reports/tiny/report.json", name)
    Path(OUTPUT).mkdir(exist_ok=True)
    Path(OUTPUT, "table.md").write_text("whole")


def _reports(random: random.Random) -> list[str]:
    return random.choice(
        [
            ["compare", "a.json", "b.json", "--output", f"{OUTPUT}/table.md"],
            ["power", "a.json", "--metric", "std", "--difference", "0.01"],
            ["check", "tiny.yaml", "--baseline", "a.json"],
            ["plan", "tiny.yaml", "--for", "std=0.1", "--report", "a.json"],
        ]
    )


def _statistics() -> None:
    from ddmd_bench.measuring.reference_build import build
    from ddmd_bench.suite.settings import DataSource

    _pictures()
    shutil.rmtree("kept", ignore_errors=True)
    build(DataSource(source="pictures"), Path("kept"), ["efficientnet"], None, lambda done: None)
    _suite(reference={"statistics": "kept"}, metrics=["std", "frechet_efficientnet"])


def _statistics_read(random: random.Random) -> list[str]:
    from ddmd_bench.measuring.reference import load_reference

    load_reference.cache_clear()  # a process of its own would have read nothing yet
    return random.choice([["stats", "show", "kept"], ["plan", "tiny.yaml"]])


def _published() -> None:
    """What others publish of real images: a mean and a covariance, folded or not, and features."""
    import numpy as np

    features = np.random.default_rng(0).exponential(size=(150, 112)).astype(np.float32)
    gaussian = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    np.savez("plain.npz", **gaussian)
    np.savez_compressed("folded.npz", **gaussian)
    np.savez_compressed("features.npz", feats=features)
    np.save("features.npy", features)


def _imported(random: random.Random) -> list[str]:
    shutil.rmtree("kept", ignore_errors=True)
    return ["stats", "import", "damaged", "kept", "--scorer", "efficientnet"]


def _checkpoints() -> None:
    import tiny_sd15

    if not Path("repository").is_dir():
        tiny_sd15.write_repository(Path("repository"))
    shutil.copyfile("repository/unet/diffusion_pytorch_model.safetensors", "own.safetensors")
    own = {
        "repository": "own.safetensors",
        "format": "unet",
        "num_inference_steps": 2,
        "scheduler": "ddim",
    }
    suite = {
        **{key: TINY[key] for key in ("name", "title")},
        "prompts": {"own": {"source": "own.txt", "num_prompts": 1}},
        "backend": "sd15",
        "model": {"repository": "repository", "resolution": 64},
        "students": {"s": {"source": "checkpoint", "checkpoint": own}},
        "baseline": "s",
        "metrics": ["mean"],
    }
    Path("own.txt").write_text("a red cup\n")
    Path("own.yaml").write_text(yaml.safe_dump(suite))


def _studies() -> None:
    """A study, and what two people sent back."""
    from study_answers import write_answers, write_study

    key = write_study(Path("study"), ["a", "b", "c"], 12, 2, 2, num_checks=1, ties=True)
    for person in (1, 2):
        write_answers(key, Path("answers"), person, lambda key, k, shown: [1.0, 0.0, float(k % 2)])


TARGETS = {
    "suites": Target(
        30,
        _suites,
        ("tiny.yaml", "tiny.yaml", "shapes.yaml"),
        lambda random: ["plan", "damaged"],
    ),
    "overrides": Target(15, _suite, (), _overrides),
    "prompts": Target(15, _prompts, (*PROMPTS,), lambda random: ["plan", "damaged.yaml"]),
    "expected": Target(
        10, _run, ("expected.json",), lambda random: ["check", "tiny.yaml", "--expected", "damaged"]
    ),
    "reports": Target(12, _run, ("a.json",), _reports),
    "pictures": Target(
        8,
        _pictures,
        ("pictures/0.png", "pictures/1.jpg", "pictures/more/2.webp", "pictures/more/3.gif",
         "pictures/metadata.jsonl", "table.csv", "lines.txt"),
        _score,
    ),
    "statistics": Target(
        4,
        _statistics,
        ("kept/card.json", "kept/efficientnet.npy", "kept/efficientnet.safetensors"),
        _statistics_read,
    ),
    "published": Target(
        2, _published, ("plain.npz", "folded.npz", "features.npz", "features.npy"), _imported
    ),
    "studies": Target(
        3,
        _studies,
        ("study/key.json", "answers/answers-1-x.json"),
        lambda random: ["study", "tally", "study", "answers"],
    ),
    "checkpoints": Target(
        1, _checkpoints, ("own.safetensors",), lambda random: ["plan", "own.yaml"]
    ),
}  # fmt: skip


# One input


@cache
def _app() -> Any:
    from typer.main import get_command

    from ddmd_bench.commands.cli import app

    return get_command(app)


def _contents(folder: Path) -> dict[str, bytes]:
    """But for what scorers have said of other images, which lies beside and is looked up."""
    files = (path for path in folder.rglob("*") if path.is_file() and "answers" not in path.parts)
    return {str(path): path.read_bytes() for path in files}


def invoked(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command and what it printed; whatever it throws is thrown."""
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        try:
            _app().main(list(arguments), prog_name="ddmd_bench")
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return code, told.getvalue()


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {CPU_SECONDS} s")


def tried(name: str, number: int) -> tuple[int, str] | Finding:
    """One input in the working folder, which has what its target prepares."""
    target, draws = TARGETS[name], random.Random(f"{name} {number}")
    command = target.command(draws)
    before = b""
    file = Path(draws.choice(target.files)) if target.files else None
    if file is not None:
        before = file.read_bytes()
        for _ in range(draws.choice([1, 1, 1, 2, 4])):
            try:
                changed = damaged(before, file.suffix, draws)
            except (ValueError, yaml.YAMLError, KeyError, IndexError):
                continue  # what says nothing any more is damaged enough
            file.write_bytes(changed)
        command = [arg.replace("damaged", str(file)) for arg in command]
    kept = _contents(Path(OUTPUT))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        code, told = invoked(command)
    except BaseException:  # noqa: BLE001 - that is what is looked for
        return Finding(name, number, f"{command}\n{traceback.format_exc()}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if file is not None:
            file.write_bytes(before)
    wrong = ""
    if code not in CODES:
        wrong = f"exit code {code}"
    elif "Traceback" in told:
        wrong = "a traceback"
    elif code and not told.strip():
        wrong = "no word"
    elif code == 2 and _contents(Path(OUTPUT)) != kept:
        wrong = "what stood there was overwritten"
    return Finding(name, number, f"{command}: {wrong}\n{told}") if wrong else (code, told)


# All of them


def _refused_whole(name: str) -> Iterator[Finding]:
    """A target's files that are refused before they are damaged, which then shows nothing."""
    target = TARGETS[name]
    for file in target.files:
        command = [arg.replace("damaged", file) for arg in target.command(random.Random(0))]
        code, told = invoked(command)
        if code:
            yield Finding(name, -1, f"{command}, undamaged: exit code {code}\n{told}")


def _work(names: Sequence[str], first: int, numbers: range, verbose: bool = False) -> Any:
    """So many inputs of each target in a folder of their own: counts and findings."""
    counts: Counter[tuple[str, int]] = Counter()
    findings: list[Finding] = []
    signal.signal(signal.SIGPROF, _too_long)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cache_home = {"XDG_CACHE_HOME": f"{folder}/cache"}
        stack.enter_context(patch.dict(os.environ, cache_home))
        stack.callback(os.chdir, os.getcwd())
        for name in names:
            os.makedirs(f"{folder}/{name}")
            os.chdir(f"{folder}/{name}")
            TARGETS[name].prepare()
            findings += _refused_whole(name)
            share = TARGETS[name].share
            for number in range(first + numbers.start, first + numbers.stop):
                if number * share // 100 == (number + 1) * share // 100:
                    continue
                match tried(name, number):
                    case Finding() as found:
                        findings.append(found)
                        counts[name, -1] += 1
                    case code, told:
                        counts[name, code] += 1
                        if verbose:
                            sys.stdout.write(f"{name} {number}: {code} {told}\n")
    return counts, findings


def fuzz(
    names: Iterable[str], inputs: int, processes: int = 1, first: int = 0, verbose: bool = False
) -> tuple[Counter[tuple[str, int]], list[Finding]]:
    """So many inputs, by the targets' shares: how many ended with which code, and what did not."""
    names = list(names)
    if processes == 1:
        return _work(names, first, range(inputs), verbose)  # type: ignore[no-any-return]
    ends = [k * inputs // processes for k in range(processes + 1)]
    parts = [range(*pair) for pair in pairwise(ends)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.starmap(_work, [(names, first, part) for part in parts])
    return sum((c for c, _ in found), Counter()), [one for _, f in found for one in f]


def main() -> None:
    """Target after target, told as each is done: all of them take half an hour."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    total, num_findings = 0, 0
    for name in given.only:
        rest = given.inputs, given.processes, given.first, given.verbose
        counts, findings = fuzz([name], *rest)
        for one in findings:
            told = one.told.encode(errors="backslashreplace").decode()  # halves of characters too
            sys.stdout.write(f"--- {one.target} {one.number}: {told}\n")
        codes = {code: num for (_, code), num in sorted(counts.items()) if code >= 0}
        told = ", ".join(f"{num:,} ended with {code}" for code, num in codes.items())
        sys.stdout.write(f"{name}: {counts.total():,} inputs; {told}\n")
        sys.stdout.flush()
        total, num_findings = total + counts.total(), num_findings + len(findings)
    sys.stdout.write(f"{total:,} inputs, {num_findings} findings\n")
    sys.exit(bool(num_findings))


if __name__ == "__main__":
    main()
