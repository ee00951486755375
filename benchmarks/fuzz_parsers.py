"""Coverage-guided fuzzing of what reads text that nobody has checked: python benchmarks/fuzz_parsers.py wire.

Needs `pip install atheris`, and no other package than PyYAML. It starts from well-formed inputs. Further arguments are
libFuzzer's, as in `-max_total_time=600`. It ends with the input at which a parser hung, or raised what it should not.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris

ROOT = Path(__file__).parent.parent
# The modules by themselves: the package `tasks` would import much more.
sys.path[:0] = [str(ROOT), str(ROOT / "tasks/code"), str(ROOT / "tasks/code/sandbox")]
with atheris.instrument_imports():
    import _wire
    import extract as programs
    import yaml  # noqa: F401 - instrumented before it is used

    from pools.errors import UserError
    from pools.models.api import attach_usage
    from pools.yaml_file import read_yaml

PROMPT = 'import math\n\n\ndef helper(x):\n    return x\n\n\ndef solve(x):\n    """Solve it."""\n'


def program(data: bytes) -> None:
    """The program in a response."""
    assert isinstance(programs.program(data.decode("utf-8", "surrogateescape"), "solve", PROMPT), str)


def wire(data: bytes) -> None:
    """What a program in the sandbox sends."""
    expected = (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    )  # by `examine`, which takes any
    with contextlib.suppress(*expected):
        _wire.decode(json.loads(data))


def pool(data: bytes) -> None:
    """A pool or suite file."""
    with tempfile.NamedTemporaryFile(suffix=".yaml", dir="/dev/shm") as file:
        Path(file.name).write_bytes(data)
        try:
            read_yaml(Path(file.name), "pool")
        except UserError as error:
            assert file.name in str(error)


def server(data: bytes) -> None:
    """The reply of a server."""

    def parse(outputs: Any, **_: Any) -> list[str]:
        return [choice["message"]["content"] for choice in outputs["choices"] if "message" in choice]

    lm = SimpleNamespace(parse_generations=parse, tokenizer=object())
    attach_usage(lm, "m")
    try:
        reply = json.loads(data)
        if not isinstance(reply, list):
            lm.parse_generations(outputs=reply)
    except (ValueError, RecursionError, UserError):
        pass


TARGETS: dict[str, Callable[[bytes], None]] = {"program": program, "wire": wire, "pool": pool, "server": server}


def seeds(name: str) -> list[bytes]:
    """Well-formed inputs of a target: what it makes of them is where the search begins."""
    values = [1 << 70, "é", b"x", 1j, Decimal("1.5"), Fraction(1, 3), {1, 2}, frozenset("a"), {(1, "b"): [None, 0.5]}]
    replies: list[Any] = [
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "text": "a"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
    ]
    replies[0]["usage"] = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
    return {
        "program": [b"Like this:\n```python\ndef solve(x):\n    return helper(x)\n```\n", b"    return x\n"],
        "wire": [json.dumps(_wire.encode(value)).encode() for value in [*values, values, iter([1])]],
        "pool": [path.read_bytes() for kind in ("pools", "tasks") for path in sorted((ROOT / kind).rglob("*.yaml"))],
        "server": [json.dumps(reply).encode() for reply in replies],
    }[name]


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name one of {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))  # what libFuzzer finds on its way is put there, too
    for number, content in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(content)
    atheris.Setup([*sys.argv, str(corpus)], TARGETS[name])
    atheris.Fuzz()
