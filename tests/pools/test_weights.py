import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pools
from pools import UserError
from pools.weights import Weights, find_weights

ROOT = Path(pools.__file__).parent.parent
CONTENT = b"the weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GGUF = Weights(repository="owner/model-GGUF", file="model.gguf", sha256=SHA256, base_model="owner/model")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """An empty cache and no hub, whatever this computer has."""
    from huggingface_hub import constants

    monkeypatch.delenv("HARNESS_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def _put(folder, file="model.gguf", content=CONTENT):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return folder


def test_by_path(tmp_path):
    _put(tmp_path / "pool" / "here")
    weights = Weights(path="here", file="model.gguf", sha256=SHA256.upper())
    assert find_weights(weights, "m", tmp_path / "pool", None) == tmp_path / "pool" / "here"
    absolute = Weights(path=str(tmp_path / "pool" / "here"))
    assert find_weights(absolute, "m", tmp_path / "elsewhere", None) == tmp_path / "pool" / "here"


def test_in_the_weights_folder(tmp_path, monkeypatch):
    _put(tmp_path / "w" / "owner/model-GGUF", "another.gguf")  # passed over
    folder = _put(tmp_path / "w" / "owner/model")
    assert find_weights(GGUF, "m", tmp_path, tmp_path / "w") == folder
    folder = _put(tmp_path / "w" / "owner/model-GGUF")
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "w"))
    assert find_weights(GGUF, "m", tmp_path, None) == folder


@pytest.mark.parametrize("file", ["model.gguf", "q4/model.gguf"])
def test_in_the_hub_s_cache(tmp_path, file):
    """Laid out as huggingface_hub does; a file may lie in a folder of the repository."""
    commit = "a" * 40
    stored = tmp_path / "cache" / "models--owner--model-GGUF"
    folder = _put(stored / "snapshots" / commit, file)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    for revision in ("main", commit):
        weights = Weights(repository="owner/model-GGUF", file=file, sha256=SHA256, revision=revision)
        assert find_weights(weights, "m", tmp_path, None) == folder
    with pytest.raises(UserError, match="no weights"):
        find_weights(Weights(repository="owner/model-GGUF", file="another.gguf"), "m", tmp_path, None)


def test_wrong_weights(tmp_path):
    _put(tmp_path / "w" / "owner/model", content=b"others")
    with pytest.raises(UserError, match="wrong weights for model m") as error:
        find_weights(GGUF, "m", tmp_path, tmp_path / "w")
    said = str(error.value)
    assert SHA256 in said and hashlib.sha256(b"others").hexdigest() in said
    assert str(tmp_path / "w" / "owner/model" / "model.gguf") in said
    assert "\n" not in said


def test_nothing_found_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(UserError) as error:
        find_weights(GGUF, "m", tmp_path, tmp_path / "w")
    said = str(error.value)
    assert "\n" not in said
    for part in (
        "model.gguf of owner/model-GGUF",
        str(tmp_path / "w" / "owner" / "model-GGUF"),
        str(tmp_path / "w" / "owner" / "model"),
        str(tmp_path / "cache"),
        "HF_HUB_OFFLINE",
        "hf download owner/model-GGUF model.gguf --revision main --local-dir DIR/owner/model-GGUF",
        "--weights DIR",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        # With what it needs beside it.
        (Weights(repository="o/m", file="w.safetensors", revision="v1"), "hf download o/m --revision v1 --local-dir"),
        (Weights(path="gone"), "gone not found in .*/gone. Put them there, or correct `path` in the pool file"),
        (Weights(repository="no/such/name"), "no weights for model m"),  # a name that no repository can have
    ],
)
def test_weights_that_are_nowhere(tmp_path, weights, said):
    with pytest.raises(UserError, match=said) as error:
        find_weights(weights, "m", tmp_path, None)
    assert "\n" not in str(error.value)


FIND = """
import sys
from pathlib import Path
from pools import UserError
from pools.weights import Weights, find_weights
for weights in (Weights(repository="owner/model", file="model.gguf"), Weights(repository="owner/model")):
    try:
        find_weights(weights, "m", Path("."), None)
    except UserError as error:
        print(error)
"""


def test_a_hub_that_cannot_be_reached(tmp_path):
    """In a process of its own: huggingface_hub reads the environment when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k not in {"HF_HUB_OFFLINE", "HARNESS_WEIGHTS"}}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", FIND]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True, timeout=60)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "the hub (Got: ConnectError" in line
        assert "hf download owner/model" in line
