"""The encoder `surface`: cheap features of a text, such as lengths, digits and markers; no model and no words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from routers.encoders.base import register_encoder
from routers.router import Learnt

_SIGNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\d[\s.)}$*]*\Z",  # ends in a number
        r"[.!?]\s*\Z",  # ends as a sentence does; what was cut off does not
        r"\?\s*\Z",
        r"\d\.\d",
        r"####|\\boxed|\banswer\b",
        r"```|\bdef \w+\(|\breturn\b",
        r"\b(?:sorry|cannot|can't|unable|unknown|not sure|don't know|perhaps|maybe)\b",
    )
)


@lru_cache(maxsize=1 << 16)
def surface(text: str) -> tuple[float, ...]:
    """Lengths, digits and markers of a text, each about 1 or below."""
    words, lines, numbers = len(text.split()), text.count("\n"), len(re.findall(r"\d+", text))
    signs, marks = len(re.findall(r"[-+*/]", text)), text.count("####")
    counts = words, lines, numbers, len(text), text.count("="), signs, marks
    return (*(np.log1p(counts) / 5).tolist(), *(float(sign.search(text) is not None) for sign in _SIGNS))


def surfaces(texts: Iterable[str]) -> NDArray[np.float64]:
    """`[n, s]` the surface of each text."""
    return np.array([surface(text) for text in texts]).reshape(-1, len(surface("")))


@register_encoder("surface")
class SurfaceEncoder:
    """Surface features, standardised by train texts. A vector is about as long as other encoders', 1.

    mean, scale: `[s]` of train texts; of a feature that was always the same the scale is 1.
    """

    name, base_rate = "surface", 0.0

    def __init__(self, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        self.mean, self.scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
        self.dimension = len(surface(""))
        if self.mean.shape != (self.dimension,) or self.scale.shape != (self.dimension,) or not (self.scale > 0).all():
            raise ValueError(f"mean {self.mean.shape} and scale {self.scale.shape} of {self.dimension} features")

    @classmethod
    def build(cls, argument: str, texts: Sequence[str], seed: int, weights: Path | None) -> SurfaceEncoder:
        """Standardised by the texts; it takes no argument."""
        if argument:
            raise UserError(f"encoder surface takes no argument, got {argument!r}")
        found = surfaces(texts or [""])
        spread = found.std(axis=0)
        return cls(found.mean(axis=0), np.where(spread > 1e-9, spread, 1.0))

    @classmethod
    def load(cls, learnt: Learnt, weights: Path | None) -> SurfaceEncoder:
        """The encoder that was saved."""
        return cls(np.asarray(learnt["mean"]), np.asarray(learnt["scale"]))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[n, dimension]`."""
        return ((surfaces(texts) - self.mean) / self.scale / np.sqrt(self.dimension)).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`[n]` words."""
        return np.array([len(text.split()) for text in texts], np.int64)

    def save(self) -> Learnt:
        """Mean and scale of the features."""
        return {"mean": self.mean, "scale": self.scale}
