"""Where a model's weights are: a local path, a folder laid out as the hub, or the Hugging Face cache or hub."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pools.errors import UserError

DIRECTORY_VARIABLE = "HARNESS_WEIGHTS"


@dataclass(frozen=True)
class Weights:
    """How a pool file names weights.

    path: a local folder, relative to the pool file; or repository, on the hub.
    revision: commit, tag or branch of the repository. file: the one file that holds the weights, where there is one.
    sha256: of that file; it is checked before the model is loaded and is part of the model's fingerprint.
    base_model: the hub name of the model that the repository converts; its folder is looked in, too.
    """

    path: str | None = None
    repository: str | None = None
    revision: str = "main"
    file: str | None = None
    sha256: str | None = None
    base_model: str | None = None


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of the files that decide what a model answers."""
    digest = hashlib.sha256()
    suffixes = {".safetensors", ".gguf", ".bin", ".json", ".model", ".jinja", ".txt"}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in suffixes):
        digest.update(f"{path.relative_to(folder)}\0{file_hash(path)}\0".encode())
    return digest.hexdigest()


def find_weights(weights: Weights, model: str, pool_folder: Path, weights_dir: Path | None) -> Path:
    """The folder that holds a model's weights, downloaded into the Hugging Face cache if need be.

    Looked for in this order: `path`; the weights folder (`--weights`, or the variable HARNESS_WEIGHTS), which holds
    folders named as on the hub; the Hugging Face cache; the hub. Raises UserError where there are none, or where the
    file has another sha256 than the pool file gives.
    """
    tried: list[str] = []
    folder = _local_folder(weights, pool_folder, weights_dir, tried)
    if folder is None and weights.repository:
        folder = _hub_folder(weights, tried)
    if folder is None:
        wanted = f"{weights.file or 'its files'} of {weights.repository or weights.path}"
        raise UserError(f"no weights for model {model}: {wanted} not found in {'; '.join(tried)}. {_advice(weights)}")
    if weights.file and weights.sha256:
        actual = file_hash(folder / weights.file)
        if actual != weights.sha256:
            raise UserError(
                f"wrong weights for model {model}: {folder / weights.file} has sha256 {actual}, the pool file expects "
                f"{weights.sha256}; replace the file, or correct the pool file"
            )
    return folder


def _local_folder(weights: Weights, pool_folder: Path, weights_dir: Path | None, tried: list[str]) -> Path | None:
    directory = weights_dir or (Path(os.environ[DIRECTORY_VARIABLE]) if DIRECTORY_VARIABLE in os.environ else None)
    candidates = [pool_folder / weights.path] if weights.path else []
    if directory is not None:
        candidates += [directory / name for name in (weights.repository, weights.base_model) if name]
    for folder in candidates:
        if (folder / weights.file if weights.file else folder).exists():
            return folder
        tried.append(str(folder))
    return None


def _hub_folder(weights: Weights, tried: list[str]) -> Path | None:
    import requests
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    assert weights.repository is not None
    tried.append(f"the Hugging Face cache {constants.HF_HUB_CACHE}")
    try:
        if weights.file:
            return Path(hf_hub_download(weights.repository, weights.file, revision=weights.revision)).parent
        return Path(snapshot_download(weights.repository, revision=weights.revision))
    except (HfHubHTTPError, HFValidationError) as error:
        tried.append(f"the hub ({str(error).splitlines()[0]})")
    except (OSError, requests.RequestException):  # offline mode and a missing cache entry are OSErrors too
        offline = "switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "could not be reached"
        tried.append(f"the hub ({offline})")
    return None


def _advice(weights: Weights) -> str:
    if not weights.repository:
        return "Put them there, or correct `path` in the pool file"
    file = f" {weights.file}" if weights.file else ""
    return (
        f"Fetch them with: hf download {weights.repository}{file} --revision {weights.revision} "
        f"--local-dir DIR/{weights.repository}, then pass --weights DIR"
    )
