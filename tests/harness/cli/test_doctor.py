"""`doctor` finds what is damaged, missing or unreachable, and says whether `run` works."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from shipped import POLICY

from harness.cli import doctor

Harness = Callable[..., int]
Lines = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def lines(harness: Harness, capsys: pytest.CaptureFixture[str]) -> Lines:
    """`lines(...)`: the exit code of `doctor`, and what it prints."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        code = harness("doctor", *arguments)
        return code, capsys.readouterr().out.splitlines()

    return run


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_ships_is_whole_and_run_works(lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HARNESS_SANDBOX", "rlimits")
    start = time.process_time()
    code, said = lines()
    assert time.process_time() - start < 3
    assert (code, said[-1]) == (0, "python -m harness run works")
    assert not [line for line in said if line.startswith("fails")]
    assert "ok       recording lightweight-offline: whole, 6 models" in said
    assert "ok       policy hierrouter-1: whole, of lightweight-offline" in said
    assert any(line.startswith("missing  hub: not asked, HF_HUB_OFFLINE is set") for line in said)
    assert "ok       sandbox: rlimits, as HARNESS_SANDBOX asks" in said
    assert any("here: registry-north" in line for line in said)
    assert not list(tmp_path.iterdir())


def test_a_damaged_recording_is_named_with_what_restores_it(lines: Lines, small_by_default: Path) -> None:
    code, said = lines("--patience", 0)
    assert code == 0 and "ok       recording lightweight-offline: whole, 6 models" in said
    # Another recording than the policies were trained on is no fault: `run` trains one.
    assert any(line.startswith("missing  policy hierrouter-1: was not trained on") for line in said)
    damage(small_by_default / "transitions.parquet")
    code, said = lines("--patience", 0)
    assert (code, said[-1]) == (1, "python -m harness run fails: see recording lightweight-offline")
    (line,) = (line for line in said if line.startswith("fails    recording"))
    assert "its sha256 is another" in line and line.endswith("install the project again")


@pytest.mark.parametrize(("seed", "code"), [(1, 1), (2, 0)])
def test_a_damaged_policy_stops_run_only_if_it_is_the_one_that_run_takes(
    seed: int, code: int, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(POLICY.parent, tmp_path / "policies" / POLICY.parent.name))
    monkeypatch.setattr("harness.runs.checkpoints.FOLDER", folder.parent)
    damage(folder / f"hierrouter-{seed}.safetensors")
    found, said = lines("--patience", 0)
    assert found == code
    failing = [line.partition(":")[0] for line in said if line.startswith("fails")]
    assert failing == [f"fails    policy hierrouter-{seed}"]


def test_a_package_that_is_missing_is_named_and_nothing_is_looked_at_after_it(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "gymnasium":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "numpy" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    code, said = lines()
    assert code == 1 and not any("recording" in line for line in said[:-1])
    lacking = "not installed: gymnasium, numpy>=2.0 (here is 0.1)"
    assert f"fails    packages: {lacking}; pip install -c constraints.txt -e ." in said


def test_the_packages_of_an_extra_of_a_package_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"a": ["b>=2; extra == 'x'", "c; extra == 'y'", "d", "e; extra == 'x' and python_version < '3'"]}
    versions = {"a": "1.5", "b": "1.0", "d": "1"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked.get(name))
    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {text: [*doctor.missing(Requirement(text))] for text in ("a>=1", "a[x]>1", "a[y]<1", "c")}
    assert found == {
        "a>=1": [], "a[x]>1": ["b>=2 (here is 1.0)"], "a[y]<1": ["a<1 (here is 1.5)", "c"], "c": ["c"],
    }  # fmt: skip


def test_every_extra_of_a_command_is_named_with_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "missing", lambda one: iter([one.name]))
    fixes = {found.what: found.fix for found in doctor.extras()}
    constrained = {f"extra {e}": f"pip install -c constraints.txt -e '.[{e}]'" for e in ("serve", "ray", "workspaces")}
    constrained["extra math"] = "pip install -c constraints.txt -e '.[math]'"
    # vLLM names its version of torch, which the constraints do, too.
    assert fixes == {**constrained, "extra vllm": "pip install -e '.[vllm]'"}


Hub = tuple[str, threading.Event, list[int]]


@pytest.fixture
def server() -> Iterator[Hub]:
    """The address of a hub, what lets it answer, and the status that it answers with."""
    answer, status = threading.Event(), [200]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            answer.wait(10)
            self.send_response_only(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}", answer, status
    answer.set()
    serving.shutdown()
    serving.server_close()


def test_the_hub_is_asked_for_no_longer_than_is_said(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    address, answer, status = server
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    start = time.monotonic()
    silent = doctor.hub(0.2)
    assert time.monotonic() - start < 3 and (silent.state, silent.needed) == ("missing", False)
    answer.set()
    assert doctor.hub(5.0) == doctor.Finding("hub", "ok", f"{address} answers")
    for status[0] in (304, 403, 404, 407, 500):  # a proxy that forbids it, an address that is no hub
        found = doctor.hub(5.0)
        told = (found.state, found.said)
        assert told == (
            ("ok", f"{address} answers") if status[0] == 304 else ("missing", f"{address}: HTTP {status[0]}")
        )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "refused" in doctor.hub(5.0).said


def test_no_patience_below_zero(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness("doctor", "--patience", -1) == 2
    assert "--patience -1: expected seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("fastapi", "serve", "serve"),
        ("ray", "record --task sums --engine ray", "ray"),
        ("wandb_workspaces", "report {run} --wandb", "workspaces"),
    ],
)
def test_commands_name_the_extra_that_they_lack_as_doctor_does(
    module: str, command: str, extra: str, tmp_path: Path, small_recording: Path, harness: Harness,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And before they have worked: no page is written."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    if extra == "workspaces":
        assert harness("run", "--recording", small_recording, "--router", "random", "--out", run) == 0
        (run / "wandb.json").write_text('{"entity": null, "project": "p", "id": "1"}')
    for name in [name for name in sys.modules if name.partition(".")[0] == module or name == "harness.serving.app"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert harness(*command.format(run=run).split()) == 2
    assert capsys.readouterr().err.endswith(f": pip install -c constraints.txt -e '.[{extra}]'\n")
    assert not (run / "report.html").exists()
