import hashlib
import os
import subprocess
import sys
import time
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


@pytest.mark.parametrize("name", ["owner/model-GGUF", "owner/model"])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_in_the_weights_folder(tmp_path, monkeypatch, name, by):
    folder = _put(tmp_path / "w" / name)
    if by == "variable":
        monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "w"))
    assert find_weights(GGUF, "m", tmp_path, tmp_path / "w" if by == "argument" else None) == folder


def test_a_folder_without_the_file_is_passed_over(tmp_path):
    _put(tmp_path / "w" / "owner/model-GGUF", "another.gguf")
    folder = _put(tmp_path / "w" / "owner/model")
    assert find_weights(GGUF, "m", tmp_path, tmp_path / "w") == folder


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


def test_files_that_need_their_neighbours_are_fetched_with_them(tmp_path):
    with pytest.raises(UserError, match="hf download owner/model --revision v1 --local-dir"):
        find_weights(Weights(repository="owner/model", file="model.safetensors", revision="v1"), "m", tmp_path, None)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="correct `path` in the pool file") as error:
        find_weights(Weights(path="gone"), "m", tmp_path, None)
    assert str(tmp_path / "gone") in str(error.value)


def test_a_name_that_no_repository_can_have(tmp_path):
    with pytest.raises(UserError, match="no weights for model m") as error:
        find_weights(Weights(repository="no/such/name"), "m", tmp_path, None)
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


@pytest.mark.parametrize("how", ["refused", "no network"])
def test_a_hub_that_cannot_be_reached(tmp_path, how):
    """In a process of its own: huggingface_hub reads the environment when it is imported."""
    command = [sys.executable, "-c", FIND]
    environment = {k: v for k, v in os.environ.items() if k not in {"HF_HUB_OFFLINE", "HARNESS_WEIGHTS"}}
    environment |= {"HF_HOME": str(tmp_path)}
    if how == "refused":
        environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}
    elif subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel gives no network namespace to users")
    else:
        command = ["unshare", "-rn", *command]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True, timeout=60)
    assert time.monotonic() - start < 15  # most of it is the import, on a busy machine
    first, second = done.stdout.splitlines()
    assert done.stderr == ""
    for line in (first, second):
        assert "the hub (Got: ConnectError" in line
        assert "hf download owner/model" in line
