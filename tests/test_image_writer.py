"""Images of a drawing: whole or absent, drawn once, whatever stopped it and wherever."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddmd_bench.data.image_writer import ImageWriter
from ddmd_bench.data.images import quantised
from ddmd_bench.files.records import read_jsonl

NUM, BATCH = 24, 4
DRAWING = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_image_writer import draw

draw(Path(sys.argv[1]), lambda: (print(flush=True), time.sleep(0.01)))
"""


def levels_of(places: list[int]) -> Tensor:
    noise = [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(k)) for k in places]
    return quantised(torch.stack(noise))


def draw(folder: Path, drawn: Any = lambda: None) -> list[int]:
    """What a stage does; the places that it drew."""
    made: list[int] = []
    with ImageWriter(folder, NUM, 2) as writer:
        left = writer.missing
        for first in range(0, len(left), BATCH):
            places = left[first : first + BATCH]
            rows = [{"prompt": f"prompt {k}", "seconds": 1.0} for k in places]
            drawn()
            made += places
            writer.add(places, rows, levels_of(places))
        writer.finish()
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "images"
    assert draw(folder) == list(range(NUM))
    assert not list(folder.parent.glob("*.jsonl"))  # the journal has served
    rows = read_jsonl(folder / "metadata.jsonl")
    assert [row["file_name"] for row in rows] == [f"{k:05d}.png" for k in range(NUM)]
    assert all(row.keys() == {"file_name", "prompt"} for row in rows)
    return contents(folder)


@pytest.mark.parametrize("batches", range(1, NUM // BATCH + 1))
def test_a_killed_drawing_goes_on_and_ends_the_same(
    batches: int, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    folder = tmp_path / "images"
    command = [sys.executable, "-c", DRAWING, str(folder), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(batches):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = draw(folder)
    # At most the batch that was being written, and the one that was being drawn.
    assert len(again) <= NUM - max(0, batches - 2) * BATCH
    assert contents(folder) == whole


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "00005.png").unlink(),
        lambda folder: (folder / "00005.png").write_bytes(b"cut"),
        lambda folder: (folder / "99999.png").write_bytes(b"left over"),
        lambda folder: (folder / "metadata.jsonl").write_text("old"),
        lambda folder: (folder / ".ipynb_checkpoints").mkdir(),
    ],
)
def test_what_is_not_whole_is_drawn_again_and_no_more(
    spoil: Any, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    folder = tmp_path / "images"
    draw(folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    (folder / "metadata.jsonl").unlink()
    named = [
        {**row, "seconds": 1.0, "sha256": hashlib.sha256(whole[row["file_name"]]).hexdigest()}
        for row in rows
    ]
    lines = [json.dumps(named[k : k + BATCH]) for k in range(0, NUM, BATCH)]
    (tmp_path / "drawn.jsonl").write_text("\n".join(lines) + '\n[{"file_na')
    spoil(folder)
    assert draw(folder) in ([5], [])
    assert contents(folder) == whole


def test_a_file_that_cannot_be_written_ends_the_drawing(tmp_path: Path) -> None:
    with ImageWriter(tmp_path / "images", 4, 1) as writer:
        (tmp_path / "images" / "00000.png").mkdir()
        writer.add([0, 1], [{}, {}], levels_of([0, 1]))
        with pytest.raises(OSError, match="00000"):
            writer.finish()
    assert not (tmp_path / "images" / "metadata.jsonl").exists()
