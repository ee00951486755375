"""One form of registry: ours and a user's file by a decorator, those of packages by an entry point."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from pools.errors import UserError
from pools.names import check_name, did_you_mean

T = TypeVar("T")
_E = TypeVar("_E")


class Registry(Generic[T]):
    """What is known by a name.

    kind: what an entry is, for messages ("router"). group: of the entry points of other packages. package: the modules
    of ours that register entries, imported when a name is first asked for; those that begin with `_` or `skip` are not.
    """

    def __init__(self, kind: str, group: str, package: str, skip: tuple[str, ...] = ()) -> None:
        self.kind, self.group, self._package, self._skip = kind, group, package, ("_", *skip)
        self._entries: dict[str, T] = {}
        self._of_files: dict[str, list[str]] = {}

    def register(self, name: str) -> Callable[[_E], _E]:
        """Decorate an entry to make it known by a name. Raises UserError for an invalid name."""
        check_name(name, self.kind)

        def remember(entry: _E) -> _E:
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return remember

    def names(self) -> list[str]:
        """All known names, in order."""
        self._import_ours()
        return sorted({*self._entries, *self._elsewhere()})

    def find(self, text: str) -> tuple[str, T, str]:
        """The name, the entry and the argument that a text asks for: `NAME`, `NAME:ARGUMENT`, or one of a file.

        Of a file: `FILE.py`, if it registers one, or `FILE.py:NAME` or `FILE.py:NAME:ARGUMENT`.
        Raises UserError for a name that is not known, and for a file that cannot be imported.
        """
        name, _, argument = text.partition(":")
        self._import_ours()
        if name.endswith(".py"):
            name, argument = self._of_file(Path(name), argument)
        if name in self._entries:
            return name, self._entries[name], argument
        if entry := self._elsewhere().get(name):
            try:
                return name, entry.load(), argument
            except Exception as error:
                raise UserError(
                    f"{self.kind} {name} of another package ({entry.value}) cannot be imported: "
                    f"{type(error).__name__}: {error}; fix or remove that package"
                ) from error
        if os.path.isfile(name):
            raise UserError(f"{name} is no {self.kind}: a file that registers one ends in .py")
        hint = did_you_mean(name, self.names())
        raise UserError(f"unknown {self.kind} {text!r}: known are {', '.join(self.names())}{hint}")

    def entry(self, given: str | type) -> tuple[str, T, str]:
        """As `find`; a class that need not be registered goes by the name it is registered by, or its own."""
        if isinstance(given, str):
            return self.find(given)
        self._import_ours()
        known = (name for name, entry in self._entries.items() if entry is given)
        return next(known, given.__name__), given, ""  # type: ignore[return-value]

    def name_of(self, given: object) -> str:
        """The entry that built an object: the one of its class, the only one of its module; else its class's name."""
        kind = type(given)
        self._import_ours()
        of_class = [name for name, entry in self._entries.items() if entry is kind]
        of_module = [name for name, entry in self._entries.items() if entry.__module__ == kind.__module__]
        return next(iter(of_class or (of_module if len(of_module) == 1 else [])), kind.__qualname__)

    def describe(self, name: str) -> str:
        """One line on an entry: the first of its docstring, or the package that it is from."""
        self._import_ours()
        if name in self._entries:
            return (inspect.getdoc(self._entries[name]) or "").partition("\n")[0]
        entry = self._elsewhere().get(name)
        return f"of another package: {entry.value}" if entry else ""

    def _elsewhere(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def _import_ours(self) -> None:
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith(self._skip):
                importlib.import_module(f"{self._package}.{module.name}")

    def _of_file(self, path: Path, rest: str) -> tuple[str, str]:
        """Import a file that the user names; the name and the argument of the entry in it that `rest` asks for."""
        if not path.is_file():
            raise UserError(f"no such file: {path}; name one that registers a {self.kind}, or a {self.kind} by name")
        key = str(path.resolve())
        if key not in self._of_files:
            before = dict(self._entries)
            spec = importlib.util.spec_from_file_location(key, path)
            assert spec is not None and spec.loader is not None
            # Known to Python, which looks the types and the source of a dataclass up there.
            sys.modules[key] = module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}; fix it") from error
            self._of_files[key] = [name for name, entry in self._entries.items() if before.get(name) is not entry]
        found = self._of_files[key]
        name, _, argument = rest.partition(":")
        name = name or (found[0] if len(found) == 1 else "")
        if not found:
            raise UserError(f"{path} registers no {self.kind}: decorate one with @register(NAME)")
        if not name:
            raise UserError(
                f"{path} registers several {self.kind}s: name one, as {path}:{found[0]}, of {', '.join(found)}"
            )
        if name not in found:
            raise UserError(f"{path} has no {self.kind} {name!r}; it registers {', '.join(found)}")
        return name, argument
