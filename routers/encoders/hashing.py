"""The encoder `hashing`: hashed word n-grams, TF-IDF weights and a truncated SVD, fitted on train items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from routers._threads import one_library_thread
from routers.encoders.base import register_encoder
from routers.router import Learnt

FEATURES, DIMENSION = 2048, 64
_NUMBER = re.compile(r"\d+")


@register_encoder("hashing")
class HashingEncoder:
    """Latent semantic analysis (Deerwester et al. 1990) over hashed words and pairs of words.

    All numbers count as one symbol, so that "48 - 56" and "12 - 30" are alike. Vectors have unit length, or are zero.

    idf: float32 `[FEATURES]`. components: float32 `[dimension, FEATURES]`.
    """

    name, base_rate = "hashing", 0.0

    def __init__(self, idf: NDArray[np.float32], components: NDArray[np.float32]) -> None:
        self.idf, self.components = np.asarray(idf, np.float32), np.asarray(components, np.float32)
        if self.idf.shape != (FEATURES,) or self.components.ndim != 2 or self.components.shape[1] != FEATURES:
            raise ValueError(
                f"idf {self.idf.shape} and components {self.components.shape}, expected {FEATURES} features"
            )
        self.dimension = len(self.components)

    @classmethod
    def build(cls, argument: str, texts: Sequence[str], seed: int, weights: Path | None) -> HashingEncoder:
        """Fitted on the texts; it takes no argument."""
        if argument:
            raise UserError(f"encoder hashing takes no argument, got {argument!r}")
        return cls(*_fitted(tuple(texts), seed))

    @classmethod
    def load(cls, learnt: Learnt, weights: Path | None) -> HashingEncoder:
        """The encoder that was saved."""
        return cls(np.asarray(learnt["idf"]), np.asarray(learnt["components"]))

    @classmethod
    def fit(cls, texts: Sequence[str], dimension: int = DIMENSION, seed: int = 0) -> HashingEncoder:
        """Fit weights and projection on texts; fewer dimensions if there are not enough of them."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfTransformer

        counts = _counts(texts)
        idf = TfidfTransformer().fit(counts).idf_.astype(np.float32)
        size = max(1, min(dimension, len(texts) - 1))
        # Of a single text the variance is zero.
        with one_library_thread(), np.errstate(invalid="ignore", divide="ignore"):
            fitted = TruncatedSVD(size, random_state=seed).fit(counts.multiply(idf).tocsr())
        components = fitted.components_.astype(np.float32)
        # Padded to the full size, so that a checkpoint's shapes do not depend on how much there was to fit on.
        return cls(idf, np.pad(components, ((0, dimension - size), (0, 0))))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[n, dimension]`."""
        vectors = np.asarray(_counts(texts).multiply(self.idf).tocsr() @ self.components.T, np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(length > 0, length, 1.0), np.float32)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`[n]` words."""
        return np.array([len(text.split()) for text in texts], np.int64)

    def save(self) -> Learnt:
        """Weights and projection."""
        return {"idf": self.idf, "components": self.components}


@lru_cache(maxsize=4)  # the routers of a run fit the same
def _fitted(texts: tuple[str, ...], seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    encoder = HashingEncoder.fit(texts, seed=seed)
    return encoder.idf, encoder.components


def _counts(texts: Sequence[str]) -> Any:
    """scipy CSR `[n, FEATURES]` logarithmic counts of hashed words, signs and pairs of them."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=FEATURES,
        alternate_sign=False,
        norm=None,
        ngram_range=(1, 2),
        token_pattern=r"\w+|[^\w\s]",
        preprocessor=_plain,
    )
    counts = vectorizer.transform(texts)
    counts.data = np.log1p(counts.data)
    return counts


def _plain(text: str) -> str:
    return _NUMBER.sub("0", text.lower())
