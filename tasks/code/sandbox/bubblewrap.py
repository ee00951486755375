"""The command line of bubblewrap (`bwrap`) that shuts a program in: what it can see, and what it may keep."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = ("_child.py", "_wire.py", "_syscalls.py")
INSIDE = "/sandbox"
"""Folder that holds the scripts, as the program sees it."""

KEPT = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_READ_SEARCH", "CAP_KILL")
"""The nursery's, to make each program's namespaces; a program has given them all up before it reads a request."""


@dataclass(frozen=True)
class Host:
    """What the interpreter needs of this machine. own_user: whether a user id that nobody has can be taken."""

    visible: tuple[str, ...]
    masked: tuple[str, ...]
    own_user: bool


@functools.cache
def host(interpreter: tuple[str, ...]) -> Host:
    """Asks the interpreter itself, started as the program's will be."""
    script = str(Path(__file__).with_name(SCRIPTS[0]))
    made = subprocess.run([*interpreter, script, "--host"], capture_output=True, check=True, env={}, cwd="/")
    found = json.loads(made.stdout)
    return Host(tuple(found["visible"]), tuple(found["masked"]), found["own_user"])


def command(interpreter: Sequence[str]) -> list[str]:
    """The command line, up to the script's own arguments. Raises OSError where bubblewrap is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise FileNotFoundError("bubblewrap (bwrap) is not installed")
    here = host(tuple(interpreter))
    words = [bwrap, "--new-session"]
    words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--hostname", "sandbox", "--cap-drop", "ALL"]
    words += [word for capability in KEPT for word in ("--cap-add", capability)]
    if not here.own_user:
        words += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    shown = (interpreter[0], *here.visible)
    # By itself bubblewrap hides the contents of a folder from others where this machine does (/root).
    for folder in sorted({str(parent) for path in shown for parent in Path(path).parents} - {"/"}):
        words += ["--perms", "0755", "--dir", folder]
    for path in shown:
        words += ["--dev-bind" if path.startswith("/dev/") else "--ro-bind", path, path]
    for path in here.masked:
        words += ["--perms", "0755", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    for name in SCRIPTS:
        words += ["--ro-bind", str(Path(__file__).with_name(name)), f"{INSIDE}/{name}"]
    words += ["--dir", "/tmp", "--chdir", "/", "--remount-ro", "/"]
    return [*words, "--", *interpreter, f"{INSIDE}/{SCRIPTS[0]}"]
