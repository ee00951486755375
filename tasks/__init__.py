"""Tasks: what is asked, and how a response is scored. Nothing here knows which router or pool answered."""

from tasks.registry import get, lm_eval_names, names
from tasks.split import split_of
from tasks.suite import Domain, Suite, SuiteTask, load_suite, suite_names
from tasks.task import Task

__all__ = [
    "Domain",
    "Suite",
    "SuiteTask",
    "Task",
    "get",
    "lm_eval_names",
    "load_suite",
    "names",
    "split_of",
    "suite_names",
]
