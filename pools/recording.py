"""A recording: a tree that was generated once and shipped, as Parquet, with its provenance."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.pool import Pool, pool_from_dict
from pools.tree import Tree
from pools.types import Generation, GenerationSettings, Item

FORMAT = 1


@dataclass(frozen=True)
class Recording:
    """The tree, the pool that answered, and the manifest that says how it was made."""

    tree: Tree
    pool: Pool
    manifest: dict[str, Any]


def save_recording(tree: Tree, pool: Pool, manifest: dict[str, Any], folder: Path) -> None:
    """Write `items.parquet`, `transitions.parquet` (zstd) and `manifest.json`; a recording that is there is replaced.

    The columns are documented in docs/recordings.md.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = {
        "task": [item.task for item in tree.items],
        "doc_id": pa.array([item.doc_id for item in tree.items], pa.int32()),
        "query": [item.query for item in tree.items],
        "until": pa.array([list(item.settings.until) for item in tree.items], pa.list_(pa.string())),
        "max_new_tokens": pa.array([item.settings.max_new_tokens for item in tree.items], pa.int32()),
        "split": [item.split for item in tree.items],
    }
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
        ]
    )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pq.write_table(pa.table(items), partial / "items.parquet", compression="zstd")
    table = pa.Table.from_pylist(list(tree.rows()), schema=transitions)
    pq.write_table(table, partial / "transitions.parquet", compression="zstd", compression_level=19)
    full = {
        "format": FORMAT,
        "pool": pool.to_dict(),
        "max_hops": tree.max_hops,
        "complete": tree.complete,
        **manifest,
    }
    (partial / "manifest.json").write_text(json.dumps(full, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_recording(folder: Path) -> Recording:
    """Read what `save_recording` wrote. Raises UserError where the folder does not hold a recording."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    missing = [n for n in ("manifest.json", "items.parquet", "transitions.parquet") if not (folder / n).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not a recording: it has no {missing[0]}; make one with python -m harness record, "
            "or name a folder that holds one"
        )
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        items = pq.read_table(folder / "items.parquet").to_pydict()
        rows = pq.read_table(folder / "transitions.parquet").to_pydict()
    except (ValueError, pa.ArrowException) as error:
        raise UserError(
            f"the recording {folder} cannot be read: {str(error).splitlines()[0]}; fetch it again"
        ) from None
    if manifest.get("format") != FORMAT:
        raise UserError(f"the recording {folder} has format {manifest.get('format')}, this version reads {FORMAT}")
    pool = pool_from_dict(manifest["pool"], f"{folder / 'manifest.json'}: pool")
    tree = Tree(
        [
            Item(task, doc_id, query, GenerationSettings(tuple(until), max_new), split)
            for task, doc_id, query, until, max_new, split in zip(
                *(items[n] for n in ("task", "doc_id", "query", "until", "max_new_tokens", "split")), strict=True
            )
        ],
        pool.model_names,
        manifest["max_hops"],
    )
    _fill(tree, rows)
    return Recording(tree, pool, manifest)


def _fill(tree: Tree, rows: dict[str, list[Any]]) -> None:
    place = {(item.task, item.doc_id): index for index, item in enumerate(tree.items)}
    action = {name: index for index, name in enumerate(tree.models)}
    nodes = [tree.node(action[name] for name in pipeline) for pipeline in rows["pipeline"]]
    for row in sorted(range(len(nodes)), key=nodes.__getitem__):  # a node's parent has the smaller number
        index = place[rows["task"][row], rows["doc_id"][row]]
        generation = Generation(
            *(rows[n][row] for n in ("response", "tokens_in", "tokens_out", "finish_reason", "seconds"))
        )
        tree.put(index, nodes[row], generation, rows["score"][row])
