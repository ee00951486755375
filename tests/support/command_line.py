"""The command line in the test's own process."""

from __future__ import annotations

import sys

import pytest

from harness.__main__ import main


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """`python -m harness ARGUMENTS`; its exit code."""
    monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
