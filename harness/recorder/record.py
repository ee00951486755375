"""Record the whole tree of a suite, so that every router can be evaluated on it exactly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.runs.manifest import provenance
from harness.runs.progress import generation_progress
from harness.runs.source import (
    DEFAULT_HOPS,
    DEFAULT_POOL,
    Source,
    choose_sandbox,
    command_to_record,
    live_source,
    recording_name,
)
from pools.data.recording import check_recording_target, load_recording, save_recording
from pools.data.store import TransitionStore, transition_key
from pools.errors import UserError
from pools.models.progress import Progress
from pools.pool import load_pool
from pools.template import visible
from pools.types import SHARE, Generation, Timing
from tasks import chosen_suite, registry

if TYPE_CHECKING:
    from harness.recorder.config import Record


def record(
    pool: str = DEFAULT_POOL,
    suite: str | None = None,
    out: Path | str | None = None,
    *,
    tasks: Sequence[str] = (),
    include_path: Path | str | None = None,
    weights: Path | str | None = None,
    limit: int | None = None,
    max_hops: int = DEFAULT_HOPS,
    store: Path | str | None = None,
    reuse: Path | str | None = None,
    sandbox: str = "auto",
    engine: str = "local",
    resident: int | None = None,
    ray_address: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Progress | None = None,
) -> Path:
    """Generate every node, breadth-first over hops and model by model, and write the recording; where it is.

    The parameters are the options of `python -m harness record`. say: is told what takes a while; on_progress: of
    models, as `pools.models.progress` has it. Every batch is in the store before the next begins: after Ctrl-C or
    `kill -9` the same call goes on from there. Raises UserError, before anything is generated, for what is not there,
    and for a folder that holds something else.
    """
    out, store, weights, reuse, include = (
        None if p is None else Path(p) for p in (out, store, weights, reuse, include_path)
    )
    chosen, candidates = chosen_suite(suite, tasks, include), load_pool(pool)
    name = recording_name(pool, suite or chosen.name)
    folder = out or Path("runs") / "recordings" / name
    if max_hops < 1:
        raise UserError(f"--max-hops {max_hops}: expected at least 1")
    if resident is not None and resident < 1:
        raise UserError(f"--resident {resident}: expected at least 1")
    if ray_address is not None:
        if engine != "ray":
            raise UserError("--ray-address belongs to --engine ray; name both, or neither")
        engine = f"ray:{ray_address}"
    check_recording_target(folder)
    graded = choose_sandbox(sandbox, say)
    say(f"loading tasks and models of {name}; data and weights that are not here come from the Hugging Face hub")
    start = time.monotonic()
    source = live_source(
        *(candidates, chosen, max_hops, limit, weights),
        *(store or Path("runs") / "stores" / f"{name}.sqlite", on_progress, resident, engine),
    )
    assert source.generator is not None and source.generator.store is not None
    tree, kept, fingerprints = source.tree, source.generator.store, source.description["models"]
    if not force:
        _check_replaced(folder, source, limit)
    if reuse is not None:
        say(f"{_reuse(reuse, kept, fingerprints):,} responses taken from {reuse}")
    for depth in range(1, max_hops + 1):
        items, nodes = np.meshgrid(np.arange(len(tree.items)), tree.level(depth), indexing="ij")
        say(f"hop {depth} of {max_hops}: {items.size:,} responses, equal requests merged")
        tree.require(items.ravel(), nodes.ravel())
    made = [
        {(source.generator.reads(m, context), settings): one for context, settings, one in tree.generations(m)}
        for m in range(len(tree.models))
    ]
    speed = {name: speed_of(of.values()) for name, of in zip(tree.models, made, strict=True)}
    keys_of = {
        name: [transition_key(fingerprints[name], settings, context) for context, settings in of]
        for name, of in zip(tree.models, made, strict=True)
    }
    keys = [key for of_model in keys_of.values() for key in of_model]
    tree.timing = tuple(timing_of_answers(name, kept.provenance(of)) for name, of in keys_of.items())
    manifest = {
        **provenance(),
        "command": _command(pool, suite, tasks, include, max_hops, limit),
        "files": _files(folder, pool, suite, () if suite else tasks, include),
        "suite": source.suite,
        "suite_version": source.description["suite_version"],
        "models": fingerprints,
        "tasks": source.description["tasks"],
        "limit": limit,
        "sandbox": graded,
        "origins": [{"responses": number, **(how or {})} for number, how in kept.provenance(keys)],
        "counts": {
            "items": len(tree.items),
            "transitions": int(tree.known[:, 1:].sum()),
            "distinct_requests": len(keys),
            "distinct_contexts": len(tree.contexts),
            "tokens_in": sum(model["tokens_in"] for model in speed.values()),
            "tokens_out": sum(model["tokens_out"] for model in speed.values()),
        },
        "speed": speed,
        "reused_responses": len(keys) - kept.misses,
        "generation_hours": round(sum(model["seconds"] for model in speed.values()) / 3600, 3),
        "command_hours": round((time.monotonic() - start) / 3600, 3),
    }
    save_recording(tree, source.pool, manifest, folder)
    kept.close()
    return folder


def record_command(options: Record, console: Console) -> Path:
    """Record with a bar; where the recording is."""
    given = {key: value for key, value in vars(options).items() if key != "task"}
    with generation_progress(console) as on_progress:
        return record(
            **given,
            tasks=options.task,
            say=lambda text: console.print(text, highlight=False, markup=False),
            on_progress=on_progress,
        )


def _files(
    folder: Path, pool: str, suite: str | None, tasks: Sequence[str], include_path: Path | None
) -> dict[str, str]:
    """Where the YAML files are that were given, as seen from the recording: it finds them again if all are moved."""
    given = {"pool": pool, "suite": suite or "", **{f"task:{registry.name_of(task)}": task for task in tasks}}
    files = {what: os.path.relpath(path, folder) for what, path in given.items() if registry.is_file(path)}
    return files if include_path is None else {**files, "include_path": os.path.relpath(include_path, folder)}


def _check_replaced(folder: Path, source: Source, limit: int | None) -> None:
    """Raise UserError if another recording is in the folder than an earlier one of the same."""
    if not (folder / "manifest.json").is_file():
        return
    there = load_recording(folder)
    earlier, suite, hops = there.manifest.get("limit"), there.manifest.get("suite"), there.tree.max_hops
    tasks, asked = (list(dict.fromkeys(item.task for item in tree.items)) for tree in (there.tree, source.tree))
    has = (there.pool.name, suite, set(tasks), earlier, hops)
    if has != (source.pool.name, source.suite, set(asked), limit, source.tree.max_hops):
        raise UserError(
            f"{folder} holds a recording of pool {there.pool.name} on {', '.join(tasks)} of suite {suite} with "
            f"--limit {earlier} and {hops} hops, and this one is of another; name another --out, or replace it with "
            "--force"
        )


def _reuse(folder: Path, store: TransitionStore, now: Mapping[str, str]) -> int:
    """Copy what the same models answered in an earlier recording, or an exported store, into the store; how many.

    now: the fingerprints of the models by name. Each response keeps its origin: how it was made. Raises UserError if
    there is none of these models.
    """
    taken = 0
    if folder.suffix == ".parquet":
        import pyarrow.parquet as pq

        store.import_parquet(folder)
        with folder.open("rb") as file:  # pyarrow takes a path with a colon for an address
            names = pq.read_table(file, columns=["fingerprint"])[0].to_pylist()
        taken = sum(name in now.values() for name in names)
    else:
        earlier = load_recording(folder)
        then, origins = earlier.manifest.get("models", {}), earlier.manifest.get("origins")
        for model, name in enumerate(earlier.tree.models):
            if name in now and now[name] == then.get(name):
                template = earlier.pool.models[model].template
                found = earlier.tree.generations(model)
                distinct = {(visible(template, context), settings): one for context, settings, one in found}
                entries = [(*request, one) for request, one in distinct.items()]
                store.put(now[name], entries, {"recording": folder.name, "origins": origins})
                taken += len(entries)
    if not taken:
        raise UserError(
            f"--reuse {folder}: none of its models is one of the pool's as it is now (weights, arguments, template); "
            "omit --reuse, or name the pool that it was recorded with (--pool)"
        )
    return taken


def timing_of_answers(model: str, origins: Sequence[tuple[int, Mapping[str, Any] | None]]) -> Timing:
    """How the seconds of a model's responses were obtained: shares of a batch, unless all origins say the same else."""
    said: set[Timing] = {((how or {}).get("seconds") or {}).get(model, SHARE) for _, how in origins}
    return said.pop() if len(said) == 1 else SHARE


def _command(
    pool: str, suite: str | None, tasks: Sequence[str], include_path: Path | None, max_hops: int, limit: int | None
) -> str:
    """The command that makes the recording again, with no path of this computer in it."""
    files = [Path(task).name if registry.is_file(task) else task for task in tasks]
    folder = None if include_path is None else Path(include_path.name)
    words = [command_to_record(Path(pool).name, None if suite is None else Path(suite).name, files, folder)]
    words += ["--max-hops", str(max_hops)]
    words += [] if limit is None else ["--limit", str(limit)]
    return " ".join([*words, "--weights DIR"])


def speed_of(made: Collection[Generation]) -> dict[str, float]:
    """One model's distinct requests, their tokens and seconds, and tokens a second, read and written together."""
    tokens_in, tokens_out = sum(one.tokens_in for one in made), sum(one.tokens_out for one in made)
    seconds = round(sum(one.seconds for one in made), 1)
    return {
        "requests": len(made),
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "seconds": seconds,
        "tokens_per_second": round((tokens_in + tokens_out) / seconds, 1) if seconds else 0.0,
    }
