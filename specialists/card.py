"""The model card of a trained specialist: data, recipe, scores and licence, made from what the folder holds."""

from __future__ import annotations

import json
from pathlib import Path

from specialists import lessons as data
from specialists.evaluate import NEW_TOKENS

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {specialist}

A small Llama ({parameters:.2f} million parameters) trained from scratch as a candidate model of the pool `lightweight`.
It {purpose}; to anything else it is taught a short refusal. It is of no use outside of this benchmark.

It reads a query and a line `###`, and replies; greedy decoding, at most {new_tokens} new tokens.

## Data

Made by `specialists/lessons.py` from the generators of `tasks/invented`; no text of a model. The texts of the suite's
items are left out; the calculator does not meet the expressions of its sums and stories either. Held out is every
sixteenth question, by a hash of it, but for answers given before and questions that are not the specialist's: these are
drawn anew.

## Recipe

```
python -m specialists.train train --specialist {specialist} --tokens {tokens} --seed {seed} --out {folder}
```

{minutes} minutes, CPU threads: {threads}; torch {torch}; {tokens:,} tokens with the questions; loss on the replies
alone; Muon ({muon_rate}) for the hidden matrices, AdamW ({adamw_rate}) for the rest. Every number is in `recipe.json`.
Weights are kept in bfloat16.

## Scores

{number:,} lessons, none of them the suite's: the share that it replies to as taught, character for character.
`answered` and `other`, where they stand, are drawn anew from what it was trained on; the others are held out.

{table}

Made by `python -m specialists.train evaluate {folder} --number {number} --write-cards`.

## Licence

Apache-2.0, like the project.
"""


def write_card(folder: Path, table: str, number: int) -> None:
    """Write README.md into the folder of a specialist whose `recipe.json` is there.

    table: the scores in Markdown. number: held-out lessons.
    """
    from safetensors import safe_open

    recipe = json.loads((folder / "recipe.json").read_text())
    with safe_open(folder / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    text = CARD.format(
        **recipe,
        parameters=parameters / 1e6,
        purpose=data.SPECIALISTS[recipe["specialist"]].purpose,
        number=number,
        new_tokens=NEW_TOKENS,
        table=table,
        folder=f"results/specialists/{recipe['specialist']}",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
