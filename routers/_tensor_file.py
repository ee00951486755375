"""Tensors and what is said of them in one safetensors file, with a checksum over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.files import whole_file
from pools.types import content_hash

_CHECKSUM = "sha256"


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], key: str, facts: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all: the same content gives the same bytes.

    facts: plain data, kept as JSON in the file's metadata under `key`, with the sha256 of it and of the tensors.
    """
    from safetensors.numpy import save

    # safetensors writes the bytes as they lie, so they must lie in C order.
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    plain = json.loads(json.dumps(facts))
    # One entry alone: safetensors writes several in an order that differs from process to process.
    metadata = {key: json.dumps({**plain, _CHECKSUM: _checksum(tensors, plain)}, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, metadata))


def read_tensors(path: Path, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors and the facts. Raises ValueError where the file is none of these, or not what was written.

    A file that was written without a checksum is not checked.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})[key])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
        expected = facts.pop(_CHECKSUM, None)
    except (SafetensorError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if expected is not None and expected != _checksum(tensors, facts):
        raise ValueError("damaged: its checksum does not agree with its content")
    return tensors, facts


def _checksum(tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
    described = [
        [name, str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
        for name, array in sorted(tensors.items())
    ]
    return content_hash(described, facts)
