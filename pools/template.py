"""How a model reads a context: a short Jinja text, rendered in Jinja's sandbox."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from pools.errors import UserError
from pools.types import Context

# The paper's context is the query followed by every response; how it joins them is not stated, blank lines are ours.
CONCATENATION = (
    "{{ query }}{% for response in responses %}\n\n{{ response }}{% endfor %}{% if responses %}\n\n{% endif %}"
)


@cache
def _compiled(template: str) -> Any:
    from jinja2 import StrictUndefined, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise UserError(
            f"the template is not valid Jinja: line {error.lineno}: {error.message}; it may use `query` and `responses`"
        ) from None


def check_template(template: str) -> None:
    """Raise UserError if a template cannot be rendered, or what a model reads first does not depend on the query."""
    queries = "What is 6 times 7?", "Name the capital of Peru, and say in one sentence why it is there."
    render(template, Context(queries[0], ("response",)))
    if len({render(template, Context(query)) for query in queries}) == 1:
        raise UserError("the template renders every query as the same text; it must use `query`, as in {{ query }}")


def render(template: str, context: Context) -> str:
    """The text that a model reads: the template with `query` (text) and `responses` (list of texts).

    Raises UserError if the template is not valid, uses another name, or reaches for what the sandbox keeps from it.
    """
    compiled = _compiled(template)
    try:
        return str(compiled.render(query=context.query, responses=list(context.responses)))
    except Exception as error:  # an expression in a template can raise anything, 1/0 say
        shown = " ".join(str(error).split())
        raise UserError(f"the template cannot be rendered: {shown}; it may use `query` and `responses`") from None


@lru_cache(maxsize=1 << 18)
def visible(template: str, context: Context) -> Context:
    """The context without the responses that a template does not show: it renders the same text.

    So what a model is not shown makes no new request of it.
    """
    text, kept = render(template, context), list(context.responses)
    for place in reversed(range(len(kept))):
        fewer = replace(context, responses=tuple(kept[:place] + kept[place + 1 :]))
        if render(template, fewer) == text:
            del kept[place]
    return replace(context, responses=tuple(kept))
