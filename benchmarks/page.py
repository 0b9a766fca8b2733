"""A report of twelve students, 10,000 prompts, ten metrics: making it, its page in a browser.

    python -m benchmarks.page [--prompts 10000] [--students 12] [--keep FOLDER]

Results are made up, images are small scenes, categories are eighteen. Seconds are of the wall;
memory is the process's highest, and the browser's own of the page. Frames are counted while the
pictures of all prompts are scrolled for four seconds, 3,000 pixels in each, in a window of
1,440 x 900.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.many_prompts import METRICS, made_run
from benchmarks.table import Table, as_text
from ddmd_bench.files.records import write_whole
from ddmd_bench.reporting.html.pages import html
from ddmd_bench.reporting.html.sheets import sheets_key, write_sheets
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.reporting.texts import texts_of

POOL, SIDE = 256, 32  # images of a student that are told apart; pixels
CATEGORIES = 18
WORDS = [
    "a",
    "red",
    "star",
    "above",
    "blue",
    "water",
    "under",
    "an",
    "old",
    "bridge",
    "at",
    "night",
]
SCROLL = """async () => {
  const rows = document.querySelector(".rows");
  const start = performance.now();
  let frames = 0, longest = 0, before = start;
  while (performance.now() - start < 4000) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    longest = Math.max(longest, now - before);
    before = now;
    frames += 1;
    rows.scrollTop = 3 * (now - start);
  }
  return [frames / 4, longest];
}"""
SORT = """() => {
  const start = performance.now(), chosen = document.getElementById("browser-metric");
  chosen.selectedIndex = 3;
  chosen.dispatchEvent(new Event("change"));
  return performance.now() - start;
}"""


def drawn(run: RunFiles, folder: Path) -> RunFiles:
    """With images, texts of twenty words and categories."""
    generator = np.random.default_rng(0)
    students: dict[str, Any] = {}
    for name, by_seed in run.students.items():
        own = folder / "images" / name
        own.mkdir(parents=True)
        paths = []
        for k in range(POOL):
            ground, shape = (tuple(map(int, row)) for row in generator.integers(0, 256, (2, 3)))
            image = Image.new("RGB", (SIDE, SIDE), ground)
            x, y, r = map(int, generator.integers(8, SIDE - 8, 3))
            ImageDraw.Draw(image).ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), shape)
            paths.append(own / f"{k:05d}.png")
            image.save(paths[-1])
        images = {
            (p, i): paths[(2 * k + i) % POOL] for k, p in enumerate(run.prompts) for i in (0, 1)
        }
        done = {"generate": {"key": name}}
        students[name] = {
            seed: replace(one, images=images, done=done) for seed, one in by_seed.items()
        }
    chosen = generator.integers(0, len(WORDS), (len(run.prompts), 20))
    texts = {p: " ".join(WORDS[k] for k in row) for p, row in zip(run.prompts, chosen, strict=True)}
    categories = {p: f"category {k % CATEGORIES}" for k, p in enumerate(run.prompts)}
    return replace(run, prompts=texts, categories=categories, students=students)


def opened(page: Path) -> list[tuple[str, ...]]:
    """What a browser takes for it; no rows where there is none."""
    from tests.browsers import BROWSER, started, watched

    if BROWSER is None:
        return []
    with started() as browser:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        seen = watched(context)
        start = time.perf_counter()
        seen.goto(page.as_uri())
        seen.wait_for_selector(".rows .row")
        took = time.perf_counter() - start
        sorting = seen.evaluate(SORT)
        frames, longest = seen.evaluate(SCROLL)
        heap = seen.evaluate("performance.memory.usedJSHeapSize")
        processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")[
            "processInfo"
        ]
        largest = max(_resident(one["id"]) for one in processes if one["type"] == "renderer")
        assert not seen.wrong, seen.wrong
    return [
        ("open until the first rows, s", f"{took:.2f}"),
        ("sort by another metric, ms", f"{sorting:.0f}"),
        ("frames a second while scrolling", f"{frames:.0f}"),
        ("longest frame, ms", f"{longest:.0f}"),
        ("script's memory, MB", f"{heap / 1e6:.0f}"),
        ("renderer's resident memory, MB", f"{largest / 1e6:.0f}"),
    ]


def _resident(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def results(num_students: int = 12, num_prompts: int = 10_000, keep: Path | None = None) -> Table:
    """All of it, once."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        run = drawn(made_run(num_students, num_prompts), folder)
        clock = [time.perf_counter()]
        record = build_record(run)
        clock.append(time.perf_counter())
        report = folder / "report"
        page = report / "index.html"
        write_whole(page, html(record, run, report))
        for name, text in texts_of(record).items():
            write_whole(report / name, text)
        clock.append(time.perf_counter())
        key = sheets_key(run)
        assert key is not None
        write_sheets(run, key, report, lambda done, total: None)
        clock.append(time.perf_counter())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pictures = sum(path.stat().st_size for path in report.rglob("*.webp"))
        steps = [f"{after - before:.1f}" for before, after in pairwise(clock)]
        rows = [
            ("statistics, s", steps[0]),
            ("page and tables, s", steps[1]),
            ("small pictures of all prompts, s", steps[2]),
            ("all, s", f"{clock[-1] - clock[0]:.1f}"),
            ("highest memory, GiB", f"{peak / 2**20:.2f}"),
            ("the page, MB", f"{page.stat().st_size / 1e6:.1f}"),
            ("pictures beside it, MB", f"{pictures / 1e6:.1f}"),
            *opened(page),
        ]
    return Table(
        f"A report of {num_students} students, {num_prompts:,} prompts of two images and "
        f"{len(METRICS)} metrics, and its page in Chromium.",
        ("what", "measured"),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--students", type=int, default=12)
    parser.add_argument("--keep", type=Path, help="where the report stays")
    options = parser.parse_args()
    print(as_text(results(options.students, options.prompts, options.keep)))


if __name__ == "__main__":
    main()
