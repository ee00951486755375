"""What `real_tables.py` measured, in files: one for each training; and the curves that they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.files import whole_file

FloatArray = NDArray[np.float64]
OWN = "test"
"""Name of the part that is a table's own test file; the others are numbers of folds."""


@dataclass(frozen=True)
class Measured:
    """Outcomes of one router, trained once, at `P` cost weights on the `I` items of a part.

    weights: `[P]`. items: `[I]` their places in the table. quality, cost: `[P, I]`. called: `[P, I, M]` the chance that
    a model is called at least once. calls: `[P, M]` mean number of calls an item. seconds: `[]` of training. settings:
    `[]` a text: of what was measured, and how.
    """

    weights: FloatArray
    items: NDArray[np.int64]
    quality: FloatArray
    cost: FloatArray
    called: FloatArray
    calls: FloatArray
    seconds: FloatArray
    settings: NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Write all of it, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @staticmethod
    def load(path: Path) -> Measured:
        """What was saved."""
        with np.load(path, allow_pickle=False) as arrays:
            return Measured(**{f.name: arrays[f.name] for f in fields(Measured)})


def is_kept(path: Path, settings: str) -> bool:
    """Whether a file holds what was measured with these settings."""
    if not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["settings"]) == settings


def of_seeds(folder: Path, parts: Sequence[str]) -> list[Measured]:
    """The outcomes on the items of all parts, in the order of the table: for each seed that has all parts.

    folder: of one router's files, `PART-SEED.npz`.
    """
    seeds = [{path.stem.rpartition("-")[2] for path in folder.glob(f"{part}-*.npz")} for part in parts]
    whole = sorted(set.intersection(*seeds), key=int)
    try:
        return [_side_by_side([Measured.load(folder / f"{part}-{seed}.npz") for part in parts]) for seed in whole]
    except UserError as error:
        raise UserError(f"{folder}: {error}; measure it anew with --again") from None


def mean_of(seeds: Sequence[Measured]) -> Measured:
    """The mean over seeds of outcomes on the same items."""
    averaged = ("quality", "cost", "called", "calls", "seconds")
    return replace(seeds[0], **{name: np.mean([vars(each)[name] for each in seeds], axis=0) for name in averaged})


def _side_by_side(parts: Sequence[Measured]) -> Measured:
    """One whole of the parts. Raises UserError if they were not measured alike."""
    if len({str(part.settings) for part in parts}) > 1:
        raise UserError("its folds were measured with different tables, cost weights or code")
    items = np.concatenate([part.items for part in parts])
    order = items.argsort()
    shares = np.array([len(part.items) for part in parts]) / len(items)
    return Measured(
        weights=parts[0].weights,
        settings=parts[0].settings,
        items=items[order],
        quality=np.concatenate([part.quality for part in parts], axis=1)[:, order],
        cost=np.concatenate([part.cost for part in parts], axis=1)[:, order],
        called=np.concatenate([part.called for part in parts], axis=1)[:, order],
        calls=np.tensordot(shares, np.stack([part.calls for part in parts]), axes=1),
        seconds=np.mean([part.seconds for part in parts], axis=0),
    )
