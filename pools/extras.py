"""How the project is installed with one of its extras: packages that only some commands take."""

from __future__ import annotations


def installing(extra: str = "") -> str:
    """The command; without an extra, that of the project alone."""
    # vLLM names a version of torch of its own.
    command = "pip install -e" if extra == "vllm" else "pip install -c constraints.txt -e"
    return f"{command} '.[{extra}]'" if extra else f"{command} ."
