"""Drawing until comparisons are settled: what it cannot be asked for, as far as a suite tells."""

from __future__ import annotations

from collections.abc import Iterator

from ddmd_bench.measuring.looks import Rule, compared_students, rule_of
from ddmd_bench.planning.part import Asked, Part
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.schema import Suite

_AT_ONE_NUMBER = "distances of sets compare at equal numbers of images alone, and these differ"
_OR_ALL = "or leave out until_settled"


def _problems(asked: Asked) -> Iterator[str]:
    suite = asked.suite
    rule = rule_of(suite)
    if rule is None:
        return
    if len(suite.seeds) > 1:
        yield (
            f"until_settled: takes one seed, found {list(suite.seeds)}: with several an interval "
            f"is over seeds too, of which there are too few to look at. Set seeds to one, {_OR_ALL}"
        )
    if len(set(suite.images_per_prompt().values())) > 1:
        yield (
            "until_settled: prompts count alike, so that all sets take one images_per_prompt, "
            f"found {suite.images_per_prompt()}. Set them to one number, {_OR_ALL}"
        )
    if not compared_students(suite):
        yield (
            "until_settled: no student is compared with the baseline. Name one more student, "
            f"{_OR_ALL}"
        )
    yield from _metric_problems(rule, suite)


def _metric_problems(rule: Rule, suite: Suite) -> Iterator[str]:
    if not rule.metrics:
        yield (
            "until_settled: the suite has no metric of images with a better direction. Name those "
            f"to settle: until_settled.metrics, {_OR_ALL}"
        )
    asked = suite.until_settled
    for metric in asked.margins if asked else ():
        if metric not in rule.metrics:
            yield (
                f"until_settled.margins: {metric} is not to be settled; name it in "
                f"until_settled.metrics ({', '.join(rule.metrics)}), or leave out its margin"
            )
    for metric in suite.metrics:
        if metric in METRICS and METRICS[metric].across:
            yield (
                f"until_settled: {metric} holds each image against all others, so that its values "
                f"change as more are drawn. Take it out of metrics, {_OR_ALL}"
            )
    for metric in rule.metrics:
        if _of_sets(metric):
            yield (
                f"until_settled.metrics: {metric} has no value of a prompt: {_AT_ONE_NUMBER}. Name "
                f"metrics of images, {_OR_ALL}"
            )
        if metric in METRICS and METRICS[metric].counts:
            yield (
                f"until_settled.metrics: {metric} is a mean over questions, and prompts, which "
                f"count alike here, have unlike numbers of them. Name other metrics, {_OR_ALL}"
            )
    for k, claim in enumerate(suite.claims):
        if claim.metric is not None and _of_sets(claim.metric):
            yield (
                f"claims[{k}]: on {claim.metric}, with until_settled: {_AT_ONE_NUMBER}. Leave it "
                f"out, {_OR_ALL}"
            )
    for metric in suite.gate:
        if _of_sets(metric):
            yield (f"gate.{metric}: with until_settled: {_AT_ONE_NUMBER}. Leave it out, {_OR_ALL}")


def _of_sets(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].kind == "distribution"


SETTLING = Part(_problems)
