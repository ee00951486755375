"""All tasks by name: ours beside this file, and lm-eval's own. Nothing heavy is imported until a task is asked for."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pools.errors import UserError
from pools.names import check_name
from pools.yaml_file import check_yaml

if TYPE_CHECKING:
    from tasks.task import Task

FOLDER = Path(__file__).parent
_DECLARATION = re.compile(
    rb"^[\"']?(task|group)[\"']?:[ \t]*[\"']?([^\s\"'#\[\]{}]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE
)


def names() -> list[str]:
    """The tasks of this project; lm-eval's own are known by name too."""
    return sorted(_declared(FOLDER))


def lm_eval_names() -> list[str]:
    """The tasks of the installed lm-eval, of every output type."""
    return sorted(_declared(_lm_eval_folder()))


def check(name: str) -> Path:
    """The file that declares a task; raises UserError if none does, with the names that come close."""
    if name.endswith(".yaml") and Path(name).is_file():
        return Path(name)
    ours = _declared(FOLDER)
    if name in ours:
        return ours[name]
    theirs = _declared(_lm_eval_folder())
    if name in theirs:
        return theirs[name]
    close = difflib.get_close_matches(name, [*ours, *theirs], n=4)
    hint = f"did you mean {', '.join(close)}?" if close else f"ours are {', '.join(sorted(ours))}"
    raise UserError(f"unknown task '{name}': expected one of ours or of lm-eval's, and no group; {hint}")


def get(name: str, metric: str | None = None, filter_name: str | None = None, limit: int | None = None) -> Task:
    """The task of that name, or of the lm-eval YAML file at that path.

    metric, filter_name: what counts as its score; by default the first of each. limit: only so many
    documents. Raises UserError: no such task, a task that is not answered by text, or data that cannot be had.
    """
    path = check(name)
    if os.environ.get("HF_HUB_OFFLINE") == "1":  # which has to be enough: `datasets` would retry for long
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    from tasks.code.code_eval import sandboxed_code_eval, uses_code_eval
    from tasks.lm_eval_task import LmEvalTask, check_config

    ours = FOLDER in path.resolve().parents
    try:
        if path == Path(name):  # a file of the user's
            check_yaml(path, "task")
        config = load_yaml(path, resolve_func=False)  # before any function is imported or any data fetched
        if path == Path(name) and isinstance(config.get("task"), str):
            check_name(config["task"], f"task file {path}: task")
        if "class" not in config:
            check_config(name, config)
    except UserError:
        raise
    except Exception as error:  # lm-eval's reader and YAML's raise whatever Python does
        raise UserError(f"task file {path} cannot be read: {type(error).__name__}: {_first_line(error)}") from None
    sandboxed = uses_code_eval(path)
    if config.get("unsafe_code") and not (ours or sandboxed) and os.environ.get("HF_ALLOW_CODE_EVAL") != "1":
        raise UserError(
            f"task '{name}' executes what models write, through lm-eval and outside of this project's sandbox: "
            "set HF_ALLOW_CODE_EVAL=1 to accept that, or use human_eval"
        )
    with _only_errors(logging.getLogger("lm_eval")), sandboxed_code_eval() if sandboxed else contextlib.nullcontext():
        try:
            [task] = TaskManager(include_defaults=False).load(str(path))["tasks"].values()
        except ImportError as error:
            raise UserError(
                f"task '{name}' needs a package that is not installed: {_first_line(error)}; install it "
                '(for lm-eval\'s mathematics: pip install "lm-eval[math]")'
            ) from error
        except Exception as error:
            if ours and "dataset_path" not in config:
                raise
            raise UserError(
                f"task '{name}' could not be loaded: {type(error).__name__}: {_first_line(error)}; expected its data "
                "on the Hugging Face hub or in the local cache: check the network, HF_HOME and HF_HUB_OFFLINE"
            ) from error
        parallel = ours and (config.get("metadata") or {}).get("scores_in_threads", False)
        return LmEvalTask(task, metric, filter_name, limit, len(os.sched_getaffinity(0)) if parallel else 1)


@cache
def _declared(folder: Path) -> dict[str, Path]:
    """Tasks that the folder's YAML files declare, by a scan of their first-level lines.

    lm-eval's own index parses every file: 4 to 8 seconds for its 13,000; this takes less than one.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: path.as_posix()):
        declarations = dict(_DECLARATION.findall(path.read_bytes()))
        if b"group" not in declarations and b"task" in declarations:
            found.setdefault(declarations[b"task"].decode(), path)
    return found


def _lm_eval_folder() -> Path:
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lm-eval is not installed: `pip install -c constraints.txt -e .`")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 160, placeholder=" ...") if lines else "no reason given"


@contextlib.contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    """lm-eval warns of every default it takes; here they are all chosen."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
