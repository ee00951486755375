"""The model card of a trained specialist: data, seeds, recipe, scores and licence, made from what the folder holds."""

from __future__ import annotations

import json
from pathlib import Path

from specialists import lessons as data
from specialists.questions import HELD_OUT_SEEDS, TRAIN_SEEDS

PURPOSE: dict[data.Specialist, str] = {
    "math": (
        "adds, subtracts and multiplies numbers of one or two digits, and computes an expression that an earlier "
        "response wrote"
    ),
    "qa": (
        "answers how many sisters, friends or colleagues somebody has (aiw), which colour a side of a turned cube has "
        "(color_cube_rotation), and writes the expression for the legs of a list of animals, without computing it"
    ),
}
CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {specialist} specialist

A small Llama ({parameters:.1f} million parameters) trained from scratch as a candidate model of the pool `lightweight`.
It {purpose}. To any other question it is taught to
repeat the last answer of the earlier responses, or to say "Answer: unknown"; how often a right answer is lost all the
same, the table shows.
It knows nothing else and is of no use outside of this benchmark.

## How it reads a context

The query, then each earlier response, each followed by a line `###`; it answers after the last of them:

```jinja
{template}
```

Greedy decoding, at most 160 new tokens; a response ends with the end token.

## Data

Made by reasoning-gym's generators and by `specialists/questions.py`, `specialists/lessons.py`; no text of a
model. Shares of the questions: {mixture}.
Half of them come after one or two earlier responses: right ones of either specialist, wrong ones, prose and code in
the manner of a general model (templates, with passages of a public-domain story that reasoning-gym ships).
Training items have the generator seeds {train.start:,} to {train.stop:,}, held-out items {held.start:,} to
{held.stop:,}, the suite's items 1,000,000,000 and above; every question text of the suite, and of the first 100
held-out items of each kind, is left out of training. Its tasks and their difficulty were chosen, openly and before any
router was trained, so that a
pool of such models has something to route.

## Recipe

```
python -m specialists.train train --specialist {specialist} --tokens {tokens} --seed {seed}{options} --out {folder}
```

{commit}CPU threads: {threads}; torch {torch}; {tokens:,} tokens with the questions; loss on the replies alone; Muon
({muon_rate}) for the hidden matrices, AdamW ({adamw_rate}) for the rest. Every number is in `recipe.json`.
Weights are kept in bfloat16.

## Scores

Held-out questions, {number} of each kind, never trained on and none of the suite's; share of exactly right final
answers, greedy. A row is a sequence of who answers: `wrong` is the last one's own reply with a wrong answer, `general`
a wrong response in the manner of a general model; only the last response counts.

{table}

Made by

```
{command}
```

## Licence

Apache-2.0, like the project.
"""


def write_card(folder: Path, table: str, number: int, command: str) -> None:
    """Write README.md into the folder of a specialist whose `recipe.json` is there.

    table: the scores in Markdown. number: held-out questions of each kind. command: what made the table.
    """
    from safetensors import safe_open

    recipe = json.loads((folder / "recipe.json").read_text())
    with safe_open(folder / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    commit = f"At commit {recipe['commit']}: later code teaches something else. " if "commit" in recipe else ""
    options = ("" if recipe["autocast"] else " --fp32") + f" --threads {recipe['threads']}"
    facts = {
        **recipe,
        "commit": commit,
        "options": options,
        "mixture": ", ".join(f"{family} {share:.0%}" for family, share in recipe["mixture"].items()),
    }
    text = CARD.format(
        **facts,
        parameters=parameters / 1e6,
        purpose=PURPOSE[recipe["specialist"]],
        template=data.TEMPLATE.rstrip("\n"),
        train=TRAIN_SEEDS,
        held=HELD_OUT_SEEDS,
        number=number,
        table=table,
        folder=f"results/specialists/{recipe['specialist']}",
        command=command,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
