"""The questions that the two small specialists are trained and tested on.

Training item `n`, held-out item `n` and the suite's items come from disjoint ranges of generator seeds, and every
question text of the suite and of the held-out items is left out of training.
"""

from __future__ import annotations

import dataclasses
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pools.errors import UserError

# Item i of a reasoning-gym dataset is seeded by `seed + i`; a suite's seeds lie above both ranges.
TRAIN_SEEDS = range(0, 100_000_000)
HELD_OUT_SEEDS = range(500_000_000, 600_000_000)


@dataclass(frozen=True)
class Question:
    """One question. family: its kind. text: as its generator wrote it. answer: right one. facts: what it is made of."""

    family: str
    text: str
    answer: str
    facts: Any = None


@dataclass(frozen=True)
class Source:
    """Where a specialist's questions come from.

    generators: family -> reasoning-gym dataset and settings. prompt: how a query is made of a question, with
    `{question}` in it. excluded: normalised texts of the questions that are not to be trained on.
    """

    generators: dict[str, tuple[str, dict[str, Any]]]
    prompt: str
    excluded: frozenset[str]

    def query(self, question: Question) -> str:
        """What a model is asked."""
        return self.prompt.replace("{question}", question.text)


def normalised(text: str) -> str:
    """A question's text with runs of white space as one space: equal for questions that ask the same."""
    return " ".join(text.split())


def read_suite(folder: Path) -> Source:
    """Generators, prompt and question texts of the reasoning-gym tasks whose YAML files lie in a folder.

    The files are read as data: `metadata: reasoning_gym:` names generators, seeds and number of items, the included
    file the prompt. A task takes its items from its generators in turn, each question once.
    Raises UserError if the folder holds no such file, or a seed of the suite lies in a range used here.
    """
    import reasoning_gym
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads lm-eval's `!function` as the text it is."""

    Loader.add_constructor("!function", lambda loader, node: str(node.value))
    generators: dict[str, tuple[str, dict[str, Any]]] = {}
    excluded: set[str] = set()
    prompts: set[str] = set()
    for path in sorted(folder.glob("*.yaml")):
        task = yaml.load(path.read_text(), Loader)
        declared = task.get("metadata", {}).get("reasoning_gym")
        if not declared:
            continue
        shared = yaml.load((folder / task["include"]).read_text(), Loader) if "include" in task else {}
        prompts.add({**shared, **task}["doc_to_text"])
        for generator in declared["generators"]:
            name, seed, settings = generator["dataset"], generator["seed"], dict(generator["settings"])
            if seed < HELD_OUT_SEEDS.stop:
                raise UserError(f"{path}: seed {seed} overlaps the training seeds; choose one of 10^9 or above")
            generators[name] = (name, settings)
            items = reasoning_gym.create_dataset(name, seed=seed, size=2**31, **settings)
            asked: set[str] = set()
            index = 0
            while len(asked) < -(-int(declared["items"]) // len(declared["generators"])):
                asked.add(normalised(items[index]["question"]))
                index += 1
            excluded |= asked
    missing = {"chain_sum", "products", "aiw", "color_cube_rotation", "leg_counting"} - set(generators)
    if missing or len(prompts) != 1:
        raise UserError(
            f"{folder}: expected YAML files of reasoning-gym tasks with one prompt and all generators; "
            f"missing: {sorted(missing) or 'none'}, prompts: {len(prompts)}; name their folder with --tasks"
        )
    prompt = re.sub(r"\{\{\s*question\s*\}\}", "{question}", prompts.pop())
    return Source(generators, prompt, frozenset(excluded))


@cache
def _dataset(name: str, seed: int, size: int, settings: tuple[tuple[str, Any], ...]) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=seed, size=size, **dict(settings))


def question(source: Source, family: str, index: int, seeds: range) -> Question:
    """Question number `index` of a family, drawn from a range of seeds. Raises IndexError beyond the range."""
    if not 0 <= index < len(seeds):
        raise IndexError(f"item {index} is outside of {seeds}")
    if family == "expression":
        return _expression(random.Random(f"{seeds.start + index} expression"))
    if family == "other":
        return _other(random.Random(f"{seeds.start + index} other"))
    name, settings = source.generators[family]
    item = _dataset(name, seeds.start, len(seeds), tuple(sorted(settings.items())))[index]
    text, facts = item["question"].strip(), item["metadata"]
    return Question(family, text, item["answer"], _facts(family, text, facts))


def held_out(source: Source, family: str, number: int) -> list[Question]:
    """The first `number` held-out questions of a family, none of them the suite's, none twice."""
    chosen: dict[str, Question] = {}
    for index in range(100 * number):
        made = question(source, family, index, HELD_OUT_SEEDS)
        if normalised(made.text) not in source.excluded:
            chosen.setdefault(normalised(made.text), made)
        if len(chosen) == number:
            break
    return list(chosen.values())


def without_held_out(source: Source, number: int) -> Source:
    """The source with the first `number` held-out questions of each family left out of training, too."""
    texts = {normalised(made.text) for family in source.generators for made in held_out(source, family, number)}
    return dataclasses.replace(source, excluded=source.excluded | texts)


def _facts(family: str, text: str, metadata: dict[str, Any]) -> Any:
    if family in {"chain_sum", "products"}:
        return metadata["expression"].split()
    if family == "leg_counting":
        from reasoning_gym.arithmetic.leg_counting import ANIMALS

        return " + ".join(f"{count}*{ANIMALS[animal]}" for animal, count in metadata["animals"].items())
    if family == "aiw":
        found = re.search(r"(\d+) (sisters|female friends|female colleagues)", text)
        assert found is not None, text
        return text.split()[0], int(found[1]), found[2]
    return metadata["initial_state"], metadata["rotations"]


def _expression(rng: random.Random) -> Question:
    terms = [(rng.randint(1, 15), rng.choice((0, 2, 4, 5, 6, 8, 10, 14))) for _ in range(rng.randint(1, 3))]
    text = " + ".join(f"{a}*{b}" for a, b in terms)
    wording = rng.choice(("What is {}?", "Compute {}.", "{} =", "Work out {}."))
    return Question("expression", wording.format(text), str(sum(a * b for a, b in terms)), text)


def _other(rng: random.Random) -> Question:
    """A question of neither specialist's."""
    words = passage(rng, rng.randint(8, 50))
    if rng.random() < 0.5:
        letters = "\n".join(f"{letter}. {passage(rng, rng.randint(1, 6))}" for letter in "ABCD")
        return Question("other", f"{words}?\n{letters}", rng.choice("ABCD"))
    return Question("other", words, rng.choice(words.split()).strip(".,;"))


@cache
def _book() -> list[str]:
    """Words of a public-domain story that comes with reasoning-gym, for the look of prose."""
    import reasoning_gym

    path = Path(reasoning_gym.__file__).parent / "data" / "in_the_year_2889.txt"
    story = path.read_text(encoding="utf-8").split("*** START")[-1].split("*** END")[0]
    return story.split()[100:]


def passage(rng: random.Random, length: int) -> str:
    """So many words of the story, from anywhere in it."""
    start = rng.randrange(len(_book()) - length)
    return " ".join(_book()[start : start + length])
