"""A tally as texts and tables, which the page, the Markdown and the table for a paper share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ddmd_bench.reporting.numbers import MISSING, p_shown, shown
from ddmd_bench.scorers import METRICS

_FORMS = {
    "ranking": "Each person put the images of a prompt in order",
    "pairs": "Each person chose between two images of a prompt",
    "side-by-side": "Each person saw two models' images side by side and voted once",
}
SHARES = (
    "First: share of sets in which the student comes first, a tie shared. Strength: Plackett and "
    "Luce's log-odds (of pairs Bradley and Terry's), 0 on average. Intervals (95 %) are over "
    "prompts and people, who are both drawn from many."
)
PAIRS = (
    "Share of the sets with both students in which the one of the row is above the one of the "
    "column, a tie as half. p: against 50 %, with Holm's correction for all pairs."
)
METRICS_NOTE = (
    "How often a metric orders two images as the person did; 50 % is chance. Ties of people are "
    "left out, ties of a metric count half."
)
LEFT_OUT = (
    "Left out by the rule that was stated before anybody answered: fewer than {obvious} of the "
    "obvious sets right (a whole image beside one in disorder). How alike a person answers to a "
    "repeated set and habits are told, and nobody is left out for them."
)


class Table(NamedTuple):
    """A title, what is to know about it, and cells; the first of each row names it."""

    title: str
    notes: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def title_of(record: Mapping[str, Any]) -> str:
    return f"What people prefer: {record['title']}"


def summary_of(record: Mapping[str, Any]) -> list[str]:
    """How many answers of what, who leads, who was left out."""
    people, found = record["people"], record["counted"]
    left_out = [row for row in people if row["left_out"]]
    if found is None:
        return [f"Nobody is counted: {len(left_out)} of {len(people)} people were left out."]
    sentences = [f"{_FORMS[record['form']]}: {_counted(found, record['form'])}.", *_leader(record)]
    if left_out:
        were = "was" if len(left_out) == 1 else "were"
        sentences.append(
            f"{len(left_out)} of {len(people)} people {were} left out; the results of everybody "
            "stand below too."
        )
    return sentences


def _counted(found: Mapping[str, Any], form: str) -> str:
    rankings, prompts, people = found["rankings"], found["prompts"], found["people"]
    if form == "side-by-side":
        return f"{rankings} votes of {people} people over {prompts} prompts"
    told = f"{rankings:,} rankings of {prompts:,} prompts by {people} people"
    if rankings >= prompts * people:
        return told
    each = rankings / prompts
    seen = "one of them" if each == 1 else f"{each:.3g} of them on average"
    return (
        f"{told}, each prompt seen by {seen}: {rankings:,} answers are counted, not the "
        f"{prompts * people:,} of everybody seeing everything"
    )


def _leader(record: Mapping[str, Any]) -> Iterator[str]:
    found = record["counted"]
    rows = {n: row for n, row in found["students"].items() if row["n"]}
    lead = max(rows, key=lambda name: rows[name]["first"]["value"])
    title = record["students"][lead]["title"]
    cell = rows[lead]["first"]
    yield f"{title} comes first most often: {_share(cell)}, 95 % interval {_interval(cell)}."
    last = {name: row["places"][-1] for name, row in rows.items()}
    worst = max(last, key=last.__getitem__)
    if len(rows[lead]["places"]) > 2 and last[lead] > min(last.values()):
        yield (
            f"It comes last in {shown(100 * last[lead], 1)} % of its sets; least often last is "
            f"{record['students'][min(last, key=last.__getitem__)]['title']} "
            f"({shown(100 * min(last.values()), 1)} %), most often "
            f"{record['students'][worst]['title']} ({shown(100 * last[worst], 1)} %)."
        )


def tables_of(record: Mapping[str, Any]) -> list[Table]:
    """Every table, in the order of the page."""
    counted, everybody = (record.get(part) for part in ("counted", "everybody"))
    return [
        *(_results(record, counted, "") if counted else ()),
        _people(record),
        *(_results(record, everybody, " (everybody counted)") if everybody else ()),
    ]


def _results(record: Mapping[str, Any], found: Mapping[str, Any], words: str) -> Iterator[Table]:
    titles = {name: row["title"] for name, row in record["students"].items()}
    yield _students(found, titles, words)
    yield _pairs(found, titles, words)
    yield _agreement(found, words)
    if found["metrics"]:
        rows = sorted(found["metrics"].items(), key=lambda item: -item[1]["value"])
        yield Table(
            f"Which metrics order as people do{words}",
            (METRICS_NOTE,),
            ("Metric", "As people", "95 % interval", "Sets"),
            tuple(
                (METRICS[m].title if m in METRICS else m, _share(c), _interval(c), f"{c['n']:,}")
                for m, c in rows
            ),
        )
    if found["reasons"]:
        yield Table(
            f"Reasons given{words}",
            (),
            ("Person", "Vote for", "Why"),
            tuple(
                (row["person"], titles.get(row["student"] or "", "neither"), row["reason"])
                for row in found["reasons"]
            ),
        )


def _students(found: Mapping[str, Any], titles: Mapping[str, str], words: str) -> Table:
    rows = {name: row for name, row in found["students"].items() if row["n"]}
    num_places = max(len(row["places"]) for row in rows.values())
    ordered = sorted(rows, key=lambda name: rows[name]["mean_rank"]["value"])
    notes = [SHARES]
    if found["strengths_missing"]:
        notes.append(f"Strengths: {found['strengths_missing']}.")
    return Table(
        f"Students{words}",
        tuple(notes),
        (
            "Student", "Sets", "First", "95 % interval", "Mean rank", "95 % interval",
            *(f"Place {k}" for k in range(1, num_places + 1)), "Strength", "95 % interval",
        ),
        tuple(
            (
                titles[name], f"{rows[name]['n']:,}",
                _share(rows[name]["first"]), _interval(rows[name]["first"]),
                shown(rows[name]["mean_rank"]["value"], 3), _numbers(rows[name]["mean_rank"]),
                *(f"{shown(100 * p, 1)} %" for p in rows[name]["places"]),
                *[MISSING] * (num_places - len(rows[name]["places"])),
                shown(rows[name]["strength"]["value"], 2, sign=True),
                _numbers(rows[name]["strength"], 2),
            )
            for name in ordered
        ),
    )  # fmt: skip


def _pairs(found: Mapping[str, Any], titles: Mapping[str, str], words: str) -> Table:
    return Table(
        f"Pairs of students{words}",
        (PAIRS,),
        ("Student", "Other", "Above", "95 % interval", "Sets", "p, Holm"),
        tuple(
            (titles[row["student"]], titles[row["other"]], _share(row), _interval(row),
             f"{row['n']:,}", p_shown(row["p_holm"]))
            for row in found["pairs"]
        ),
    )  # fmt: skip


def _agreement(found: Mapping[str, Any], words: str) -> Table:
    agreement = found["agreement"]
    alpha, w = agreement["alpha"], agreement["w"]
    return Table(
        f"Do people agree?{words}",
        ("Of the sets that several people saw; intervals over these sets. 1 is full agreement.",),
        ("Measure", "Value", "95 % interval", "By chance", "Sets"),
        (
            ("Krippendorff's alpha, ordinal", shown(alpha["value"], 2), _numbers(alpha, 2),
             shown(0, 2), f"{alpha['n']}"),
            ("Kendall's W, mean of the sets", shown(w["value"], 2), _numbers(w, 2),
             shown(agreement["w_by_chance"], 2), f"{w['n']}"),
        ),
    )  # fmt: skip


def _people(record: Mapping[str, Any]) -> Table:
    rule = record["rule"]
    return Table(
        "People",
        (LEFT_OUT.format(**{name: f"{100 * share:.0f} %" for name, share in rule.items()}),),
        ("Person", "Answers", "Seconds, median", "Obvious sets right", "Repeated pairs alike",
         "Completion code", "Counted", "Habits"),
        tuple(
            (
                f"{row['person']} ({row['code']})",
                f"{row['answers']} / {row['screens']}",
                shown(row["median_seconds"], 1),
                f"{row['obvious'][0]} / {row['obvious'][1]}",
                MISSING if row["repeated"] is None else f"{shown(100 * row['repeated'], 0)} %",
                row["completion"],
                f"left out: {row['left_out']}" if row["left_out"] else "yes",
                "; ".join(row["habits"]) or MISSING,
            )
            for row in record["people"]
        ),
    )  # fmt: skip


def _share(cell: Mapping[str, Any]) -> str:
    value = cell["value"]
    return MISSING if value is None else f"{shown(100 * value, 1)} %"


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["low"] is None:
        return MISSING
    return f"{shown(100 * cell['low'], 1)} to {shown(100 * cell['high'], 1)}"


def _numbers(cell: Mapping[str, Any], decimals: int = 3) -> str:
    if cell["low"] is None:
        return MISSING
    return f"{shown(cell['low'], decimals)} to {shown(cell['high'], decimals)}"


def matrix_of(record: Mapping[str, Any]) -> tuple[list[str], list[list[float | None]]]:
    """Names, and how often the one of a row is above the one of a column."""
    found, names = record["counted"], list(record["students"])
    shares: dict[tuple[str, str], float] = {}
    for row in found["pairs"] if found else ():
        shares[row["student"], row["other"]] = row["value"]
        shares[row["other"], row["student"]] = 1 - row["value"]
    return names, [[shares.get((a, b)) for b in names] for a in names]


def csv_rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One line for each value: of whom, of what, with its interval."""
    for part in ("counted", "everybody"):
        found = record.get(part) or {}
        for name, row in found.get("students", {}).items():
            for value in ("first", "mean_rank", "strength"):
                if value in row:
                    yield {"people": part, "student": name, "value_of": value, **row[value]}
        for row in found.get("pairs", ()):
            yield {"people": part, "value_of": "above", **row}
        for metric, cell in found.get("metrics", {}).items():
            yield {"people": part, "value_of": "metric as people", "metric": metric, **cell}


CSV_COLUMNS: Sequence[str] = (
    "people", "value_of", "student", "other", "metric", "value", "low", "high", "n", "p", "p_holm",
)  # fmt: skip
