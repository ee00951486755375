"""Ask everything of every router, in parallel and resumable: `harness.stress` and `python -m harness stress`."""

from __future__ import annotations

import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.robustness.card import FORMAT, RESULT, Card, read_card, router_card
from harness.robustness.scenarios import AS_TRAINED, QUESTIONS, Omitted, Scenario, Trees, scenarios
from harness.robustness.tables import stress_grids
from harness.robustness.trial import Asked, Trial, trial
from harness.runs.manifest import Provenance, git_commit, provenance, write_json, write_text
from harness.runs.progress import trial_progress
from harness.runs.routers import options_of_learners
from harness.runs.run import new_folder, read_router_args
from harness.runs.source import Source, open_source
from harness.tables.export import markdown
from harness.tables.terminal import tables
from pools.cost import COST_WEIGHT
from pools.errors import UserError
from pools.files import finish_moving, whole_file, whole_folder
from pools.secrets import clean
from pools.types import content_hash
from routers.registry import options_asked, row_name

if TYPE_CHECKING:
    from harness.robustness.config import Stress

TRIALS = "trials"
"""Folder of the trials that are done, in that of a card that is not."""
Told = Callable[[int, int, str], None]
"""Is told how many trials are done, of how many, and which came last; before the first, with an empty name."""


@dataclass(frozen=True)
class Problem:
    """What the trials are of; hashable, so that a process opens it once."""

    recording: Path | None
    cost: str
    max_hops: int | None
    only: tuple[str, ...]
    seed: int


def stress(
    routers: str | Sequence[str] = "hierrouter",
    recording: Path | str | None = None,
    *,
    only: Sequence[str] = (),
    cost: str = "paper",
    cost_weight: float = COST_WEIGHT,
    max_hops: int | None = None,
    router_args: Mapping[str, Mapping[str, Any]] | None = None,
    encoder: str = "hashing",
    weights: Path | str | None = None,
    seed: int = 1,
    processes: int = 1,
    keep: Path | str | None = None,
    on_trial: Told = lambda done, of, last: None,
) -> Card:
    """Ask of routers what a team asks before one goes live; docs/reference/stress.md says what each figure means.

    routers: names; the best single model on the train items is beside them. only: some of the questions `tasks`,
    `kinds`, `items`, `retired`, `new`, `prices`, `wording`, `seeds`. processes: how many trainings run at a time.
    keep: folder that keeps every trial, so that a call that was stopped goes on from there. on_trial: is told of each,
    and how many there are before the first.
    The others are as of `harness.evaluate`.
    Raises UserError for what is not there, or does not fit together.
    """
    start = time.monotonic()
    names = [routers] if isinstance(routers, str) else list(routers)
    if unknown := [each for each in only if each not in QUESTIONS]:
        raise UserError(f"--only {unknown[0]}: expected some of {', '.join(QUESTIONS)}")
    problem = Problem(None if recording is None else Path(recording), cost, max_hops, tuple(only), seed)
    source, known, made, omitted = _opened(problem)
    if not (known.train.items and known.test.items):
        raise UserError("stress takes a recording with train and test items; this one lacks some")
    singles = known.train.score[:, known.train.level(1)] - cost_weight * known.train.cost[:, known.train.level(1)]
    names.append(f"single:{known.test.models[int(singles.mean(axis=0).argmax())]}")
    rows = {row_name(name): name for name in names}
    own = {row_name(name): given for name, given in (router_args or {}).items()}
    options = options_of_learners(rows, {"encoder": encoder}, own)
    folder = None if weights is None else Path(weights)
    asked = {row: Asked(name, options.get(row, {}), cost_weight, seed, folder) for row, name in rows.items()}
    for row, name in rows.items():  # a name or an option that is not there is found before anything is trained
        if row in options:
            options_asked(name, options[row])
        else:
            asked[row].knowing(known)
    if len(made) == 1:
        raise UserError(f"nothing that is asked can be asked of this recording: {'; '.join(map(str, omitted))}")
    with tempfile.TemporaryDirectory() if keep is None else nullcontext(keep) as kept:
        trials = _trials(asked, problem, [s.key for s in made], Path(kept), processes, on_trial)
    cards = {name: router_card(*trials[name], made, len(known.test.items), seed) for name in asked}
    return Card(
        format=FORMAT,
        title=f"{source.pool.name} on {source.suite}: {len(known.test.items)} test items",
        cost_unit=known.test.cost_model.unit,
        cost_weight=cost_weight,
        seed=seed,
        omitted=tuple(map(str, omitted)),
        routers=cards,
        provenance=Provenance(
            **provenance(),
            source=source.description,
            cost_model=known.test.cost_model,
            seconds=round(time.monotonic() - start, 2),
        ),
    )


@lru_cache(maxsize=1)
def _opened(problem: Problem) -> tuple[Source, Trees, list[Scenario], list[Omitted]]:
    source = open_source(recording=problem.recording, cost=problem.cost, max_hops=problem.max_hops)
    known = Trees(*(source.tree.select(split) for split in ("train", "validation", "test")))
    questions = [question for question in QUESTIONS if question in (problem.only or QUESTIONS)]
    return source, known, *scenarios(known, questions, problem.seed)


Found = tuple[dict[str, Trial], dict[str, str]]
"""Trials, and why there is none, by the scenario's key."""


def _trials(
    asked: Mapping[str, Asked],
    problem: Problem,
    keys: Sequence[str],
    keep: Path,
    processes: int,
    on_trial: Told,
) -> dict[str, Found]:
    """All trials of all routers, those that are kept already read back."""
    from joblib import Parallel, delayed

    found: dict[str, Found] = {name: ({}, {}) for name in asked}
    left: list[tuple[str, tuple[str, ...]]] = []
    commit = git_commit()
    paths = {(name, key): _kept(keep, asked[name], problem, key, commit) for name in asked for key in keys}
    for name in asked:
        missing = [key for key in keys if not _read(paths[name, key], key, found[name])]
        left += [(name, part) for part in _jobs(missing, problem)]
    done, of = sum(len(t) + len(c) for t, c in found.values()), len(asked) * len(keys)
    on_trial(done, of, "")
    run = Parallel(n_jobs=processes, return_as="generator_unordered")
    for name, (trials, cannot) in run(delayed(_job)(name, asked[name], problem, part) for name, part in left):
        for key, came in {**trials, **cannot}.items():
            _write(paths[name, key], came)
        found[name][0].update(trials)
        found[name][1].update(cannot)
        done += len(trials) + len(cannot)
        on_trial(done, of, f"{name}: {[*trials, *cannot][-1]}")
    return found


def _jobs(keys: Sequence[str], problem: Problem) -> list[tuple[str, ...]]:
    """What one process does: all that needs the router as trained together, each training by itself."""
    needs = {s.key: s.key == AS_TRAINED or not s.anew for s in _opened(problem)[2]}
    together = tuple(key for key in keys if needs[key])
    return [*([together] if together else []), *((key,) for key in keys if not needs[key])]


def _job(name: str, asked: Asked, problem: Problem, keys: Sequence[str]) -> tuple[str, Found]:
    """Some trials of one router, by the name of its row."""
    from routers._threads import one_thread

    _, known, made, _ = _opened(problem)
    chosen = [scenario for scenario in made if scenario.key in keys]
    trials: dict[str, Trial] = {}
    cannot: dict[str, str] = {}
    with one_thread():
        try:
            as_trained = asked.knowing(known) if any(s.key == AS_TRAINED or not s.anew for s in chosen) else None
        except UserError as error:
            return name, ({}, {scenario.key: str(error) for scenario in chosen})
        for scenario in chosen:
            try:
                trials[scenario.key] = trial(asked, scenario, as_trained)
            except UserError as error:
                cannot[scenario.key] = str(error)
    return name, (trials, cannot)


def _kept(keep: Path, asked: Asked, problem: Problem, key: str, commit: str | None) -> Path:
    """Where a trial is kept: another file for whatever decides it."""
    decides = (asked.name, sorted(map(str, asked.options.items())), asked.cost_weight, asked.seed, asked.weights, key)
    source = _opened(problem)[0]
    of = content_hash(*map(str, decides), source.description, problem.cost, problem.max_hops, commit)
    return keep / f"{of[:32]}.npz"


def _read(path: Path, key: str, found: Found) -> bool:
    """Whether a trial is kept; then it is among those that are found."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError):
        return False
    if "cannot" in kept:
        found[1][key] = str(kept["cannot"])
    else:
        found[0][key] = Trial(**{**kept, "how": str(kept["how"])})
    return True


def _write(path: Path, came: Trial | str) -> None:
    arrays = {"cannot": came} if isinstance(came, str) else vars(came)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def stress_command(options: Stress, console: Console) -> Path:
    """Ask, print the card and write its folder; where it is."""
    given = {name: value for name, value in vars(options).items() if name not in ("processes", "out", "force")}
    texts = {n: " ".join(v) if isinstance(v, tuple) else str(v) for n, v in given.items() if v not in (None, ())}
    asked = {name: clean(text) for name, text in texts.items()}
    was_there = options.out is not None and options.out.exists()
    out = options.out or new_folder("stress")
    check_card_target(out, None if options.force else asked)
    out.mkdir(parents=True, exist_ok=True)
    again = f"--out {shlex.quote(str(out))}"
    try:
        with trial_progress(console, f"trials are kept in {out}; if it is stopped, go on with {again}") as on_trial:
            card = stress(
                options.router,
                options.recording,
                only=options.only,
                cost=options.cost,
                cost_weight=options.cost_weight,
                max_hops=options.max_hops,
                router_args=read_router_args(options.router_args, options.router),
                encoder=options.encoder,
                weights=options.weights,
                seed=options.seed,
                processes=options.processes or cpu_count() or 1,
                keep=out / TRIALS,
                on_trial=on_trial,
            )
    except UserError:
        if not was_there:
            with suppress(OSError):  # trials are in it
                out.rmdir()
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would cut off how the processes end
        raise KeyboardInterrupt(f"go on with the same command and {again}") from None
    write_card(card.model_copy(update={"asked": asked}), out)
    for table in (table for grid in stress_grids(card) for table in tables(grid, console.width)):
        console.print(table, end="\n\n")
    for line in _said(card):
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"\nwritten to {out}", highlight=False, markup=False, soft_wrap=True)
    return out


def check_card_target(folder: Path, asked: Mapping[str, str] | None) -> None:
    """Raise UserError for a file, for a folder that holds something else, and for one that holds another card.

    asked: the options that decide the card; None: any card may be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file; name a folder")
    finish_moving(folder, RESULT)
    if asked is not None and (folder / RESULT).is_file() and read_card(folder).asked != asked:
        raise UserError(f"{folder} holds a card with other options; name another --out, or replace it with --force")
    of_mine = (RESULT, TRIALS, f".{RESULT}.partial")
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in of_mine):
        raise UserError(f"{folder} is there and holds no card; name a new folder, or one that holds a card")


def write_card(card: Card, folder: Path) -> None:
    """Write `stress.json` and `stress.md`; trials that were kept there go, and the page on an earlier card."""
    with whole_folder(folder, RESULT, lambda: (TRIALS, "report.html", "report-figures")) as partial:
        write_text(as_markdown(card), partial / "stress.md")
        write_json(card.model_dump(mode="json"), partial / RESULT)


def as_markdown(card: Card) -> str:
    """The tables, and what they come to in words."""
    return "\n".join([*map(markdown, stress_grids(card)), *(f"- {line}" for line in _said(card)), ""])


def _said(card: Card) -> list[str]:
    """A line of words for each router, where it cannot be had, and what could not be asked."""
    lines = []
    for name, router in card.routers.items():
        lines.append(f"{name}: {'; '.join(router.words)}.")
        for why in dict.fromkeys(router.cannot.values()):
            lines.append(f"{name} cannot be had: {', '.join(k for k, w in router.cannot.items() if w == why)}: {why}.")
    return [*lines, *(f"Left out: {line}." for line in card.omitted)]
