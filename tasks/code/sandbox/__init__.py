"""Run Python text that nobody has read, in a process of its own that can compute and answer calls, and nothing else."""

from tasks.code.sandbox.session import (
    ISOLATION_VARIABLE,
    Isolation,
    Limits,
    Reply,
    SandboxUnavailable,
    Session,
    call,
    choose_isolation,
    default_isolation,
)

__all__ = [
    "ISOLATION_VARIABLE",
    "Isolation",
    "Limits",
    "Reply",
    "SandboxUnavailable",
    "Session",
    "call",
    "choose_isolation",
    "default_isolation",
]
