"""A recording or a specialist of which a bit is another, or the end is missing: refused in one line, or the same."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pools.data.recording import load_recording, save_recording
from pools.errors import UserError
from pools.pool import load_pool
from pools.weights import check_recipe, files_of_model, folder_hash

SHIPPED = Path(__file__).parents[3] / "results" / "specialists" / "registry-north"
FILES = ("manifest.json", "items.parquet", "transitions.parquet")


def everything(folder: Path) -> Any:
    """All that a recording says, but for the checksums themselves and names that mean nothing to us."""
    found = load_recording(folder)
    said = {key: found.manifest.get(key) for key in ("suite", "pool", "max_hops", "complete", "models", "counts")}
    return found.tree.items, list(found.tree.rows()), found.pool, said


@pytest.fixture
def recording(synthetic_tree: Any, made_up_pool: Any, tmp_path: Path) -> Path:
    tree = synthetic_tree(items=20, models=2, max_hops=2)
    manifest = {"suite": "made-up", "models": {"model-0": "a" * 64}, "counts": {"items": 20, "hours": 1.25}}
    save_recording(tree, made_up_pool, manifest, tmp_path / "r")
    return tmp_path / "r"


@pytest.mark.parametrize("fault", ["bit flip", "truncation"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_recording(
    outcome: Any, recording: Path, name: str, fault: str, damages: Any, counted: Any, faults: int
) -> None:
    expected, content = everything(recording), (recording / name).read_bytes()
    found = []
    for damaged in damages(fault, content, 25 * faults):
        (recording / name).write_bytes(damaged)
        found.append(outcome(lambda: everything(recording), expected))
    counted(fault, name, len(found), found.count("refused"), wrong=found.count("wrong"))
    assert found.count("refused") > len(found) // 2


def test_without_checksums_another_recording_would_be_taken(
    recording: Path, damages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, content = everything(recording), (recording / "manifest.json").read_bytes()
    monkeypatch.setattr("pools.data.recording._checksum", lambda manifest: manifest["checksum"])
    wrong = 0
    for damaged in damages("bit flip", content, 200):
        (recording / "manifest.json").write_bytes(damaged)
        with suppress(UserError):
            wrong += everything(recording) != expected
    assert wrong


@pytest.fixture
def specialist(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "registry-north"))


@pytest.mark.parametrize("fault", ["bit flip", "truncation"])
@pytest.mark.parametrize("name", [*(path.name for path in files_of_model(SHIPPED)), "recipe.json"])
def test_a_damaged_specialist(
    outcome: Any, specialist: Path, name: str, fault: str, damages: Any, counted: Any, faults: int
) -> None:
    content, whole = (specialist / name).read_bytes(), folder_hash(specialist)

    def use() -> str:
        check_recipe(specialist, "the specialist")
        return folder_hash(specialist)

    found = []
    for damaged in damages(fault, content, (2 if len(content) > 1e6 else 10) * faults):
        (specialist / name).write_bytes(damaged)
        found.append(outcome(use, whole))
    counted(fault, f"specialist: {name}", len(found), found.count("refused"), wrong=found.count("wrong"))
    assert name == "recipe.json" or found.count("refused") == len(found)


def test_a_damaged_specialist_is_not_loaded(specialist: Path, tmp_path: Path) -> None:
    """A pool file need not name the sha256 of the weights: the recipe does."""
    pool_file = tmp_path / "pool.yaml"
    entry = {"name": "m", "lm_eval": "hf", "base_rate": 1.0, "weights": {"path": "registry-north"}}
    pool_file.write_text(json.dumps({"name": "p", "cost_unit": "u", "rates": "none", "models": [entry]}))
    pool = load_pool(str(pool_file))
    before = pool.fingerprint(pool.models[0])
    content = bytearray((specialist / "model.safetensors").read_bytes())
    content[-1000] ^= 4
    (specialist / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model m is damaged.*model\.safetensors has another sha256.*fetch"):
        pool.fingerprint(pool.models[0])
    (specialist / "recipe.json").unlink()  # without it nobody knows: what the fingerprint then says is another model
    assert pool.fingerprint(pool.models[0]) != before
