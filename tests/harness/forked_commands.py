"""Runs commands of this project in processes of their own that need not import torch first.

A program, not a module: it imports what the commands need and then forks a process for each line of JSON that it reads:
`{"run": [arguments], "log": file, "before": code}` runs `python -m harness` with these arguments after executing the
code, standard error in the file, and prints the process id; `{"wait": id}` prints how that process ended.
`{"shell": command}` runs a command, as to mount a file system: started by `unshare -m`, this program may do so where
nobody else sees it.
"""

import json
import os
import subprocess
import sys
import traceback

import torch
import transformers  # noqa: F401

import harness.record
import harness.run
import harness.train  # noqa: F401
import pools.hf  # noqa: F401
from harness.__main__ import main

torch.set_num_threads(1)


def child(order: dict) -> None:
    """Run the command as a new Python would; does not return."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
    status = 0
    try:
        exec(order.get("before", ""), {})
        sys.argv = ["harness", *order["run"]]
        main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "run" in order:
        pid = os.fork()
        if pid == 0:
            child(order)
        print(pid, flush=True)
    elif "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
    else:
        done = subprocess.run(order["shell"], shell=True, capture_output=True, text=True, check=False)
        print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
