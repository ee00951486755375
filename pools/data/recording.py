"""A recording: a tree that was generated once and shipped, as Parquet, with its provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pools.data.parquet import read_columns
from pools.errors import QueryError, UserError, shown
from pools.files import finish_moving, holds_nothing, whole_folder
from pools.mdp.tree import Tree
from pools.names import check_distinct, check_name
from pools.pool import Pool, pool_from_dict
from pools.seal import check_seal, sealed
from pools.types import Context, FinishReason, Generation, GenerationSettings, Item, Split

FORMAT = 1
_FILES = ("manifest.json", "items.parquet", "transitions.parquet")


@dataclass(frozen=True)
class Recording:
    """The tree, the pool that answered, and the manifest that says how it was made."""

    tree: Tree
    pool: Pool
    manifest: dict[str, Any]


def save_recording(tree: Tree, pool: Pool, manifest: dict[str, Any], folder: Path, replace: bool = True) -> None:
    """Write `items.parquet`, `transitions.parquet` (zstd) and `manifest.json`, all or none.

    A recording that is there is replaced, whole at any moment, or refused without `replace`. Of several processes that
    write the same one at once, each waits for the one before it. Raises UserError where the folder holds something
    else. The columns are documented in docs/recordings.md.
    """
    check_recording_target(folder, replace)
    with whole_folder(folder, _FILES[0], check=lambda: check_recording_target(folder, replace)) as partial:
        _write(tree, pool, manifest, partial)


def seal_recording(folder: Path) -> None:
    """Put the checksums of its files as they are now into a recording's manifest: after a change that is meant."""
    path = folder / _FILES[0]
    manifest = json.loads(path.read_text(encoding="utf-8"))
    full = sealed(manifest, {name: (folder / name).read_bytes() for name in _FILES[1:]})
    path.write_text(json.dumps(full, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_recording_target(folder: Path, replace: bool = True) -> None:
    """Raise UserError where a recording may not be written.

    That is at a file, in a folder that holds something else, and, without `replace`, in one that holds a recording.
    """
    if not folder.exists():
        return
    if folder.is_dir():
        finish_moving(folder, _FILES[0])
    if not folder.is_dir() or not ((folder / _FILES[-1]).is_file() or holds_nothing(folder, _FILES[0])):
        raise UserError(f"{folder} is there and is no recording; name a new folder, or one that holds a recording")
    if not replace and (folder / _FILES[-1]).is_file():
        raise UserError(f"{folder} holds a recording; name another --out, or replace it with --force")


def _write(tree: Tree, pool: Pool, manifest: dict[str, Any], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = {
        "task": [item.task for item in tree.items],
        "doc_id": [item.doc_id for item in tree.items],
        "query": [item.query for item in tree.items],
        "until": [list(item.settings.until) for item in tree.items],
        "max_new_tokens": [item.settings.max_new_tokens for item in tree.items],
        "split": [item.split for item in tree.items],
    }
    of_items, of_transitions = _schemas(pool.billed)
    # As open files: pyarrow takes a path with a colon for an address.
    with (folder / "items.parquet").open("wb") as file:
        pq.write_table(pa.table(items, schema=of_items), file, compression="zstd")
    table = pa.Table.from_pylist(list(tree.rows()), schema=of_transitions)
    with (folder / "transitions.parquet").open("wb") as file:
        pq.write_table(table, file, compression="zstd", compression_level=19)
    full = {
        "format": FORMAT,
        "pool": pool.to_dict(),
        "max_hops": tree.max_hops,
        "complete": tree.complete,
        **manifest,
    }
    (folder / "manifest.json").write_text(json.dumps(full, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    seal_recording(folder)


def _schemas(billed: bool) -> tuple[Any, Any]:
    """The columns of `items.parquet` and of `transitions.parquet`."""
    import pyarrow as pa

    items = pa.schema(
        [
            ("task", pa.string()),
            ("doc_id", pa.int32()),
            ("query", pa.string()),
            ("until", pa.list_(pa.string())),
            ("max_new_tokens", pa.int32()),
            ("split", pa.string()),
        ]
    )
    transitions = pa.schema(
        [
            ("task", pa.string()),
            ("doc_id", pa.int32()),
            ("pipeline", pa.list_(pa.string())),
            ("response", pa.string()),
            ("tokens_in", pa.int32()),
            ("tokens_out", pa.int32()),
            ("finish_reason", pa.string()),
            ("seconds", pa.float32()),
            ("score", pa.float32()),
            *([("billed", pa.float64())] if billed else []),
        ]
    )
    return items, transitions


def load_recording(folder: Path | str, cost: str = "paper") -> Recording:
    """Read what `save_recording` wrote; `cost` names the cost model. Raises UserError if the folder holds none."""
    import pyarrow as pa

    folder = Path(folder)
    finish_moving(folder, _FILES[0])
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not a recording: it has no {missing[0]}; make one with python -m harness record, "
            "or name a folder that holds one"
        )
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = {name: (folder / name).read_bytes() for name in _FILES[1:]}
    except (ValueError, OSError, RecursionError) as error:
        raise _unreadable(folder, error) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise UserError(
            f"the recording {folder} has format {found}, this version reads {FORMAT}; record it again, or use the "
            "version that wrote it"
        )
    try:
        check_seal(manifest, files)
        items, rows = (
            read_columns(name, content, schema, optional=("billed",))
            for (name, content), schema in zip(files.items(), _schemas(billed=True), strict=True)
        )
    except (UserError, ValueError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        raise _unreadable(folder, error) from None
    pool = pool_from_dict(manifest.get("pool"), f"{folder / 'manifest.json'}: pool")
    cost_model = pool.cost_model(cost)
    try:
        columns = zip(*(items[n] for n in ("task", "doc_id", "query", "until", "max_new_tokens", "split")), strict=True)
        tree = Tree(
            [
                Item(task, doc_id, query, GenerationSettings(tuple(until), max_new), split)
                for task, doc_id, query, until, max_new, split in columns
            ],
            pool.model_names,
            manifest["max_hops"],
            cost_model,
        )
        _check(tree, manifest, rows)
        _fill(tree, rows)
    except (UserError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error
    return Recording(tree, pool, manifest)


def _check(tree: Tree, manifest: dict[str, Any], rows: dict[str, list[Any]]) -> None:
    """Raise ValueError where a value is of the right type and still none that a recording can hold."""
    if not isinstance(manifest.get("suite"), str | None):
        raise ValueError(f"suite is {shown(manifest['suite'])}, expected a text")
    if type(manifest["max_hops"]) is not int:
        raise ValueError(f"max_hops is {shown(manifest['max_hops'])}, expected a whole number")
    tasks = list(dict.fromkeys(item.task for item in tree.items))
    named = [("suite", manifest.get("suite")), *(("task", task) for task in tasks)]
    for what, name in named:
        if name is not None:
            check_name(name, what)
    check_distinct(tasks, "task")
    keys = {(item.task, item.doc_id) for item in tree.items}
    if len(keys) < len(tree.items):
        raise ValueError("an item is there twice")
    if not {item.split for item in tree.items} <= set(get_args(Split)):
        raise ValueError(f"a split is none of {', '.join(get_args(Split))}")
    if min([0, *rows["tokens_in"], *rows["tokens_out"], *(item.settings.max_new_tokens for item in tree.items)]) < 0:
        raise ValueError("a number of tokens is below 0")
    if not all(0 <= score <= 1 for score in rows["score"]) or not np.isfinite(rows["seconds"]).all():
        raise ValueError("a score is no number from 0 to 1, or a time no number")
    if not set(rows["finish_reason"]) <= set(get_args(FinishReason)):
        raise ValueError(f"a finish_reason is none of {', '.join(get_args(FinishReason))}")
    if not all(rows["pipeline"]):
        raise ValueError("a pipeline has no model")
    if len(set(zip(rows["task"], rows["doc_id"], map(tuple, rows["pipeline"]), strict=True))) < len(rows["task"]):
        raise ValueError("a response is there twice")


def _unreadable(folder: Path, error: Exception) -> UserError:
    shown = " ".join(str(error).split())
    return UserError(f"the recording {folder} cannot be read ({type(error).__name__}: {shown}); fetch it again")


class RecordedGenerator:
    """`Gen` answered from a recording, for whoever has contexts and not the recording's items."""

    def __init__(self, tree: Tree) -> None:
        self._answers: dict[tuple[int, Context, GenerationSettings], Generation] = {}
        for index, item in enumerate(tree.items):
            for node in range(1, tree.nodes):
                if tree.known[index, node]:
                    model, parent = (node - 1) % len(tree.models), (node - 1) // len(tree.models)
                    context = tree.context(index, parent)
                    self._answers[model, context, item.settings] = tree.generation(index, node)

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """The recorded responses. Raises QueryError where one is missing."""
        missing = [context for context, settings in requests if (model, context, settings) not in self._answers]
        if missing:
            raise QueryError(
                f"the recording has no response to {len(missing)} of {len(requests)} requests, the first of them "
                f"{missing[0].query[:60]!r}; was it made with these tasks and limits? Else use the models"
            )
        return [self._answers[model, context, settings] for context, settings in requests]


def _fill(tree: Tree, rows: dict[str, list[Any]]) -> None:
    place = {(item.task, item.doc_id): index for index, item in enumerate(tree.items)}
    action = {name: index for index, name in enumerate(tree.models)}
    nodes = [tree.node(action[name] for name in pipeline) for pipeline in rows["pipeline"]]
    for row in sorted(range(len(nodes)), key=nodes.__getitem__):  # a node's parent has the smaller number
        index = place[rows["task"][row], rows["doc_id"][row]]
        if not tree.known[index, tree.parent(nodes[row])]:
            raise ValueError(f"a response to {rows['task'][row]} {rows['doc_id'][row]} lacks the hop before it")
        columns = ("response", "tokens_in", "tokens_out", "finish_reason", "seconds", "billed")
        generation = Generation(*(rows[n][row] for n in columns if n in rows))
        tree.put(index, nodes[row], generation, rows["score"][row])
