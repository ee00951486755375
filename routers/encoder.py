"""Text to vector, for the policy: the seam, and the embeddings' cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.types import Context

FloatArray = NDArray[np.float32]


class Encoder(Protocol):
    """Embeds texts.

    dimension: of a vector. base_rate: cost per token read, in the unit of the paper's cost model, as a candidate
    model's; 0 where no model runs.
    """

    dimension: int
    base_rate: float

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """float32 `[n, dimension]`, one row per text."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`[n]` tokens that encoding each text reads."""
        ...

    def config(self) -> dict[str, Any]:
        """What `restore` needs besides the arrays: `kind`, and the encoder's settings, as JSON."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The fitted arrays that a checkpoint keeps."""
        ...


class ContextEncoder:
    """Embeds contexts: the query's vector, then the last response's, zeros where there is none yet.

    The paper says "context embedding" and no more; two halves are our choice, so that a long response does not drown
    the query. Each distinct text is encoded once.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.dimension = encoder, 2 * encoder.dimension
        self._vectors: dict[str, FloatArray] = {"": np.zeros(encoder.dimension, np.float32)}

    def __call__(self, contexts: Sequence[Context]) -> FloatArray:
        """float32 `[n, dimension]`."""
        pairs = [_parts(context) for context in contexts]
        new = list(dict.fromkeys(text for pair in pairs for text in pair if text not in self._vectors))
        if new:
            self._vectors.update(zip(new, self.encoder.encode(new), strict=True))
        rows = [np.concatenate([self._vectors[query], self._vectors[last]]) for query, last in pairs]
        return np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def cost(self, contexts: Sequence[Context]) -> NDArray[np.float64]:
        """`[n]` cost of the texts that are new at each context: its last response, or at the start its query."""
        if not self.encoder.base_rate:
            return np.zeros(len(contexts))
        texts = [context.responses[-1] if context.responses else context.query for context in contexts]
        return np.asarray(self.encoder.base_rate * self.encoder.count_tokens(texts), np.float64)


def build_encoder(spec: str, contexts: Sequence[Context], seed: int = 0, weights: Path | None = None) -> Encoder:
    """An encoder by name: `hashing`, fitted on the contexts given (train items only), or `sentence[:path]`.

    weights: folder to look for a sentence transformer in, by its hub name.
    """
    kind, _, argument = spec.partition(":")
    if kind == "hashing" and not argument:
        from routers.hashing import HashingEncoder

        texts = list(dict.fromkeys(text for context in contexts for text in _parts(context) if text))
        return HashingEncoder.fit(texts, seed=seed)
    if kind == "sentence":
        from routers.sentence import HUB_NAME, SentenceEncoder

        return SentenceEncoder(argument or HUB_NAME, weights_dir=weights)
    raise UserError(f"unknown encoder {spec!r}: expected hashing, sentence or sentence:PATH")


def restore_encoder(
    config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], weights: Path | None = None
) -> Encoder:
    """The encoder that a checkpoint describes."""
    if config["kind"] == "hashing":
        from routers.hashing import HashingEncoder

        return HashingEncoder(arrays["idf"], arrays["components"])
    from routers.sentence import SentenceEncoder

    return SentenceEncoder(config["model"], config["sha256"], weights)


def _parts(context: Context) -> tuple[str, str]:
    return context.query, context.responses[-1] if context.responses else ""
