"""The encoder `sentence`: a sentence transformer, by default all-MiniLM-L6-v2, by local path or hub name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.weights import Weights, file_hash, find_weights
from routers.encoders.base import register_encoder
from routers.router import Learnt

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
HUB_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was made for; longer texts are cut off
_BATCH = 64


@register_encoder("sentence")
class SentenceEncoder:
    """Mean of the last hidden states over the text's tokens, scaled to unit length (Reimers & Gurevych 2019).

    Weights are looked for as a candidate model's are: a local folder, the weights folder, the cache or hub.
    Raises UserError if there are none, or, with `sha256`, if they are others.
    """

    name = "sentence"

    def __init__(self, model: str = HUB_NAME, sha256: str | None = None, weights_dir: Path | None = None) -> None:
        local = Path(model)
        weights = (
            Weights(path=str(local.resolve()), file="model.safetensors", sha256=sha256)
            if local.is_dir()
            else Weights(repository=model, file="model.safetensors", sha256=sha256)
        )
        folder = find_weights(weights, f"encoder sentence:{model}", Path.cwd(), weights_dir)
        self.sha256 = file_hash(folder / "model.safetensors")
        try:
            self._tokenizer, self._model = _loaded(folder, self.sha256)
        except (OSError, ValueError) as error:
            raise UserError(f"encoder sentence:{model} cannot be loaded: {' '.join(str(error).split())}") from None
        # What a checkpoint names must be found elsewhere too, so a local folder is known by its last part.
        self.model = HUB_NAME if self.sha256 == HUB_SHA256 else local.resolve().name if local.is_dir() else model
        self.dimension = int(self._model.config.hidden_size)
        self.base_rate = sum(p.numel() for p in self._model.parameters()) / 1e12

    @classmethod
    def build(cls, argument: str, texts: Sequence[str], seed: int, weights: Path | None) -> SentenceEncoder:
        """The model at the path, or of the hub name, that the argument is; by default all-MiniLM-L6-v2."""
        return cls(argument or HUB_NAME, weights_dir=weights)

    @classmethod
    def load(cls, learnt: Learnt, weights: Path | None) -> SentenceEncoder:
        """The encoder that was saved, its weights looked for anew."""
        return cls(str(learnt["model"]), str(learnt["sha256"]), weights)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[n, dimension]`, encoded in batches of similar length."""
        import torch

        vectors = np.zeros((len(texts), self.dimension), np.float32)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            read = self._tokenizer(
                [texts[i] for i in batch], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = self._model(**read).last_hidden_state
                mask = read["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                vectors[batch] = torch.nn.functional.normalize(mean, dim=1).float().numpy()
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`[n]` tokens read, after cutting off."""
        read = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return np.array([len(ids) for ids in read], np.int64)

    def save(self) -> Learnt:
        """Name and hash of the weights; a checkpoint does not hold them."""
        return {"model": self.model, "sha256": self.sha256}


@lru_cache(maxsize=2)  # the routers of a run read the same
def _loaded(folder: Path, sha256: str) -> tuple[Any, Any]:
    """Tokenizer and model of a folder; `sha256` is of its weights, so that others are loaded anew."""
    from transformers import AutoModel, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder)).eval()
