"""Where a model's weights are: a local path, a folder laid out as the hub, or the Hugging Face cache or hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pools.errors import UserError
from pools.schema import WRITTEN, Schema, parse_json

RECIPE = "recipe.json"


@dataclass(frozen=True, config=WRITTEN)
class Weights:
    """How a pool file names weights.

    path: a local folder, relative to the pool file; or repository, on the hub.
    revision: commit, tag or branch of the repository. file: the one file that holds the weights, if there is one.
    sha256: of that file; it is checked before the model is loaded.
    base_model: the hub name of the model that the repository converts; its folder is looked in, too.
    """

    path: str | None = None
    repository: str | None = None
    revision: str = "main"
    file: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    base_model: str | None = None

    def __post_init__(self) -> None:
        if not (self.path or self.repository):
            raise ValueError("expected a `path` or a `repository`")
        if self.sha256 is not None and not self.file:
            raise ValueError("a `sha256` needs the `file` that has it")


class Recipe(Schema):
    """What `recipe.json` beside a trained specialist says of its files; how it was trained stands there, too."""

    sha256: dict[str, str] = Field(default_factory=dict)
    """Of each file that decides what it answers, by its name."""


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def alone(weights: Weights) -> bool:
    """Whether one file holds all that there is to the model, as a GGUF file does."""
    return bool(weights.file and weights.file.endswith(".gguf"))


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of the files that decide what a model answers, its tokenizer among them."""
    digest = hashlib.sha256()
    for path in files_of_model(folder):
        digest.update(f"{path.relative_to(folder)}\0{file_hash(path)}\0".encode())
    return digest.hexdigest()


def files_of_model(folder: Path) -> list[Path]:
    """The files of a folder that decide what a model answers, in order; how it was trained is none of them."""
    suffixes = {".safetensors", ".gguf", ".bin", ".json", ".model", ".jinja", ".txt"}
    return sorted(p for p in folder.rglob("*") if p.suffix in suffixes and p.name != RECIPE)


def find_weights(weights: Weights, model: str, pool_folder: Path, weights_dir: Path | None) -> Path:
    """The folder that holds a model's weights, downloaded into the Hugging Face cache if need be.

    Looked for in this order: `path`; the weights folder (`--weights`, or the variable HARNESS_WEIGHTS), which holds
    folders named as on the hub; the hub and its local cache. Raises UserError if there are none, or if the file
    has another sha256 than the pool file gives.
    """
    tried: list[str] = []
    folder = _local_folder(weights, pool_folder, weights_dir, tried) or _hub_folder(weights, tried)
    if folder is None:
        wanted = f"{weights.file or 'its files'} of {weights.repository or weights.path}"
        raise UserError(f"no weights for model {model}: {wanted} not found in {'; '.join(tried)}. {fetching(weights)}")
    if weights.file and weights.sha256:
        actual = file_hash(folder / weights.file)
        if actual != weights.sha256.lower():
            raise UserError(
                f"wrong weights for model {model}: {folder / weights.file} has sha256 {actual}, the pool file expects "
                f"{weights.sha256}; replace the file, or correct the pool file"
            )
    check_recipe(folder, f"model {model}")
    return folder


def find_here(weights: Weights, pool_folder: Path, weights_dir: Path | None) -> Path | None:
    """The folder as `find_weights` has it, if it is on this machine; the hub is not asked, no sha256 computed."""
    return _local_folder(weights, pool_folder, weights_dir, []) or _hub_folder(weights, [], cache_only=True)


def check_recipe(folder: Path, what: str) -> None:
    """Raise UserError if a file of a trained specialist is not what its `recipe.json` says. Others have none.

    what: the model, for the message.
    """
    path = folder / RECIPE
    if not path.is_file():
        return
    try:
        for name, sha256 in parse_json(Recipe, path.read_bytes()).sha256.items():
            if file_hash(folder / name) != sha256:
                raise ValueError(f"{name} has another sha256 than {RECIPE} says")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{what} is damaged: {folder}: {error}; fetch the folder again, or train the specialist again"
        ) from None


def _local_folder(weights: Weights, pool_folder: Path, weights_dir: Path | None, tried: list[str]) -> Path | None:
    named = os.environ.get("HARNESS_WEIGHTS")
    directory = weights_dir or (Path(named) if named else None)
    candidates = [pool_folder / weights.path] if weights.path else []
    if directory is not None:
        candidates += [directory / name for name in (weights.repository, weights.base_model) if name]
    for folder in candidates:
        if (folder / weights.file if weights.file else folder).exists():
            return folder
        tried.append(str(folder))
    return None


def _hub_folder(weights: Weights, tried: list[str], cache_only: bool = False) -> Path | None:
    if not weights.repository:
        return None
    from huggingface_hub import constants, snapshot_download

    # A GGUF file holds all that there is to a model; other files need their neighbours (config, tokenizer).
    files = [weights.file] if alone(weights) else None
    try:
        # Not hf_hub_download: without a network it tries five times, for 23 seconds, and says so on stderr.
        of = {"revision": weights.revision, "allow_patterns": files, "local_files_only": cache_only}
        folder = Path(snapshot_download(weights.repository, **of))
        if weights.file and not (folder / weights.file).exists():
            raise FileNotFoundError(f"its repository at {weights.revision} has no such file")
        return folder
    except Exception as error:  # the client's HTTP library, and so what it raises, differs between its versions
        tried.append(f"the Hugging Face cache {constants.HF_HUB_CACHE} and the hub ({' '.join(str(error).split())})")
        return None


def fetching(weights: Weights) -> str:
    """How to get a model's weights."""
    if not weights.repository:
        return "Put them there, or correct `path` in the pool file"
    file = f" {weights.file}" if alone(weights) else ""
    return (
        f"Fetch them with: hf download {weights.repository}{file} --revision {weights.revision} "
        f"--local-dir DIR/{weights.repository}, then pass --weights DIR"
    )
