"""The exceptions that mean: the user can fix this."""

from __future__ import annotations

import reprlib
from typing import Any

from pools.secrets import clean


class UserError(Exception):
    """Bad input. Its text says what was given, what was expected and what to do next, in one line.

    The command line prints it and exits with code 2; every other exception is a defect of ours. Whatever it quotes, its
    text holds no key: it goes to logs, to clients, to issues.
    """

    def __init__(self, text: str) -> None:
        super().__init__(clean(text))


class QueryError(UserError):
    """A query that cannot be answered as it was asked. Its text tells nothing but that, and is for whoever asked."""


def shown(value: Any) -> str:
    """What was given, short enough for one line, whatever it is."""
    text = _Short()
    text.maxstring = text.maxother = text.maxlong = 60
    return text.repr(value)


class _Short(reprlib.Repr):
    def repr_str(self, text: str, level: int) -> str:
        """Cleaned first: half a key would not be found."""
        return super().repr_str(clean(text), level)
