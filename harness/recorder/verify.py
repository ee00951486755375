"""Generate a sample of a recording again, with the models themselves, and compare the responses.

lm-eval returns text, so what is compared is text: equal texts of one tokenizer are as good as equal tokens. The token
counts, which every cost is made of, are compared too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
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
    fingerprints,
    recorded_pool,
    recorded_suite,
    recording_folder,
    scorer,
)
from pools.data.recording import load_recording
from pools.errors import UserError, shown
from pools.files import check_out_file
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.pool import load_pool
from pools.types import Generation
from tasks import chosen_suite

if TYPE_CHECKING:
    from harness.recorder.config import Verify


@dataclass(frozen=True)
class Compared:
    """A transition as it was recorded, and as it comes out now.

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

    It holds if at least `options.at_least` of the responses are the same text, every recorded score is what the task
    gives the recorded response, and tokens are counted as recorded. Nothing is read from a transition store.
    """
    if options.sample < 1:
        raise UserError(f"--sample {options.sample}: expected at least 1")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {shown(options.seed)}: expected a whole number >= 0, and below 2**32")
    check_out_file(options.out, options.force)
    if not 0 <= options.at_least <= 1:
        raise UserError(f"--at-least {options.at_least}: expected a share, from 0 to 1")
    check_weights_folder(options.weights)
    folder = options.recording or recording_folder(options.pool or DEFAULT_POOL, options.suite or DEFAULT_SUITE)
    recording = load_recording(folder)
    tree = recording.tree
    if recording.pool.billed:
        raise UserError(f"{folder} is a table of outcomes that was imported: there are no models to ask again")
    pool = load_pool(options.pool or recorded_pool(recording, folder))
    if pool.model_names != recording.pool.model_names:
        raise UserError(f"pool {pool.name} is not what {folder} was recorded with; name that pool's file (--pool)")
    sample = draw(tree, options.sample, options.seed)
    if options.suite or options.task:
        tasks = chosen_suite(options.suite, options.task, options.include_path).load()
    else:
        tasks = recorded_suite(recording, folder, options.include_path).load()
    now = fingerprints(pool, tasks, options.weights)
    _check_same("task", {tree.items[i].task for i, _ in sample}, now["tasks"], recording.manifest.get("tasks", {}))
    _check_same("model", pool.model_names, now["models"], recording.manifest.get("models", {}))
    choose_sandbox(options.sandbox, lambda text: console.print(text, highlight=False, markup=False))
    with generation_progress(console) as on_progress:
        generated = regenerate(tree, sample, LiveGenerator(pool, options.weights, resident=1, progress=on_progress))
    score = scorer(tasks)
    recorded = [tree.generation(i, n) for i, n in sample]
    items = [tree.items[i] for i, _ in sample]
    rescored = score([(item, made.response) for item, made in zip(items, recorded, strict=True)])
    new_scores = score([(item, made.response) for item, made in zip(items, generated, strict=True)])
    compared = [
        Compared(
            task=item.task,
            doc_id=item.doc_id,
            pipeline=tuple(tree.models[a] for a in tree.pipeline(n)),
            recorded=before.response,
            generated=after.response,
            score=float(tree.score[i, n]),
            rescored=rescored[k],
            new_score=new_scores[k],
            tokens=(before.tokens_in, before.tokens_out),
            new_tokens=(after.tokens_in, after.tokens_out),
        )
        for k, ((i, n), item, before, after) in enumerate(zip(sample, items, recorded, generated, strict=True))
    ]
    differ = [one for one in compared if one.text_differs or one.score_differs or one.tokens_differ]
    total = len(compared)
    equal = 1 - sum(one.text_differs for one in differ) / total
    scores_equal = total - sum(one.score_differs for one in differ)
    counts_equal = total - sum(one.tokens_differ for one in differ)
    holds = equal >= options.at_least and scores_equal == counts_equal == total
    only_texts = not holds and scores_equal == counts_equal == total
    why = "; only texts differ, as other batches can make them: see --at-least" if only_texts else ""
    console.print(_per_model(tree.models, compared))
    if differ:
        console.print(_listed(differ))
    console.print(
        f"{folder}: {equal:.1%} of {total} responses equal (asked for: {options.at_least:.0%}), "
        f"{scores_equal} of {total} scores re-computed equal, {counts_equal} of {total} token counts: "
        f"the recording {'holds' if holds else 'does NOT hold'}{why}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if equal < options.at_least and total * (1 - options.at_least) < 1:
        console.print(
            f"of a sample of {total} one other text is too many for {options.at_least:.0%}: take a larger --sample",
            highlight=False,
        )
    if options.out is not None:
        report = {
            **provenance(),
            "recording": folder.name,
            "sample": total,
            "seed": options.seed,
            "equal": equal,
            "scores_equal": scores_equal,
            "token_counts_equal": counts_equal,
            "holds": holds,
            "differ": [asdict(one) for one in differ],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(report, options.out)
    return holds


def draw(tree: Tree, number: int, seed: int) -> list[tuple[int, int]]:
    """`number` different transitions `(item, node)`, each as likely as any other; all of them if there are fewer."""
    known = np.argwhere(tree.known)
    known = known[known[:, 1] > 0]  # the root is no transition
    chosen = np.random.default_rng(seed).permutation(len(known))[:number]
    return [(int(i), int(n)) for i, n in known[np.sort(chosen)]]


def regenerate(tree: Tree, sample: list[tuple[int, int]], generator: LiveGenerator) -> list[Generation]:
    """What each transition's model answers the recorded context before it, in the order of the sample."""
    asked = defaultdict(list)
    for i, n in sample:
        asked[int(tree.action(n))].append((tree.context(i, int(tree.parent(n))), tree.items[i].settings))
    made = {model: iter(generator.generate(model, asked[model])) for model in sorted(asked)}
    return [next(made[int(tree.action(n))]) for _, n in sample]


def _check_same(what: str, names: Iterable[str], now: Mapping[str, str], then: Mapping[str, str]) -> None:
    """Raise UserError if a fingerprint is missing, or another one than when it was recorded.

    Of scoring, a task's fingerprint knows the functions that the configuration names, not what these call: a change
    there shows in the scores that are computed anew.
    """
    for name in sorted(names):
        if name not in now or now[name] != then.get(name):
            of = {"task": "configuration, items", "model": "weights, arguments, template"}[what]
            raise UserError(
                f"{what} {name} is missing or another one than was recorded ({of}); name the pool and the suite that "
                "were recorded (--pool, --suite, --weights), or record anew"
            )


def _per_model(models: Sequence[str], compared: Sequence[Compared]) -> Table:
    table = Table("model", "compared", "equal", title="generated again")
    for name in models:
        differs = [one.text_differs for one in compared if one.pipeline[-1] == name]
        table.add_row(escape(name), f"{len(differs)}" if differs else "not sampled", f"{differs.count(False)}")
    return table


def _listed(differ: Sequence[Compared]) -> Table:
    table = Table("item", "pipeline", "recorded", "generated", "score", title="what differs")
    for one in differ:
        equal = takewhile(lambda pair: pair[0] == pair[1], zip(one.recorded, one.generated, strict=False))
        start = max(0, len(list(equal)) - 15)
        scores = f"{one.score:g} -> {one.new_score:g}"
        if one.score_differs:
            scores += f" (recorded response now scores {one.rescored:g})"
        if one.tokens_differ:
            scores += f" (tokens {one.tokens} recorded, {one.new_tokens} counted)"
        table.add_row(
            f"{one.task} {one.doc_id}",
            escape(" > ".join(one.pipeline)),
            *(escape(repr(text[start : start + 40])) for text in (one.recorded, one.generated)),
            scores,
        )
    return table
