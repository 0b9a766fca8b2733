"""What the suite's prompts are: found in their sources, read by the backend, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ddmd_bench.data.prompt_sources import find_prompts, prompt_remotes
from ddmd_bench.data.prompts import Prompt, choose, prompts_key
from ddmd_bench.errors import BenchError
from ddmd_bench.measuring.looks import rule_of
from ddmd_bench.planning.part import Asked, Downloads, Part


class FoundPrompts(NamedTuple):
    """The suite's prompts as far as they can be had."""

    prompts: tuple[Prompt, ...]
    lists: dict[str, dict[str, Any]]  # where each prompt set is from, as its facts
    problems: list[str]


def find_suite_prompts(asked: Asked) -> FoundPrompts:
    """Read the sources; what is wrong with one keeps no other from being read."""
    chosen: list[Prompt] = []
    lists: dict[str, dict[str, Any]] = {}
    problems = []
    for name, prompt_set in asked.suite.prompts.items():
        try:
            own = asked.backend.prompt_sets
            found = find_prompts(prompt_set, own, prompt_set.category)
        except BenchError as error:
            problems.append(f"prompts.{name}.source: {error}")
            continue
        lists[name] = found.facts()
        wanted = prompt_set.num_prompts
        try:
            part = choose(
                name, found.texts, wanted, found.positions, found.categories, found.n_left_out
            )
            for prompt in part:
                asked.backend.check_prompt(prompt.text)
        except BenchError as error:
            problems.append(str(error))
            continue
        chosen += part
    return FoundPrompts(tuple(chosen), lists, problems)


def asked_of_each(asked: Asked) -> dict[str, Any]:
    """The images that a student has to draw."""
    per_prompt, rule = asked.suite.images_per_prompt(), rule_of(asked.suite)
    images = {"prompts": prompts_key(asked.prompts), "images_per_prompt": per_prompt}
    return images if rule is None else {**images, "until_settled": rule.as_key()}


def _protocol(asked: Asked) -> Mapping[str, Any]:
    counts = {
        name: sum(p.prompt_set == name for p in asked.prompts) for name in asked.suite.prompts
    }
    seeds = "sha256(image, suite seed, prompt id, image index)"
    return {**asked_of_each(asked), "num_prompts": counts, "seed_rule": seeds}


def _downloads(asked: Asked) -> Downloads:
    return Downloads(tuple(prompt_remotes(list(asked.suite.prompts.values()))))


PROMPTS = Part(protocol=_protocol, downloads=_downloads)
