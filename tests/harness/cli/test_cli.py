"""The command line as a user meets it: its speed, and one clear line for whatever is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from shipped import POLICY, RECORDING

import harness as package
from pools.data.recording import load_recording
from tasks import load_suite

ROOT = Path(package.__file__).parent.parent
Harness = Callable[..., int]
LIVE = "run --live --limit 1 --task records --split all --store {tmp}/s.sqlite"


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
        ("run --router single:gpt", "the pool has registry-north"),
        ("run --router oracle:best", "oracle:no-stop"),
        ("run --router best-pipeline:\u0661", "a number of hops from 1 to"),
        ("run --router single:reader\u202e", "--router 'single:reader\\u202e' holds U+202E"),
        ("run --router random --router cheapest", "--router is given twice"),
        ("run --router", "--router is given without a value"),
        ("run --router= --limit 1", "--router is given an empty value"),
        ("run --router random cheapest --router-args seed=1", "of which router"),
        ("run --router random --router-args seed=1", "learns nothing and has none"),
        ("run --router-args knn:k=1", "not among the routers"),
        ("run --task nothing", "unknown task 'nothing': the recording"),
        ("run --task rekords", "did you mean records"),
        ("run --task gsm8kk", "did you mean gsm8k?"),
        ("run --task sums gsm8k", "harness record --pool lightweight --task sums gsm8k) and name that recording"),
        (
            "run --task gsm8k",
            "harness record --pool lightweight --task gsm8k) and name that recording (--recording runs/",
        ),
        ("run --task nowhere.yaml", "cannot read task file nowhere.yaml: No such file"),
        ("run --pool lightweight-hub --task gsm8k", "record --pool lightweight-hub --task gsm8k) and name"),
        ("run --live --task nothing --router random", "unknown task 'nothing': expected one of ours, of lm-eval's"),
        ("record --suite offline --task gsm8k", "unknown task 'gsm8k': suite offline has records"),
        ("record --task records gsm8k records", "task records is used twice"),
        ("record --task mine --include_path {tmp}/nowhere", "no such folder; name one that holds task files"),
        ("run --suite ofline", "unknown suite"),
        ("run --pool heavyweight", "unknown pool"),
        ("run --pool lightweight-hub", "no recording of pool lightweight-hub"),
        ("run --recording {tmp}", "is not a recording"),
        ("run --recording {tmp} --live", "exclude each other"),
        ("run --recording {shipped} --suite paper", "is of suite offline"),
        ("run --checkpoint {tmp}/none.safetensors", "is not there; train one with"),
        ("run --checkpoint {tmp}/broken.yaml", "not the checkpoint of a router"),
        ("run --router random --checkpoint {policy}", "is of router hierrouter"),
        ("run --checkpoint {policy} --router-args ent_coef=0.5", "was trained with other options"),
        ("run --max-hops 7", "has 3 hops"),
        ("run --max-hops 0", "expected at least 1"),
        ("run --limit 0", "--limit 0: expected at least 1"),
        ("run --task records --limit 1 --split validation", "no items of split"),
        ("run --seed -1", "--seed -1"),
        ("run --seed 1_0", "Error parsing --seed"),
        ("run --ruoter knn", "run has no option '--ruoter' (did you mean --router?); see python -m harness run --help"),
        ("report --run x", "no option '--run': give its value without --runs; see python -m harness report --help"),
        ("compare --runs=x y", "compare has no option '--runs': give its value without --runs"),
        ("list --what pools", "list has no option '--what': give its value without --what"),
        ("run --no-alow-stop", "did you mean --no-allow-stop?"),
        ("run --total_timesteps 5", "run has no option '--total-timesteps'"),
        ("run here", "Unrecognized options: here; see python -m harness run --help"),
        ("rnu --seed 2", "unknown command 'rnu' (did you mean run?)"),
        ("--hlep", "did you mean --help?"),
        ("", "no command: expected one of run, train"),
        ("list", "{routers,models,tasks,suites,pools} What to list"),
        ("list pool", "'suites', 'pools') (did you mean pools?)"),
        ("run --router {tmp}/broken.yaml", "broken.yaml is no router: a file that registers one ends in .py"),
        ("run --router random --no-allow-stop --max-hops 1", "--no-allow-stop has no effect with one hop"),
        ("check --tolerance-quality 5", "expected a number from 0 to 1, as quality"),
        ("run --cost dollars", "no price for registry-north"),
        ("run --cost-weight -1", "expected a number >= 0"),
        ("run --cost-weight 0,1 --seed 2", "--cost-weight 0,1: expected numbers in digits, with spaces between"),
        ("run --cost-weight 0.1 1_0", "--cost-weight 0.1 1_0: expected numbers"),
        ("run --cost-weight 1e16", "at most 1e+15"),
        ("run --encoder bert", "known are hashing, hashing+surface, sentence"),
        ("run --out {tmp}/broken.yaml", "is a file"),
        ("run --out /dev/null/x", "/dev/null/x"),
        (f"{LIVE} --router single:qwen2.5-coder-0.5b", "hf download"),
        (f"{LIVE} --router oracle", "on a recording"),
        ("run --live --limit 20 --task records --router knn --store {tmp}/s.sqlite", "needs --train-on"),
        (f"{LIVE} --router single:qwen2.5-coder-0.5b --weights {{tmp}}/nowhere", "no such folder"),
        ("train --router random --out {tmp}/p.safetensors", "learns nothing"),
        ("train --resume --out {tmp}/p.safetensors", "nothing to resume"),
        ("train --cost-weights 0.1 -1 --out {tmp}/p.safetensors", "a number of at least 0"),
        ("train --total_timesteps 1 --total-timesteps=2 --out {tmp}/p.safetensors", "--total-timesteps is given twice"),
        ("train --out {tmp}", "no place for a file"),
        ("verify --sample 0", "--sample 0"),
        ("record --limit 1 --resident 0", "--resident 0"),
        ("record --limit 1 --task records --reuse {tmp} --store {tmp}/s.sqlite --out {tmp}/r", "is not a recording"),
        ("record --limit 1 --task records --reuse {tmp}/b.parquet --store {tmp}/s.sqlite --out {tmp}/r", "exported"),
        ("record --limit 1 --task records --store {tmp}/broken.yaml --out {tmp}/r", "transition store"),
        ("record --limit 1 --task records --out {tmp}", "is no recording"),
        ("record --limit 0 --task records --store {tmp}/s.sqlite --out {tmp}/r", "--limit 0"),
        ("record --out {shipped} --task records", "name another --out"),
        ("serve --recording {shipped} --router random --cost-weight 1e16", "at most 1e+15"),
        ("list models --pool heavyweight", "unknown pool"),
        ("list models reader", "takes no name"),
    ],
)
def test_bad_input_is_told_and_the_exit_code_is_2(
    arguments: str,
    message: str,
    tmp_path: Path,
    small_by_default: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.yaml").write_text("models: [unclosed")
    monkeypatch.delenv("HARNESS_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    places = {"tmp": tmp_path, "shipped": small_by_default, "policy": POLICY}
    assert harness(*(word.format(**places) for word in arguments.split())) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("harness: ") and error.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("run-*"))


def test_record_refuses_a_pool_before_it_says_what_it_does(
    tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.yaml").touch()
    assert harness("record", "--pool", tmp_path / "two.yml", "--task", "sums") == 2
    said = capsys.readouterr()
    assert not said.out and said.err.endswith("No such file or directory; did you mean two.yaml?\n")


def test_missing_weights_are_told_before_a_model_is_loaded(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HARNESS_WEIGHTS", raising=False)
    assert harness("serve", "--port", 0) == 2
    said = capsys.readouterr()
    assert "no weights for model qwen2.5-coder-0.5b" in said.err and "loading " not in said.out


def test_wrong_weights_are_refused_with_both_hashes(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tiny_pool_file.parent / "wrong.yaml"
    weights = "{path: tiny-a, file: model.safetensors, sha256: '" + "0" * 64 + "'}"
    pool.write_text(tiny_pool_file.read_text().replace("{path: tiny-a}", weights))
    command = f"run --live --pool {pool} --suite {tiny_tasks / 'suite.yaml'} --router single:tiny-a --split all"
    assert harness(*command.split(), "--store", tmp_path / "s.sqlite", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "0" * 64 in error


def test_a_router_that_fails_shows_where_and_does_not_look_like_one_that_became_worse(
    tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("from routers import register\n\n@register('mine')\ndef mine(request):\n    return request.queri\n")
    for command in (("run", "--out", tmp_path / "r"), ("check", "--update", "--baseline", tmp_path / "b.json")):
        assert harness(*command, "--router", mine) == 2
        said = capsys.readouterr().err
        assert 'mine.py", line 5' in said and said.splitlines()[-1].startswith("harness: an error in a router")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["mine.py"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "class Mine:\n    def __init__(self, request): ...",
            "router mine is a Mine without `act`; expected act(states)",
        ),
        ("def mine(request):\n    return 3", "router mine is a int without `act`"),
        ("class Mine:\n    def act(self, states): ...", "router mine takes (); expected a RouterRequest"),
        (
            "class Mine:\n    def __init__(self, request): ...\n    def act(self, query, hop): ...",
            "router mine: act takes (query, hop); expected states",
        ),
        (
            "class Mine:\n    def fit(self, items): ...\n    def load(self, learnt, request): ...",
            "router mine: fit takes (items); expected train, validation and request",
        ),
    ],
)
def test_a_router_of_another_form_is_one_line(
    written: str,
    message: str,
    tmp_path: Path,
    small_recording: Path,
    harness: Harness,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = tmp_path / "mine.py"
    head = "from dataclasses import dataclass\nfrom routers import register\n\n@register('mine')\n"
    mine.write_text(head + ("@dataclass\n" if "fit" in written else "") + written + "\n")
    given = ("--recording", small_recording, "--router", mine, "--out", tmp_path / "r")
    assert harness("run", *given, "--baselines", "no") == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("harness: ") and error.count("\n") == 1


def test_an_older_python_is_one_line() -> None:
    older = (
        "import sys; sys.version_info = (3, 10, 0); sys.version = '3.10.0 (main)'; sys.argv = {argv}; import harness"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for argv, code, line in ((["-m"], 2, "harness: "), (["x.py"], 1, "ImportError: ")):
        command = [sys.executable, "-c", older.format(argv=argv)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        last = done.stderr.splitlines()[-1]
        assert (done.returncode, last) == (code, f"{line}harness needs Python 3.11 or later, and this is 3.10.0")
        assert code == 1 or done.stderr.count("\n") == 1


def test_a_package_that_the_command_line_takes_is_named() -> None:
    code = "import sys; sys.modules['tyro'] = None; sys.argv = ['harness', 'doctor']\n"
    code += "import harness.__main__\nharness.__main__.main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    line = "harness: the package tyro is not installed; pip install -c constraints.txt -e .\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_the_version(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness("--version") == 0
    assert capsys.readouterr().out == f"harness {version('hierrouter-harness')}\n"


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        (["routers"], "hierrouter"),
        (["routers", "knn"], "--router-args"),
        (["routers", "random"], "no options"),
        (["models"], "registry-north"),
        (["tasks"], "human_eval"),
        (["suites"], "offline"),
        (["pools"], "lightweight"),
    ],
)
def test_lists(what: list[str], shown: str, harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness("list", *what) == 0
    assert shown in capsys.readouterr().out


def test_the_shipped_recording_is_complete() -> None:
    recording = load_recording(RECORDING)
    tree, counts = recording.tree, recording.manifest["counts"]
    assert tree.complete and tree.max_hops == 3
    assert tree.items == tuple(item for task in load_suite("offline").load() for item in task.items())
    assert counts["transitions"] == tree.known[:, 1:].sum()
    assert counts["distinct_requests"] == sum(origin["responses"] for origin in recording.manifest["origins"])
    assert counts["distinct_requests"] == sum(model["requests"] for model in recording.manifest["speed"].values())


def test_a_sandbox_that_does_not_work_is_refused_and_no_weaker_one_is_used(tmp_path: Path) -> None:
    command = ["record", "--limit", "1", "--task", "records", "--store", "s.sqlite", "--out", "r", "--sandbox", "bwrap"]
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}  # where there is no bwrap
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "harness: no sandbox by bwrap: bubblewrap (bwrap) is not installed\n"
    assert not (tmp_path / "s.sqlite").exists()
