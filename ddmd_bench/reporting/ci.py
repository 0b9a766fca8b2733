"""A check's result as what continuous integration reads: JUnit XML, a step's summary, annotations.

JUnit: https://github.com/testmoapp/junitxml; GitHub: workflow commands and job summaries,
https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from ddmd_bench.reporting.checked import Checked, Held, held_line, sentence
from ddmd_bench.reporting.escaping import one_line, visible

MOST = 50  # rows of a summary, and the annotations that a step may have
_NOT_XML = re.compile("[\ufffe\uffff]")  # beside what cannot be seen


def junit(found: Checked, suite: str) -> str:
    """A test case for everything that was held: failed ones are failures, too few are skipped.

    What a suite's protocol or settings differ in is a case of its own each.
    """
    root = ElementTree.Element("testsuites", name=f"check {suite}")
    failed = sum(one.status == "failed" for one in found.held)
    skipped = sum(one.status == "too few" for one in found.held)
    counts = {"tests": len(found.held), "failures": failed, "skipped": skipped, "errors": 0}
    attributes = {"name": f"check {suite}", **{key: str(num) for key, num in counts.items()}}
    cases = ElementTree.SubElement(root, "testsuite", attributes)
    for one in found.held:
        case = ElementTree.SubElement(
            cases, "testcase", classname=f"{suite}.{one.part}", name=_xml(one.name)
        )
        if one.status != "ok":
            kind = "failure" if one.status == "failed" else "skipped"
            ElementTree.SubElement(case, kind, message=_xml(sentence(one)))
    ElementTree.SubElement(cases, "system-out").text = _xml("\n".join(found.notes))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Without what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", visible(text))


def summary(found: Checked, suite: str) -> str:
    """Markdown: the verdict, what failed, the worst prompts, the notes."""
    lines = [f"## check {_plain(suite)}: {found.status}", "", _plain(held_line(found)), ""]
    failed = found.failed or sorted(found.held, key=lambda one: -one.beyond)[:5]
    if failed:
        lines += ["| | what | found | margins |", "| --- | --- | --- | ---: |"]
        lines += [_row(one) for one in failed[:MOST]]
        if len(failed) > MOST:
            lines.append(f"| | {len(failed) - MOST} more | | |")
        lines.append("")
    if found.worst:
        lines += ["| worst prompts of | prompt | |", "| --- | --- | --- |"]
        for w in found.worst:
            lines.append(f"| {_plain(w.name)} | {_plain(one_line(w.text))} | {_plain(w.told)} |")
        lines.append("")
    lines += [f"- {_plain(note)}" for note in found.notes]
    return "\n".join(lines) + "\n"


def _row(one: Held) -> str:
    far = f"{one.beyond:.2f}" if math.isfinite(one.beyond) else ""
    return f"| {one.status} | {_plain(one.name)} | {_plain(one.text)} | {far} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is; a prompt may hold anything."""
    text = visible(" ".join(text.split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#!|~@])", r"\\\1", text)


def workflow_commands(found: Checked, suite: str) -> Iterator[str]:
    """GitHub's workflow commands: an error for what failed, a warning for too few."""
    for one in found.failed[:MOST]:
        kind = "error" if one.status == "failed" else "warning"
        title = _property(f"check {suite}: {one.part}")
        yield f"::{kind} title={title}::{_data(sentence(one))}"


def _data(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
