"""Tasks: what is asked, and how a response is scored. Nothing here knows which router or pool answered."""

from tasks.registry import get, lm_eval_names, names, on_hub
from tasks.split import split_of
from tasks.suite import Suite, SuiteTask, chosen_suite, load_suite, suite_names
from tasks.task import Task

__all__ = [
    "Suite",
    "SuiteTask",
    "Task",
    "chosen_suite",
    "get",
    "lm_eval_names",
    "load_suite",
    "names",
    "on_hub",
    "split_of",
    "suite_names",
]
