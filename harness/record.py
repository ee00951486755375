"""Record the whole tree of a suite, so that every router can be evaluated on it exactly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.manifest import provenance
from harness.progress import generation_progress
from harness.source import Source, live, recording_name
from pools.errors import UserError
from pools.recording import check_recording_target, load_recording, save_recording
from pools.tree import Tree
from tasks import load_suite

if TYPE_CHECKING:
    from harness.cli import Record


def record(options: Record, console: Console) -> Path:
    """Generate every node, breadth-first over hops and model by model, and write the recording; where it is.

    Every batch is in the store before the next begins: after Ctrl-C or `kill -9` the same command goes on from there.
    """
    name = recording_name(options.pool, options.suite)
    folder = options.out or Path("runs") / "recordings" / name
    _check_target(folder, options)
    store = options.store or Path("runs") / "stores" / f"{name}.sqlite"
    start = time.monotonic()
    with generation_progress(console) as on_batch:
        source = live(
            *(options.pool, options.suite, options.max_hops, options.task, options.limit),
            *(options.weights, store, on_batch, options.resident),
        )
        tree = source.tree
        reused = None
        if options.reuse is not None:
            reused = _reuse(source, options.reuse)
            console.print(f"{reused['responses']:,} responses taken from {options.reuse}", highlight=False)
        for depth in range(1, options.max_hops + 1):
            items, nodes = np.meshgrid(np.arange(len(tree.items)), tree.level(depth), indexing="ij")
            console.print(f"hop {depth} of {options.max_hops}: {items.size:,} responses, equal requests merged")
            tree.require(items.ravel(), nodes.ravel())
    assert source.generator is not None and source.generator.store is not None
    manifest = {
        **provenance(),
        "command": _command(options),
        "suite": source.suite,
        "models": source.description["models"],
        "tasks": source.description["tasks"],
        "limit": options.limit,
        "batching": {m.name: f"batches of {m.batch_size}, longest query first" for m in source.pool.models},
        "counts": counts(tree),
        "reused_responses": source.generator.store.hits,
        "reused_from": reused,
        "generation_hours": round(_generation_seconds(tree) / 3600, 3),
        "command_hours": round((time.monotonic() - start) / 3600, 3),
    }
    save_recording(tree, source.pool, manifest, folder)
    return folder


def _check_target(folder: Path, options: Record) -> None:
    """Raise UserError, before anything is generated, where the recording could not or should not be written."""
    if options.max_hops < 1:
        raise UserError(f"--max-hops {options.max_hops}: expected at least 1")
    if options.resident is not None and options.resident < 1:
        raise UserError(f"--resident {options.resident}: expected at least 1")
    check_recording_target(folder)
    if not (folder / "manifest.json").is_file():
        return
    there = load_recording(folder)
    wanted = options.task or tuple(entry.name for entry in load_suite(options.suite).tasks)
    has = tuple(dict.fromkeys(item.task for item in there.tree.items))
    given = (set(wanted), options.limit, options.max_hops)
    if (set(has), there.manifest.get("limit"), there.tree.max_hops) != given:
        raise UserError(
            f"{folder} holds a recording of {', '.join(has)} with --limit {there.manifest.get('limit')} and "
            f"{there.tree.max_hops} hops, which this one would replace; name another --out, or remove it"
        )


def _reuse(source: Source, folder: Path) -> dict[str, Any]:
    """Copy what the same models answered in an earlier recording, or an exported store, into the store.

    Gives what a manifest must say of it: its name, how many responses it has, and how they were made.
    """
    assert source.generator is not None and source.generator.store is not None
    if folder.suffix == ".parquet":
        return {"name": folder.name, "responses": source.generator.store.import_parquet(folder)}
    earlier = load_recording(folder)
    now, then = source.description["models"], earlier.manifest.get("models", {})
    copied = 0
    for action, name in enumerate(earlier.tree.models):
        if name in now and now[name] == then.get(name):
            entries = earlier.tree.generations(action)
            source.generator.store.put(now[name], entries)
            copied += len(entries)
    if not copied:
        raise UserError(f"--reuse {folder}: none of its models is one of pool {source.pool.name} as it is now")
    made = {key: earlier.manifest.get(key) for key in ("date", "versions", "batching", "command")}
    return {"name": folder.name, "responses": copied, **made}


def _command(options: Record) -> str:
    """The command that makes the recording again, with no path of this computer in it."""
    words = ["python -m harness record", "--pool", Path(options.pool).name, "--suite", Path(options.suite).name]
    words += ["--task", *options.task] if options.task else []
    words += ["--max-hops", str(options.max_hops)]
    words += [] if options.limit is None else ["--limit", str(options.limit)]
    return " ".join([*words, "--weights DIR"])


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
