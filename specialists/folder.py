"""The folder that a trained specialist ships in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pools.weights import RECIPE, file_hash, files_of_model
from specialists import lessons as data


def save_folder(model: Any, tokenizer: Any, facts: Mapping[str, Any], folder: Path) -> None:
    """Write the Hugging Face folder: bfloat16 weights, tokenizer, configuration, and `recipe.json` beside them.

    facts: what `recipe.json` shall hold beside threads, torch's version and the mixture of questions; `specialist` is
    among them. It also holds the sha256 of every file that decides what the model answers.
    """
    import copy

    import torch
    from transformers import GenerationConfig

    model = copy.deepcopy(model).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner alone
    recipe = {
        **facts,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
        "mixture": data.MIXTURE[facts["specialist"]],
        "sha256": {str(path.relative_to(folder)): file_hash(path) for path in files_of_model(folder)},
    }
    (folder / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")
