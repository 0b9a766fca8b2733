"""What a distance of few images lacks: a value, or values of others that it compares with."""

from __future__ import annotations

from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.distances import DISTANCES


def lacking(metric: str, n: int, num_features: int, num_real: int | None) -> str | None:
    """Why a distance of n images has no value; None where it has, or is no distance.

    num_real: None where nobody says of how many images the real Gaussian is.
    """
    if (distance := METRICS[metric].distance) is None:
        return None
    fewest = DISTANCES[distance].fewest(num_features)
    if n < fewest:
        return f"needs {fewest} images, has {n}"
    if num_real is not None and num_real < fewest:
        return f"needs {fewest} real images, has {num_real}"
    return None


def told_of_few(metric: str, n: int, num_features: int, num_real: int | None) -> dict[str, str]:
    """For a cell of n images: why it has no value, or what they are fewer than, if of anything."""
    row = METRICS[metric]
    if row.distance is None:
        return {}
    if (why := lacking(metric, n, num_features, num_real)) is not None:
        return {"missing": why}
    limits = {
        f"the {num_features:,} features": num_features,
        **({} if num_real is None else {f"the {num_real:,} real images": num_real}),
        f"the {row.published_n:,} of published values": row.published_n,
    }
    if not (fewer := [what for what, limit in limits.items() if n < limit]):
        return {}
    *first, last = fewer
    told = f"{', '.join(first)} and {last}" if first else last
    return {"note": f"of {n:,} images, fewer than {told}: compares only with values of as many"}
