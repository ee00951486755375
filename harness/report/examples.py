"""A few items of a run, with what the models answered to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.evaluation.summary import ARROW
from harness.runs.folder import ItemRow, RunFolder
from harness.runs.source import DEFAULT_POOL, DEFAULT_SUITE, RESULTS, recording_name
from pools.data.recording import load_recording
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.weights import file_hash

# Of one item, a router is ahead of another where its expected score is higher by this much.
AHEAD = 0.5


@dataclass(frozen=True)
class Hop:
    """One call: the model, its response, the task's score of it in [0, 1], and whether the limit cut it off."""

    model: str
    response: str
    score: float
    cut_off: bool


@dataclass(frozen=True)
class Route:
    """The likeliest pipeline of a router for an item, its probability, and the hops along it."""

    router: str
    probability: float
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class Example:
    """An item on which two routers differ.

    gain: the router is ahead of the best single model; else it is behind the optimum. count: such items of the task.
    """

    task: str
    doc_id: int
    query: str
    gain: bool
    count: int
    routes: tuple[Route, Route]


def find_recording(run: RunFolder) -> Path | None:
    """The recording that a run replayed: where it was or where ours are, if its files are still the same; else None."""
    source, arguments = run.manifest.source, run.manifest.arguments
    hashes, name = source.get("sha256"), source.get("recording")
    if not isinstance(hashes, dict) or not hashes or not isinstance(name, str) or Path(name).name != name:
        return None
    own = recording_name(arguments.pool or DEFAULT_POOL, arguments.suite or DEFAULT_SUITE)
    places = [Path(arguments.recording)] if arguments.recording else []
    places += [folder / n for folder in (RESULTS / "recordings", Path("runs/recordings")) for n in (name, own)]
    for folder in places:
        files = {file: folder / file for file in ("items.parquet", "transitions.parquet")}
        if all(path.is_file() and file_hash(path) == hashes.get(file) for file, path in files.items()):
            return folder
    return None


def choose_examples(run: RunFolder, router: str, optimum: str = "oracle") -> list[Example] | None:
    """Per task the first item where the router is ahead of the best single model, and the first where the optimum is.

    The optimum is ahead of the router there. First is by the order of the recording, so nobody picks; scores are
    expected ones. None if the recording is not at hand.
    """
    folder = find_recording(run)
    if folder is None:
        return None
    try:
        tree = load_recording(folder).tree
    except UserError:
        return None
    place = {(item.task, item.doc_id): index for index, item in enumerate(tree.items)}
    found = []
    for task in run.summary.tasks:
        for gain, rival in ((True, run.summary.best_single), (False, optimum)):
            if rival is None or rival == router or rival not in run.routers:
                continue
            pairs = list(_pairs(run, task, *((router, rival) if gain else (rival, router))))
            if pairs:
                mine, theirs = pairs[0] if gain else pairs[0][::-1]
                index = place[mine.task, mine.doc_id]
                routes = _route(tree, index, mine), _route(tree, index, theirs)
                found.append(Example(task, mine.doc_id, tree.items[index].query, gain, len(pairs), routes))
    return found


def _pairs(run: RunFolder, task: str, better: str, worse: str) -> Iterator[tuple[ItemRow, ItemRow]]:
    """The rows of the two routers for each item of the task on which the first is ahead."""
    for one, other in zip(run.rows[better], run.rows[worse], strict=True):
        if one.task == task and one.quality - other.quality >= AHEAD:
            yield one, other


def _route(tree: Tree, index: int, row: ItemRow) -> Route:
    action = {name: number for number, name in enumerate(tree.models)}
    try:
        pipeline = [action[name] for name in row.pipeline]
    except KeyError:
        unknown = ARROW.join(row.pipeline)
        raise UserError(f"items.parquet names the pipeline {unknown}, which the recording lacks") from None
    hops = []
    for depth in range(len(pipeline)):
        # A model of a cascade answers alike at every hop, and the run may be deeper than the recording.
        node = tree.node(pipeline[depth if tree.independent else 0 : depth + 1])
        made = tree.generation(index, node)
        score = float(tree.score[index, node])
        hops.append(Hop(tree.models[pipeline[depth]], made.response, score, made.finish_reason == "length"))
    return Route(row.router, row.pipeline_share, tuple(hops))
