"""The command line: whatever the arguments are, the command does what they say or tells what is wrong with them."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import command, fuzz, texts
from harness.cli import app as cli
from harness.runs import source
from harness.serving.config import LmEval
from pools import UserError
from pools.data.recording import save_recording
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool
from routers.ppo_hierrouter import train

# The arguments of lm-eval are its own.
CLASSES = {taken.__name__.lower(): taken for taken in cli.COMMANDS if taken is not LmEval}
COMMANDS = tuple(CLASSES)
POSITIONAL = {"import": ["t.csv"], "compare": ["whole", "whole2"], "report": ["whole"], "list": ["pools"]}
# Values of any flag: of each kind some that fit, and some that nearly do.
_VALUES = """
0 1 2 -1 1.5 1e3 nan inf -inf 0x10 1_0 ٣ True none None 0.1,1 0, , : -- - --help -h
auto yes test all paper dollars hashing sentence bwrap rlimits ray local csv parquet routellm
random single:model-0 single: single:model-9 pipeline:model-0>model-1 pipeline:> oracle knn best-pipeline:2
best-pipeline:x majority-vote cheapest cascade:x hierrouter:x model-0=1,2 m=x
p.yaml r whole t.csv nowhere nowhere/x . / /dev/null /dev/null/x x.json x.md ~
"""
VALUES = ("", "9" * 25, "9" * 400, "a" * 300, *_VALUES.split())


class NoModels(UserError):
    """Stands for the models, which no case asks."""


@pytest.fixture(scope="module")
def folder(synthetic_tree: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of all cases: a recording, two runs, a table; no models, no network, no server."""
    folder = tmp_path_factory.mktemp("cli")
    models = tuple(CandidateModel(f"model-{n}", "hf", 0.01 * 4**n) for n in range(2))
    save_recording(synthetic_tree(items=9), Pool("p", models, "unit", "made up"), {"suite": "s"}, folder / "r")
    (folder / "t.csv").write_text("item,task,prompt,model,score,cost\n1,t,q,a,1,2\n")
    # All that takes a name from what is patched below, first: else it would take the patch, and keep it.
    for name in (
        *("recorder.record", "recorder.verify", "recorder.import_table", "regression.check", "regression.compare"),
        *("report.page", "runs.run", "runs.train", "serving.routed", "serving.server"),
    ):
        importlib.import_module(f"harness.{name}")
    before, patch = Path.cwd(), pytest.MonkeyPatch()
    os.chdir(folder)

    def no_models(*_: Any, **__: Any) -> Any:
        raise NoModels("no case asks a model")

    try:
        for out in ("whole", "whole2"):
            arguments = ("--recording", folder / "r", "--router", "random", "single:model-0", "--out", folder / out)
            assert not command("run", *arguments).refused
        patch.setattr(source, "live_source", no_models)
        patch.setattr("harness.recorder.record.live_source", no_models)
        patch.setattr("pools.models.generator.LiveGenerator.generate_all", no_models)
        patch.setattr("pools.models.generator.LiveGenerator.language_model", no_models)
        patch.setattr("uvicorn.Server.run", lambda *_, **__: None)
        # `serve` sets handlers, where the deadline of a case has its own.
        patch.setattr(
            "harness.serving.server.signal",
            SimpleNamespace(signal=lambda *_: None, SIGTERM=None, SIGINT=None, SIG_DFL=None),
        )
        short = partial(replace, total_timesteps=64)
        patch.setattr("routers.ppo_hierrouter.train", lambda options, *more: train(short(options), *more))
        # A run without --recording replays what ships, which takes seconds.
        patch.setattr("harness.runs.source.RESULTS", folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("WANDB_MODE", "disabled")
        yield folder
    finally:
        patch.undo()
        os.chdir(before)


def flags(name: str) -> list[str]:
    hints = get_type_hints(CLASSES[name], include_extras=True)
    named = [f.name for f in dataclasses.fields(CLASSES[name]) if "Positional" not in str(hints[f.name])]
    return [flag for flag in named if flag not in ("track", "wandb", "total_timesteps")]


@st.composite
def lines(draw: Any, names: tuple[str, ...] = COMMANDS, odd: bool = True) -> list[str]:
    """A command with some of its flags, their values mostly of a kind that it takes, and a slip or two."""
    name = draw(st.sampled_from(names))
    words = [name, *POSITIONAL.get(name, [])]
    if name in ("run", "train", "serve", "verify") and draw(st.integers(0, 9)):
        words += ["--recording", "r"]
    for flag in draw(st.lists(st.sampled_from(flags(name)), max_size=4)):
        words.append(draw(st.sampled_from(["--", "--", "--", "--no-"])) + flag.replace("_", "-"))
        words += draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2))
    for _ in range(draw(st.integers(0, 2)) if odd else 0):
        place = draw(st.integers(0, len(words)))
        slip = draw(st.sampled_from(["drop", "insert", "twist"]))
        if slip == "insert":
            words.insert(place, draw(texts(surrogates=True) | st.sampled_from(VALUES)).replace("\x00", ""))
        elif place < len(words):
            words[place : place + 1] = (
                [] if slip == "drop" else [words[place] + draw(st.sampled_from(["s", "=", "=x", ""]))]
            )
    return words


def ended_well(words: list[str]) -> None:
    ended = command(*words)
    assert ended.code in (0, 1, 2), ended
    assert "Traceback" not in ended.err + ended.out
    # Arguments that make no command are told by the parser of arguments, in a box of its own.
    if ended.code == 2 and not ended.err.startswith("╭") and "Parsing error" not in ended.err:
        assert ended.refused


@fuzz("command lines", 100)
@given(lines())
def test_any_command_line(folder: Path, words: list[str]) -> None:
    ended_well(words)
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("report", "no run was named"),
        ("run --recording r --router random --seed 99999999999999999999999", "--seed"),
        ("verify --recording r --seed 99999999999999999999999", "--seed"),
        ("compare whole whole2 --seed 99999999999999999999999", "--seed"),
        ("train --recording r --seed 99999999999999999999999 --out p.safetensors", "--seed"),
        ("serve --recording r --router random --timeout nan", "--timeout"),
        ("serve --recording r --router random --timeout inf", "--timeout"),
        ("serve --recording r --router random --host " + "é" * 99, "cannot listen"),
        ("run --recording r --router random --out x\udcff", "UTF-8"),
        ("run --recording r --router single:\x1b[31m", "\\x1b[31m"),
        ("run --recording r --router " + "a" * 10_000, "..."),
    ],
)
def test_found_and_mended(folder: Path, line: str, said: str) -> None:
    ended = command(*line.split(" "))
    assert ended.refused and said in ended.err
