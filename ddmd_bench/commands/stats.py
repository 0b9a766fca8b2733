"""Reference statistics of real images.

python -m ddmd_bench stats build photographs/ reference_stats/photographs --scorers inception
python -m ddmd_bench stats import coco.npz reference_stats/coco --scorer inception --num 30000
python -m ddmd_bench stats show photographs
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import console, started_once, stop_cleanly
from ddmd_bench.errors import BenchError
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.places import require_folder
from ddmd_bench.run.events import Event

app = typer.Typer(no_args_is_help=True, help="Statistics of real images, which distances need.")


@app.command()
@stop_cleanly
@started_once
def build(
    source: Annotated[
        str,
        typer.Argument(help="A folder of images, Parquet, owner/name on the Hub, or coco2014_10k."),
    ],
    output: Annotated[Path, typer.Argument(help="A folder, e.g. reference_stats/coco.")],
    scorers: Annotated[
        list[str], typer.Option(help="Extractors whose features are kept; may be repeated.")
    ],
    num: Annotated[int | None, typer.Option(min=2, help="The first so many. Default: all.")] = None,
    column: Annotated[str | None, typer.Option(help="The column of images in a table.")] = None,
    config: Annotated[str | None, typer.Option(help="Of a dataset on the Hub.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a dataset on the Hub.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a dataset on the Hub.")] = None,
) -> None:
    """Measure real images once; a build that was stopped goes on where it was.

    A finished folder takes a larger --num, and other scorers of the same images.
    """
    from pydantic import ValidationError

    from ddmd_bench.data.image_folders import left_out
    from ddmd_bench.measuring.reference_build import build as build_statistics
    from ddmd_bench.suite.settings import DataSource

    require_folder(output, "OUTPUT")
    given = {"column": column, "config": config, "split": split, "revision": revision}
    try:
        data = DataSource.model_validate({"source": source, **given})
    except ValidationError as error:
        raise BenchError(f"{source}: {error.errors()[0]['msg']}") from error
    with numerics(), progress_shown(console) as on_event:

        def on_images(done: int) -> None:
            on_event(Event("reference statistics, images", done, num or done))

        def on_hashed(done: int, total: int) -> None:
            on_event(Event("reference statistics, files hashed", done, total))

        build_statistics(data, output, list(dict.fromkeys(scorers)), num, on_images, on_hashed)
    if Path(source).is_dir() and (others := left_out(Path(source))):
        console.print(others)
    _show(output)


@app.command("import")
@stop_cleanly
@started_once
def import_(
    file: Annotated[
        Path,
        typer.Argument(help="An npz with mu and sigma, or of features (feats, reps); an npy."),
    ],
    output: Annotated[Path, typer.Argument(help="A folder, e.g. reference_stats/coco.")],
    scorer: Annotated[str, typer.Option(help="The extractor whose features they are of.")],
    num: Annotated[
        int | None, typer.Option(min=2, help="Of how many images. Default: not known.")
    ] = None,
    source: Annotated[str, typer.Option(help="Of which images, from where: in your words.")] = "",
) -> None:
    """Take over what pytorch-fid, clean-fid, ADM, EDM or dgm-eval keep of images elsewhere.

    Metrics that compare single features need a file of features. A folder of imported statistics
    takes those of other scorers.
    """
    from ddmd_bench.measuring.reference_import import import_statistics

    require_folder(output, "OUTPUT")
    import_statistics(file, output, scorer, num, source)
    _show(output)


@app.command()
@stop_cleanly
def show(
    folder: Annotated[str, typer.Argument(help="A folder, or a name in reference_stats.")],
) -> None:
    """Say what statistics are of, and check every byte of them."""
    from ddmd_bench.measuring.reference import find_statistics, load_reference, read_card

    found = find_statistics(folder)
    for extractor in read_card(found)["scorers"]:
        load_reference(found, extractor)
    _show(found)


def _show(folder: Path) -> None:
    from ddmd_bench.measuring.reference import is_imported, read_card, told_of_imported

    card = read_card(folder)
    if is_imported(card):
        console.print(f"{folder}: imported statistics")
        for name in card["scorers"]:
            console.print(f"{name}: {told_of_imported(card, name)}")
        return
    lines = [f"{folder}: {card['n']} images of {card['source']['source']}; {card['subset']}"]
    for name, row in card["scorers"].items():
        weights = ", ".join(f"{file} {sha256[:12]}" for file, sha256 in row["weights"].items())
        lines.append(f"{name}: {row['num_features']} features; {row['protocol']}; {weights}")
    for line in lines:
        console.print(line)
