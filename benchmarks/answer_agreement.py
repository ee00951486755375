"""Whether answers are read right, told from the scores: two models that answer the same to an item score the same.

python benchmarks/answer_agreement.py RECORDING ... prints the table of docs/results/answers.md
"""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np

from pools.answers import answer_reader
from pools.data.recording import load_recording
from pools.mdp.tree import Tree

COLUMNS = (
    "table",
    "compared as",
    "an answer",
    "same answer",
    "of these same score",
    "any pair",
    "both right: same answer",
)


def row(name: str, tree: Tree, kind: str) -> str:
    """Shares of the responses, and of the pairs of two models' first answers to an item, as a row of Markdown."""
    read, models = answer_reader(kind), len(tree.models)
    said = np.array([[read(tree.generation(i, 1 + m).response) for m in range(models)] for i in range(len(tree.items))])
    one, other = (list(side) for side in zip(*combinations(range(models), 2), strict=True))
    score = tree.score[:, 1 : 1 + models]
    same = (said[:, one] == said[:, other]) & (said[:, one] != "")
    alike = score[:, one] == score[:, other]
    right = (score[:, one] == 1) & (score[:, other] == 1)
    of = said != "", same, alike[same], alike, same[right]
    return f"| {name} | {kind} | " + " | ".join(f"{held.mean():.1%}" if held.size else "" for held in of) + " |"


def main(folders: list[str]) -> None:
    """Print a row for the kind that each recording says, and for others to compare to."""
    print("| " + " | ".join(COLUMNS) + " |\n|---|---|" + "---:|" * (len(COLUMNS) - 2))
    for folder in folders:
        recording = load_recording(folder)
        for kind in dict.fromkeys((recording.tree.answers, "text", "word")):
            print(row(str(recording.manifest["suite"]), recording.tree, kind))


if __name__ == "__main__":
    main(sys.argv[1:])
