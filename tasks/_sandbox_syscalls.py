"""The system calls that a sandboxed program is refused, by a seccomp filter that it cannot take off.

Refused are those that reach other processes, the network, other users' objects or seldom used parts of the kernel; what
computing needs is left. Signals and limits may be sent and set by a process to itself alone. The number of each call is
fixed for good by the kernel's interface, as are the fields of `struct seccomp_data` (seccomp(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # of classic BPF, on words and constants
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets; the lower half of the argument: both machines little-endian
X32_BIT = 0x40000000
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*, but for CLONE_NEWTIME, which clone(2) does not take

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Name by `uname -m`: audit number, and column in the tables below."""

REFUSED = {
    # the network
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
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
"""Allowed where the first argument, a process id, is the program's own; of prlimit64 also 0, which means the same."""
CLONE, CLONE3 = (56, 220), (435, 435)


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction))]


def instructions(architecture: int, column: int, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter for the process `pid`: operation, how far to jump if true and if false, operand."""
    refuse = (RETURN, 0, 0, ERRNO | errno.EPERM)
    made = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),  # system calls of another architecture have other numbers
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32_BIT),
        refuse,
    ]
    for numbers in REFUSED.values():
        made += [(EQUAL, 0, 1, numbers[column]), refuse]
    # Its flags lie in memory, where no filter sees them: as if the kernel did not have it, and clone is used instead.
    made += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for name, numbers in TO_ITSELF.items():
        allowed = [pid, 0] if name == "prlimit64" else [pid]
        tests = [(EQUAL, len(allowed) - number, 0, process) for number, process in enumerate(allowed)]
        body = [(LOAD, 0, 0, FIRST_ARGUMENT), *tests, refuse, (RETURN, 0, 0, ALLOW)]
        made += [(EQUAL, 0, len(body), numbers[column]), *body]
    made += [(EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (ANY_BIT, 0, 1, NEW_NAMESPACES), refuse]
    return [*made, (RETURN, 0, 0, ALLOW)]


def restrict() -> bool:
    """Refuse them to this process, and to all that it starts; whether this machine's calls are known and it worked.

    The process must have set PR_SET_NO_NEW_PRIVS.
    """
    known = ARCHITECTURES.get(os.uname().machine)
    if known is None:
        return False
    words = instructions(*known, os.getpid())
    program = _Program(len(words), (_Instruction * len(words))(*(_Instruction(*word) for word in words)))
    plain = [ctypes.c_ulong(0)] * 2
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), *plain) == 0)
