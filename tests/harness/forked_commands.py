"""Runs commands of this project in processes of their own that need not import torch first.

A program, not a module: it imports what the commands need and then forks a process for each line of JSON that it reads:
`{"run": [arguments], "log": file, "before": code}` runs `python -m harness` with these arguments after executing the
code, standard error in the file, and prints the process id; `{"wait": id, "seconds": n}` prints how that process ended,
by SIGKILL where it takes longer.
`{"shell": command}` runs a command, as to mount a file system: started by `unshare -m`, this program may do so where
nobody else sees it.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback

# What takes seconds to import, and nothing that starts threads: they would not live on in a forked process.
for name in (
    *("torch._dynamo", "transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto"),
    *("transformers.generation.utils", "lm_eval.models.huggingface", "lm_eval.tasks", "datasets", "pyarrow.dataset"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "harness.report.page"),
    *("sklearn.decomposition", "sklearn.feature_extraction.text"),
    *(
        "harness.cli.app",
        "harness.recorder.record",
        "harness.runs.run",
        "harness.runs.train",
        "pools.models.hf",
        "routers.encoders.hashing",
    ),
):
    importlib.import_module(name)


def child(order: dict) -> None:
    """Run the command as a new Python would; does not return."""
    from harness.__main__ import main

    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
    status = 0
    try:
        exec(order["before"], {})
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


def ended(pid: int, seconds: float) -> int:
    """The exit code of a process, which is killed after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "run" in order:
        pid = os.fork()
        if pid == 0:
            child(order)
        print(pid, flush=True)
    elif "wait" in order:
        print(ended(order["wait"], order["seconds"]), flush=True)
    else:
        done = subprocess.run(order["shell"], shell=True, capture_output=True, text=True, check=False)
        print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
