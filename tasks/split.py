"""Which split an item belongs to: decided by its text alone, so equal questions never fall on both sides."""

from __future__ import annotations

import hashlib

from pools.types import Split

TRAIN_SHARE, VALIDATION_SHARE = 0.5, 0.2  # test: the remaining 30%


def normalised(text: str) -> str:
    """The text with every run of whitespace as one space, and none at its ends."""
    return " ".join(text.split())


def split_of(text: str) -> Split:
    """Train 50%, validation 20%, test 30%, by the first 64 bits of the sha256 of the normalised text."""
    digest = hashlib.sha256(normalised(text).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < TRAIN_SHARE:
        return "train"
    return "validation" if place < TRAIN_SHARE + VALIDATION_SHARE else "test"
