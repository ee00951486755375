"""The command line as a user meets it: its speed, and one clear line for whatever is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest

import harness
from harness.__main__ import main
from harness.cli.app import Command
from harness.runs.source import recording_folder

ROOT = Path(harness.__file__).parent.parent
LIVE = "run --live --limit 1 --task rg_aiw --split all --store {tmp}/s.sqlite"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['harness', '--help']\nfrom harness.__main__ import main\n"
    code += "try:\n main()\nexcept SystemExit:\n"
    code += " print([m for m in ('torch', 'numpy', 'pyarrow', 'lm_eval', 'gymnasium', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("[]"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --router hirrouter", "did you mean hierrouter"),
        ("run --router single:gpt", "the pool has math-specialist"),
        ("run --task rg_nothing", "unknown task"),
        ("run --suite ofline", "unknown suite"),
        ("run --pool heavyweight", "unknown pool"),
        ("run --pool {tmp}/broken.yaml --live", "broken.yaml"),
        ("run --recording {tmp}", "is not a recording"),
        ("run --recording {tmp}/nowhere", "is not a recording"),
        ("run --recording {tmp} --live", "exclude each other"),
        ("run --checkpoint {tmp}/none.safetensors", "is not there; train one with"),
        ("run --checkpoint {tmp}/broken.yaml", "not the checkpoint of a router"),
        ("run --checkpoint {tmp}", "is a folder"),
        ("run --router random --router cheapest", "--router is given twice"),
        ("train --total_timesteps 1 --total-timesteps=2 --out {tmp}/p.safetensors", "--total-timesteps is given twice"),
        ("run --max-hops 7", "has 2 hops"),
        ("run --cost dollars", "no price for math-specialist"),
        ("run --cost-weight -1", "expected a number >= 0"),
        ("run --cost-weight 0.1,", "expected a number >= 0"),
        ("run --cost-weight 0.1,1_0", "--cost-weight 0.1,1_0"),
        ("run --cost-weight 1e16", "at most 1e+15"),
        ("train --cost-weight 1e16 --out {tmp}/p.safetensors", "at most 1e+15"),
        ("train --cost-weights 0 1e16 --out {tmp}/p.safetensors", "at most 1e+15"),
        ("serve --recording {shipped} --router random --cost-weight 1e16", "at most 1e+15"),
        ("serve --recording {shipped} --router random --name a\u202eb", "--name"),
        ("run --router best-pipeline:\u0661", "a number of hops from 1 to"),
        ("run --router single:qa-specialist\u202e", "--router 'single:qa-specialist\\u202e' holds U+202E"),
        ("run --task", "--task is given without a value"),
        ("run --router", "--router is given without a value"),
        ("run --cost-weight 0.1,much", "several as in 0,0.1,1"),
        ("run --router best-pipeline:9", "a number of hops from 1 to"),
        ("train --cost-weights 0.1 -1 --out {tmp}/p.safetensors", "a number of at least 0"),
        ("verify --sample 0", "--sample 0"),
        ("verify --at-least 2", "--at-least 2"),
        ("verify --recording {tmp}", "is not a recording"),
        ("verify --weights {tmp}/nowhere", "no such folder"),
        ("record --limit 1 --resident 0", "--resident 0"),
        ("record --limit 1 --task rg_aiw --reuse {tmp} --store {tmp}/s.sqlite --out {tmp}/r", "is not a recording"),
        ("record --limit 1 --task rg_aiw --reuse {tmp}/b.parquet --store {tmp}/s.sqlite --out {tmp}/r", "exported"),
        ("run --limit 0", "--limit 0: expected at least 1"),
        ("run --limit -3", "--limit -3: expected at least 1"),
        ("run --encoder bert", "known are hashing, sentence"),
        ("run --out {tmp}/broken.yaml", "is a file"),
        (f"{LIVE} --router single:qwen2.5-coder-0.5b", "hf download"),
        (f"{LIVE} --router oracle", "on a recording"),
        (f"{LIVE} --router single:qwen2.5-coder-0.5b --weights {{tmp}}/nowhere", "no such folder"),
        ("train --resume --out {tmp}/p.safetensors", "nothing to resume"),
        ("train --encoder bert --out {tmp}/p.safetensors", "known are hashing, sentence"),
        ("record --limit 1 --task rg_aiw --store {tmp}/broken.yaml --out {tmp}/r", "transition store"),
        ("record --limit 1 --task rg_aiw --out {tmp}", "is no recording"),
        ("record --limit 1 --task rg_aiw --out {tmp}/broken.yaml", "is no recording"),
        ("record --limit 0 --task rg_aiw --store {tmp}/s.sqlite --out {tmp}/r", "--limit 0"),
        ("record --limit 1 --max-hops 0", "--max-hops 0"),
        ("record --out {shipped} --task rg_aiw", "name another --out"),
        ("run --recording {shipped} --suite paper", "is of suite offline"),
        ("run --max-hops 0", "expected at least 1"),
        ("run --cost-weight nan", "expected a number >= 0"),
        ("run --seed -1", "--seed -1"),
        ("run --out /dev/null/x", "/dev/null/x"),
        ("run --router oracle:best", "oracle:no-stop"),
        ("train --seed -1 --out {tmp}/p.safetensors", "--seed -1"),
        ("train --cost-weight -3 --out {tmp}/p.safetensors", "--cost-weight -3"),
        ("train --total-timesteps 0 --out {tmp}/p.safetensors", "total_timesteps=0"),
        ("train --out {tmp}", "no place for a file"),
        ("list models --pool heavyweight", "unknown pool"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.yaml").write_text("models: [unclosed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HARNESS_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    places = {"tmp": tmp_path, "shipped": recording_folder("lightweight", "offline")}
    monkeypatch.setattr(sys, "argv", ["harness", *(word.format(**places) for word in arguments.split())])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in error
    assert error.startswith("harness: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("run-*"))


POSITIONAL = {"import": ["t.csv"], "compare": ["a", "b"], "report": ["a"], "list": ["models"]}
COMMANDS = {name: get_args(one)[0] for one in get_args(Command) for name in [get_args(one)[0].__name__.lower()]}
TYPES = {
    (name, field.name.replace("_", "-")): str(field.type) for name, one in COMMANDS.items() for field in fields(one)
}
NAMED = [key for key, kind in TYPES.items() if ("str" in kind or "Path" in kind) and "Positional" not in kind]
NUMBERS = [key for key, kind in TYPES.items() if "int" in kind or "float" in kind]


@pytest.mark.parametrize(("name", "flag"), NAMED)
def test_an_empty_value_is_no_default(
    name: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--pool ''` meant the default pool, `--out ''` the working directory: what a script's unset variable makes."""
    monkeypatch.chdir(tmp_path)
    for value in ([f"--{flag}", ""], [f"--{flag}="], [f"--{flag}", "x", " "]):
        monkeypatch.setattr(sys, "argv", ["harness", name, *POSITIONAL.get(name, []), *value])
        with pytest.raises(SystemExit) as caught:
            main()
        error = capsys.readouterr().err
        assert (caught.value.code, error.count("\n")) == (2, 1) and f"--{flag} is given an empty value" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "flag"), NUMBERS)
def test_a_number_is_written_in_the_digits_0_to_9(
    name: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["harness", name, *POSITIONAL.get(name, []), f"--{flag}", "1_0"])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and f"Error parsing --{flag}" in error, error
    assert not list(tmp_path.iterdir())


def test_wrong_weights_are_refused_with_both_hashes(
    tiny_pool_file: Path,
    tiny_tasks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool = tiny_pool_file.parent / "wrong.yaml"
    weights = "{path: tiny-a, file: model.safetensors, sha256: '" + "0" * 64 + "'}"
    pool.write_text(tiny_pool_file.read_text().replace("{path: tiny-a}", weights))
    command = f"run --live --pool {pool} --suite {tiny_tasks / 'suite.yaml'} --router single:tiny-a --split all"
    monkeypatch.setattr(sys, "argv", ["harness", *command.split(), "--store", str(tmp_path / "s.sqlite")])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert (caught.value.code, error.count("\n")) == (2, 1)
    assert "0" * 64 in error


def test_a_router_that_fails_shows_where_and_does_not_look_like_one_that_became_worse(
    tmp_path: Path, harness: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("from routers import register\n\n@register('mine')\ndef mine(request):\n    return request.queri\n")
    for command in (("run",), ("check", "--update", "--baseline", tmp_path / "b.json")):
        assert harness(*command, "--router", mine) == 2
        said = capsys.readouterr().err
        assert 'mine.py", line 5' in said and said.splitlines()[-1].startswith("harness: an error in a router")
    assert not (tmp_path / "b.json").exists()


def test_the_version(harness: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert harness("--version") == 0
    assert capsys.readouterr().out == f"harness {version('hierrouter-harness')}\n"


def test_from_outside_the_exit_code_is_2_and_nothing_is_on_standard_output(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness", "run", "--router", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    unknown = subprocess.run(
        [sys.executable, "-m", "harness", "run", "--roter", "x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert unknown.returncode == 2


@pytest.mark.parametrize("what", ["routers", "models", "tasks", "suites", "pools"])
def test_lists(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "list", what])
    main()
    wanted = {
        "routers": "hierrouter",
        "models": "math-specialist",
        "tasks": "human_eval",
        "suites": "offline",
        "pools": "lightweight",
    }
    assert wanted[what] in capsys.readouterr().out


SHIPPED = {"lightweight-offline": (964, 2), "lightweight-offline-three-hops": (160, 3)}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_recordings_are_complete(name: str) -> None:
    from pools.data.recording import load_recording

    recording = load_recording(recording_folder("lightweight", "offline").with_name(name))
    tree, counts = recording.tree, recording.manifest["counts"]
    assert tree.complete
    assert (len(tree.items), tree.max_hops) == SHIPPED[name]
    assert counts["transitions"] == tree.known[:, 1:].sum()
    assert counts["distinct_requests"] == sum(origin["responses"] for origin in recording.manifest["origins"])
    assert counts["distinct_requests"] == sum(model["requests"] for model in recording.manifest["speed"].values())


def test_the_shipped_recordings_agree_where_they_meet() -> None:
    from pools.data.recording import load_recording

    wide, deep = (load_recording(recording_folder("lightweight", "offline").with_name(n)).tree for n in SHIPPED)
    shared = [(wide.items.index(item), index) for index, item in enumerate(deep.items)]
    assert len(shared) == len(deep.items)
    for node in range(1, wide.nodes):
        for of_wide, of_deep in shared:
            assert wide.generation(of_wide, node) == deep.generation(of_deep, node)
            assert wide.score[of_wide, node] == deep.score[of_deep, node]


def test_a_sandbox_that_does_not_work_is_refused_and_no_weaker_one_is_used(tmp_path: Path) -> None:
    command = ["record", "--limit", "1", "--task", "rg_aiw", "--store", "s.sqlite", "--out", "r", "--sandbox", "bwrap"]
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}  # where there is no bwrap
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert done.stderr == "harness: no sandbox by bwrap: bubblewrap (bwrap) is not installed\n"
    assert not (tmp_path / "s.sqlite").exists()
