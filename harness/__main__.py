"""`python -m harness`: see `--help`."""

from __future__ import annotations

import os
import sys


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
        print("harness: stopped; nothing is lost, the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
