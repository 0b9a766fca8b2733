"""Ours against the vendors' scores in tests/golden/: python -m parity.compare [scorer ...].

Exits with 1 where a difference is larger than `ours.TOLERANCE` allows.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from parity.golden import FOLDER, read
from parity.images import write_images
from parity.ours import TOLERANCE, load, scores


def largest_difference(scorer: str) -> float:
    """Prints a line for every pair, the vendor's score beside ours."""
    golden = read(scorer)
    with tempfile.TemporaryDirectory() as scratch:
        images = write_images(Path(scratch))
        one_pass = load(golden, Path(scratch))
        ours = scores(golden, one_pass, golden.pairs, images)
    for pair, value in zip(golden.pairs, ours, strict=True):
        print(
            f"{scorer:14}{pair.image:16}{pair.prompt[:24]!r:28}{pair.score:12.8f}"
            f"{value:12.8f}{value - pair.score:+12.1e}"
        )
    return max(abs(v - pair.score) for pair, v in zip(golden.pairs, ours, strict=True))


def main() -> int:
    wanted = sys.argv[1:] or [name for name in TOLERANCE if (FOLDER / f"{name}.json").is_file()]
    largest = {name: largest_difference(name) for name in wanted}
    print(f"\n{'':14}{'largest difference':>20}{'allowed':>10}")
    for name, value in largest.items():
        verdict = "" if value <= TOLERANCE[name] else "  too large"
        print(f"{name:14}{value:20.1e}{TOLERANCE[name]:10.0e}{verdict}")
    return int(any(value > TOLERANCE[name] for name, value in largest.items()))


if __name__ == "__main__":
    sys.exit(main())
