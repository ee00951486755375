"""Checkpoints: safetensors that say what they are, or one line; nothing is unpickled, nothing is computed with NaN."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fuzzing import command, fuzz, mutated, told
from pools import Context, UserError
from pools.mdp.tree import Tree
from routers import checkpoint
from routers import load as load_router
from routers.checkpoint import read_checkpoint
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args, plain, request_for
from routers.registry import teach
from routers.router import RoutingStates


class Mark:
    """What a pickle can do: unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def whole(train: Callable[[Args], HierRouter], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "whole.safetensors"
    train(Args(total_timesteps=512, hidden=4, num_envs=64, num_steps=4, out=path))
    return path


def usable(router: HierRouter | None) -> None:
    """What was accepted chooses one of its models, by probabilities that are numbers."""
    if router is None:
        return
    called = np.full((1, router.fitted_for.max_hops), -1)
    states = RoutingStates([Context("a question")], np.array([0]), np.array([0.5]), called)
    chance = router.probabilities(states)
    assert np.isfinite(chance).all() and chance.sum() == pytest.approx(1)
    assert 0 <= router.act(states)[0] <= len(router.fitted_for.models)


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    config = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["router"])
    del config["sha256"]  # `written` makes it anew: it would find every change before what is looked for here
    return load(content), config


def written(tensors: dict[str, Any], config: Any, path: Path) -> Path:
    if isinstance(config, dict):
        with suppress(ValueError, UserError):  # of what no checksum can be made the reader must refuse it
            config = {**config, "sha256": checkpoint._checksum(tensors, json.loads(json.dumps(config)))}
    path.write_bytes(save(tensors, {"router": json.dumps(config)}))
    return path


def load_checkpoint(path: Path, name: str = "hierrouter") -> HierRouter:
    router = load_router(name, checkpoint=path)
    assert isinstance(router, HierRouter)
    return router


def both(path: Path) -> None:
    told(lambda: read_checkpoint(path), path)
    usable(told(lambda: load_checkpoint(path), path))
    usable(told(lambda: load_checkpoint(path, "hierrouter:stochastic"), path))


@fuzz("checkpoints: configuration", 150)
@given(st.data())
def test_a_configuration(whole: Path, data: st.DataObject) -> None:
    tensors, config = parts(whole)
    both(written(tensors, data.draw(mutated(config, surrogates=True)), whole.with_name("config.safetensors")))


@fuzz("checkpoints: tensors", 80)
@given(st.data())
def test_tensors(whole: Path, data: st.DataObject) -> None:
    tensors, config = parts(whole)
    name = data.draw(st.sampled_from(sorted(tensors)))
    array = tensors[name]
    how = data.draw(st.sampled_from(["gone", "type", "shape", "empty", "value", "renamed"]))
    if how == "gone":
        del tensors[name]
    elif how == "renamed":
        tensors[name + "x"] = tensors.pop(name)
    elif how == "type":
        kind = data.draw(st.sampled_from(["int64", "int8", "bool", "float16", "float64", "uint8"]))
        tensors[name] = array.astype(kind)
    elif how == "shape":
        tensors[name] = data.draw(
            st.sampled_from([array.ravel(), array[None], np.atleast_1d(array)[:1], array.T.copy()])
        )
    elif how == "empty":
        tensors[name] = np.atleast_1d(array)[:0]
    else:
        tensors[name] = array.copy()
        value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e9]))
        tensors[name].flat[data.draw(st.integers(0, array.size - 1))] = value
    both(written(tensors, config, whole.with_name("tensors.safetensors")))


@fuzz("checkpoints: pickles", 15)
@given(st.data())
def test_a_pickle_is_never_unpickled(whole: Path, data: st.DataObject) -> None:
    mark, path = whole.with_name("mark"), whole.with_name("pickle.safetensors")
    protocol = data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL))
    payload = pickle.dumps(Mark(mark), protocol)
    if data.draw(st.booleans()):
        torch.save({"policy": Mark(mark)}, path)
    else:
        head = data.draw(st.sampled_from([b"", struct.pack("<Q", len(payload)), whole.read_bytes()[:100]]))
        path.write_bytes(head + payload)
    assert told(lambda: load_checkpoint(path), path) is None
    assert command("run", "--checkpoint", path).refused
    assert not mark.exists()
    pickle.loads(payload)  # it would have
    assert mark.exists()
    mark.unlink()


FAULTS: list[dict[str, Any]] = [
    {"options": {"hidden": 10**9}},
    {"sees": "query future"},
    {"sees": "query length"},  # a part that there was
    {"sees": "query"},  # one that there is, of another width
    {"problem": {"max_hops": 10**9}},
    {"problem": {"models": ["a", "a"]}},
    {"problem": {"models": [f"m{n}" for n in range(100_000)]}},
    {"problem": {"cost_weight": "0.1"}},
    {"problem": {"cost_weights": [0.0, 1.0]}},
    {"texts": {}},
    {"router": "knn"},
    {"tensors": {"cost_scale": np.array(1e300)}},
    {"tensors": {"cost_scale": np.array(0.0)}},
    {"tensors": {"actor.0.bias": np.full(4, np.nan, np.float32)}},
    *({"tensors": {name: lambda array: array[:-1]}} for name in ("mean", "scale")),
    *({"tensors": {name: lambda array: np.append(array, array[:1])}} for name in ("mean", "scale")),
    *({"tensors": {name: lambda array: array[:, None]}} for name in ("mean", "scale")),
    *({"tensors": {name: lambda array: np.full_like(array, np.nan)}} for name in ("mean", "scale")),
    {"tensors": {"scale": lambda array: 0 * array}},
    {"tensors": {"scale": lambda array: -array}},
    {"answers": "(unclosed"},
]


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: str(change).partition(" at 0x")[0][:60])
def test_what_was_taken_once(whole: Path, change: dict[str, Any]) -> None:
    tensors, config = parts(whole)
    ((key, value),) = change.items()
    if key == "tensors":
        ((name, new),) = value.items()
        assert name in tensors
        tensors[name] = np.asarray(new(tensors[name]) if callable(new) else new)
    elif key in ("answers", "sees"):
        assert config["texts"][key]
        config["texts"][key] = value
    else:
        config[key] = config[key] | value if isinstance(value, dict) and value else value
    path = written(tensors, config, whole.with_name("once.safetensors"))
    with pytest.raises(UserError, match=str(path)):
        usable(load_checkpoint(path))


def test_the_kind_of_answers_is_kept(trap: Tree, tmp_path: Path) -> None:
    args = Args(total_timesteps=512, hidden=4, num_envs=64, num_steps=4)
    for answers in ("letter", r"<(\w+)>"):
        path, tree = tmp_path / "policy.safetensors", trap.select("train")
        tree.answers = answers
        teach("hierrouter", request_for(args, tree, None), plain(args)).save(path)
        assert load_checkpoint(path).inputs.features.answers == answers
