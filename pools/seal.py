"""Checksums inside a manifest: of the files beside it, and of the manifest itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pools.types import content_hash

FILES, ITSELF = "sha256", "checksum"


def sealed(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest with the sha256 of each file, by name, and a checksum of all that the manifest says.

    The checksum is sha256 of the manifest without it, as canonical JSON (`types.content_hash`).
    """
    open_ = {key: value for key, value in manifest.items() if key not in (FILES, ITSELF)}
    full = open_ | {FILES: {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
    return full | {ITSELF: content_hash(json.loads(json.dumps(full)))}


def check_seal(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Raise ValueError where the manifest or a file is not as it was sealed. What was never sealed is not checked."""
    rest = {key: value for key, value in manifest.items() if key != ITSELF}
    if ITSELF in manifest and manifest[ITSELF] != content_hash(rest):
        raise ValueError("its manifest is not what was written: the checksum is another")
    expected = manifest.get(FILES, {})
    for name, content in files.items():
        if name in expected and expected[name] != hashlib.sha256(content).hexdigest():
            raise ValueError(f"{name} is not what was written: its sha256 is another than the manifest's")
