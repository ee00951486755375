"""Every router on tables of real models' outcomes: quality-cost frontiers over five folds, written as a page.

    python benchmarks/real_tables.py DIR --weights FOLDER
    python benchmarks/real_tables.py DIR --routers hierrouter --tables arc
    python benchmarks/real_tables.py DIR --report-only

DIR holds RouterBench's and RouteLLM's tables, or some of them, and may hold more, listed in DIR/tables.yaml (the class
Table). Each is imported as cascades. Every item is tested once, by a router that never saw it; of the other four folds
every fifth item is for validation. A table with a test file of its own is measured on that as well. What was measured
is kept in --work, one file a training: the same command goes on after a kill, --again measures anew what is named.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from kept_outcomes import OWN, Measured, is_kept
from numpy.typing import NDArray
from peers import PEERS, Peer, peer_routers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from tables_page import Chapter, write_page

from harness.evaluation.evaluate import Outcome, evaluate
from harness.evaluation.sweep import calls_at_least_once
from harness.recorder.import_table import import_table
from pools.data.recording import load_recording
from pools.errors import UserError
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from pools.schema import Schema, from_plain
from pools.types import Generation, content_hash
from pools.yaml_file import read_yaml
from routers import RouterRequest, load
from routers.encoders.cache import embedding_progress
from routers.hierrouter import taught_weights
from routers.registry import ROUTERS, learns, names, router_options, teach
from routers.router import Router, RoutingStates, StochasticRouter, WeighingRouter

FloatArray = NDArray[np.float64]
COMMANDS = (
    "git clone https://github.com/lm-sys/RouteLLM; git clone https://github.com/ulab-uiuc/LLMRouter",
    "python benchmarks/real_tables.py DIR --weights FOLDER --peer routellm=RouteLLM llmrouter=LLMRouter",
)
"""What the page says that makes it."""
FOLDS = 5
WEIGHTS = 56
"""How many cost weights the curves are measured at, besides 0 and those of `WORTH`."""
WORTH = (0.01, 0.05, 0.2)
"""Cost weights at which values are shown: where a call of the most expensive model costs as much as so much score."""
SPARSE = 6
"""A router that has to learn anew for another cost weight does so at every so many of them."""

LEARNT = ("fitted-q", "cascade", "query-only", "extra-trees", "knn", "ridge", "logistic", "mlp", "matrix-factorisation")
MEASURED = ("hierrouter", *LEARNT, "best-pipeline", "random", "oracle")
DRAWN = ("hierrouter", "extra-trees", "mlp", "matrix-factorisation")
"""Routers that another seed makes others."""
READERS = ("hierrouter", "fitted-q")
"""Routers that read answers: those of the controls."""
CONTROLS = ("shuffled answers", "shuffled outcomes")


class Table(Schema):
    """A table of outcomes, and how it is imported."""

    name: str
    """Of its part of the page, and of its files."""
    title: str
    files: tuple[Path, ...]
    """Below DIR."""
    hops: int
    prices: tuple[str, ...] = ()
    """MODEL=INPUT,OUTPUT in US$ per million tokens, if the table holds no costs."""
    drop_incomplete: bool = True
    about: str = ""
    """A sentence on where it is from."""


TABLES = (
    Table(
        name="arc",
        title="RouterBench, ARC challenge",
        files=(Path("routerbench/arc_challenge_train.csv"), Path("routerbench/arc_challenge_test.csv")),
        hops=3,
        about="Eleven models' answers, one letter each, to science questions with four choices (RouterBench, "
        "arXiv 2403.12031, zero-shot; train and test files of the repository shuhao02/RouterDC).",
    ),
    Table(
        name="mbpp",
        title="RouterBench, MBPP",
        files=(Path("routerbench/mbpp_train.csv"), Path("routerbench/mbpp_test.csv")),
        hops=3,
        about="Eleven models' Python programs for short tasks, right if their tests pass (RouterBench, arXiv "
        "2403.12031, zero-shot; train and test files of the repository shuhao02/RouterDC).",
    ),
    Table(
        name="gsm8k",
        title="RouteLLM, GSM8K",
        files=(Path("routellm_gsm8k_responses.csv"),),
        hops=2,
        prices=("mistralai/Mixtral-8x7B-Instruct-v0.1=0.24,0.24", "gpt-4-1106-preview=24.7,24.7"),
        about="Two models' worked answers to school mathematics (lm-sys/RouteLLM). The table holds neither costs nor "
        "tokens: the prices are those of RouteLLM's paper (arXiv 2406.18665: US$ 0.24 and 24.7 per million tokens); "
        "tokens are counted by the tokenizer of all-MiniLM-L6-v2.",
    ),
)


class Listed(Schema):
    """DIR/tables.yaml."""

    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Options:
    """What is measured, and where it goes."""

    folder: tyro.conf.Positional[Path]
    """folder of the tables"""
    tables: tuple[str, ...] = ()
    """only these tables; by default all that are there"""
    routers: tuple[str, ...] = ()
    """only these routers; by default all, and the peers of --peer"""
    seeds: int = 5
    """of routers that draw"""
    weights: Path | None = None
    """folder that holds the sentence encoder's weights"""
    tokenizer: str = "sentence-transformers/all-MiniLM-L6-v2"
    """counts the tokens that prices are of: a folder, or a name on the hub"""
    encoder: str = "sentence"
    """encoder of the query, for routers of one hop"""
    peer: tuple[str, ...] = ()
    """NAME=FOLDER of another project's repository, whose routers are measured beside ours"""
    work: Path = Path("runs/real-tables")
    """folder of what was measured"""
    out: Path = Path("docs/results/real-tables.md")
    """page to write; its figures lie in a folder of its name"""
    again: bool = False
    """measure what --routers and --tables name anew"""
    report_only: bool = False
    """write the page from what was measured, and measure nothing"""


# --- tables -----------------------------------------------------------------------------------------------------------


def tables_in(folder: Path, chosen: Sequence[str]) -> list[Table]:
    """The tables whose files are there, or those that are chosen. Raises UserError if one is not."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; name the folder of the tables")
    listed = folder / "tables.yaml"
    more = from_plain(Listed, read_yaml(listed, "list of tables"), str(listed)).tables if listed.is_file() else ()
    there = {t.name: t for t in (*TABLES, *more) if all((folder / file).is_file() for file in t.files)}
    if missing := [name for name in chosen if name not in there]:
        raise UserError(
            f"--tables {missing[0]}: expected of {', '.join(there) or 'those in the folder, which has none'}"
        )
    if not there:
        raise UserError(
            f"{folder} holds no table that is known; see TABLES in benchmarks/real_tables.py, or list yours"
        )
    return [there[name] for name in chosen or there]


def imported(table: Table, options: Options) -> Tree:
    """The table's tree."""
    out = options.work / table.name / "recording"
    import_table(
        [options.folder / file for file in table.files], out, name=table.name, hops=table.hops,
        prices=table.prices, tokenizer=_tokenizer(options) if table.prices else None,
        drop_incomplete=table.drop_incomplete, force=True, say=print,
    )  # fmt: skip
    return load_recording(out).tree


def _tokenizer(options: Options) -> str:
    """The tokenizer's folder below that of the weights, if it is there, or its name as given."""
    local = options.weights / options.tokenizer if options.weights else None
    return str(local) if local is not None and local.is_dir() else options.tokenizer


def cost_weights(tree: Tree) -> FloatArray:
    """`[P]` from where costs hardly count to where they rule, 0 and those of `WORTH` among them.

    The range goes from where the most expensive pipeline costs a five-hundredth of a score to where the cheapest call
    costs half a score. Costs alone decide, so that no test item's outcome does.
    """
    called = tree.cost[:, tree.level(1)].mean(axis=0)
    ends = 0.002 / path_costs(tree).mean(axis=0).max(), 0.5 / called[called > 0].min()
    return np.array(sorted({0.0, *np.geomspace(*ends, WEIGHTS).tolist(), *named_weights(tree)}))


def named_weights(tree: Tree) -> tuple[float, ...]:
    """The cost weights of `WORTH`."""
    most = float(tree.cost[:, tree.level(1)].mean(axis=0).max())
    return tuple(worth / most for worth in WORTH)


# --- controls ---------------------------------------------------------------------------------------------------------


def controlled(tree: Tree, control: str, seed: int) -> Tree:
    """The tree with what a control takes away; the tree itself if there is none.

    Shuffled answers: each item has another's texts, and its own scores and costs. Shuffled outcomes: each item has
    another's scores and costs, and its own texts.
    """
    if not control:
        return tree
    given = np.random.default_rng(seed).permutation(len(tree.items))
    one_hop = tree.shortened(1)
    made = Tree(tree.items, tree.models, 1, tree.cost_model, answers=tree.answers)
    for item, other in enumerate(given.tolist()):
        texts, outcomes = (other, item) if control == "shuffled answers" else (item, other)
        for node in range(1, one_hop.nodes):
            said = one_hop.generation(texts, node).response
            cost = float(one_hop.cost[outcomes, node])
            made.put(item, node, Generation(said, 0, 0, "stop", 0.0, cost), float(one_hop.score[outcomes, node]))
    return made.cascade(tree.max_hops)


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One training: a router on one part of one table, with one seed. part: number of the fold, or `OWN`."""

    table: Table
    router: str
    control: str
    part: str
    seed: int

    @property
    def path(self) -> Path:
        """Of its file, below the folder of what was measured."""
        router = f"{self.router}, {self.control}" if self.control else self.router
        return Path(self.table.name) / router / f"{self.part}-{self.seed}.npz"


def cells_of(table: Table, routers: Sequence[str], seeds: int, own: bool) -> Iterator[Cell]:
    """All trainings of a table, those of the controls last and with one seed."""
    folds = tuple(map(str, range(FOLDS)))
    for router in routers:
        draws = router in DRAWN or (router in PEERS and PEERS[router].draws)
        for seed in range(1, 1 + (seeds if draws else 1)):
            yield from (Cell(table, router, "", part, seed) for part in (*folds, *([OWN] if own else [])))
    for router in routers:
        if router in READERS:
            yield from (Cell(table, router, control, part, 1) for control in CONTROLS for part in folds)


def items_of(tree: Tree, part: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The items to test on, and the others."""
    if part == OWN:
        test = np.array([item.split == "test" for item in tree.items])
    else:
        test = np.random.default_rng(0).permutation(len(tree.items)) % FOLDS == int(part)
    return np.flatnonzero(test), np.flatnonzero(~test)


def measure(tree: Tree, cell: Cell, options: Options, settings: str) -> Measured:
    """Train and evaluate."""
    items, rest = items_of(tree, cell.part)
    held_out = np.arange(len(rest)) % 5 == 4
    weights, named = cost_weights(tree), named_weights(tree)
    request = RouterRequest(
        models=tree.models, max_hops=tree.max_hops, cost_model=tree.cost_model, cost_weight=named[1],
        cost_weights=taught_weights(tree), seed=cell.seed, train=tree.subset(rest[~held_out]),
        validation=tree.subset(rest[held_out]), evaluation=tree.subset(items), weights=options.weights,
    )  # fmt: skip
    assert request.evaluation is not None
    start = time.process_time()
    routers = list(_routers(cell, request, options, weights, named))
    seconds = time.process_time() - start
    outcomes = [evaluate(_unbilled(router), request.evaluation, cell.seed) for _, router in routers]
    at = np.array([weight for weight, _ in routers])
    return measured(request.evaluation, at, outcomes, items, seconds, settings)


def hash_of(tree: Tree) -> str:
    """Of a table's outcomes, texts and cost weights, and of how often it is divided."""
    first = tree.shortened(1) if tree.independent else tree
    outcomes = [
        first.score.tobytes().hex(),
        first.cost.tobytes().hex(),
        [[c.query, *c.responses] for c in first.contexts],
    ]
    asked = [tree.answers, tree.max_hops, cost_weights(tree).tolist(), taught_weights(tree), FOLDS]
    return content_hash(outcomes, asked)[:16]


def settings_of(table: str, cell: Cell, options: Options) -> str:
    """What a file is of: the hash of the table, then of the router's code, and the encoder.

    The code is that of the modules of the router's class: what these import is not noticed, --again is for that.
    """
    encoder = options.encoder if cell.router in PEERS or _takes_encoder(cell.router) else ""
    of = Peer if cell.router in PEERS else ROUTERS.entry(cell.router)[1]
    modules = dict.fromkeys(each.__module__ for each in getattr(of, "__mro__", (of,)) if each is not object)
    code = [inspect.getsource(sys.modules[name]) for name in modules]
    return f"{table} {content_hash(code)[:8]} {encoder}"


@dataclass(frozen=True)
class _Acts:
    """A router without what its encoder costs, which has no price in US$; counting tokens took most of the time."""

    act: Callable[[RoutingStates], NDArray[np.int64]]


def _unbilled(router: Router) -> Router:
    return router if isinstance(router, StochasticRouter) else _Acts(router.act)


def _routers(
    cell: Cell, request: RouterRequest, options: Options, weights: FloatArray, named: Sequence[float]
) -> Iterator[tuple[float, Router]]:
    """The router at each cost weight, trained as seldom as may be."""
    name = cell.router
    if name in PEERS:
        folder = _folders(options.peer)[PEERS[name].project]
        yield from peer_routers(name, folder, request, options.encoder, named)
        return
    router = _made(name, request, options.encoder)
    if isinstance(router, WeighingRouter):
        yield from ((weight, router.at(weight)) for weight in weights.tolist())
    elif name == "random" or name.startswith("single:"):
        yield 0.0, router
    else:
        costly = learns(name)
        for weight in sorted({*weights[:: SPARSE if costly else 1].tolist(), *named}):
            yield weight, _made(name, replace(request, cost_weight=weight), options.encoder)


def _made(name: str, request: RouterRequest, encoder: str) -> Router:
    if not learns(name):
        return load(name, request)
    return teach(name, request, {"encoder": encoder} if _takes_encoder(name) else {}).router


def _takes_encoder(name: str) -> bool:
    """Whether a router is given the encoder of the query; those of several hops keep their own."""
    known = name not in (*READERS, "cascade") and learns(name)
    return known and any(option.name == "encoder" for option in router_options(name))


def measured(
    tree: Tree,
    weights: FloatArray,
    outcomes: Sequence[Outcome],
    items: NDArray[np.int64],
    seconds: float,
    settings: str,
) -> Measured:
    """What is kept of outcomes at cost weights."""
    return Measured(
        weights=weights,
        items=items,
        quality=np.stack([outcome.quality for outcome in outcomes]),
        cost=np.stack([outcome.cost for outcome in outcomes]),
        called=np.stack([calls_at_least_once(outcome, tree) for outcome in outcomes]),
        calls=np.stack([outcome.calls.mean(axis=0) for outcome in outcomes]),
        seconds=np.array(seconds),
        settings=np.array(settings),
    )


def _folders(peers: Sequence[str]) -> dict[str, Path]:
    """The folders of `--peer`. Raises UserError for one that is none."""
    found = {}
    known = sorted({peer.project for peer in PEERS.values()})
    for text in peers:
        name, _, folder = text.partition("=")
        if name not in known or not Path(folder).is_dir():
            raise UserError(
                f"--peer {text}: expected NAME=FOLDER, of {', '.join(known)} and a folder of its repository"
            )
        found[name] = Path(folder)
    return found


def has_own_test(table: Table, tree: Tree) -> bool:
    """Whether the table came with a test file; the split of a single file is ours."""
    return len(table.files) > 1 and any(item.split == "test" for item in tree.items)


def run(options: Options, tables: Sequence[Table], trees: dict[str, Tree], routers: Sequence[str]) -> None:
    """Measure what is not measured yet."""
    cells, hashes = [], {table.name: hash_of(trees[table.name]) for table in tables}
    for table in tables:
        tree = trees[table.name]
        for cell in cells_of(table, routers, options.seeds, has_own_test(table, tree)):
            if options.again or not is_kept(options.work / cell.path, settings_of(hashes[table.name], cell, options)):
                cells.append(cell)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    made: tuple[str, str, Tree] | None = None
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(cells))
        for cell in cells:
            said = str(cell.path.with_suffix(""))
            progress.update(bar, description=said)
            if made is None or made[:2] != (cell.table.name, cell.control):
                made = cell.table.name, cell.control, controlled(trees[cell.table.name], cell.control, seed=1)
            settings = settings_of(hashes[cell.table.name], cell, options)
            with embedding_progress(partial(_say_embedded, progress, bar, said)):
                measure(made[2], cell, options, settings).save(options.work / cell.path)
            progress.advance(bar)


def _say_embedded(progress: Progress, bar: TaskID, said: str, done: int, total: int) -> None:
    progress.update(bar, description=f"{said}, {done:,} of {total:,} texts embedded")


def main() -> None:
    """Measure and write the page."""
    options = tyro.cli(Options, description=__doc__)
    try:
        tables = tables_in(options.folder, options.tables)
        known = {*names(), *PEERS}
        given = _folders(options.peer)
        mine = [name for name in MEASURED if name in known] + [
            name for name, peer in PEERS.items() if peer.project in given
        ]
        if wrong := [name for name in options.routers if name not in mine]:
            raise UserError(f"--routers {wrong[0]}: expected of {', '.join(mine)}")
        trees = {table.name: imported(table, options) for table in tables}
        if not options.report_only:
            run(options, tables, trees, options.routers or mine)
        chapters = [
            Chapter(
                t.name, t.title, t.about, trees[t.name], named_weights(trees[t.name]), has_own_test(t, trees[t.name])
            )
            for t in tables
        ]
        write_page(options.out, options.work, chapters, FOLDS, COMMANDS)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
