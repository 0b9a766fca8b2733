"""From answers to DPG-Bench's values, as its published program (ELLA, compute_dpg_bench.py) does.

Two rules are easily taken for one: an image's score counts a question that depends on a failed one
as failed, a category's value does not. Where the program scores four images in one file of 2 x 2,
which it cuts by a RESOLUTION that must be right, here each image is a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence


def after_dependencies(yes: Sequence[bool], parents: Sequence[Sequence[int]]) -> list[bool]:
    """Which questions are passed: those with yes, none of whose parents has failed before.

    In the order of the file, so that a failure goes on to the children of a child that stands
    after it; of a parent that stands later its own answer alone counts.
    """
    passed = list(yes)
    for k, of_question in enumerate(parents):
        passed[k] = passed[k] and all(passed[parent] for parent in of_question)
    return passed


def share_column(metric: str, category: str) -> str:
    """Of an image, the share of its prompt's questions of a category with yes; NaN without any.

    A category's value is over all questions about all images; the published program asks only of
    the last image of each prompt.
    """
    return f"{metric}_{category}"


def count_column(metric: str, category: str) -> str:
    """Of an image, how many questions of a category its prompt has."""
    return f"{metric}_{category}_questions"
