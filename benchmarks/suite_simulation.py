"""What the design of the suite `offline`, version 2, leaves to routers, with assumed accuracies of its models.

    python benchmarks/suite_simulation.py

The models' answers are made up as docs/reference/offline-suite.md assumes them; routers are trained and evaluated on
them as on any recording. Printed is how much of the gap from the best single model to the optimum each closes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tyro

from harness.evaluation.evaluate import evaluate
from harness.evaluation.metrics import value
from pools.cost import paper_cost
from pools.mdp.optimum import solve
from pools.mdp.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item, Split
from routers import RouterRequest, load

RATES = {
    "registry-north": 1.32e-6, "registry-east": 1.32e-6, "registry-west": 1.32e-6, "calculator": 4.7e-7,
    "reader": 1.94e-6, "qwen2.5-coder-0.5b": 4.94e-4,
}  # fmt: skip
"""T parameters of each model."""
CALCULATOR, READER, CODE = 3, 4, 5
SHARES = {"records": 0.3, "sums": 0.19, "stories": 0.25, "human_eval": 0.1, "mmlu_dev": 0.16}
SPLITS: tuple[Split, ...] = ("train", "train", "validation", "test", "test")
SETTINGS = GenerationSettings((), 8)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Args:
    """What is simulated."""

    items: int = 1740
    cost_weight: float = 2.0
    cost_weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 30.0)
    """that HierRouter is trained for"""
    routers: tuple[str, ...] = (
        "best-pipeline", "best-pipeline-per-task", "query-only", "fitted-q", "hierrouter",
    )  # fmt: skip


def chance(*of: int) -> float:
    """A number in [0, 1), the same for the same numbers."""
    return float(np.random.default_rng(of).random())


def answer(number: int, correct: bool = True) -> str:
    """The right answer to an item, or a wrong one: nothing in the text says which it is."""
    return str(int(1e6 * chance(number, 50 if correct else 51)))


class Simulated:
    """Answers of the six models: a word for what they look like, and, if they end in an answer, that."""

    def __init__(self, tasks: Mapping[str, str]) -> None:
        self.tasks = tasks

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """One response each."""
        return [self._answer(model, context) for context, _ in requests]

    def _answer(self, model: int, context: Context) -> Generation:
        """The response. What ends in a number states an answer, but for an expression."""
        number = int(context.query.split()[-1])
        luck, size = chance(number, 10 + model), chance(number, 1)
        last = next((each for each in reversed(context.responses) if each != UNKNOWN), "")
        stated = bool(last) and not last.startswith(("expression", "overflow", "program"))
        expression = next((each for each in reversed(context.responses) if each.startswith("expression")), "")
        good = expression.endswith(answer(number))
        said, tokens = UNKNOWN, (20, 4)
        if stated and model in (CALCULATOR, READER):
            return Generation("nothing to add", 6, 4, "stop", 0.0)
        match self.tasks[context.query]:
            case "records":
                knows = int(3 * chance(number, 2)) if chance(number, 3) < 0.9 else None
                if model == knows:
                    said = f"town {answer(number, luck < 0.99)}"
                elif model < CALCULATOR and luck < 0.01:
                    said = f"town {answer(number, False)}"
                elif model == CODE:
                    said, tokens = f"program {answer(number, False)}", (71, 16)
            case "sums":
                if model == CALCULATOR:
                    said, tokens = _steps(size < 0.56, luck < 0.95, number), (20, 40)
                elif model == CODE:
                    said, tokens = f"program {answer(number, luck < 0.98)}", (71, 18)
            case "stories":
                if model == READER:
                    done = size < 0.38
                    said = f"{'steps' if done else 'expression'} {answer(number, luck < (0.97 if done else 0.98))}"
                    tokens = 30, 20
                elif model == CALCULATOR and expression:
                    said, tokens = _steps(size < 0.69, luck < 0.95, number, good), (20, 40)
                elif model == CODE:
                    computed = chance(number, 33) < (0.98 if good else 0.69)
                    said, tokens = f"program {answer(number, computed)}", (102, 19) if expression else (86, 49)
            case "human_eval":
                if model == CODE:
                    said, tokens = f"program {answer(number, luck < 0.55)}", (200, 150)
            case _:
                if model == CODE:
                    said, tokens = f"letter {answer(number, luck < 0.4)}", (140, 5)
        return Generation(said, *tokens, "stop", 0.0)


def _steps(fits: bool, computed: bool, number: int, correct: bool = True) -> str:
    """Steps that end in an answer, if the display has room for it."""
    return f"steps {answer(number, correct and computed)}" if fits else "overflow"


def right(answers: Sequence[tuple[Item, str]]) -> list[float]:
    """1 for a response that ends in the right answer, and is no expression."""
    return [
        float(response.endswith(f" {answer(item.doc_id)}") and not response.startswith("expression"))
        for item, response in answers
    ]


def simulated(items: int) -> Tree:
    """The whole tree of three hops."""
    ends = np.cumsum(list(SHARES.values()))
    tasks = [list(SHARES)[int(np.searchsorted(ends, n % 100 / 100 + 1e-9, side="right"))] for n in range(items)]
    made = [Item(t, n, f"{t} question {n}", SETTINGS, SPLITS[n % len(SPLITS)]) for n, t in enumerate(tasks)]
    answers = Simulated({item.query: item.task for item in made})
    tree = Tree(made, tuple(RATES), 3, paper_cost(tuple(RATES.values()), "T param-tokens"), answers, right)
    rows, nodes = np.indices(tree.known.shape)
    tree.require(rows.ravel(), nodes.ravel())
    return tree


def main() -> None:
    """Print the routers' shares."""
    args = tyro.cli(Args, description=__doc__)
    tree = simulated(args.items)
    tested, weight = tree.select("test"), args.cost_weight
    request = RouterRequest(
        models=tree.models, max_hops=3, cost_model=tree.cost_model, cost_weight=weight, seed=1,
        train=tree.select("train"), validation=tree.select("validation"), evaluation=tested,
    )  # fmt: skip
    first = tested.level(1)
    best = float((tested.score[:, first] - weight * tested.cost[:, first]).mean(axis=0).max())
    optimum = float(solve(tested, weight, allow_stop=True).value.mean())
    forced = float(solve(tested, weight, allow_stop=False).value.mean())
    print(f"best single model {best:.3f}, optimum {optimum:.3f}, without STOP {forced:.3f} in value")
    print("| router | quality | cost | hops | end at hop 3 | gap closed |\n|---|---:|---:|---:|---:|---:|")
    for name in (*args.routers, "hierrouter without STOP"):
        learnt_at = args.cost_weights if name.startswith("hierrouter") else ()
        router = load(name.split()[0], replace(request, allow_stop=" " not in name, cost_weights=learnt_at))
        found = evaluate(router, tested)
        share = (float(value(found, weight).mean()) - best) / (optimum - best)
        late = float(found.end[:, tested.level(3)].sum(axis=1).mean())
        figures = f"{found.quality.mean():.3f} | {found.cost.mean():.4f} | {found.hops.mean():.2f}"
        print(f"| {name} | {figures} | {late:.0%} | {share:.0%} |")


if __name__ == "__main__":
    main()
