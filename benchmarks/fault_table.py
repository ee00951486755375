"""The tables of docs/results/faults.md from what the tests that inject faults wrote to HARNESS_FAULT_TABLE.

python benchmarks/fault_table.py faults.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

FIGURES = ("times", "refused", "anew", "lost", "wrong")


def table(lines: list[str]) -> str:
    """Markdown: a row for each fault and what it was injected into, summed over the tests."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for line in lines:
        entry = json.loads(line)
        rows.setdefault((entry["fault"], entry["subject"]), Counter()).update(
            {key: entry[key] for key in FIGURES if entry.get(key) is not None}
        )
    total: Counter[str] = Counter()
    for figures in rows.values():
        total.update(figures)
    head = [
        "| fault | in | times injected | refused in one line | generated anew | lost | wrong accepted |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    body = [(*names, rows[names]) for names in sorted(rows)]
    written = [f"| {fault} | {subject} | " + cells(figures) for fault, subject, figures in body]
    return "\n".join([*head, *written, "| all | | " + cells(total)])


def sweep(lines: list[str]) -> str:
    """Markdown: of each command that was killed at every write, how often files of two results were side by side."""
    head = ["| command | writes interrupted | mixed | accepted |", "|---|---:|---:|---:|"]
    entries = sorted((e for e in map(json.loads, lines) if e.get("mixed") is not None), key=lambda e: str(e["subject"]))
    body = [f"| {e['subject']} | {e['times']:,} | {e['mixed']:,} | {e['wrong']:,} |" for e in entries]
    return "\n".join([*head, *body])


def cells(figures: Counter[str]) -> str:
    """The figures of a row; what no test counts is a dash."""
    return " | ".join(f"{figures[name]:,}" if name in figures else "–" for name in FIGURES) + " |"


if __name__ == "__main__":
    written = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    print(table(written), sweep(written), sep="\n\n")
