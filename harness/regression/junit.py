"""A report in JUnit's XML, as CI systems read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pools.files import whole_file


@dataclass(frozen=True)
class Case:
    """One thing that was checked. failure: why it failed, in one line; empty where it did not."""

    group: str
    name: str
    failure: str = ""


def write_junit(suite: str, cases: Sequence[Case], seconds: float, path: Path) -> None:
    """Write one test suite, whole or not at all: `testsuites` > `testsuite` > `testcase` (> `failure`)."""
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(case.failure) for case in cases)),
        "errors": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    element = ElementTree.SubElement(root, "testsuite", {"name": suite, "skipped": "0", **counts})
    for case in cases:
        found = ElementTree.SubElement(
            element, "testcase", {"classname": f"{suite}.{case.group}", "name": case.name, "time": "0"}
        )
        if case.failure:
            failure = ElementTree.SubElement(found, "failure", {"message": case.failure, "type": "regression"})
            failure.text = case.failure
    ElementTree.indent(root)
    with whole_file(path) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
