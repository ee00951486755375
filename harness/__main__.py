"""`python -m harness`: see `--help`."""

from __future__ import annotations

import errno
import os
import sys
import traceback

_AFTER_STOP = {
    "record": "what was stored stays, the same command goes on from there",
    "train": "--resume goes on from the last state that was written",
    "run": "run it again; what live models answered is kept in the store",
}

MAX_CHARACTERS = 2000  # characters of an error


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2, never in a traceback."""
    # Set before anything imports tqdm: what runs long here shows its own progress.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from pools.secrets import clean_output

    with clean_output():
        _execute()


def _execute() -> None:
    from harness.cli.app import execute, parse
    from pools.errors import UserError

    try:
        for argument in sys.argv[1:]:
            if not argument.isascii():
                argument.encode()
        execute(parse(sys.argv[1:]))
    except UserError as error:
        print(f"harness: {_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError as error:  # half of a surrogate pair, in an argument or in a JSON file
        print(f"harness: {_line(repr(error.object))} holds what UTF-8 cannot; expected Unicode", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"harness: stopped; {_AFTER_STOP.get(sys.argv[1], 'run it again')}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written
        name = error.filename or "the file system"
        next_step = f"; make room, then: {_AFTER_STOP.get(sys.argv[1], 'run it again')}" if _is_full(error) else ""
        print(f"harness: {_line(f'{name}: {error.strerror or error}')}{next_step}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # Python would exit with 1, which is what `check` says of a router that became worse.
        traceback.print_exc()
        print("harness: an error in a router or a task of yours, or in this program; see above", file=sys.stderr)
        sys.exit(2)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _line(text: str) -> str:
    """A text of one line that a terminal shows as it is: no control characters, and not without end."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."


if __name__ == "__main__":
    main()
