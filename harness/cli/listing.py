"""What can be named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pools.errors import UserError
from pools.pool import load_pool, pool_names

if TYPE_CHECKING:
    from harness.cli.app import List


def show(options: List, console: Console) -> None:
    """Print one list as a table."""
    what, name, pool = options.what, options.name, options.pool
    table = Table("name", "what it is")
    if name is not None and what != "routers":
        raise UserError(f"list {what} takes no name, got {name!r}; of routers, list routers ROUTER lists the options")
    if name is not None:
        from routers.registry import describe, registered_name, router_options

        table = Table("option", "type", "default", "what it is", title=escape(describe(registered_name(name))))
        for option in router_options(name):
            table.add_row(option.name, escape(option.type), escape(str(option.default)), escape(option.doc))
        table.caption = "give them as --router-args name=value,name=value"
        if not table.row_count:
            said = f"{name}: {describe(registered_name(name))} It has no options."
            console.print(said, highlight=False, markup=False)
            return
    elif what == "routers":
        from routers import describe, names

        for known in names():
            table.add_row(known, escape(describe(known)))
    elif what == "models":
        declared = load_pool(pool)
        table = Table()
        table.add_column("name", overflow="fold")
        for column in ("what it is", "lm-eval", f"base rate ({declared.cost_unit} per token)"):
            table.add_column(column)
        table.add_column("weights", overflow="fold")
        for m in declared.models:
            weights = "-" if m.weights is None else m.weights.repository or m.weights.path or "-"
            table.add_row(m.name, escape(m.description), m.lm_eval, f"{m.base_rate:g}", weights)
    elif what == "pools":
        for name in pool_names():
            declared = load_pool(name)
            table.add_row(name, escape(declared.description.strip()) + f" Models: {', '.join(declared.model_names)}.")
    elif what == "suites":
        from tasks import load_suite, suite_names

        for name in suite_names():
            suite = load_suite(name)
            table.add_row(
                name, escape(suite.description.strip()) + f" Tasks: {', '.join(t.name for t in suite.tasks)}."
            )
    else:
        from tasks import lm_eval_names, names, on_hub

        for name in names():
            table.add_row(name, "of this project" + (", its data on the hub" if on_hub(name) else ", needs no network"))
        table.caption = f"and {len(lm_eval_names()):,} of lm-eval, by their own names (lm_eval ls tasks)"
    console.print(table)
