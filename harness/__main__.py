"""`python -m harness`: see `--help`."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from typing import NoReturn

from harness import check_neighbours

_AFTER_STOP = {
    "record": "what was stored stays, the same command goes on from there",
    "train": "--resume goes on from the last state that was written",
}

MAX_CHARACTERS = 2000  # characters of an error


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2, never in a traceback."""
    # Set before anything imports tqdm: what runs long here shows its own progress. lm-eval's is its bars.
    if sys.argv[1:2] not in (["lm-eval"], ["lm_eval"]):
        os.environ.setdefault("TQDM_DISABLE", "1")
    # Imports and recordings make objects that stay: to search them for garbage time and again is a sixth of `run`.
    gc.set_threshold(100_000)
    try:
        check_neighbours()
    except ImportError as error:
        _end(str(error))
    from pools.secrets import clean_output

    with clean_output():
        _execute()


def _execute() -> None:
    try:
        from harness.cli.app import execute, parse
        from pools.errors import UserError
    except ModuleNotFoundError as error:
        _end(f"the package {error.name} is not installed; pip install -c constraints.txt -e .")
    try:
        for argument in sys.argv[1:]:
            argument.encode()
        execute(parse(sys.argv[1:]))
    except UserError as error:
        _end(str(error))
    except UnicodeEncodeError as error:  # half of a surrogate pair, in an argument or in a JSON file
        _end(f"{error.object!r} holds what UTF-8 cannot; expected Unicode")
    except KeyboardInterrupt as stop:  # a command may know better how to go on
        _end(f"stopped; {str(stop) or _next_step()}", 130)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _end(f"{said}; make room, then: {_next_step()}" if full else said)
    except Exception:
        # Python would exit with 1, which is what `check` says of a router that became worse.
        traceback.print_exc()
        _end("an error in a router or a task of yours, or in this program; see above")


def _next_step() -> str:
    return _AFTER_STOP.get(sys.argv[1], "run it again")


def _end(text: str, code: int = 2) -> NoReturn:
    """Say it in one line that a terminal shows as it is: no control characters, and not without end."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print(f"harness: {text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + ' ...'}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
