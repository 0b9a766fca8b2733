"""What the vendors said: JSON files in tests/golden/, one for each scorer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from parity.weights import Row

FOLDER = Path(__file__).parents[1] / "tests" / "golden"


@dataclass(frozen=True)
class Pair:
    """One image with one prompt, and the vendor's score."""

    image: str
    prompt: str
    given: str  # "file", or the copy of it that the vendor was given instead
    score: float
    of_file: float | str | None = None  # where a copy was given: of the file itself, or its error


@dataclass(frozen=True)
class Golden:
    """All that a vendor was given and said; enough to score the same without it."""

    scorer: str
    versions: dict[str, str]  # package: version
    weights_seed: int
    shapes_sha256: str
    shapes: list[Row]  # folded
    images: dict[str, str]  # name: sha256 of the pixels as shown
    pairs: list[Pair]
    # Of the tokenizer's vocabulary the lines that these prompts use, by their number; what else is
    # in it changes nothing: the longest piece that fits is taken, and it is among these.
    vocabulary: dict[str, int] = field(default_factory=dict)


def write(golden: Golden) -> Path:
    """The file, a line for each pair and each row of shapes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{golden.scorer}.json"
    fields = []
    for name, value in asdict(golden).items():
        if isinstance(value, list):
            lines = ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value)
            text = f"[\n{lines}\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        fields.append(f' "{name}": {text}')
    path.write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
    return path


def read(scorer: str) -> Golden:
    """The committed file of a scorer."""
    data = json.loads((FOLDER / f"{scorer}.json").read_text(encoding="utf-8"))
    pairs = [Pair(**pair) for pair in data.pop("pairs")]
    return Golden(pairs=pairs, **data)
