"""The system calls that a sandboxed program is refused, by a seccomp filter that it cannot take off.

Refused are those that start or reach other processes, the network, other users' objects or seldom used parts of the
kernel, and those that hold memory which no limit counts; what computing needs is left. Signals and limits may be sent
and set by a process to itself alone. The number of each call is fixed for good by the kernel's interface, as are the
fields of `struct seccomp_data` (seccomp(2)).

Of an argument the lower half is looked at, whatever the upper one holds: of those below the kernel reads no more, or
has all their flags there.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # of classic BPF, on words and constants
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets; an argument has 8 bytes, the lower half first on both machines
X32_BIT = 0x40000000
SHARED = 1  # the bit that MAP_SHARED and MAP_SHARED_VALIDATE have in common, and MAP_PRIVATE has not
AF_UNIX = 1

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Name by `uname -m`: audit number, and column in the tables below."""

REFUSED = {
    # the network
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "setsockopt": (54, 208),  # a socketpair may be made: its buffers stay small
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    # other processes
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, 220),  # ARM64 has clone alone
    "vfork": (58, 220),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # objects that outlive a process
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # memory that no limit counts: files and pages that nothing maps, descriptors in flight, queues and tables
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "vmsplice": (278, 75),
    "splice": (275, 76),
    "tee": (276, 77),
    "io_setup": (206, 0),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "prctl": (157, 167),  # PR_FUTEX_HASH is a table of any size, PR_SET_THP_DISABLE would undo what `_program` sets
    "seccomp": (317, 277),
    # the machine, and large or seldom used parts of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
}
TO_ITSELF = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
}
"""Allowed if the first argument, a process id, is the program's own; of prlimit64 also 0, which means the same."""
SOCKETPAIR = (53, 199)
COMMANDS = {
    # F_SETOWN, F_SETSIG, F_SETOWN_EX: whom a descriptor that is ready sends which signal; F_SETLEASE holds openers up
    "fcntl": ((72, 25), (8, 10, 15, 1024)),
    # FIOSETOWN, SIOCSPGRP: the same; TIOCSTI types into a terminal
    "ioctl": ((16, 29), (0x8901, 0x8902, 0x5412)),
}
"""Refused if the second argument is one of these."""
MMAP = (9, 222)


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction))]


Word = tuple[int, int, int, int]
"""Operation, how far to jump if true and if false, operand."""


def instructions(architecture: int, column: int, pid: int) -> list[Word]:
    """The filter for the process `pid`."""
    allow, refuse = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | errno.EPERM)
    made = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),  # system calls of another architecture have other numbers
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32_BIT),
        refuse,
    ]
    for number in sorted({numbers[column] for numbers in REFUSED.values()}):
        made += [(EQUAL, 0, 1, number), refuse]

    def judge(number: int, argument: int, test: int, values: Sequence[int], hit: Word, otherwise: Word) -> list[Word]:
        """Of the call `number`: `hit` if the argument passes the test with one of the values."""
        tests = [(test, len(values) - place, 0, value) for place, value in enumerate(values)]
        body = [(LOAD, 0, 0, ARGUMENTS + 8 * argument), *tests, otherwise, hit]
        return [(EQUAL, 0, len(body), number), *body]

    for name, numbers in TO_ITSELF.items():
        own = [pid, 0] if name == "prlimit64" else [pid]
        made += judge(numbers[column], 0, EQUAL, own, allow, refuse)
    made += judge(SOCKETPAIR[column], 0, EQUAL, [AF_UNIX], allow, refuse)
    for numbers, commands in COMMANDS.values():
        made += judge(numbers[column], 1, EQUAL, commands, refuse, allow)
    # Shared memory lives as long as one page of it is mapped, and that page is all that the limit counts.
    made += judge(MMAP[column], 3, ANY_BIT, [SHARED], refuse, allow)
    return [*made, allow]


def restrict() -> None:
    """Refuse them to this process, where this machine's calls are known. It must have set PR_SET_NO_NEW_PRIVS.

    Raises OSError if the kernel has no filters.
    """
    known = ARCHITECTURES.get(os.uname().machine)
    if known is None:
        return
    words = instructions(*known, os.getpid())
    program = _Program(len(words), (_Instruction * len(words))(*(_Instruction(*word) for word in words)))
    plain = [ctypes.c_ulong(0)] * 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), *plain) != 0:
        raise OSError(ctypes.get_errno(), "no filter of system calls (seccomp)")
