"""`python -m harness`: see `--help`."""

from __future__ import annotations

import errno
import os
import sys

_AFTER_STOP = {
    "record": "what was stored stays, the same command goes on from there",
    "train": "--resume goes on from the last state that was written",
    "run": "run it again; what live models answered is kept in the store",
}


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2, never in a traceback."""
    # Set before anything imports tqdm: what runs long here shows its own progress.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from harness.cli import execute, parse
    from pools.errors import UserError

    try:
        execute(parse(sys.argv[1:]))
    except UserError as error:
        print(f"harness: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"harness: stopped; {_AFTER_STOP.get(sys.argv[1], 'run it again')}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written
        what = " ".join(str(error.strerror or error).split())
        next_step = f"; make room, then: {_AFTER_STOP.get(sys.argv[1], 'run it again')}" if _is_full(error) else ""
        print(f"harness: {error.filename or 'the file system'}: {what}{next_step}", file=sys.stderr)
        sys.exit(2)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


if __name__ == "__main__":
    main()
