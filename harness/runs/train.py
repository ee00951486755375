"""Train a router that learns. What `harness.train` and `python -m harness train` do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from harness.evaluation.evaluate import evaluate
from harness.runs.config import LIVE_STORE, TRACKING
from harness.runs.kept import file_name
from harness.runs.manifest import package_versions
from harness.runs.progress import generation_progress
from harness.runs.routers import RunRouter
from harness.runs.source import Source, choose_sandbox, open_source, prices_of
from pools.cost import COST_WEIGHT
from pools.errors import UserError
from pools.models.progress import Progress
from routers import RouterRequest
from routers.checkpoint import check_replaced, state_beside, state_path
from routers.encoders.base import ENCODERS
from routers.options import parse_arguments
from routers.registry import (
    Taught,
    header_of,
    learns,
    options_asked,
    registered_name,
    router_options,
    row_name,
    teach,
)
from routers.router import Report, Training
from routers.tracking import Tracking, log_checkpoint, tracked, tracking_asked

if TYPE_CHECKING:
    from harness.runs.config import Train


def train(
    router: str | type = "hierrouter",
    recording: Path | str | None = None,
    *,
    pool: str | None = None,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    include_path: Path | str | None = None,
    live: bool = False,
    weights: Path | str | None = None,
    store: Path | str = LIVE_STORE,
    sandbox: str = "auto",
    limit: int | None = None,
    max_hops: int | None = None,
    allow_stop: bool = True,
    preset: Literal["default", "paper"] = "default",
    cost: str = "paper",
    cost_weight: float = COST_WEIGHT,
    cost_weights: Sequence[float] = (),
    latency_weight: float = 0.0,
    router_args: Mapping[str, Any] | None = None,
    encoder: str = "hashing",
    seed: int = 1,
    out: Path | str | None = None,
    resume: bool = False,
    force: bool = False,
    track: Tracking | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Progress | None = None,
    report: Report | None = None,
) -> Taught:
    """Train a router on the train items of a recording, or of live models, and choose on the validation items.

    The parameters are the options of `python -m harness train`. With `out` the checkpoint is written there. track:
    where wandb logs it. say: is told what takes a while; on_progress: of live models, as
    `pools.models.progress` has it; report: how far a long training is.
    Raises UserError for a router that learns nothing, for what is not there, and, without `force`, for a checkpoint of
    another training that is at `out`.
    """
    recording, weights, out, include = (None if p is None else Path(p) for p in (recording, weights, out, include_path))
    if not learns(router):
        raise UserError(f"router {router} learns nothing, so there is nothing to train; run it as it is")
    ENCODERS.find(encoder)  # one in a file is known from here on, to checkpoints, too
    known = {option.name for option in router_options(router)}
    options = {key: given for key, given in (("encoder", encoder), ("preset", preset)) if key in known}
    asked = {**options, **(router_args or {})}
    options_asked(router, asked)  # a wrong one is refused before anything is read
    state = state_beside(out, resume)
    if live:
        choose_sandbox(sandbox, say)
    source = open_source(
        pool=pool, suite=suite, tasks=tasks, include_path=include, recording=recording, live=live, weights=weights,
        store=Path(store), limit=limit, max_hops=max_hops, cost=cost, on_progress=on_progress,
    )  # fmt: skip
    prices = prices_of(latency_weight, [cost_weight, *cost_weights], False, source)
    tree = source.tree if prices is None else source.tree.charged(*prices)
    items, validation = tree.select("train"), tree.select("validation")
    name, facts = registered_name(router), training_facts(source, tasks, limit)
    settings = {
        "router": name,
        "seed": seed,
        "cost_weight": cost_weight,
        "cost_weights": cost_weights,
        **asked,
        **facts,
    }
    usual = f"{name} on {source.description.get('recording', 'live models')}, seed {seed}"
    request = RouterRequest(
        models=source.tree.models,
        max_hops=source.tree.max_hops,
        allow_stop=allow_stop,
        cost_model=source.tree.cost_model,
        cost_weight=cost_weight if prices is None else 1.0,
        cost_weights=tuple(cost_weights),
        prices=prices,
        seed=seed,
        weights=weights,
        train=items,
        validation=validation,
        training=Training(state=state, resume=resume, report=report, facts=facts),
    )
    if out is not None and not force:
        check_replaced(out, header_of(router, request, asked))
    going_on = f", going on from {state}" if resume else ""
    called = row_name(router) if isinstance(router, str) else name
    say(f"training {called} on {len(items.items)} items{going_on} ...")
    with (
        nullcontext() if track is None else tracked(track, "train", usual, f"{name} on {source.suite}", settings) as run
    ):
        log = None if run is None else lambda _, step, figures: run.log(dict(figures), step=step)
        taught = teach(router, replace(request, training=replace(request.training, log=log)), asked)
        if out is not None:
            taught.save(out)
            if run is not None:
                log_checkpoint(run, out, f"{name}-{source.pool.name}-{source.suite}", taught.header.model_dump())
        if validation.complete and validation.items:
            attained, unit = evaluate(taught.router, validation), validation.cost_model.unit
            figures = f"quality {attained.quality.mean():.3f}"
            figures += f", cost {attained.cost.mean():.3g} {unit} per item" if unit else ""
            say(f"on {len(validation.items)} validation items, which it may have been chosen on: {figures}")
            if run is not None:
                run.summary["validation/quality"] = float(attained.quality.mean())
                run.summary.update({"validation/cost": float(attained.cost.mean())} if unit else {})
    return taught


def training_facts(source: Source, tasks: Sequence[str], limit: int | None) -> dict[str, Any]:
    """What a checkpoint says of its training, for people: where the items are from, and the versions of packages.

    The date and the command would make equal trainings differ; these do not.
    """
    selection = {key: given for key, given in (("task", list(tasks)), ("limit", limit)) if given}
    return {"source": source.description, "versions": package_versions(), "selection": selection}


def training_command(router: RunRouter, asked_for: Mapping[str, Any]) -> str:
    """The command that trains again what a run trained. asked_for: the run's arguments."""
    assert router.taught is not None
    problem, options = router.taught.header.problem, dict(router.options)
    said: list[object] = ["--router", router.given]
    if asked_for["train_on"] is not None:
        said += ["--recording", asked_for["train_on"]]
    else:
        chosen = {name: asked_for[name] for name in ("recording", "pool", "suite", "limit", "include_path")}
        said += [part for name, at in chosen.items() if at is not None for part in (f"--{name.replace('_', '-')}", at)]
        said += ["--task", *asked_for["task"]] if asked_for["task"] else []
    said += ["--max-hops", problem.max_hops, "--cost", asked_for["cost"]]
    said += [] if asked_for["allow_stop"] else ["--no-allow-stop"]
    said += ["--preset", preset] if (preset := options.pop("preset", "default")) != "default" else []
    said += ["--encoder", encoder] if (encoder := options.pop("encoder", "hashing")) != "hashing" else []
    own = ",".join(f"{name}={given}" for name, given in options.items())
    said += ["--router-args", own] if own else []
    said += ["--cost-weight", asked_for["cost_weight"][0] if problem.prices else problem.cost_weight]
    said += ["--cost-weights", *problem.cost_weights] if problem.cost_weights else []
    said += ["--latency-weight", asked_for["latency_weight"]] if problem.prices else []
    said += ["--seed", router.seed, "--out", f"{file_name(router.name)}-{router.seed}.safetensors"]
    return shlex.join(["python", "-m", "harness", "train", *map(str, said)])


def train_command(options: Train, console: Console) -> Path:
    """Train with a bar, and write the checkpoint; where it is."""
    of_the_command = ("task", "router_args", "total_timesteps", "out", *TRACKING)
    steps = {} if options.total_timesteps is None else {"total_timesteps": options.total_timesteps}
    out = options.out or Path("runs") / f"{registered_name(options.router)}.safetensors"
    state = state_path(out)
    before = state.stat().st_mtime_ns if state.exists() else None
    try:
        with generation_progress(console) as on_progress:
            train(
                **{key: given for key, given in vars(options).items() if key not in of_the_command},
                tasks=options.task,
                track=tracking_asked(options),
                router_args={**steps, **parse_arguments(options.router_args)},
                out=out,
                say=lambda text: console.print(text, highlight=False, markup=False),
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        written = state.exists() and state.stat().st_mtime_ns != before
        again = "the same command" if options.resume else "start it again"
        how = f"--resume goes on from {state}" if written else f"nothing was written yet: {again}"
        raise KeyboardInterrupt(how) from None
    return out
