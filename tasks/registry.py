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

from pools.errors import UserError, shown
from pools.extras import installing
from pools.names import check_name
from pools.yaml_file import top_level

if TYPE_CHECKING:
    from tasks.task import Task

FOLDER = Path(__file__).parent
_DECLARATION = re.compile(
    rb"^[\"']?(task|group)[\"']?:[ \t]*[\"']?([^\s\"'#\[\]{}]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE
)


def names() -> list[str]:
    """The tasks of this project; lm-eval's own are known by name too."""
    return sorted(_shipped(FOLDER))


def lm_eval_names() -> list[str]:
    """The tasks of the installed lm-eval, of every output type."""
    return sorted(_shipped(_lm_eval_folder()))


def on_hub(name: str) -> bool:
    """Whether a task of this project reads its documents from the Hugging Face hub."""
    return b"\ndataset_path:" in _shipped(FOLDER)[name].read_bytes()


def is_file(name: str) -> bool:
    """Whether it names a YAML file, and no task."""
    return name.endswith((".yaml", ".yml"))


def name_of(name: str) -> str:
    """What a task is called that is given by name or as a YAML file. Raises UserError if the file cannot be read."""
    return _read_file(Path(name)) if is_file(name) else name


def check(name: str, include_path: Path | None = None) -> Path:
    """The file that declares a task: a YAML file itself, or one in `include_path`, of ours, or of lm-eval's.

    A task in `include_path` goes before one of the same name, as in lm-eval. Raises UserError if none declares it, with
    the names that come close.
    """
    if is_file(name):
        _read_file(Path(name))
        return Path(name)
    check_folder(include_path)
    included = {} if include_path is None else _declared(include_path)
    found = included.get(name) or _shipped(FOLDER).get(name) or _shipped(_lm_eval_folder()).get(name)
    if found is not None:
        return found
    close = difflib.get_close_matches(name, [*included, *names(), *lm_eval_names()], n=4)
    hint = f"did you mean {', '.join(close)}?" if close else f"ours are {', '.join(names())}"
    raise UserError(
        f"unknown task {shown(name)}: expected one of ours, of lm-eval's or in the folder of --include-path, or a YAML "
        f"file, and no group; {hint}"
    )


def exists(name: str, include_path: Path | None = None) -> bool:
    """Whether there is such a task."""
    try:
        check(name, include_path)
    except UserError:
        return False
    return True


def ships(name: str, include_path: Path | None = None) -> bool:
    """Whether a task's file is of this project or of lm-eval. Raises UserError as `check`."""
    parents = check(name, include_path).resolve().parents
    return FOLDER.resolve() in parents or _lm_eval_folder().resolve() in parents


def check_folder(include_path: Path | None) -> None:
    """Raise UserError if the folder of further task files is not there."""
    if include_path is not None and not include_path.is_dir():
        raise UserError(f"--include-path {include_path}: no such folder; name one that holds task files of lm-eval")


def get(
    name: str,
    metric: str | None = None,
    filter_name: str | None = None,
    limit: int | None = None,
    include_path: Path | None = None,
) -> Task:
    """The task of that name, or of the lm-eval YAML file at that path.

    metric, filter_name: what counts as its score; by default the first of each. limit: only so many
    documents. include_path: a folder of further task files. Raises UserError: no such task, a task that is not answered
    by text, or data that cannot be had.
    """
    path = check(name, include_path)
    if os.environ.get("HF_HUB_OFFLINE") == "1":  # which has to be enough: `datasets` would retry for long
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    from tasks.code.code_eval import sandboxed_code_eval, uses_code_eval
    from tasks.lm_eval_task import LmEvalTask, check_config, check_filters

    ours = FOLDER in path.resolve().parents
    try:
        config = load_yaml(path, resolve_func=False)  # before any function is imported or any data fetched
        if isinstance(config.get("task"), str):
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
    with _silenced(logging.getLogger("lm_eval")), sandboxed_code_eval() if sandboxed else contextlib.nullcontext():
        try:
            [task] = TaskManager(include_defaults=False).load(str(path))["tasks"].values()
        except ImportError as error:
            raise UserError(
                f"task '{name}' needs a package that is not installed: {_first_line(error)}; install it "
                f"(for lm-eval's mathematics: {installing('math')})"
            ) from error
        except Exception as error:
            if ours and "dataset_path" not in config:
                raise
            if isinstance(error, KeyError):
                check_filters(name, config)
            said = f"task '{name}' could not be loaded: {type(error).__name__}: {_first_line(error)}"
            if not isinstance(error, OSError) and not re.search("hub|cache|offline", str(error), re.IGNORECASE):
                raise UserError(
                    f"{said}; correct its file: a key, a split or a field of its documents is none that there is"
                ) from error
            raise UserError(
                f"{said}; expected its data on the Hugging Face hub or in the local cache (check the network, HF_HOME "
                "and HF_HUB_OFFLINE), or in files of its own, whose paths are from the folder that the command runs in"
            ) from error
        parallel = ours and (config.get("metadata") or {}).get("scores_in_threads", False)
        made = LmEvalTask(task, metric, filter_name, limit, len(os.sched_getaffinity(0)) if parallel else 1)
    if not ships(name, include_path):
        made.try_out()
    return made


def _read_file(path: Path) -> str:
    """The name of the task that a file of the user's declares; what `include:` says of it is not looked at."""
    said = top_level(path, "task")
    if "group" in said or ("task" in said and said["task"] is None):
        raise UserError(f"task file {path} declares a group; name its tasks instead, several as --task A B")
    return check_name(said.get("task") or path.stem, f"task file {path}: task")


@cache
def _shipped(folder: Path) -> dict[str, Path]:
    """What `_declared` finds in a folder that stays as it is."""
    return _declared(folder)


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
        raise UserError(f"lm-eval is not installed: {installing()}")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 160, placeholder=" ...") if lines else "no reason given"


@contextlib.contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """lm-eval warns of every default it takes, which are all chosen here; what it calls an error is said in a line."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
