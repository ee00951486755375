"""Tasks: what is asked, and how a response is scored. Nothing here knows which router or pool answered."""

from tasks.registry import get, lm_eval_names, names
from tasks.split import split_of
from tasks.task import Task

__all__ = ["Task", "get", "lm_eval_names", "names", "split_of"]
