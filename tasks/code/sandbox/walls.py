"""The commands that shut the fork server in: bubblewrap, or `unshare` of util-linux with a script of mounts."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

SCRIPTS = ("_child.py", "_wire.py", "_syscalls.py")
INSIDE = "/sandbox"
"""Folder that holds the scripts, as the program sees it."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

KEPT = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_READ_SEARCH", "CAP_KILL")
"""The fork server's in bubblewrap; a program has given them all up before it reads a request."""

ROOT = "/sys"
"""Where `unshare` builds the new root: a folder that every Linux has, and no Python lies in."""


def command(isolation: str) -> list[str]:
    """The command line of the fork server, up to its own arguments. Raises OSError if a tool is not installed."""
    # -S: no site-packages. -P and -B: neither reads nor writes beside the script. Not -I: it ignores the hash seed.
    python = [getattr(sys, "_base_executable", None) or sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8"]
    here = Path(__file__).parent
    if isolation == "rlimits":
        return [*python, str(here / SCRIPTS[0])]
    visible = _visible(python)
    shown = {path: path for path in (python[0], *visible)} | {str(here / name): f"{INSIDE}/{name}" for name in SCRIPTS}
    # Installed packages are hidden, among them the data sets with the tests.
    hidden = [path for folder in visible for path in glob.glob(f"{glob.escape(folder)}/python*/*-packages")]
    walls = _bubblewrap if isolation == "bwrap" else _unshare
    return [*walls(shown, hidden), *python, f"{INSIDE}/{SCRIPTS[0]}"]


def _visible(python: Sequence[str]) -> list[str]:
    """The paths that the program may read: the standard library, the shared libraries, three devices."""
    found = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", *DEVICES}
    found |= {f"{sys.base_prefix}/lib", f"{sys.base_prefix}/{sys.platlibdir}"}
    # Python's own libraries, the C library among them, may lie elsewhere (Nix, Spack).
    script = "import ctypes, json, socket; print(open('/proc/self/maps').read())"
    maps = subprocess.run([*python, "-c", script], env={}, capture_output=True, text=True).stdout
    for folder in re.findall(r" (/.*)/[^/\n]*\.so[^/\n]*$", maps, re.MULTILINE):
        if found.isdisjoint(map(str, [folder, *Path(folder).parents])):
            found.add(folder)
    return sorted(path for path in found if os.path.exists(path))


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{package} ({name}) is not installed")
    return path


def _own_user() -> bool:
    """Whether this process is root and may take a user id that nobody has; elsewhere a user namespace is made."""
    return os.geteuid() == 0 and "4294967295" in Path("/proc/self/uid_map").read_text()


def _bubblewrap(shown: dict[str, str], hidden: Sequence[str]) -> list[str]:
    words = [_tool("bwrap", "bubblewrap")]
    words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--cap-drop", "ALL", *(word for capability in KEPT for word in ("--cap-add", capability))]
    if not _own_user():
        words += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    # By itself bubblewrap hides the contents of a folder from others where this machine does (/root).
    for folder in sorted({str(parent) for path in shown.values() for parent in Path(path).parents} - {"/"}):
        words += ["--perms", "0755", "--dir", folder]
    for path, inside in shown.items():
        words += ["--dev-bind" if path in DEVICES else "--ro-bind", path, inside]
    for path in hidden:
        words += ["--perms", "0755", "--tmpfs", path, "--remount-ro", path]
    return [*words, "--dir", "/tmp", "--chdir", "/", "--remount-ro", "/", "--"]


def _unshare(shown: dict[str, str], hidden: Sequence[str]) -> list[str]:
    words = [_tool("unshare", "util-linux")]
    if not _own_user():
        words += ["--user", "--map-user=1000", "--map-group=1000", "--keep-caps"]
    words += ["--mount", "--net", "--ipc", "--uts", "--pid", "--cgroup", "--fork", "--kill-child"]
    lines = ["set -e", "umask 022", f"mount -t tmpfs -o mode=755,size=1m,nosuid,nodev none {ROOT}"]
    for path, inside in shown.items():
        target = quote(ROOT + inside)
        if os.path.isdir(path):
            lines.append(f"mkdir -p {target}")
        else:
            lines += [f"mkdir -p {quote(os.path.dirname(ROOT + inside))}", f"touch {target}"]
        lines.append(f"mount --rbind {quote(path)} {target}")
    lines += [f"mount -t tmpfs -o ro,mode=755,nosuid,nodev none {quote(ROOT + path)}" for path in hidden]
    lines += [f"mkdir {ROOT}/tmp", f'exec chroot {ROOT} "$@" --seal']
    return [*words, "--", "sh", "-c", "\n".join(lines), "sh"]
