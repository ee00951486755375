"""The encoders `hashing+surface` and `sentence+surface`: what a text is about, and what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routers.encoders.base import Encoder, register_encoder
from routers.encoders.cache import Vectors
from routers.encoders.hashing import HashingEncoder
from routers.encoders.sentence import SentenceEncoder
from routers.encoders.surface import SurfaceEncoder
from routers.router import Learnt


class WithSurface:
    """An encoder's vector, then the surface of the text."""

    def __init__(self, encoder: Encoder, surface: SurfaceEncoder) -> None:
        self.name, self.base_rate = f"{encoder.name}+surface", encoder.base_rate
        self.dimension = encoder.dimension + surface.dimension
        self._encoder, self._surface = encoder, surface
        self._vectors = Vectors(encoder)  # which a router that sees no surface may have asked for, too

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[n, dimension]`."""
        return np.concatenate([self._vectors(texts), self._surface.encode(texts)], axis=1)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`[n]` tokens that the encoder reads; the surface costs nothing."""
        return self._encoder.count_tokens(texts)

    def save(self) -> Learnt:
        """What the encoder saves, and the surface's, below `surface.`."""
        return {**self._encoder.save(), **{f"surface.{name}": value for name, value in self._surface.save().items()}}


@dataclass(frozen=True)
class _Kind:
    """Another encoder's vector and the surface of the text."""

    encoder: Any

    def build(self, argument: str, texts: Sequence[str], seed: int, weights: Path | None) -> WithSurface:
        """Both, fitted on the texts; the argument is the encoder's."""
        surface = SurfaceEncoder.build("", texts, seed, weights)
        return WithSurface(self.encoder.build(argument, texts, seed, weights), surface)

    def load(self, learnt: Learnt, weights: Path | None) -> WithSurface:
        """The encoder that was saved."""
        own = {name.removeprefix("surface."): value for name, value in learnt.items() if name.startswith("surface.")}
        return WithSurface(self.encoder.load(learnt, weights), SurfaceEncoder.load(own, weights))


register_encoder("hashing+surface")(_Kind(HashingEncoder))
register_encoder("sentence+surface")(_Kind(SentenceEncoder))
