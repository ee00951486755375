"""Generate a sample of a recording again, with the models themselves, and compare the responses.

lm-eval returns text, so what is compared is text: equal texts of one tokenizer are as good as equal tokens. The token
counts, which every cost is made of, are compared too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.runs.manifest import provenance, write_json
from harness.runs.progress import generation_progress
from harness.runs.source import (
    DEFAULT_POOL,
    DEFAULT_SUITE,
    check_weights_folder,
    choose_sandbox,
    recording_folder,
    scorer,
    suite_of,
    suite_tasks,
)
from pools.data.recording import Recording, load_recording
from pools.errors import UserError, shown
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.pool import load_pool
from pools.types import Generation
from tasks import Task, load_suite

if TYPE_CHECKING:
    from harness.recorder.config import Verify


@dataclass(frozen=True)
class Flip:
    """A transition that came out differently, or whose recorded score is not what its task gives now.

    recorded, generated: the two responses. score: as recorded. rescored: of the recorded response, computed anew.
    new_score: of the new response. tokens, new_tokens: read and written, as recorded and now.
    """

    task: str
    doc_id: int
    pipeline: tuple[str, ...]
    recorded: str
    generated: str
    score: float
    rescored: float
    new_score: float
    tokens: tuple[int, int]
    new_tokens: tuple[int, int]

    @property
    def text_differs(self) -> bool:
        """Whether the response is another one."""
        return self.recorded != self.generated

    @property
    def score_differs(self) -> bool:
        """Whether the recorded response's score is not what its task gives it now."""
        return abs(self.rescored - self.score) > 1e-6

    @property
    def tokens_differ(self) -> bool:
        """Whether the same context, or the same response, is counted as another number of tokens."""
        return self.tokens[0] != self.new_tokens[0] or (not self.text_differs and self.tokens[1] != self.new_tokens[1])


def verify(options: Verify, console: Console) -> bool:
    """Compare, print what differs, and say whether the recording holds.

    It holds where at least `options.at_least` of the responses are the same text, every recorded score is what the task
    gives the recorded response, and tokens are counted as recorded. Nothing is read from a transition store.
    """
    if options.sample < 1:
        raise UserError(f"--sample {options.sample}: expected at least 1")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {shown(options.seed)}: expected a whole number >= 0, and below 2**32")
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder; name a file")
    if not 0 <= options.at_least <= 1:
        raise UserError(f"--at-least {options.at_least}: expected a share, from 0 to 1")
    check_weights_folder(options.weights)
    asked = (
        DEFAULT_POOL if options.pool is None else options.pool,
        DEFAULT_SUITE if options.suite is None else options.suite,
    )
    folder = options.recording or recording_folder(*asked)
    recording = load_recording(folder)
    tree = recording.tree
    if recording.manifest.get("single_hop"):
        raise UserError(f"{folder} is a table of outcomes that was imported: there are no models to ask again")
    pool = load_pool(recording.pool.name if options.pool is None else options.pool)
    if pool.model_names != recording.pool.model_names:
        raise UserError(
            f"pool {options.pool or pool.name} is not what {folder} was recorded with; name that pool's file (--pool)"
        )
    if tree.max_hops < 1 or not tree.known[:, 1:].any():
        raise UserError(f"{folder} holds no response that could be generated again; name another recording")
    sample = draw(tree, options.sample, options.seed)
    tasks = suite_tasks(load_suite(suite_of(recording, folder) if options.suite is None else options.suite))
    _check_tasks(recording, tasks, {tree.items[i].task for i, _ in sample}, folder)
    choose_sandbox(options.sandbox, lambda text: console.print(text, highlight=False))
    with generation_progress(console) as on_batch:
        generator = LiveGenerator(pool, options.weights, resident=1, progress=on_batch)
        _check_fingerprints(recording, {m.name: pool.fingerprint(m, options.weights) for m in pool.models}, folder)
        generated = regenerate(tree, sample, generator)
    score = scorer(tasks)
    recorded = [tree.generation(i, n) for i, n in sample]
    items = [tree.items[i] for i, _ in sample]
    rescored = score([(item, made.response) for item, made in zip(items, recorded, strict=True)])
    new_scores = score([(item, made.response) for item, made in zip(items, generated, strict=True)])
    compared = [
        Flip(
            task=item.task,
            doc_id=item.doc_id,
            pipeline=tuple(tree.models[a] for a in tree.pipeline(n)),
            recorded=then.response,
            generated=now.response,
            score=float(tree.score[i, n]),
            rescored=rescored[k],
            new_score=new_scores[k],
            tokens=(then.tokens_in, then.tokens_out),
            new_tokens=(now.tokens_in, now.tokens_out),
        )
        for k, ((i, n), item, then, now) in enumerate(zip(sample, items, recorded, generated, strict=True))
    ]
    differ = [flip for flip in compared if flip.text_differs or flip.score_differs or flip.tokens_differ]
    flips = [flip for flip in differ if flip.text_differs]
    wrong = sum(flip.score_differs for flip in differ)
    miscounted = sum(flip.tokens_differ for flip in differ)
    equal = 1 - len(flips) / len(sample)
    for table in (_per_model(tree, sample, flips), *([_listed(differ)] if differ else [])):
        console.print(table)
    holds = equal >= options.at_least and not wrong and not miscounted
    console.print(
        f"{folder.name}: {equal:.1%} of {len(sample)} responses equal (asked for: "
        f"{options.at_least:.0%}), {len(sample) - wrong} of {len(sample)} scores re-computed equal, "
        f"{len(sample) - miscounted} of {len(sample)} token counts: "
        + ("the recording holds" if holds else "the recording does NOT hold"),
        highlight=False,
        markup=False,
    )
    if options.out is not None:
        report = {
            **provenance(),
            "recording": folder.name,
            "sample": len(sample),
            "seed": options.seed,
            "equal": equal,
            "scores_equal": len(sample) - wrong,
            "token_counts_equal": len(sample) - miscounted,
            "holds": holds,
            "differ": [asdict(flip) for flip in differ],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(report, options.out)
    return holds


def draw(tree: Tree, number: int, seed: int) -> list[tuple[int, int]]:
    """`number` different transitions `(item, node)`, each as likely as any other; all of them where there are fewer."""
    known = np.argwhere(tree.known)
    known = known[known[:, 1] > 0]  # the root is no transition
    chosen = np.random.default_rng(seed).permutation(len(known))[:number]
    return [(int(i), int(n)) for i, n in known[np.sort(chosen)]]


def regenerate(tree: Tree, sample: list[tuple[int, int]], generator: LiveGenerator) -> list[Generation]:
    """What each transition's model answers the recorded context before it, in the order of the sample."""
    answers: dict[int, Generation] = {}
    for model in range(len(tree.models)):
        mine = [k for k, (_, n) in enumerate(sample) if int(tree.action(n)) == model]
        requests = [(tree.context(sample[k][0], int(tree.parent(sample[k][1]))), tree.items[sample[k][0]].settings)
                    for k in mine]  # fmt: skip
        if requests:
            answers |= zip(mine, generator.generate(model, requests), strict=True)
    return [answers[k] for k in range(len(sample))]


def _check_tasks(recording: Recording, tasks: Sequence[Task], asked: set[str], folder: Path) -> None:
    """Raise UserError where a task is missing, or its items or its configuration are not those that were recorded.

    Of scoring, the fingerprint knows the functions that the configuration names, not what these call: a change there
    shows in the scores that are computed anew.
    """
    now = {task.name: task.fingerprint for task in tasks if task.name in asked}
    then = recording.manifest.get("tasks", {})
    changed = sorted(name for name in asked if name not in now or now[name] != then.get(name))
    if changed:
        raise UserError(
            f"task {changed[0]} is missing or another one than when {folder.name} was recorded (its configuration or "
            "its items changed); name the suite that was recorded (--suite), or record anew"
        )


def _check_fingerprints(recording: Recording, now: dict[str, str], folder: Path) -> None:
    """Raise UserError where a model's weights, arguments or template are not those that were recorded."""
    then = recording.manifest.get("models", {})
    changed = [name for name, fingerprint in now.items() if then.get(name) != fingerprint]
    if changed:
        raise UserError(
            f"{changed[0]} is another model now than when {folder.name} was recorded (weights, arguments or template); "
            "use those of the recording, or record anew"
        )


def _per_model(tree: Tree, sample: list[tuple[int, int]], flips: list[Flip]) -> Table:
    table = Table("model", "compared", "equal", title="generated again")
    for index, name in enumerate(tree.models):
        compared = sum(int(tree.action(n)) == index for _, n in sample)
        flipped = sum(flip.pipeline[-1] == name for flip in flips)
        table.add_row(escape(name), f"{compared}", f"{compared - flipped}")
    return table


def _listed(differ: list[Flip]) -> Table:
    table = Table("item", "pipeline", "recorded", "generated", "score", title="what differs")
    for flip in differ:
        first = next((k for k, (a, b) in enumerate(zip(flip.recorded, flip.generated, strict=False)) if a != b), None)
        start = max(0, (min(len(flip.recorded), len(flip.generated)) if first is None else first) - 15)
        scores = f"{flip.score:g} -> {flip.new_score:g}"
        if flip.score_differs:
            scores += f" (recorded response now scores {flip.rescored:g})"
        if flip.tokens_differ:
            scores += f" (tokens {flip.tokens} recorded, {flip.new_tokens} counted)"
        table.add_row(
            f"{flip.task} {flip.doc_id}",
            escape(" > ".join(flip.pipeline)),
            *(escape(repr(text[start : start + 40])) for text in (flip.recorded, flip.generated)),
            scores,
        )
    return table
