"""The table of docs/results/bad-input.md from what the fuzz tests wrote to HARNESS_FUZZ_TABLE.

python benchmarks/fuzz_table.py fuzz.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def table(lines: list[str]) -> str:
    """Markdown: how many cases each kind of input had, and by which of its parts. A test that ran again counts once."""
    cases: dict[str, int] = {}
    for line in lines:
        entry = json.loads(line)
        cases[entry["subject"]] = entry["cases"]
    kinds, parts = Counter[str](), dict[str, list[str]]()
    for subject in sorted(cases):
        kind, _, part = subject.partition(": ")
        kinds[kind] += cases[subject]
        parts.setdefault(kind, []).extend([part] if part else [])
    rows = [f"| {kind} | {', '.join(parts[kind])} | {kinds[kind]:,} |" for kind in kinds]
    return "\n".join(["| input | of it | cases |", "|---|---|---:|", *rows, f"| all | | {sum(cases.values()):,} |"])


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()))
