"""Text to vector: the seam, the registry, and the embedding of a context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.registry import Registry
from pools.types import Context
from routers.encoders.cache import Vectors
from routers.router import Learnt

FloatArray = NDArray[np.float32]

SEEN = ("query", "response")
"""The texts of a context that are embedded; together the paper's context embedding, as we read it."""

ENCODERS: Registry[Any] = Registry("encoder", "harness.encoders", "routers.encoders")
"""What is registered are classes of encoders."""
register_encoder = ENCODERS.register


class Encoder(Protocol):
    """Embeds texts. `build` makes one, `save` and `load` keep it in a checkpoint.

    name: that it is registered by.
    dimension: of a vector. base_rate: cost per token read, in the unit of the paper's cost model, as a candidate
    model's; 0 if no model runs.
    """

    name: str
    dimension: int
    base_rate: float

    @classmethod
    def build(cls, argument: str, texts: Sequence[str], seed: int, weights: Path | None) -> Encoder:
        """An encoder from the text behind the colon of its name, fitted on texts (of train items) if need be.

        weights: folder to look for a model in, by its hub name. Raises UserError for what it cannot be.
        """
        ...

    @classmethod
    def load(cls, learnt: Learnt, weights: Path | None) -> Encoder:
        """The encoder again, from what it saved. Raises KeyError or ValueError if it never saved such a thing."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """float32 `[n, dimension]`, one row per text."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`[n]` tokens that encoding each text reads."""
        ...

    def save(self) -> Learnt:
        """Arrays and texts that it is loaded from."""
        ...


class ContextEncoder:
    """Embeds contexts: the query's vector, then the last response's, zeros if there is none yet.

    The paper says "context embedding" and no more; two halves are our choice, so that a long response does not drown
    the query.

    sees: which of `SEEN` there are.
    """

    def __init__(self, encoder: Encoder, sees: Sequence[str] = SEEN) -> None:
        self.encoder, self.sees = encoder, tuple(sees)
        self.dimension = encoder.dimension * sum(part in sees for part in SEEN)
        self._vectors = Vectors(encoder)

    def __call__(self, contexts: Sequence[Context]) -> FloatArray:
        """float32 `[n, dimension]`."""
        if not contexts:
            return np.zeros((0, self.dimension), np.float32)
        pairs = [dict(zip(SEEN, _parts(context), strict=True)) for context in contexts]
        texts = [pair[part] for pair in pairs for part in SEEN if part in self.sees]
        return self._vectors(texts).reshape(len(contexts), -1)

    def cost(self, contexts: Sequence[Context]) -> NDArray[np.float64]:
        """`[n]` cost of the text that is new at each context, if it is seen: the last response or the query."""
        if not self.encoder.base_rate:
            return np.zeros(len(contexts))
        read = [("response", c.responses[-1]) if c.responses else ("query", c.query) for c in contexts]
        tokens = self.encoder.count_tokens([text for _, text in read])
        seen = np.array([part in self.sees for part, _ in read])
        return np.asarray(self.encoder.base_rate * tokens * seen, np.float64)


def build_encoder(spec: str, contexts: Sequence[Context], seed: int = 0, weights: Path | None = None) -> Encoder:
    """An encoder by name, as in `hashing` or `sentence:PATH`, fitted on contexts (of train items only) if need be.

    weights: folder to look for a model in, by its hub name. Raises UserError for one that is not known.
    """
    _, kind, argument = ENCODERS.find(spec)
    texts = list(dict.fromkeys(text for context in contexts for text in _parts(context) if text))
    encoder: Encoder = kind.build(argument, texts, seed, weights)
    return encoder


def save_encoder(encoder: Encoder) -> dict[str, NDArray[Any] | str]:
    """What a router's checkpoint keeps of its encoder: its name as `encoder`, the rest below `encoder.`."""
    return {"encoder": encoder.name, **{f"encoder.{name}": value for name, value in encoder.save().items()}}


def check_encoder(learnt: Learnt) -> None:
    """Raise UserError if the encoder that `save_encoder` kept is of a file that was not named."""
    name = learnt.get("encoder")
    if isinstance(name, str) and name not in ENCODERS.names():
        raise UserError(
            f"encoder {name} is unknown here: run and train take its file (--encoder FILE.py), all else knows those of "
            "installed packages"
        )


def load_encoder(learnt: Learnt, weights: Path | None = None) -> Encoder:
    """The encoder that `save_encoder` kept."""
    _, kind, _ = ENCODERS.find(str(learnt["encoder"]))
    own = {n.removeprefix("encoder."): value for n, value in learnt.items() if n.startswith("encoder.")}
    encoder: Encoder = kind.load(own, weights)
    return encoder


def _parts(context: Context) -> tuple[str, str]:
    return context.query, context.responses[-1] if context.responses else ""
