"""Commands of this project in processes of their own, which tests kill, and small disks that fill up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness as package

ROOT = Path(package.__file__).parent.parent
NAMESPACES = (["unshare", "-m"], ["unshare", "-rm"])


class Commands:
    """`forked_commands.py`, which runs commands of this project in processes of their own."""

    def __init__(self, folder: Path, inside: list[str]) -> None:
        self.folder, self.can_mount = folder, bool(inside)
        program = [*inside, sys.executable, str(Path(__file__).parents[1] / "harness" / "forked_commands.py")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(program, env=environment, cwd=folder, **pipes)
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def _order(self, **order: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments: object, log: str = "log", before: str = "") -> int:
        """The id of a new process."""
        pid: int = self._order(run=[str(a) for a in arguments], log=str(self.folder / log), before=before)
        return pid

    def wait(self, pid: int, seconds: float = 300) -> int:
        """Its exit code; minus the number of the signal that ended it: it is killed after so many seconds."""
        code: int = self._order(wait=pid, seconds=seconds)
        return code

    def run(self, *arguments: object, before: str = "") -> tuple[int, str]:
        """Exit code, and what it wrote to standard error."""
        code = self.wait(self.start(*arguments, before=before))
        return code, (self.folder / "log").read_text()

    def killed(self, seconds: float, *arguments: object, before: str = "") -> bool:
        """Whether it was still running when it was killed after so many seconds; else it must have ended well."""
        code = self.wait(self.start(*arguments, before=before), seconds)
        assert code in (0, -signal.SIGKILL), (self.folder / "log").read_text()
        return code != 0

    def shell(self, command: str) -> None:
        code, output = self._order(shell=command)
        assert code == 0, output

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


class SmallDisk:
    """A file system of so many kB that only the commands see; `look` copies what is there to where the test sees it."""

    def __init__(self, commands: Commands, folder: Path, kilobytes: int) -> None:
        self.commands, self.folder, self._looks = commands, folder, 0
        folder.mkdir()
        commands.shell(f"mount -t tmpfs -o size={kilobytes}k tmpfs {folder}")

    def look(self) -> Path:
        self._looks += 1
        seen = self.folder.with_name(f"{self.folder.name}-{self._looks}")
        self.commands.shell(f"cp -r {self.folder} {seen}")
        return seen

    def make_room(self) -> None:
        self.commands.shell(f"mount -o remount,size=64m {self.folder}")

    def close(self) -> None:
        self.commands.shell(f"umount {self.folder}")


def fill(commands: Commands, folder: Path, kilobytes: int, command: list[object], before: str = "") -> SmallDisk | None:
    """The disk after a command has ended on it for want of room, in one line; None where there was enough."""
    disk = SmallDisk(commands, folder, kilobytes)
    code, said = commands.run(*command, before=before)
    if code == 0:
        disk.close()
        return None
    assert code == 2 and said.count("\n") == 1 and said.startswith("harness: "), said
    assert "make room" in said and str(folder) in said, said
    return disk
