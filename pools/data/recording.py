"""A recording: a tree that was generated once and shipped, as Parquet, with its provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ConfigDict

from pools.answers import WORD, answer_reader
from pools.errors import QueryError, UserError
from pools.files import finish_moving, holds_nothing, whole_folder
from pools.mdp.tree import Tree
from pools.names import check_distinct, check_name
from pools.pool import Pool, pool_from_dict
from pools.schema import Schema, parse_json
from pools.types import Context, FinishReason, Generation, GenerationSettings, Item, Split, content_hash

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
_MANIFEST, _TABLES = "manifest.json", ("items.parquet", "transitions.parquet")


class Manifest(Schema):
    """What a recording has to say of itself; docs/reference/recordings.md lists what else is in it."""

    model_config = ConfigDict(extra="allow")

    format: Literal[1]
    suite: str | None = None
    pool: dict[str, Any]
    max_hops: int
    independent_answers: bool = False
    """Whether the models do not read earlier answers; its tables then hold the first hop alone."""
    answers: str = WORD
    """What a response answers, to compare answers by; a kind of `pools.answers`."""
    sha256: dict[str, str]
    """Of each other file, by its name."""
    checksum: str
    """sha256 of the manifest without it, as canonical JSON (`types.content_hash`)."""


@dataclass(frozen=True)
class Recording:
    """The tree, the pool that answered, and the manifest that says how it was made."""

    tree: Tree
    pool: Pool
    manifest: dict[str, Any]


def save_recording(tree: Tree, pool: Pool, manifest: dict[str, Any], folder: Path, replace: bool = True) -> None:
    """Write `items.parquet`, `transitions.parquet` (zstd) and `manifest.json`, all or none.

    A recording that is there is replaced, whole at any moment, or refused without `replace`. Of several processes that
    write the same one at once, each waits for the one before it. Raises UserError if the folder holds something
    else. The columns are documented in docs/reference/recordings.md.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_recording_target(folder, replace)
    of_items, of_transitions = _schemas(pool)
    items = pa.Table.from_pylist([vars(item) | vars(item.settings) for item in tree.items], schema=of_items)
    transitions = pa.Table.from_pylist([{**row, "billed": row["cost"]} for row in tree.rows()], schema=of_transitions)
    shape: dict[str, Any] = {"max_hops": tree.max_hops, "complete": tree.complete}
    shape |= {"independent_answers": tree.independent, "answers": tree.answers}
    full = {"format": FORMAT, "pool": pool.to_dict(), **shape, **manifest}
    with whole_folder(folder, _MANIFEST, check=lambda: check_recording_target(folder, replace)) as partial:
        for name, table, level in zip(_TABLES, (items, transitions), (None, 19), strict=True):
            # As open files: pyarrow takes a path with a colon for an address.
            with (partial / name).open("wb") as file:
                pq.write_table(table, file, compression="zstd", compression_level=level)
        (partial / _MANIFEST).write_text(json.dumps(full), encoding="utf-8")
        seal_recording(partial)


def seal_recording(folder: Path) -> None:
    """Put the checksums of its files as they are now into a recording's manifest: after a change that is meant."""
    path = folder / _MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _TABLES}
    manifest["checksum"] = _checksum(manifest)
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _checksum(manifest: dict[str, Any]) -> str:
    return content_hash({key: value for key, value in manifest.items() if key != "checksum"})


def check_recording_target(folder: Path, replace: bool = True) -> None:
    """Raise UserError if a recording may not be written.

    That is at a file, in a folder that holds something else, and, without `replace`, in one that holds a recording.
    """
    if not folder.exists():
        return
    if folder.is_dir():
        finish_moving(folder, _MANIFEST)
    there = (folder / _TABLES[-1]).is_file()
    if not folder.is_dir() or not (there or holds_nothing(folder, _MANIFEST)):
        raise UserError(f"{folder} is there and is no recording; name a new folder, or one that holds a recording")
    if not replace and there:
        raise UserError(f"{folder} holds a recording; name another --out, or replace it with --force")


def _schemas(pool: Pool) -> tuple[pa.Schema, pa.Schema]:
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
            ("kind", pa.string()),
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
            *([("billed", pa.float64())] if pool.billed else []),
        ]
    )
    return items, transitions


def load_recording(folder: Path | str, cost: str = "paper") -> Recording:
    """Read what `save_recording` wrote; `cost` names the cost model. Raises UserError if that is not whole."""
    import pyarrow as pa

    folder = Path(folder)
    finish_moving(folder, _MANIFEST)
    for name in (_MANIFEST, *_TABLES):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not a recording: it has no {name}; make one with python -m harness record or import, "
                "or name a folder that holds one"
            )
    broken = (UserError, ValueError, TypeError, LookupError, OSError, pa.ArrowException)
    try:
        manifest = parse_json(Manifest, (folder / _MANIFEST).read_bytes())
        said = manifest.model_dump(exclude_unset=True)
        if manifest.checksum != _checksum(said):
            raise ValueError("its manifest is not what was written: the checksum is another")
        pool = pool_from_dict(manifest.pool, "pool")
        files = [(folder / name).read_bytes() for name in _TABLES]
        for name, content in zip(_TABLES, files, strict=True):
            if manifest.sha256.get(name) != hashlib.sha256(content).hexdigest():
                raise ValueError(f"{name} is not what was written: its sha256 is another than the manifest's")
        items, rows = (_columns(*of_file) for of_file in zip(files, _schemas(pool), strict=True))
        items.setdefault("kind", [""] * len(items["task"]))
    except broken as error:
        raise _unreadable(folder, error) from None
    cost_model = pool.cost_model(cost)
    try:
        settings = map(GenerationSettings, map(tuple, items["until"]), items["max_new_tokens"])
        columns = items["task"], items["doc_id"], items["query"], settings, items["split"], items["kind"]
        made = [Item(*of_item) for of_item in zip(*columns, strict=True)]
        answer_reader(manifest.answers)
        recorded_hops = 1 if manifest.independent_answers else manifest.max_hops
        tree = Tree(made, pool.model_names, recorded_hops, cost_model, answers=manifest.answers)
        _check(tree, manifest.suite, rows)
        _fill(tree, rows)
        if manifest.independent_answers:
            if not tree.complete:
                raise ValueError("a response is missing, and models that do not read earlier answers need each")
            tree = tree.cascade(manifest.max_hops)
    except broken as error:
        raise _unreadable(folder, error) from None
    return Recording(tree, pool, said)


def _unreadable(folder: Path, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"the recording {folder} cannot be read ({reason}); fetch it again, or record it again")


def _columns(content: bytes, schema: pa.Schema) -> dict[str, list[Any]]:
    """The columns of a Parquet file; `kind` may be missing, as recordings once had none.

    Raises an error of Python's or pyarrow's if another is missing or one does not fit.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # With no threads: a command that ends while pyarrow still starts some is aborted by them.
    table = pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)
    expected = [field for field in schema if field.name != "kind" or field.name in table.column_names]
    filled = pa.schema([field.with_nullable(False) for field in expected])
    columns: dict[str, list[Any]] = table.select(filled.names).cast(filled).to_pydict()
    return columns


def _check(tree: Tree, suite: str | None, rows: dict[str, list[Any]]) -> None:
    """Raise an error if a value is of the right type and yet none that a recording can hold."""
    tasks = list(dict.fromkeys(item.task for item in tree.items))
    kinds = dict.fromkeys(item.kind for item in tree.items if item.kind)
    for what, name in [("suite", suite), *(("task", task) for task in tasks), *(("kind", kind) for kind in kinds)]:
        if name is not None:
            check_name(name, what)
    check_distinct(tasks, "task")
    if len({(item.task, item.doc_id) for item in tree.items}) < len(tree.items):
        raise ValueError("an item is there twice")
    if len(set(zip(rows["task"], rows["doc_id"], map(tuple, rows["pipeline"]), strict=True))) < len(rows["task"]):
        raise ValueError("a response is there twice")
    for what, found, known in (
        ("split", {item.split for item in tree.items}, Split),
        ("finish_reason", set(rows["finish_reason"]), FinishReason),
    ):
        if not found <= set(get_args(known)):
            raise ValueError(f"a {what} is none of {', '.join(get_args(known))}")


class RecordedGenerator:
    """`Gen` answered from a recording, for whoever has contexts and not the recording's items."""

    def __init__(self, tree: Tree) -> None:
        self._independent = tree.independent
        self._answers = {
            (model, context, settings): made
            for model in range(len(tree.models))
            for context, settings, made in tree.generations(model)
        }

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """The recorded responses. Raises QueryError if one is missing."""
        if self._independent:  # what was answered before is not read
            requests = [(Context(context.query), settings) for context, settings in requests]
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
    columns = {field.name: "billed" if field.name == "cost" else field.name for field in fields(Generation)}
    for row in sorted(range(len(nodes)), key=nodes.__getitem__):  # a node's parent has the smaller number
        index = place[rows["task"][row], rows["doc_id"][row]]
        if not tree.known[index, tree.parent(nodes[row])]:
            raise ValueError(f"a response to {rows['task'][row]} {rows['doc_id'][row]} lacks the hop before it")
        generation = Generation(**{name: rows[column][row] for name, column in columns.items() if column in rows})
        tree.put(index, nodes[row], generation, rows["score"][row])
