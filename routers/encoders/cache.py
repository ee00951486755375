"""The cache of embeddings: each text is encoded once a run, whichever routers ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from routers.encoders.base import Encoder

MAX_BYTES = 1 << 28
"""Of all vectors that are kept, the newest; what is served for months must not grow."""
AT_ONCE = 512
"""How many texts an encoder is given at once; after each so many it is said how far the work is."""

OnTexts = Callable[[int, int], None]
_listener: ContextVar[OnTexts | None] = ContextVar("listener", default=None)


@contextmanager
def embedding_progress(on_texts: OnTexts) -> Iterator[None]:
    """Call `on_texts(done, total)` for each encoding of more than `AT_ONCE` texts, before and as it goes on."""
    token = _listener.set(on_texts)
    try:
        yield
    finally:
        _listener.reset(token)


class _Kept:
    """The newest vectors, by key; at most `MAX_BYTES` of them."""

    def __init__(self) -> None:
        self.vectors: dict[bytes, NDArray[np.float32]] = {}
        self.bytes = 0

    def add(self, made: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Keep these, and drop the oldest if there are too many."""
        for key, vector in made:
            if key not in self.vectors:
                self.vectors[key] = vector
                self.bytes += vector.nbytes
        while self.bytes > MAX_BYTES:
            self.bytes -= self.vectors.pop(next(iter(self.vectors))).nbytes


_KEPT = _Kept()


def forget() -> None:
    """Drop all vectors, for who measures what encoding takes."""
    _KEPT.vectors.clear()
    _KEPT.bytes = 0


class Vectors:
    """Vectors of texts by one encoder; of the empty text zeros.

    They are kept for all encoders that save the same, so routers with equal encoders share them. What is kept is found
    by a hash of encoder and text, without the text.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self._identity = encoder, _identity(encoder)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[n, dimension]`; a text is encoded if its vector is not kept."""
        keys = {text: self._key(text) for text in dict.fromkeys(texts)}
        found = {text: _KEPT.vectors[key] for text, key in keys.items() if key in _KEPT.vectors}
        found[""] = np.zeros(self.encoder.dimension, np.float32)
        # Texts of similar length together: a model pads the texts of a batch to the longest.
        new = sorted((text for text in keys if text not in found), key=len)
        listener = _listener.get() if len(new) > AT_ONCE else None
        for start in range(0, len(new), AT_ONCE):
            if listener is not None:
                listener(start, len(new))
            part = new[start : start + AT_ONCE]
            made = dict(zip(part, self.encoder.encode(part), strict=True))
            found |= made
            _KEPT.add((keys[text], vector) for text, vector in made.items())
        if listener is not None:
            listener(len(new), len(new))
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, self.encoder.dimension), np.float32)

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._identity).digest()


def _identity(encoder: Encoder) -> bytes:
    """A hash of all that decides what an encoder makes of a text."""
    made = hashlib.blake2b(f"{type(encoder).__qualname__} {encoder.name} {encoder.dimension}".encode(), digest_size=16)
    for name, value in sorted(encoder.save().items()):
        array = np.asarray(value)
        content = value.encode() if isinstance(value, str) else np.ascontiguousarray(array).tobytes()
        made.update(f"\n{name} {array.dtype} {array.shape} ".encode() + content)
    return made.digest()
