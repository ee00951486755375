"""A griffe extension: the parameters and fields that a docstring explains in running text become a list on the site."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from griffe import Class, Extension, Function


class Listed(Extension):
    """Rewrites `name: what it is. other: what that is.` of functions and classes."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Of its parameters."""
        if func.docstring:
            func.docstring.value = listed(func.docstring.value, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Of its fields and attributes, those of a dataclass or set in `__init__`."""
        if cls.docstring:
            cls.docstring.value = listed(cls.docstring.value, [*cls.attributes])


def listed(text: str, names: Iterable[str]) -> str:
    """The text with an item of a list for each of the names that it explains; `Raises` begins a paragraph."""
    name = "|".join(map(re.escape, names)) or "$^"
    begins = re.compile(rf"(?:^|(?<=[.;] ))(?=(?:{name})(?:, (?:{name}))*: )")
    paragraphs = []
    for paragraph in re.sub(r"^Attributes:\n", "", text, flags=re.MULTILINE).split("\n\n"):
        line = " ".join(paragraph.split())
        if not begins.search(line):
            paragraphs.append(paragraph)
            continue
        before, *entries = begins.split(line)
        last, *after = re.split(r"(?<=\. )(?=Raises )", entries.pop())
        items = [re.sub(r"^[\w, ]+?(?=: )", _as_code, entry.rstrip(" ;")) for entry in [*entries, last]]
        paragraphs += [before.strip(), "\n".join(f"- {item}" for item in items), *after]
    return "\n\n".join(part for part in paragraphs if part)


def _as_code(found: re.Match[str]) -> str:
    return ", ".join(f"`{name}`" for name in found[0].split(", "))
