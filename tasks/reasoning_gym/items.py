"""The reasoning-gym tasks' items: which generator, with which settings and seeds.

The YAML files' `metadata: reasoning_gym:` is the one place that says so; this module reads it, for lm-eval and for
whoever wants more items of the same kind. Item `i` of a reasoning-gym dataset is seeded by `seed + i`, so nearby seeds
share items: every suite seed is at `SUITE_SEEDS` or above, and training data must stay below it. Knows nothing of the
rest of the project, so that lm-eval can load this file by its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUITE_SEEDS = 1_000_000_000


class GeneratorConfig(NamedTuple):
    """One reasoning-gym dataset: its name there, the seed of its item 0, and the generator's own settings.

    A named tuple, since a dataclass cannot be defined in a module that lm-eval loads by its path.
    """

    dataset: str
    seed: int
    settings: dict[str, Any]


def generator_configs(task: str, folder: Path | None = None) -> tuple[GeneratorConfig, ...]:
    """The generators that a task's items are drawn from in turn. Imports no generator.

    folder: of the task's YAML file; by default the one of this file.
    """
    import yaml

    def _as_text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
        return str(node.value)

    class Loader(yaml.SafeLoader):
        """Reads lm-eval's `!function` as the text it is."""

    Loader.add_constructor("!function", _as_text)
    path = (folder or Path(__file__).parent) / f"{task}.yaml"
    return _configs(yaml.load(path.read_text(), Loader)["metadata"]["reasoning_gym"])


def draw(configs: tuple[GeneratorConfig, ...]) -> Iterator[dict[str, str]]:
    """Endless `question`, `answer` and `generator`, in turn from each; each question once, wherever it came from."""
    import reasoning_gym

    seen: set[str] = set()
    endless = [reasoning_gym.create_dataset(c.dataset, seed=c.seed, size=2**31, **c.settings) for c in configs]
    places = [0] * len(endless)
    while True:
        for turn, dataset in enumerate(endless):
            while True:
                item = dataset[places[turn]]
                places[turn] += 1
                question = item["question"].strip()
                key = " ".join(question.split())
                if key not in seen:
                    break
            seen.add(key)
            yield {"question": question, "answer": item["answer"], "generator": configs[turn].dataset}


def dataset(reasoning_gym: dict[str, Any], **_: Any) -> dict[str, Any]:
    """lm-eval's `custom_dataset`: the declared number of items as the split `test`. Called with the metadata."""
    import itertools

    import datasets

    items = itertools.islice(draw(_configs(reasoning_gym)), reasoning_gym["items"])
    return {"test": datasets.Dataset.from_list(list(items))}


def _configs(declared: dict[str, Any]) -> tuple[GeneratorConfig, ...]:
    return tuple(GeneratorConfig(g["dataset"], g["seed"], dict(g["settings"])) for g in declared["generators"])
