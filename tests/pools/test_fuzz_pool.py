"""Pool files: whatever stands in one, it is a pool that can be used, or one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import fuzz, mutated, texts, told
from pools import Context
from pools.pool import Pool, load_pool, pool_from_dict
from pools.template import render

GOOD: dict[str, Any] = {
    "name": "mine",
    "cost_unit": "unit",
    "rates": "made up",
    "description": "two models",
    "models": [
        {
            "name": "a",
            "lm_eval": "hf",
            "base_rate": 1.5,
            "arguments": {"dtype": "bfloat16", "max_length": 512},
            "weights": {"path": "weights-a", "file": "w.gguf", "sha256": "0" * 64},
            "resources": {"replicas": 2, "num_cpus": 1.0, "custom": {"disk": 1}},
        },
        {
            "name": "b",
            "lm_eval": "local-completions",
            "base_rate": 0,
            "template": "{{ query }}",
            "chat_template": True,
            "batch_size": 4,
            "price": {"input": 1, "output": 2.5, "source": "list"},
        },
    ],
}
TEXT = yaml.safe_dump(GOOD, sort_keys=False)
# Pieces of YAML that mean something else than they seem, or that make its reader work hard.
PIECES = (
    *("!!python/object/apply:os.system [touch {mark}]", "!!python/name:os.system", "!function os.system", "!!binary x"),
    *("!!int x", "!!float x", "!!timestamp x", "!!bool x", "2020-99-99", "2020-01-01", "0b_", "0x_", "1_0", "1:60"),
    *("9" * 5000, "1e999", ".nan", "~", "yes", "&a [*a]", "&a {b: *a}", "*nobody", "<<: *x", "{<<: [1]}", "? [a]"),
    *("[" * 90, "{a: " * 90, "- " * 90, '"\\ud800"', '"\\0"', "%YAML 9.9", "--- a", "...", "\t", "|\n  a", "#"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


def usable(pool: Pool | None) -> None:
    """What was accepted can be written down, identified and rendered."""
    if pool is None:
        return
    json.dumps(pool.to_dict(), allow_nan=False).encode()
    assert pool_from_dict(pool.to_dict(), "here", pool.folder) == pool
    for model in pool.models:
        pool.fingerprint(model if model.weights is None else pool.models[-1] if not pool.models[-1].weights else GGUF)
        assert isinstance(render(model.template, Context("q", ("r",))), str)
        assert 0 <= model.base_rate < float("inf") and model.batch_size >= 1
    assert len(set(pool.model_names)) == len(pool.models)


GGUF = pool_from_dict(GOOD, "here").models[0]


@fuzz("pool files: data", 350)
@given(mutated(GOOD, surrogates=True))
def test_pool_data(folder: Path, data: Any) -> None:
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    usable(told(lambda: load_pool(str(path)), path))
    usable(told(lambda: pool_from_dict(data, "the manifest"), "the manifest"))


@st.composite
def pool_texts(draw: Any, mark: str) -> str:
    """A pool file with odd pieces of YAML, or odd text, at places where a value was."""
    lines = TEXT.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(lines) - 1))
        piece = draw(st.sampled_from(PIECES) | texts()).replace("{mark}", mark)
        key, colon, _ = lines[number].partition(": ")
        lines[number] = key + colon + piece if draw(st.booleans()) else piece
    return "\n".join(lines)


@fuzz("pool files: text", 350)
@given(st.data())
def test_pool_text(folder: Path, data: st.DataObject) -> None:
    mark, path = folder / "mark", folder / "text.yaml"
    path.write_bytes(data.draw(pool_texts(str(mark))).encode("utf-8", "surrogatepass"))
    usable(told(lambda: load_pool(str(path)), path))
    assert not mark.exists()


@fuzz("pool names", 100)
@given(texts(surrogates=True) | st.sampled_from(["lightweight\x00", "a" * 5000, "../pool", "/dev/null", "/", "."]))
def test_pool_names(name: str) -> None:
    for given_name in (name, f"{name}.yaml"):
        assert told(lambda given_name=given_name: load_pool(given_name), "pool") is None  # type: ignore[misc]
