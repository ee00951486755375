"""Commands that write into a folder with an earlier result: what is there is the old or the new result, never both.

Each command's writes are interrupted one by one. What a kill leaves is what the disk holds at that moment, so one
command yields a copy of its folder before every write (and in the middle of one). Some of the writes are really killed,
with HARNESS_FAULTS=10 all of them.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import Commands, SmallDisk

from harness.runs.folder import load_run
from pools.data.recording import load_recording
from pools.errors import UserError
from pools.files import finish_moving

# Calls `tick` before everything that changes a file below `target`, and in the middle of the first writes to each.
EVERY_WRITE = """
import builtins, io, os, random, shutil, signal, sys, time
from pathlib import Path

target = {target!r}
busy, count = False, 0

def tick():
    global busy, count
    if not busy:
        busy, count = True, count + 1
        at_write(count)
        busy = False

def below(path, folder=None):
    if isinstance(path, int) or path is None:
        return False
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{{folder}}"), os.fsdecode(path))
    path = os.path.abspath(os.fsdecode(path))
    return path == target or path.startswith(target + os.sep)

def watch(event, given):
    if event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) and below(given[0]):
        tick()
    elif event in ("os.remove", "os.rmdir", "os.truncate") and below(given[0], given[1]):
        tick()
    elif event == "os.mkdir" and below(given[0], given[2]):
        tick()
    elif event == "os.rename" and (below(given[0], given[2]) or below(given[1], given[3])):
        tick()

def opened(file, mode="r", *rest, _open=io.open, **options):
    stream = _open(file, mode, *rest, **options)
    if set(mode) & set("wax+") and below(file):
        write, left = stream.write, 2
        def halved(data):
            nonlocal left
            if not left:
                return write(data)
            left -= 1
            tick()
            write(data[:len(data) // 2])
            stream.flush()
            tick()
            write(data[len(data) // 2:])
            return len(data)
        stream.write = halved
    return stream

io.open = builtins.open = opened
sys.addaudithook(watch)
"""
COPIED = (
    EVERY_WRITE
    + """
def at_write(number):
    if os.path.exists(target):
        shutil.copytree(target, f"{copies}/{{number}}", symlinks=True)
"""
)
KILLED = (
    EVERY_WRITE
    + """
def at_write(number):
    if number == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
"""
)
# Both begin to write at the same moment, and take their time.
TOGETHER = (
    EVERY_WRITE
    + """
import fcntl

met, lock = False, fcntl.flock

def meet():
    global met
    if not met:
        met = True
        Path(f"{meeting}/{{os.getpid()}}").touch()
        deadline = time.monotonic() + 5
        while len(os.listdir({meeting!r})) < 2 and time.monotonic() < deadline:
            time.sleep(0.002)

def flock(*given):
    meet()
    lock(*given)

def at_write(number):
    if number > 1:  # the first makes the folder, long before there is anything to write
        meet()
    time.sleep(random.Random(os.getpid() + number).uniform(0, 0.004))

fcntl.flock = flock
"""
)
# A run's own training, in a moment.
SHORT = """
import dataclasses, routers.ppo_hierrouter as p
train = p.train
p.train = lambda args, *rest: train(dataclasses.replace(args, total_timesteps=2_000, num_envs=32), *rest)
"""


@dataclass(frozen=True)
class Case:
    """A command that writes into a folder, twice: `old` made what is there, `new` replaces it.

    last: the file that says that the result is whole. read: raises UserError for what is none. lasting: names that are
    of neither result and have to stay.
    """

    old: list[object]
    new: list[object]
    last: str
    read: Callable[[Path], Any]
    before: str = ""
    lasting: tuple[str, ...] = ()


def _run(recording: Path, seed: int, *routers: str) -> list[object]:
    command: list[object] = ["run", "--recording", recording, "--router", *routers, "--baselines", "no"]
    return [*command, "--seed", seed, "--force", "--out"]


@pytest.fixture(scope="module")
def cases(
    commands: Commands,
    small_recording: Path,
    tiny_pool_file: Path,
    tiny_tasks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Case]:
    made = tmp_path_factory.mktemp("cases")
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 1, "--limit", 12)
    record: list[object] = ["record", *selection, "--sandbox", "rlimits"]
    runs = [made / "one", made / "two"]
    assert commands.run(*_run(small_recording, 1, "random", "single:reader"), runs[0]) == (0, "")
    assert commands.run(*_run(small_recording, 2, "random"), runs[1]) == (0, "")
    checkpoint = made / "p.safetensors"
    train: list[object] = ["train", "--recording", small_recording, "--total-timesteps", 2_000]
    assert commands.run(*train, "--seed", 3, "--out", checkpoint) == (0, "")
    return {
        "run": Case(
            # The same routers, so that nothing but the figures tells the two apart; the old one keeps its checkpoint.
            _run(small_recording, 1, "hierrouter", "random"),
            [*_run(small_recording, 2, "hierrouter", "random")[:-1], "--checkpoint", checkpoint, "--out"],
            *("summary.json", load_run, SHORT, ("notes.txt",)),
        ),
        "record": Case(
            [*record, "--store", made / "s1", "--out"],
            [*record, "--store", made / "s2", "--out"],
            "manifest.json",
            load_recording,
        ),
        "report": Case(
            ["report", runs[0], "--force", "--out"], ["report", runs[1], "--force", "--out"], "r.html", _page
        ),
    }


def _page(folder: Path) -> None:
    if not (folder / "r.html").is_file():
        raise UserError("no page")


def target(case: Case, folder: Path) -> Path:
    """What `--out` names: the folder, or the file in it."""
    return folder / case.last if case.last.startswith(("p.", "r.")) else folder


def content(folder: Path) -> dict[str, str]:
    """A digest of each file; of a manifest without its times and dates, which differ from run to run."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(".") and not name.endswith((".partial", ".state")):
            data = path.read_bytes()
            if name == "manifest.json":
                manifest = json.loads(data)
                data = json.dumps([manifest.get("sha256"), manifest.get("seed")]).encode()
            found[name] = hashlib.sha256(data).hexdigest()
    return found


@dataclass(frozen=True)
class Results:
    """The two results of a case, each in a folder of its own, and their digests."""

    case: Case
    folders: tuple[Path, Path]
    old: dict[str, str]
    new: dict[str, str]

    def judged(self, folder: Path) -> str:
        """What a folder holds once a reader has seen it: old, new, none, mixed; accepted, if it is mixed and read."""
        there = content(folder)
        raw = self.case.last not in there or there in (self.old, self.new)
        finish_moving(folder, self.case.last)
        there = content(folder)
        try:
            self.case.read(folder)
        except UserError:
            return "none" if self.case.last not in there else "mixed"
        if there not in (self.old, self.new):
            return "accepted"
        return "mixed" if not raw else "old" if there == self.old else "new"


@pytest.fixture(scope="module")
def results(commands: Commands, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`results(name)`: the old and the new result of a command, made where nothing was."""

    def make(name: str) -> Results:
        case, made = cases[name], tmp_path_factory.mktemp(name)
        folders = (made / "old" / "x", made / "new" / "x")
        for folder, command in zip(folders, (case.old, case.new), strict=True):
            folder.parent.mkdir()
            assert commands.run(*command, target(case, folder), before=case.before) == (0, "")
            for lasting in case.lasting:
                (folder / lasting).write_text("of the user")
        if name == "run":
            (folders[0] / "report.html").write_text("on the old run")
            (folders[0] / "wandb.json").write_text("{}")
            assert {path.name for path in folders[0].iterdir()} > {path.name for path in folders[1].iterdir()}
        return Results(case, folders, *map(content, folders))

    return make


@pytest.mark.parametrize("name", ["run", "record", "report"])
def test_a_command_that_is_killed_at_any_write(
    commands: Commands, results: Any, tmp_path: Path, counted: Any, faults: int, name: str
) -> None:
    found: Results = results(name)
    case, folder, copies = found.case, tmp_path / "x", tmp_path / "copies"
    assert found.old != found.new

    def restored() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(found.folders[0], folder))

    copies.mkdir()
    before = COPIED.format(target=str(restored()), copies=copies)
    assert commands.run(*case.new, target(case, folder), before=before + case.before) == (0, "")
    assert content(folder) == found.new
    # A temporary file would be taken for the user's.
    assert not [path.name for path in folder.iterdir() if "partial" in path.name]
    writes = len(list(copies.iterdir()))
    assert writes > 8
    verdicts = Counter(found.judged(copies / str(number)) for number in range(1, writes + 1))

    really = range(1, writes + 1) if faults >= 10 else random.Random(7).sample(range(1, writes + 1), 2 * faults)
    for number in really:
        before = KILLED.format(target=str(restored()), number=number)
        pid = commands.start(*case.new, target(case, folder), before=before + case.before)
        assert commands.wait(pid) == -signal.SIGKILL
        verdicts[found.judged(Path(shutil.copytree(folder, tmp_path / "seen")))] += 1
        shutil.rmtree(tmp_path / "seen")
        assert commands.run(*case.new, target(case, folder), before=case.before) == (0, "")
        assert content(folder) == found.new
    interrupted = sum(verdicts.values())
    mixed, accepted = verdicts["mixed"] + verdicts["accepted"], verdicts["accepted"]
    counted("SIGKILL at any write", f"`{name}` into an earlier result", interrupted, mixed=mixed, wrong=accepted)
    assert verdicts["old"] and verdicts["new"], "both sides of the moment at which the new result is there"
    assert not verdicts["none"]


@pytest.mark.parametrize("name", ["run", "record"])
def test_two_processes_on_one_folder(
    commands: Commands, results: Any, tmp_path: Path, counted: Any, faults: int, name: str
) -> None:
    """One whole result of one of them, and no word from the other."""
    found: Results = results(name)
    case, both, seen = found.case, (found.old, found.new), Counter[str]()
    for number in range(2 * faults):
        folder, meeting = tmp_path / f"{number}" / "x", tmp_path / f"meeting{number}"
        folder.parent.mkdir()
        meeting.mkdir()
        if number % 2:
            shutil.copytree(found.folders[0], folder)
        before = TOGETHER.format(target=str(folder), meeting=str(meeting)) + case.before
        pair = [case.old, case.new] if number % 4 < 2 else [case.new, case.old]
        started = [
            commands.start(*command, target(case, folder), log=f"log{n}", before=before)
            for n, command in enumerate(pair)
        ]
        ended = [commands.wait(pid) for pid in started]
        logs = [(commands.folder / f"log{n}").read_text() for n in range(2)]
        assert (ended, logs) == ([0, 0], ["", ""])
        case.read(folder)
        beside = {*case.lasting, "report.html", "wandb.json"}
        there, *made = ({k: v for k, v in one.items() if k not in beside} for one in (content(folder), *both))
        seen["whole" if there in made else "accepted"] += 1
    counted("two at once", f"`{name}` into one folder", sum(seen.values()), wrong=seen["accepted"])


def test_a_full_disk_with_an_earlier_result(
    commands: Commands, results: Any, disks: Path, counted: Any, faults: int
) -> None:
    """The earlier result stays as it was, to the last file; with room the same command succeeds."""
    found: Results = results("run")
    case, rng, full, wrong = found.case, random.Random(8), 0, 0
    # A file takes up whole pages of 4 kB, and so does a folder that is not empty.
    taken, more = (4 * sum(1 + path.stat().st_size // 4096 for path in f.rglob("*")) + 8 for f in found.folders)
    while full < 2 * faults:
        disk = SmallDisk(commands, disks / str(rng.random()), taken + rng.randrange(4, more, 4))
        folder = disk.folder / "x"
        commands.shell(f"cp -r {found.folders[0]} {folder}")
        code, said = commands.run(*case.new, target(case, folder), before=case.before)
        seen = disk.look() / "x"
        if code == 0:
            disk.close()
            continue
        full += 1
        assert (code, said.count("\n")) == (2, 1) and "make room" in said and str(folder) in said, said
        assert not [path for path in seen.iterdir() if "partial" in path.name], "it takes up no room"
        wrong += content(seen) != found.old or found.judged(seen) != "old"
        disk.make_room()
        assert commands.run(*case.new, target(case, folder), before=case.before) == (0, "")
        wrong += content(disk.look() / "x") != found.new
        disk.close()
    counted("full disk", "`run` into an earlier result", full, full, wrong=wrong)
