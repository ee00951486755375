"""The filter of system calls, read as the kernel reads it: for both machines, whichever this one is."""

import errno

import pytest

from tasks.code.sandbox import _syscalls as syscalls

PID = 4321
REFUSED = syscalls.ERRNO | errno.EPERM
HIGH = 1 << 32
AF_TIPC, MAP_PRIVATE, MAP_ANONYMOUS, MAP_SHARED_VALIDATE = 30, 2, 32, 3
OWN, SIGNAL, OWN_EX, GET_FLAGS = 8, 10, 15, 3


def answer(machine: str, number: int, *arguments: int) -> int:
    """What the filter says to one call."""
    architecture, column = syscalls.ARCHITECTURES[machine]
    data = {syscalls.NUMBER: number, syscalls.ARCHITECTURE: architecture}
    data |= {syscalls.ARGUMENTS + 8 * place: value & (HIGH - 1) for place, value in enumerate(arguments)}
    words, place, loaded = syscalls.instructions(architecture, column, PID), 0, 0
    while True:
        code, if_true, if_false, value = words[place]
        if code == syscalls.RETURN:
            return value
        if code == syscalls.LOAD:
            loaded = data[value]
            place += 1
            continue
        tests = {
            syscalls.EQUAL: loaded == value,
            syscalls.ANY_BIT: bool(loaded & value),
            syscalls.AT_LEAST: loaded >= value,
        }
        place += 1 + (if_true if tests[code] else if_false)


FCNTL, IOCTL = (syscalls.COMMANDS[name][0] for name in ("fcntl", "ioctl"))


@pytest.mark.parametrize("column, machine", list(enumerate(["x86_64", "aarch64"])))
@pytest.mark.parametrize(
    "numbers, arguments, allowed",
    [
        *[(FCNTL, (3, high + command, 1), False) for command in (OWN, SIGNAL, OWN_EX) for high in (0, HIGH, -HIGH)],
        (FCNTL, (3, GET_FLAGS, 0), True),
        *[(IOCTL, (3, high + command, 1), False) for command in (0x8901, 0x8902) for high in (0, HIGH)],
        (IOCTL, (3, 0x5401, 0), True),  # whether it is a terminal
        (syscalls.MMAP, (0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), True),
        (syscalls.MMAP, (0, 4096, 3, syscalls.SHARED | MAP_ANONYMOUS, -1, 0), False),
        (syscalls.MMAP, (0, 4096, 3, MAP_SHARED_VALIDATE, 5, 0), False),
        (syscalls.SOCKETPAIR, (syscalls.AF_UNIX, 1, 0, 0), True),
        (syscalls.SOCKETPAIR, (AF_TIPC, 1, 0, 0), False),
        (syscalls.TO_ITSELF["kill"], (PID, 9), True),
        (syscalls.TO_ITSELF["kill"], (1, 9), False),
        (syscalls.TO_ITSELF["kill"], (0, 9), False),
        (syscalls.TO_ITSELF["prlimit64"], (0, 7), True),
        (syscalls.TO_ITSELF["prlimit64"], (1, 7), False),
    ],
)
def test_a_call_is_judged_by_its_argument(
    machine: str, column: int, numbers: tuple[int, int], arguments: tuple[int, ...], allowed: bool
) -> None:
    assert answer(machine, numbers[column], *arguments) == (syscalls.ALLOW if allowed else REFUSED)


@pytest.mark.parametrize("column, machine", list(enumerate(["x86_64", "aarch64"])))
def test_calls_are_refused_by_number_and_others_allowed(machine: str, column: int) -> None:
    refused = {numbers[column] for numbers in syscalls.REFUSED.values()}
    judged = [syscalls.MMAP, syscalls.SOCKETPAIR, FCNTL, IOCTL]
    judged += syscalls.TO_ITSELF.values()
    assert not refused & {numbers[column] for numbers in judged}
    assert all(answer(machine, number) == REFUSED for number in refused)
    others = set(range(512)) - refused - {numbers[column] for numbers in judged}
    assert all(answer(machine, number) == syscalls.ALLOW for number in others)
