"""The finite tree of every item's MDP, as dense arrays over all items.

An item's tree has `N = 1 + M + ... + M^L` nodes for `M` models and `L` hops. Node 0 is the query; the child of node `n`
under action `a` is `n * M + 1 + a`, so a node's number *is* the pipeline that leads to it, and every step of every
episode is one array gather. The first `1 + M + ... + M^(L-1)` nodes are those where a decision is made.

A recording fills the arrays from the start; over live models `require` generates what is missing, in one batch per
model. No other code knows the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pools.answers import WORD
from pools.cost import MAX_COST, CostModel
from pools.errors import UserError, shown
from pools.types import (
    SHARE,
    Context,
    Generation,
    GenerationSettings,
    Generator,
    Item,
    ParallelGenerator,
    Scorer,
    Split,
    Timing,
    UpstreamError,
    utf8,
)

IntArray = NDArray[np.int64]
_Request = tuple[int, int, GenerationSettings]  # model, context, settings

# The arrays hold 21 bytes a node; more than some gigabytes are a slip of the hand.
MAX_NODES = 200_000_000
MAX_TOKENS = 2**31 - 1


class Tree:
    """All trees of `I` items over `M` models and `L` hops, `N` nodes each.

    Attributes:
        items: the `I` items. models: the `M` names. max_hops: `L`. nodes: `N`. decision_nodes: nodes above the leaves.
        depth: `[N]` hops made at a node.
        known: `[I, N]` whether the hop into the node has been made; the root always is.
        score: float32 `[I, N]` score of the node's last response; 0 at the root, which answers nothing.
        cost: float64 `[I, N]` what the reward charges for the hop into the node; 0 at the root.
        billed: `[I, N]` what the hop cost, by `cost_model` or as it was recorded: the same array as `cost`, but in a
            tree that is `charged` for seconds, too.
        context_id: int32 `[I, N]` index into `contexts`; equal contexts, of whatever item or pipeline, share one. The
            leaves of a cascade or a recording have none (-1) until `context_ids` is asked for them.
        independent: whether the answers are known in advance, because no model reads earlier ones (`cascade`).
        answers: what a response answers, to compare answers by; a kind of `pools.answers`.
        timing: how the seconds of each model's responses were obtained.
    """

    def __init__(
        self,
        items: Sequence[Item],
        models: Sequence[str],
        max_hops: int,
        cost_model: CostModel,
        generator: Generator | None = None,
        scorer: Scorer | None = None,
        answers: str = WORD,
        timing: Sequence[Timing] = (),
    ) -> None:
        if max_hops < 1 or not models:
            raise UserError(f"a tree needs a hop and a model: got max_hops={max_hops} and {len(models)} models")
        self.items, self.models, self.max_hops = tuple(items), tuple(models), max_hops
        self.cost_model, self.answers, self.independent = cost_model, answers, False
        self.timing: tuple[Timing, ...] = tuple(timing) or (SHARE,) * len(models)
        level_sizes, nodes = [1], 1
        for _ in range(max_hops):
            level_sizes.append(level_sizes[-1] * len(models))
            nodes += level_sizes[-1]
            if nodes * max(1, len(items)) > MAX_NODES:
                raise UserError(
                    f"a tree of {max_hops} hops over {len(models)} models and {len(items)} items has more than "
                    f"{MAX_NODES:,} nodes; ask for fewer hops or items"
                )
        self.nodes, self.decision_nodes = sum(level_sizes), sum(level_sizes[:-1])
        self.depth: IntArray = np.repeat(np.arange(max_hops + 1), level_sizes)
        shape = (len(self.items), self.nodes)
        self.known = np.zeros(shape, bool)
        self.known[:, 0] = True
        self.score = np.zeros(shape, np.float32)
        self.cost = self.billed = np.zeros(shape)
        self.context_id = np.full(shape, -1, np.int32)
        self.contexts: list[Context] = []
        self._context_ids: dict[Context, int] = {}
        self._made: list[Generation] = []
        self._made_id = np.full(shape, -1, np.int32)  # of a cascade for the first hop alone
        self._answered: dict[_Request, int] = {}  # what live models were asked
        self._scores: dict[tuple[int, str], float] = {}
        self._generator, self._scorer = generator, scorer
        for index, item in enumerate(self.items):
            utf8("".join((item.query, item.prefill, *item.settings.until)))
            self.context_id[index, 0] = self._intern(Context(item.query, prefill=item.prefill))

    # --- the shape of the tree -----------------------------------------------------------------------------------

    def child(self, nodes: ArrayLike, actions: ArrayLike) -> IntArray:
        """The nodes reached from `nodes` by `actions`, elementwise."""
        return np.asarray(nodes, np.int64) * len(self.models) + 1 + np.asarray(actions, np.int64)

    def parent(self, nodes: ArrayLike) -> IntArray:
        """The nodes that `nodes` were reached from; the root has none and must not be asked for."""
        return (np.asarray(nodes, np.int64) - 1) // len(self.models)

    def action(self, nodes: ArrayLike) -> IntArray:
        """The last model of each node's pipeline; the root has none and must not be asked for."""
        return (np.asarray(nodes, np.int64) - 1) % len(self.models)

    def pipeline(self, node: int) -> tuple[int, ...]:
        """The models that lead to the node, in order."""
        actions: list[int] = []
        while node:
            actions.append((node - 1) % len(self.models))
            node = (node - 1) // len(self.models)
        return tuple(reversed(actions))

    def node(self, pipeline: Iterable[int]) -> int:
        """The node that a pipeline leads to."""
        node = 0
        for action in pipeline:
            node = node * len(self.models) + 1 + action
        return node

    def pipelines(self) -> IntArray:
        """`[N, L]` the models that lead to each node, padded with -1."""
        table = np.full((self.nodes, self.max_hops), -1, np.int64)
        for node in range(self.nodes):
            pipeline = self.pipeline(node)
            table[node, : len(pipeline)] = pipeline
        return table

    def level(self, depth: int) -> IntArray:
        """All nodes that are `depth` hops from the query."""
        return np.flatnonzero(self.depth == depth)

    @property
    def complete(self) -> bool:
        """Whether every node of every item is known, so that expectations over all pipelines can be computed."""
        return bool(self.known.all())

    @property
    def latency(self) -> bool:
        """Whether the seconds of every response are those of its call, and no share of a batch's."""
        return SHARE not in self.timing

    # --- its content ---------------------------------------------------------------------------------------------

    def context(self, item: int, node: int) -> Context:
        """The query and the responses along the node's pipeline."""
        known = int(self.context_id[item, node])
        return self.contexts[known if known >= 0 else int(self.context_ids(item, node))]

    def context_ids(self, items: ArrayLike, nodes: ArrayLike) -> NDArray[np.int32]:
        """Indices into `contexts` of the nodes `(items[k], nodes[k])`, which are known."""
        rows, columns = np.broadcast_arrays(np.asarray(items, np.int64), np.asarray(nodes, np.int64))
        missing = (self.context_id[rows, columns] < 0) & self.known[rows, columns]
        for item, node in zip(rows[missing].tolist(), columns[missing].tolist(), strict=True):  # leaves of a cascade
            above = self.contexts[self.context_id[item, (node - 1) // len(self.models)]]
            extended = above.extended(self.generation(item, node).response)
            self.context_id[item, node] = self._intern(extended)
        return np.asarray(self.context_id[rows, columns])

    def generation(self, item: int, node: int) -> Generation:
        """The hop into the node, which is not the root and is known."""
        column = 1 + (node - 1) % len(self.models) if self.independent else node
        return self._made[self._made_id[item, column]]

    def seconds(self, items: ArrayLike, nodes: ArrayLike) -> NDArray[np.float64]:
        """What the hops into the nodes `(items[k], nodes[k])` took, which are known; 0 at the root."""
        rows, columns = np.broadcast_arrays(np.asarray(items, np.int64), np.asarray(nodes, np.int64))
        kept = np.where(columns > 0, 1 + self.action(columns), 0) if self.independent else columns
        made = self._made_id[rows, kept]
        return np.where(columns > 0, np.array([0.0, *(made.seconds for made in self._made)])[made + 1], 0.0)

    def path_seconds(self, items: ArrayLike, nodes: ArrayLike) -> NDArray[np.float64]:
        """What the whole pipelines that lead to the nodes `(items[k], nodes[k])` took, one hop after another."""
        rows, columns = np.broadcast_arrays(np.asarray(items, np.int64), np.asarray(nodes, np.int64))
        total = np.zeros(rows.shape)
        while columns.any():
            total += self.seconds(rows, columns)
            columns = np.where(columns > 0, self.parent(columns), 0)
        return total

    def charged(self, cost_weight: float, latency_weight: float) -> Tree:
        """The tree of a reward that charges for seconds, too: `cost` is then in units of quality.

        `cost_weight * cost + latency_weight * seconds`, so that the reward's one weight is 1; `billed` stays. It shares
        all else with this one, of which every hop that will be asked for is known.
        """
        part, (items, nodes) = copy(self), np.indices(self.known.shape, sparse=True)
        part.cost = cost_weight * self.billed + latency_weight * self.seconds(items, nodes)
        return part

    def generations(self, model: int) -> list[tuple[Context, GenerationSettings, Generation]]:
        """Every response of one model, with the context and the settings it was made for, each once."""
        read = np.arange(1 if self.independent else self.decision_nodes)
        found: dict[_Request, int] = {}
        for item, contexts, made in zip(self.items, self.context_id, self._made_id, strict=True):
            answered = zip(contexts[read].tolist(), made[self.child(read, model)].tolist(), strict=True)
            found.update(((model, c, item.settings), m) for c, m in answered if m >= 0)
        # What was answered before a server failed is in no node yet, and has been paid for.
        found.update((request, made) for request, made in self._answered.items() if request[0] == model)
        return [(self.contexts[c], settings, self._made[m]) for (_, c, settings), m in found.items()]

    def require(self, items: ArrayLike, nodes: ArrayLike) -> None:
        """Make the nodes `(items[k], nodes[k])` known, with all nodes above them.

        Raises UserError if they are missing and there is no live model to ask.
        """
        rows, columns = np.broadcast_arrays(np.asarray(items, np.int64), np.asarray(nodes, np.int64))
        missing = ~self.known[rows, columns]
        if not missing.any():
            return
        wanted = np.unique(np.stack([rows[missing], columns[missing]], axis=-1).reshape(-1, 2), axis=0)
        if self._generator is None or self._scorer is None:
            item, node = self.items[wanted[0, 0]], int(wanted[0, 1])
            names = " > ".join(self.models[a] for a in self.pipeline(node))
            raise UserError(
                f"the recording has no response of {names} to item {item.doc_id} of {item.task} ({len(wanted)} are "
                "missing); record them (python -m harness record) or use the models (--live)"
            )
        levels = [wanted]
        # Nodes of several depths may be asked for at once: only those below the first hop have a hop above them.
        while len(deeper := levels[-1][levels[-1][:, 1] > len(self.models)]):
            levels.append(np.stack([deeper[:, 0], self.parent(deeper[:, 1])], axis=-1))
        path = np.unique(np.concatenate(levels), axis=0)
        for depth in range(1, self.max_hops + 1):
            at_depth = path[(self.depth[path[:, 1]] == depth) & ~self.known[path[:, 0], path[:, 1]]]
            if len(at_depth):
                self._generate(at_depth)

    def _generate(self, wanted: IntArray) -> None:
        """Ask the models for the nodes `wanted` `[K, 2]`, all of one depth, equal requests merged."""
        assert self._generator is not None and self._scorer is not None
        new: dict[int, list[tuple[int, int, GenerationSettings]]] = {}
        for model in range(len(self.models)):
            mine = wanted[self.action(wanted[:, 1]) == model]
            keys = {
                (model, int(self.context_id[item, self.parent(node)]), self.items[item].settings): None
                for item, node in mine
            }
            if missing := [key for key in keys if key not in self._answered]:
                new[model] = missing
        asked = {model: [(self.contexts[context], s) for _, context, s in keys] for model, keys in new.items()}
        try:
            answers_of = _generate_all(self._generator, asked)
        except UpstreamError as error:  # what was answered has been paid for
            for model, some in error.answers.items():
                for key, generation in zip(new[model], some, strict=True):
                    if generation is not None:
                        self._keep(key, generation)
            raise
        for model, made in answers_of.items():
            for key, generation in zip(new[model], made, strict=True):
                self._keep(key, generation)
        found = [self._made[self._answered[self._request(item, node)]] for item, node in wanted]
        answers = {(int(item), made.response): None for (item, _), made in zip(wanted, found, strict=True)}
        unscored = [answer for answer in answers if answer not in self._scores]
        scores = self._scorer([(self.items[item], response) for item, response in unscored])
        self._scores.update(zip(unscored, scores, strict=True))
        for (item, node), generation in zip(wanted, found, strict=True):
            self.put(item, node, generation, self._scores[int(item), generation.response])

    def _request(self, item: int, node: int) -> _Request:
        parent = int(self.context_id[item, (node - 1) // len(self.models)])
        return int((node - 1) % len(self.models)), parent, self.items[item].settings

    def _keep(self, request: _Request, generation: Generation) -> int:
        number = self._answered.get(request)
        if number is None or self._made[number] != generation:
            self._answered[request] = number = len(self._made)
            self._made.append(generation)
        return number

    def put(self, item: int, node: int, generation: Generation, score: float) -> None:
        """Enter the hop into a node whose parent is known. Raises UserError for what no recording holds."""
        _check_score(score)
        model, parent, _ = request = self._request(item, node)
        self.cost[item, node] = self._cost(model, generation)
        self.score[item, node] = score
        self._made_id[item, node] = self._keep(request, generation)
        self.context_id[item, node] = self._intern(self.contexts[parent].extended(generation.response))
        self.known[item, node] = True

    def fill(self, items: IntArray, nodes: IntArray, made: Sequence[Generation], made_id: IntArray, score: Any) -> None:
        """Enter all hops of a recording at once: into node `nodes[k]` of `items[k]` by `made[made_id[k]]`.

        score: `[K]`. The tree is empty, and no node is there twice. Raises UserError for what no recording holds.
        """
        wrong = ~((score >= 0) & (score <= 1))
        if wrong.any():
            _check_score(float(score[wrong][0]))
        self.known[items, nodes] = True
        followed = self.known[items, self.parent(nodes)]
        if not followed.all():
            item = self.items[items[followed.argmin()]]
            raise UserError(f"a response to {item.task} {item.doc_id} lacks the hop before it")
        self._made = list(made)
        self.score[items, nodes], self._made_id[items, nodes] = score, made_id
        pairs, pair = np.unique(self.action(nodes) * len(made) + made_id, return_inverse=True)
        costs = [
            self._cost(int(model), made[int(number)]) for model, number in zip(*divmod(pairs, len(made)), strict=True)
        ]
        self.cost[items, nodes] = np.array(costs)[pair]
        texts: dict[str, int] = {}
        text_id = np.array([texts.setdefault(generation.response, len(texts)) for generation in made])
        responses = list(texts)
        for depth in range(1, self.max_hops):
            here = self.depth[nodes] == depth
            above_id = self.context_id[items[here], self.parent(nodes[here])].astype(np.int64)
            extended, place = np.unique(above_id * len(texts) + text_id[made_id[here]], return_inverse=True)
            ids = [
                self._intern(self.contexts[context].extended(responses[text]))
                for context, text in zip(*(part.tolist() for part in divmod(extended, len(texts))), strict=True)
            ]
            self.context_id[items[here], nodes[here]] = np.array(ids, np.int32)[place]

    def _cost(self, model: int, generation: Generation) -> float:
        """Cost of the hop. Raises UserError for a response that no recording holds."""
        if not 0 <= generation.tokens_in <= MAX_TOKENS or not 0 <= generation.tokens_out <= MAX_TOKENS:
            counts = f"{shown(generation.tokens_in)} and {shown(generation.tokens_out)}"
            raise UserError(f"a response has {counts} tokens, expected whole numbers from 0 to {MAX_TOKENS}")
        cost = self.cost_model.hop_cost(model, generation)
        if not 0 <= cost <= MAX_COST:
            said = f"by the cost model {self.cost_model.name} a response cost {shown(cost)}"
            raise UserError(f"{said}, expected a number from 0 to {MAX_COST:g}")
        utf8(generation.response)
        return cost

    def _intern(self, context: Context) -> int:
        identifier = self._context_ids.setdefault(context, len(self.contexts))
        if identifier == len(self.contexts):
            self.contexts.append(context)
        return identifier

    # --- parts of it ---------------------------------------------------------------------------------------------

    def subset(self, items: ArrayLike) -> Tree:
        """The tree of some of the items, in the order given; it shares nothing that is written to."""
        chosen = np.asarray(items, np.int64)
        part = self._like([self.items[i] for i in chosen], self.max_hops)
        self._copy_into(part, chosen)
        used, local = np.unique(self.context_id[chosen], return_inverse=True)
        part.contexts = [self.contexts[c] for c in used if c >= 0]
        part.context_id[:] = local.reshape(part.context_id.shape) - int(bool(len(used) and used[0] < 0))
        part._context_ids = {context: index for index, context in enumerate(part.contexts)}
        back = {int(c): i for i, c in enumerate(c for c in used if c >= 0)}
        part._made, part._made_id = list(self._made), self._made_id[chosen]
        part._answered = {(m, back[c], s): made for (m, c, s), made in self._answered.items() if c in back}
        place = {int(old): new for new, old in enumerate(chosen)}
        part._scores = {(place[i], r): s for (i, r), s in self._scores.items() if i in place}
        return part

    def _like(self, items: Sequence[Item], max_hops: int) -> Tree:
        live = self._generator, self._scorer
        part = Tree(items, self.models, max_hops, self.cost_model, *live, self.answers, self.timing)
        part.independent = self.independent
        return part

    def _copy_into(self, part: Tree, where: Any) -> None:
        """What is known of some items or nodes, into their tree."""
        for name in ("known", "score", "cost"):
            getattr(part, name)[:] = getattr(self, name)[where]
        if self.billed is not self.cost:
            part.billed = self.billed[where]

    def select(self, split: Split) -> Tree:
        """The tree of one split's items."""
        return self.subset([i for i, item in enumerate(self.items) if item.split == split])

    def shortened(self, max_hops: int) -> Tree:
        """The tree of the first `max_hops` hops. It can still be asked for what is not known.

        Raises UserError if the tree has fewer hops.
        """
        if max_hops > self.max_hops:
            raise UserError(f"a tree of {self.max_hops} hops cannot be shortened to {max_hops}: ask for fewer hops")
        part = self._like(self.items, max_hops)
        self._copy_into(part, np.s_[:, : part.nodes])
        part.context_id[:] = self.context_id[:, : part.nodes]
        part.contexts, part._context_ids = list(self.contexts), dict(self._context_ids)
        part._made, part._made_id = list(self._made), self._made_id[:, : part.nodes].copy()
        part._answered, part._scores = dict(self._answered), dict(self._scores)
        return part

    def of_models(self, models: Sequence[str]) -> Tree:
        """The tree of some of the models, in the order given; of what is known alone, as it asks no model.

        Raises UserError for a model that it has not.
        """
        if unknown := [model for model in models if model not in self.models]:
            raise UserError(f"unknown model {unknown[0]!r}: the pool has {', '.join(self.models)}")
        numbers = np.array([self.models.index(model) for model in models])
        prices = self.cost_model.of(numbers.tolist())
        timing = [self.timing[number] for number in numbers]
        part = Tree(self.items, models, self.max_hops, prices, answers=self.answers, timing=timing)
        part.independent = self.independent
        same = np.zeros(part.nodes, np.int64)  # the node of this tree with the same pipeline
        for depth in range(1, part.max_hops + 1):
            nodes = part.level(depth)
            same[nodes] = self.child(same[part.parent(nodes)], numbers[part.action(nodes)])
        self._copy_into(part, np.s_[:, same])
        part.context_id[:] = self.context_id[:, same]
        part.contexts, part._context_ids = list(self.contexts), dict(self._context_ids)
        made = same[: 1 + len(models)] if self.independent else same
        part._made, part._made_id = list(self._made), self._made_id[:, made]
        return part

    def repriced(self, factors: Mapping[str, float]) -> Tree:
        """The same answers, with the costs of these models times a factor each."""
        of_model = np.array([factors.get(model, 1.0) for model in self.models])
        part = self.subset(np.arange(len(self.items)))
        part.cost_model = self.cost_model.scaled(of_model.tolist())
        part.cost[:, 1:] *= of_model[self.action(np.arange(1, self.nodes))]
        return part

    def at_rates(self, cost_model: CostModel) -> Tree:
        """The same answers, charged by another cost model of the same models.

        Raises UserError if that has no rates and the responses do not say what they cost.
        """
        part = self.subset(np.arange(len(self.items)))
        part.cost_model = cost_model
        part.cost = part.billed = np.zeros(self.known.shape)
        nodes = np.arange(1, self.nodes)
        made = self._made_id[:, 1 + self.action(nodes) if self.independent else nodes]
        for model in range(len(self.models)):
            mine = self.action(nodes) == model
            found, place = np.unique(made[:, mine], return_inverse=True)
            cost = [part._cost(model, self._made[number]) if number >= 0 else 0.0 for number in found.tolist()]
            part.cost[:, nodes[mine]] = np.array(cost)[place].reshape(len(self.items), -1)
        return part

    def reworded(self, queries: Sequence[str]) -> Tree:
        """The same answers to items that are asked in other words, `I` of them; equal queries stay equal."""
        part = self.subset(np.arange(len(self.items)))
        part.items = tuple(replace(item, query=query) for item, query in zip(self.items, queries, strict=True))
        for ids, query in zip(part.context_id, queries, strict=True):
            for context in np.unique(ids[ids >= 0]).tolist():
                part.contexts[context] = replace(part.contexts[context], query=query)
        part._context_ids = {context: index for index, context in enumerate(part.contexts)}
        return part

    def cascade(self, max_hops: int) -> Tree:
        """The tree of `max_hops` hops of models that do not read earlier answers; from a complete tree of one hop.

        A pipeline's score is then its last model's, its cost the sum, and nothing has to be generated: cascades as
        FrugalGPT's (arXiv 2305.05176) over a table of outcomes of one call each.
        """
        models, items = len(self.models), max(1, len(self.items))
        fits, level, nodes = 0, 1, 1
        while fits < max_hops and (nodes + level * models) * items <= MAX_NODES:
            fits, level, nodes = fits + 1, level * models, nodes + level * models
        if fits < max_hops:
            raise UserError(
                f"cascades of {max_hops} hops over {models} models and {items:,} items have more than {MAX_NODES:,} "
                f"nodes; at most {fits} hops fit"
            )
        deep = self._like(self.items, max_hops)
        deep.independent, deep._made, deep._made_id = True, list(self._made), self._made_id[:, : 1 + models]
        deep.known[:] = True
        called = 1 + deep.action(np.arange(1, deep.nodes))
        deep.score[:, 1:], deep.cost[:, 1:] = self.score[:, called], self.cost[:, called]
        # One hop below another: the ids of equal contexts, so that a text is extended once and not at every node.
        for index in range(len(self.items)):
            ids = deep.context_id[index]
            made = [self.generation(index, 1 + model) for model in range(models)]
            below: dict[tuple[int, str], int] = {}
            for node in range(1, deep.decision_nodes):
                key = int(ids[(node - 1) // models]), made[(node - 1) % models].response
                if key not in below:
                    below[key] = deep._intern(deep.contexts[key[0]].extended(key[1]))
                ids[node] = below[key]
        return deep

    def rows(self) -> Iterable[dict[str, Any]]:
        """One row per item and pipeline that was asked for, for a table: the response, by field, and its score."""
        asked = self.depth <= 1 if self.independent else self.depth >= 0
        for index, item in enumerate(self.items):
            for node in np.flatnonzero(self.known[index] & asked)[1:]:
                made = self.generation(index, int(node))
                yield {
                    "task": item.task,
                    "doc_id": item.doc_id,
                    "pipeline": [self.models[a] for a in self.pipeline(int(node))],
                    **vars(made),
                    "score": float(self.score[index, node]),
                }


def _check_score(score: Any) -> None:
    if not isinstance(score, int | float | np.number) or not 0 <= score <= 1:
        raise UserError(f"a score is {shown(score)}, expected a number from 0 to 1")


def _generate_all(
    generator: Generator, asked: Mapping[int, Sequence[tuple[Context, GenerationSettings]]]
) -> dict[int, list[Generation]]:
    """The answers of all models: at the same time, if the generator can."""
    if isinstance(generator, ParallelGenerator):
        return generator.generate_all(asked)
    return {model: generator.generate(model, requests) for model, requests in asked.items()}
