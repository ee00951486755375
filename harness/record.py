"""Record the whole tree of a suite, so that every router can be evaluated on it exactly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.manifest import provenance
from harness.progress import generation_progress
from harness.source import live, live_description, recording_folder, suite_tasks
from pools.errors import UserError
from pools.recording import save_recording
from pools.tree import Tree
from tasks import load_suite

if TYPE_CHECKING:
    from harness.cli import Record


def record(options: Record, console: Console) -> Path:
    """Generate every node, breadth-first over hops and model by model, and write the recording; where it is.

    Every batch is in the store before the next begins: after Ctrl-C or `kill -9` the same command goes on from there.
    """
    folder = options.out or recording_folder(options.pool, options.suite)
    if folder.exists() and not (folder / "manifest.json").is_file() and any(folder.iterdir()):
        raise UserError(f"--out {folder} holds other files; name a new folder, or one that holds a recording")
    store = options.store or Path("runs") / "stores" / f"{folder.name}.sqlite"
    start = time.monotonic()
    with generation_progress(console) as on_batch:
        source = live(
            *(options.pool, options.suite, options.max_hops, options.task, options.limit),
            *(options.weights, store, on_batch),
        )
        tree = source.tree
        for depth in range(1, options.max_hops + 1):
            items, nodes = np.meshgrid(np.arange(len(tree.items)), tree.level(depth), indexing="ij")
            console.print(f"hop {depth} of {options.max_hops}: {items.size:,} responses, equal requests merged")
            tree.require(items.ravel(), nodes.ravel())
    tasks = suite_tasks(load_suite(options.suite), options.task)
    manifest = {
        **provenance(),
        "suite": source.suite,
        **live_description(source.pool, tasks, options.weights),
        "limit": options.limit,
        "batching": {m.name: f"batches of {m.batch_size}, longest first" for m in source.pool.models},
        "counts": counts(tree),
        "generation_hours": round(_generation_seconds(tree) / 3600, 3),
        "command_hours": round((time.monotonic() - start) / 3600, 3),
    }
    save_recording(tree, source.pool, manifest, folder)
    return folder


def counts(tree: Tree) -> dict[str, Any]:
    """How much a tree holds: items, nodes, distinct requests and tokens."""
    distinct = {
        (int(tree.context_id[i, tree.parent(n)]), int(tree.action(n)), tree.items[i].settings)
        for i, n in np.argwhere(tree.known)
        if n
    }
    return {
        "items": len(tree.items),
        "transitions": int(tree.known[:, 1:].sum()),
        "distinct_requests": len(distinct),
        "distinct_contexts": len(tree.contexts),
        "tokens_in": int(tree.tokens_in.sum()),
        "tokens_out": int(tree.tokens_out.sum()),
    }


def _generation_seconds(tree: Tree) -> float:
    made = {
        (int(tree.context_id[i, tree.parent(n)]), int(tree.action(n)), tree.items[i].settings): tree.generation(i, n)
        for i, n in np.argwhere(tree.known)
        if n
    }
    return sum(generation.seconds for generation in made.values())
