"""A drawing of 400 images that is killed ten times: what is drawn twice, and what comes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NUM_IMAGES, AT_ONCE, NUM_KILLS = 400, 16, 10

# Draws in a process of its own, which is killed after so many batches and milliseconds; then again,
# until one is left alone. Says of each which images it had drawn.
KILLER = """
import json, os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
import diffusers.models.unets.unet_2d_condition  # once, not in each process
import pytest

from ddmd_bench.planning.plan import make_plan
from ddmd_bench.stages.generate import generate
from ddmd_bench.students.prepared import Prepared
from ddmd_bench.students.sources import SOURCES
from ddmd_bench.suite.files import load_suite

suite, folder, at_once, num_kills = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
opened, made = Prepared.opened, SOURCES["teacher"]
Prepared.opened = lambda *asked: replace(opened(*asked), images_at_once=at_once)

def plan_of(runs):
    plan = make_plan(load_suite(suite), folder / runs, folder / runs / "reports")
    return plan, plan.task("generate", "one", 0)

plans = {runs: plan_of(runs) for runs in ("killed", "whole")}

def noted(log):
    def source(*given):
        found = made(*given)
        def draw(images):
            drawn = found.draw(images)
            names = [f"{image.prompt.prompt_id} {image.image_index}" for image in images]
            os.write(log, (json.dumps(names) + chr(10)).encode())
            return drawn
        return found._replace(draw=draw)
    return source

draws, signals, random = [], [], random.Random(0)
for number in range(num_kills + 1):
    path = folder / f"{number}.log"
    log = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR)
    child = os.fork()
    if not child:
        SOURCES["teacher"] = noted(log)
        generate(*plans["killed"], lambda *_: None)
        os._exit(0)
    if number < num_kills:
        batches = random.randint(1, 3)
        while path.read_bytes().count(b"\\n") < batches:
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
    signals.append(os.waitpid(child, 0)[1])
    draws.append([name for line in path.read_text().splitlines() for name in json.loads(line)])
generate(*plans["whole"], lambda *_: None)
print(json.dumps({"draws": draws, "signals": signals}))
"""


def images(folder: Path, runs: str) -> dict[str, bytes]:
    (found,) = (folder / runs).rglob("images")
    return {path.name: path.read_bytes() for path in found.iterdir()}


@pytest.mark.long
def test_killed_ten_times_it_repeats_what_was_under_way_and_ends_with_the_same_bytes(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    """Counted are images that were ready; what a killed process was about to finish is lost too."""
    tiny["prompts"] = {
        "seen": {"source": "shapes/seen", "num_prompts": 200, "images_per_prompt": 2}
    }
    tiny["students"] = {"one": {"source": "teacher", "num_inference_steps": 2, "guidance_scale": 1}}
    tiny["baseline"] = "one"
    arguments = [write_suite(tiny), str(tmp_path), str(AT_ONCE), str(NUM_KILLS)]
    command = [sys.executable, "-c", KILLER, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["signals"] == [signal.SIGKILL] * NUM_KILLS + [0]
    draws = [set(names) for names in told["draws"]]
    assert len(set().union(*draws)) == NUM_IMAGES
    again = [len(drawn & set().union(*draws[k + 1 :])) for k, drawn in enumerate(draws)]
    # The batch whose files were being written, and one that was drawn before they were whole.
    assert max(again) <= 2 * AT_ONCE
    assert {count % AT_ONCE for count in again} == {0}
    assert sum(map(len, draws)) == NUM_IMAGES + sum(again)  # none three times
    found, expected = images(tmp_path, "killed"), images(tmp_path, "whole")
    assert len(expected) == NUM_IMAGES + 1  # with their metadata
    assert found == expected
