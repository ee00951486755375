"""A recording: a tree that was generated once and shipped, as Parquet, with its provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from pools.answers import WORD, answer_reader
from pools.errors import QueryError, UserError
from pools.files import finish_moving, holds_nothing, whole_folder
from pools.mdp.tree import Tree
from pools.names import check_distinct, check_name
from pools.pool import Pool, pool_from_dict
from pools.schema import Schema, parse_json
from pools.types import (
    SHARE,
    Context,
    FinishReason,
    Generation,
    GenerationSettings,
    Item,
    Split,
    Timing,
    content_hash,
)

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
_TOLD = "kind", "wording"  # what a task may tell of an item
_LATER = (*_TOLD, "prefill")  # columns that the first recordings lack
_MANIFEST, _TABLES = "manifest.json", ("items.parquet", "transitions.parquet")


class Manifest(Schema):
    """What a recording has to say of itself; docs/reference/recordings.md lists what else is in it."""

    model_config = ConfigDict(extra="allow")

    format: Literal[1]
    suite: str | None = None
    pool: dict[str, Any]
    files: dict[str, str] = Field(default_factory=dict)
    """Of `pool`, `suite`, `task:NAME`: where their YAML files are, if they were some, seen from the folder."""
    max_hops: int
    independent_answers: bool = False
    """Whether the models do not read earlier answers; its tables then hold the first hop alone."""
    answers: str = WORD
    """What a response answers, to compare answers by; a kind of `pools.answers`."""
    seconds: Timing | dict[str, Timing] = SHARE
    """How the seconds of the responses were obtained, by model if they differ."""
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
    if not any(item.prefill for item in tree.items):
        of_items = of_items.remove(of_items.get_field_index("prefill"))
    items = pa.Table.from_pylist([vars(item) | vars(item.settings) for item in tree.items], schema=of_items)
    transitions = pa.Table.from_pylist([{**row, "billed": row["cost"]} for row in tree.rows()], schema=of_transitions)
    shape: dict[str, Any] = {"max_hops": tree.max_hops, "complete": tree.complete}
    shape |= {"independent_answers": tree.independent, "answers": tree.answers}
    by_model = dict(zip(tree.models, tree.timing, strict=True))
    shape["seconds"] = tree.timing[0] if len(set(tree.timing)) == 1 else by_model
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
            *((name, pa.string()) for name in _LATER),
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
            ("seconds", pa.float64()),
            ("score", pa.float32()),
            *([("billed", pa.float64())] if pool.billed else []),
        ]
    )
    return items, transitions


def check_recording(folder: Path) -> Manifest:
    """The manifest of a recording whose files are what was written. Raises UserError if they are not."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[Manifest, list[bytes]]:
    """The manifest and the content of the tables."""
    finish_moving(folder, _MANIFEST)
    for name in (_MANIFEST, *_TABLES):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not a recording: it has no {name}; make one with python -m harness record or import, "
                "or name a folder that holds one"
            )
    try:
        manifest = parse_json(Manifest, (folder / _MANIFEST).read_bytes())
        if manifest.checksum != _checksum(manifest.model_dump(exclude_unset=True)):
            raise ValueError("its manifest is not what was written: the checksum is another")
        files = [(folder / name).read_bytes() for name in _TABLES]
        for name, content in zip(_TABLES, files, strict=True):
            if manifest.sha256.get(name) != hashlib.sha256(content).hexdigest():
                raise ValueError(f"{name} is not what was written: its sha256 is another than the manifest's")
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise _unreadable(folder, error) from None
    return manifest, files


def load_recording(folder: Path | str, cost: str = "paper") -> Recording:
    """Read what `save_recording` wrote; `cost` names the cost model. Raises UserError if that is not whole."""
    import pyarrow as pa

    folder = Path(folder)
    manifest, files = _read(folder)
    said = manifest.model_dump(exclude_unset=True)
    broken = (UserError, ValueError, TypeError, LookupError, OSError, pa.ArrowException)
    try:
        pool = pool_from_dict(manifest.pool, "pool")
        read = [_table(*of_file) for of_file in zip(files, _schemas(pool), strict=True)]
        items, rows = read[0].to_pydict(), read[1]
        for name in _LATER:
            items.setdefault(name, [""] * len(items["task"]))
    except broken as error:
        raise _unreadable(folder, error) from None
    cost_model = pool.cost_model(cost)
    try:
        settings = map(GenerationSettings, map(tuple, items["until"]), items["max_new_tokens"])
        columns = items["task"], items["doc_id"], items["query"], settings, items["split"], *(items[n] for n in _LATER)
        made = [Item(*of_item) for of_item in zip(*columns, strict=True)]
        answer_reader(manifest.answers)
        recorded_hops = 1 if manifest.independent_answers else manifest.max_hops
        said_of = manifest.seconds
        timing = [said_of[name] if isinstance(said_of, dict) else said_of for name in pool.model_names]
        tree = Tree(made, pool.model_names, recorded_hops, cost_model, answers=manifest.answers, timing=timing)
        _check(tree, manifest.suite)
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


def _table(content: bytes, schema: pa.Schema) -> pa.Table:
    """The columns of a Parquet file; those of `_LATER` may be missing.

    Raises an error of Python's or pyarrow's if another is missing or one does not fit.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # With no threads: a command that ends while pyarrow still starts some is aborted by them.
    table = pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)
    expected = [field for field in schema if field.name not in _LATER or field.name in table.column_names]
    filled = pa.schema([field.with_nullable(False) for field in expected])
    return table.select(filled.names).cast(filled).combine_chunks()


def _check(tree: Tree, suite: str | None) -> None:
    """Raise an error if a value is of the right type and yet none that a recording can hold."""
    tasks = list(dict.fromkeys(item.task for item in tree.items))
    told = dict.fromkeys((what, str(getattr(item, what))) for item in tree.items for what in _TOLD)
    for what, name in [("suite", suite), *(("task", task) for task in tasks), *(each for each in told if each[1])]:
        if name is not None:
            check_name(name, what)
    check_distinct(tasks, "task")
    if len({(item.task, item.doc_id) for item in tree.items}) < len(tree.items):
        raise ValueError("an item is there twice")
    if not {item.split for item in tree.items} <= set(get_args(Split)):
        raise ValueError(f"a split is none of {', '.join(get_args(Split))}")


class RecordedGenerator:
    """`Gen` answered from a recording, for whoever has contexts and not the recording's items."""

    def __init__(self, tree: Tree) -> None:
        self._independent = tree.independent
        self._answers = {
            (model, context, settings): made
            for model in range(len(tree.models))
            for context, settings, made in tree.generations(model)
        }
        self._settings = {item.query: item.settings for item in tree.items}

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """The recorded responses. Raises QueryError if one is missing."""
        if self._independent:  # what was answered before is not read
            requests = [(replace(context, responses=()), settings) for context, settings in requests]
        missing = [each for each in requests if (model, *each) not in self._answers]
        for context, settings in missing:
            recorded = self._settings.get(context.query, settings)
            if recorded != settings:
                raise QueryError(
                    f"{context.query[:60]!r} was recorded with at most {recorded.max_new_tokens} tokens and the stop "
                    f"sequences {list(recorded.until)}, not with {settings.max_new_tokens} and {list(settings.until)}; "
                    "ask as it was recorded, or ask the models, without --recording"
                )
        if missing:
            raise QueryError(
                f"the recording has no response to {len(missing)} of {len(requests)} requests, the first of them "
                f"{missing[0][0].query[:60]!r}; was it made with these tasks and limits? Else ask the models, without "
                "--recording"
            )
        return [self._answers[model, context, settings] for context, settings in requests]


def _fill(tree: Tree, rows: pa.Table) -> None:
    """Enter the rows of `transitions.parquet` into the tree. Raises an error if the rows are of no such tree."""
    if not rows.num_rows:
        return
    place = {(item.task, item.doc_id): index for index, item in enumerate(tree.items)}
    items = np.array([place[key] for key in zip(*(rows[n].to_pylist() for n in ("task", "doc_id")), strict=True)])
    nodes = _nodes(tree, rows["pipeline"].combine_chunks())
    if len(np.unique(items * tree.nodes + nodes)) < len(nodes):
        raise ValueError("a response is there twice")
    if not set(rows["finish_reason"].unique().to_pylist()) <= set(get_args(FinishReason)):
        raise ValueError(f"a finish_reason is none of {', '.join(get_args(FinishReason))}")
    columns = {field.name: "billed" if field.name == "cost" else field.name for field in fields(Generation)}
    told = {name: rows[column].to_pylist() for name, column in columns.items() if column in rows.column_names}
    made: dict[tuple[Any, ...], int] = {}
    made_id = np.array([made.setdefault(values, len(made)) for values in zip(*told.values(), strict=True)])
    generations = [Generation(**dict(zip(told, values, strict=True))) for values in made]
    tree.fill(items, nodes, generations, made_id, rows["score"].to_numpy())


def _nodes(tree: Tree, pipelines: pa.ListArray) -> NDArray[np.int64]:
    """The node of each pipeline. Raises an error if the tree has none."""
    import pyarrow.compute as pc

    names = pipelines.flatten().dictionary_encode()
    action = {name: index for index, name in enumerate(tree.models)}
    actions = np.array([action[name] for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
    depth = pc.list_value_length(pipelines).to_numpy()
    if not 1 <= depth.min() <= depth.max() <= tree.max_hops:
        wrong = depth.min() if depth.min() < 1 else depth.max()
        raise ValueError(f"a pipeline has {wrong} hops, expected 1 to {tree.max_hops}")
    start, nodes = np.cumsum(depth) - depth, np.zeros(len(depth), np.int64)
    for hop in range(depth.max()):
        longer = depth > hop
        nodes[longer] = tree.child(nodes[longer], actions[start[longer] + hop])
    return nodes
